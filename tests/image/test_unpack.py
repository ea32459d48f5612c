"""Sandbox directories: what the image says, and nothing outside of them."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sregistry.errors import ImageError, LayerError
from sregistry.image.unpack import unpack
from sregistry.layers.contents import Contents
from sregistry.layers.index import Index
from sregistry.system.limits import SANDBOX_DEPTH
from tests.support import engine
from tests.support.tarball import Member, device, directory, fifo, file, link, symlink

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: owners and devices")


def build(tmp_path: Path, layers: list[list[Member]]) -> tuple[Path, dict[str, Any]]:
    target = tmp_path / "storage" / "image:1"
    return target, engine.build(tmp_path / "store", target, layers, format="sandbox")


def test_links_never_lead_out(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    away = os.fsencode(outside)
    up = b"../" * 20
    layers = [
        [symlink(b"a", away), symlink(b"b", up + away), symlink(b"c/d", away)],
        [file(b"a/x", b"evil"), file(b"b/y", b"evil"), file(b"c/d/z", b"evil"), file(up + away + b"/w", b"evil"), link(b"h", b"a/x")],
    ]
    target, _ = build(tmp_path, layers)
    assert list(outside.iterdir()) == []
    inside = Path(str(target) + str(outside))
    assert {path.name for path in inside.iterdir()} == {"x", "y", "z", "w"}
    assert (target / "a").readlink() == outside


def test_what_forbids_entry_is_still_filled(tmp_path: Path) -> None:
    layers = [[directory(b"shut", mode=0), file(b"shut/f", b"x", mode=0), link(b"other", b"shut/f"), directory(b"d", mode=0o2755)]]
    target, _ = build(tmp_path, layers)
    try:
        assert stat.S_IMODE((target / "shut").stat().st_mode) == 0
        assert stat.S_IMODE((target / "other").stat().st_mode) == 0 and (target / "other").stat().st_nlink == 2
        assert stat.S_IMODE((target / "d").stat().st_mode) == 0o2755
    finally:
        (target / "shut").chmod(0o700)


def test_a_tree_that_is_too_deep_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    def tree(depth: int) -> list[list[Member]]:
        return [[file(b"d/" * depth + b"f", b"x")]]

    target, _ = build(tmp_path / "most", tree(SANDBOX_DEPTH))
    assert (target / ("d/" * SANDBOX_DEPTH + "f")).read_bytes() == b"x"
    with pytest.raises(ImageError, match="SANDBOX_DEPTH of 400"):
        build(tmp_path / "more", tree(2000))
    assert list((tmp_path / "more/storage").iterdir()) == []


def test_times_links_and_contents(tmp_path: Path) -> None:
    data = b"text " * 100_000
    layers = [
        [directory(b"d", mtime=77), file(b"d/f", data, mtime=88), symlink(b"d/s", b"f", mtime=99), fifo(b"d/p"), link(b"d/h", b"d/f")]
    ]
    target, receipt = build(tmp_path, layers)
    assert (target / "d/f").read_bytes() == data
    assert [int((target / "d" / name).lstat().st_mtime) for name in (".", "f", "s")] == [77, 88, 99]
    assert stat.S_ISFIFO((target / "d/p").stat().st_mode)
    assert (target / "d/h").stat().st_ino == (target / "d/f").stat().st_ino
    assert receipt["path"] == str(target)
    assert (target / ".singularity.d/actions/run").stat().st_mode & 0o777 == 0o755


def test_holes_stay_holes(tmp_path: Path) -> None:
    target, _ = build(tmp_path, [[file(b"f", bytes(64 << 20) + b"end")]])
    found = (target / "f").stat()
    assert found.st_size == (64 << 20) + 3 and found.st_blocks * 512 < 1 << 20


@as_root
def test_owners_devices_and_attributes_as_root(tmp_path: Path) -> None:
    layers = [
        [
            file(b"f", b"x", uid=1000, gid=2000, mode=0o6755, xattrs={b"user.a": b"\0\1", b"trusted.b": b"2"}),
            device(b"c", b"3", 1, 3, mode=0o666),
            device(b"b", b"4", 7, 300),
            symlink(b"s", b"nowhere", uid=5, gid=6),
            directory(b"d", uid=7, gid=8, mode=0o1777),
        ]
    ]
    target, _ = build(tmp_path, layers)
    owners = {name: ((target / name).lstat().st_uid, (target / name).lstat().st_gid) for name in "fsd"}
    assert owners == {"f": (1000, 2000), "s": (5, 6), "d": (7, 8)}
    assert stat.S_IMODE((target / "f").stat().st_mode) == 0o6755 and stat.S_IMODE((target / "d").stat().st_mode) == 0o1777
    assert os.getxattr(target / "f", "user.a") == b"\0\1" and os.getxattr(target / "f", "trusted.b") == b"2"
    assert stat.S_ISCHR((target / "c").stat().st_mode) and (target / "c").stat().st_rdev == os.makedev(1, 3)
    assert stat.S_ISBLK((target / "b").stat().st_mode) and (target / "b").stat().st_rdev == os.makedev(7, 300)


def test_times_of_any_size_are_those_of_the_image(tmp_path: Path) -> None:
    late, early = (1 << 63) - 1, -1 << 63
    target, _ = build(tmp_path, [[file(b"late", mtime=str(late)), file(b"early", mtime=str(early)), directory(b"d", mtime=str(late))]])
    assert [int((target / name).stat().st_mtime) for name in ("late", "early", "d")] == [0xFFFFFFFF, 0, 0xFFFFFFFF]


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (symlink(b"d/s", b""), "d/s: a symbolic link to 0 bytes"),
        (file(b"d/" + b"n" * 256), "a file name of 256 bytes"),
        (device(b"d/c", b"3", 4096, 0), "d/c: device 4096:0 is out of range"),
    ],
)
def test_what_no_file_system_holds_is_told_with_its_place_in_the_layer(tmp_path: Path, member: Member, words: str) -> None:
    with pytest.raises(LayerError, match=rf"metadata: offset [0-9]+: .*{words}"):
        build(tmp_path, [[member]])
    assert not (tmp_path / "storage").exists()


@as_root
def test_an_attribute_that_the_file_system_has_no_room_for_is_named(tmp_path: Path) -> None:
    layers = [[file(b"d/f", xattrs={b"user.large": b"v" * 65536})]]
    try:
        target, _ = build(tmp_path, layers)
    except ImageError as error:
        assert re.search(r"f: extended attribute user.large of 65536 bytes: the file system has no room for it", str(error))
    else:  # tmpfs and xfs have room
        assert len(os.getxattr(target / "d/f", "user.large")) == 65536


@as_root
def test_a_capability_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"f: extended attribute security\.capability of 4 bytes: no valid one"):
        build(tmp_path, [[file(b"d/f", xattrs={b"security.capability": b"junk"})]])
    assert list((tmp_path / "storage").iterdir()) == []


def in_a_child(uid: int, work: Callable[[], object]) -> int:
    """Run *work* as another user; return 0 if it raises nothing."""
    child = os.fork()
    if child == 0:
        code = 1
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            work()
            code = 0
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


POWERS: dict[str, Member] = {
    "set-uid": file(b"su", b"x", mode=0o4755),
    "set-gid": file(b"su", b"x", mode=0o2755),
    "both": file(b"su", b"x", mode=0o6711),
    "device": device(b"su", b"3", 1, 3),
    "block device": device(b"su", b"4", 7, 0),
    "capability": file(b"su", b"x", mode=0o755, xattrs={b"security.capability": b"\1\0\0\2\0\4\0\0\0\0\0\0\0\0\0\0\0\0\0\0"}),
}
HARMLESS: dict[str, Member] = {
    "sticky": file(b"su", b"x", mode=0o1755),
    "directory": directory(b"su", mode=0o2755),
    "sticky directory": directory(b"su", mode=0o1777),
    "pipe": fifo(b"su"),
}


@as_root
@pytest.mark.parametrize("what", [*POWERS, *HARMLESS])
def test_root_s_sandbox_lends_nobody_rights(open_folder: Path, what: str) -> None:
    """Where others may come, what gives rights is behind a directory that is root's alone; elsewhere all is as it was."""
    layers = [[{**POWERS, **HARMLESS}[what]]]
    target, receipt = build(open_folder, layers)
    assert in_a_child(65534, lambda: os.stat(target)) == 0, "the storage is open"
    assert (in_a_child(65534, lambda: os.lstat(target / "su")) == 0) == (what in HARMLESS)
    assert bool(receipt["lost"]) == (what in POWERS)
    assert all("1, such as su" in line for line in receipt["lost"])
    kept = (target / "su").lstat()
    (open_folder / "storage").chmod(0o700)
    target, receipt = build(open_folder, layers)
    assert (stat.S_IMODE(target.stat().st_mode), receipt["lost"]) == (0o755, [])
    assert (target / "su").lstat().st_mode == kept.st_mode


@pytest.fixture
def open_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that all may enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="sregistry-open-", dir="/var/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@as_root
@pytest.mark.parametrize("what", [name for name in POWERS if "set" in name or name == "both"])
def test_a_user_s_sandbox_has_no_set_id_bits(open_folder: Path, what: str) -> None:
    """Whoever may come to it: a folder that is closed now may be opened."""
    os.chmod(open_folder, 0o777)
    layers = [[POWERS[what], link(b"too", b"su")]]

    def work() -> None:
        target, receipt = build(open_folder, layers)
        found = [(target / name).stat() for name in ("su", "too")]
        if any(item.st_mode & 0o6000 or item.st_mode & 0o777 != POWERS[what].mode & 0o777 for item in found):
            raise OSError
        if "(1, such as su)" not in receipt["lost"][0]:
            raise OSError

    assert in_a_child(65534, work) == 0


def test_what_is_no_sandbox_yet_keeps_its_bits(tmp_path: Path) -> None:
    """A runtime makes an image of the directory, and of its modes."""
    packed = engine.merged(tmp_path / "store", [[POWERS["both"]]])
    layers = [Index.read(folder / "index") for folder in packed.folders]
    with Contents(packed.folders, layers) as contents:
        unpack(packed, layers, contents, tmp_path / "root", readable=True)
    assert stat.S_IMODE((tmp_path / "root/su").stat().st_mode) == 0o6711
