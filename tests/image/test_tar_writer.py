"""The tar stream of a sandbox, judged by the standard library's reader."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

from sregistry.image import tar_writer
from sregistry.layers.contents import Contents
from sregistry.layers.index import Index
from tests.support import contents, engine
from tests.support.tarball import BLOCK, Member, device, directory, file, link, symlink

CREATED = 1_500_000_000


def stream(root: Path, layers: engine.Tars) -> tuple[bytes, tar_writer.Written]:
    packed = engine.merged(root, layers)
    indexes = [Index.read(folder / "index") for folder in packed.folders]
    out = io.BytesIO()
    with Contents(packed.folders, indexes) as data:
        written = tar_writer.write(packed, indexes, data, CREATED, out.write)
    return out.getvalue(), written


def read(data: bytes) -> dict[bytes, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:", encoding="utf-8", errors="surrogateescape") as opened:
        return {item.name.encode("utf-8", "surrogateescape"): item for item in opened}


def test_every_kind(tmp_path: Path) -> None:
    layer: Sequence[Member] = [
        directory(b"./", 0o711),
        directory(b"d", 0, uid=3, gid=4_000_000_000, mtime=7),
        file(b"d/f", b"text", mode=0o4755, uid=2_097_152, mtime=4_000_000_000),
        link(b"d/hard", b"d/f"),
        symlink(b"s", b"../../up"),
        device(b"b", BLOCK, 259, 70000, 0o660),
        file(b"implied/f", b""),
        file(b"old", b"", mtime=-5),
    ]
    data, written = stream(tmp_path, [layer])
    found = read(data)
    assert list(found) == [b"b", b"d", b"d/f", b"d/hard", b"implied", b"implied/f", b"old", b"s"]
    assert written == tar_writer.Written(inodes=8, dropped=())
    d, f = found[b"d"], found[b"d/f"]
    assert (d.isdir(), d.mode, d.uid, d.gid, d.mtime) == (True, 0, 3, 4_000_000_000, 7)
    assert (f.isreg(), f.mode, f.uid, f.mtime, f.size) == (True, 0o4755, 2_097_152, 4_000_000_000, 4)
    assert (found[b"d/hard"].type, found[b"d/hard"].linkname) == (tarfile.LNKTYPE, "d/f")
    assert found[b"s"].linkname == "../../up"
    assert (found[b"b"].isblk(), found[b"b"].devmajor, found[b"b"].devminor) == (True, 259, 70000)
    assert (found[b"implied"].mode, found[b"implied"].mtime, found[b"old"].mtime) == (0o755, CREATED, 0)


def test_attributes(tmp_path: Path) -> None:
    kept = {b"user.binary": b"\0\1\xfe\xff\n=", b"security.capability": b"\1\0\0\2" * 5}
    gone = {b"security.selinux": b"label", b"system.posix_acl_access": b"x"}
    data, written = stream(tmp_path, [[file(b"f", b"", xattrs={**kept, **gone}), directory(b"d", xattrs={b"user.n": b"v" * 900})]])
    found = read(data)
    values = {name: text.encode("utf-8", "surrogateescape") for name, text in found[b"f"].pax_headers.items()}
    assert values == {f"SCHILY.xattr.{name.decode()}": value for name, value in kept.items()}
    assert found[b"d"].pax_headers == {"SCHILY.xattr.user.n": "v" * 900}
    assert written.dropped == ((b"f", b"system.posix_acl_access"),)


def test_contents_and_names_of_the_tricky_image(tmp_path: Path) -> None:
    data, written = stream(tmp_path, contents.tricky())
    again = engine.paths(engine.merged(tmp_path / "again", [data]))
    assert set(again) == set(engine.paths(engine.merged(tmp_path, contents.tricky())))
    assert written.inodes == len(again) - sum(item.type == tarfile.LNKTYPE for item in read(data).values())


def test_holes_and_blocks(tmp_path: Path) -> None:
    members = contents.sizes()
    data, _ = stream(tmp_path, [members])
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as opened:
        for member in members:
            if not member.name.endswith(b"/"):
                extracted = opened.extractfile(member.name.decode())
                assert extracted is not None and extracted.read() == member.data
