"""Cores: what affinity and the quotas of both versions of cgroups leave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sregistry.system.cores import quota, usable

NONE = 1 << 20
#: /proc/self/cgroup, files below /sys/fs/cgroup, cores.
CASES = {
    "none": ("0::/\n", {}, NONE),
    "no cgroups at all": (None, {}, NONE),
    "no limit": ("0::/\n", {"cpu.max": "max 100000\n"}, NONE),
    "two": ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
    "one and a half": ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
    "a tenth": ("0::/\n", {"cpu.max": "10000 100000\n"}, 0.1),
    "more than there are": ("0::/\n", {"cpu.max": "9900000 100000\n"}, 99),
    "own": ("0::/user.slice/job\n", {"user.slice/job/cpu.max": "300000 100000\n", "user.slice/cpu.max": "max 100000\n"}, 3),
    "above": ("0::/slurm/job_1/step_0\n", {"slurm/job_1/step_0/cpu.max": "max 100000\n", "slurm/cpu.max": "400000 100000\n"}, 4),
    "the least": ("0::/a/b\n", {"a/b/cpu.max": "500000 100000\n", "a/cpu.max": "200000 100000\n"}, 2),
    "a container that sees its host's path": ("0::/docker/0123\n", {"cpu.max": "250000 100000\n"}, 2.5),
    "beside": ("0::/a\n", {"b/cpu.max": "100000 100000\n"}, NONE),
    "version 1": (
        "3:memory:/x\n1:cpu,cpuacct:/x\n",
        {"cpu,cpuacct/x/cpu.cfs_quota_us": "200000\n", "cpu,cpuacct/x/cpu.cfs_period_us": "100000\n"},
        2,
    ),
    "version 1, no limit": ("1:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, NONE),
    "nonsense": ("0::/\n", {"cpu.max": "what\n"}, NONE),
}


@pytest.mark.parametrize("name", CASES)
def test_quotas(tmp_path: Path, name: str) -> None:
    groups, files, cores = CASES[name]
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups)
    for path, text in files.items():
        (tmp_path / "sys/fs/cgroup" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sys/fs/cgroup" / path).write_text(text)
    assert quota(tmp_path) == cores


def test_affinity() -> None:
    first = min(os.sched_getaffinity(0))
    script = f"import os; os.sched_setaffinity(0, [{first}]); from sregistry.system.cores import usable; print(usable())"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "1\n"
    assert 1 <= usable() <= len(os.sched_getaffinity(0))
