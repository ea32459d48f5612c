"""Images read back by squashfs-tools, and their structures where a reader would not complain."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sregistry.errors import ImageError
from sregistry.image.squashfs import format as f
from sregistry.image.squashfs.writer import arrange, plan
from sregistry.image.tree import Sandbox
from sregistry.layers.compression import Codec, Compression
from sregistry.layers.index import Index
from sregistry.system import limits
from tests.support import engine
from tests.support.tarball import Member, device, directory, file, link, symlink
from tests.support.work import lines

pytestmark = pytest.mark.skipif(shutil.which("unsquashfs") is None, reason="needs unsquashfs (Debian: squashfs-tools)")


def superblock(image: Path, offset: int = 31) -> f.Superblock:
    return f.Superblock(*f.SUPERBLOCK.unpack_from(image.read_bytes(), offset))


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("block_size", [64 << 10, 1 << 20])
def test_contents_of_any_size(tmp_path: Path, codec: Codec, block_size: int) -> None:
    sizes = [0, 1, block_size - 1, block_size, block_size + 1, 3 * block_size, 3 * block_size + 7]
    files = {b"random%d" % size: os.urandom(size) for size in sizes} | {b"text%d" % size: (b"text" * size)[:size] for size in sizes}
    files |= {b"holes": bytes(5 * block_size) + b"x" * block_size + bytes(2 * block_size + 1)}
    image = tmp_path / "i.simg"
    engine.build(tmp_path, image, [[file(name, data) for name, data in files.items()]], Compression(codec=codec, block_size=block_size))
    engine.unsquashed(image, tmp_path / "out")
    assert {name: (tmp_path / "out" / os.fsdecode(name)).read_bytes() for name in files} == files


@pytest.mark.parametrize("count", [0, 1, 255, 256, 257, 5000, pytest.param(70_000, marks=pytest.mark.slow("scale", once=True))])
def test_directories_of_any_size(tmp_path: Path, count: int) -> None:
    """More than 256 entries need runs, 8192 bytes an index, 65,535 an extended inode."""
    image = tmp_path / "i.simg"
    engine.build(tmp_path, image, [[directory(b"d"), *(file(b"d/name-%06d" % i) for i in range(count))]])
    engine.unsquashed(image, tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out/d")) == [f"name-{i:06d}" for i in range(count)]


def test_a_deep_tree(tmp_path: Path) -> None:
    image = tmp_path / "i.simg"
    engine.build(tmp_path, image, [[file(b"d/" * 300 + b"f", b"deep")]])
    engine.unsquashed(image, tmp_path / "out")
    assert (tmp_path / "out" / ("d/" * 300) / "f").read_bytes() == b"deep"


def test_hard_links_are_one_inode(tmp_path: Path) -> None:
    image = tmp_path / "i.simg"
    receipt = engine.build(
        tmp_path, image, [[file(b"a", b"x"), link(b"d/b", b"a"), symlink(b"s", b"t")], [link(b"c", b"d/b"), link(b"s2", b"s")]]
    )
    engine.unsquashed(image, tmp_path / "out")
    names = [tmp_path / "out" / name for name in ("a", "d/b", "c")]
    assert {(name.stat().st_ino, name.stat().st_nlink) for name in names} == {(names[0].stat().st_ino, 3)}
    assert superblock(image).inodes == receipt["inodes"]


def test_dead_data_is_not_copied(tmp_path: Path) -> None:
    big = os.urandom(1 << 20)
    lower = [file(b"dead", os.urandom(1 << 20)), file(b"alive", big), file(b"gone", os.urandom(1 << 20))]
    image = tmp_path / "i.simg"
    engine.build(tmp_path, image, [lower, [file(b".wh.gone"), file(b"dead", b"short")]])
    assert (1 << 20) < image.stat().st_size < (1 << 20) + 40_000
    engine.unsquashed(image, tmp_path / "out")
    assert (tmp_path / "out/alive").read_bytes() == big and (tmp_path / "out/dead").read_bytes() == b"short"


def test_dead_tails_beside_live_ones_are_counted(tmp_path: Path) -> None:
    lower = [file(b"alive", b"a" * 1000), file(b"gone", b"g" * 300), file(b"twin", b"t" * 50), file(b"other", b"t" * 50)]
    dead = engine.build(tmp_path, tmp_path / "i", [lower, [file(b".wh.gone"), file(b".wh.twin")]])["dead"]
    assert dead["size"] == 300 and 0 < dead["stored"] < 300, "what equals a live tail is not dead"
    dead = engine.build(tmp_path, tmp_path / "i", [lower, [file(b".wh." + name) for name in (b"alive", b"gone", b"twin", b"other")]])[
        "dead"
    ]
    assert dead == {"size": 0, "stored": 0}, "a block without live tails is not copied"


def test_numbers_at_their_limits(tmp_path: Path) -> None:
    members = [
        file(b"owner", uid=0xFFFFFFFE, gid=65_536, mode=0o7777),
        file(b"old", mtime=-5),
        symlink(b"longest", b"t" * limits.LINK),
        file(b"n" * limits.NAME),
    ]
    image = tmp_path / "i.simg"
    engine.build(tmp_path, image, [members])
    listing = subprocess.run(["unsquashfs", "-o", "31", "-lln", "-d", "", image], check=True, capture_output=True, text=True).stdout
    rows = {line.split("/")[-1].strip(): line.split() for line in listing.splitlines() if "/" in line}
    assert rows["owner"][:2] == ["-rwsrwsrwt", "4294967294/65536"]
    assert rows["old"][3] == "1970-01-01"


def test_the_most_that_readers_take(tmp_path: Path) -> None:
    """Every limit at once, read back by others' tools; where the file system allows it, their contents too."""
    longest = b"user." + b"n" * (limits.ATTRIBUTE_NAME - 5)
    names = {b"user.%03d" % i + b"n" * 246: b"" for i in range(limits.ATTRIBUTE_NAMES // 254 - 1)}
    deep = (b"d" * 254 + b"/") * 16
    members = [
        file(b"value", xattrs={b"user.v": b"v" * limits.ATTRIBUTE_VALUE, longest: b"1"}),
        file(b"names", xattrs=names),
        device(b"device", b"3", limits.DEVICE_MAJOR, limits.DEVICE_MINOR),
        file(b"late", mtime="9223372036854775807"),
        file(b"early", mtime="-9223372036854775808"),
        file(b"owner", uid=limits.OWNER, gid=limits.OWNER),
        symlink(b"link", b"t" * limits.LINK),
        file(deep + b"f" * (limits.PATH - len(deep))),
    ]
    image = tmp_path / "i.simg"
    engine.build(tmp_path, image, [members])
    listing = subprocess.run(["unsquashfs", "-o", "31", "-lln", "-d", "", image], check=True, capture_output=True, text=True).stdout
    rows = {line.split("/")[-1].split(" ")[0].strip(): line.split() for line in listing.splitlines() if "/" in line}
    assert rows["owner"][1] == f"{limits.OWNER}/{limits.OWNER}"
    assert rows["late"][3].startswith("2106-02-07") and rows["early"][3] == "1970-01-01"
    assert rows["device"][0] == "crw-------"
    assert "f" * (limits.PATH - len(deep)) in rows
    subprocess.run(["unsquashfs", "-o", "31", "-quiet", "-no-xattrs", "-d", tmp_path / "o", image, "names", "value", "link"], check=True)


def test_owners_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = tmp_path / "i.simg"
    members = [file(b"%d" % i, uid=2 * i, gid=2 * i + 1) for i in range(4)]
    monkeypatch.setattr(limits, "OWNERS", 8)
    engine.build(tmp_path, image, [members])
    assert superblock(image).ids == 8
    monkeypatch.setattr(limits, "OWNERS", 7)
    with pytest.raises(ImageError, match="8 different owners and groups, over the limit OWNERS of 7"):
        engine.build(tmp_path, image, [members])


def test_a_table_that_nothing_could_refer_to_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [symlink(b"%d" % i, os.urandom(900).hex().encode()) for i in range(20)]
    monkeypatch.setattr(limits, "TABLE", 10_000)
    with pytest.raises(ImageError, match="more bytes than the limit TABLE of 10000"):
        engine.build(tmp_path, tmp_path / "i.simg", [members])
    assert not list(tmp_path.glob("*i.simg*"))


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(lambda n: [file(b"f"), *(link(b"d/" * (i % (n // 10)) + b"l%d" % i, b"f") for i in range(n))], id="deep-links"),
        pytest.param(lambda n: [file(b"f%d" % i, xattrs={b"user.%d" % j: b"" for j in range(n // 20)}) for i in range(2)], id="attributes"),
        pytest.param(lambda n: [file(b"%d/f" % i) for i in range(n)], id="folders"),
    ],
)
def test_twice_the_entries_are_twice_the_work(tmp_path: Path, layer: Callable[[int], list[Member]]) -> None:
    def planning(size: int) -> Callable[[], object]:
        packed = engine.merged(tmp_path / str(size), [layer(size)])
        layers = [Index.read(folder / "index") for folder in packed.folders]
        return lambda: plan(packed, layers, *arrange(packed, layers), created=0, compression=Compression())

    small, large = planning(2000), planning(4000)
    small()
    assert lines(large) <= 2.2 * lines(small)


def test_attributes_that_squashfs_can_not_hold_are_told(tmp_path: Path) -> None:
    xattrs = {b"user.a": b"\0\xff", b"system.posix_acl_access": b"x", b"security.selinux": b"host", b"trusted.t": b""}
    receipt = engine.build(tmp_path, tmp_path / "i.simg", [[file(b"f", xattrs=xattrs)]])
    assert receipt["dropped_xattrs"] == ["system.posix_acl_access"]


def test_the_structures_lie_as_readers_expect(tmp_path: Path) -> None:
    """Adjacency and padding: what the kernel checks when it mounts (squashfs 4.0, tables)."""
    image = tmp_path / "i.simg"
    engine.build(tmp_path, image, [[*(file(b"f%d" % i, os.urandom(100), xattrs={b"user.n": b"%d" % i}) for i in range(900))]])
    block = superblock(image)
    data = image.read_bytes()[31:]
    assert len(data) % f.PADDING == 0 and len(data) - block.bytes_used < f.PADDING
    assert block.inode_table < block.directory_table < block.fragment_table < block.id_table < block.xattr_table < block.bytes_used
    keys, count, _ = f.XATTR_TABLE.unpack_from(data, block.xattr_table)
    assert count == 900 and block.xattr_table + f.XATTR_TABLE.size + 8 * -(-count * 16 // f.METADATA_BLOCK) == block.bytes_used
    assert block.id_table + 8 * -(-block.ids * 4 // f.METADATA_BLOCK) == keys
    (first,) = struct.unpack_from("<Q", data, block.fragment_table)
    assert block.directory_table < first < block.fragment_table
    assert (block.magic, block.major, block.minor, 1 << block.block_log) == (f.MAGIC, 4, 0, block.block_size)


def test_layers_of_different_block_sizes_are_refused(tmp_path: Path) -> None:
    content = [[file(b"a", b"x")]]
    one, two = (engine.folders(tmp_path, content, Compression(block_size=size))[0] for size in (64 << 10, 128 << 10))
    with pytest.raises(ImageError, match="different codecs or block sizes"):
        arrange(Sandbox(), [Index.read(folder / "index") for folder in (one, two)])
