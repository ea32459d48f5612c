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
import re
import secrets
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sregistry.system import limits, signals

#: Seconds without a sign of life after which an owner on another machine counts as dead.
LEASE = 60.0
#: Seconds between looks at a lock that somebody holds: the first, and the most.
_POLL, _LONGEST_POLL = 0.005, 0.25
#: Processes have numbers below this (proc(5), pid_max).
_PIDS = 1 << 22


class _Lock(NamedTuple):
    """A lock's name in its folder, which is open: what the name leads to can't change with the folder's own name."""

    folder: int
    name: str


@contextlib.contextmanager
def lease(path: Path, *, wait: bool = True, folder: int | None = None) -> Iterator[bool]:
    """Hold the lock *path*; errors of the body pass unchanged.

    Args:
        path: in a folder that is there.
        wait: else False is yielded at once where another one holds it.
        folder: descriptor of the folder, where it was opened with care.

    Raises:
        OSError: the file can't be made, or something in its place can't be removed; the error names the path.
    """
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if folder is None else folder
    try:
        with _lease(_Lock(handle, path.name), path.parent, wait=wait) as held:
            yield held
    finally:
        if folder is None:
            os.close(handle)


@contextlib.contextmanager
def _lease(lock: _Lock, place: Path, *, wait: bool) -> Iterator[bool]:
    own = _Lock(lock.folder, f".{lock.name}.{secrets.token_hex(8)}")
    stop = threading.Event()
    thread = threading.Thread(target=_touch, args=(own, stop), daemon=True)
    try:
        with _naming(place):
            _write(own)
            held = _acquire(own, lock, place, wait=wait)
        if held:
            thread.start()
        yield held
    finally:
        # A signal may end the block at any line, also between the link and the yield. It does not end this one.
        try:
            with signals.held_back():
                _give_back(own, lock, stop, thread)
        except (SystemExit, KeyboardInterrupt):  # before signals were held back
            _give_back(own, lock, stop, thread)
            raise


def _give_back(own: _Lock, lock: _Lock, stop: threading.Event, thread: threading.Thread) -> None:
    stop.set()
    if thread.is_alive():
        thread.join()
    if _same(own, lock):
        _unlink(lock)
    _unlink(own)


@contextlib.contextmanager
def _naming(place: Path) -> Iterator[None]:
    """Have errors name the whole path of a lock."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str):
            error.filename, error.filename2 = str(place / error.filename), None
        raise


def abandoned(path: Path, now: float, *, folder: int | None = None) -> bool:
    """Tell whether the owner of a lock is dead, as far as its own last sign says.

    Args:
        now: the time of the file system that *path* is on.
        folder: as for `lease`.
    """
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if folder is None else folder
    try:
        lock = _Lock(handle, path.name)
        owner = _owner(lock)
        if owner is None:
            return False
        # Under its own name a lock is there before it is whole.
        dead = owner.dead and (owner.whole or not lock.name.startswith("."))
        return dead or now - _stat(lock).st_mtime > LEASE
    except FileNotFoundError:
        return False
    finally:
        if folder is None:
            os.close(handle)


def forsaken(path: Path) -> list[str]:
    """Return the names beside the lock *path* of processes that died while they waited for it; for who holds it. Raises OSError."""
    own = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{16}}")
    names = [name for name in os.listdir(path.parent) if own.fullmatch(name)]
    now = path.stat().st_mtime
    return [name for name in names if abandoned(path.with_name(name), now)]


def _write(own: _Lock) -> None:
    text = json.dumps({"machine": _machine(), "pid": os.getpid(), "start": _start(os.getpid()), "own": own.name})
    handle = os.open(own.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=own.folder)
    with os.fdopen(handle, "wb") as file:
        file.write(text.encode())
        with contextlib.suppress(PermissionError):  # a file system that has no modes
            os.fchmod(handle, 0o644)  # others who wait read it, whatever the umask


def _acquire(own: _Lock, lock: _Lock, place: Path, *, wait: bool) -> bool:
    poll = _POLL
    seen: tuple[object, float] | None = None
    while not _link(own, lock):
        owner = _owner(lock)
        if owner is None:
            continue  # it has just been given back
        now = time.monotonic()
        if seen is None or seen[0] != owner.key:
            seen = owner.key, now
        if (owner.dead or now - seen[1] >= LEASE) and _take_away(lock, owner.key, place):
            continue
        if not wait:
            return False
        os.utime(own.name, dir_fd=own.folder, follow_symlinks=False)  # who waits lives, too
        time.sleep(poll)
        poll = min(poll * 1.5, _LONGEST_POLL)
    return True


def _link(own: _Lock, lock: _Lock) -> bool:
    """Give *own* the lock's name. NFS may do so and report a failure: the count of links tells (link(2), open(2))."""
    try:
        os.link(own.name, lock.name, src_dir_fd=own.folder, dst_dir_fd=lock.folder, follow_symlinks=False)
    except FileExistsError:
        return _same(own, lock)
    return True


def _same(own: _Lock, lock: _Lock) -> bool:
    try:
        return os.path.samestat(_stat(own), _stat(lock))
    except FileNotFoundError:
        return False


def _stat(lock: _Lock) -> os.stat_result:
    return os.stat(lock.name, dir_fd=lock.folder, follow_symlinks=False)


def _unlink(lock: _Lock) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(lock.name, dir_fd=lock.folder)


class _Owner(NamedTuple):
    """What a lock says, if it is a *whole* one: `key` changes when it changes hands or is touched, `own` is its other name."""

    key: object
    dead: bool
    whole: bool = False
    own: str | None = None


def _owner(lock: _Lock) -> _Owner | None:
    """Return who has a lock; None: it is free.

    What can't be a lock of ours, which is there whole or not at all, is nobody's: a pipe, a link, a folder, other text.
    """
    try:
        found = _stat(lock)
        if not stat.S_ISREG(found.st_mode):
            return _Owner((found.st_ino, found.st_mtime_ns), dead=True)
        handle = os.open(lock.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=lock.folder)
    except FileNotFoundError:
        return None
    except PermissionError:  # whoever has it is alive while it is touched
        return _Owner((found.st_ino, found.st_mtime_ns), dead=False)
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        data = file.read(limits.LOCK_FILE) if stat.S_ISREG(found.st_mode) else b""
    key = found.st_ino, found.st_mtime_ns, data
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        record = None
    if not _is_record(record):
        return _Owner(key, dead=True)
    here = record["machine"] is not None and record["machine"] == _machine()
    return _Owner(key, dead=here and _is_dead(record["pid"], record["start"]), whole=True, own=record.get("own"))


def _is_record(value: Any) -> bool:
    """Tell whether a value is what `_write` writes."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("machine", 0), str | None)
        and type(value.get("pid")) is int
        and 0 < value["pid"] <= _PIDS
        and isinstance(value.get("start", 0), str | None)
        and isinstance(value.get("own"), str | None)
    )


def _take_away(lock: _Lock, key: object, place: Path) -> bool:
    """Free the name of a dead owner, one process at a time; tell whether it may be free now.

    A breaker that dies in here leaves its own lock, which the next one frees in the same way. The third in a row
    is freed without one: somebody put it there to stop us.
    """
    if lock.name.endswith(".break.break.break"):
        _free(lock, key)
        return True
    with _lease(_Lock(lock.folder, f"{lock.name}.break"), place, wait=False) as held:
        if held:
            _free(lock, key)
        return held


def _free(lock: _Lock, key: object) -> None:
    """Remove a lock that has not changed since it was looked at. Raises OSError: that is not allowed."""
    owner = _owner(lock)
    if owner is not None and owner.key == key:
        if owner.own and re.fullmatch(rf"\.{re.escape(lock.name)}\.[0-9a-f]+", owner.own):
            own = _Lock(lock.folder, owner.own)
            if _same(own, lock):  # a name in a file is no reason to remove another one's
                _unlink(own)
        try:
            _unlink(lock)
        except OSError:
            if not stat.S_ISDIR(_stat(lock).st_mode):
                raise
            # Whatever is in that folder is none of ours: it is moved out of the way.
            aside = f"{lock.name}.{secrets.token_hex(4)}.foreign"
            os.rename(lock.name, aside, src_dir_fd=lock.folder, dst_dir_fd=lock.folder)


def _touch(own: _Lock, stop: threading.Event) -> None:
    while not stop.wait(LEASE / 4):
        try:
            os.utime(own.name, dir_fd=own.folder, follow_symlinks=False)
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
