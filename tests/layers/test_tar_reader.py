"""The tar reader against streams made to the byte, and against the standard library's reader."""

from __future__ import annotations

import contextlib
import io
import re
import tarfile
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sregistry.errors import LayerError
from sregistry.layers.tar_fields import clean
from sregistry.layers.tar_reader import Entry, Kind, TarReader, is_hole
from tests.support import contents, tarball
from tests.support.tarball import Member, Sparse, Style, tar
from tests.support.work import lines, peak


def cut(stream: bytes, size: int) -> Iterator[bytes]:
    return (stream[at : at + size] for at in range(0, len(stream), size))


def read(stream: bytes, piece: int = 1 << 20, block: int = 1000) -> list[tuple[Entry, bytes]]:
    reader = TarReader(cut(stream, piece), "layer")
    return [(entry, b"".join(bytes(part) for part in reader.blocks(entry, block)) if entry.kind is Kind.FILE else b"") for entry in reader]


@pytest.mark.parametrize("piece", [1, 7, 511, 512, 513, 4096, 1 << 20])
def test_pieces_do_not_matter(piece: int) -> None:
    stream = tar([tarball.file(b"a", b"x" * 700), tarball.directory(b"d"), tarball.file(b"d/" + b"n" * 255, b"y" * 5000)])
    found = [(entry.path, content) for entry, content in read(stream, piece)]
    assert found == [(b"a", b"x" * 700), (b"d", b""), (b"d/" + b"n" * 255, b"y" * 5000)]


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
        pytest.param(ONE[:515], "ends too early", id="cut-in-data"),
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


@pytest.mark.parametrize(
    "end",
    [b"", bytes(100), bytes(505), bytes(505 + 1), bytes(505 + 512), bytes(505 + 700), bytes(505 + 1024), bytes(505 + 1024) + b"anything"],
    ids=len,
)
def test_a_stream_ends_where_its_last_content_is_complete(end: bytes) -> None:
    """Padding, and one or both zero blocks, may be missing or cut: Docker, containerd and umoci read such layers."""
    assert [(entry.path, data) for entry, data in read(ONE[:519] + end)] == [(b"f", b"content")]


@pytest.mark.parametrize("end", [b"", bytes(1024)], ids=["cut", "ended"])
@pytest.mark.parametrize(
    "member", [tarball.file(b"n" * 101, style=Style.GNU), tarball.file(b"f", records=[(b"uid", b"1")])], ids=["long-name", "records"]
)
def test_headers_without_an_entry_are_the_end(member: Member, end: bytes) -> None:
    assert [entry.path for entry, _ in read(ONE[:1024] + tarball.encode(member)[:1024] + end)] == [b"f"]


@pytest.mark.parametrize("piece", [1, 512, 1 << 20])
@pytest.mark.parametrize(
    ("stream", "words"),
    [
        pytest.param(ONE[:518], "ends too early", id="content"),
        pytest.param(ONE[:1024] + ONE[:511], "ends too early", id="header"),
        pytest.param(ONE[:1024] + b"junk", "ends too early", id="junk"),
        pytest.param(ONE[:1024] + bytes(512) + b"junk", "single zero block", id="junk-behind-a-zero-block"),
        pytest.param(tar([tarball.file(b"n" * 101, style=Style.GNU)])[:600], "ends too early", id="long-name"),
        pytest.param(tar([tarball.file(b"f", records=[(b"comment", b"c" * 700)])])[:1030], "ends too early", id="records"),
    ],
)
def test_content_that_is_missing_is_an_error(stream: bytes, words: str, piece: int) -> None:
    with pytest.raises(LayerError, match=words):
        read(stream, piece)


def field(at: int, text: bytes, **member: object) -> bytes:
    """Return a stream of one entry with *text* in its header at byte *at*."""
    made = {"name": b"the/entry", "style": Style.USTAR, **member}
    return patched(tar([Member(**made)]), at, text)  # type: ignore[arg-type]


def base_256(value: int, width: int) -> bytes:
    return bytes([0x80 if value >= 0 else 0xFF]) + (value % (1 << 8 * (width - 1))).to_bytes(width - 1, "big")


HUGE = b"1" + b"0" * 400
XATTR = b"SCHILY.xattr."
LONGEST = b"user." + b"n" * 250
CHARACTER, SYMLINK, LINK = tarball.CHARACTER, tarball.SYMLINK, tarball.LINK
VOLUME = tarball.encode(Member(name=b"label", type=b"V"))


def of(*records: tuple[bytes, bytes], **member: object) -> bytes:
    made = {"name": b"the/entry", "records": records, **member}
    return tar([Member(**made)])  # type: ignore[arg-type]


def path_of(size: int) -> bytes:
    return (b"d" * 99 + b"/") * (size // 100) + b"f" * (size % 100)


#: stream → what the one line says beside layer, offset and entry.
REFUSED = {
    "mode": (field(100, b"rw-r--r-"), "mode: b'rw-r--r-' is no number"),
    "underscore": (field(108, b"1_0\0\0\0\0\0"), "uid: .* is no number"),
    "sign": (field(108, b"+7\0\0\0\0\0\0"), "uid: .* is no number"),
    "minus": (field(108, b"-7\0\0\0\0\0\0"), "uid: .* is no number"),
    "prefix": (field(116, b"0o17\0\0\0\0"), "gid: .* is no number"),
    "digit 8": (field(116, b"0000008\0"), "gid: .* is no number"),
    "uid": (field(108, base_256(0xFFFFFFFF, 8)), "owner 4294967295:0 is out of range"),
    "gid": (field(116, base_256(-1, 8)), "owner 0:-1 is out of range"),
    "size": (field(124, base_256(1 << 63, 12)), "size: 9223372036854775808 is out of range"),
    "negative size": (field(124, base_256(-1, 12)), "a negative size"),
    "mtime": (field(136, base_256(1 << 63, 12)), "mtime: 9223372036854775808 is out of range"),
    "early mtime": (field(136, base_256(-(1 << 63) - 1, 12)), "mtime: -9223372036854775809 is out of range"),
    "major": (field(329, base_256(4096, 8), type=CHARACTER), "device 4096:0 is out of range"),
    "minor": (field(337, base_256(1 << 20, 8), type=CHARACTER), "device 0:1048576 is out of range"),
    "negative major": (field(329, base_256(-1, 8), type=CHARACTER), "device -1:0 is out of range"),
    "huge minor": (field(337, base_256((1 << 56) - 1, 8), type=tarball.BLOCK), "device 0:72057594037927935 is out of range"),
    "type": (field(156, b"Z"), "unknown type b'Z'"),
    **{f"pax {key.decode()}": (of((key, HUGE)), f"{key.decode()}: b'1000*' is no number") for key in (b"size", b"uid", b"gid", b"mtime")},
    **{f"pax {key.decode()} of 20 digits": (of((key, b"9" * 20)), "out of range") for key in (b"size", b"uid", b"gid", b"mtime")},
    "pax size with a fraction": (of((b"size", b"1.5")), "size: b'1.5' is no number"),
    "pax mtime of words": (of((b"mtime", b"1.5x")), "mtime: b'1.5x' is no number"),
    "pax mtime exponent": (of((b"mtime", b"1e9")), "mtime: b'1e9' is no number"),
    "pax uid": (of((b"uid", b"-1")), "owner -1:0 is out of range"),
    "NUL in path": (of((b"path", b"a\0b")), "a name with a NUL byte"),
    "NUL in linkpath": (of((b"linkpath", b"a\0b"), type=SYMLINK), "a name with a NUL byte"),
    "NUL in a sparse name": (
        of((b"GNU.sparse.name", b"a\0b"), (b"GNU.sparse.map", b"0,1"), (b"GNU.sparse.size", b"4"), data=b"x"),
        "a name with a NUL byte",
    ),
    "name": (of((b"path", b"d/" + b"n" * 256 + b"/f")), "a file name of 256 bytes, over the limit NAME of 255"),
    "GNU name": (of(name=b"n" * 256, style=Style.GNU), "a file name of 256 bytes"),
    "sparse name": (
        of((b"GNU.sparse.name", b"n" * 256), (b"GNU.sparse.map", b"0,1"), (b"GNU.sparse.size", b"4"), data=b"x"),
        "a file name of 256 bytes",
    ),
    "name that a whiteout hides": (of(name=b"d/.wh." + b"n" * 256), "a file name of 256 bytes"),
    "path": (of(name=path_of(4097)), "a path of 4097 bytes, over the limit PATH of 4096"),
    "path of slashes": (of(name=b"/" * 5_000_000), "a path of 5000000 bytes"),
    "hard link": (of(type=LINK, target=path_of(4097)), "a hard link to a path of 4097 bytes"),
    "hard link's name": (of(type=LINK, target=b"d/" + b"n" * 256), "a file name of 256 bytes"),
    "symbolic link": (of(type=SYMLINK, target=b"t" * 4096), "a symbolic link to 4096 bytes"),
    "empty symbolic link": (of(type=SYMLINK), "a symbolic link to 0 bytes"),
    "attribute's name": (of((XATTR + b"user." + b"n" * 251, b"v")), "name of 256 bytes, over the limit ATTRIBUTE_NAME of 255"),
    "attribute's value": (of((XATTR + b"user.n", b"v" * 65537)), "user.n of 65537 bytes, over the limit ATTRIBUTE_VALUE"),
    "libarchive's value": (of((b"LIBARCHIVE.xattr.user.n", b"A" * 87384)), "extended attribute user.n of 65538 bytes"),
    "attribute without a name": (of((XATTR + b"user.", b"v")), "an extended attribute without a name"),
    "attribute with no name at all": (of((XATTR, b"v")), "an extended attribute without a name"),
    "attribute with NUL": (of((XATTR + b"user.a\0b", b"v")), "or with a NUL byte"),
    "libarchive's name with NUL": (of((b"LIBARCHIVE.xattr.user.a%00b", b"")), "or with a NUL byte"),
    "attributes": (of(*((XATTR + b"user.%0200d" % n, b"") for n in range(319))), "over|more bytes than the limit ATTRIBUTE_NAMES of 65536"),
    "sparse number": (
        of((b"GNU.sparse.map", b"0," + HUGE), (b"GNU.sparse.size", b"4"), data=b"x"),
        "sparse map: b'1000*' is no number",
    ),
    "sparse number without end": (
        of((b"GNU.sparse.map", b"1" * 200_000), (b"GNU.sparse.size", b"4"), data=b"x"),
        "sparse map: b'1111*' is no number",
    ),
    "sparse size": (of((b"GNU.sparse.map", b"0,1"), (b"GNU.sparse.size", b"9" * 20), data=b"x"), "GNU.sparse.size: 9+ is out of range"),
    "sparse size missing": (of((b"GNU.sparse.map", b"0,1"), data=b"x"), "GNU.sparse.realsize: b'' is no number"),
    "sparse lines": (of((b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"4"), data=b"1\n-1\n1\n" + bytes(600)), "'-1' is no number"),
    "sparse lines without end": (
        of((b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"4"), data=b"99\n" * 700),
        "overlaps|differs|does not end",
    ),
    "sparse count": (
        of((b"GNU.sparse.major", b"1"), (b"GNU.sparse.realsize", b"4"), data=b"%d\n" % (1 << 40) + bytes(600)),
        "more segments than the limit SEGMENTS of 4194304",
    ),
    "sparse pairs": (of((b"GNU.sparse.offset", b"0"), (b"GNU.sparse.offset", b"1"), (b"GNU.sparse.size", b"4")), "do not alternate"),
    "old sparse number": (field(386, base_256(1 << 64, 12), type=b"S"), "sparse map: 18446744073709551616 is out of range"),
    "old sparse size": (field(483, base_256(-1, 12), type=b"S"), "real size: -1 is out of range"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_image_can_hold_is_refused_where_it_is_read(case: str) -> None:
    stream, words = REFUSED[case]
    with pytest.raises(LayerError, match=words) as caught:
        read(stream)
    line = str(caught.value)
    assert re.match(r"layer: offset [0-9]+: ", line) and "\n" not in line and len(line) < 400
    assert any(name in line for name in ("the/entry", "nnnn", "dddd", "d/", "/////", "sparse", r"a\x00b")), line


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        pytest.param(patched(VOLUME, 124, b"\xff" * 12), "size: -1 is out of range", id="negative-volume"),
        pytest.param(patched(VOLUME, 124, base_256(1 << 80, 12)), "is out of range", id="huge-volume"),
        pytest.param(patched(tarball.encode(Member(name=b"x", type=b"x")), 124, b"\xff" * 12), "HEADERS", id="negative-header"),
        pytest.param(patched(tarball.encode(Member(name=b"x", type=b"L")), 124, base_256(1 << 80, 12)), "HEADERS", id="huge-header"),
        pytest.param(tar([Member(name=b"g", type=tarball.GLOBAL, records=[(XATTR + b"user.", b"v")])]), "a global header: ", id="global"),
    ],
)
def test_headers_that_are_no_entries_are_checked_as_well(stream: bytes, words: str) -> None:
    with pytest.raises(LayerError, match=words):
        read(stream)


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        pytest.param(field(108, base_256(0xFFFFFFFE, 8)), {"uid": 0xFFFFFFFE}, id="uid"),
        pytest.param(field(136, base_256((1 << 63) - 1, 12)), {"mtime": (1 << 63) - 1}, id="mtime"),
        pytest.param(of((b"mtime", b"-9223372036854775808")), {"mtime": -1 << 63}, id="early-mtime"),
        pytest.param(of((b"mtime", b"-1.5")), {"mtime": -2}, id="fraction"),
        pytest.param(of((b"mtime", b"7.")), {"mtime": 7}, id="empty-fraction"),
        pytest.param(of((b"uid", b"+7"), (b"mtime", b"+7.5")), {"uid": 7, "mtime": 7}, id="plus"),
        pytest.param(field(108, b"\0000017\0"), {"uid": 0o17}, id="leading-nul"),
        pytest.param(field(108, b"  17 \0  "), {"uid": 0o17}, id="blanks"),
        pytest.param(field(108, b"17\0x9999"), {"uid": 0o17}, id="what-follows-a-nul"),
        pytest.param(field(124, base_256(-1, 12), type=tarball.DIRECTORY), {"size": 0}, id="size-of-a-directory"),
        pytest.param(field(329, b"garbage!"), {"major": 0}, id="device-of-a-file"),
        pytest.param(of(type=CHARACTER, device=(4095, 1048575), style=Style.GNU), {"major": 4095, "minor": 1048575}, id="device"),
        pytest.param(of(name=b"n" * 255), {"path": b"n" * 255}, id="name"),
        pytest.param(of(name=b"d/.wh." + b"n" * 255), {"path": b"d/.wh." + b"n" * 255}, id="whiteout"),
        pytest.param(of(name=path_of(4096)), {"path": path_of(4096)}, id="path"),
        pytest.param(of(type=SYMLINK, target=b"t" * 4095), {"link": b"t" * 4095}, id="link"),
        pytest.param(
            of((XATTR + b"user." + b"n" * 250, b"v" * 65536)), {"xattrs": ((b"user." + b"n" * 250, b"v" * 65536),)}, id="attribute"
        ),
        pytest.param(of((b"path", b"p"), (b"path", b"")), {"path": b"the/entry"}, id="taken-back"),
    ],
)
def test_what_is_just_within_the_limits_is_taken(stream: bytes, expected: dict[str, object]) -> None:
    ((entry, _),) = read(stream)
    assert {name: getattr(entry, name) for name in expected} == expected


def test_a_long_name_ends_at_its_first_nul() -> None:
    """GNU tar and archive/tar take it for a string of C."""
    stream = tarball.encode(Member(name=b"././@LongLink", type=b"L", data=b"real\0name\0", style=Style.GNU)) + ONE
    assert [entry.path for entry, _ in read(stream)] == [b"real"]


def test_global_headers_hold_until_a_header_takes_them_back() -> None:
    front = Member(name=b"g", type=tarball.GLOBAL, records=[(b"uid", b"7"), (XATTR + b"user.g", b"1"), (b"GNU.sparse.major", b"1")])
    found = [
        entry for entry, _ in read(tar([front, tarball.file(b"a"), tarball.file(b"b", records=[(b"uid", b""), (XATTR + b"user.l", b"2")])]))
    ]
    assert [entry.uid for entry in found] == [7, 0]
    assert [dict(entry.xattrs) for entry in found] == [{b"user.g": b"1"}, {b"user.g": b"1", b"user.l": b"2"}]


def many_records(count: int, key: bytes) -> bytes:
    return tar([tarball.file(b"f", records=[(key % n, b"v") for n in range(count)])])


def globally(count: int) -> bytes:
    records = [(b"comment.%d" % n, b"v") for n in range(10 * count)]
    return tar([Member(name=b"g", type=tarball.GLOBAL, records=records), *(tarball.file(b"%d" % n) for n in range(count))])


def scattered(sparse: Sparse, count: int) -> bytes:
    content = b"x" + bytes(511)
    style = Style.GNU if sparse is Sparse.OLD_GNU else Style.PAX
    return tar([Member(name=b"s", data=content * count, sparse=sparse, segments=tuple((512 * n, 1) for n in range(count)), style=style)])


STREAMS_OF: dict[str, Callable[[int], bytes]] = {
    "records": lambda count: many_records(10 * count, b"key.%d"),
    "headers": lambda count: b"".join(tarball.encode(Member(name=b"x", type=b"x")) for _ in range(count)) + ONE,
    "global headers": globally,
    "attributes": lambda count: many_records(2 * count, b"SCHILY.xattr.user.%d"),
    "slashes": lambda count: tar([tarball.file(b"a/" * (count // 2))]),
    **{sparse.value: partial(scattered, sparse) for sparse in Sparse},
}


@pytest.mark.parametrize("case", STREAMS_OF)
def test_twice_the_bytes_are_twice_the_work(case: str) -> None:
    small, large = (STREAMS_OF[case](count) for count in (500, 1000))
    read(small)
    assert lines(lambda: read(large)) <= 2.2 * lines(lambda: read(small))


@pytest.mark.parametrize("key", [b"comment.%d", b"SCHILY.xattr.user.%d", b"LIBARCHIVE.xattr.user.%d", b"GNU.sparse.x%d"])
def test_records_take_no_more_memory_than_their_bytes(key: bytes) -> None:
    stream = many_records(10_000, key)

    def attempt() -> None:
        with contextlib.suppress(LayerError):
            read(stream)

    assert peak(attempt) < 4 * len(stream)


def test_a_long_map_takes_little_memory() -> None:
    for sparse in Sparse:
        stream = scattered(sparse, 1000)
        assert peak(lambda data=stream: read(data)) < 2 << 20, sparse  # type: ignore[misc]


def test_headers_before_an_entry_have_a_limit() -> None:
    """Each of them is some 16 kB in a gzip stream."""
    one = tarball.encode(Member(name=b"x", type=tarball.GLOBAL, records=[(b"comment", b"c" * (6 << 20))]))
    read(one * 2 + ONE)
    with pytest.raises(LayerError, match="over the limit HEADERS of 16777216"):
        read(one * 3 + ONE)


def test_a_hole_is_known_without_a_look_at_it() -> None:
    stream = tar([Member(name=b"s", data=b"x" * 512 + bytes(1 << 20), sparse=Sparse.PAX_1_0, segments=((0, 512),))])
    reader = TarReader(cut(stream, 4096), "layer")
    assert [is_hole(part) for entry in reader for part in reader.blocks(entry, 1 << 18)] == [False, True, True, True, False]


@given(st.integers(0, 2), st.integers(0, 6000), st.binary(min_size=1, max_size=40))
def test_garbage_raises_nothing_else(layer: int, at: int, junk: bytes) -> None:
    stream = STREAMS[layer]
    at %= len(stream)
    try:
        read(stream[:at] + junk + stream[at + len(junk) :], piece=4096)
    except LayerError as error:
        assert "\n" not in str(error)


STREAMS = [tar(contents.sizes()[:4])[:9000], contents.tricky()[0][:9000], tar([Member(name=b"s", data=bytes(9000), sparse=Sparse.PAX_1_0)])]
