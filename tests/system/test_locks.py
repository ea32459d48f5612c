"""Leases: one owner at a time, taken over from the dead, at once on one machine, after silence from another."""

from __future__ import annotations

import functools
import json
import linecache
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from sregistry.system import locks as module
from sregistry.system.locks import abandoned, forsaken, lease

_HOLD = """
import sys, time
from pathlib import Path
from sregistry.system.locks import abandoned, forsaken, lease
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


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
def test_a_signal_at_any_line_leaves_nothing(path: Path) -> None:
    """A job is cancelled at the first, second … line that the lock's own code runs."""

    def cancelled(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, cancelled)
    lines = 0
    try:
        while _cancelled_at(lines, path):
            assert list(path.parent.iterdir()) == [], f"line {lines}"
            lines += 1
    finally:
        signal.signal(signal.SIGTERM, before)
    assert lines > 30


def _cancelled_at(line: int, path: Path) -> bool:
    """Take the lock and give it back, with SIGTERM before the given line event; return whether the code got there."""
    seen = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal seen
        if frame.f_code.co_filename != module.__file__:
            return None
        # No signal arrives at a bare `try:`, which runs nothing.
        if event == "line" and linecache.getline(module.__file__, frame.f_lineno).strip() != "try:":
            seen += 1
            if seen == line + 1:
                signal.raise_signal(signal.SIGTERM)
        return trace

    sys.settrace(trace)
    try:
        with lease(path):
            pass
    except SystemExit:
        return True
    finally:
        sys.settrace(None)
    return False


def test_processes_keep_each_other_out(path: Path, tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from sregistry.system.locks import abandoned, forsaken, lease
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


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    (path.parent.parent / "victim").write_text("mine")
    path.symlink_to(path.parent.parent / "victim")


def folder(path: Path) -> None:
    (path / "below").mkdir(parents=True)


def socket_(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))


PLANTED: dict[str, Callable[[Path], object]] = {
    **{
        text: functools.partial(lambda text, path: path.write_text(text), text)
        for text in ("{", "[]", "null", "\0", '{"machine": 5}', '{"machine": null, "pid": "x", "start": null}')
    },
    "pid": lambda path: path.write_text(json.dumps({"machine": module._machine(), "pid": 10**30, "start": "1"})),
    "pid-of-another-machine": lambda path: path.write_text(json.dumps({"machine": "another", "pid": 10**30, "start": "1"})),
    "pid-float": lambda path: path.write_text('{"machine": "another", "pid": 1e300, "start": "1"}'),
    "pid-negative": lambda path: path.write_text(json.dumps({"machine": module._machine(), "pid": -1, "start": "1"})),
    "nested": lambda path: path.write_text("[" * 100_000),
    "digits": lambda path: path.write_text("9" * 100_000),
    "huge": lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_RDWR), 1 << 40),
    "pipe": pipe,
    "link": link,
    "link-to-nothing": lambda path: path.symlink_to("nothing"),
    "link-to-itself": lambda path: path.symlink_to(path.name),
    "folder": folder,
    "socket": socket_,
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_no_owner_has_written_is_no_lock(tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock of ours is there whole or not at all."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "locks").mkdir()
    path = Path("locks/lock")  # a socket's name may not be long
    PLANTED[what](path.absolute() if what.startswith("link") else path)
    assert abandoned(path, 0)
    with lease(path, wait=False) as held:
        assert held
    left = {entry.name for entry in path.parent.iterdir()}
    assert {name for name in left if not name.endswith(".foreign")} == set()
    assert bool(left) == (what == "folder"), "a folder is moved out of the way with all that is in it"
    if what == "link":
        assert (tmp_path / "victim").read_text() == "mine"


def test_no_row_of_planted_breakers_stops_anybody(path: Path) -> None:
    for name in ("lock", "lock.break", "lock.break.break", "lock.break.break.break"):
        os.mkfifo(path.with_name(name))
    with lease(path, wait=False) as held:
        assert held
    assert not list(path.parent.iterdir())


def test_a_lock_that_names_another_ones_file_does_not_take_it_away(path: Path) -> None:
    waiting = path.with_name(".lock.0123456789abcdef")
    waiting.write_text("")
    path.write_text(json.dumps({"machine": module._machine(), "pid": 1 << 22, "start": "1", "own": waiting.name}))
    with lease(path, wait=False) as held:
        assert held
    assert waiting.exists()


def test_a_lock_can_be_read_by_who_waits_whatever_the_umask(path: Path) -> None:
    before = os.umask(0o077)
    try:
        with lease(path):
            assert stat.S_IMODE(path.stat().st_mode) == 0o644
    finally:
        os.umask(before)


@pytest.mark.needs("root")
def test_a_lock_that_can_t_be_read_is_held_while_it_is_touched(tmp_path: Path) -> None:
    """As root everything can be read: a child is another user."""
    code = """
import os, sys
from pathlib import Path
from sregistry.system import locks
os.setgroups([]); os.setgid(65534); os.setuid(65534)
locks.LEASE = 0.3
with locks.lease(Path("lock"), wait=False) as held:
    print(held)
with locks.lease(Path("lock")) as held:
    print(held)
"""
    (tmp_path / "lock").write_text("")
    (tmp_path / "lock").chmod(0)
    tmp_path.chmod(0o777)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\nTrue\n", "")


def test_what_dead_waiters_left_is_known(path: Path) -> None:
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    text = {"machine": module._machine(), "start": "1"}
    path.with_name(".lock.0123456789abcdef").write_text(json.dumps({**text, "pid": int(gone.stdout)}))
    path.with_name(".lock.0123456789abcde0").write_text(json.dumps({**text, "pid": os.getpid(), "start": module._start(os.getpid())}))
    path.with_name(".lock.of-mine").write_text("")
    path.with_name(".lock.0123456789abcde1").write_text("")  # it is being written
    with lease(path):
        assert forsaken(path) == [".lock.0123456789abcdef"]


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
