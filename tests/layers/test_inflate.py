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
from sregistry.layers.inflate import inflate, is_estargz
from tests.support import images
from tests.support.tarball import Style, file, tar
from tests.support.work import lines, peak

DATA = random.Random(1).randbytes(700_000) + bytes(3_000_000) + b"text " * 200_000
SKIPPABLE = b"\x5a\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"hello"
GZIP = gzip.compress(DATA, 1, mtime=0)
ZSTD = zstandard.ZstdCompressor().compress(DATA)


WIDE = zstandard.ZstdCompressionParameters(window_log=27)


def window(size: int) -> bytes:
    """Return the header of a zstd frame with a window an eighth larger than *size*, a power of two (RFC 8878, 3.1.1.1.2)."""
    return b"\x28\xb5\x2f\xfd\0" + bytes([(size.bit_length() - 11 << 3) | 1])


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
        pytest.param(GZIP + bytes(700_000) + GZIP + bytes(3), 2, id="gzip-padded-between"),
        pytest.param(gzip.compress(b"") * 40_000 + GZIP, 1, id="gzip-empty-members"),
        pytest.param(zstandard.compress(b"") * 40_000 + ZSTD, 1, id="zstd-empty-frames"),
        pytest.param(b"\x5f\x2a\x4d\x18\0\0\0\0" * 40_000 + ZSTD, 1, id="zstd-empty-skippable"),
        pytest.param(b"\x50\x2a\x4d\x18" + (900_000).to_bytes(4, "little") + bytes(900_000) + ZSTD, 1, id="zstd-large-skippable"),
        pytest.param(zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress(DATA), 1, id="zstd-checksum"),
        pytest.param(zstandard.ZstdCompressor(compression_params=WIDE).compress(DATA), 1, id="zstd-largest-window"),
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
        pytest.param(ZSTD + b"\x50\x2a\x4d\x18\xff\xff\xff\xff" + bytes(900), "ends too early", id="zstd-endless-skippable"),
        pytest.param(ZSTD[:4], "ends too early|damaged zstd", id="zstd-magic"),
        pytest.param(GZIP[:2], "ends too early", id="gzip-magic"),
        pytest.param(window(128 << 20) + b"\1\0\0", "window of 150994944 bytes, over the limit ZSTD_WINDOW of 134217728", id="zstd-window"),
        pytest.param(window(1 << 41) + b"\1\0\0", "window|damaged zstd", id="zstd-largest-window-of-the-format"),
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


#: 4 bytes each stand for 128 KiB of zeros (RFC 8878, 3.1.1.2: a block of type 1 repeats one byte).
RLE = (128 << 10 << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
BOMBS = {
    "gzip": gzip.compress(bytes(40 << 20), 9),
    "zstd": b"\x28\xb5\x2f\xfd\0" + bytes([17 - 10 << 3]) + RLE * 320 + b"\1\0\0",
    "zstd-frames": zstandard.ZstdCompressor(level=19).compress(bytes(2 << 20)) * 20,
}


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_comes_out_in_small_pieces(kind: str) -> None:
    sizes: list[int] = []
    taken = peak(lambda: sizes.extend(map(len, inflate(io.BytesIO(BOMBS[kind]), "layer"))))
    assert sum(sizes) == 40 << 20 and len(BOMBS[kind]) < 50_000
    assert max(sizes) <= 2 << 20 and taken < 10 << 20


@pytest.mark.parametrize(
    "tiny", [gzip.compress(b""), gzip.compress(b"x"), zstandard.compress(b""), zstandard.compress(b"x"), SKIPPABLE], ids=len
)
def test_many_tiny_members_are_little_work(tiny: bytes) -> None:
    """A few lines each, and bytes that are copied a few times, not once for each member that came in the same read."""
    assert lines(lambda: run(tiny * 4000)) <= 2.2 * lines(lambda: run(tiny * 2000))
    assert len(list(inflate(io.BytesIO(tiny * 4000), "layer"))) <= 1, "what is small is joined"


@pytest.mark.parametrize("name", [b"BZh-notes", b"PK\3\4", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18"])
def test_a_tar_is_told_by_its_checksum_first(name: bytes) -> None:
    stream = tar([file(name, b"x", style=Style.USTAR)])
    assert run(stream) == stream
