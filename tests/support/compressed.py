"""Blocks of all kinds, and the digest of what each Compression makes of them in one process."""

from __future__ import annotations

import hashlib
import random

import pytest

from sregistry.layers.compression import LEVELS, PURE, Codec, Compression

#: For a test of the level `small`.
SLOWEST = pytest.mark.slow("the slowest level of compression", once=True)
COMPRESSIONS = [Compression(codec=codec, level=level) for codec in Codec for level in LEVELS]
PURES = [compression for compression in COMPRESSIONS if (compression.codec, compression.level) in PURE]


def _blocks() -> list[bytes]:
    """Return blocks of many sizes: text, noise, both, zeros, one byte, repeats from near and from far."""
    dice = random.Random(20171127)
    noise = dice.randbytes(131072)
    text = b"".join(b"line %d of %d\n" % (dice.randrange(500), dice.randrange(9)) for _ in range(12_000))
    program = b"".join(noise[at : at + 40] + text[at : at + 90] for at in range(0, 100_000, 97))
    sources = [text, noise, program, bytes(131072), b"x" * 131072, noise[:40_000] * 4, text[:777] * 200]
    sizes = [1, 2, 31, 300, 4095, 32_769, 65_536, 131_072]
    return [source[:size] for source in sources for size in sizes] + [program[: 1 << 20] * 2]


BLOCKS = _blocks()


def digest(packed: list[bytes]) -> str:
    """Return one digest of compressed blocks and their lengths."""
    return hashlib.sha256(b"".join(b"%d:%b" % (len(block), block) for block in packed)).hexdigest()


def digests(seed: int) -> dict[str, str]:
    """Compress the blocks in an order that *seed* decides, by each Compression; the digests are of the blocks in their own."""
    order = list(range(len(BLOCKS)))
    random.Random(seed).shuffle(order)
    found = {}
    for compression in PURES:
        encode = compression.encoder()
        packed = {i: encode(BLOCKS[i]) for i in order}
        found[compression.variant] = digest([packed[i] for i in range(len(BLOCKS))])
    return found
