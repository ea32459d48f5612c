"""Locks that work where flock does not, such as NFS between nodes, and that outlive an owner who died.

```
.<name>.<token>   who: host, process ──link(2)──▶ <name>     the name is there whole or not at all
                  touched while it is held                   free again: both are unlinked
```

Who waits takes the lock over at once if its owner was a process of this machine that is gone, and
otherwise once it has seen no touch for LEASE seconds of its own clock; clocks of nodes are never compared.
The price: an owner that slept for longer may wake up beside its successor, so what a lock protects must
bear two writers of the same thing (see `ingest`, `Store.publish` and `write_atomic`).

Our own, because a lease that is made by O_EXCL and then written (filelock 4.2) stays for ever when its
owner is killed in between, and can't be taken over on NFS, which does not exchange names.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

#: Seconds without a sign of life after which an owner on another machine counts as dead.
LEASE = 60.0
#: Seconds between looks at a lock that somebody holds: the first, and the most.
_POLL, _LONGEST_POLL = 0.005, 0.25


@contextlib.contextmanager
def lease(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock *path*; errors of the body pass unchanged.

    Args:
        path: in a folder that is there.
        wait: else False is yielded at once where another one holds it.

    Raises:
        OSError: the file can't be made.
    """
    own = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    own.write_text(json.dumps({"machine": _machine(), "pid": os.getpid(), "start": _start(os.getpid()), "own": own.name}))
    try:
        if not _acquire(own, path, wait=wait):
            yield False
            return
        stop = threading.Event()
        threading.Thread(target=_touch, args=(own, stop), daemon=True).start()
        try:
            yield True
        finally:
            stop.set()
            if _same(own, path):
                path.unlink(missing_ok=True)
    finally:
        own.unlink(missing_ok=True)


def abandoned(path: Path, now: float) -> bool:
    """Tell whether the owner of a lock is dead, as far as its own last sign says.

    Args:
        now: the time of the file system that *path* is on.
    """
    owner = _owner(path)
    if owner is None:
        return False
    try:
        return owner[1] or now - path.stat().st_mtime > LEASE
    except FileNotFoundError:
        return False


def _acquire(own: Path, path: Path, *, wait: bool) -> bool:
    poll = _POLL
    seen: tuple[object, float] | None = None
    while not _link(own, path):
        owner = _owner(path)
        if owner is None:
            continue  # it has just been given back
        key, dead = owner
        now = time.monotonic()
        if seen is None or seen[0] != key:
            seen = key, now
        if dead or now - seen[1] >= LEASE:
            _take_away(own, path, key)
            continue
        if not wait:
            return False
        os.utime(own)  # who waits lives, too
        time.sleep(poll)
        poll = min(poll * 1.5, _LONGEST_POLL)
    return True


def _link(own: Path, path: Path) -> bool:
    """Give *own* the lock's name. NFS may do so and report a failure: the count of links tells (link(2), open(2))."""
    try:
        os.link(own, path)
    except FileExistsError:
        return _same(own, path)
    return True


def _same(own: Path, path: Path) -> bool:
    try:
        return os.path.samestat(own.stat(), path.stat())
    except FileNotFoundError:
        return False


def _owner(path: Path) -> tuple[object, bool] | None:
    """Return what changes when a lock changes hands or is touched, and whether its owner is known to be dead; None: it is free."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            data = file.read(4096)
    except FileNotFoundError:
        return None
    try:
        record = json.loads(data)
        dead = record["machine"] is not None and record["machine"] == _machine() and _is_dead(int(record["pid"]), record["start"])
    except (ValueError, KeyError, TypeError):
        dead = not data  # none of ours: those of earlier versions stayed, empty
    return (found.st_ino, found.st_mtime_ns, data), dead


def _take_away(own: Path, path: Path, key: object) -> None:
    """Free the name of a dead owner, one process at a time; nothing is done if another one was faster.

    A breaker that dies in here leaves its own lock, which the next one frees in the same way.
    """
    breaker = path.with_name(f"{path.name}.break")
    if path.name.endswith(".break.break.break"):
        return
    with lease(breaker, wait=False) as held:
        found = _owner(path) if held else None
        if found is None or found[0] != key:
            return
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            name = json.loads(path.read_bytes())["own"]
            if name.startswith(f".{path.name}.") and "/" not in name:
                path.with_name(name).unlink(missing_ok=True)
        path.unlink(missing_ok=True)


def _touch(own: Path, stop: threading.Event) -> None:
    while not stop.wait(LEASE / 4):
        try:
            os.utime(own)
        except FileNotFoundError:
            return  # taken away
        except OSError:
            pass


def _machine() -> str | None:
    """Name the running kernel and the process numbers that this process sees; None where that can't be told."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _start(pid: int) -> str | None:
    """Return when a process began, for numbers are used again; "" for one that ended and that nobody has waited for.

    proc(5), /proc/pid/stat: fields 3 and 22. None where it can't be told.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return None


def _is_dead(pid: int, start: object) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # another user's
    return _start(pid) not in (None, start)
