"""A layer's bytes, decompressed: gzip, zstd or plain, told by content, not by label.

Magic numbers: RFC 1952 (gzip, 2.3.1), RFC 8878 (zstd, 3.1.1; skippable frames 3.1.2). gzip may
have many members (eStargz has one a file), zstd many frames (zstd:chunked has skippable ones).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import IO

from sregistry.errors import LayerError

#: Bytes read from a blob at a time, and about the size of the pieces that come out.
READ, PIECE = 256 << 10, 1 << 20
#: Bytes given to zstd at a time: it answers with all that they expand to, 128 KiB for 4 bytes at worst.
ZSTD_STEP = 8 << 10

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_REFUSED = {b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2", b"PK\x03\x04": "zip"}

#: The last member of an eStargz blob: empty, with the place of the table of contents in its header. Older ones
#: (stargz) have no subfield around it.
_STARGZ = re.compile(rb"\x1f\x8b\x08\x04.{6}(\x1a\x00SG\x16\x00|\x16\x00)[0-9a-f]{16}STARGZ\x01\x00\x00\xff\xff\x00{8}", re.DOTALL)
_STARGZ_LENGTHS = (51, 47)


def is_estargz(file: IO[bytes]) -> bool:
    """Tell whether a blob is an eStargz one, by its end; where *file* stands afterwards is not defined."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - max(_STARGZ_LENGTHS)))
    end = file.read()
    return any(_STARGZ.fullmatch(end[-length:]) for length in _STARGZ_LENGTHS)


def inflate(file: IO[bytes], name: str) -> Iterator[bytes]:
    """Yield the uncompressed bytes of *file* in pieces of about 1 MiB (at most 256 MiB for a bomb's piece).

    Args:
        file: at its start; read in order, to its end.
        name: what it is, for messages.

    Raises:
        LayerError: truncated or damaged, followed by garbage, or of a compression that no layer has.
    """
    head = file.read(READ)
    if head.startswith(_GZIP):
        return _gzip(file, head, name)
    if head.startswith(_ZSTD) or (len(head) >= 4 and head[0] & 0xF0 == 0x50 and head[1:4] == b"\x2a\x4d\x18"):
        return _zstd(file, head, name)
    for magic, kind in _REFUSED.items():
        if head.startswith(magic):
            raise LayerError(f"{name}: compressed with {kind}, which no layer type allows")
    return _plain(file, head)


def _plain(file: IO[bytes], head: bytes) -> Iterator[bytes]:
    while head:
        yield head
        head = file.read(PIECE)


def _gzip(file: IO[bytes], data: bytes, name: str) -> Iterator[bytes]:
    from isal.igzip_lib import DECOMP_GZIP, IgzipDecompressor, IsalError

    try:
        while data:
            if not data.strip(b"\0"):  # padding after the last member, as gzip itself tolerates
                data = file.read(READ)
                continue
            member = IgzipDecompressor(flag=DECOMP_GZIP)
            while not member.eof:
                piece = member.decompress(data, PIECE)
                if piece:
                    yield piece
                data = b""
                if member.needs_input and not member.eof:
                    data = file.read(READ)
                    if not data:
                        raise LayerError(f"{name}: the gzip stream ends too early")
            data = member.unused_data or file.read(READ)
    except IsalError as error:  # type: ignore[misc]  # the library types its class as an instance
        raise LayerError(f"{name}: damaged gzip stream: {error}") from None


def _zstd(file: IO[bytes], data: bytes, name: str) -> Iterator[bytes]:
    import zstandard

    # Up to 2 GiB of window, as the format's own tools take with --long=31. A frame object is made
    # for each frame, because only its `eof` tells a whole stream from a truncated one.
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)
    pieces: list[bytes] = []
    held = 0
    try:
        while data:
            frame = decompressor.decompressobj()
            while not frame.eof:
                if not data:
                    raise LayerError(f"{name}: the zstd stream ends too early")
                for start in range(0, len(data), ZSTD_STEP):
                    piece = frame.decompress(data[start : start + ZSTD_STEP])
                    pieces.append(piece)
                    held += len(piece)
                    if held >= PIECE:
                        yield b"".join(pieces)
                        pieces.clear()
                        held = 0
                    if frame.eof:
                        data = frame.unused_data + data[start + ZSTD_STEP :]
                        break
                else:
                    data = file.read(READ)
            data = data or file.read(READ)
    except zstandard.ZstdError as error:
        raise LayerError(f"{name}: damaged zstd stream: {error}") from None
    if held:
        yield b"".join(pieces)
