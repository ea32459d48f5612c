"""Layers are told by content; a stream that is cut or damaged never ends well."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sregistry.errors import LayerError
from sregistry.inflate import inflate, is_estargz
from tests import images

DATA = random.Random(1).randbytes(700_000) + bytes(3_000_000) + b"text " * 200_000
SKIPPABLE = b"\x5a\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
GZIP = gzip.compress(DATA, 1, mtime=0)
ZSTD = zstandard.ZstdCompressor().compress(DATA)


def run(stream: bytes) -> bytes:
    return b"".join(inflate(io.BytesIO(stream), "layer"))


@pytest.mark.parametrize(
    ("stream", "times"),
    [
        pytest.param(DATA, 1, id="plain"),
        pytest.param(b"", 0, id="nothing"),
        pytest.param(GZIP, 1, id="gzip"),
        pytest.param(GZIP + gzip.compress(b"") + GZIP, 2, id="gzip-members"),
        pytest.param(GZIP + bytes(700), 1, id="gzip-padded"),
        pytest.param(gzip.compress(b""), 0, id="gzip-of-nothing"),
        pytest.param(ZSTD, 1, id="zstd"),
        pytest.param(ZSTD + ZSTD, 2, id="zstd-frames"),
        pytest.param(SKIPPABLE + ZSTD + SKIPPABLE + ZSTD + SKIPPABLE, 2, id="zstd-skippable"),
        pytest.param(SKIPPABLE, 0, id="zstd-of-nothing"),
        pytest.param(images.estargz(DATA), 1, id="estargz"),
        pytest.param(images.zstd_chunked(DATA), 1, id="zstd-chunked"),
    ],
)
def test_content_tells_the_compression(stream: bytes, times: int) -> None:
    assert run(stream) == DATA * times


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        pytest.param(GZIP[:-1], "ends too early", id="gzip-without-last-byte"),
        pytest.param(GZIP[: len(GZIP) // 2], "ends too early", id="gzip-half"),
        pytest.param(GZIP + b"garbage that is no member", "damaged gzip", id="gzip-garbage-behind"),
        pytest.param(GZIP[:-8] + bytes(8), "damaged gzip", id="gzip-checksum"),
        pytest.param(ZSTD[:-1], "ends too early", id="zstd-without-last-byte"),
        pytest.param(ZSTD + ZSTD[:40], "ends too early", id="zstd-second-frame-cut"),
        pytest.param(ZSTD + SKIPPABLE[:7], "ends too early", id="zstd-skippable-cut"),
        pytest.param(ZSTD + b"garbage that is no frame", "damaged zstd", id="zstd-garbage-behind"),
        pytest.param(lzma.compress(b"x"), "xz", id="xz"),
        pytest.param(bz2.compress(b"x"), "bzip2", id="bzip2"),
    ],
)
def test_a_bad_stream_is_refused_by_name(stream: bytes, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        run(stream)


@pytest.mark.parametrize(
    ("blob", "expected"),
    [
        (images.estargz(b"data"), True),
        (images.stargz(b"data"), True),
        (images.gzip_members(b"data"), False),
        (images.estargz(b"data")[:-1], False),
        (images.estargz(b"data") + b"\0", False),
        (b"%016xSTARGZ" % 7, False),
        (b"", False),
    ],
)
def test_estargz_is_told_by_its_end(blob: bytes, expected: bool) -> None:
    assert is_estargz(io.BytesIO(blob)) == expected


CUT = {"gzip": GZIP[:5000], "zstd": ZSTD[:5000]}


@given(st.sampled_from(sorted(CUT)), st.integers(0, 4999), st.binary(max_size=60))
def test_garbage_raises_nothing_else(kind: str, at: int, junk: bytes) -> None:
    damaged = CUT[kind][:at] + junk + CUT[kind][at + len(junk) :]
    try:
        found = run(damaged)
    except LayerError:
        return
    assert found == damaged, "a stream that was cut can't end well, but one without its magic number is plain"
