"""One run of a peer: what it cost, its whole process tree counted.

| quantity | how |
|---|---|
| wall | from start to exit |
| CPU | rusage of the peer and of all its descendants that were waited for |
| memory, tree | sampled: the largest sum of PSS over the tree, so that shared pages count once |
| memory, process | the largest high-water mark of the resident set (VmHWM) of any one process |
| disk, peak | sampled: the largest growth of the file system in use (statvfs); others' writing counts too |
| disk, left | that growth once the peer has ended |
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.packages import BenchmarkError

#: Seconds between samples of the disk, and how many of them go to one of memory, which costs more.
INTERVAL, MEMORY_EVERY = 0.1, 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a run cost: seconds and bytes."""

    wall: float
    cpu: float
    memory_tree: int
    memory_process: int
    disk_peak: int
    disk_left: int


def run(command: Sequence[str], *, environ: Mapping[str, str], cwd: Path, log: Path) -> Cost:
    """Run a command and measure it.

    Args:
        command: what to start; its output goes to *log*.
        environ: all of its environment.
        cwd: where it runs, on the file system whose growth is measured.

    Raises:
        BenchmarkError: it failed; with the end of its log.
    """
    os.sync()
    before = _used(cwd)
    with log.open("wb") as output:
        start = time.monotonic()
        process = subprocess.Popen(
            command, cwd=cwd, env=dict(environ), stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        sampler = _Sampler(process.pid, cwd)
        sampler.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
        finally:
            sampler.stop()
        wall = time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = log.read_text(errors="replace").strip().splitlines()[-3:]
        raise BenchmarkError(f"{Path(command[0]).name} failed with {process.returncode}: {' / '.join(last)} (log: {log})")
    left = _used(cwd)
    return Cost(
        wall=wall,
        cpu=usage.ru_utime + usage.ru_stime,
        memory_tree=sampler.tree,
        memory_process=sampler.process,
        disk_peak=max(sampler.used, left) - before,
        disk_left=left - before,
    )


def _used(path: Path) -> int:
    """Return the bytes in use of a file system; blocks that are only promised to a file count (ext4)."""
    found = os.statvfs(path)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


class _Sampler(threading.Thread):
    """Watches a process tree and a file system until stopped."""

    def __init__(self, root: int, disk: Path) -> None:
        super().__init__(daemon=True)
        self.tree = self.process = self.used = 0
        self._root, self._disk = root, disk
        #: (pid, start time) of all that were ever seen in the tree: an orphan stays one of it.
        self._family: set[tuple[int, int]] = set()
        self._stopped = threading.Event()

    def run(self) -> None:
        turn = 0
        while not self._stopped.wait(INTERVAL):
            self.used = max(self.used, _used(self._disk))
            if turn % MEMORY_EVERY == 0:
                self._memory()
            turn += 1

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def _memory(self) -> None:
        total = 0
        for pid in self._members():
            resident, highest = _memory(pid)
            total += resident
            self.process = max(self.process, highest)
        self.tree = max(self.tree, total)

    def _members(self) -> list[int]:
        """Return the processes of the tree that live (proc(5), /proc/pid/stat: fields 4 and 22)."""
        processes: dict[int, tuple[int, int]] = {}
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    fields = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                processes[int(name)] = int(fields[1]), int(fields[19])
        members = {pid for pid, (_, start) in processes.items() if (pid, start) in self._family} | {self._root}
        grown = True
        while grown:
            new = {pid for pid, (parent, _) in processes.items() if parent in members and pid not in members}
            members |= new
            grown = bool(new)
        members &= processes.keys()
        self._family = {(pid, processes[pid][1]) for pid in members}
        return list(members)


def _memory(pid: int) -> tuple[int, int]:
    """Return a process's share of memory (PSS; RSS where that may not be read) and its highest RSS, in bytes."""
    try:
        status = _fields(Path(f"/proc/{pid}/status"))
    except OSError:
        return 0, 0
    resident, highest = status.get("VmRSS", 0), status.get("VmHWM", 0)
    try:
        return _fields(Path(f"/proc/{pid}/smaps_rollup")).get("Pss", resident), highest
    except OSError:
        return resident, highest


def _fields(path: Path) -> dict[str, int]:
    """Read lines such as ``VmRSS:  123 kB`` as bytes."""
    found = {}
    for line in path.read_text(errors="replace").splitlines():
        name, _, rest = line.partition(":")
        if rest.endswith(" kB"):
            found[name] = int(rest.split()[0]) * 1024
    return found
