"""The entries of a layer's tar stream, exactly as written, read once from front to back.

```
| [global header g] [x | L | K | extended sparse headers] header 512 | data, padded to 512 | … | two zero blocks |
header: name 100 · mode 8 · uid 8 · gid 8 · size 12 · mtime 12 · chksum 8 · typeflag 1 · linkname 100
        · magic+version 8 · uname 32 · gname 32 · devmajor 8 · devminor 8 · prefix 155 (ustar)
```

Formats: v7, ustar and pax (POSIX.1-2024, pax "ustar Interchange Format" and "pax Header Block"), GNU
(long names L and K, base-256 numbers, sparse files of type S) and GNU's sparse files in pax form
(0.0, 0.1, 1.0; GNU tar manual, "Sparse Formats"). Names are bytes and never decoded. Our own reader,
because the standard library's takes four times as long and repairs what should be refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from enum import IntEnum
from urllib.parse import unquote_to_bytes

from sregistry.errors import LayerError

_BLOCK = 512
_ZERO_BLOCK = bytes(_BLOCK)
#: Largest extended header or long name that is read, in bytes.
_MAX_HEADER = 16 << 20
_ZEROS = memoryview(bytes(1 << 20))

Piece = bytes | memoryview


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


# A path that needs cleaning has an empty, '.' or '..' component.
_UNCLEAN = re.compile(rb"(?:^|/)\.{0,2}(?:/|$)")


def clean(path: bytes) -> bytes:
    """Return *path* relative to the root, lexically: ``..`` never leads above it."""
    if not _UNCLEAN.search(path):
        return path
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            if parts:
                parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


class TarReader:
    """Iterates over the entries of a stream of pieces; `blocks` reads the content of the current one.

    Raises:
        LayerError: while iterating or reading: truncated, a bad checksum or number, an unknown type.
            The message has the offset in the uncompressed stream.
    """

    def __init__(self, pieces: Iterator[bytes], name: str) -> None:
        self._pieces = pieces
        self._name = name
        self._piece = b""
        self._view = memoryview(b"")
        self._at = 0  # in the current piece
        self._before = 0  # bytes of the stream before the current piece
        self._data = 0  # unread bytes of the current entry's data
        self._padding = 0
        self._holes: list[tuple[int, int]] | None = None
        self._globals: dict[bytes, bytes] = {}

    def __iter__(self) -> Iterator[Entry]:
        while True:
            self._skip(self._data + self._padding)
            self._data = self._padding = 0
            entry = self._next()
            if entry is None:
                break
            yield entry
        for piece in self._pieces:  # what follows the end counts for the digest
            self._before += len(self._piece)
            self._piece = piece

    def blocks(self, entry: Entry, size: int) -> Iterator[Piece]:
        """Yield the current file's content in blocks of *size* bytes, the last one shorter."""
        if self._holes is None and entry.size <= size:
            if entry.size:
                self._data = 0
                yield self._take(entry.size)
            return
        parts: list[Piece] = []
        held = 0
        for piece in self._content(entry.size):
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

    # -- the stream

    @property
    def _offset(self) -> int:
        return self._before + self._at

    def _fail(self, message: str, offset: int | None = None) -> LayerError:
        return LayerError(f"{self._name}: offset {self._offset if offset is None else offset}: {message}")

    def _refill(self) -> bool:
        self._before += len(self._piece)
        self._piece = next(self._pieces, b"")
        self._view = memoryview(self._piece)
        self._at = 0
        return bool(self._piece)

    def _take(self, size: int) -> Piece:
        """Return the next *size* bytes."""
        end = self._at + size
        if end <= len(self._piece):
            taken = self._view[self._at : end]
            self._at = end
            return taken
        return b"".join(self._stream(size))

    def _stream(self, size: int) -> Iterator[memoryview]:
        """Yield the next *size* bytes as they come."""
        while size:
            if self._at == len(self._piece) and not self._refill():
                raise self._fail("the tar stream ends too early")
            part = self._view[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            yield part

    def _skip(self, size: int) -> None:
        for _ in self._stream(size):
            pass

    def _content(self, size: int) -> Iterator[Piece]:
        """Yield the current file's content, holes as zeros."""
        if self._holes is None:
            self._data = 0
            yield from self._stream(size)
            return
        at = 0
        for offset, length in [*self._holes, (size, 0)]:
            while at < offset:
                zeros = _ZEROS[: offset - at]
                at += len(zeros)
                yield zeros
            self._data -= length
            at += length
            yield from self._stream(length)

    # -- headers

    def _header(self) -> tuple[bytes, int] | None:
        """Return the next header and its offset, or None at the end."""
        while self._at == len(self._piece):
            if not self._refill():
                return None  # the two zero blocks may be missing
        offset = self._offset
        header = bytes(self._take(_BLOCK))
        if header == _ZERO_BLOCK:
            if self._at == len(self._piece) and not self._refill():
                return None
            if bytes(self._take(_BLOCK)) != _ZERO_BLOCK:
                raise self._fail("a single zero block amid the tar stream", offset)
            return None
        total = sum(header) - sum(header[148:156]) + 256
        if total != self._number(header[148:156], "checksum", offset):
            signed = total - 256 * sum(byte > 127 for byte in header[:148] + header[156:])
            if signed != self._number(header[148:156], "checksum", offset):
                raise self._fail("no tar header (wrong checksum)", offset)
        return header, offset

    def _next(self) -> Entry | None:
        """Read headers up to the next entry's own."""
        pax: dict[bytes, bytes] = {}
        sparse_pairs: list[bytes] = []
        long_name = long_link = None
        while True:
            found = self._header()
            if found is None:
                if pax or long_name is not None or long_link is not None:
                    raise self._fail("the tar stream ends too early")
                return None
            header, offset = found
            flag = header[156:157]
            if flag in b"xgXLK" and flag != b"":
                data = self._extension(header, offset)
                if flag == b"L":
                    long_name = data.rstrip(b"\0")
                elif flag == b"K":
                    long_link = data.rstrip(b"\0")
                elif flag == b"g":
                    self._globals.update(self._records(data, offset, []))
                else:
                    pax.update(self._records(data, offset, sparse_pairs))
            elif flag == b"V":  # GNU volume label: no member
                self._skip(_padded(self._number(header[124:136], "size", offset)))
            else:
                break
        if self._globals:
            pax = {**self._globals, **pax}
        return self._entry(header, offset, pax, sparse_pairs, long_name, long_link)

    def _extension(self, header: bytes, offset: int) -> bytes:
        size = self._number(header[124:136], "size", offset)
        if not 0 <= size <= _MAX_HEADER:
            raise self._fail(f"an extended header of {size} bytes", offset)
        data = bytes(self._take(size))
        self._skip(-size % _BLOCK)
        return data

    def _entry(
        self,
        header: bytes,
        offset: int,
        pax: dict[bytes, bytes],
        sparse_pairs: list[bytes],
        long_name: bytes | None,
        long_link: bytes | None,
    ) -> Entry:
        flag = header[156:157]
        kind = _KINDS.get(flag)
        if kind is None:
            raise self._fail(f"an entry of unknown type {flag!r}", offset)
        name = header[:100].partition(b"\0")[0]
        link = header[157:257].partition(b"\0")[0]
        if header[257:263] == b"ustar\0":
            end = 476 if header[508:512] == b"tar\0" else 500  # star's prefix is shorter
            prefix = header[345:end].partition(b"\0")[0]
            if prefix:
                name = prefix + b"/" + name
        name = name if long_name is None else long_name
        link = link if long_link is None else long_link
        size = self._number(header[124:136], "size", offset)
        entry = Entry()
        entry.mode = self._number(header[100:108], "mode", offset) & 0o7777
        entry.uid = self._number(header[108:116], "uid", offset)
        entry.gid = self._number(header[116:124], "gid", offset)
        entry.mtime = self._number(header[136:148], "mtime", offset)
        entry.major = entry.minor = 0
        entry.xattrs = ()
        if kind in (Kind.BLOCK_DEVICE, Kind.CHARACTER_DEVICE):
            entry.major = self._number(header[329:337], "major", offset)
            entry.minor = self._number(header[337:345], "minor", offset)
        if pax:
            name = pax.get(b"path", name)
            link = pax.get(b"linkpath", link)
            if b"size" in pax:
                size = self._decimal(pax, b"size", offset)
            if b"uid" in pax:
                entry.uid = self._decimal(pax, b"uid", offset)
            if b"gid" in pax:
                entry.gid = self._decimal(pax, b"gid", offset)
            if b"mtime" in pax:
                entry.mtime = self._decimal(pax, b"mtime", offset)
            entry.xattrs = self._xattrs(pax, offset)
        if b"\0" in name or b"\0" in link:
            raise self._fail("a name with a NUL byte", offset)
        if min(entry.uid, entry.gid) < 0 or max(entry.uid, entry.gid) > 0xFFFFFFFE:
            raise self._fail(f"{_show(name)}: owner {entry.uid}:{entry.gid} is out of range", offset)
        if size < 0:
            raise self._fail(f"{_show(name)}: a negative size", offset)
        if flag == b"\0" and name.endswith(b"/"):
            kind = Kind.DIRECTORY  # v7 knows no directories: a trailing slash says it; later formats have type 5
        # Only files have content; a size in other headers is ignored, as archive/tar does.
        self._data = size if kind is Kind.FILE else 0
        self._padding = -self._data % _BLOCK
        entry.kind = kind
        entry.size = self._data
        self._holes = None
        if kind is Kind.FILE and (flag == b"S" or pax):
            name = self._sparse(entry, header, offset, pax, sparse_pairs, name)
        entry.path = clean(name)
        entry.link = clean(link) if kind is Kind.HARD_LINK else link if kind is Kind.SYMLINK else b""
        return entry

    def _sparse(self, entry: Entry, header: bytes, offset: int, pax: dict[bytes, bytes], pairs: list[bytes], name: bytes) -> bytes:
        """Find a sparse file's map, real size and name; set `_holes` to its (offset, length) data segments."""
        numbers: list[int]
        if header[156:157] == b"S":
            numbers = [self._number(header[i : i + 12], "sparse map", offset) for i in range(386, 482, 12)]
            real = self._number(header[483:495], "real size", offset)
            more = header[482]
            while more:
                extension = bytes(self._take(_BLOCK))
                numbers += [self._number(extension[i : i + 12], "sparse map", offset) for i in range(0, 504, 12)]
                more = extension[504]
        elif pax.get(b"GNU.sparse.major") == b"1":
            real = self._decimal(pax, b"GNU.sparse.realsize", offset)
            numbers = self._sparse_1_0(offset)
        elif pairs or b"GNU.sparse.map" in pax:
            key = b"GNU.sparse.size" if b"GNU.sparse.size" in pax else b"GNU.sparse.realsize"
            real = self._decimal(pax, key, offset)
            numbers = [self._integer(n, offset) for n in pairs or pax[b"GNU.sparse.map"].split(b",") if n]
        else:
            return name
        if len(numbers) % 2:
            raise self._fail("a sparse map of odd length", offset)
        segments = [(numbers[i], numbers[i + 1]) for i in range(0, len(numbers), 2) if numbers[i + 1]]
        at = 0
        for start, length in segments:
            if start < at or length < 0 or start + length > real:
                raise self._fail("a sparse map that overlaps or leads past the end", offset)
            at = start + length
        if sum(length for _, length in segments) != self._data:
            raise self._fail("a sparse map that differs from the data's size", offset)
        self._holes = segments
        entry.size = real
        return pax.get(b"GNU.sparse.name", name)

    def _sparse_1_0(self, offset: int) -> list[int]:
        """Read the map at the front of the data: decimal numbers, a line each, padded to 512 bytes."""
        text, wanted = b"", 1
        numbers: list[bytes] = []
        while len(numbers) < wanted:
            if self._data < _BLOCK or len(text) > _MAX_HEADER:
                raise self._fail("a sparse map that does not end", offset)
            text += self._take(_BLOCK)
            self._data -= _BLOCK
            numbers = text.split(b"\n")[:-1]
            if numbers:
                wanted = 1 + 2 * self._integer(numbers[0], offset)
        return [self._integer(number, offset) for number in numbers[1:wanted]]

    def _records(self, data: bytes, offset: int, sparse_pairs: list[bytes]) -> dict[bytes, bytes]:
        """Read pax records, `length key=value newline`; sparse 0.0 repeats its keys, which are kept in order."""
        records: dict[bytes, bytes] = {}
        at = 0
        while at < len(data):
            space = data.find(b" ", at, at + 20)
            length = data[at:space] if space > 0 else b""
            if not length.isdigit():
                if not data[at:].strip(b"\0"):
                    break
                raise self._fail("a damaged pax header", offset)
            end = at + int(length)
            key, equals, value = data[space + 1 : end - 1].partition(b"=")
            if not equals or end > len(data) or end <= space or data[end - 1 : end] != b"\n":
                raise self._fail("a damaged pax header", offset)
            if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
                sparse_pairs.append(value)
            elif value or key.startswith((b"SCHILY.xattr.", b"LIBARCHIVE.xattr.")):
                records[key] = value
            else:
                records.pop(key, None)  # an empty value takes the keyword back
            at = end
        return records

    def _xattrs(self, pax: dict[bytes, bytes], offset: int) -> tuple[tuple[bytes, bytes], ...]:
        found: dict[bytes, bytes] = {}
        for key, value in pax.items():
            if key.startswith(b"SCHILY.xattr."):
                found[key[13:]] = value
            elif key.startswith(b"LIBARCHIVE.xattr."):
                name = unquote_to_bytes(key[17:])
                try:
                    found.setdefault(name, base64.b64decode(value + b"=" * (-len(value) % 4), validate=True))
                except binascii.Error:
                    raise self._fail(f"extended attribute {_show(name)}: no base64", offset) from None
        return tuple(found.items())

    def _number(self, field: bytes, what: str, offset: int) -> int:
        """Read an octal or base-256 field."""
        try:
            return int(field.rstrip(b"\0 ") or b"0", 8)
        except ValueError:
            pass
        if field[0] & 0x80:  # GNU base-256: two's complement after the marker bit
            value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
            return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
        try:
            return int(field.partition(b"\0")[0].strip() or b"0", 8)
        except ValueError:
            raise self._fail(f"{what}: {field!r} is no number", offset) from None

    def _decimal(self, pax: dict[bytes, bytes], key: bytes, offset: int) -> int:
        """Read a decimal pax value; a fraction of seconds is cut off downwards."""
        whole, _, fraction = pax.get(key, b"").partition(b".")
        value = self._integer(whole, offset, key)
        return value - 1 if whole.startswith(b"-") and fraction.strip(b"0") else value

    def _integer(self, text: bytes, offset: int, key: bytes = b"sparse map") -> int:
        if not re.fullmatch(rb"-?[0-9]{1,20}", text):
            raise self._fail(f"{_show(key)}: {text[:40]!r} is no number", offset)
        return int(text)


def _padded(size: int) -> int:
    return size + -size % _BLOCK


def _show(name: bytes) -> str:
    return name.decode(errors="backslashreplace")
