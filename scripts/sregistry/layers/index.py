"""The index of an exploded layer: its entries in tar order, as columns.

```
| magic 8 | Header | identity | kind u8[n] | mode u16[n] | uid u32[n] | … one array a column … | heap_at u64[2n+1]
| block words u32[] | fragment starts u64[] | fragment words u32[] | fragment lengths u32[] | xattrs_at u64[x+1]
| heap: path, link, path, link … | xattr heap | sha256 of each stretch of `data`, 32 each | sha256 of all before, 32 |
```

The identity, `<diff_id> <variant>`, is the layer's name: an index under another name is found out, and so is
`data` that is not this index's, or has changed, by the digests of its stretches of STRETCH bytes (the last is shorter).

Columns instead of records: a million entries load in milliseconds and cost some 70 bytes each.
Little-endian; the file is checked against its own digest when it is read. `start`, `first_block`,
`fragment` and `fragment_offset` say where a file's content is in the layer's `data`, in squashfs'
own terms (block words: squashfs 4.0, "Data blocks": bits 0–23 size, bit 24 raw, 0 a hole).
"""

from __future__ import annotations

import hashlib
import os
import struct
import sys
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from sregistry.errors import StoreError, from_oserror
from sregistry.layers.compression import Codec
from sregistry.layers.tar_reader import Entry
from sregistry.store.beneath import opened

MAGIC = b"SRXLAYER"
#: No fragment, no extended attributes.
NONE = 0xFFFFFFFF
RAW = 1 << 24
#: Bytes of `data` that have a digest in common; whoever uses a part of them reads them all.
STRETCH = 1 << 20

Xattrs = tuple[tuple[bytes, bytes], ...]

_HEADER = struct.Struct("<IHHIIIQQQQ")
_DIGEST = 32
_MERGING = ("kind", "heap_at")
_COLUMNS = {
    "kind": "B",
    "mode": "H",
    "uid": "I",
    "gid": "I",
    "mtime": "q",
    "size": "Q",
    "major": "I",
    "minor": "I",
    "xattr": "I",
    "start": "Q",
    "first_block": "I",
    "fragment": "I",
    "fragment_offset": "I",
}


class DamagedLayer(StoreError):
    """An exploded layer is gone, damaged, or another one: `folder`, which can be made anew from its blob."""

    def __init__(self, folder: Path, message: str) -> None:
        super().__init__(message, hint=f"remove the folder {folder}; the next run makes it anew")
        self.folder = folder


class Header(NamedTuple):
    """The fixed part after the magic; sizes in bytes."""

    block_size: int
    codec: int
    identity: int
    entries: int
    blocks: int
    fragments: int
    xattr_sets: int
    data_size: int
    heap_size: int
    xattr_heap_size: int


class Index:
    """The columns of one layer. Row *i* is the *i*-th entry of the tar stream."""

    kind: array[int]
    mode: array[int]
    uid: array[int]
    gid: array[int]
    mtime: array[int]
    size: array[int]
    major: array[int]
    minor: array[int]
    xattr: array[int]
    start: array[int]
    first_block: array[int]
    fragment: array[int]
    fragment_offset: array[int]

    def __init__(self, codec: Codec, block_size: int) -> None:
        self.codec = codec
        self.block_size = block_size
        self.data_size = 0
        self.identity = b""
        self.stretches = b""
        self.digest = b""
        for name, code in _COLUMNS.items():
            setattr(self, name, array(code))
        self.heap_at = array("Q", [0])
        self.words = array("I")
        self.fragment_start = array("Q")
        self.fragment_word = array("I")
        self.fragment_length = array("I")
        self.xattrs_at = array("Q", [0])
        self._heap: bytes | bytearray = bytearray()
        self._xattr_heap: bytes | bytearray = bytearray()
        self._xattr_sets: dict[Xattrs, int] = {}

    def __len__(self) -> int:
        return len(self.kind)

    def path(self, row: int) -> bytes:
        """Return the entry's path, cleaned."""
        return bytes(self._heap[self.heap_at[2 * row] : self.heap_at[2 * row + 1]])

    def link(self, row: int) -> bytes:
        """Return the target of a symlink or hard link."""
        return bytes(self._heap[self.heap_at[2 * row + 1] : self.heap_at[2 * row + 2]])

    def paths(self) -> Iterable[bytes]:
        """Yield the paths of all rows, in order."""
        heap, at = bytes(self._heap), self.heap_at
        return (heap[start:end] for start, end in zip(at[0::2], at[1::2], strict=False))

    def mentions(self, text: bytes) -> bool:
        """Tell whether *text* is anywhere in the paths and links."""
        return text in self._heap

    def xattrs(self, row: int) -> Xattrs:
        """Return the entry's extended attributes as (full name, value)."""
        return () if self.xattr[row] == NONE else self.xattr_set(self.xattr[row])

    def xattr_set(self, number: int) -> Xattrs:
        """Return the set of extended attributes that the column `xattr` names so."""
        data = bytes(self._xattr_heap[self.xattrs_at[number] : self.xattrs_at[number + 1]])
        found = []
        at = 0
        while at < len(data):
            names, values = struct.unpack_from("<II", data, at)
            middle, end = at + 8 + names, at + 8 + names + values
            found.append((data[at + 8 : middle], data[middle:end]))
            at = end
        return tuple(found)

    def blocks(self, row: int) -> Sequence[int]:
        """Return the words of a file's full blocks, in order."""
        count = self.size[row] // self.block_size
        return self.words[self.first_block[row] : self.first_block[row] + count]

    def append(self, entry: Entry) -> int:
        """Add an entry without content and return its row."""
        row = len(self.kind)
        self.kind.append(entry.kind)
        self.mode.append(entry.mode)
        self.uid.append(entry.uid)
        self.gid.append(entry.gid)
        self.mtime.append(entry.mtime)
        self.size.append(entry.size)
        self.major.append(entry.major)
        self.minor.append(entry.minor)
        self.xattr.append(self._xattr_set(entry.xattrs) if entry.xattrs else NONE)
        self.start.append(0)
        self.first_block.append(0)
        self.fragment.append(NONE)
        self.fragment_offset.append(0)
        self._heap += entry.path
        self.heap_at.append(len(self._heap))
        self._heap += entry.link
        self.heap_at.append(len(self._heap))
        return row

    def _xattr_set(self, xattrs: Xattrs) -> int:
        number = self._xattr_sets.get(xattrs)
        if number is None:
            number = self._xattr_sets[xattrs] = len(self.xattrs_at) - 1
            for name, value in xattrs:
                self._xattr_heap += struct.pack("<II", len(name), len(value)) + name + value
            self.xattrs_at.append(len(self._xattr_heap))
        return number

    def stretch(self, number: int) -> tuple[int, int, bytes]:
        """Return the start, the end and the sha256 of a stretch of `data`."""
        start = number * STRETCH
        return start, min(start + STRETCH, self.data_size), self.stretches[number * _DIGEST : (number + 1) * _DIGEST]

    def summed(self) -> Iterable[tuple[int, int, bytes]]:
        """Yield all stretches, in order."""
        return map(self.stretch, range(len(self.stretches) // _DIGEST))

    def write(self, file: IO[bytes]) -> None:
        """Write the index; then it knows its `digest`. Raises OSError."""
        header = Header(
            block_size=self.block_size,
            codec=self.codec,
            identity=len(self.identity),
            entries=len(self),
            blocks=len(self.words),
            fragments=len(self.fragment_start),
            xattr_sets=len(self.xattrs_at) - 1,
            data_size=self.data_size,
            heap_size=len(self._heap),
            xattr_heap_size=len(self._xattr_heap),
        )
        digest = hashlib.sha256()
        parts = [little(column) for _, column, _ in self._arrays(header)]
        heaps = (bytes(self._heap), bytes(self._xattr_heap), self.stretches)
        for part in (MAGIC, _HEADER.pack(*header), self.identity, *parts, *heaps):
            digest.update(part)
            file.write(part)
        self.digest = digest.digest()
        file.write(self.digest)

    @classmethod
    def read(cls, path: Path, *, merging: bool = False, expected: bytes | None = None) -> Index:
        """Read the index of an exploded layer, and check all of it.

        Args:
            path: in the layer's folder, in a store.
            merging: keep only paths, links and kinds, a third of it.
            expected: its `digest`, if that is known.

        Raises:
            DamagedLayer: it can't be read, its bytes are damaged, or it is another one.
        """
        try:
            with opened(path, depth=4) as file:
                index = cls.parse(file, merging=merging)
        except OSError as error:
            raise DamagedLayer(path.parent, from_oserror(error, StoreError, "can't read").message) from error
        if index is None:
            raise DamagedLayer(path.parent, f"{path} is damaged")
        if expected is not None and index.digest != expected:
            raise DamagedLayer(path.parent, f"{path} is another one than when the layer was exploded")
        return index

    @classmethod
    def parse(cls, file: IO[bytes], *, merging: bool) -> Index | None:
        """Read the file column by column, so that it is in memory once; None if it is damaged. Raises OSError."""
        size = os.fstat(file.fileno()).st_size
        head = file.read(len(MAGIC) + _HEADER.size)
        if len(head) < len(MAGIC) + _HEADER.size or head[:8] != MAGIC:
            return None
        header = Header(*_HEADER.unpack_from(head, len(MAGIC)))
        index = cls(Codec.GZIP, header.block_size)
        arrays = index._arrays(header)
        stretches = _DIGEST * -(-header.data_size // STRETCH)
        rest = sum(column.itemsize * count for _, column, count in arrays)
        rest += header.identity + header.heap_size + header.xattr_heap_size + stretches
        if size != len(head) + rest + _DIGEST:
            return None
        digest = hashlib.sha256(head)
        index.identity = file.read(header.identity)
        digest.update(index.identity)
        for name, empty, count in arrays:
            column = array(empty.typecode)
            try:
                column.fromfile(file, count)
            except EOFError:  # it gets shorter while it is read
                return None
            digest.update(column)
            if merging and name not in _MERGING:
                continue
            if sys.byteorder == "big":
                column.byteswap()
            setattr(index, name, column)
        index._heap = file.read(header.heap_size)
        index._xattr_heap = file.read(header.xattr_heap_size)
        index.stretches = file.read(stretches)
        for part in (index._heap, index._xattr_heap, index.stretches):
            digest.update(part)
        index.digest = digest.digest()
        if file.read(_DIGEST + 1) != index.digest:
            return None
        if header.codec not in list(Codec):
            return None
        index.codec = Codec(header.codec)
        index.data_size = header.data_size
        return index

    def _arrays(self, header: Header) -> list[tuple[str, array[int], int]]:
        """Return every array's name, itself and its length in file order."""
        counts = {
            **dict.fromkeys(_COLUMNS, header.entries),
            "heap_at": 2 * header.entries + 1,
            "words": header.blocks,
            "fragment_start": header.fragments,
            "fragment_word": header.fragments,
            "fragment_length": header.fragments,
            "xattrs_at": header.xattr_sets + 1,
        }
        return [(name, getattr(self, name), count) for name, count in counts.items()]


def little(column: array[int]) -> bytes:
    """Return a column's bytes, little-endian."""
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return column.tobytes()
