"""`sregistry import`: the original's database, and image files in a folder; nothing of them changes."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sregistry import get_client
from sregistry.catalog.imports import original_database
from sregistry.catalog.imports.records import Skipped
from sregistry.catalog.record import Record
from sregistry.cli.__main__ import main
from sregistry.client import Client
from tests.support import tarball
from tests.support.engine import build

SCHEMA = """
CREATE TABLE collection (id INTEGER NOT NULL PRIMARY KEY, name VARCHAR(50), token VARCHAR(50), created_at DATETIME);
CREATE TABLE container (id INTEGER NOT NULL PRIMARY KEY, created_at DATETIME, metrics TEXT, name VARCHAR(250), tag VARCHAR(250),
  image VARCHAR(250), url VARCHAR(250), uri VARCHAR(250), client VARCHAR(50), version VARCHAR(250), collection_id INTEGER);
"""
TOKEN = "a-token-of-the-collection"
VERSION = "16765f12b73ec77235726fa9e47e808c"
HISTORY = json.dumps({"config": {"Env": ["CUDA_VERSION=9.0.176"], "Labels": {"maintainer": "NVIDIA"}}})
#: The record that the seed's page shows.
CAFFE2 = {
    "id": 16,
    "created_at": "2018-01-15 15:33:30",
    "metrics": json.dumps(
        {
            "1": {"architecture": "amd64", "fsLayers": [{"blobSum": "sha256:a3"}], "history": [{"v1Compatibility": HISTORY}]},
            "2": {"layers": [{"digest": "sha256:b4", "size": 7}, {"digest": "sha256:c5", "size": 5}]},
            "selfLink": "https://nvcr.io/v2/nvidia/caffe2/manifests/17.10",
        }
    ),
    "name": "caffe2",
    "tag": "17.10",
    "url": "https://nvcr.io/v2/nvidia/caffe2/manifests/17.10",
    "uri": "nvidia/caffe2:17.10",
    "client": "nvidia",
    "version": None,
    "image": None,
    "collection_id": 6,
}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SREGISTRY_CLIENT", raising=False)
    monkeypatch.chdir(tmp_path)
    return get_client()


def database(folder: Path, *rows: dict[str, Any]) -> Path:
    file = folder / "sregistry.db"
    with closing(sqlite3.connect(file)) as it:
        it.executescript(SCHEMA)
        it.execute("INSERT INTO collection VALUES (6, 'nvidia', ?, '2018-01-01 00:00:00')", [TOKEN])
        for row in rows:
            it.execute(f"INSERT INTO container ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", [*row.values()])
        it.commit()
    return file


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_the_database_of_the_seed(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "tensorflow.simg"
    image.write_bytes(b"hsqs" + bytes(92))
    local = {
        **CAFFE2,
        "id": 17,
        "name": "tensorflow",
        "tag": "17.11",
        "image": str(image),
        "version": VERSION,
        "created_at": "2018-01-15 16:00:00.5",
    }
    file = database(tmp_path, CAFFE2, local)
    before = everything(tmp_path)
    assert main(["import", file.name]) == 0
    out, err = capsys.readouterr()
    assert out == f"[import] nvidia/caffe2:17.10 {CAFFE2['url']}\n[import] nvidia/tensorflow:17.11@{VERSION} {image}\n"
    assert err.splitlines()[-1] == "2 recorded, 0 on record already, 0 skipped"
    assert {path: before[path] for path in before} == {path: kept for path, kept in everything(tmp_path).items() if path in before}
    assert TOKEN not in "".join(path.read_text() for path in client.catalog.path.parent.rglob("*.json"))

    found = client.find("caffe2:17.10").inspect()
    assert {key: found[key] for key in ("client", "collection", "image", "name", "tag", "uri", "url", "version")} == {
        "client": "nvidia",
        "collection": "nvidia",
        "image": None,
        "name": "caffe2",
        "tag": "17.10",
        "uri": "nvidia/caffe2:17.10",
        "url": CAFFE2["url"],
        "version": "",
    }
    assert found["metrics"] == json.loads(str(CAFFE2["metrics"]))
    assert (found["created_at"], found["compressed_size"]) == ("2018-01-15 15:33:30", 12)
    assert [container.uri for container in client.images(where="cuda=9.0.176 and architecture=amd64")] == [
        "nvidia/caffe2:17.10",
        "nvidia/tensorflow:17.11",
    ]
    assert client.get("tensorflow:17.11").location == str(image)

    kept = client.catalog.path.read_bytes()
    assert main(["import", file.name]) == 0
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[-1]) == ("", "0 recorded, 2 on record already, 0 skipped")
    assert client.catalog.path.read_bytes() == kept


def test_dry_run(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", str(database(tmp_path, CAFFE2)), "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert (out.count("[import]"), err.splitlines()[-1]) == (1, "1 would be recorded, 0 on record already, 0 skipped")
    assert not client.catalog.path.exists()


def test_what_a_program_has_not_finished(client: Client, tmp_path: Path) -> None:
    """A write-ahead log beside the database belongs to it; neither changes, and no -shm appears."""
    file = database(tmp_path)
    with closing(sqlite3.connect(file)) as it:
        it.execute("PRAGMA journal_mode=WAL")
        it.execute(f"INSERT INTO container ({', '.join(CAFFE2)}) VALUES ({', '.join('?' * len(CAFFE2))})", [*CAFFE2.values()])
        it.commit()
        folder = tmp_path / "copied"
        folder.mkdir()
        for ending in ("", "-wal"):
            (folder / f"x.db{ending}").write_bytes(Path(f"{file}{ending}").read_bytes())
    before = everything(folder)
    assert [record.uri for record in client.import_(folder / "x.db").new] == ["nvidia/caffe2:17.10"]
    assert everything(folder) == before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"collection_id": 7}, "container 16 (caffe2): its collection 7 is not there"),
        ({"name": None}, "container 16: it has no name"),
        ({"name": "Caffe 2"}, "container 16 (Caffe 2): 'nvidia/Caffe 2:17.10': 'nvidia/Caffe 2' is no repository name"),
        ({"tag": "a b"}, "container 16 (caffe2): 'nvidia/caffe2:a b': 'a b' is no tag"),
        ({"metrics": "{'1': 2}"}, "container 16 (caffe2): its metrics are no JSON"),
        ({"metrics": '{"1": NaN}'}, "container 16 (caffe2): its metrics: 1: expected a number, got 'NaN'"),
        (
            {"metrics": '{"1": ' + "[" * 900 + "]" * 900 + "}"},
            "container 16 (caffe2): its metrics: nested deeper than the limit JSON_DEPTH of 100",
        ),
        ({"metrics": "[1]"}, "container 16 (caffe2): its metrics: expected an object, got '[1]'"),
        ({"image": "/none/there.simg"}, "container 16 (caffe2): its image /none/there.simg is gone"),
        ({"image": "/" + "a" * 300}, "container 16 (caffe2): its image can't be read: File name too long"),
        ({"image": "/dev/null"}, "container 16 (caffe2): its image /dev/null is neither a file nor a sandbox"),
        ({"image": "there.simg"}, "container 16 (caffe2): its image is at 'there.simg', which is no whole path"),
        ({"image": __file__}, f"container 16 (caffe2): {__file__} is no image: "),
        ({"url": "https://[v2"}, "container 16 (caffe2): its url https://[v2 is no address"),
        ({"url": None}, "container 16 (caffe2): it has neither an image nor an address"),
        ({"created_at": "today"}, "container 16 (caffe2): its created_at is 'today', which is no time"),
        ({"url": b"\xff\xfe"}, "container 16 (caffe2): its url is no text"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, dict) else "",
)
def test_a_bad_row(change: dict[str, Any], why: str, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = {**CAFFE2, "id": 3, "name": "good"}
    assert main(["import", str(database(tmp_path, good, {**CAFFE2, **change}))]) == 1
    out, err = capsys.readouterr()
    *_, skipped, last = err.splitlines()
    assert skipped.startswith(f"skipped: {why}")
    assert last == "1 recorded, 0 on record already, 1 skipped"
    assert out.startswith("[import] nvidia/good:17.10")


def drop(file: Path) -> None:
    with closing(sqlite3.connect(file)) as it:
        it.execute("DROP TABLE container")


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("damage", "code", "says"),
    [
        (drop, 2, "is no database of sregistry: it has no table container"),
        (lambda file: file.write_text("{}"), 2, "is no SQLite database; name the original's sregistry.db, or a folder of images"),
        (cut, 1, "can't read .*: database disk image is malformed"),
        (Path.unlink, 1, "can't read .*: No such file or directory"),
    ],
    ids=["table", "json", "cut", "gone"],
)
def test_no_database(
    damage: Callable[[Path], object], code: int, says: str, client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = database(tmp_path, CAFFE2)
    damage(file)
    assert main(["import", str(file)]) == code
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ")
    assert re.search(says, line)
    assert not client.catalog.path.exists()


VALUES = st.one_of(
    st.none(), st.text(max_size=20), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=9), st.floats(), st.just("[" * 9000)
)


@given(row=st.fixed_dictionaries({name: st.one_of(st.just(value), VALUES) for name, value in CAFFE2.items() if name != "id"}))
def test_any_row_is_a_record_or_told(row: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    (found,) = original_database.read(database(tmp_path_factory.mktemp("any"), {"id": 1, **row}))
    if isinstance(found, Skipped):
        assert str(found).startswith("container 1")
        assert str(found).isprintable()
    else:
        assert Record.parse(json.loads(json.dumps(found.json()))) == found


# -- a folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "images"
    path.mkdir()
    return path


def simg(path: Path) -> Path:
    path.write_bytes(b"hsqs" + bytes(92) + path.name.encode())
    return path


def sif(path: Path, deffile: str) -> Path:
    build(path.parent / f".{path.name}.layers", path, [[tarball.file(b"f", b"x")]], format="sif", deffile=deffile.encode())
    return path


@pytest.mark.parametrize(
    ("deffile", "uri", "client_of"),
    [
        ("bootstrap: docker\nfrom: nvcr.io/nvidia/caffe2:17.10\n\n", "nvidia/caffe2:17.10", "nvidia"),
        ("bootstrap: docker\nfrom: ubuntu:22.04\n\n", "library/ubuntu:22.04", "docker"),
        ("Bootstrap: docker\nFrom: quay.io/org/tool:1--0\n", "org/tool:1--0", "quay"),
        ("bootstrap: docker\nfrom: ubuntu:22.04\n%post\napt-get update\n", None, None),
        ("bootstrap: library\nfrom: alpine\n", None, None),
        ("", None, None),
    ],
)
def test_the_definition(client: Client, folder: Path, deffile: str, uri: str | None, client_of: str | None) -> None:
    file = sif(folder / "whatever.sif", deffile)
    done = client.import_(folder)
    assert [(record.uri, record.client, record.image) for record in done.new] == ([(uri, client_of, str(file))] if uri else [])
    if uri is None:
        (skipped,) = done.skipped
        assert str(skipped) == f"{file}: nothing says what image it is; name a --collection, or `sregistry add --name` it"
        assert [record.uri for record in client.import_(folder, collection="lab").new] == ["lab/whatever:latest"]
        return
    found = client.get(uri if client_of == "nvidia" else f"{client_of}://{uri}")
    assert (found.version, found.size) == (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_size)
    assert (found.format, found.platform, client.check(deep=True)) == ("sif", "linux/amd64", [])


@pytest.mark.parametrize(
    ("name", "collection", "uri"),
    [
        ("nvidia-caffe2:17.10.simg", None, "nvidia/caffe2:17.10"),
        ("nvidia-k8s-cuda-sample:nbody.sif", None, "nvidia/k8s-cuda-sample:nbody"),
        ("nvidia+caffe2+17.10.sqsh", None, "nvidia/caffe2:17.10"),
        ("nvcr.io+nvidia+caffe2+17.10.sqsh", None, "nvidia/caffe2:17.10"),
        ("caffe2_17.10.simg", None, None),
        ("caffe2_17.10.simg", "lab", "lab/caffe2:17.10"),
        ("My_Tool_v2.img", "lab", "lab/my_tool:v2"),
        ("docker.io-library-busybox-1.36.img", None, None),
        ("a b.sif", "lab", None),
    ],
)
def test_the_name(client: Client, folder: Path, name: str, collection: str | None, uri: str | None) -> None:
    simg(folder / name)
    done = client.import_(folder, collection=collection)
    assert [record.uri for record in done.new] == ([uri] if uri else [])
    assert len(done.skipped) == (uri is None)


def test_a_folder(client: Client, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = simg(folder / "nvidia-good:1.simg")
    (folder / "deep" / "er").mkdir(parents=True)
    deep = simg(folder / "deep" / "er" / "nvidia-deep:1.simg")
    (folder / "deep" / "box" / ".singularity.d").mkdir(parents=True)
    simg(folder / "deep" / "box" / "nvidia-inner:1.simg")
    (folder / ".hidden").mkdir()
    simg(folder / ".hidden" / "nvidia-hidden:1.simg")
    (folder / "nvidia-link:1.simg").symlink_to(good)
    (folder / "README").write_text("no image")
    (folder / "nvidia-text:1.sif").write_text("no image")
    whole = sif(folder / "nvidia-half:1.sif", "")
    whole.write_bytes(whole.read_bytes()[:-4096])
    (folder / "nvidia-cut:1.simg").write_bytes(b"hsqs" + bytes(36) + (5000).to_bytes(8, "little") + bytes(900))
    before = everything(folder)
    assert main(["import", "images"]) == 1
    out, err = capsys.readouterr()
    assert sorted(line.split()[2] for line in out.splitlines()) == sorted([str(good), str(deep)])
    lines = err.splitlines()
    skipped = sorted(line for line in lines if line.startswith("skipped: "))
    assert skipped[0] == f"skipped: {folder}/nvidia-cut:1.simg: is cut: it has 948 of 5000 bytes"
    assert skipped[1].startswith(f"skipped: {folder}/nvidia-half:1.sif: is no image: ")
    assert skipped[2].startswith(f"skipped: {folder}/nvidia-text:1.sif: is no image: ")
    assert any(re.fullmatch(rf"\[\d/5\] reading {re.escape(str(good))}", line) for line in lines)
    assert lines[-1] == "2 recorded, 0 on record already, 3 skipped"
    assert everything(folder) == before

    client.tag("nvidia/good:1", "nvidia/good:stable")
    assert main(["import", "images"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[-1]) == ("", "0 recorded, 3 on record already, 3 skipped")
    assert f"reading {good}" not in err, "what is on record is not read again"


def test_a_file_that_the_database_names_too(client: Client, folder: Path, tmp_path: Path) -> None:
    file = simg(folder / "nvidia-good:1.simg")
    client.import_(folder)
    done = client.import_(database(tmp_path, {**CAFFE2, "image": str(file)}))
    assert [str(skipped) for skipped in done.skipped] == [f"{file}: is on record as nvidia/good:1; `sregistry tag` gives it more names"]


@pytest.mark.parametrize("arguments", [["images", "--collection", "Lab!"], []], ids=["collection", "none"])
def test_bad_usage(client: Client, folder: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        assert main(["import", *arguments]) == 2
    except SystemExit as end:
        assert end.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(("error: --collection 'Lab!'", "sregistry import: error:"))
