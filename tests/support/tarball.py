"""Tar streams to the byte: whatever a layer may hold, in any format and any order.

```
| x or L and K headers with their data, if any | header 512 | data, padded to 512 | … | two zero blocks |
```

The standard library's tarfile can't write GNU's sparse files, binary extended attributes, names that
repeat or headers that contradict each other; and it must not judge a reader by the same reader.
Everything that isn't given is fixed, so equal calls give equal bytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from enum import Enum

#: Modification time of every member that has none: 2001-09-09 01:46:40 UTC.
EPOCH = 1_000_000_000
END = bytes(1024)

FILE, LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO, CONTIGUOUS = (b"%d" % i for i in range(8))
OLD_FILE = b"\0"
GLOBAL = b"g"


class Style(Enum):
    """Which format a member is written in."""

    V7 = "v7"
    USTAR = "ustar"
    GNU = "gnu"
    PAX = "pax"


class Sparse(Enum):
    """How a sparse file says where its data is (GNU tar manual, "Sparse Formats")."""

    OLD_GNU = "old-gnu"
    PAX_0_0 = "pax-0.0"
    PAX_0_1 = "pax-0.1"
    PAX_1_0 = "pax-1.0"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """One entry. `segments` are the (offset, length) of a sparse file's data; the rest of `data` is zeros."""

    name: bytes
    type: bytes = FILE
    data: bytes = b""
    target: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int | str = EPOCH
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[bytes, bytes] = dataclasses.field(default_factory=dict)
    records: Iterable[tuple[bytes, bytes]] = ()
    style: Style = Style.PAX
    sparse: Sparse | None = None
    segments: tuple[tuple[int, int], ...] = ()


def file(name: bytes, data: bytes = b"", **more: object) -> Member:
    return Member(name=name, data=data, **more)  # type: ignore[arg-type]


def directory(name: bytes, mode: int = 0o755, **more: object) -> Member:
    return Member(name=name.rstrip(b"/") + b"/", type=DIRECTORY, mode=mode, **more)  # type: ignore[arg-type]


def symlink(name: bytes, target: bytes, **more: object) -> Member:
    return Member(name=name, type=SYMLINK, target=target, mode=0o777, **more)  # type: ignore[arg-type]


def link(name: bytes, target: bytes, **more: object) -> Member:
    return Member(name=name, type=LINK, target=target, **more)  # type: ignore[arg-type]


def fifo(name: bytes, mode: int = 0o644, **more: object) -> Member:
    return Member(name=name, type=FIFO, mode=mode, **more)  # type: ignore[arg-type]


def device(name: bytes, kind: bytes, major: int, minor: int, mode: int = 0o600, **more: object) -> Member:
    return Member(name=name, type=kind, device=(major, minor), mode=mode, **more)  # type: ignore[arg-type]


def whiteout(path: bytes) -> Member:
    """Return the marker that removes *path* of lower layers (image-spec, layer.md, "Whiteouts")."""
    folder, slash, name = path.rpartition(b"/")
    return Member(name=folder + slash + b".wh." + name, mode=0)


def opaque(folder: bytes) -> Member:
    """Return the marker that removes all that lower layers have in *folder*."""
    return Member(name=folder.rstrip(b"/") + b"/.wh..wh..opq", mode=0)


def tar(members: Iterable[Member], end: bytes = END) -> bytes:
    """Return the stream of *members*."""
    return b"".join(encode(member) for member in members) + end


def encode(member: Member) -> bytes:
    """Return a member's headers and data."""
    records = list(member.records)
    name, data, kind = member.name, member.data, member.type
    front = b""
    tail = b""
    if member.sparse:
        name, data, kind, tail = _sparse(member, records)
    if member.style is Style.GNU:
        front += _long(b"L", name, 100) + _long(b"K", member.target, 100)
    if member.style is Style.PAX:
        for key, value in member.xattrs.items():
            records.append((b"SCHILY.xattr." + key, value))
        # A name that is no ASCII may stand in the header as it is: that much is in the wild, too.
        if len(name) > 100:
            records.append((b"path", name))
        if len(member.target) > 100:
            records.append((b"linkpath", member.target))
        for key, number in ((b"uid", member.uid), (b"gid", member.gid)):
            if number > 0o7777777:
                records.append((key, b"%d" % number))
        if isinstance(member.mtime, str) or member.mtime < 0:
            records.append((b"mtime", str(member.mtime).encode()))
    if kind == GLOBAL:
        data, records = _records(records), []
    if records:
        body = _records(records)
        front += _header(Member(name=b"PaxHeaders/" + name[:80], type=b"x"), b"PaxHeaders/" + name[:80], b"x", len(body)) + _pad(body)
    return front + _header(member, name, kind, len(data), tail) + _pad(data)


def _sparse(member: Member, records: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes, bytes, bytes]:
    """Return name, data, type and the end of the header; adds PAX records."""
    segments = list(member.segments)
    real = len(member.data)
    assert all(not any(member.data[end:start]) for (end, start) in _holes(segments, real)), "data in a hole"
    packed = b"".join(member.data[at : at + length] for at, length in segments)
    if not segments or sum(segments[-1]) != real:
        segments.append((real, 0))
    folder, slash, base = member.name.rpartition(b"/")
    stand_in = folder + slash + b"GNUSparseFile.0/" + base
    flat = [n for segment in segments for n in segment]
    match member.sparse:
        case Sparse.OLD_GNU:
            assert member.style is Style.GNU
            pairs = [b"".join(_octal(n, 12) for n in segment) for segment in segments]
            more = b"\1" if len(pairs) > 4 else b"\0"
            tail = b"".join(pairs[:4]).ljust(96, b"\0") + more + _octal(real, 12)
            extensions = b""
            for at in range(4, len(pairs), 21):
                rest = b"\1" if at + 21 < len(pairs) else b"\0"
                extensions += (b"".join(pairs[at : at + 21]).ljust(504, b"\0") + rest).ljust(512, b"\0")
            # Extension blocks stand between header and data and don't count in the size.
            return member.name, _Extended(extensions, packed), b"S", tail
        case Sparse.PAX_0_0:
            records += [(b"GNU.sparse.size", b"%d" % real), (b"GNU.sparse.numblocks", b"%d" % len(segments))]
            for at, length in segments:
                records += [(b"GNU.sparse.offset", b"%d" % at), (b"GNU.sparse.numbytes", b"%d" % length)]
            return member.name, packed, FILE, b""
        case Sparse.PAX_0_1:
            records += [
                (b"GNU.sparse.size", b"%d" % real),
                (b"GNU.sparse.numblocks", b"%d" % len(segments)),
                (b"GNU.sparse.map", b",".join(b"%d" % n for n in flat)),
                (b"GNU.sparse.name", member.name),
            ]
            return stand_in, packed, FILE, b""
        case _:
            records += [
                (b"GNU.sparse.major", b"1"),
                (b"GNU.sparse.minor", b"0"),
                (b"GNU.sparse.name", member.name),
                (b"GNU.sparse.realsize", b"%d" % real),
            ]
            numbers = b"".join(b"%d\n" % n for n in (len(segments), *flat))
            return stand_in, _pad(numbers) + packed, FILE, b""


class _Extended(bytes):
    """Data with header blocks before it that its length doesn't count."""

    before: bytes

    def __new__(cls, before: bytes, data: bytes) -> _Extended:
        made = super().__new__(cls, data)
        made.before = before
        return made


def _holes(segments: list[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    ends = [0, *(at + length for at, length in segments)]
    starts = [*(at for at, _ in segments), size]
    return list(zip(ends, starts, strict=True))


def _header(member: Member, name: bytes, kind: bytes, size: int, tail: bytes = b"") -> bytes:
    prefix = b""
    if member.style is Style.USTAR and len(name) > 100:
        cut = name.index(b"/", len(name) - 101)
        prefix, name = name[:cut], name[cut + 1 :]
        assert len(prefix) <= 155, "a name that ustar can't hold"
    elif member.style is Style.V7:
        assert len(name) <= 100, "a name that v7 can't hold"
    number = _binary_or_octal if member.style is Style.GNU else _octal_or_zero
    time = member.mtime if isinstance(member.mtime, int) else 0
    magic = {Style.V7: bytes(8), Style.GNU: b"ustar  \0"}.get(member.style, b"ustar\x0000")
    header = b"".join(
        [
            name[:100].ljust(100, b"\0"),
            _octal(member.mode, 8),
            number(member.uid, 8),
            number(member.gid, 8),
            _octal(size, 12),
            number(time, 12),
            b" " * 8,
            kind,
            member.target[:100].ljust(100, b"\0"),
            magic,
            bytes(64),
            _octal(member.device[0], 8) if member.style is not Style.V7 else bytes(8),
            _octal(member.device[1], 8) if member.style is not Style.V7 else bytes(8),
            (bytes(41) + tail if tail else prefix).ljust(167, b"\0"),
        ]
    )
    assert len(header) == 512, len(header)
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


def _long(kind: bytes, text: bytes, limit: int) -> bytes:
    if len(text) <= limit:
        return b""
    named = b"././@LongLink"
    return _header(Member(name=named, style=Style.GNU, mtime=0), named, kind, len(text) + 1) + _pad(text + b"\0")


def _records(records: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return PAX records: each starts with its own length in decimal, which counts itself."""
    out = []
    for key, value in records:
        rest = b" " + key + b"=" + value + b"\n"
        length = len(rest)
        while len(b"%d" % length) + len(rest) != length:
            length = len(b"%d" % length) + len(rest)
        out.append(b"%d" % length + rest)
    return b"".join(out)


def _octal(value: int, width: int) -> bytes:
    text = b"%0*o\0" % (width - 1, value)
    assert len(text) == width, "a number that its field can't hold"
    return text


def _octal_or_zero(value: int, width: int) -> bytes:
    """Return the field; what doesn't fit is 0 here and stands in a PAX record."""
    return _octal(value if 0 <= value < 8 ** (width - 1) else 0, width)


def _binary_or_octal(value: int, width: int) -> bytes:
    """Return the field, base-256 where octal doesn't fit (GNU tar manual, "Extensions")."""
    if 0 <= value < 8 ** (width - 1):
        return _octal(value, width)
    raw = value.to_bytes(width, "big", signed=True)
    return bytes([raw[0] | 0x80]) + raw[1:]


def _pad(data: bytes) -> bytes:
    before = data.before if isinstance(data, _Extended) else b""
    return before + bytes(data) + bytes(-len(data) % 512)
