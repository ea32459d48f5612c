"""The catalog: one record an image, whoever writes at the same time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sregistry.catalog.catalog import Catalog
from sregistry.catalog.lookup import Lookup
from sregistry.catalog.record import record
from sregistry.config.settings import Settings
from sregistry.errors import CatalogError, InvalidReference
from sregistry.oci.documents import Descriptor, Digest, MediaType, Platform
from sregistry.results.receipts import Image
from sregistry.results.resolved import Document, Layer, Resolved
from tests.support.records import VERSION, made

NOW = datetime(2018, 1, 15, 15, 33, 30, tzinfo=UTC)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "new" / "folder")


def find(catalog: Catalog, text: str) -> str:
    return lookup(catalog).find(text).location


def lookup(catalog: Catalog, **keys: object) -> Lookup:
    """What names mean to a user of nvcr.io, on a machine of amd64, to whom a file `format` is SIF."""
    settings = Settings.load(given={"platform": "linux/amd64", "storage": "/images", **keys}, environ={})
    return Lookup.of(catalog, settings, {})


def test_an_empty_catalog(catalog: Catalog) -> None:
    assert catalog.records() == []
    assert not catalog.path.parent.exists()
    with pytest.raises(CatalogError, match="no such image"):
        find(catalog, "nvidia/caffe2:17.10")


def test_ids(catalog: Catalog) -> None:
    kept = [catalog.add(made(uri))[0] for uri in ("nvidia/a:1", "library/b:1", "nvidia/c:1")]
    assert [(record.id, record.collection_id) for record in kept] == [(1, 1), (2, 2), (3, 1)]
    assert catalog.records() == kept


def test_the_same_image_again_keeps_its_id(catalog: Catalog) -> None:
    first, new = catalog.add(made())
    assert new
    again, new = catalog.add(made(created_at="2019-01-01 00:00:00"))
    assert (again, new) == (first, False)  # the same build: the same record
    other, new = catalog.add(made(version="0" * 64, created_at="2019-01-01 00:00:00"))
    assert (other.id, other.created_at, new) == (first.id, "2019-01-01 00:00:00", False)
    assert catalog.records() == [other]


def test_an_image_that_takes_the_place_of_another(catalog: Catalog) -> None:
    catalog.add(made())
    kept, new = catalog.add(made("docker/other:1", image=made().image, version="0" * 64))
    assert new
    assert catalog.records() == [kept]


def test_one_uri_in_two_files_or_registries(catalog: Catalog) -> None:
    catalog.add(made())
    catalog.add(made(image="/images/other.sif", created_at="2018-01-16 00:00:00"))
    catalog.add(made(client="oci", registry="127.0.0.1:5000", image="/images/third.sif", created_at="2017-01-16 00:00:00"))
    assert len(catalog.records()) == 3
    assert find(catalog, "nvidia/tensorflow:17.11") == "/images/other.sif"  # the newest
    assert find(catalog, "127.0.0.1:5000/nvidia/tensorflow:17.11") == "/images/third.sif"
    assert find(catalog, "oci://nvidia/tensorflow:17.11") == "/images/third.sif"


def test_a_remote_record(catalog: Catalog) -> None:
    catalog.add(made("nvidia/caffe2:17.10", image=None, version=""))
    catalog.add(made("nvidia/other:17.10", image=None, version=""))
    assert find(catalog, "caffe2:17.10") == "https://nvcr.io/v2/nvidia/caffe2/manifests/17.10"


@pytest.mark.parametrize(
    "text",
    [
        "nvidia/tensorflow:17.11",
        "tensorflow:17.11",
        "nvidia://tensorflow:17.11",
        "nvcr.io/nvidia/tensorflow:17.11",
        f"nvidia/tensorflow:17.11@{VERSION}",
        f"tensorflow:17.11@{VERSION}",
        f"tensorflow:17.11@{VERSION[:32]}",
        f"nvidia/tensorflow@{Digest.of(b'nvidia/tensorflow:17.11')}",
    ],
)
def test_what_pull_accepts_is_found(catalog: Catalog, text: str) -> None:
    catalog.add(made())
    catalog.add(made("nvidia/tensorflow:latest"))
    assert find(catalog, text) == "/images/nvidia-tensorflow:17.11.sif"


@pytest.mark.parametrize("text", ["tensorflow", "nvidia/tensorflow:17.12", f"tensorflow:17.11@{'0' * 32}", "docker://tensorflow:17.11"])
def test_what_is_not_there_is_not_found(catalog: Catalog, text: str) -> None:
    catalog.add(made())
    with pytest.raises(CatalogError, match="no such image"):
        find(catalog, text)


def test_what_is_no_name(catalog: Catalog) -> None:
    with pytest.raises(InvalidReference):
        find(catalog, "UPPER/case:1")


def test_a_digest_reference_as_images_prints_it(catalog: Catalog) -> None:
    digest = Digest.of(b"x")
    kept, _ = catalog.add(replace(made(), uri=f"nvidia/tensorflow@{digest}", tag=None, digest=str(digest)))
    assert find(catalog, kept.label) == find(catalog, kept.uri) == kept.image


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"images": 1}', '{"images": {"x": {}}}', '{"images": {"1": 2}}', "\0", '{"images": {"1": {}}}']
)
def test_damaged(catalog: Catalog, text: str) -> None:
    catalog.path.parent.mkdir(parents=True)
    catalog.path.write_text(text)
    with pytest.raises(CatalogError, match="catalog") as caught:
        catalog.records()
    assert "\n" not in str(caught.value)
    assert catalog.path.read_text() == text


def test_an_empty_file_is_an_empty_catalog(catalog: Catalog) -> None:
    catalog.path.parent.mkdir(parents=True)
    catalog.path.write_text("")
    assert catalog.records() == []
    assert catalog.add(made())[1]


def test_a_folder_that_can_not_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CatalogError, match="can't write the catalog"):
        Catalog(tmp_path / "file" / "x").add(made())


def test_many_at_once(catalog: Catalog) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.support.records import made; from sregistry.catalog.catalog import Catalog\n"
        "for n in range(5): Catalog(Path(sys.argv[1])).add(made(f'nvidia/i{sys.argv[2]}:{n}'))"
    )
    jobs = [subprocess.Popen([sys.executable, "-c", code, str(catalog.path.parent), str(n)]) for n in range(4)]
    assert [job.wait() for job in jobs] == [0] * 4
    assert sorted(record.id for record in catalog.records()) == list(range(1, 21))
    assert len({record.uri for record in catalog.records()}) == 20


def test_the_file(catalog: Catalog) -> None:
    catalog.add(made())
    document = json.loads(catalog.path.read_bytes())["images"]["1"]
    assert document["uri"] == "nvidia/tensorflow:17.11"
    catalog.add(made(metrics={"2": {"layers": []}}))
    assert {path.name for path in catalog.path.parent.iterdir()} == {"sregistry.json", "sregistry.json.backup", "manifests"}
    assert "layers" not in catalog.path.read_text()


def manifests(catalog: Catalog) -> set[str]:
    return {path.name for path in (catalog.path.parent / "manifests").iterdir()}


def test_manifests(catalog: Catalog) -> None:
    """They are by reference, shared, and there for as long as the database or its backup names them."""
    one, other = {"2": {"layers": ["one"]}}, {"2": {"layers": ["other"]}}
    first = catalog.add(made("nvidia/a:1", metrics=one))[0]
    second = catalog.add(made("nvidia/b:1", metrics=one))[0]
    assert (first.metrics, first.manifests, catalog.metrics(first)) == ({}, second.manifests, one)
    catalog.remove(first)
    assert catalog.metrics(second) == one
    third = catalog.add(made("nvidia/b:1", metrics=other))[0]
    assert len(manifests(catalog)) == 2, "the backup names the first"
    catalog.path.with_name("sregistry.json.backup").replace(catalog.path)
    assert [catalog.metrics(record) for record in catalog.records()] == [one]
    catalog.add(made("nvidia/b:1", metrics=other))
    catalog.add(made("nvidia/c:1", metrics={"2": {}}))
    catalog.remove(lookup(catalog).find("nvidia/c:1"))
    assert f"{first.manifests}.json" not in manifests(catalog)
    assert catalog.metrics(third) == other


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text("{}")], ids=["gone", "other"])
def test_damaged_manifests(catalog: Catalog, damage: Callable[[Path], object]) -> None:
    record = catalog.add(made(metrics={"2": {"layers": []}}))[0]
    damage(catalog.path.parent / "manifests" / f"{record.manifests}.json")
    assert catalog.records() == [record]
    with pytest.raises(CatalogError, match=r"manifests of the catalog: .*; pull the image again"):
        catalog.metrics(record)


def test_a_catalog_of_an_earlier_version(catalog: Catalog) -> None:
    """Its records hold their manifests; the next change keeps those beside."""
    old = {str(n): {**made(f"nvidia/i{n}:1").json(), "id": n, "metrics": {"2": {"n": n}}} for n in (1, 2)}
    for document in old.values():
        del document["manifests"]
    catalog.path.parent.mkdir(parents=True)
    catalog.path.write_text(json.dumps({"images": old}))
    assert [catalog.metrics(record) for record in catalog.records()] == [{"2": {"n": 1}}, {"2": {"n": 2}}]
    catalog.add(made("nvidia/new:1"))
    records = catalog.records()
    assert [catalog.metrics(record) for record in records] == [{"2": {"n": 1}}, {"2": {"n": 2}}, {}]
    assert [record.metrics for record in records] == [{}] * 3
    assert len(manifests(catalog)) == 2


def test_tags_of_one_file(catalog: Catalog) -> None:
    first, _ = catalog.add(made("nvidia/a:1", image="/one.sif"))
    tag, new = catalog.add(made("nvidia/a:stable", image="/one.sif"))
    assert (new, catalog.records()) == (True, [first, tag])
    moved = catalog.replace(replace(tag, image="/two.sif"))
    assert [record.image for record in catalog.records()] == ["/two.sif", "/two.sif"]
    kept, _ = catalog.add(replace(moved, uri="nvidia/a:2", tag="2", version="0" * 64))
    assert catalog.records() == [kept], "another file has its place"


@pytest.mark.slow("scale", once=True)
def test_many_in_one_change(catalog: Catalog) -> None:
    records = [made(f"nvidia/i{n}:1", metrics={"2": {"n": n}}) for n in range(1500)]
    kept = catalog.add_all(records)
    assert [record.id for record, _ in kept] == list(range(1, 1501))
    assert catalog.add_all([]) == []
    assert len(catalog.records()) == len(manifests(catalog)) == 1500


def test_a_disk_that_fills(catalog: Catalog, tmp_path: Path) -> None:
    """A file of the size that is left; with a quota or a full disk the same call fails."""
    kept, _ = catalog.add(made(metrics={"2": {}}))
    before = catalog.path.read_bytes()
    code = (
        "import resource, signal, sys; from pathlib import Path; from tests.support.records import made\n"
        "from sregistry.catalog.catalog import Catalog; from sregistry.errors import CatalogError, report\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))\n"
        "try: Catalog(Path(sys.argv[1])).add(made('nvidia/big:1', metrics={'2': {'n': 'x' * int(sys.argv[2])}}))\n"
        "except CatalogError as error: sys.exit(report(error))"
    )
    for size in ("5000", "1"):  # the manifests, the database
        done = subprocess.run([sys.executable, "-c", code, str(catalog.path.parent), size], check=False, capture_output=True, text=True)
        assert done.returncode == 1 and re.fullmatch("error: can't write the catalog.*: File too large\n", done.stderr), done.stderr
        assert catalog.path.read_bytes() == before
    assert catalog.records() == [kept]
    assert [path.name for path in catalog.path.parent.iterdir() if path.name.startswith(".")] == []


@pytest.mark.slow("many kills", once=True)
def test_writers_that_are_killed(catalog: Catalog) -> None:
    """Whenever a writer dies: the file is whole, what it said to have added is there, and so are all manifests."""
    code = (
        "import sys; from pathlib import Path; from tests.support.records import made; from sregistry.catalog.catalog import Catalog\n"
        "for n in range(1000):\n"
        "  record = made(f'nvidia/i{sys.argv[2]}:{n % 7}', metrics={'2': {'n': sys.argv[2], 'm': n}})\n"
        "  print(Catalog(Path(sys.argv[1])).add(record)[0].uri, flush=True)"
    )
    command = [sys.executable, "-c", code, str(catalog.path.parent)]
    said: set[str] = set()
    for round in range(4):
        jobs = [subprocess.Popen([*command, f"{round}-{n}"], stdout=subprocess.PIPE, text=True) for n in range(2)]
        firsts = [job.stdout.readline() for job in jobs if job.stdout]
        for job in jobs:
            job.kill()
        said |= {line for job, first in zip(jobs, firsts, strict=True) for line in (first + job.communicate()[0]).splitlines(keepends=True)}
        records = catalog.records()
        assert {f"{record.uri}\n" for record in records} >= {line for line in said if line.endswith("\n")}
        assert all(catalog.metrics(record)["2"] for record in records)
    assert len(said) >= 8
    catalog.add(made())
    assert len({record.id for record in catalog.records()}) == len(catalog.records())


IMAGE = Image(path="/i.sif", format="sif", size=7, version=VERSION, architecture="amd64", manifest="", holds=())


def test_the_record_of_an_old_image() -> None:
    text = '{"schemaVersion": 1}'
    descriptor = Descriptor(media_type=MediaType.SCHEMA1, digest=Digest.of(text.encode()), size=len(text))
    sizes = [Descriptor(media_type=MediaType.DOCKER_LAYER, digest=Digest.of(b""), size=size) for size in (7, None)]
    resolved = Resolved(
        uri="x",
        client="x",
        registry="x",
        tag="x",
        repository="a/b",
        url="https://h/v2/a/b/manifests/1",
        digest=descriptor.digest,
        size=len(text),
        platform=Platform(architecture="amd64"),
        config=None,
        layers=tuple(Layer(blob=blob, diff_id=None) for blob in sizes),
        documents=(Document(descriptor=descriptor, text=text),),
        image_config="{}",
    )
    kept = record(resolved, IMAGE, now=NOW)
    assert kept.compressed_size == 0, "not known"
    assert list(kept.metrics) == ["selfLink", "1"]


def test_a_record_of_an_image() -> None:
    index, manifest = '{"schemaVersion": 2, "manifests": []}', '{"schemaVersion": 2, "layers": []}'

    def document(text: str) -> Document:
        return Document(descriptor=Descriptor(media_type=MediaType.OCI_INDEX, digest=Digest.of(text.encode()), size=len(text)), text=text)

    resolved = Resolved(
        uri="nvidia/k8s/caffe2:17.10",
        client="nvidia",
        registry="nvcr.io",
        repository="nvidia/k8s/caffe2",
        tag="17.10",
        url="https://nvcr.io/v2/nvidia/k8s/caffe2/manifests/17.10",
        digest=Digest.of(manifest.encode()),
        size=len(manifest),
        platform=Platform(architecture="amd64"),
        config=document("{}").descriptor,
        layers=(),
        documents=(document(index), document(manifest)),
        image_config="{}",
    )
    kept = record(resolved, IMAGE, now=NOW)
    assert (kept.collection, kept.name, kept.created_at) == ("nvidia", "k8s/caffe2", "2018-01-15 15:33:30")
    assert (kept.size, kept.compressed_size, kept.digest, kept.version) == (7, 0, str(resolved.digest), VERSION)
    folder = "https://nvcr.io/v2/nvidia/k8s/caffe2/manifests"
    assert kept.metrics == {
        "2": {"schemaVersion": 2, "layers": [], "selfLink": f"{folder}/{resolved.digest}"},
        "index": {"schemaVersion": 2, "manifests": [], "selfLink": f"{folder}/17.10"},
        "selfLink": folder,
    }


def test_a_backup_that_a_killed_process_left_stops_nobody(catalog: Catalog) -> None:
    catalog.add(made("demo/one:1"))
    folder = catalog.path.parent
    for name in (f".sregistry.json.{os.getpid()}", ".sregistry.json.0123456789abcdef", ".sregistry.json.x_7y8z9a"):
        (folder / name).write_text("{")
        os.utime(folder / name, (1, 1))
    (folder / ".sregistry.json.lock.0123456789abcdef").write_text('{"machine": "another", "pid": 1, "start": "1"}')
    os.utime(folder / ".sregistry.json.lock.0123456789abcdef", (1, 1))
    (folder / ".sregistry.json.of-mine").write_text("mine")
    catalog.add(made("demo/two:1"))
    assert len(catalog.records()) == 2
    left = {path.name for path in folder.iterdir()}
    assert left - {"manifests"} == {"sregistry.json", "sregistry.json.backup", ".sregistry.json.of-mine"}


def test_a_new_state_that_is_being_written_is_left(catalog: Catalog) -> None:
    catalog.add(made("demo/one:1"))
    young = catalog.path.with_name(".sregistry.json.0123456789abcdef")
    young.write_text("{")
    catalog.add(made("demo/two:1"))
    assert young.exists()


@pytest.mark.parametrize("what", ["link", "pipe", "folder", "nested"])
def test_a_database_that_is_no_file_is_one_clear_line(catalog: Catalog, tmp_path: Path, what: str) -> None:
    catalog.add(made("demo/one:1"))
    catalog.path.rename(tmp_path / "victim")
    if what == "link":
        catalog.path.symlink_to(tmp_path / "victim")
    elif what == "pipe":
        os.mkfifo(catalog.path)
    elif what == "nested":
        catalog.path.write_text("[" * 100_000)
    else:
        catalog.path.mkdir()
    for action in (catalog.records, lambda: catalog.add(made("demo/two:1"))):
        with pytest.raises(CatalogError, match=f"the catalog:? {catalog.path} is "):
            action()


def test_manifests_behind_a_link_are_left(catalog: Catalog, tmp_path: Path) -> None:
    """Whoever puts a link in the place of the folder would have them removed: another user's, or other files."""
    (tmp_path / "victim").mkdir()
    theirs = tmp_path / "victim" / f"{'0' * 64}.json"
    theirs.write_text("mine")
    one = catalog.add(made("demo/one:1", metrics={"2": {"a": 1}}))[0]
    folder = catalog.path.parent / "manifests"
    folder.rename(tmp_path / "aside")
    folder.symlink_to(tmp_path / "victim")
    with pytest.raises(CatalogError, match="is a link, and none is followed"):
        catalog.metrics(one)
    with pytest.raises(CatalogError, match="is a link, and none is followed"):
        catalog.add(made("demo/two:1", metrics={"2": {"a": 2}}))
    assert [path.read_text() for path in (tmp_path / "victim").iterdir()] == ["mine"]


def test_only_manifests_of_the_catalog_are_swept(catalog: Catalog) -> None:
    folder = catalog.path.parent / "manifests"
    for number in range(4):
        catalog.add(made("demo/one:1", metrics={"2": {"a": number}}))
        (folder / "mine.json").write_text("mine")
        with contextlib.suppress(FileExistsError):
            (folder / f"{'0' * 64}.json").symlink_to(folder / "mine.json")
    assert (folder / "mine.json").read_text() == "mine" and (folder / f"{'0' * 64}.json").is_symlink()
