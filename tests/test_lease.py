"""Leases: one owner at a time, taken over from the dead, at once on one machine, after silence from another."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sregistry import lease as module
from sregistry.lease import lease

_HOLD = """
import sys, time
from pathlib import Path
from sregistry.lease import lease
with lease(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(path)], stdout=subprocess.PIPE, text=True) as job:
        assert job.stdout and job.stdout.readline() == "held\n"
        yield job
        job.kill()


def record(path: Path, **changed: object) -> None:
    """Leave the lock of an owner who says nothing any more."""
    own = path.with_name(f".{path.name}.0123")
    own.write_text(json.dumps({"machine": "another", "pid": 1, "start": "1", "own": own.name, **changed}))
    os.link(own, path)


def test_it_leaves_nothing(path: Path) -> None:
    with lease(path) as held:
        assert held
        assert len(list(path.parent.iterdir())) == 2
    assert not list(path.parent.iterdir())


def test_processes_keep_each_other_out(path: Path, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from sregistry.lease import lease
path, counter = map(Path, sys.argv[1:])
for _ in range(50):
    with lease(path):
        counter.write_text(str(int(counter.read_text()) + 1))
"""
    counter = tmp_path / "counter"
    counter.write_text("0")
    jobs = [subprocess.Popen([sys.executable, "-c", code, str(path), str(counter)]) for _ in range(4)]
    assert [job.wait() for job in jobs] == [0] * 4
    assert counter.read_text() == "200"


def test_one_that_is_held_is_not_waited_for_if_so_asked(path: Path, holder: subprocess.Popen[str]) -> None:
    with lease(path, wait=False) as held:
        assert not held
    holder.kill()
    holder.wait()
    with lease(path, wait=False) as held:
        assert held
    assert not list(path.parent.iterdir())


def test_one_that_lives_is_waited_for(path: Path, holder: subprocess.Popen[str]) -> None:
    threading.Timer(0.3, holder.send_signal, [signal.SIGKILL]).start()
    with lease(path):
        assert holder.wait() == -signal.SIGKILL


def test_a_number_that_is_used_again_is_another_process(path: Path) -> None:
    record(path, machine=module._machine(), pid=os.getpid(), start="0")
    with lease(path, wait=False) as held:
        assert held


@pytest.mark.parametrize("left", ["{", "[]", '{"machine": 5}', '{"machine": null, "pid": "x"}'])
def test_what_no_owner_has_written_ends_by_time(path: Path, left: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEASE", 0.2)
    path.write_text(left)
    with lease(path, wait=False) as held:
        assert not held
    with lease(path) as held:
        assert held
    assert not list(path.parent.iterdir())


def test_an_empty_file_of_an_earlier_version_is_no_lock(path: Path) -> None:
    path.touch()
    with lease(path, wait=False) as held:
        assert held


def test_an_owner_on_another_machine_is_waited_for_while_it_is_heard_of(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEASE", 0.4)
    record(path)
    signs = []

    def touch() -> None:
        for _ in range(6):
            time.sleep(0.15)
            os.utime(path)
            signs.append(time.monotonic())

    thread = threading.Thread(target=touch)
    thread.start()
    with lease(path):
        assert time.monotonic() - signs[-1] >= 0.35
        assert len(signs) == 6
    thread.join()


def test_a_lease_is_kept_by_its_owner(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEASE", 0.2)
    monkeypatch.setattr(module, "_machine", lambda: None)  # as if it were another one
    order = []

    def other() -> None:
        with lease(path):
            order.append("other")

    with lease(path):
        thread = threading.Thread(target=other)
        thread.start()
        time.sleep(1)
        order.append("own")
    thread.join()
    assert order == ["own", "other"]


def test_one_that_was_taken_over_does_not_free_its_successor(path: Path) -> None:
    with lease(path):
        path.unlink()
        record(path)
    assert path.exists()


def test_a_breaker_that_died_is_no_hindrance(path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    dead = {"machine": module._machine(), "pid": int(gone.stdout), "start": "1"}
    record(path, **dead)
    record(path.with_name("lock.break"), **dead)
    with lease(path) as held:
        assert held


def test_a_folder_that_can_t_be_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), lease(tmp_path / "none" / "lock"):
        pass
