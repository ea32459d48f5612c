"""A layer's bytes, decompressed: gzip, zstd or plain, told by content, not by label.

Magic numbers: RFC 1952 (gzip, 2.3.1), RFC 8878 (zstd, 3.1.1; skippable frames 3.1.2). gzip may
have many members (eStargz has one a file), zstd many frames (zstd:chunked has skippable ones).

Time and memory are bounded for any bytes: a piece that comes out is about 1 MiB at most, a member or
frame of a few bytes costs no more than its share, and a zstd window has a limit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import IO

from sregistry.errors import LayerError
from sregistry.layers.tar_reader import is_header
from sregistry.system import limits

#: Bytes read from a blob at a time, and about the size of the pieces that come out.
READ, PIECE = 256 << 10, 1 << 20
#: Bytes given to a new gzip member: what is left of them when it ends is copied.
_FIRST = 4 << 10
#: Blocks given to zstd at a time: it answers with all that they expand to, 128 KiB each at most (RFC 8878, 3.1.1.2.4).
_BLOCKS = 8
#: Bytes of the longest header of a zstd frame (RFC 8878, 3.1.1.1).
_FRAME_HEADER = 18

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_REFUSED = {b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2", b"PK\x03\x04": "zip"}

#: The last member of an eStargz blob: empty, with the place of the table of contents in its header. Older ones
#: (stargz) have no subfield around it.
_STARGZ = re.compile(rb"\x1f\x8b\x08\x04.{6}(\x1a\x00SG\x16\x00|\x16\x00)[0-9a-f]{16}STARGZ\x01\x00\x00\xff\xff\x00{8}", re.DOTALL)
_PADDING = re.compile(rb"\0*")
_STARGZ_LENGTHS = (51, 47)


def is_estargz(file: IO[bytes]) -> bool:
    """Tell whether a blob is an eStargz one, by its end; where *file* stands afterwards is not defined."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - max(_STARGZ_LENGTHS)))
    end = file.read()
    return any(_STARGZ.fullmatch(end[-length:]) for length in _STARGZ_LENGTHS)


def inflate(file: IO[bytes], name: str) -> Iterator[bytes]:
    """Yield the uncompressed bytes of *file* in pieces of about 1 MiB.

    Args:
        file: at its start; read in order, to its end.
        name: what it is, for messages.

    Raises:
        LayerError: truncated or damaged, followed by garbage, or of a compression that no layer has.
    """
    head = file.read(READ)
    if is_header(head[:512]):  # a tar may begin with a name that looks like something else
        return _plain(file, head)
    if head.startswith(_GZIP):
        return _gathered(_gzip(file, head, name))
    if head.startswith(_ZSTD) or _skippable(head):
        return _gathered(_zstd(file, head, name))
    for magic, kind in _REFUSED.items():
        if head.startswith(magic):
            raise LayerError(f"{name}: compressed with {kind}, which no layer type allows")
    return _plain(file, head)


def _plain(file: IO[bytes], head: bytes) -> Iterator[bytes]:
    while head:
        yield head
        head = file.read(PIECE)


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Join small pieces, of which there may be millions."""
    held: list[bytes] = []
    size = 0
    for piece in pieces:
        if not held and len(piece) >= PIECE // 2:
            yield piece
            continue
        held.append(piece)
        size += len(piece)
        if size >= PIECE // 2:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _gzip(file: IO[bytes], data: bytes, name: str) -> Iterator[bytes]:
    from isal.igzip_lib import DECOMP_GZIP, IgzipDecompressor, IsalError

    at = 0
    try:
        while data:
            match = _PADDING.match(data, at)  # after a member, as gzip itself tolerates
            at = match.end() if match else at
            if at == len(data):
                data, at = file.read(READ), 0
                continue
            member = IgzipDecompressor(flag=DECOMP_GZIP)
            step = _FIRST
            while not member.eof:
                given = b""
                if member.needs_input:
                    if at == len(data):
                        data, at = file.read(READ), 0
                        if not data:
                            raise LayerError(f"{name}: the gzip stream ends too early")
                    given = data[at : at + step]
                    at += len(given)
                    step = min(2 * step, READ)
                piece = member.decompress(given, PIECE)
                if piece:
                    yield piece
            at -= len(member.unused_data)
    except IsalError as error:  # type: ignore[misc]  # the library types its class as an instance
        raise LayerError(f"{name}: damaged gzip stream: {error}") from None


class _Source:
    """The bytes of a blob, of which exactly so many are taken as a format says."""

    def __init__(self, file: IO[bytes], data: bytes, name: str) -> None:
        self._file, self._data, self._name = file, data, name
        self._at = 0

    def peek(self, size: int) -> bytes:
        """Return the next *size* bytes, fewer at the end."""
        if len(self._data) - self._at < size:
            self._data, self._at = self._data[self._at :] + self._file.read(max(READ, size)), 0
        return self._data[self._at : self._at + size]

    def take(self, size: int) -> bytes:
        """Return the next *size* bytes and go on. Raises LayerError: there are fewer."""
        taken = self.peek(size)
        if len(taken) < size:
            raise LayerError(f"{self._name}: the zstd stream ends too early")
        self._at += size
        return taken


def _skippable(head: bytes) -> bool:
    return len(head) >= 4 and head[0] & 0xF0 == 0x50 and head[1:4] == b"\x2a\x4d\x18"


def _zstd(file: IO[bytes], data: bytes, name: str) -> Iterator[bytes]:
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=limits.ZSTD_WINDOW)
    source = _Source(file, data, name)
    try:
        while head := source.peek(_FRAME_HEADER):
            if _skippable(head):
                left = int.from_bytes(source.take(8)[4:], "little")
                while left:
                    left -= len(source.take(min(left, READ)))
                continue
            frame = zstandard.get_frame_parameters(head)
            if frame.window_size > limits.ZSTD_WINDOW:
                size = f"a zstd window of {frame.window_size} bytes, over the limit ZSTD_WINDOW of {limits.ZSTD_WINDOW}"
                raise LayerError(f"{name}: {size}", hint="publish the image with a smaller one")
            decoder = decompressor.decompressobj()
            for blocks in _blocks(source, zstandard.frame_header_size(head), frame.has_checksum):
                yield decoder.decompress(blocks)
            if not decoder.eof:
                raise LayerError(f"{name}: damaged zstd stream: a frame without its end")
    except zstandard.ZstdError as error:
        raise LayerError(f"{name}: damaged zstd stream: {error}") from None


def _blocks(source: _Source, header: int, checksum: bool) -> Iterator[bytes]:
    """Yield a zstd frame, a few of its blocks at a time (RFC 8878, 3.1.1)."""
    parts = [source.take(header)]
    last = 0
    while not last:
        number = int.from_bytes(source.peek(3), "little")
        last, kind, size = number & 1, number >> 1 & 3, number >> 3
        parts.append(source.take(3 + (1 if kind == 1 else size)))  # 1: a byte that is repeated
        if last and checksum:
            parts.append(source.take(4))
        if last or len(parts) >= _BLOCKS:
            yield b"".join(parts)
            parts.clear()
