"""The sandbox stage: layers merged into one root file system, in memory, nothing unpacked.

Order of precedence, lowest first: base environment, image layers, metadata. The base environment is
laid *under* the merged image layers, so that a layer's whiteout can't take it away.

Rules of merging: OCI image-spec 1.1, layer.md ("Applying Changesets", "Whiteouts"), as umoci and
containerd apply them:

* a path's parents are resolved inside the tree, symlinks included, never above its root;
* an entry replaces what is there, but a directory over a directory only changes its metadata;
* a whiteout or opaque marker hides what lower layers made, whatever its place in its layer;
* a hard link shares the inode of its target, which this or a lower layer made;
* what eStargz adds to a layer's root for its own use is no file of the image (oci-to-sif.md §16).

The packed sandbox is a file of columns in breadth-first order: row 0 is the root, the children of a
directory are consecutive rows in the order of their names' bytes.

```
| magic 8 | rows u64 | names u64 | layers u64 | source u64[n] | first_child u32[n] | child_count u32[n] | name_at u64[n+1]
| names | folders of the exploded layers and digests of their indexes, in turn, separated by NUL | sha256 of all before |
```

The digests say which data the sandbox is of: an exploded layer that was put in the place of another is found out.
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate, count, pairwise
from pathlib import Path

from sregistry.errors import LayerError, StoreError, from_oserror
from sregistry.layers.index import Index, little
from sregistry.layers.tar_reader import Kind
from sregistry.store.store import write_atomic
from sregistry.system import limits

MAGIC = b"SRXSAND2"
#: Source of a directory that no layer describes.
IMPLIED = (1 << 64) - 1

_WHITEOUT = b".wh."
_RESERVED = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_STARGZ = frozenset((b"stargz.index.json", b".prefetch.landmark", b".no.prefetch.landmark"))
#: Names on the way to /bin/sh; a path of Linux has half as many.
_LOOKUP = 4096
_HEAD = struct.Struct("<QQQ")
_LOW = 0xFFFFFFFF
# An attribute of an enumeration costs as much as all the rest of a line.
_DIRECTORY, _FILE, _HARD_LINK = int(Kind.DIRECTORY), int(Kind.FILE), int(Kind.HARD_LINK)


class Directory:
    """A directory while merging: its children, where its metadata is, the last layer that wrote in it.

    `cleaned` is the last layer whose whiteouts took all that lower layers had below it: nothing of them can
    come back in that layer, so another whiteout has nothing to look for.
    """

    __slots__ = ("children", "cleaned", "layer", "source")

    def __init__(self, source: int, layer: int) -> None:
        self.children: dict[bytes, Directory | int] = {}
        self.source = source
        self.layer = layer
        self.cleaned = -1


Node = Directory | int  # anything but a directory is its source: layer number << 32 | row


class Merger:
    """The tree while layers are applied. Layer numbers are positions in *layers*; *estargz* are those of that kind."""

    def __init__(self, layers: Sequence[Index], estargz: Collection[int] = ()) -> None:
        self._layers = layers
        self._estargz = estargz
        self.root = Directory(IMPLIED, -1)
        self._layer = -1
        self._cache: dict[bytes, Directory] = {}
        self._linked: set[tuple[int, bytes]] = set()
        self._aside: dict[bytes, int] = {}
        self._steps = 0  # names that this layer may still walk through symbolic links
        self._implied = 0

    def apply(self, number: int) -> None:
        """Apply a layer over what is there. Raises LayerError that names the layer and the path."""
        self._begin(number)
        index = self._layers[number]
        cache = self._cache
        foreign = _STARGZ if number in self._estargz else frozenset()
        marked = index.mentions(_WHITEOUT) or bool(foreign)  # most layers hide nothing
        for path, kind, source in zip(index.paths(), index.kind, count(number << 32)):
            parent, _, name = path.rpartition(b"/")
            if marked:
                if path in foreign and kind == _FILE:
                    continue
                if name.startswith(_WHITEOUT):
                    self._whiteout(parent, name)
                    continue
                if _RESERVED in path and (b"/" + path).find(b"/" + _RESERVED) >= 0:
                    self._aside[path] = source  # hard links of old aufs layers may name it
                    continue
            if not path:
                if kind != _DIRECTORY:
                    raise self._fail(path, "the root must be a directory")
                self.root.source = source
                self.root.layer = number
                continue
            directory = cache.get(parent) or self._parent(parent)
            children = directory.children
            old = children.get(name)
            if kind == _DIRECTORY:
                if isinstance(old, Directory):
                    old.source = source
                    old.layer = number
                    cache[path] = old
                    continue
                if old is not None and self._is_symlink(old):
                    cache.clear()
                cache[path] = children[name] = Directory(source, number)
                continue
            if old is not None and (isinstance(old, Directory) or self._is_symlink(old)):
                cache.clear()
            if kind == _HARD_LINK:
                children[name] = self._target(path, index.link(source & _LOW))
                self._linked.add((id(directory), name))
            else:
                children[name] = source

    def underlay(self, number: int) -> None:
        """Apply a layer under what is there: only what is missing is added.

        A directory that is a symlink in the image has its target made, because it is a mount point.
        """
        self._begin(number)
        index = self._layers[number]
        for row, (path, kind) in enumerate(zip(index.paths(), index.kind, strict=True)):
            source = number << 32 | row
            if not path:
                if self.root.source == IMPLIED:
                    self.root.source = source
                continue
            parent, _, name = path.rpartition(b"/")
            directory = self._parent(parent)
            old = directory.children.get(name)
            if kind != Kind.DIRECTORY:
                directory.children.setdefault(name, source)
            elif old is None:
                directory.children[name] = Directory(source, number)
            elif not isinstance(old, Directory) and self._is_symlink(old):
                made = self._walk(path, create=True, keep=True)
                if made is not None and made.source == IMPLIED and made.layer == number and not made.children:
                    made.source = source

    def _begin(self, number: int) -> None:
        self._layer = number
        self._steps = limits.LINK_STEPS * (len(self._layers[number]) + 10_000)
        self._cache.clear()
        self._linked.clear()
        self._aside.clear()

    def _parent(self, path: bytes) -> Directory:
        directory = self._walk(path, create=True)
        assert directory is not None
        self._cache[path] = directory
        return directory

    def _walk(self, path: bytes, *, create: bool, keep: bool = False) -> Directory | None:
        """Find the directory at *path*, symlinks resolved inside the tree.

        With *create*, what is missing is made and each directory on the way is marked as written by
        this layer; what is no directory is replaced, or, with *keep*, ends the walk.
        """
        todo = deque(path.split(b"/") if path else ())
        trail = [self.root]
        links = 0
        if create:
            self.root.layer = self._layer
        while todo:
            name = todo.popleft()
            if name in (b"", b"."):
                continue
            if name == b"..":
                if len(trail) > 1:
                    trail.pop()
                continue
            here = trail[-1]
            child = here.children.get(name)
            if child is not None and not isinstance(child, Directory) and self._is_symlink(child):
                links += 1
                if links > limits.LINKS:
                    raise self._fail(path, f"more symbolic links than the limit LINKS of {limits.LINKS}, a loop")
                target = self._link(child)
                if target.startswith(b"/"):
                    del trail[1:]
                names = target.split(b"/")
                self._steps -= len(names)
                if self._steps < 0:
                    most = limits.LINK_STEPS
                    raise self._fail(path, f"symbolic links that lead through more names than the limit LINK_STEPS of {most} an entry")
                todo.extendleft(reversed(names))
                continue
            if not isinstance(child, Directory):
                if not create or (keep and child is not None):
                    return None
                self._implied += 1
                if self._implied > limits.IMPLIED:
                    raise self._fail(path, f"more directories that no layer describes than the limit IMPLIED of {limits.IMPLIED}")
                child = here.children[name] = Directory(IMPLIED, self._layer)
            if create:
                child.layer = self._layer
            trail.append(child)
        return trail[-1]

    def _target(self, path: bytes, link: bytes) -> int:
        """Return the inode that a hard link names."""
        parent, _, name = link.rpartition(b"/")
        directory = self._walk(parent, create=False)
        found = directory.children.get(name) if directory and name else directory
        if found is None:
            found = self._aside.get(link)
        if found is None:
            raise self._fail(path, f"a hard link to {_show(link)}, which does not exist")
        if isinstance(found, Directory):
            raise self._fail(path, f"a hard link to the directory {_show(link)}")
        return found

    def _whiteout(self, parent: bytes, name: bytes) -> None:
        directory = self._walk(parent, create=False)
        if name == _OPAQUE:
            if directory and directory.cleaned != self._layer:
                directory.cleaned = self._layer
                self._hide([(directory, child) for child in directory.children])
        elif not name.startswith(_RESERVED):
            hidden = name[len(_WHITEOUT) :]
            if hidden in (b"", b".", b".."):
                raise self._fail(parent + b"/" + name, "a whiteout of nothing")
            if directory:
                self._hide([(directory, hidden)])

    def _hide(self, waiting: list[tuple[Directory, bytes]]) -> None:
        """Remove what lower layers made; what this layer wrote stays, with the directories above it."""
        while waiting:
            above, name = waiting.pop()
            child = above.children.get(name)
            if child is None:
                continue
            if isinstance(child, Directory):
                if child.layer == self._layer:
                    if child.cleaned != self._layer:
                        child.cleaned = self._layer
                        waiting.extend([(child, below) for below in child.children])
                    continue
            elif child >> 32 == self._layer or (id(above), name) in self._linked:
                continue
            del above.children[name]
            self._cache.clear()

    def _is_symlink(self, source: int) -> bool:
        return self._layers[source >> 32].kind[source & 0xFFFFFFFF] == Kind.SYMLINK

    def _link(self, source: int) -> bytes:
        return self._layers[source >> 32].link(source & 0xFFFFFFFF)

    def _fail(self, path: bytes, message: str) -> LayerError:
        return LayerError(f"layer {self._layer} of the image: {_show(path)}: {message}")


class Sandbox:
    """The merged root file system, packed: columns in breadth-first order (see the module's drawing).

    `folders` are the exploded layers it is made of, `digests` those of their indexes; layer numbers are positions in both. `source` of a
    row is layer number << 32 | row in that layer's Index, or IMPLIED. Rows of one source are one
    inode with several names.
    """

    def __init__(self, folders: Sequence[Path] = (), digests: Sequence[bytes] = ()) -> None:
        self.folders = tuple(folders)
        self.digests = tuple(digests)
        self.source = array("Q")
        self.first_child = array("I")
        self.child_count = array("I")
        self.name_at = array("Q", [0])
        self._names = b""

    def __len__(self) -> int:
        return len(self.source)

    def name(self, row: int) -> bytes:
        """Return the row's last path component; the root's is empty."""
        return self._names[self.name_at[row] : self.name_at[row + 1]]

    def names(self, start: int, end: int) -> list[bytes]:
        """Return the names of the rows from *start* to *end*."""
        names = self._names
        return [names[a:b] for a, b in pairwise(self.name_at[start : end + 1])]

    def children(self, row: int) -> range:
        """Return the rows of a directory's children, sorted by name."""
        return range(self.first_child[row], self.first_child[row] + self.child_count[row])

    @classmethod
    def pack(cls, root: Directory, folders: Sequence[Path], digests: Sequence[bytes]) -> Sandbox:
        """Lay the tree out in breadth-first order; the tree is taken to pieces.

        Raises LayerError: names or paths that links made longer than Linux can hold, or too many inodes.
        """
        packed = cls(folders, digests)
        names = bytearray()
        lengths = array("I", [0])
        packed.source.append(root.source)
        directories: deque[tuple[int, Directory, int]] = deque([(0, root, 0)])  # the last is the length of the path, a slash behind it
        filled = []
        while directories:
            row, directory, above = directories.popleft()
            children = directory.children
            ordered = sorted(children)
            first = len(packed.source)
            filled.append((row, first, len(ordered)))
            nodes = [children[name] for name in ordered]
            sizes = list(map(len, ordered))
            below = [(child, node) for child, node in enumerate(nodes, first) if isinstance(node, Directory)]
            directories.extend([(child, node, above + sizes[child - first] + 1) for child, node in below])
            packed.source.extend([node.source if isinstance(node, Directory) else node for node in nodes])
            names += b"".join(ordered)
            lengths.extend(sizes)
            longest = max(sizes, default=0)
            if longest > limits.NAME or above + longest > limits.PATH or len(packed.source) > limits.INODES:
                raise _oversized(ordered[sizes.index(longest)], above, len(packed.source))
            children.clear()
        packed.first_child = array("I", bytes(packed.first_child.itemsize * len(packed)))
        packed.child_count = array("I", packed.first_child)
        for row, first, size in filled:
            packed.first_child[row], packed.child_count[row] = first, size
        packed.name_at.extend(accumulate(lengths))
        packed._names = bytes(names)
        return packed

    def indexes(self) -> list[Index]:
        """Read the indexes of its layers. Raises DamagedLayer: one is gone, damaged, or not the one that was merged."""
        pairs = zip(self.folders, self.digests, strict=True)
        return [Index.read(folder / "index", expected=digest) for folder, digest in pairs]

    def replace(self, layers: Mapping[int, tuple[Path, bytes]]) -> None:
        """Take layers from other folders: folder and digest of the index by number; their rows are the same."""
        pairs = [layers.get(number, pair) for number, pair in enumerate(zip(self.folders, self.digests, strict=True))]
        self.folders, self.digests = tuple(folder for folder, _ in pairs), tuple(digest for _, digest in pairs)

    def is_directory(self, row: int, layers: Sequence[Index]) -> bool:
        """Tell whether the row is a directory."""
        source = self.source[row]
        return source == IMPLIED or layers[source >> 32].kind[source & 0xFFFFFFFF] == Kind.DIRECTORY

    def write(self, path: Path) -> None:
        """Write the packed sandbox. Raises OSError."""
        pairs = zip(self.folders, self.digests, strict=True)
        folders = b"\0".join(part for folder, digest in pairs for part in (os.fsencode(folder), digest.hex().encode()))
        head = _HEAD.pack(len(self), len(self._names), len(folders))
        columns = [self.source, self.first_child, self.child_count, self.name_at]
        data = b"".join([MAGIC, head, *map(little, columns), self._names, folders])
        write_atomic(path, data + hashlib.sha256(data).digest())

    @classmethod
    def read(cls, path: Path) -> Sandbox:
        """Read a packed sandbox. Raises StoreError: it can't be read or is damaged."""
        try:
            data = memoryview(path.read_bytes())
        except OSError as error:
            raise from_oserror(error, StoreError, "can't read") from error
        at = len(MAGIC) + _HEAD.size
        if len(data) < at + 32 or data[:8] != MAGIC or hashlib.sha256(data[:-32]).digest() != data[-32:]:
            raise StoreError(f"{path} is damaged", hint="remove that file and run again")
        rows, names, folders = _HEAD.unpack_from(data, len(MAGIC))
        packed = cls()
        columns = {"source": rows, "first_child": rows, "child_count": rows, "name_at": rows + 1}
        for field, length in columns.items():
            column = array(getattr(packed, field).typecode)
            end = at + length * column.itemsize
            column.frombytes(data[at:end])
            if sys.byteorder == "big":
                column.byteswap()
            setattr(packed, field, column)
            at = end
        packed._names = bytes(data[at : at + names])
        parts = bytes(data[at + names : at + names + folders]).split(b"\0")
        packed.folders = tuple(Path(os.fsdecode(part)) for part in parts[0::2])
        packed.digests = tuple(bytes.fromhex(part.decode()) for part in parts[1::2])
        return packed


def merge(folders: Sequence[Path], estargz: Collection[int] = (), expected: Sequence[bytes | None] | None = None) -> Sandbox:
    """Merge exploded layers into one root file system.

    Args:
        folders: of the base environment, the image's layers from the lowest, the metadata.
        estargz: positions of those that are laid out for lazy loading.
        expected: the digests of their indexes, as far as they are known.

    Raises:
        LayerError: a layer can't be applied; the message names it and the path.
        DamagedLayer: an index can't be read, is damaged or another one.
    """
    pairs = zip(folders, expected or [None] * len(folders), strict=True)
    layers = [Index.read(folder / "index", merging=True, expected=digest) for folder, digest in pairs]
    merger = Merger(layers, estargz)
    for number in range(1, len(layers) - 1):
        merger.apply(number)
    merger.underlay(0)
    merger.apply(len(layers) - 1)
    return Sandbox.pack(merger.root, folders, [index.digest for index in layers])


def _oversized(name: bytes, above: int, rows: int) -> LayerError:
    """Return the error of a directory whose longest name is *name*, below a path of *above* bytes."""
    size = above + len(name)
    if len(name) > limits.NAME:
        wrong = f"{_show(name[:60])}…: a file name of {len(name)} bytes, over the limit NAME of {limits.NAME}"
    elif size > limits.PATH:
        wrong = f"…{_show(name[:60])}: links lead to a path of {size} bytes, over the limit PATH of {limits.PATH}"
    else:
        wrong = f"{rows} inodes or more, over the limit INODES of {limits.INODES}"
    return LayerError(f"the image: {wrong}")


def lookup(sandbox: Sandbox, layers: Sequence[Index], path: bytes) -> int | None:
    """Return the row at *path*, all symlinks resolved inside the root; None if there is none."""
    todo = deque(path.split(b"/"))
    trail = [0]
    links = steps = 0
    while todo:
        name = todo.popleft()
        steps += 1
        if steps > _LOOKUP:
            return None
        if name in (b"", b"."):
            continue
        if name == b"..":
            if len(trail) > 1:
                trail.pop()
            continue
        children = sandbox.children(trail[-1])
        at = bisect_left(children, name, key=sandbox.name)
        if at == len(children) or sandbox.name(row := children[at]) != name:
            return None
        source = sandbox.source[row]
        if source != IMPLIED and layers[source >> 32].kind[source & 0xFFFFFFFF] == Kind.SYMLINK:
            links += 1
            if links > limits.LINKS:
                return None
            target = layers[source >> 32].link(source & 0xFFFFFFFF)
            if target.startswith(b"/"):
                del trail[1:]
            todo.extendleft(reversed(target.split(b"/")))
            continue
        trail.append(row)
    return trail[-1]


def _show(path: bytes) -> str:
    return "/" + path.decode(errors="backslashreplace")
