"""The merged root file system: a tree of directories while layers are applied, then packed in columns, in memory and as a file.

The packed sandbox is in breadth-first order: row 0 is the root, the children of a directory are consecutive rows in the
order of their names' bytes.

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
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

from sregistry.errors import LayerError, StoreError, from_oserror
from sregistry.layers.index import Index, little
from sregistry.layers.tar_reader import Kind
from sregistry.store.store import write_atomic
from sregistry.system import limits

MAGIC = b"SRXSAND2"
#: Source of a directory that no layer describes.
IMPLIED = (1 << 64) - 1

#: Names on the way to /bin/sh; a path of Linux has half as many.
_LOOKUP = 4096
_HEAD = struct.Struct("<QQQ")


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


def _oversized(name: bytes, above: int, rows: int) -> LayerError:
    """Return the error of a directory whose longest name is *name*, below a path of *above* bytes."""
    size = above + len(name)
    if len(name) > limits.NAME:
        wrong = f"{show(name[:60])}…: a file name of {len(name)} bytes, over the limit NAME of {limits.NAME}"
    elif size > limits.PATH:
        wrong = f"…{show(name[:60])}: links lead to a path of {size} bytes, over the limit PATH of {limits.PATH}"
    else:
        wrong = f"{rows} inodes or more, over the limit INODES of {limits.INODES}"
    return LayerError(f"the image: {wrong}")


def show(path: bytes) -> str:
    """Return a path of the image for messages."""
    return "/" + path.decode(errors="backslashreplace")
