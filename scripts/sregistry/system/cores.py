"""How many cores this process may use.

Its affinity says which (Slurm, taskset and cpusets set it); a quota of its cgroup, or of one above
it, says how much of them (containers, systemd): `cpu.max` in version 2 (kernel documentation,
cgroup-v2.rst, "CPU Interface Files"), `cpu.cfs_quota_us` in version 1 (sched-bwc.rst).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path


def usable() -> int:
    """Return the number of cores, 1 at least; a quota of 1.5 makes 2."""
    return max(1, min(len(os.sched_getaffinity(0)), math.ceil(quota())))


def quota(root: Path = Path("/")) -> float:
    """Return the least quota that applies, in cores; a large number if none does. *root* is where proc and sys are."""
    return min(_quotas(root), default=float(1 << 20))


def _quotas(root: Path) -> Iterator[float]:
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for number, controllers, path in (line.split(":", 2) for line in lines):
        if number != "0" and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / controllers
        folder = top / path.lstrip("/")
        for place in (folder, *folder.parents):
            try:
                if number == "0":
                    most, period = (place / "cpu.max").read_text().split()
                else:
                    most, period = ((place / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
                if most not in ("max", "-1"):
                    yield int(most) / int(period)
            except (OSError, ValueError):
                pass
            if place == top:
                break
