"""Locks that work where flock does not, such as NFS between nodes, and that outlive an owner who died.

A lock is a file that is made exclusively. Its owner touches it; who waits takes it over once it has seen
no touch for LEASE seconds of its own clock, or at once if the owner was a process of this node that is
gone. The price: an owner that slept for longer may wake up beside its successor, so what a lock protects
must bear two writers of the same thing (see `ingest`, `Store.publish` and `write_atomic`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

#: Seconds without a sign of life after which an owner on another node counts as dead.
LEASE = 60.0
#: Seconds between looks at a lock that somebody holds.
_POLL = 0.02


@contextlib.contextmanager
def lease(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock *path*; errors of the body pass unchanged.

    Args:
        path: in a folder that is there.
        wait: else False is yielded at once where another one holds it.

    Raises:
        OSError: the file can't be made.
    """
    from filelock import SoftFileLease, Timeout

    lock = SoftFileLease(path, lease_duration=LEASE, poll_interval=_POLL, blocking=wait)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
