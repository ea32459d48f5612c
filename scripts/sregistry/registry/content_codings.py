"""Content codings: what a server compresses on the way, and says so (RFC 9110, 8.4.1; zstd: RFC 8878, 7.2).

None is asked for, and some servers and proxies send one all the same. A document is decoded. A blob is what its digest says:
as it came, or decoded.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator

import requests

from sregistry.system import limits

#: Bytes that come out at a time, at most; and that are given to zstd, which expands 4 of them to 128 KiB at worst.
_PIECE, _ZSTD_STEP = 1 << 20, 32
_NONE = ("", "identity")


class CodingError(Exception):
    """A body that is not what its coding says, or of a coding that nobody asked for and that is unknown here."""


def codings_of(response: requests.Response) -> tuple[str, ...]:
    """Return the codings of a body in the order in which they were applied; () for none."""
    words = ",".join(response.raw.headers.getlist("Content-Encoding")).lower().split(",")
    return tuple(word.strip() for word in words if word.strip() not in _NONE)


def decoded(chunks: Iterable[bytes], codings: tuple[str, ...]) -> Iterator[bytes]:
    """Yield a body without its codings, in pieces of 1 MiB at most.

    Raises:
        CodingError: an unknown coding, too many, or damaged data; what it says fits behind "sends it".
    """
    if len(codings) > limits.CODINGS:
        raise CodingError(f"in {len(codings)} content codings, one over the other")
    stream = iter(chunks)
    for coding in reversed(codings):
        decoder = _DECODERS.get(coding)
        if decoder is None:
            raise CodingError(f"in the content coding {coding[:20]!r}, which was not asked for")
        stream = decoder(stream)
    return stream


def plain(data: bytes, codings: tuple[str, ...], limit: int) -> bytes:
    """Return a document without its codings; up to one byte over *limit* of it.

    What begins as JSON does is no compressed data: some servers name a coding that they did not apply (``aws-chunked``, ``utf-8``).

    Raises: CodingError, as `decoded`.
    """
    if not codings or data.lstrip()[:1] in (b"{", b"["):
        return data
    found = bytearray()
    for piece in decoded([data], codings):
        found += piece
        if len(found) > limit:
            break
    return bytes(found[: limit + 1])


def _gzip(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """RFC 1952: members one after the other."""
    return _zlib(chunks, lambda _: 31, "gzip")


def _deflate(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """RFC 9110, 8.4.1.2: zlib's format (RFC 1950); some servers leave its header out."""
    return _zlib(chunks, lambda head: 15 if len(head) > 1 and head[0] & 15 == 8 and (head[0] << 8 | head[1]) % 31 == 0 else -15, "deflate")


def _zlib(chunks: Iterator[bytes], bits: Callable[[bytes], int], coding: str) -> Iterator[bytes]:
    stream = None
    held = b""
    for chunk in chunks:
        data = held + chunk
        held = b""
        while data:
            if stream is None:
                if len(data) < 2:  # too short to tell what it is
                    held = data
                    break
                stream = zlib.decompressobj(bits(data))
            try:
                piece = stream.decompress(data, _PIECE)
            except zlib.error:
                raise CodingError(f"as damaged {coding} data") from None
            if piece:
                yield piece
            data = stream.unconsumed_tail
            while not data and not stream.eof and len(piece) == _PIECE:  # more may be in it than came out
                piece = stream.decompress(b"", _PIECE)
                if piece:
                    yield piece
            if stream.eof:
                data, stream = stream.unused_data, None
    if stream is not None or held:
        raise CodingError(f"as {coding} data that ends too early")


def _zstd(chunks: Iterator[bytes]) -> Iterator[bytes]:
    import zstandard

    # RFC 9659: at most 8 MiB of window in this coding
    decompressor = zstandard.ZstdDecompressor(max_window_size=8 << 20)
    frame = None
    try:
        for chunk in chunks:
            rest = memoryview(chunk)
            while rest:
                frame = frame or decompressor.decompressobj()
                piece = frame.decompress(rest[:_ZSTD_STEP])
                if piece:
                    yield piece
                rest = rest[_ZSTD_STEP:]
                if frame.eof:
                    rest, frame = memoryview(frame.unused_data + bytes(rest)), None
    except zstandard.ZstdError:
        raise CodingError("as damaged zstd data") from None
    if frame is not None:
        raise CodingError("as zstd data that ends too early")


_DECODERS: dict[str, Callable[[Iterator[bytes]], Iterator[bytes]]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "zstd": _zstd,
}
