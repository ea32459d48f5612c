"""Whose exploded layers are used: nobody's who could put bytes into others' images under a registry's digest."""

from __future__ import annotations

import hashlib
import io
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sregistry.errors import StoreError
from sregistry.layers import verify
from sregistry.layers.compression import Compression
from sregistry.layers.explode import explode, explode_tar
from sregistry.layers.index import STRETCH, Index
from sregistry.oci.documents import Digest
from sregistry.store import exploded
from sregistry.store.store import Store
from tests.support import tarball
from tests.support.tarball import tar

COMPRESSION = Compression()
TAR = tar([tarball.file(b"f", b"right " * 50_000)])
OTHER = tar([tarball.file(b"f", b"wrong " * 50_000)])
DIFF_ID = Digest.of(TAR)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def find(store: Store) -> tuple[Path | None, str]:
    """Return the folder of the layer that is used, and why others are not."""
    log = io.StringIO()
    found = verify.find(store, COMPRESSION.variant, DIFF_ID, log=log)
    return None if found is None else found.folder, log.getvalue()


def made(store: Store) -> Path:
    return explode_tar(store, TAR, COMPRESSION).folder


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _other(folder: Path, *names: str) -> None:
    """Put files of another layer, sound ones, in place of this one's."""
    other = explode_tar(Store(folder.parents[3] / "other"), OTHER, COMPRESSION).folder
    for name in names:
        shutil.copyfile(other / name, folder / name)


def _link(path: Path) -> None:
    path.rename(path.with_name("aside"))
    path.symlink_to("aside")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _another_variant(folder: Path) -> None:
    faster = Compression(level="fast")
    other = explode_tar(Store(folder.parents[3] / "other"), TAR, faster).folder
    for name in exploded.PARTS:
        shutil.copyfile(other / name, folder / name)


DOUBTFUL: dict[str, tuple[Callable[[Path], object], str]] = {
    "index-others-may-write": (lambda folder: (folder / "index").chmod(0o666), "others than its owner"),
    "data-others-may-write": (lambda folder: (folder / "data").chmod(0o646), "others than its owner"),
    "data-the-group-may-write": (lambda folder: (folder / "data").chmod(0o664), "others than its owner"),
    "index-has-another-name": (lambda folder: os.link(folder / "index", folder.with_name("x")), "other names"),
    "data-has-another-name": (lambda folder: os.link(folder / "data", folder.with_name("x")), "other names"),
    "index-is-a-link": (lambda folder: _link(folder / "index"), "is a link"),
    "data-is-a-link": (lambda folder: _link(folder / "data"), "is a link"),
    "index-is-a-pipe": (lambda folder: _pipe(folder / "index"), "is a pipe"),
    "data-is-a-pipe": (lambda folder: _pipe(folder / "data"), "is a pipe"),
    "index-gone": (lambda folder: (folder / "index").unlink(), "No such file"),
    "data-gone": (lambda folder: (folder / "data").unlink(), "No such file"),
    "index-damaged": (lambda folder: _flip(folder / "index"), "is damaged"),
    "data-of-another-size": (lambda folder: os.truncate(folder / "data", 5), "is damaged"),
    "another-layer": (lambda folder: _other(folder, "data", "index"), "it is sha256:"),
    "another-layer-s-index": (lambda folder: _other(folder, "index"), "it is "),
    "another-variant": (_another_variant, "it is "),
}


@pytest.mark.parametrize("what", DOUBTFUL)
def test_what_could_be_another_ones_work_is_passed_over_and_made_anew(store: Store, what: str) -> None:
    folder = made(store)
    right = {name: (folder / name).read_bytes() for name in exploded.PARTS}
    change, why = DOUBTFUL[what]
    change(folder)
    found, said = find(store)
    assert found is None and why in said, said
    again = made(store)
    assert {name: (again / name).read_bytes() for name in exploded.PARTS} == right
    assert find(store)[0] == again
    assert verify.wrong(again) is None


@pytest.mark.parametrize("where", ["exploded", "variant", "folder"])
def test_no_link_leads_to_a_layer(store: Store, where: str) -> None:
    folder = made(store)
    path = {"exploded": folder.parents[1], "variant": folder.parent, "folder": folder}[where]
    path.rename(store.root / "aside")
    path.symlink_to(store.root / "aside")
    assert find(store)[0] is None
    if where == "exploded":  # nothing can be made beside it
        with pytest.raises(StoreError, match=r"is a link|in the way"):
            made(store)
    else:
        assert made(store) == store.root / "exploded" / f"{COMPRESSION.variant}.u{os.geteuid()}" / DIFF_ID.hex


def test_a_folder_of_somebody_s_own_work_is_left(store: Store) -> None:
    folder = store.exploded(COMPRESSION.variant, DIFF_ID)
    folder.mkdir(parents=True)
    (folder / "thesis").write_text("mine")
    assert made(store).parent.name == f"{COMPRESSION.variant}.u{os.geteuid()}"
    assert (folder / "thesis").read_text() == "mine"


def test_both_places_taken_is_one_clear_line(store: Store) -> None:
    for name in verify._names(COMPRESSION.variant, DIFF_ID):
        (store.root / name / "thesis").mkdir(parents=True)
    with pytest.raises(StoreError, match="are others' and in the way; set `cache` to a folder of your own"):
        made(store)
    assert not list((store.root / "ingest").iterdir())


@pytest.mark.needs("root")
@pytest.mark.parametrize("further", [False, True], ids=["own", "further"])
@pytest.mark.parametrize("part", ["data", "index", "both"])
def test_only_the_layers_of_trusted_users_are_used(store: Store, tmp_path: Path, further: bool, part: str) -> None:
    store.add(TAR)
    folder = made(store)
    for name in exploded.PARTS if part == "both" else (part,):
        os.chown(folder / name, 65534, 65534)
    (tmp_path / "mine").mkdir()

    def seen(*trusted: int) -> Store:
        return Store(tmp_path / "mine", [store.root], trusted) if further else Store(store.root, trusted=trusted)

    found, said = find(seen())
    assert found is None and "it is nobody's; SREGISTRY_TRUST=nobody uses it" in said
    assert find(seen(1234))[0] is None
    assert find(seen(65534))[0] == folder
    assert find(Store(tmp_path / "mine", [store.root], None))[0] == folder
    _flip(folder / "data")
    assert find(seen(65534))[0] is None, "what can't be removed is read before it is used"
    if further:
        assert made(seen(65534)) == seen().exploded(COMPRESSION.variant, DIFF_ID)
        assert (folder / "data").exists()


@pytest.mark.needs("root")
def test_a_layer_of_another_user_is_made_anew_beside_his(tmp_path: Path) -> None:
    """He has put wrong content under the right names; the blob decides what comes into an image."""
    code = """
import json, os, sys
from pathlib import Path
from sregistry.layers.compression import Compression
from sregistry.layers.explode import explode
from sregistry.oci.documents import Digest
from sregistry.store.store import Store
os.setgroups([]); os.setgid(65534); os.setuid(65534)
store = Store(Path("store"))
blob = Digest(sys.argv[1])
for _ in range(2):
    print(explode(store, blob, blob, Compression(), 1).folder)
"""
    tmp_path.chmod(0o755)
    store = Store(tmp_path / "store")
    store.root.mkdir()
    store.root.chmod(0o2777)
    store.add(TAR)
    folder = made(store)
    _other(folder, "data", "index")
    os.chown(folder / "data", 1234, 1234)
    os.chown(folder / "index", 1234, 1234)
    command = [sys.executable, "-c", code, str(DIFF_ID)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    own = Path("store/exploded") / f"{COMPRESSION.variant}.u65534" / DIFF_ID.hex
    assert done.stdout.split() == [str(own)] * 2
    assert verify.wrong(tmp_path / own) is None
    assert stat.S_IMODE((tmp_path / own / "data").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / own).stat().st_mode) == 0o2777, "any member may remove it"


def test_the_names_of_layers() -> None:
    assert exploded.named(Path("/s/exploded/gzip-fast-65536-3/" + "a" * 64)) == ("gzip-fast-65536-3", Digest("sha256:" + "a" * 64))
    assert exploded.named(Path("/s/exploded/gzip-fast-65536-3.u12/" + "a" * 128)) == ("gzip-fast-65536-3", Digest("sha512:" + "a" * 128))
    for name in ("gzip-fast-65536-3/" + "A" * 64, "gzip-fast/" + "a" * 64, "gzip-fast-65536-3.ux/" + "a" * 64, "x/y"):
        assert exploded.named(Path("/s/exploded") / name) is None


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("sizes", [[0], [1], [STRETCH - 1, 2], [STRETCH], [3 * STRETCH + 5, 700_000, 3 * STRETCH + 5, 10]], ids=str)
def test_every_stretch_of_the_data_has_its_digest(store: Store, sizes: list[int], threads: int) -> None:
    """Of files that take blocks back, too: the same content comes twice."""
    data = tar([tarball.file(b"f%d" % n, random.Random(size).randbytes(size)) for n, size in enumerate(sizes)])
    blob = store.add(data)
    layer = explode(store, blob, blob, COMPRESSION, threads)
    index = Index.read(layer.folder / "index")
    content = (layer.folder / "data").read_bytes()
    assert [(start, end) for start, end, _ in index.summed()] == [
        (n, min(n + STRETCH, len(content))) for n in range(0, len(content), STRETCH)
    ]
    assert all(hashlib.sha256(content[start:end]).digest() == digest for start, end, digest in index.summed())
    assert index.identity == f"{blob} {COMPRESSION.variant}".encode()
    assert index.digest.hex() == layer.digest.hex() == (layer.folder / "index").read_bytes()[-32:].hex()


def test_a_blob_that_changes_while_its_diff_id_is_looked_for_is_not_used(store: Store) -> None:
    """Without a diff_id in a config, what is exploded is what was hashed."""
    digest = Digest.of(TAR)
    store.add(TAR)
    store.blob(digest).write_bytes(OTHER)
    with pytest.raises(StoreError, match="damaged on disk"):
        explode(store, digest, None, COMPRESSION, 1)
    assert not store.has(digest)
