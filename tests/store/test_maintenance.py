"""A store is checked and cleaned: what is wrong goes, what is used stays."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sregistry.errors import StoreError
from sregistry.oci.documents import Descriptor, Digest, MediaType
from sregistry.store import maintenance
from sregistry.store.maintenance import clean, session
from sregistry.store.partial_blob import Ingest
from sregistry.store.store import Store
from sregistry.store.survey import Object, objects
from sregistry.system.locks import lease
from tests.support.engine import DEFAULT, folders
from tests.support.stores import checked, exploded, flip, names, two_images
from tests.support.tarball import file


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return two_images(tmp_path_factory.mktemp("template"))


@pytest.fixture
def store(template: Store, tmp_path: Path) -> Store:
    """Return a store with two images that share a layer; one of them has a name."""
    shutil.copytree(template.root, tmp_path / "cache" / "docker")
    return Store(tmp_path / "cache" / "docker")


def age(store: Store, days: float, which: Callable[[Object], bool] = lambda _: True) -> None:
    for item in objects(store):
        if which(item):
            os.utime(item.path, (time.time() - days * 86_400,) * 2)


def test_a_sound_store_is_left_as_it_is(store: Store) -> None:
    before = names(store)
    said: list[str] = []
    assert checked(store, say=said.append) == []
    assert names(store) == before == set(said)
    assert len([name for name in before if name.startswith("exploded")]) == 3


def _blob(store: Store) -> Path:
    return max((item for item in objects(store) if item.path.is_file()), key=lambda item: item.size).path


def _swap(store: Store) -> None:
    """Put one sound layer in the place of another."""
    one, other = exploded(store)[:2]
    shutil.rmtree(one)
    shutil.copytree(other, one)


def _swap_data(store: Store) -> None:
    one, other = exploded(store)[:2]
    shutil.copyfile(other / "data", one / "data")
    os.truncate(one / "data", 2_000_000)


def _raw(store: Store) -> None:
    """Flip a bit of a block that is stored as it is: it expands as well as before."""
    data = random.Random(1).randbytes(400_000)
    path = folders(store.root, [[file(b"f", data)]])[0] / "data"
    flip(path, path.read_bytes().index(data[:100]) + 7)


DAMAGE: dict[str, tuple[Callable[[Store], object], str]] = {
    "blob-flipped": (
        lambda store: flip(max((i for i in objects(store) if i.path.is_file()), key=lambda i: i.size).path, 5),
        "its bytes are others",
    ),
    "blob-cut": (lambda store: os.truncate(next(i for i in objects(store) if i.path.is_file()).path, 3), "its bytes are others"),
    "data-cut": (lambda store: os.truncate(exploded(store)[0] / "data", 100), "another size than its index says"),
    "data-flipped": (
        lambda store: flip(exploded(store)[1] / "data", (exploded(store)[1] / "data").stat().st_size - 2),
        "its data is damaged at byte",
    ),
    "data-gone": (lambda store: (exploded(store)[0] / "data").unlink(), "can't be read"),
    "data-of-another-layer": (_swap_data, "another size than its index says"),
    "another-layer": (_swap, "it is sha256:"),
    "data-raw": (_raw, "its data is damaged at byte 0"),
    "index-digests-flipped": (
        lambda store: flip(exploded(store)[2] / "index", (exploded(store)[2] / "index").stat().st_size - 40),
        "is damaged",
    ),
    "index-flipped": (lambda store: flip(exploded(store)[2] / "index", 60), "is damaged"),
    "index-empty": (lambda store: (exploded(store)[2] / "index").write_bytes(b""), "is damaged"),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_damage_is_found_and_removed(store: Store, how: str) -> None:
    before = names(store)
    act, says = DAMAGE[how]
    act(store)
    (told,) = checked(store, dry_run=True)
    assert says in told.what and not told.repaired
    assert names(store) >= before
    findings = checked(store)
    assert says in findings[0].what and findings[0].repaired
    assert not findings[0].path.exists()
    assert len(names(store)) == len(before) - (how != "data-raw")
    assert checked(store) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"manifests": 1}', ""])
def test_a_broken_index_is_begun_anew(store: Store, text: str) -> None:
    (store.root / "index.json").write_text(text)
    assert [finding.what for finding in checked(store)] == ["index.json: is no index"]
    assert json.loads((store.root / "index.json").read_bytes())["manifests"] == []
    assert checked(store) == []


def test_names_of_what_is_gone_are_dropped(store: Store) -> None:
    store.tag("a/b:1", Descriptor(media_type=MediaType.OCI_MANIFEST, digest=Digest.of(b"gone"), size=4))
    (finding,) = checked(store)
    assert "1 names of manifests that are gone" in finding.what
    assert list(store.tags()) == ["h/demo/named:1"]


def test_left_overs_of_the_dead_are_removed(store: Store) -> None:
    old = time.time() - 2 * maintenance.FORGOTTEN
    for name in ("ingest/work-x/layer", "locks", "leases"):
        (store.root / name).mkdir(parents=True, exist_ok=True)
    for name in ("ingest/sha256-0.partial", "ingest/sha256-1.partial", "locks/one", "locks/two", "leases/5-1-x"):
        (store.root / name).write_text('{"machine": "another", "pid": 1, "start": "1"}')
    for name in ("ingest/work-x", "ingest/sha256-0.partial", "locks/one", "leases/5-1-x"):
        os.utime(store.root / name, (old, old))
    with store.lock("held"):
        found = {finding.what.partition(":")[0] for finding in checked(store)}
        assert found == {"ingest/work-x", "ingest/sha256-0.partial", "locks/one", "leases/5-1-x"}
        assert {path.name for path in (store.root / "locks").iterdir() if not path.name.startswith(".")} == {"two", "held"}
    assert (store.root / "ingest/sha256-1.partial").exists()


def test_a_damaged_object_that_somebody_makes_is_left(store: Store) -> None:
    flip(exploded(store)[0] / "index", 60)
    item = next(item for item in objects(store) if item.path == exploded(store)[0])
    with store.lock(item.lock):
        (finding,) = checked(store)
        assert not finding.repaired
    assert item.path.exists()


# -- what others have put into a store


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Return a folder that is somebody's own, with names that a store has as well."""
    folder = tmp_path / "victim"
    for name in ("thesis", "data", "index", f"{'0' * 64}", "work-0/layer", "sha256/data", f"gzip-default-131072-3/{'1' * 64}/data"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    for path in folder.rglob("*"):
        os.utime(path, (1_000_000_000,) * 2)
    return folder


def state(folder: Path) -> dict[str, object]:
    """Return all that can be seen of a tree, but for when it was read."""
    found: dict[str, object] = {}
    for path in [folder, *folder.rglob("*")]:
        status = path.lstat()
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_uid, status.st_mtime_ns, status.st_nlink, status.st_size)
    return found


def _link(name: str) -> Callable[[Store, Path], Path]:
    """Put a link to the victim's folder in the place of *name*, * standing for what is there."""

    def plant(store: Store, victim: Path) -> Path:
        path = next(iter(sorted(store.root.glob(name))), store.root / name)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.rename(store.root.parent / "aside")
        path.symlink_to(victim if not name.endswith("/data") else victim / "data")
        os.utime(path, (1_000_000_000,) * 2, follow_symlinks=False)
        return path

    return plant


def _make(name: str, make: Callable[[Path], object]) -> Callable[[Store, Path], Path]:
    def plant(store: Store, victim: Path) -> Path:
        path = store.root / name.replace("*", DEFAULT.variant)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        make(path)
        os.utime(path, (1_000_000_000,) * 2)
        return path

    return plant


def _thesis(path: Path) -> None:
    path.mkdir()
    (path / "thesis").write_text("mine")


HEX = "a" * 64
PLANTED: dict[str, Callable[[Store, Path], Path]] = {
    **{f"link-{name}": _link(name) for name in ("exploded", "exploded/*", "exploded/*/*", "exploded/*/*/data", "blobs", "blobs/sha256")},
    **{f"link-{name}": _link(name) for name in (f"blobs/sha256/{HEX}", "ingest", "ingest/work-0", f"ingest/sha256-{HEX}.partial")},
    **{f"link-{name}": _link(name) for name in ("locks", "locks/one", "leases", "leases/5-1-x", "pace", "pace/nvcr.io", f"blobs/{HEX}")},
    **{f"file-{name}": _make(name, Path.touch) for name in ("exploded/*/stray", "exploded/stray", "blobs/stray", "blobs/sha256/stray")},
    "file-in-a-layer": _make(f"exploded/*/{HEX}/stray", Path.touch),
    "file-in-ingest": _make("ingest/stray", Path.touch),
    "file-that-is-a-layer": _make(f"exploded/*/{HEX}", Path.touch),
    **{f"pipe-{name}": _make(name, os.mkfifo) for name in (f"blobs/sha256/{HEX}", f"exploded/*/{HEX}/index", "ingest/work-0", "locks/x")},
    "pipe-leases": _make("leases/5-1-x", os.mkfifo),
    **{
        f"folder-{name}": _make(name, _thesis)
        for name in (f"blobs/sha256/{HEX}", f"ingest/sha256-{HEX}.partial", "locks/x", "leases/5-1-x")
    },
    "folder-work": _make("ingest/work-0", _thesis),
    "folder-layer": _make(f"exploded/*/{HEX}", _thesis),
    "folder-variant": _make("exploded/thesis", _thesis),
    "folder-index.json": _make("index.json", _thesis),
}


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_none_of_the_store_s_is_told_and_left(store: Store, victim: Path, what: str) -> None:
    path = PLANTED[what](store, victim)
    before, planted = state(victim), path.lstat()
    content = state(path) if path.is_dir() and not path.is_symlink() else None
    for dry_run in (True, False):
        findings = [
            finding for finding in checked(store, dry_run=dry_run) if finding.path in (path, *path.parents) or path in finding.path.parents
        ]
        assert findings and not any(finding.repaired for finding in findings), findings
    with contextlib.suppress(StoreError):  # no lock can be had where a link is in the place of `locks`
        clean(store, unreachable=True, older_than=0, keep=0)
    assert state(victim) == before, "what a link leads to is not touched"
    assert path.lstat().st_ino == planted.st_ino, "and what was put there stays"
    assert content is None or state(path) == content


@pytest.mark.parametrize("how", ["link", "link-to-nothing", "pipe", "huge", "nested"])
def test_an_index_json_that_is_none_is_begun_anew(store: Store, victim: Path, how: str) -> None:
    path = store.root / "index.json"
    path.unlink()
    if how == "huge":
        path.touch()
        os.truncate(path, 1 << 40)
    elif how == "nested":
        path.write_text("[" * 100_000)
    elif how == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(victim / ("data" if how == "link" else "nothing"))
    before = state(victim)
    assert [finding.what for finding in checked(store)] == ["index.json: is no index"]
    store.tag("a/b:1", next(iter(Store(store.root).tags().values()), Descriptor(media_type="m", digest=Digest.of(b""), size=0)))
    assert path.lstat().st_size < 1000 and stat.S_ISREG(path.lstat().st_mode)
    assert state(victim) == before


def test_a_lease_with_a_time_of_many_digits_protects_nothing(store: Store) -> None:
    (store.root / "leases").mkdir()
    (store.root / "leases" / f"{'9' * 240}-1-x").write_text('{"machine": "another", "pid": 1, "start": "1"}')
    age(store, 10)
    clean(store, keep=0)
    assert names(store) == set()


def test_layers_of_an_earlier_format_are_left_to_who_cleans(store: Store) -> None:
    old = store.root / "exploded" / "gzip-default-131072-2"
    exploded(store)[0].parent.rename(old)
    assert checked(store) == []
    removed = clean(store, unreachable=True)
    assert {item.path.parent for item in removed if item.folder} == {old}


# -- clean


def test_what_is_reachable_stays(store: Store) -> None:
    before = names(store)
    removed = clean(store, unreachable=True, dry_run=True)
    assert names(store) == before
    assert {item.name for item in clean(store, unreachable=True)} == {item.name for item in removed}
    assert len(removed) == 4  # a manifest, a config, a layer, and that layer exploded
    assert names(store) == before - {item.name for item in removed}
    assert checked(store) == []
    assert list(store.tags()) == ["h/demo/named:1"]


def test_what_was_not_used_for_long_goes(store: Store) -> None:
    age(store, 10)
    new = next(item for item in objects(store) if item.path.is_dir())
    store.use(new.path)
    assert {item.name for item in clean(store, older_than=20 * 86_400)} == set()
    clean(store, older_than=5 * 86_400)
    assert names(store) == {new.name}
    assert store.tags() == {}
    assert checked(store) == []


def test_a_size_is_kept_by_what_was_used_last(store: Store) -> None:
    for number, item in enumerate(sorted(objects(store), key=lambda item: item.size)):
        os.utime(item.path, (1_000_000 + number,) * 2)
    every = sorted(objects(store), key=lambda item: item.used)
    keep = every[-1].size + every[-2].size
    clean(store, keep=keep)
    assert names(store) == {every[-1].name, every[-2].name}
    clean(store, keep=0)
    assert names(store) == set()


def test_a_running_workflow_loses_nothing_it_used(store: Store) -> None:
    age(store, 10)
    before = objects(store)
    with session(store):
        used = [item for number, item in enumerate(before) if number % 2]
        for item in used:
            assert store.keep(item.lock, item.path)
        clean(store, unreachable=True, older_than=0, keep=0)
        assert names(store) == {item.name for item in used}
    clean(store, keep=0)
    assert names(store) == set()


def test_the_lease_of_a_workflow_that_was_killed_protects_nothing(store: Store) -> None:
    code = """
import os, sys, signal
from pathlib import Path
from sregistry.store.store import Store
from sregistry.store.maintenance import session
with session(Store(Path(sys.argv[1]))):
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code, str(store.root)], check=False).returncode == -9
    assert len(list((store.root / "leases").glob("[0-9]*"))) == 1
    clean(store, keep=0)
    assert names(store) == set()
    assert not list((store.root / "leases").glob("[0-9]*"))


def test_the_lease_of_another_node_counts_until_it_is_silent(store: Store) -> None:
    age(store, 10)
    folder = store.root / "leases"
    folder.mkdir(exist_ok=True)
    far = folder / f"{int((time.time() - 20 * 86_400) * 1e9)}-1-aa"
    far.write_text('{"machine": "another", "pid": 1, "start": "1"}')
    assert clean(store, keep=0) == []
    os.utime(far, (time.time() - 300,) * 2)
    assert clean(store, keep=0)
    assert names(store) == set()


def test_what_is_locked_or_used_meanwhile_stays(store: Store) -> None:
    held = next(iter(objects(store)))
    with store.lock(held.lock):
        clean(store, keep=0)
    assert names(store) == {held.name}


def test_cleaning_waits_for_its_turn(store: Store) -> None:
    with lease(store.folder(store.root / "locks") / "clean"):
        job = subprocess.Popen(
            [sys.executable, "-m", "sregistry.cli", "store", "clean", "--keep", "0", "--cache", str(store.root.parent)],
            stdout=subprocess.PIPE,
        )
        with pytest.raises(subprocess.TimeoutExpired):
            job.wait(0.7)
        assert names(store)
    assert job.communicate()[0]
    assert (job.returncode, names(store)) == (0, set())


# -- sharing


@pytest.mark.parametrize(
    ("root", "file_mode", "folder_mode"), [(0o755, 0o644, 0o755), (0o700, 0o600, 0o700), (0o2770, 0o660, 0o2770), (0o775, 0o664, 0o2775)]
)
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_permissions_are_those_of_the_root(tmp_path: Path, root: int, file_mode: int, folder_mode: int, umask: int) -> None:
    made = Store(tmp_path / "store")
    made.root.mkdir()
    made.root.chmod(root)
    before = os.umask(umask)
    try:
        made.add(b"document")
        made.tag("a/b:1", Descriptor(media_type=MediaType.OCI_MANIFEST, digest=Digest.of(b"document"), size=8))
        with Ingest(made, Digest.of(b"layer"), 5) as sink:
            sink.write(b"layer")
        with made.workspace() as space:
            (space / "layer").mkdir()
            (space / "layer" / "data").write_bytes(b"")
            made.publish(space / "layer", made.exploded("v", Digest.of(b"")))
    finally:
        os.umask(before)
    for path in made.root.rglob("*"):
        # An exploded layer is believed because nobody but its owner may write it.
        mode = file_mode & 0o644 if path.name == "data" else file_mode
        assert stat.S_IMODE(path.stat().st_mode) == (folder_mode if path.is_dir() else mode), path


@pytest.mark.needs("root")
def test_a_user_who_may_not_write_uses_what_is_there(store: Store) -> None:
    for path in [store.root, *store.root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    for above in store.root.parents:
        if above == Path("/tmp"):
            break
        above.chmod(above.stat().st_mode | 0o055)
    code = """
import os, sys
from pathlib import Path
from sregistry.layers.compression import Compression
from sregistry.errors import StoreError
from sregistry.errors import StoreError
from sregistry.layers import verify
from sregistry.layers.explode import explode, explode_tar
from sregistry.oci.documents import Descriptor, Digest
from sregistry.store.store import Store
from sregistry.store.maintenance import session
os.setgroups([]); os.setgid(65534); os.setuid(65534)
store = Store(Path(sys.argv[1]))
folder = next((store.root / "exploded").glob("*/*"))
blob = next(path for path in (store.root / "blobs/sha256").iterdir())
with session(store):
    assert store.has(Digest(f"sha256:{blob.name}")) and store.keep(f"sha256-{blob.name}", blob)
    made = explode(store, Digest(f"sha256:{blob.name}"), Digest(f"sha256:{folder.name}"), Compression(), 1)
    assert made.folder == folder
    store.tag("a/b:1", Descriptor(media_type="m", digest=Digest.of(b""), size=0))
    try:
        store.add(b"new")
    except StoreError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code, str(store.root)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Permission denied; set `cache` to a folder of your own, and `cache_from` to this one" in done.stdout
    assert not (store.root / "locks").exists() or not list((store.root / "locks").iterdir())


def test_copies_of_a_store_are_stores(store: Store, tmp_path: Path) -> None:
    shutil.copytree(store.root, tmp_path / "copy")
    assert names(Store(tmp_path / "copy")) == names(store)


@pytest.mark.needs("root")
def test_a_blob_that_can_t_be_read_is_not_there_and_is_replaced(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from sregistry.oci.documents import Digest
from sregistry.store.store import Store
os.setgroups([]); os.setgid(65534); os.setuid(65534)
store = Store(Path(sys.argv[1]))
digest = store.add(b"document")
store.blob(digest).chmod(0)
assert not store.has(digest)
store.add(b"document")
assert store.read(digest) == b"document"
"""
    folder = Path("/tmp") / f"sregistry-tests-{os.getpid()}-unreadable"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    try:
        done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    finally:
        shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
