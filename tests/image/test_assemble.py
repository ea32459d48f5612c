"""Images: published whole or not at all, equal input gives equal bytes."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
from pathlib import Path

import pytest

from sregistry.config.filename import FORMATS
from sregistry.errors import ImageError, StoreError
from sregistry.image import assemble, sif
from sregistry.oci.documents import Digest, Platform
from sregistry.store.store import Store
from tests.support import engine
from tests.support.tarball import Member, directory, file, symlink

LAYERS = [[directory(b"d"), file(b"d/f", b"text " * 50_000), symlink(b"s", b"d/f")], [file(b".wh.s"), file(b"n", b"new")]]
#: The first 20 bytes of ELF files: class, byte order, then e_machine at 18.
ELF = {"amd64": b"\x7fELF\x02\x01\x01" + bytes(11) + b"\x3e\0", "arm64": b"\x7fELF\x02\x01\x01" + bytes(11) + b"\xb7\0"}


@pytest.mark.parametrize("kind", ["sif", "simg"])
def test_equal_input_gives_equal_bytes(tmp_path: Path, kind: str) -> None:
    versions = set()
    for number in range(2):
        root = tmp_path / str(number)
        receipt = engine.build(root / "store", root / f"elsewhere{number}" / "i", LAYERS, format=kind, documents={"a.json": b"{}"})
        assert receipt["version"] == hashlib.sha256(Path(receipt["path"]).read_bytes()).hexdigest()
        assert receipt["size"] == Path(receipt["path"]).stat().st_size
        versions.add(receipt["version"])
    assert len(versions) == 1


def test_a_simg_is_a_launch_line_and_a_squashfs(tmp_path: Path) -> None:
    engine.build(tmp_path, tmp_path / "i", LAYERS, format="simg")
    data = (tmp_path / "i").read_bytes()
    assert data.startswith(b"#!/usr/bin/env run-singularity\nhsqs") and (len(data) - 31) % 4096 == 0


def test_a_sif_ends_with_its_file_system(tmp_path: Path) -> None:
    engine.build(tmp_path, tmp_path / "i", LAYERS, format="sif", deffile=b"bootstrap: docker\n", documents={"x.json": b"{}"}, created=1234)
    with (tmp_path / "i").open("rb") as handle:
        header, objects = sif.parse(handle)
        partition = objects[-1]
        handle.seek(partition.offset)
        assert handle.read(4) == b"hsqs" and partition.offset + partition.size == (tmp_path / "i").stat().st_size
    assert (header.created, partition.created) == (1234, 1234)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("shell", "architecture"),
    [
        ([file(b"bin/sh", ELF["arm64"])], "arm64"),
        ([symlink(b"bin", b"usr/bin"), symlink(b"usr/bin/sh", b"/opt/busybox"), file(b"opt/busybox", ELF["arm64"])], "arm64"),
        ([symlink(b"bin/sh", b"sh")], "amd64"),
        ([file(b"bin/sh", b"#!/no elf")], "amd64"),
        ([directory(b"bin/sh")], "amd64"),
        ([], "amd64"),
    ],
    ids=["elf", "links", "loop", "script", "directory", "none"],
)
def test_the_architecture_is_the_shells(tmp_path: Path, kind: str, shell: list[Member], architecture: str) -> None:
    receipt = engine.build(tmp_path / "store", tmp_path / "i", [shell], format=kind)
    assert receipt["architecture"] == architecture


@pytest.mark.parametrize("kind", FORMATS)
def test_an_older_image_is_replaced_at_once(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "storage" / "i"
    engine.build(tmp_path / "store", target, [[file(b"old", b"1")]], format=kind)
    first = target.stat().st_ino
    engine.build(tmp_path / "store", target, [[file(b"new", b"2")]], format=kind)
    assert target.stat().st_ino != first
    assert [path.name for path in target.parent.iterdir()] == ["i"], "no neighbour is left behind"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_failure_keeps_the_older_image(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "storage" / "i"
    receipt = engine.build(tmp_path / "store", target, [[file(b"old", b"1")]], format=kind)
    packed = engine.merged(tmp_path / "store", [[file(b"f", os.urandom(300_000))]])
    (packed.folders[1] / "data").write_bytes(b"short")
    with pytest.raises(StoreError, match="is damaged"):
        assemble.build(packed, format=kind, target=target, created=1, deffile=b"", documents={}, architecture="amd64")
    assert [path.name for path in target.parent.iterdir()] == ["i"]
    assert engine.build(tmp_path / "store", target, [[file(b"old", b"1")]], format=kind)["version"] == receipt["version"]


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        engine.build(tmp_path / "store", tmp_path / "i", LAYERS)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "i").stat().st_mode) == 0o750


@pytest.mark.parametrize(("kind", "words"), [("sif", "is a directory"), ("sandbox", "is no directory")])
def test_what_is_there_must_be_of_the_same_kind(tmp_path: Path, kind: str, words: str) -> None:
    target = tmp_path / "i"
    target.mkdir() if kind == "sif" else target.write_bytes(b"mine")
    with pytest.raises(ImageError, match=words):
        engine.build(tmp_path / "store", target, LAYERS, format=kind)
    assert target.is_dir() if kind == "sif" else target.read_bytes() == b"mine"


def test_an_unwritable_storage_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ImageError, match="choose another folder"):
        engine.build(tmp_path / "store", tmp_path / "file" / "i", LAYERS)


def published_sif(root: Path, architecture: str = "amd64") -> tuple[Store, Digest]:
    """Return a store that holds a SIF as a blob."""
    made = engine.build(root / "store", root / "made", LAYERS, format="sif", architecture=architecture)
    store = Store(root / "docker")
    return store, store.add(Path(made["path"]).read_bytes())


@pytest.mark.parametrize("architecture", ["amd64", "unheard-of"])
def test_a_sif_is_taken_to_the_byte(tmp_path: Path, architecture: str) -> None:
    store, digest = published_sif(tmp_path, architecture)
    target = tmp_path / "new" / "x.sif"
    for _ in range(2):
        made = assemble.take(store.blob(digest), digest, ours=True, target=target, platform=Platform(architecture="amd64"))
        assert target.read_bytes() == store.blob(digest).read_bytes()
        assert made.json() == {
            "path": str(target),
            "format": "sif",
            "size": target.stat().st_size,
            "version": digest.hex,
            "architecture": "amd64" if architecture == "amd64" else "unknown",
        }
    assert stat.S_IMODE(target.stat().st_mode) & 0o700 == 0o700
    assert [path.name for path in target.parent.iterdir()] == ["x.sif"]


def test_what_is_no_sif_is_not_taken(tmp_path: Path) -> None:
    store, digest = published_sif(tmp_path)
    whole = store.blob(digest).read_bytes()
    for data, words in [(b"no SIF" * 100, "expected SIF_MAGIC"), (whole[:-1], "that ends inside"), (b"", "no whole SIF image")]:
        with pytest.raises(ImageError, match=words):
            bad = store.add(data)
            assemble.take(store.blob(bad), bad, ours=True, target=tmp_path / "x", platform=Platform(architecture="amd64"))
    with pytest.raises(ImageError, match="is for amd64, not for arm64"):
        assemble.take(store.blob(digest), digest, ours=True, target=tmp_path / "x", platform=Platform(architecture="arm64"))
    damaged = bytearray(whole)
    damaged[-1] ^= 1
    store.blob(digest).write_bytes(damaged)
    with pytest.raises(StoreError, match="damaged on disk"):
        assemble.take(store.blob(digest), digest, ours=True, target=tmp_path / "x", platform=Platform(architecture="amd64"))
    with pytest.raises(StoreError, match="No such file"):
        assemble.take(store.blob(digest), digest, ours=True, target=tmp_path / "x", platform=Platform(architecture="amd64"))
    assert not (tmp_path / "x").exists()


def work(path: Path) -> Path:
    """A user's folder, with one inside that nobody else may read."""
    (path / "draft").mkdir(parents=True)
    (path / "draft").chmod(0o750)
    (path / "thesis.tex").write_text("mine")
    return path


def untouched(path: Path) -> bool:
    return (path / "thesis.tex").read_text() == "mine" and stat.S_IMODE((path / "draft").stat().st_mode) == 0o750


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("behind", ["work", "file", "nothing", "sandbox"])
def test_a_link_is_replaced_and_not_what_is_behind_it(tmp_path: Path, kind: str, behind: str) -> None:
    target, there = tmp_path / "storage" / "i", tmp_path / behind
    target.parent.mkdir()
    target.symlink_to(there)
    if behind == "file":
        there.write_text("mine")
    elif behind != "nothing":
        work(there)
    if behind == "sandbox":
        (there / ".singularity.d").mkdir()
    engine.build(tmp_path / "store", target, LAYERS, format=kind)
    assert not target.is_symlink() and target.is_dir() == (kind == "sandbox")
    assert os.listdir(target.parent) == ["i"]
    assert behind not in ("work", "sandbox") or untouched(there)
    assert behind != "file" or there.read_text() == "mine"


@pytest.mark.parametrize("kind", FORMATS)
def test_a_directory_of_work_stays(tmp_path: Path, kind: str) -> None:
    target = work(tmp_path / "storage" / "i")
    with pytest.raises(ImageError, match="is a directory"):
        engine.build(tmp_path / "store", target, LAYERS, format=kind)
    assert untouched(target) and os.listdir(target.parent) == ["i"]


def test_links_in_a_sandbox_are_not_followed_when_it_goes(tmp_path: Path) -> None:
    """Neither is one that took the sandbox's own name."""
    there, box = work(tmp_path / "work"), tmp_path / "box"
    (box / "shut").mkdir(parents=True)
    (box / "shut/link").symlink_to(there)
    (box / "link").symlink_to(there / "draft")
    (box / "shut").chmod(0)
    assemble.remove(box)
    box.symlink_to(there)
    assemble.remove(box)
    assemble.remove(box)  # it is gone
    assert untouched(there) and not os.path.lexists(box)


@pytest.mark.parametrize("kind", FORMATS)
def test_what_came_meanwhile_is_guarded(tmp_path: Path, kind: str) -> None:
    """The guard is asked when the image is whole, just before it takes a name that is taken; an older image stays then."""
    target, asked = tmp_path / "i", []

    def guard() -> None:
        asked.append(len(os.listdir(tmp_path)))
        if os.path.lexists(target):
            raise ImageError("holds another image")

    engine.build(tmp_path / "store", target, LAYERS, format=kind, guard=guard)
    before = target.stat().st_ino
    with pytest.raises(ImageError, match="holds another image"):
        engine.build(tmp_path / "store", target, LAYERS, format=kind, guard=guard)
    assert asked and target.stat().st_ino == before
    assert sorted(os.listdir(tmp_path)) == ["i", "store"]


@pytest.mark.parametrize("kind", FORMATS)
def test_the_longest_name(tmp_path: Path, kind: str) -> None:
    target = tmp_path / ("é" * 126 + "xyz")
    engine.build(tmp_path / "store", target, LAYERS, format=kind)
    assert len(os.fsencode(target.name)) == 255 and target.exists()


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_sif_is_compared_whatever_its_digest_is_of(tmp_path: Path, algorithm: str) -> None:
    data = bytearray(Path(engine.build(tmp_path / "store", tmp_path / "i", LAYERS, format="sif")["path"]).read_bytes())
    digest = Digest(f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}")
    store = Store(tmp_path / "store")
    store.add(bytes(data), digest)
    made = assemble.take(store.blob(digest), digest, ours=True, target=tmp_path / "j", platform=Platform(architecture="amd64"))
    assert made.version == hashlib.sha256(data).hexdigest()
    data[-5000] ^= 1
    store.blob(digest).write_bytes(data)
    with pytest.raises(StoreError, match="was damaged on disk and is removed; run again"):
        assemble.take(store.blob(digest), digest, ours=True, target=tmp_path / "k", platform=Platform(architecture="amd64"))
    assert not (tmp_path / "k").exists() and not store.has(digest)


def left_behind(target: Path) -> Path:
    """Return the temporary neighbour of a process that was killed while it wrote *target*."""
    child = os.fork()
    if child == 0:
        with assemble.published(target, 1) as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (folder,) = target.parent.glob(f".{target.name}.*")
    (folder / "old").mkdir()
    return folder


@pytest.mark.parametrize("kind", FORMATS)
def test_what_a_killed_process_left_goes(tmp_path: Path, kind: str) -> None:
    storage = tmp_path / "storage"
    storage.mkdir()
    left_behind(storage / "i")
    engine.build(tmp_path / "store", storage / "i", LAYERS, format=kind)
    assert os.listdir(storage) == ["i"]


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    with assemble.published(tmp_path / "i", 1) as file:
        file.write(b"slow")
        with assemble.published(tmp_path / "i", 1) as other:
            other.write(b"quick")
    assert (tmp_path / "i").read_bytes() == b"slow" and os.listdir(tmp_path) == ["i"]


@pytest.mark.parametrize("name", [".i.thesis", ".i.abcd1234", ".i.sif.abcd1234"])
def test_what_only_looks_like_a_neighbour_stays(tmp_path: Path, name: str) -> None:
    work(tmp_path / "storage" / name)
    with assemble.published(tmp_path / "storage/i", 1) as file:
        file.write(b"x")
    assert untouched(tmp_path / "storage" / name)
