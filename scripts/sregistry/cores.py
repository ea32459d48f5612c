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


def usable(root: Path = Path("/")) -> int:
    """Return the number of cores, 1 at least; a quota of 1.5 makes 2. *root* is where proc and sys are."""
    affinity = len(os.sched_getaffinity(0))
    return max(1, min([affinity, *(math.ceil(share) for share in _shares(root))]))


def _shares(root: Path) -> Iterator[float]:
    """Yield each quota that applies, in cores."""
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
                    quota, period = (place / "cpu.max").read_text().split()
                else:
                    quota, period = ((place / f"cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
            except (OSError, ValueError):
                quota = "max"
            if quota not in ("max", "-1"):
                yield int(quota) / int(period)
            if place == top:
                break
