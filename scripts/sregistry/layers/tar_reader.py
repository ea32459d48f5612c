"""The entries of a layer's tar stream, exactly as written, read once from front to back.

```
| [global header g] [x | L | K | extended sparse headers] header 512 | data, padded to 512 | … | two zero blocks |
header: name 100 · mode 8 · uid 8 · gid 8 · size 12 · mtime 12 · chksum 8 · typeflag 1 · linkname 100
        · magic+version 8 · uname 32 · gname 32 · devmajor 8 · devminor 8 · prefix 155 (ustar)
```

Formats: v7, ustar and pax (POSIX.1-2024, pax "ustar Interchange Format" and "pax Header Block"), GNU
(long names L and K, base-256 numbers, sparse files of type S) and GNU's sparse files in pax form
(`sparse`). Names are bytes and never decoded. Our own reader, because the standard library's takes
four times as long and repairs what should be refused.

Every name and number is checked here, against `limits`: what follows may rely on it. A stream ends where
its last content is complete: padding and zero blocks may be missing, as for Docker and containerd.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from enum import IntEnum
from itertools import count, repeat

from sregistry.layers import sparse_maps
from sregistry.layers.pax import Records
from sregistry.layers.piece_stream import BLOCK, Piece, PieceStream
from sregistry.layers.tar_fields import Fail, NoNumber, check_path, clean, decimal, integer, number, ranged, show
from sregistry.system import limits

_HEADER = struct.Struct("100s 8s 8s 8s 12s 12s 8s c 100s 6s 2x 64x 8s 8s 155s 12x")
_ZEROS = memoryview(bytes(1 << 20))
#: What a header means by a size or a time: 64 bits with a sign, as archive/tar and GNU tar read them.
_LEAST = -(1 << 63)


class Kind(IntEnum):
    """What an entry is; 1 to 6 are squashfs' basic inode types."""

    DIRECTORY = 1
    FILE = 2
    SYMLINK = 3
    BLOCK_DEVICE = 4
    CHARACTER_DEVICE = 5
    FIFO = 6
    HARD_LINK = 8


_KINDS = {
    b"\0": Kind.FILE,
    b"0": Kind.FILE,
    b"7": Kind.FILE,
    b"S": Kind.FILE,
    b"1": Kind.HARD_LINK,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER_DEVICE,
    b"4": Kind.BLOCK_DEVICE,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}


class Entry:
    """One member of a tar stream.

    Attributes:
        path: cleaned: no leading or trailing ``/``, no ``.`` or ``..``; empty for the root.
        kind: what it is.
        mode: permission bits, 07777 at most.
        uid, gid: owner and group.
        mtime: whole seconds, may be negative.
        size: bytes of content, holes included; 0 unless a file.
        link: target of a symlink, verbatim, or of a hard link, cleaned.
        major, minor: of a device.
        xattrs: (full name, value) in the order of the header.
    """

    __slots__ = ("gid", "kind", "link", "major", "minor", "mode", "mtime", "path", "size", "uid", "xattrs")

    path: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    link: bytes
    major: int
    minor: int
    xattrs: tuple[tuple[bytes, bytes], ...]


_DEVICES = frozenset((Kind.BLOCK_DEVICE, Kind.CHARACTER_DEVICE))
#: Types of headers that are no entries themselves.
_EXTENSIONS = frozenset((b"x", b"g", b"X", b"L", b"K", b"V"))
_ZERO = (b"", b"\0")


class TarReader(PieceStream):
    """Iterates over the entries of a stream of pieces; `blocks` reads the content of the current one.

    Raises:
        LayerError: while iterating or reading: truncated, a bad checksum or number, an unknown type.
            The message has the offset in the uncompressed stream.
    """

    def __init__(self, pieces: Iterator[bytes], name: str) -> None:
        super().__init__(pieces, name)
        self._header_at = 0
        self._data = 0  # unread bytes of the current entry's data
        self._padding = 0
        self._segments: array[int] | None = None  # of a sparse file: offset, length, offset …
        self._globals = Records()

    def __iter__(self) -> Iterator[Entry]:
        for before in count():
            if self._data:
                self._skip(self._data)
            if self._padding:
                self._skip(self._padding, whole=False)  # the end of the stream may lack it
            self._data = self._padding = 0
            try:
                entry = self._next()
            except NoNumber as error:
                raise self._fail(str(error), self._header_at) from None
            if entry is None:
                break
            if before >= limits.INODES:
                raise self._fail(f"more entries than the limit INODES of {limits.INODES}", self._header_at)
            yield entry
        self._exhaust()  # what follows the end counts for the digest

    def blocks(self, entry: Entry, size: int) -> Iterator[Piece]:
        """Yield the current file's content in blocks of *size* bytes, 1 MiB at most, the last one shorter; see `is_hole`."""
        if self._segments is None and entry.size <= size:
            if entry.size:
                self._data = 0
                yield self._take(entry.size)
            return
        parts: list[Piece] = []
        held = 0
        for piece in self._content(entry.size):
            if isinstance(piece, int):
                fill = min(piece, -held % size)
                whole, left = divmod(piece - fill, size)
                if fill:
                    parts.append(_ZEROS[:fill])
                    held += fill
                if held == size:
                    yield b"".join(parts)
                    parts, held = [], 0
                yield from repeat(_ZEROS[:size], whole)
                if left:
                    parts.append(_ZEROS[:left])
                    held += left
                continue
            rest = memoryview(piece)
            while rest:
                part = rest[: size - held]
                rest = rest[len(part) :]
                if not held and len(part) == size:
                    yield part
                    continue
                parts.append(part)
                held += len(part)
                if held == size:
                    yield b"".join(parts)
                    parts, held = [], 0
        if held:
            yield b"".join(parts)

    def _content(self, size: int) -> Iterator[Piece | int]:
        """Yield the current file's content, holes as their number of bytes."""
        if self._segments is None:
            self._data = 0
            yield from self._stream(size)
            return
        at = 0
        numbers = iter(self._segments)
        for offset, length in zip(numbers, numbers, strict=True):
            if offset > at:
                yield offset - at
            self._data -= length
            at = offset + length
            yield from self._stream(length)
        if size > at:
            yield size - at

    # -- headers

    def _header(self) -> tuple[bytes, int] | None:
        """Return the next header and its offset, or None at the end."""
        offset = self._header_at = self._offset
        header = self._block()
        if header[:1] in _ZERO and not header.strip(b"\0"):
            if self._block().strip(b"\0"):
                raise self._fail("a single zero block amid the tar stream", offset)
            return None
        if len(header) < BLOCK:
            raise self._fail("the tar stream ends too early")
        stated = number(header[148:156], "checksum")
        if stated != checksum(header):
            signed = checksum(header) - 256 * sum(byte > 127 for byte in header[:148] + header[156:])
            if stated != signed:
                raise self._fail("no tar header (wrong checksum)", offset)
        return header, offset

    def _next(self) -> Entry | None:
        """Read headers up to the next entry's own."""
        records: Records | None = None
        name = link = None
        held = 0
        while True:
            found = self._header()
            if found is None:
                return None  # extended headers without an entry say nothing, as for archive/tar
            header, offset = found
            flag = header[156:157]
            if flag not in _EXTENSIONS:
                break
            size = number(header[124:136], "size")
            if flag == b"V":  # GNU volume label: no member
                self._skip(ranged(size, "size", self._failing(offset), 0, limits.FILE))
                self._skip(-size % BLOCK, whole=False)
                continue
            held += BLOCK + size
            if size < 0 or held > limits.HEADERS:
                raise self._fail(f"extended headers of {held} bytes, over the limit HEADERS of {limits.HEADERS}", offset)
            data = bytes(self._take(size))
            self._skip(-size % BLOCK, whole=False)
            if flag == b"L":
                name = data.partition(b"\0")[0]
            elif flag == b"K":
                link = data.partition(b"\0")[0]
            elif flag == b"g":
                self._globals.read(data, self._failing(offset))
                self._globals.keep_globally(self._failing(offset))
            else:
                records = records or Records()
                records.read(data, self._failing(offset))
        if self._globals.values or self._globals.xattrs:
            records = (records or Records()).over(self._globals)
        return self._entry(header, offset, records, name, link)

    def _failing(self, offset: int, name: bytes | None = None) -> Fail:
        """Return what makes an error at *offset*, in the entry *name* if it is known."""
        entry = "" if name is None else f"{show(name)}: "
        return lambda message: self._fail(entry + message, offset)

    def _entry(self, header: bytes, offset: int, records: Records | None, long_name: bytes | None, long_link: bytes | None) -> Entry:
        name, mode, uid, gid, length, mtime, _, flag, link, magic, major, minor, prefix = _HEADER.unpack(header)
        if long_name is not None:
            name = long_name
        else:
            name = name.partition(b"\0")[0]
            if magic == b"ustar\0" and prefix[0]:
                if header[508:512] == b"tar\0":
                    prefix = prefix[:131]  # star's is shorter
                name = prefix.partition(b"\0")[0] + b"/" + name
        link = link.partition(b"\0")[0] if long_link is None else long_link
        kind = _KINDS.get(flag)
        if kind is None:
            raise self._fail(f"{show(name)}: an entry of unknown type {flag!r}", offset)
        entry = Entry()
        try:
            entry.mode = number(mode, "mode") & 0o7777
            entry.uid = number(uid, "uid")
            entry.gid = number(gid, "gid")
            entry.mtime = number(mtime, "mtime")
            size = number(length, "size")
            entry.major = entry.minor = 0
            if kind in _DEVICES:
                entry.major, entry.minor = number(major, "major"), number(minor, "minor")
        except NoNumber as error:
            raise self._fail(f"{show(name)}: {error}", offset) from None
        entry.xattrs = ()
        if records is not None:
            name, link, size = self._extended(entry, records, name, link, size, offset)
        if flag == b"\0" and name.endswith(b"/"):
            kind = Kind.DIRECTORY  # v7 knows no directories: a trailing slash says it; later formats have type 5
        entry.kind = kind
        entry.size = self._data = self._padding = 0
        self._segments = None
        if kind is Kind.FILE:  # only files have content; a size in other headers is ignored, as archive/tar does
            if size < 0:
                raise self._fail(f"{show(name)}: a negative size", offset)
            entry.size = self._data = ranged(size, "size", self._failing(offset, name), 0, limits.FILE)
            self._padding = -size % BLOCK
            if flag == b"S" or (records is not None and (records.values or records.pairs)):
                name = self._sparse(entry, header, offset, records or Records(), name)
        if (
            kind > Kind.FILE
            or len(name) > limits.NAME
            or not (0 <= entry.uid <= limits.OWNER and 0 <= entry.gid <= limits.OWNER and _LEAST <= entry.mtime <= limits.FILE)
        ):
            _check(entry, name, link, self._failing(offset, name))
        entry.path = clean(name)
        entry.link = clean(link) if kind is Kind.HARD_LINK else link if kind is Kind.SYMLINK else b""
        return entry

    def _extended(self, entry: Entry, records: Records, name: bytes, link: bytes, size: int, offset: int) -> tuple[bytes, bytes, int]:
        """Apply what extended headers say; return name, link and size."""
        values = records.values
        name = values.get(b"path") or name
        link = values.get(b"linkpath") or link
        fail = self._failing(offset, name)
        if b"\0" in name or b"\0" in link:
            raise fail("a name with a NUL byte")
        if records.wrong:
            raise fail(records.wrong)
        if text := values.get(b"size"):
            size = integer(text, b"size", fail, _LEAST, limits.FILE)
        if text := values.get(b"uid"):
            entry.uid = integer(text, b"uid", fail, _LEAST, limits.FILE)
        if text := values.get(b"gid"):
            entry.gid = integer(text, b"gid", fail, _LEAST, limits.FILE)
        if text := values.get(b"mtime"):
            entry.mtime = decimal(text, b"mtime", fail, _LEAST, limits.FILE)
        entry.xattrs = tuple(records.xattrs.items())
        return name, link, size

    def _sparse(self, entry: Entry, header: bytes, offset: int, records: Records, name: bytes) -> bytes:
        """Find a sparse file's map, real size and name; set `_segments`."""
        values = records.values
        name = values.get(b"GNU.sparse.name") or name
        fail = self._failing(offset, name)
        if b"\0" in name:
            raise fail("a name with a NUL byte")
        if header[156:157] == b"S":
            numbers = sparse_maps.of_fields(header, self._more_blocks(), fail)
            real = number(header[483:495], "real size")
        elif values.get(b"GNU.sparse.major") == b"1":
            real = integer(values.get(b"GNU.sparse.realsize", b""), b"GNU.sparse.realsize", fail, 0, limits.FILE)
            numbers = sparse_maps.of_lines(self._data_blocks(), fail)
        elif records.pairs or values.get(b"GNU.sparse.map"):
            key = b"GNU.sparse.size" if b"GNU.sparse.size" in values else b"GNU.sparse.realsize"
            real = integer(values.get(key, b""), key, fail, 0, limits.FILE)
            numbers = records.pairs or sparse_maps.of_text(values[b"GNU.sparse.map"], fail)
        else:
            return name
        self._segments = sparse_maps.segments(numbers, ranged(real, "real size", fail, 0, limits.FILE), self._data, fail)
        entry.size = real
        return name

    def _more_blocks(self) -> Iterator[bytes]:
        """Yield the blocks that follow."""
        while True:
            yield bytes(self._take(BLOCK))

    def _data_blocks(self) -> Iterator[bytes]:
        """Yield the blocks in front of the data of the current entry, which they count for."""
        while self._data >= BLOCK:
            self._data -= BLOCK
            yield bytes(self._take(BLOCK))


def is_header(block: bytes) -> bool:
    """Tell whether a block is a tar header: its checksum is right."""
    try:
        return len(block) == BLOCK and bool(block[0]) and number(block[148:156], "checksum") == checksum(block)
    except NoNumber:
        return False


def checksum(header: bytes) -> int:
    """Return the sum of a header's bytes, its own checksum taken for blanks."""
    return sum(header) - sum(header[148:156]) + 256


def is_hole(block: Piece) -> bool:
    """Tell whether a block that `TarReader.blocks` yields is zeros of a hole, without a look at its bytes."""
    return type(block) is memoryview and block.obj is _ZEROS.obj


def _check(entry: Entry, name: bytes, link: bytes, fail: Fail) -> None:
    """Refuse what Linux or squashfs can't hold."""
    if min(entry.uid, entry.gid) < 0 or max(entry.uid, entry.gid) > limits.OWNER:
        raise fail(f"owner {entry.uid}:{entry.gid} is out of range, 0 to {limits.OWNER}")
    ranged(entry.mtime, "mtime", fail, _LEAST, limits.FILE)
    if not (0 <= entry.major <= limits.DEVICE_MAJOR and 0 <= entry.minor <= limits.DEVICE_MINOR):
        raise fail(f"device {entry.major}:{entry.minor} is out of range, the largest is {limits.DEVICE_MAJOR}:{limits.DEVICE_MINOR}")
    check_path(name, "a path", fail)
    if entry.kind is Kind.HARD_LINK:
        check_path(link, "a hard link to a path", fail)
    elif entry.kind is Kind.SYMLINK and not 0 < len(link) <= limits.LINK:
        raise fail(f"a symbolic link to {len(link)} bytes, 1 to LINK = {limits.LINK} are possible")
