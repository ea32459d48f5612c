"""The judge judged: what mksquashfs packs passes, and each kind of damage is named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real.conftest import extracted, mounted, tool
from tests.support import oracle
from tests.support.oracle import Tree

pytestmark = pytest.mark.needs("mount", "docker-registry", "skopeo", "umoci", "mksquashfs", "unsquashfs")


@pytest.fixture
def root(unpacked: Callable[[str], tuple[Tree, int]], registry: str, tmp_path: Path) -> Path:
    unpacked("demo/tricky:1")
    tool("skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{registry}/demo/tricky:1", f"oci:{tmp_path}/oci:t")
    tool("umoci", "raw", "unpack", "--image", f"{tmp_path}/oci:t", tmp_path / "root", umask=0o022)
    return tmp_path / "root"


def test_what_mksquashfs_packs_passes(root: Path, tmp_path: Path) -> None:
    tool("mksquashfs", root, tmp_path / "image", "-quiet", "-no-progress")
    expected = oracle.tree(root)
    with mounted(tmp_path / "image", 0, tmp_path / "mnt") as folder:
        ours = oracle.tree(folder)
        assert _but_linked_symlinks(oracle.differences(expected, ours, added=False)) == []
        assert oracle.link_counts(ours) == []
    out = oracle.tree(extracted(tmp_path / "image", 0, tmp_path / "out"))
    assert _but_linked_symlinks(oracle.differences(expected, out, added=False)) == []


def _but_linked_symlinks(lines: list[str]) -> list[str]:
    """Leave out what mksquashfs does on purpose: it makes two symlinks of one with two names."""
    return [line for line in lines if not line.startswith(("b'hard/symlink': links", "b'hard/symlink-too': links"))]


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda root: (root / "wh/kept").unlink(), "b'wh/kept': missing"),
    "surplus": (lambda root: (root / "wh/gone-again").write_text(""), "b'wh/gone-again': not expected"),
    "content": (lambda root: _keeping_time(root / "hard/old", lambda path: path.write_text("old_content")), "b'hard/old': content is "),
    "mode": (lambda root: (root / "modes/suid").chmod(0o755), "b'modes/suid': mode is 493, expected 2541"),
    "owner": (lambda root: os.chown(root / "owners/pax", 1, -1), "b'owners/pax': uid is 1, expected 2097152"),
    "group": (lambda root: os.chown(root / "owners/pax", -1, 1), "b'owners/pax': gid is 1, expected 4000000000"),
    "time": (lambda root: os.utime(root / "times/zero", (1, 1)), "b'times/zero': mtime is 1, expected 0"),
    "time of a folder": (lambda root: os.utime(root / "times/dir", (1, 1)), "b'times/dir': mtime is 1, expected 86400"),
    "attribute gone": (lambda root: os.removexattr(root / "xattrs/same", "user.binary"), "b'xattrs/same': xattrs is "),
    "attribute changed": (lambda root: os.setxattr(root / "xattrs/same", "user.text", b"valuf"), "b'xattrs/same': xattrs is "),
    "device": (
        lambda root: _again(root / "kinds/minor", lambda path: os.mknod(path, 0o60600, os.makedev(259, 7))),
        "b'kinds/minor': device is ",
    ),
    "kind": (lambda root: _again(root / "kinds/fifo", lambda path: path.touch()), "b'kinds/fifo': kind is '-', expected 'p'"),
    "link target": (lambda root: _again(root / "kinds/relative", lambda path: path.symlink_to("x")), "b'kinds/relative': content is "),
    "hard link": (lambda root: _again(root / "hard/b", lambda path: shutil.copy2(root / "hard/c", path)), "b'hard/b': links is ()"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_named(root: Path, name: str) -> None:
    damage, line = DAMAGES[name]
    expected = oracle.tree(root)
    damage(root)
    found = oracle.differences(expected, oracle.tree(root), added=False)
    assert any(item.startswith(line) for item in found), found


def test_stubs_must_be_empty_files(root: Path) -> None:
    assert [line.partition(":")[0] for line in oracle.stubs(oracle.tree(root))] == ["b'etc/hosts'", "b'etc/resolv.conf'"]


def _again(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def _keeping_time(path: Path, change: Callable[[Path], object]) -> None:
    status = path.stat()
    change(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
