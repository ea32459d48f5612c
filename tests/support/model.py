"""Applying layers, straightforwardly: a dictionary of paths, one rule after the other, no cleverness.

It follows the image specification (layer.md) in two passes a layer: first the whiteouts, which see the
lower layers only, then the entries in order. Written apart from the package, to judge it.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from tests.support import tarball
from tests.support.oracle import Node, Tree
from tests.support.tarball import Member

#: The modification time of directories that no entry describes: compared with nothing.
IMPLIED = 1 << 40
_KINDS = {
    tarball.SYMLINK: "l",
    tarball.CHARACTER: "c",
    tarball.BLOCK: "b",
    tarball.DIRECTORY: "d",
    tarball.FIFO: "p",
}
_STORED = (b"user.", b"trusted.", b"security.")

Path = tuple[bytes, ...]


class Invalid(Exception):
    """An entry that can't be applied: a link to nothing, a loop of symlinks, a file as the root."""


class Ambiguous(Exception):
    """A layer that the specification leaves open: its meaning depends on the order of its entries."""


@dataclass(frozen=True, eq=False)
class Inode:
    """What names share. `member` is None for a directory that no entry describes."""

    member: Member | None

    @property
    def kind(self) -> str:
        if self.member is None or (self.member.type == tarball.OLD_FILE and self.member.name.endswith(b"/")):
            return "d"
        return _KINDS.get(self.member.type, "-")


class Reference:
    """A root file system. `loose` are directories whose metadata the specification leaves open."""

    def __init__(self) -> None:
        self.tree: dict[Path, Inode] = {(): Inode(None)}
        self.loose: set[Path] = set()
        self._hidden_links: set[Path] = set()
        self._used_links: set[Path] = set()

    def apply(self, members: Iterable[Member]) -> list[Member]:
        """Apply a layer; return it without the entries that are `Invalid`.

        Raises:
            Ambiguous: the order of the layer's entries would matter; nothing is applied.
        """
        before = dict(self.tree), set(self.loose)
        try:
            return self._apply(list(members))
        except Ambiguous:
            self.tree, self.loose = before
            raise

    def _apply(self, members: list[Member]) -> list[Member]:
        lower = dict(self.tree)
        self._hidden_links, self._used_links = set(), set()
        marks = [member for member in members if member.type == tarball.GLOBAL or _reserved(clean(member.name))]
        hidden = {path for mark in marks for path in self._hidden(clean(mark.name))}
        used, self._used_links = self._used_links, set()
        self._hidden_links = {path for path in hidden if lower[path].kind == "l"}
        for path in hidden:
            del self.tree[path]
            self.loose.discard(path)
        # Files that aufs keeps aside are no files of the image, but hard links may name them.
        aside = {clean(mark.name): Inode(mark) for mark in marks if mark.type == tarball.FILE and b".wh..wh." in mark.name}
        valid = {id(mark) for mark in marks}
        ways = {parts[:i] for parts in (clean(mark.name) for mark in marks) for i in range(1, len(parts))}
        for member in members:
            if id(member) in valid:
                continue
            before = dict(self.tree), set(self.loose)
            try:
                self._entry(member, aside)
                valid.add(id(member))
            except Invalid:
                self.tree, self.loose = before
            # A symlink on the way to a whiteout that this layer makes, even if a later entry replaces it.
            if any(path in self.tree and self.tree[path].kind == "l" and self.tree[path] is not lower.get(path) for path in ways):
                raise Ambiguous
        # Hidden, and made again for what is below: other readers let the order decide whose metadata it has.
        self.loose |= {path for path in hidden if path in self.tree and self.tree[path].member is None}
        # A symlink on the way to a whiteout that this layer changes or hides.
        if any(self.tree.get(path) is not lower[path] for path in used):
            raise Ambiguous
        return [member for member in members if id(member) in valid]

    def _hidden(self, parts: Path) -> set[Path]:
        """Return what of the lower layers a whiteout or an opaque marker at *parts* hides."""
        name = parts[-1] if parts else b""
        if not name.startswith(b".wh.") or (name.startswith(b".wh..wh.") and name != b".wh..wh..opq"):
            return set()
        try:
            folder = self._parent(parts[:-1], make=False)
        except Invalid:
            if any(self.tree.get(parts[:i], Inode(None)).kind == "l" for i in range(1, len(parts))):
                raise Ambiguous from None
            return set()
        if name == b".wh..wh..opq":
            return {path for path in self.tree if len(path) > len(folder) and path[: len(folder)] == folder}
        gone = (*folder, name[4:])
        return {path for path in self.tree if path[: len(gone)] == gone}

    def _entry(self, member: Member, aside: dict[Path, Inode]) -> None:
        parts = clean(member.name)
        if not parts:
            if Inode(member).kind != "d":
                raise Invalid
            self.tree[()] = Inode(member)
            return
        path = (*self._parent(parts[:-1]), parts[-1])
        inode = Inode(member)
        old = self.tree.get(path)
        if member.type == tarball.LINK:
            found = clean(member.target)
            inode_or_none = aside.get(found) or self.tree.get((*self._parent(found[:-1], make=False), found[-1]) if found else ())
            if inode_or_none is None or inode_or_none.kind == "d" or found[: len(path)] == path[: len(found)]:
                raise Invalid
            inode = inode_or_none
        if not (old and old.kind == "d" and inode.kind == "d"):
            self._remove(path)
        self.tree[path] = inode
        self.loose.discard(path)

    def _parent(self, parts: Path, *, make: bool = True) -> Path:
        """Return where *parts* lead, symlinks followed inside the root, and make it a directory."""
        at: Path = ()
        todo = list(parts)
        links = 0
        while todo:
            part = todo.pop(0)
            if part in (b"", b"."):
                continue
            if part == b"..":
                at = at[:-1]
                continue
            inode = self.tree.get((*at, part))
            if inode and inode.kind == "l":
                links += 1
                self._used_links.add((*at, part))
                if links > 40:
                    raise Invalid
                assert inode.member is not None
                target = inode.member.target
                todo = [*target.split(b"/"), *todo]
                at = () if target.startswith(b"/") else at
                continue
            at = (*at, part)
            if at in self._hidden_links:
                raise Ambiguous  # through a symlink of a lower layer that this layer hides
            if inode is None or inode.kind != "d":
                if not make:
                    raise Invalid
                self._remove(at)
                self.tree[at] = Inode(None)
        return at

    def _remove(self, path: Path) -> None:
        for other in [other for other in self.tree if other[: len(path)] == path]:
            del self.tree[other]
            self.loose.discard(other)

    def nodes(self) -> Tree:
        """Return the tree as `oracle.tree` would read it from a disk."""
        names: defaultdict[int, list[bytes]] = defaultdict(list)
        for path, inode in self.tree.items():
            names[id(inode)].append(b"/".join(path))
        return {b"/".join(path): _node(inode, sorted(names[id(inode)])) for path, inode in self.tree.items()}


def _reserved(parts: Path) -> bool:
    """Tell whether a name is a whiteout, or of what aufs keeps for itself."""
    return any(part.startswith(b".wh..wh.") for part in parts) or (parts != () and parts[-1].startswith(b".wh."))


def _node(inode: Inode, names: list[bytes]) -> Node:
    member = inode.member or tarball.directory(b"", 0o755, mtime=IMPLIED)
    kind = inode.kind
    content = hashlib.sha256(member.data).hexdigest() if kind == "-" else repr(member.target) if kind == "l" else ""
    seconds = int(str(member.mtime).partition(".")[0])
    return Node(
        kind=kind,
        mode=0o777 if kind == "l" else member.mode,
        uid=member.uid,
        gid=member.gid,
        mtime=max(seconds, 0),
        size=len(member.data) if kind == "-" else 0,
        content=content,
        device=member.device if kind in "bc" else (0, 0),
        xattrs=tuple(sorted(pair for pair in member.xattrs.items() if pair[0].startswith(_STORED) and pair[0] != b"security.selinux")),
        links=tuple(names) if len(names) > 1 else (),
        nlink=len(names),
    )


def clean(name: bytes) -> Path:
    """Return the parts of a name, relative to the root, which it can't leave."""
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return tuple(parts)
