"""Two nodes see one folder, each with caches of its own that are late: two FUSE mounts that remember names and attributes.

What one node makes or removes, the other one may not see for half a minute, as NFS has it.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.faulting import asking, in_memory

pytestmark = pytest.mark.needs("mount", "fuse", "bindfs", "cc", "glibc")

_LATE = "attr_timeout=30,entry_timeout=30,negative_timeout=30"


@contextlib.contextmanager
def seen(folder: Path, where: Path) -> Iterator[Path]:
    """Mount *folder* once more."""
    where.mkdir()
    with subprocess.Popen(["bindfs", "-f", "-o", _LATE, folder, where]) as job:
        try:
            while not where.is_mount():
                assert job.poll() is None
                time.sleep(0.01)
            yield where
        finally:
            subprocess.run(["umount", "--lazy", where], check=True)


@pytest.fixture(scope="module")
def ask() -> Iterator[Callable[..., dict[str, Any]]]:
    with in_memory() as folder:
        disk = folder / "disk"
        disk.mkdir()
        with (
            seen(disk, folder / "here") as here,
            seen(disk, folder / "there") as there,
            asking("tests.support.crowding", folder) as question,
        ):
            yield lambda method, **arguments: question(method, disk=str(disk), folders=[str(here), str(there)], **arguments)


def test_both_pull_at_once(ask: Callable[..., dict[str, Any]]) -> None:
    answer = ask("nodes", rounds=3)
    assert not answer["wrong"], "\n".join(answer["wrong"])


def test_one_dies(ask: Callable[..., dict[str, Any]]) -> None:
    answer = ask("taken_over", most=6)
    assert not answer["wrong"], "\n".join(answer["wrong"])
