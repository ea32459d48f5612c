"""A stream that comes in pieces, read in parts of any size and in blocks of 512 bytes. Errors name the offset in it."""

from __future__ import annotations

from collections.abc import Iterator

from sregistry.errors import LayerError

BLOCK = 512

Piece = bytes | memoryview


class PieceStream:
    """Reads *pieces*, of which none is empty; *name* is what they are of, for errors."""

    def __init__(self, pieces: Iterator[bytes], name: str) -> None:
        self._pieces = pieces
        self._name = name
        self._piece = b""
        self._view = memoryview(b"")
        self._at = 0  # in the current piece
        self._before = 0  # bytes of the stream before the current piece

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

    def _stream(self, size: int, *, whole: bool = True) -> Iterator[memoryview]:
        """Yield the next *size* bytes as they come; unless they must be *whole*, fewer at the end of the stream."""
        while size:
            if self._at == len(self._piece) and not self._refill():
                if whole:
                    raise self._fail("the tar stream ends too early")
                return
            part = self._view[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            yield part

    def _skip(self, size: int, *, whole: bool = True) -> None:
        for _ in self._stream(size, whole=whole):
            pass

    def _block(self) -> bytes:
        """Return the next block; a shorter one, or none, at the end of the stream."""
        end = self._at + BLOCK
        if end <= len(self._piece):
            taken = self._piece[self._at : end]
            self._at = end
            return taken
        return b"".join(self._stream(BLOCK, whole=False))

    def _exhaust(self) -> None:
        """Read the rest, and pass it over."""
        for piece in self._pieces:
            self._before += len(self._piece)
            self._piece = piece
