"""The store: whole, verified blobs or none; names that other tools find; locks among processes."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sregistry.errors import DigestMismatch, StoreError, TransferError
from sregistry.oci.documents import Descriptor, Digest, MediaType
from sregistry.store.partial_blob import Ingest
from sregistry.store.store import Store, partials, write_atomic

DATA = b"some blob"
DIGEST = Digest.of(DATA)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def files(store: Store) -> list[str]:
    return sorted(str(path.relative_to(store.root)) for path in store.root.rglob("*") if path.is_file() and "locks" not in path.parts)


def descriptor(data: bytes = DATA) -> Descriptor:
    return Descriptor(media_type=MediaType.OCI_MANIFEST, digest=Digest.of(data), size=len(data))


def test_a_blob_is_kept_under_its_digest(store: Store) -> None:
    assert not store.has(DIGEST)
    assert store.add(DATA) == DIGEST
    assert store.has(DIGEST)
    assert store.has(DIGEST, len(DATA))
    assert not store.has(DIGEST, 1)
    assert store.read(DIGEST) == DATA
    assert files(store) == [f"blobs/sha256/{DIGEST.hex}"]
    assert stat.S_IMODE(store.blob(DIGEST).stat().st_mode) == 0o644


def test_sha512(store: Store) -> None:
    digest = Digest("sha512:" + hashlib.sha512(DATA).hexdigest())
    assert store.add(DATA, digest) == digest
    assert store.read(digest) == DATA


@pytest.mark.parametrize(
    ("sent", "size", "message"),
    [
        (b"other", None, "other bytes"),
        (DATA + b"x", len(DATA), "more than"),
        (DATA[:-1], len(DATA), "got 8 of 9"),
        (b"", len(DATA), "got 0"),
    ],
)
def test_other_bytes_leave_nothing(store: Store, sent: bytes, size: int | None, message: str) -> None:
    with pytest.raises(DigestMismatch, match=message), Ingest(store, DIGEST, size) as sink:
        for byte in sent:
            sink.write(bytes([byte]))
    assert files(store) == []


def test_an_error_of_the_source_passes_and_what_came_is_kept_for_the_next(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), Ingest(store, DIGEST, len(DATA)) as sink:
        sink.write(DATA[:2])
        raise ZeroDivisionError
    assert files(store) == [f"ingest/sha256-{DIGEST.hex}.partial"]
    assert not store.has(DIGEST)
    with Ingest(store, DIGEST, len(DATA)) as sink:
        assert sink.position == 2
        sink.write(DATA[2:])
    assert files(store) == [f"blobs/sha256/{DIGEST.hex}"]
    assert store.read(DIGEST) == DATA


def test_a_damaged_rest_is_noticed_and_begun_anew(store: Store) -> None:
    partial = store.root / "ingest" / f"sha256-{DIGEST.hex}.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"S")
    with Ingest(store, DIGEST, len(DATA)) as sink:
        sink.write(DATA[1:])
        with pytest.raises(TransferError, match="an earlier run left of it was damaged"):
            sink.finish()
        assert sink.position == 0
        sink.write(DATA)
    assert store.read(DIGEST) == DATA


def test_a_rest_that_is_too_long_counts_for_nothing(store: Store) -> None:
    partial = store.root / "ingest" / f"sha256-{DIGEST.hex}.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(DATA + b"more")
    with Ingest(store, DIGEST, len(DATA)) as sink:
        assert sink.position == 0
        sink.write(DATA)
    assert store.read(DIGEST) == DATA


def _planted_link(partial: Path, victim: Path) -> None:
    partial.symlink_to(victim)


def _planted_name(partial: Path, victim: Path) -> None:
    os.link(victim, partial)


def _planted_mode(partial: Path, victim: Path) -> None:
    partial.write_bytes(DATA[:2])
    partial.chmod(0o666)


PLANTED: dict[str, Callable[[Path, Path], object]] = {
    "link": _planted_link,
    "link-to-nothing": lambda partial, victim: partial.symlink_to(victim.with_name("nothing")),
    "another-name-of-a-file": _planted_name,
    "pipe": lambda partial, victim: os.mkfifo(partial),
    "folder": lambda partial, victim: partial.mkdir(),
    "file-that-others-may-write": _planted_mode,
    "device": lambda partial, victim: os.mknod(partial, stat.S_IFCHR | 0o666, os.makedev(1, 3)),
}


@pytest.mark.parametrize("what", [pytest.param(what, marks=pytest.mark.needs("root") if what == "device" else ()) for what in PLANTED])
@pytest.mark.parametrize("both", [False, True])
def test_nothing_is_written_to_what_another_one_has_put_there(store: Store, tmp_path: Path, what: str, both: bool) -> None:
    victim = tmp_path / "authorized_keys"
    victim.write_bytes(b"")
    victim.chmod(0o600)
    for name in partials(DIGEST)[: 1 + both]:
        (store.root / name).parent.mkdir(parents=True, exist_ok=True)
        PLANTED[what](store.root / name, victim)
    with pytest.raises(ZeroDivisionError), Ingest(store, DIGEST, len(DATA)) as sink:
        assert sink.position == 0
        sink.write(DATA[:4])
        raise ZeroDivisionError
    # Where folders have both names, a third one is taken, which nobody finds again.
    assert store.received(DIGEST) == (None if both and what == "folder" else 4)
    with Ingest(store, DIGEST, len(DATA)) as sink:
        sink.write(DATA[sink.position :])
    assert store.read(DIGEST) == DATA
    assert (victim.read_bytes(), stat.S_IMODE(victim.stat().st_mode)) == (b"", 0o600)
    assert not victim.with_name("nothing").exists()


def test_a_transfer_is_its_user_s_alone_until_it_is_whole(store: Store) -> None:
    store.root.mkdir()
    store.root.chmod(0o2777)
    with Ingest(store, DIGEST, len(DATA)) as sink:
        sink.write(DATA)
        assert stat.S_IMODE((store.root / partials(DIGEST)[0]).stat().st_mode) == 0o600
    assert stat.S_IMODE(store.blob(DIGEST).stat().st_mode) == 0o666


@pytest.mark.needs("root")
@pytest.mark.parametrize("mode", [0o2777, 0o1777], ids=["shared", "sticky"])
def test_what_another_user_has_received_is_left_to_him(tmp_path: Path, mode: int) -> None:
    code = """
import os, sys
from pathlib import Path
from sregistry.oci.documents import Digest
from sregistry.store.partial_blob import Ingest
from sregistry.store.store import Store
os.setgroups([]); os.setgid(65534); os.setuid(65534)
store, data = Store(Path("store")), b"some blob"
with Ingest(store, Digest.of(data), len(data)) as sink:
    assert sink.position == 0
    sink.write(data)
assert store.read(Digest.of(data)) == data
"""
    tmp_path.chmod(0o755)
    store = Store(tmp_path / "store")
    for name in ("", "ingest", "blobs", "blobs/sha256"):
        (store.root / name).mkdir()
        (store.root / name).chmod(mode)
    first, second = (store.root / name for name in partials(DIGEST))
    first.write_bytes(DATA[:3])
    second.with_name(second.name.replace(".u0.", ".u65534.")).symlink_to("/etc/hostname")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert first.read_bytes() == DATA[:3]
    assert store.blob(DIGEST).stat().st_uid == 65534


BLOBS: dict[str, Callable[[Path, Path], object]] = {
    "link": _planted_link,
    "link-to-nothing": lambda blob, victim: blob.symlink_to("nothing"),
    "pipe": lambda blob, victim: os.mkfifo(blob),
    "other-bytes": lambda blob, victim: blob.write_bytes(b"s0me blob"),
}


@pytest.mark.parametrize("what", BLOBS)
@pytest.mark.parametrize("how", ["add", "ingest"])
def test_what_is_no_blob_is_replaced_and_not_followed(store: Store, tmp_path: Path, what: str, how: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(DATA)
    store.blob(DIGEST).parent.mkdir(parents=True)
    BLOBS[what](store.blob(DIGEST), victim)
    os.utime(victim, (1, 1))
    assert store.has(DIGEST) == (what == "other-bytes")
    if how == "add":
        store.add(DATA)
    else:
        with Ingest(store, DIGEST, len(DATA)) as sink:
            sink.write(DATA)
    assert store.read(DIGEST) == DATA and not store.blob(DIGEST).is_symlink()
    assert (victim.read_bytes(), victim.stat().st_mtime) == (DATA, 1)


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256", "ingest", "locks"])
@pytest.mark.parametrize("kind", ["link", "file", "pipe"])
def test_a_folder_that_is_none_is_one_clear_line(store: Store, tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / "victim").mkdir()
    path = store.root / name
    path.parent.mkdir(parents=True)
    if kind == "link":
        path.symlink_to(tmp_path / "victim")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.touch()
    word = {"link": "is a link, and none is followed", "file": "is a file", "pipe": "is a pipe"}[kind]
    with pytest.raises(StoreError, match=f"{path} {word}.*; remove it"):
        if name == "locks":
            with store.lock("x"):
                pass
        else:
            store.add(DATA)
    assert not list((tmp_path / "victim").iterdir())


def test_the_root_itself_may_be_reached_over_a_link(store: Store, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "home").symlink_to("scratch")
    linked = Store(tmp_path / "home")
    linked.add(DATA)
    assert Store(tmp_path / "scratch").read(DIGEST) == DATA


@pytest.mark.parametrize("what", ["link", "pipe", "folder", "huge"])
def test_an_index_json_that_is_no_file_names_nothing(store: Store, tmp_path: Path, what: str) -> None:
    store.add(DATA)
    path = store.root / "index.json"
    (tmp_path / "victim").write_text("mine")
    if what == "huge":
        path.touch()
        os.truncate(path, 1 << 40)
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "link":
        path.symlink_to(tmp_path / "victim")
    else:
        path.mkdir()
    assert store.tags() == {}
    if what == "folder":
        with pytest.raises(StoreError, match="Is a directory"):
            store.tag("a/b:1", descriptor())
        return
    store.tag("a/b:1", descriptor())
    assert store.tags() == {"a/b:1": descriptor()}
    assert (tmp_path / "victim").read_text() == "mine"


def test_who_was_taken_for_dead_publishes_nothing_that_another_has_begun(store: Store) -> None:
    with Ingest(store, DIGEST, len(DATA)) as late:
        late.write(DATA)
        with Ingest(store, DIGEST, len(DATA)) as other:
            other.restart()
            other.write(DATA[:4])
            with pytest.raises(StoreError, match="another process has taken over"):
                late.finish()
            assert not store.has(DIGEST)
            other.write(DATA[4:])
    assert store.read(DIGEST) == DATA


def test_a_lock_that_is_held_is_not_waited_for_if_so_asked(store: Store) -> None:
    with store.lock("one") as held, store.lock("one", wait=False) as other:
        assert (held, other) == (True, False)
    with store.lock("one", wait=False) as held:
        assert held
    assert not list((store.root / "locks").iterdir())


def test_the_lock_of_a_process_that_died_is_taken_at_once(store: Store) -> None:
    code = """
import os, sys
from pathlib import Path
from sregistry.store.store import Store
with Store(Path(sys.argv[1])).lock("one"):
    print("held", flush=True)
    os.kill(os.getpid(), 9)
"""
    job = subprocess.run([sys.executable, "-c", code, str(store.root)], capture_output=True, text=True, check=False)
    assert (job.returncode, job.stdout) == (-9, "held\n")
    assert (store.root / "locks" / "one").exists()
    with store.lock("one", wait=True) as held:
        assert held


def test_a_damaged_blob_is_noticed(store: Store) -> None:
    store.add(DATA)
    store.blob(DIGEST).write_bytes(b"s0me blob")
    with pytest.raises(DigestMismatch, match=f"{DIGEST.hex} is damaged.*remove"):
        store.read(DIGEST)
    with pytest.raises(StoreError, match="can't read"):
        store.read(Digest.of(b"none"))


def test_names(store: Store) -> None:
    assert store.tags() == {}
    store.tag("h:1/a/b:1", descriptor())
    store.tag("h:1/a/b:2", descriptor(b"2"))
    store.tag("h:1/a/b:1", descriptor(b"3"))
    assert store.tags() == {"h:1/a/b:2": descriptor(b"2"), "h:1/a/b:1": descriptor(b"3")}
    before = (store.root / "index.json").stat().st_mtime_ns
    store.tag("h:1/a/b:1", descriptor(b"3"))
    assert (store.root / "index.json").stat().st_mtime_ns == before
    assert json.loads((store.root / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}


def test_names_of_others_stay(store: Store) -> None:
    store.root.mkdir()
    nameless = {"mediaType": MediaType.OCI_MANIFEST, "digest": str(DIGEST), "size": 9}
    odd = [nameless, {**nameless, "annotations": {"x": "y"}}, {"annotations": {"org.opencontainers.image.ref.name": "broken"}}, 5]
    (store.root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": odd}))
    assert store.tags() == {}
    store.tag("a/b:1", descriptor())
    assert json.loads((store.root / "index.json").read_bytes())["manifests"][:4] == odd
    assert store.tags() == {"a/b:1": descriptor()}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"manifests": 5}', "\0"])
def test_an_index_that_is_none_is_begun_anew(store: Store, text: str) -> None:
    store.root.mkdir()
    (store.root / "index.json").write_text(text)
    assert store.tags() == {}
    store.tag("a/b:1", descriptor())
    assert store.tags() == {"a/b:1": descriptor()}


def test_processes_that_name_at_once_lose_nothing(store: Store) -> None:
    code = """
import sys
from pathlib import Path
from sregistry.oci.documents import Descriptor, Digest
from sregistry.store.store import Store
for i in range(20):
    Store(Path(sys.argv[1])).tag(f"{sys.argv[2]}/x:{i}", Descriptor(media_type="m", digest=Digest.of(b""), size=0))
"""
    jobs = [subprocess.Popen([sys.executable, "-c", code, str(store.root), name]) for name in "abc"]
    assert [job.wait() for job in jobs] == [0, 0, 0]
    assert len(store.tags()) == 60


def test_a_lock_keeps_others_out_and_the_body_s_errors_as_they_are(store: Store) -> None:
    inside = 0
    most = 0

    def work() -> None:
        nonlocal inside, most
        with store.lock("one"):
            inside += 1
            most = max(most, inside)
            threading.Event().wait(0.005)
            inside -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    with pytest.raises(FileNotFoundError), store.lock("one"):
        raise FileNotFoundError("the body's own")
    with store.lock("one"):
        pass


def test_a_store_that_can_t_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file" / "store")
    for action in (lambda: store.add(DATA), lambda: store.tag("a/b:1", descriptor()), lambda: store.lock("x").__enter__()):
        with pytest.raises(StoreError, match=r"Not a directory; .*choose another folder"):
            action()


def test_a_published_folder_stays_the_first(store: Store) -> None:
    final = store.exploded("v", DIGEST)
    for text in ("first", "second"):
        with store.workspace() as work:
            made = work / "layer"
            made.mkdir()
            (made / "data").write_text(text)
            store.publish(made, final)
    assert (final / "data").read_text() == "first"
    assert not list((store.root / "ingest").iterdir())


def test_write_atomic_leaves_the_old_file_when_it_fails(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old", 0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_atomic(tmp_path / "folder", b"new")
    assert sorted(os.listdir(tmp_path)) == ["f", "folder"]


@settings(deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_any_cut_of_a_blob_gives_the_blob(tmp_path_factory: pytest.TempPathFactory, data: bytes, cuts: list[int]) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    edges = sorted({0, len(data), *(cut for cut in cuts if cut <= len(data))})
    with Ingest(store, Digest.of(data), len(data)) as sink:
        for start, end in itertools.pairwise(edges):
            sink.write(data[start:end])
    assert store.read(Digest.of(data)) == data
