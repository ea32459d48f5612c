"""A Compression is a pure function of a block, but for the one that says it is not: threads, order, process and what
memory held before never show."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from sregistry.layers.compression import LEVELS, Codec, Compression, decoder
from tests.support.compressed import BLOCKS, COMPRESSIONS, PURES, SLOWEST, digest, digests
from tests.support.snakemake import REPOSITORY

#: What a process is started with so that its fresh memory holds something else (mallopt(3), M_PERTURB).
MEMORY = {"untouched": {}, "0x5a": {"MALLOC_PERTURB_": "165"}, "0xfe": {"MALLOC_PERTURB_": "1"}}


@pytest.fixture(scope="module")
def first() -> dict[str, str]:
    return digests(0)


@pytest.mark.parametrize("compression", [pytest.param(one, id=one.variant, marks=SLOWEST if one.level == "small" else ()) for one in PURES])
def test_threads_and_orders_do_not_show(first: dict[str, str], compression: Compression) -> None:
    encode = compression.encoder()
    for threads, seed in [(1, 1), (4, 2), (4, 3)]:
        order = list(range(len(BLOCKS)))
        random.Random(seed).shuffle(order)
        with ThreadPoolExecutor(threads) as pool:
            packed = dict(zip(order, pool.map(lambda i: encode(BLOCKS[i]), order), strict=True))
        assert digest([packed[i] for i in range(len(BLOCKS))]) == first[compression.variant], (threads, seed)


@pytest.mark.parametrize("memory", MEMORY)
def test_the_process_and_its_memory_do_not_show(first: dict[str, str], memory: str) -> None:
    code = f"import json; from tests.support.compressed import digests; print(json.dumps(digests({len(memory)})))"
    environ = {key: value for key, value in os.environ.items() if key != "MALLOC_PERTURB_"} | MEMORY[memory]
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == first


@pytest.mark.parametrize("compression", COMPRESSIONS, ids=lambda compression: compression.variant)
def test_what_holds_a_block_does_not_show_and_every_block_comes_back(compression: Compression) -> None:
    encode, decode = compression.encoder(), decoder(compression.codec)
    for block in BLOCKS[:40]:
        packed = encode(block)
        others = [encode(memoryview(bytearray(b"before" + block))[6:]), encode(bytearray(block))]
        if compression in PURES:
            assert others == [packed, packed]
        assert [decode(data, len(block)) for data in (packed, *others)] == [block] * 3


def test_levels_are_in_order_of_size() -> None:
    """Fast is the largest, small the smallest, by what a text takes."""
    for codec in Codec:
        sizes = [len(Compression(codec=codec, level=level).encoder()(BLOCKS[7])) for level in LEVELS]
        assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == len(LEVELS), sizes
