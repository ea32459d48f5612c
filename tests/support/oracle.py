"""Two root file systems compared: what other people's tools unpack is the judge of what we make.

`tree` reads a folder as root; `differences` names every path that differs, and how. What we add on
purpose is listed in `ADDED`, `MOUNT_POINTS` and `STUBS`; nothing else may differ.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Container
from dataclasses import dataclass, fields
from pathlib import Path

#: Files that a Singularity image has and a registry image hasn't (spec/oci-to-sif.md, 5), at and below.
ADDED = (b".singularity.d", b"singularity", b".run", b".exec", b".test", b".shell", b"environment")
#: Directories that we make only if the image lacks them, and the parent that they may need.
MOUNT_POINTS = (b"dev", b"proc", b"root", b"var", b"var/tmp", b"tmp", b"etc", b"sys", b"home")
#: Files that we empty, whatever they were.
STUBS = (b"etc/hosts", b"etc/resolv.conf")
#: Extended attributes that belong to the machine, not to the image.
FOREIGN_XATTRS = ("security.selinux", "system.nfs4_acl")


@dataclass(frozen=True, kw_only=True)
class Node:
    """All that a path says about itself. `links` are the paths that share its inode, if several do."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    content: str
    device: tuple[int, int]
    xattrs: tuple[tuple[bytes, bytes], ...]
    links: tuple[bytes, ...]
    nlink: int


Tree = dict[bytes, Node]


def tree(root: Path) -> Tree:
    """Read the folder *root*; keys are paths below it, empty for itself."""
    top = os.fsencode(root)
    found: dict[bytes, os.stat_result] = {b"": os.lstat(top)}
    waiting = [b""]
    while waiting:
        folder = waiting.pop()
        for name in os.listdir(os.path.join(top, folder)):
            path = os.path.join(folder, name)
            status = os.lstat(os.path.join(top, path))
            found[path] = status
            if stat.S_ISDIR(status.st_mode):
                waiting.append(path)
    groups: defaultdict[int, list[bytes]] = defaultdict(list)
    for path, status in found.items():
        if not stat.S_ISDIR(status.st_mode):
            groups[status.st_ino].append(path)
    return {path: _node(os.path.join(top, path), status, groups) for path, status in found.items()}


def _node(path: bytes, status: os.stat_result, groups: dict[int, list[bytes]]) -> Node:
    kind = stat.S_IFMT(status.st_mode)
    content = ""
    if stat.S_ISREG(kind):
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    elif stat.S_ISLNK(kind):
        content = repr(os.readlink(path))
    special = stat.S_ISCHR(kind) or stat.S_ISBLK(kind)
    links = groups.get(status.st_ino, [])
    return Node(
        kind=stat.filemode(kind)[0],
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=int(status.st_mtime_ns // 10**9),
        size=status.st_size if stat.S_ISREG(kind) else 0,
        content=content,
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)) if special else (0, 0),
        xattrs=_xattrs(path),
        links=tuple(sorted(links)) if len(links) > 1 else (),
        nlink=status.st_nlink,
    )


def _xattrs(path: bytes) -> tuple[tuple[bytes, bytes], ...]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.ENOTSUP:  # a squashfs in which nothing has any
            raise
        return ()
    return tuple(
        sorted((os.fsencode(name), os.getxattr(path, name, follow_symlinks=False)) for name in names if name not in FOREIGN_XATTRS)
    )


def differences(
    expected: Tree, ours: Tree, *, implied_since: int | None = None, loose: Container[bytes] = (), added: bool = True
) -> list[str]:
    """Return a line a difference; none if *ours* is *expected* and what we add.

    Args:
        implied_since: directories that *expected* has from this time on got the time of unpacking,
            because no entry of a layer says theirs: their times aren't compared.
        loose: directories of which only the presence is compared.
        added: False compares everything.
    """
    ignored = _additions(expected) if added else set[bytes]()
    lines = []
    for path in sorted(expected.keys() | ours.keys()):
        if path in ignored or (added and path.split(b"/")[0] in ADDED):
            continue
        one, other = expected.get(path), ours.get(path)
        if one is None or other is None:
            lines.append(f"{path!r}: {'not expected' if one is None else 'missing'}")
            continue
        for field in fields(Node):
            a, b = getattr(one, field.name), getattr(other, field.name)
            if field.name == "mtime" and one.kind == "d" and implied_since is not None and _implied(path, one, implied_since):
                continue
            if path in loose and field.name != "kind":
                continue
            if field.name == "nlink":
                continue  # file systems count directories in their own ways: see `link_counts`
            if a != b:
                lines.append(f"{path!r}: {field.name} is {b!r}, expected {a!r}")
    return lines


def _implied(path: bytes, node: Node, since: int) -> bool:
    """Tell whether umoci made up a folder's time: its own for a folder, 1970 for the root."""
    return node.mtime >= since or (not path and node.mtime == 0)


def _additions(expected: Container[bytes]) -> set[bytes]:
    return {path for path in MOUNT_POINTS if path not in expected} | set(STUBS)


def stubs(ours: Tree) -> list[str]:
    """Return what is wrong with the stub files: each must be an empty regular file of mode 0644."""
    return [
        f"{path!r}: {node}"
        for path in STUBS
        if not (node := ours.get(path)) or (node.kind, node.mode, node.size, node.uid, node.gid) != ("-", 0o644, 0, 0, 0)
    ]


def link_counts(ours: Tree) -> list[str]:
    """Return what is wrong with link counts: names of an inode, or 2 and the folders of a folder."""
    folders: defaultdict[bytes, int] = defaultdict(int)
    for path, node in ours.items():
        if node.kind == "d" and path:
            folders[path.rpartition(b"/")[0]] += 1
    lines = []
    for path, node in ours.items():
        wanted = 2 + folders[path] if node.kind == "d" else len(node.links) or 1
        if node.nlink != wanted:
            lines.append(f"{path!r}: nlink is {node.nlink}, expected {wanted}")
    return lines
