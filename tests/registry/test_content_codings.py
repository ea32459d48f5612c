"""Content codings: undone where the bytes bear them out, refused in clear words, never more than the limit of bytes."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Iterator

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from sregistry.registry.content_codings import CodingError, decoded, plain

TEXT = b'{"schemaVersion": 2, "text": "' + b"na" * 5000 + b'"}'


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


def zstd(data: bytes) -> bytes:
    return zstandard.compress(data)


CODED = [
    pytest.param(("gzip",), gzip.compress(TEXT), id="gzip"),
    pytest.param(("x-gzip",), gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:]), id="members"),
    pytest.param(("deflate",), zlib.compress(TEXT), id="zlib"),
    pytest.param(("deflate",), raw_deflate(TEXT), id="raw"),
    pytest.param(("zstd",), zstd(TEXT), id="zstd"),
    pytest.param(("zstd",), zstd(TEXT[:9]) + zstd(TEXT[9:]), id="frames"),
    pytest.param(("gzip", "zstd"), zstd(gzip.compress(TEXT)), id="both"),
    pytest.param(("gzip", "gzip"), gzip.compress(gzip.compress(TEXT)), id="twice"),
]


@pytest.mark.parametrize(("codings", "data"), CODED)
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_a_coding_is_undone(codings: tuple[str, ...], data: bytes, step: int) -> None:
    assert b"".join(decoded((data[i : i + step] for i in range(0, len(data), step)), codings)) == TEXT
    assert plain(data, codings, len(TEXT)) == TEXT


@pytest.mark.parametrize("codings", [("gzip",), ("br",), ("aws-chunked",), ("utf-8",)])
def test_a_document_that_only_says_so_is_taken_as_it_is(codings: tuple[str, ...]) -> None:
    assert plain(b' {"a": 1}', codings, 99) == b' {"a": 1}'


@pytest.mark.parametrize(
    ("codings", "data", "words"),
    [
        (("br",), b"\x8b\x03", "in the content coding 'br', which was not asked for"),
        (("compress",), b"\x1f\x9d", "in the content coding 'compress', which was not asked for"),
        (("x" * 99,), b"\x01", f"in the content coding '{'x' * 20}', which was not asked for"),
        (("gzip",) * 3, b"\x01", "in 3 content codings, one over the other"),
        (("gzip",), b"\x01\x02", "as damaged gzip data"),
        (("gzip",), gzip.compress(TEXT)[:-1], "as gzip data that ends too early"),
        (("gzip",), b"\x1f", "as gzip data that ends too early"),
        (("deflate",), b"\xff\xff\xff", "as damaged deflate data"),
        (("zstd",), b"\x01\x02\x03\x04\x05", "as damaged zstd data"),
        (("zstd",), zstd(TEXT)[:-1], "as zstd data that ends too early"),
        (("zstd",), b"\x28\xb5\x2f\xfd\x00\xf8" + b"\0" * 9, "as damaged zstd data"),
    ],
)
def test_what_can_not_be_undone(codings: tuple[str, ...], data: bytes, words: str) -> None:
    with pytest.raises(CodingError) as caught:
        plain(data, codings, 1 << 20)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("codings", "pack"),
    [
        pytest.param(("gzip",), gzip.compress, id="gzip"),
        pytest.param(("deflate",), zlib.compress, id="deflate"),
        pytest.param(("zstd",), zstd, id="zstd"),
        pytest.param(("zstd", "gzip"), lambda data: gzip.compress(zstd(data)), id="both"),
    ],
)
def test_no_more_comes_out_than_is_wanted(codings: tuple[str, ...], pack: object) -> None:
    bomb = pack(bytes(8 << 20))  # type: ignore[operator]
    assert len(plain(bomb, codings, 1000)) == 1001
    pieces = decoded([bomb], codings)
    assert len(next(pieces)) <= 1 << 20


def test_a_coding_is_undone_in_steps_of_its_input() -> None:
    """Nothing is read ahead: what has come is passed on, however slowly the rest comes."""
    taken: list[int] = []

    def chunks() -> Iterator[bytes]:
        data = gzip.compress(bytes(range(256)) * 4000, 0)
        for at in range(0, len(data), 10_000):
            taken.append(at)
            yield data[at : at + 10_000]

    pieces = decoded(chunks(), ("gzip",))
    next(pieces)
    assert len(taken) <= 3


@given(st.binary(max_size=300), st.sampled_from(["gzip", "deflate", "zstd"]))
def test_any_bytes_are_read_to_their_end_or_refused(data: bytes, coding: str) -> None:
    with contextlib.suppress(CodingError):
        plain(data, (coding,), 1000)


@given(st.binary(max_size=5000), st.integers(1, 50))
def test_what_was_coded_comes_back(data: bytes, step: int) -> None:
    for coding, coded in (("gzip", gzip.compress(data)), ("deflate", zlib.compress(data)), ("zstd", zstd(data))):
        assert b"".join(decoded((coded[i : i + step] for i in range(0, len(coded), step)), (coding,))) == data
