"""Exploded layers: a pure function of tar and key, contents stored once, nothing half-made."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from sregistry.errors import ConfigError, DigestMismatch, LayerError, StoreError
from sregistry.layers.compression import LEVELS, PURE, Codec, Compression
from sregistry.layers.contents import Contents
from sregistry.layers.explode import explode, explode_tar
from sregistry.layers.index import NONE, Index
from sregistry.oci.documents import Digest
from sregistry.store.store import Store
from sregistry.system import limits
from tests.support import engine, tarball
from tests.support.compressed import SLOWEST
from tests.support.tarball import tar
from tests.support.work import calls, lines

DICE = random.Random(7)
NOISE = DICE.randbytes(400_000)
TEXT = b"".join(b"line %d of a text\n" % DICE.randrange(1000) for _ in range(30_000))
BLOCK = 128 << 10


def expanded(folder: Path) -> dict[bytes, bytes]:
    index = Index.read(folder / "index")
    with Contents([folder], [index]) as reader:
        return {
            path: b"".join(block if block is not None else bytes(index.block_size) for block in reader.blocks(0, row))
            for row, path in enumerate(index.paths())
        }


def fill(store: Store, data: bytes) -> tuple[Digest, Digest]:
    blob = gzip.compress(data, 1, mtime=0)
    return store.add(blob), Digest.of(data)


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize("block_size", [64 << 10, 128 << 10, 1 << 20])
@pytest.mark.parametrize("level", [pytest.param(level, marks=SLOWEST if level == "small" else ()) for level in LEVELS])
def test_every_codec_keeps_the_contents(tmp_path: Path, codec: Codec, level: str, block_size: int) -> None:
    files = {b"noise": NOISE, b"text": TEXT, b"holes": bytes(3 << 20) + b"end", b"zeros": bytes(BLOCK), b"small": b"x", b"empty": b""}
    compression = Compression(codec=codec, level=level, block_size=block_size)
    (folder,) = engine.folders(tmp_path, [[tarball.file(name, data) for name, data in files.items()]], compression)
    assert expanded(folder) == files


def mixed() -> bytes:
    """Return a layer of many small files, some large ones between them, some of these equal."""
    members = []
    for i in range(400):
        members.append(tarball.file(b"small/%d" % i, TEXT[i * 70 : i * 71 + i % 90] + NOISE[i : i + i % 50]))
        if i % 60 == 0:
            members.append(tarball.file(b"large/%d" % i, TEXT[i * 50 : 330_000] + NOISE[: 9 * i] + bytes(BLOCK)))
            members.append(tarball.file(b"same/%d" % i, NOISE[:140_000]))
    return tar(members)


def digests(folder: Path) -> tuple[str, ...]:
    return tuple(hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("data", "index"))


@pytest.mark.parametrize(("codec", "level"), [pytest.param(*pure, marks=SLOWEST if pure[1] == "small" else ()) for pure in sorted(PURE)])
def test_threads_do_not_show_in_the_bytes(tmp_path: Path, codec: Codec, level: str) -> None:
    data = mixed()
    found = set()
    for threads in (1, 2, 4):
        store = Store(tmp_path / str(threads))
        blob, diff_id = fill(store, data)
        found.add(digests(explode(store, blob, diff_id, Compression(codec=codec, level=level), threads).folder))
    assert len(found) == 1


def test_threads_and_memory_do_not_show_in_what_the_stage_makes(tmp_path: Path) -> None:
    """The command that the rule runs, each time in a process of its own."""
    found = set()
    for threads, perturb in [(1, ""), (2, "165"), (4, "1")]:
        folder = tmp_path / str(threads)
        store = Store(folder / "docker")
        blob, diff_id = fill(store, mixed())
        holds = [{"path": str(store.blob(blob)), "size": 1}]
        layer = {"digest": str(blob), "size": 1, "diff_id": str(diff_id), "store": "docker", "holds": holds}
        (folder / "layer.json").write_text(json.dumps(layer))
        command = [sys.executable, "-m", "sregistry.stages", "explode", "--layer", "layer.json", "--cache", ".", "--codec", "gzip"]
        more = ["--level", "default", "--block-size", str(BLOCK), "--threads", str(threads), "--output", "explode.json"]
        environ = {**os.environ, "MALLOC_PERTURB_": perturb}
        subprocess.run([*command, *more], cwd=folder, env=environ, check=True)
        receipt = json.loads((folder / "explode.json").read_text())
        assert [Path(held["path"]).name for held in receipt["holds"]] == ["data", "index"]
        found.add(digests(folder / receipt["path"]))
    assert len(found) == 1


def test_equal_contents_are_stored_once(tmp_path: Path) -> None:
    one = [tarball.file(b"a", TEXT), tarball.file(b"b", NOISE), tarball.file(b"c", b"tail" * 100)]
    more = [tarball.file(b"copy/" + member.name, member.data) for member in one for _ in range(3)]
    single, several = (engine.index_of(tmp_path, layer) for layer in (one, [*one, *more]))
    assert single.data_size == several.data_size > 0
    assert expanded(engine.folders(tmp_path, [[*one, *more]])[0])[b"copy/b"] == NOISE


def test_files_that_only_look_alike_are_kept_apart(tmp_path: Path) -> None:
    """Equal sizes, equal compressed sizes (noise does not shrink), other bytes."""
    files = {b"f%d" % i: DICE.randbytes(2 * BLOCK) for i in range(5)}
    (folder,) = engine.folders(tmp_path, [[tarball.file(name, data) for name, data in files.items()]])
    assert expanded(folder) == files


def test_zeros_are_holes_and_tails_share_fragments(tmp_path: Path) -> None:
    layer = [tarball.file(b"zeros", bytes(64 * BLOCK)), *(tarball.file(b"s%d" % i, b"%d" % i * 50) for i in range(200))]
    index = engine.index_of(tmp_path, layer)
    assert set(index.blocks(0)) == {0} and index.fragment[0] == NONE
    assert set(index.fragment[1:]) == {0} and len(index.fragment_start) == 1


def test_a_fragment_of_zeros_is_no_hole(tmp_path: Path) -> None:
    files = {b"z": bytes(5000), b"y": bytes(4999)}
    (folder,) = engine.folders(tmp_path, [[tarball.file(name, data) for name, data in files.items()]])
    assert expanded(folder) == files


def test_wrong_diff_id_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    blob, _ = fill(store, tar([tarball.file(b"f", TEXT)]))
    with pytest.raises(DigestMismatch, match="image config says"):
        explode(store, blob, Digest.of(b"other"), Compression(), 2)
    assert store.has(blob), "a blob that is what the registry published is kept"
    assert not list(tmp_path.glob("exploded/*/*")) and not list((tmp_path / "ingest").iterdir())


@pytest.mark.parametrize("plain", [False, True])
def test_a_diff_id_that_nobody_says_is_found_out(tmp_path: Path, plain: bool) -> None:
    store = Store(tmp_path)
    data = tar([tarball.file(b"f", TEXT)])
    blob, diff_id = fill(store, data)
    if plain:
        blob = store.add(data)
    found = explode(store, blob, None, Compression(), 2)
    assert (found.diff_id, found.folder) == (diff_id, store.exploded(Compression().variant, diff_id))
    assert explode(store, blob, diff_id, Compression(), 2) == found
    path = store.blob(blob)
    path.write_bytes(path.read_bytes().replace(b"line", b"lime") if plain else path.read_bytes()[:-1])
    with pytest.raises(StoreError, match="damaged on disk"):  # the blob's digest is all that vouches for it
        explode(store, blob, None, Compression(), 2)
    with pytest.raises(StoreError, match="No such file"):
        explode(store, blob, None, Compression(), 2)


def bomb(kind: str) -> tuple[bytes, bytes]:
    """Return a stream that is small, or whose blob is, and that blob."""
    if kind == "sparse":
        with io.BytesIO() as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                member = tarfile.TarInfo("x")
                map_ = b"0\n".ljust(512, b"\0")
                member.size = len(map_)
                names = {"major": "1", "minor": "0", "name": "x", "realsize": str(1 << 60)}
                member.pax_headers = {f"GNU.sparse.{key}": value for key, value in names.items()}
                archive.addfile(member, io.BytesIO(map_))
            data = file.getvalue()
        return data, data
    data = tar([tarball.file(b"zeros", bytes(48 << 20))])
    return data, gzip.compress(data, 1, mtime=0) if kind == "gzip" else zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize("known", [True, False], ids=["diff_id", "no-diff_id"])
@pytest.mark.parametrize("kind", ["gzip", "zstd", "sparse"])
def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path, kind: str, known: bool) -> None:
    store = Store(tmp_path)
    data, blob = bomb(kind)
    assert len(blob) < 2 << 20
    digest = store.add(blob)
    line = rf"^layer {digest}: more than 8388608 bytes uncompressed, the layer_limit; raise layer_limit if you trust the image$"
    with pytest.raises(LayerError) as caught:
        explode(store, digest, Digest.of(data) if known else None, Compression(), 2, limit=8 << 20)
    assert re.fullmatch(line, str(caught.value))
    assert store.has(digest) and not list(tmp_path.glob("exploded/*/*")) and not list((tmp_path / "ingest").glob("*"))


def test_the_limit_is_no_part_of_the_key(tmp_path: Path) -> None:
    store = Store(tmp_path)
    blob, diff_id = fill(store, tar([tarball.file(b"f", TEXT)]))
    made = explode(store, blob, diff_id, Compression(), 2, limit=len(TEXT) + 10240)
    assert explode(store, blob, diff_id, Compression(), 2, limit=1) == made


def test_memory_stays_small_when_a_bomb_goes_off(tmp_path: Path) -> None:
    """A gzip of 384 MiB, up to a limit of 256 MiB: what is in memory follows neither."""
    store = Store(tmp_path / "docker")
    one = tar([tarball.file(b"zeros", bytes(64 << 20))])[:-1024]
    blob = gzip.compress(one, 1, mtime=0) * 6
    digest = store.add(blob)
    holds = [{"path": str(store.blob(digest)), "size": len(blob)}]
    layer = {"digest": str(digest), "size": len(blob), "diff_id": str(Digest.of(b"")), "store": "docker", "holds": holds}
    (tmp_path / "layer.json").write_text(json.dumps(layer))
    # Not getrusage: it begins with what the process had that started this one.
    code = (
        "import re, sys; from sregistry.stages.__main__ import main; code = main(sys.argv[1:]);"
        " print(re.search(r'VmHWM:\\s*([0-9]+) kB', open('/proc/self/status').read())[1]); sys.exit(code)"
    )
    command = [sys.executable, "-c", code, "explode", "--layer", "layer.json", "--cache", ".", "--codec", "gzip", "--level", "fast"]
    more = ["--block-size", str(BLOCK), "--limit", str(256 << 20), "--threads", "2", "--output", "explode.json"]
    done = subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "layer_limit" in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert int(done.stdout) < 128 << 10, "KiB"


def test_a_blob_damaged_on_disk_is_removed_and_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    blob, diff_id = fill(store, tar([tarball.file(b"f", TEXT)]))
    path = store.blob(blob)
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged on disk"):
        explode(store, blob, diff_id, Compression(), 2)
    assert not path.exists()


def test_a_layer_that_is_no_tar_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path)
    blob, diff_id = fill(store, b"garbage" * 1000)
    with pytest.raises(LayerError, match="offset 0"):
        explode(store, blob, diff_id, Compression(), 2)


def test_a_missing_blob_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="No such file or directory; run again to fetch it anew"):
        explode(Store(tmp_path), Digest.of(b"x"), Digest.of(b"y"), Compression(), 1)


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    data = tar([tarball.file(b"f", TEXT)])
    first = explode_tar(store, data, Compression())
    stamps = [path.stat().st_mtime_ns for path in sorted(first.folder.iterdir())]
    blob, diff_id = fill(store, data)
    assert explode(store, blob, diff_id, Compression(), 2) == first
    assert [path.stat().st_mtime_ns for path in sorted(first.folder.iterdir())] == stamps


@pytest.mark.parametrize("part", ["data", "index"])
def test_what_lost_a_part_is_made_anew(tmp_path: Path, part: str) -> None:
    layer = [tarball.file(b"f", TEXT)]
    (folder,) = engine.folders(tmp_path, [layer])
    (folder / part).unlink()
    engine.folders(tmp_path, [layer])
    assert expanded(folder) == {b"f": TEXT}


def test_a_damaged_index_is_noticed(tmp_path: Path) -> None:
    (folder,) = engine.folders(tmp_path, [[tarball.file(b"f", TEXT)]])
    path = folder / "index"
    data = bytearray(path.read_bytes())
    for damaged in (data[:-1], data[:20], b"", bytes(data[:100]) + bytes([data[100] ^ 1]) + bytes(data[101:])):
        path.write_bytes(damaged)
        with pytest.raises(StoreError, match="is damaged"):
            Index.read(path)


def test_damaged_data_is_noticed_when_read(tmp_path: Path) -> None:
    (folder,) = engine.folders(tmp_path, [[tarball.file(b"f", TEXT)]])
    data = bytearray((folder / "data").read_bytes())
    (folder / "data").write_bytes(data[:-1])
    with pytest.raises(StoreError, match="is damaged"):
        expanded(folder)
    data[200] ^= 0xFF
    (folder / "data").write_bytes(data)
    with pytest.raises(StoreError, match="damaged at byte 0"):
        expanded(folder)


@pytest.mark.parametrize(
    "words",
    [
        {"codec": "xz", "level": "default", "block_size": BLOCK},
        {"codec": "gzip", "level": "9", "block_size": BLOCK},
        {"codec": "gzip", "level": "default", "block_size": 100_000},
        {"codec": "gzip", "level": "default", "block_size": 4096},
    ],
)
def test_bad_compression_names_the_key(words: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"compression\."):
        Compression.parse(**words)  # type: ignore[arg-type]


def test_files_of_the_same_words_are_each_read_once(tmp_path: Path) -> None:
    """Noise of one size has the same words: every file would be compared with all before it."""

    def exploding(count: int) -> Callable[[], object]:
        noise = [tarball.file(b"%d" % n, DICE.randbytes(64 << 10)) for n in range(count)]
        data = tar([*noise, *(tarball.file(b"again/" + member.name, member.data) for member in noise)])
        return lambda: engine.folders(tmp_path, [data], Compression(block_size=64 << 10))

    small, large = exploding(40), exploding(80)
    engine.folders(tmp_path, [[]])
    assert calls(large) <= 2.2 * calls(small)


def test_a_large_hole_is_little_work(tmp_path: Path) -> None:
    """A header of 512 bytes may stand for 2³⁰ bytes, or 2⁴⁰: 8,192 blocks are not looked at."""
    segments = ((0, 1), (1 << 29, 1))
    hole = tarball.Member(name=b"hole", data=b"xy", records=sparse_records(1 << 30, segments))
    index = engine.index_of(tmp_path, [hole, tarball.file(b"after", b"z" * BLOCK)])
    words = index.blocks(0)
    assert len(words) == 8192 and [n for n, word in enumerate(words) if word] == [0, 4096]
    assert lines(lambda: engine.index_of(tmp_path / "again", [hole])) < 8192 * 8


def sparse_records(size: int, segments: tuple[tuple[int, int], ...]) -> list[tuple[bytes, bytes]]:
    flat = b",".join(b"%d,%d" % segment for segment in segments)
    return [(b"GNU.sparse.map", flat), (b"GNU.sparse.size", b"%d" % size)]


def test_a_layer_of_too_many_entries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [tarball.file(b"%d" % n) for n in range(5)]
    monkeypatch.setattr(limits, "INODES", 5)
    engine.folders(tmp_path, [members])
    with pytest.raises(LayerError, match="offset 2560: more entries than the limit INODES of 5"):
        engine.folders(tmp_path, [[*members, tarball.file(b"more")]])
