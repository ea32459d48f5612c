"""How the data blocks of an exploded layer are compressed.

A Compression is part of an exploded layer's key: the same tar under the same key gives the same
bytes. Levels are named, because a name says the purpose and survives a change of library; which
encoder stands behind each name is this table and nothing else. What a reader accepts is in
squashfs' `compressor id` (gzip is zlib streams and runs everywhere; zstd needs Apptainer 1.4).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from sregistry.errors import ConfigError, LayerError
from sregistry.store.exploded import FORMAT

MIN_BLOCK, MAX_BLOCK, DEFAULT_BLOCK = 64 << 10, 1 << 20, 128 << 10

Encoder = Callable[[bytes | bytearray | memoryview], bytes]


class Codec(IntEnum):
    """Squashfs compressor ids (squashfs 4.0, superblock) of the codecs that are written."""

    GZIP = 1
    ZSTD = 6


def _libdeflate(level: int) -> Encoder:
    import deflate

    def encode(block: bytes | bytearray | memoryview) -> bytes:
        return bytes(deflate.zlib_compress(block, level))

    return encode


def _isal(level: int) -> Encoder:
    from isal import isal_zlib

    def encode(block: bytes | bytearray | memoryview) -> bytes:
        return bytes(isal_zlib.compress(block, level))

    return encode


def _zstd(level: int) -> Encoder:
    import threading

    import zstandard

    # A compressor is not safe to share among threads. A one-shot frame keeps its window within the
    # block, which the kernel demands.
    local = threading.local()

    def encode(block: bytes | bytearray | memoryview) -> bytes:
        if not hasattr(local, "compressor"):
            local.compressor = zstandard.ZstdCompressor(level=level)
        data: bytes = local.compressor.compress(block)
        return data

    return encode


#: codec, level name → encoder. `default` is within 1 % of the size of mksquashfs' own default (zlib 9).
#: All but one are pure functions of the block for one version of the library; see PURE.
_ENCODERS: dict[tuple[Codec, str], tuple[Callable[[int], Encoder], int]] = {
    (Codec.GZIP, "fast"): (_isal, 2),
    (Codec.GZIP, "default"): (_libdeflate, 5),
    (Codec.GZIP, "small"): (_libdeflate, 12),
    (Codec.ZSTD, "fast"): (_zstd, 1),
    (Codec.ZSTD, "default"): (_zstd, 3),
    (Codec.ZSTD, "small"): (_zstd, 15),
}

LEVELS = ("fast", "default", "small")

#: What gives the same bytes each time. ISA-L does not: on a busy machine one block in some 6,000 misses
#: a match that it finds at other times, and what it finds depends on the processor's vector units. The
#: contents are the same. libdeflate 1, which is pure, takes twice the time.
PURE = frozenset(_ENCODERS) - {(Codec.GZIP, "fast")}


@dataclass(frozen=True, kw_only=True, slots=True)
class Compression:
    """Codec, level and block size in bytes of squashfs data. Raises ConfigError when made of bad values."""

    codec: Codec = Codec.GZIP
    level: str = "default"
    block_size: int = DEFAULT_BLOCK

    def __post_init__(self) -> None:
        if (self.codec, self.level) not in _ENCODERS:
            raise ConfigError(f"compression.level: {self.level!r} is unknown", hint="one of " + ", ".join(LEVELS))
        size = self.block_size
        if not MIN_BLOCK <= size <= MAX_BLOCK or size & (size - 1):
            raise ConfigError(f"compression.block_size: {size} is no power of two from {MIN_BLOCK} to {MAX_BLOCK}")

    @classmethod
    def parse(cls, *, codec: str, level: str, block_size: int) -> Compression:
        """Make one of configured words. Raises ConfigError that names the key."""
        if codec.upper() not in Codec.__members__:
            raise ConfigError(f"compression.codec: {codec!r} is unknown", hint="one of " + ", ".join(c.name.lower() for c in Codec))
        return cls(codec=Codec[codec.upper()], level=level, block_size=block_size)

    @classmethod
    def named(cls, variant: str) -> Compression:
        """Return the compression whose `variant` this is. Raises ConfigError."""
        codec, level, size, *_ = [*variant.split("-"), "", ""]
        return cls.parse(codec=codec, level=level, block_size=int(size) if size.isdecimal() else 0)

    def changed(self, words: Mapping[str, Any]) -> Compression:
        """Return this one with some of `codec`, `level` and `block_size` as configured. Raises ConfigError that names the key."""
        if not words:
            return self
        size = str(words.get("block_size", self.block_size))
        if not size.isdecimal() or len(size) > 9:
            raise ConfigError(f"compression.block_size: expected a whole number, got {size!r}")
        codec = str(words.get("codec", self.codec.name.lower()))
        return self.parse(codec=codec, level=str(words.get("level", self.level)), block_size=int(size))

    def words(self) -> dict[str, str | int]:
        """Return it as it is configured."""
        return {"codec": self.codec.name.lower(), "level": self.level, "block_size": self.block_size}

    @property
    def variant(self) -> str:
        """The key's words as one, such as ``gzip-default-131072-3``."""
        return f"{self.codec.name.lower()}-{self.level}-{self.block_size}-{FORMAT}"

    def encoder(self) -> Encoder:
        """Return the function that compresses one block; it may be called by many threads at once."""
        make, level = _ENCODERS[self.codec, self.level]
        return make(level)


def decoder(codec: Codec) -> Callable[[bytes, int], bytes]:
    """Return the function that expands one block, given the size of the result in bytes. With zstd it raises LayerError."""
    if codec is Codec.ZSTD:
        return _expand_zstd
    from isal import isal_zlib

    return lambda data, size: isal_zlib.decompress(data, bufsize=size)


def _expand_zstd(data: bytes, size: int) -> bytes:
    import zstandard

    try:
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=size)
    except zstandard.ZstdError as error:
        raise LayerError(f"damaged zstd block: {error}") from error
