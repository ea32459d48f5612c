"""The tar reader against streams made to the byte, and against the standard library's reader."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sregistry.errors import LayerError
from sregistry.fields import clean
from sregistry.tar import Entry, Kind, TarReader
from tests import contents, tarball
from tests.tarball import Member, Sparse, Style, tar


def cut(stream: bytes, size: int) -> Iterator[bytes]:
    return (stream[at : at + size] for at in range(0, len(stream), size))


def read(stream: bytes, piece: int = 1 << 20, block: int = 1000) -> list[tuple[Entry, bytes]]:
    reader = TarReader(cut(stream, piece), "layer")
    return [(entry, b"".join(bytes(part) for part in reader.blocks(entry, block)) if entry.kind is Kind.FILE else b"") for entry in reader]


@pytest.mark.parametrize("piece", [1, 7, 511, 512, 513, 4096, 1 << 20])
def test_pieces_do_not_matter(piece: int) -> None:
    stream = tar([tarball.file(b"a", b"x" * 700), tarball.directory(b"d"), tarball.file(b"d/" + b"n" * 300, b"y" * 5000)])
    found = [(entry.path, content) for entry, content in read(stream, piece)]
    assert found == [(b"a", b"x" * 700), (b"d", b""), (b"d/" + b"n" * 300, b"y" * 5000)]


@pytest.mark.parametrize("block", [1, 512, 999, 4096])
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 998, 999, 1000, 4095, 4096, 4097])
def test_blocks_are_whole_but_the_last(size: int, block: int) -> None:
    content = bytes(range(256)) * 17
    reader = TarReader(cut(tar([tarball.file(b"f", content[:size])]), 700), "layer")
    parts = [bytes(part) for entry in reader for part in reader.blocks(entry, block)]
    assert b"".join(parts) == content[:size]
    assert {len(part) for part in parts[:-1]} <= {block}
    assert all(parts)


@pytest.mark.parametrize("style", [Style.USTAR, Style.GNU, Style.PAX])
@pytest.mark.parametrize("name", [b"n", b"a/" * 40 + b"n", b"d" * 90 + b"/" + b"n" * 90], ids=["short", "deep", "prefix"])
def test_names_of_every_format(style: Style, name: bytes) -> None:
    ((entry, _),) = read(tar([tarball.file(name, b"x", style=style)]))
    assert entry.path == name


def test_a_trailing_slash_is_a_directory_only_where_the_format_has_none() -> None:
    old = tarball.file(b"d/", style=Style.V7, type=tarball.OLD_FILE)
    found = [(entry.path, entry.kind, content) for entry, content in read(tar([old, tarball.file(b"f/", b"content")]))]
    assert found == [(b"d", Kind.DIRECTORY, b""), (b"f", Kind.FILE, b"content")]


@pytest.mark.parametrize("style", [Style.GNU, Style.PAX])
def test_long_names_and_big_numbers(style: Style) -> None:
    name, target = b"\xff\xfe/" + b"n" * 200, b"t" * 3000
    members = [tarball.symlink(name, target, style=style, uid=3_000_000, gid=4_000_000_000, mtime=-5)]
    ((entry, _),) = read(tar(members))
    assert (entry.path, entry.link, entry.uid, entry.gid, entry.mtime) == (name, target, 3_000_000, 4_000_000_000, -5)


@pytest.mark.parametrize("sparse", list(Sparse))
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 30, 100])
def test_sparse_files(sparse: Sparse, count: int) -> None:
    style = Style.GNU if sparse is Sparse.OLD_GNU else Style.PAX
    content = bytearray(512 * (2 * count + 1))
    segments = []
    for i in range(count):
        content[1024 * i + 512 : 1024 * i + 1024] = bytes([i + 1]) * 512
        segments.append((1024 * i + 512, 512))
    member = Member(name=b"s", data=bytes(content), sparse=sparse, segments=tuple(segments), style=style)
    after = tarball.file(b"after", b"z")
    found = [(entry.path, entry.size, data) for entry, data in read(tar([member, after]))]
    assert found == [(b"s", len(content), bytes(content)), (b"after", 1, b"z")]


def test_agrees_with_the_standard_library() -> None:
    """Names, modes, owners, times and contents of layers that tarfile can read."""
    for number, stream in enumerate([tar(contents.tiny()), tar(contents.sizes()), tar(contents.wide())]):
        with tarfile.open(fileobj=io.BytesIO(stream), encoding="utf-8", errors="surrogateescape") as theirs:
            expected = [
                (
                    clean(member.name.encode("utf-8", "surrogateescape")),
                    member.mode & 0o7777,
                    member.uid,
                    member.gid,
                    int(member.mtime // 1),
                    theirs.extractfile(member).read() if member.isreg() else b"",  # type: ignore[union-attr]
                )
                for member in theirs
            ]
        found = [(e.path, e.mode, e.uid, e.gid, e.mtime, data) for e, data in read(stream, block=4096)]
        assert found == expected, f"layer {number}"


@pytest.mark.parametrize(
    ("path", "cleaned"),
    [
        (b"a/b", b"a/b"),
        (b"./a//b/", b"a/b"),
        (b"/etc/passwd", b"etc/passwd"),
        (b"../../etc/passwd", b"etc/passwd"),
        (b"a/../../b/./..", b""),
        (b"./", b""),
        (b"..a/.b./...", b"..a/.b./..."),
    ],
)
def test_paths_never_leave_the_root(path: bytes, cleaned: bytes) -> None:
    assert clean(path) == cleaned


@given(
    st.binary(max_size=30).map(lambda text: text.replace(b"\0", b"/")) | st.lists(st.sampled_from([b"..", b".", b"", b"a"])).map(b"/".join)
)
def test_clean_paths_have_no_dots(path: bytes) -> None:
    parts = clean(path).split(b"/")
    assert parts == [b""] or not {b"", b".", b".."} & set(parts)


def patched(stream: bytes, at: int, field: bytes) -> bytes:
    """Change a header field and its checksum."""
    header = bytearray(stream[:512])
    header[at : at + len(field)] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + stream[512:]


BAD_MAP = [(b"GNU.sparse.map", b"0,9"), (b"GNU.sparse.size", b"4")]
ONE = tar([tarball.file(b"f", b"content", style=Style.USTAR)])


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        pytest.param(ONE[:700], "ends too early", id="cut-in-data"),
        pytest.param(ONE[:300], "ends too early", id="cut-in-header"),
        pytest.param(b"\x01" * 512, "no number|checksum", id="no-header"),
        pytest.param(ONE[:100] + b"9" + ONE[101:], "checksum", id="checksum"),
        pytest.param(patched(ONE, 156, b"Z"), "unknown type", id="type"),
        pytest.param(patched(ONE, 124, b"notanumber\0 "), "no number", id="size"),
        pytest.param(patched(ONE, 124, b"\xff" * 12), "negative size", id="negative-size"),
        pytest.param(patched(ONE, 108, b"\xff" * 8), "out of range", id="negative-owner"),
        pytest.param(ONE[:1024] + bytes(512) + ONE[:1024], "single zero block", id="lone-zero-block"),
        pytest.param(tar([tarball.file(b"f", records=[(b"size", b"abc")])]), "no number", id="pax-number"),
        pytest.param(tar([tarball.file(b"f", records=[(b"path", b"a\0b")])]), "NUL", id="pax-nul"),
        pytest.param(
            tar([tarball.file(b"f", b"x", records=[(b"GNU.sparse.map", b"0,9"), (b"GNU.sparse.size", b"4")])]), "sparse", id="sparse-map"
        ),
        pytest.param(tar([tarball.file(b"f", records=[(b"LIBARCHIVE.xattr.user.a", b"!")])]), "base64", id="libarchive"),
    ],
)
def test_bad_streams_say_where(stream: bytes, words: str) -> None:
    with pytest.raises(LayerError, match=words) as caught:
        read(stream)
    assert "offset" in str(caught.value)


def test_the_end_may_be_missing() -> None:
    assert [entry.path for entry, _ in read(ONE[:1024])] == [b"f"]
    assert [entry.path for entry, _ in read(ONE[:1536])] == [b"f"]
    assert read(b"") == read(bytes(1024)) == []


@given(st.integers(0, 2), st.integers(0, 6000), st.binary(min_size=1, max_size=40))
def test_garbage_raises_nothing_else(layer: int, at: int, junk: bytes) -> None:
    stream = STREAMS[layer]
    at %= len(stream)
    try:
        read(stream[:at] + junk + stream[at + len(junk) :], piece=4096)
    except LayerError as error:
        assert "\n" not in str(error)


STREAMS = [tar(contents.sizes()[:4])[:9000], contents.tricky()[0][:9000], tar([Member(name=b"s", data=bytes(9000), sparse=Sparse.PAX_1_0)])]
