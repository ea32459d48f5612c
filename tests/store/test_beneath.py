"""Beneath a folder: regular files only, no link followed, whatever stands in their place."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sregistry.store.beneath import Foreign, Root


@pytest.fixture
def root(tmp_path: Path) -> Root:
    folder = tmp_path / "root"
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/file").write_text("right")
    return Root(folder)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    (folder / "b").mkdir(parents=True)
    (folder / "b/file").write_text("wrong")
    return folder


def _socket(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # its name may not be long
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(path.name)
    os.chdir(before)


ACTIONS: dict[str, Callable[[Root], object]] = {
    "open": lambda root: root.open("a/b/file").close(),
    "read": lambda root: root.read("a/b/file", 100),
    "create": lambda root: root.create("a/b/new").close(),
    "resume": lambda root: root.resume("a/b/file").close(),
    "write": lambda root: root.write("a/b/new", b"data", 0o644),
    "make": lambda root: root.make("a/b/c", 0o755),
    "settle": lambda root: root.settle("a/b/file", 0o600),
    "sync": lambda root: root.sync("a/b"),
    "rename-from": lambda root: root.rename("a/b/file", "moved"),
    "rename-to": lambda root: root.rename("x", "a/b/file"),
    "unlink": lambda root: root.unlink("a/b/file"),
    "touch": lambda root: root.touch("a/b/file"),
    "stat": lambda root: root.stat("a/b/file"),
    "entries": lambda root: root.entries("a/b"),
}


def state(folder: Path) -> list[tuple[str, tuple[int, ...]]]:
    found: list[tuple[str, tuple[int, ...]]] = []
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found.append((str(path.relative_to(folder)), (status.st_mode, status.st_mtime_ns, status.st_size, status.st_nlink)))
    return found


@pytest.mark.parametrize("place", ["a", "a/b"])
@pytest.mark.parametrize("action", ACTIONS)
def test_no_folder_that_is_a_link_is_entered(root: Root, outside: Path, place: str, action: str) -> None:
    (root.path / "x").write_text("x")
    (root.path / place).rename(root.path / "aside")
    (root.path / place).symlink_to(outside if place == "a" else outside / "b")
    before = state(outside)
    with pytest.raises(Foreign, match=f"{root.path / place} is a link, and none is followed"):
        ACTIONS[action](root)
    assert not root.remove("a/b/file")
    assert not root.is_file("a/b/file") and not (place == "a" and root.is_folder("a/b"))
    assert state(outside) == before


@pytest.mark.parametrize("action", ACTIONS)
def test_each_does_what_it_says_where_all_is_well(root: Root, action: str) -> None:
    (root.path / "x").write_text("x")
    ACTIONS[action](root)


OTHERS: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "link": (lambda path, outside: path.symlink_to(outside / "b/file"), "a link"),
    "link-to-nothing": (lambda path, outside: path.symlink_to("nothing"), "a link"),
    "link-to-itself": (lambda path, outside: path.symlink_to(path.name), "a link"),
    "link-to-a-folder": (lambda path, outside: path.symlink_to(outside), "a link"),
    "link-to-a-device": (lambda path, outside: path.symlink_to("/dev/zero"), "a link"),
    "pipe": (lambda path, outside: os.mkfifo(path), "a pipe"),
    "folder": (lambda path, outside: path.mkdir(), "a folder"),
    "socket": (lambda path, outside: _socket(path), "a socket"),
}


@pytest.mark.parametrize("what", OTHERS)
@pytest.mark.parametrize("action", ["open", "read", "resume"])
def test_only_regular_files_are_opened(root: Root, outside: Path, what: str, action: str) -> None:
    path = root.path / "a/b/file"
    path.unlink()
    make, word = OTHERS[what]
    make(path, outside)
    with pytest.raises(Foreign, match=f"{path} is {word}"):
        ACTIONS[action](root)
    assert not root.is_file("a/b/file")


@pytest.mark.parametrize("what", OTHERS)
def test_what_is_written_replaces_the_name_and_not_what_is_behind_it(root: Root, outside: Path, what: str) -> None:
    path = root.path / "a/b/file"
    path.unlink()
    OTHERS[what][0](path, outside)
    before = state(outside)
    with pytest.raises(FileExistsError):
        root.create("a/b/file")
    if what == "folder":
        with pytest.raises(IsADirectoryError, match=str(path)):
            root.write("a/b/file", b"new", 0o640)
    else:
        root.write("a/b/file", b"new", 0o640)
        assert root.read("a/b/file", 3) == b"new" and stat.S_IMODE(path.lstat().st_mode) == 0o640
    assert state(outside) == before
    assert sorted(entry for entry, _ in root.entries("a/b")) == ["file"], "no neighbour is left"


@pytest.mark.parametrize("name", ["", "/etc/passwd", "a//b", "a/../../x", "..", ".", "a/.", "a/b/"])
def test_names_that_lead_out_are_none(root: Root, name: str) -> None:
    with pytest.raises(ValueError, match="is no name beneath a folder"):
        root.stat(name)


def test_a_file_that_is_too_long_is_not_read(root: Root) -> None:
    os.truncate(root.path / "a/b/file", 1 << 40)
    with pytest.raises(Foreign, match="has more than 100 bytes"):
        root.read("a/b/file", 100)


@pytest.mark.parametrize("change", ["mode", "name"])
def test_only_a_file_of_ours_alone_is_gone_on_with(root: Root, change: str) -> None:
    path = root.path / "a/b/file"
    root.resume("a/b/file").close()
    path.chmod(0o662) if change == "mode" else os.link(path, path.with_name("other"))
    with pytest.raises(Foreign, match="not this user's alone"):
        root.resume("a/b/file")


def test_a_folder_goes_with_what_is_known_and_stays_with_all_else(root: Root, outside: Path) -> None:
    for name in ("work/layer/data", "work/index"):
        (root.path / name).parent.mkdir(parents=True, exist_ok=True)
        (root.path / name).write_text("x")
    (root.path / "work/data").symlink_to(outside)
    (root.path / "work/thesis").write_text("mine")
    assert not root.remove("work", ("layer", "data", "index"))
    assert [path.name for path in (root.path / "work").iterdir()] == ["thesis"]
    (root.path / "work/thesis").unlink()
    assert root.remove("work", ("layer", "data", "index")) and root.remove("work")
    assert (outside / "b/file").exists()


def test_permissions_are_those_that_are_asked_for(root: Root) -> None:
    before = os.umask(0o077)
    try:
        root.make("x/y", 0o2775)
        root.write("x/y/file", b"", 0o664)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((root.path / name).stat().st_mode) for name in ("x", "x/y", "x/y/file")]
    assert modes == [0o2775, 0o2775, 0o664]


def test_errors_name_the_whole_path(root: Root) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        root.open("a/none/file")
    assert caught.value.filename == str(root.path / "a/none/file")


@pytest.mark.needs("root")
def test_the_root_is_no_link_of_another_user(root: Root, tmp_path: Path) -> None:
    (tmp_path / "mine").symlink_to(root.path)
    assert Root(tmp_path / "mine").is_file("a/b/file")
    (tmp_path / "theirs").symlink_to(root.path)
    os.chown(tmp_path / "theirs", 65534, 65534, follow_symlinks=False)
    assert not Root(tmp_path / "theirs").is_file("a/b/file")
    with pytest.raises(Foreign, match="is a link of another user"):
        Root(tmp_path / "theirs").entries()
    os.chown(tmp_path, 65534, 65534)  # whose folder it is says what is in it
    assert Root(tmp_path / "theirs").is_file("a/b/file")


def test_no_descriptor_is_left_open(root: Root, outside: Path) -> None:
    (root.path / "x").write_text("x")
    (root.path / "link").symlink_to(outside)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        root.read("a/b/file", 100)
        root.write("a/b/new", b"x", 0o600)
        root.entries("a/b")
        for name in ("link/b/file", "a/none", "a/b"):
            with pytest.raises(OSError):
                root.open(name)
    assert len(os.listdir("/proc/self/fd")) == before
