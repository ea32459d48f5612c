"""The command `sregistry`, as a user runs it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from sregistry import __version__
from sregistry.catalog.catalog import Catalog
from sregistry.cli.__main__ import main
from tests.support.images import Layout, layer
from tests.support.records import VERSION, made
from tests.support.tarball import file

REMOTE = "https://nvcr.io/v2/nvidia/caffe2/manifests/17.10"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A catalog with a local and a remote record, the current one."""
    image = tmp_path / "nvidia-tensorflow:17.11.sif"
    image.write_bytes(b"image")
    catalog = Catalog(tmp_path / "database")
    catalog.add(made(image=str(image)))
    catalog.add(made("nvidia/caffe2:17.10", image=None, version="", created_at="2018-01-14 23:00:00"))
    monkeypatch.setenv("SREGISTRY_DATABASE", str(catalog.path.parent))
    monkeypatch.delenv("SREGISTRY_CLIENT", raising=False)
    monkeypatch.chdir(tmp_path)
    return catalog.path.parent


def test_images(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["images"]) == 0
    out, err = capsys.readouterr()
    assert err == f"[client|nvidia] [database|{database}/sregistry.json]\n"
    assert out.splitlines() == [
        "Containers:   [date]    [client]\t[uri]",
        "1  January 14, 2018\t[nvidia]\tnvidia/caffe2:17.10",
        f"2  January 15, 2018\t[nvidia]\tnvidia/tensorflow:17.11@{VERSION}",
    ]


@pytest.mark.parametrize(
    ("query", "found"), [(["caffe"], 1), (["NVIDIA"], 2), (["nvidia", "17.11"], 1), (["nvidia://"], 2), (["docker"], 0)]
)
def test_images_by_words(database: Path, capsys: pytest.CaptureFixture[str], query: list[str], found: int) -> None:
    assert main(["images", *query, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == found


def test_no_images(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["images", "nothing"]) == 0
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[1]) == ("", "No image matches.")
    (database / "sregistry.json").unlink()
    assert main(["images"]) == 0
    assert capsys.readouterr().err.splitlines()[1] == "No images yet."
    assert main(["images", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize("uri", ["nvidia/tensorflow:17.11", "tensorflow:17.11", f"nvidia/tensorflow:17.11@{VERSION}"])
def test_get_a_local_image(database: Path, capsys: pytest.CaptureFixture[str], uri: str) -> None:
    assert main(["get", uri]) == 0
    assert capsys.readouterr().out == f"{database.parent}/nvidia-tensorflow:17.11.sif\n"


def test_get_a_remote_image(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["get", "nvidia/caffe2:17.10"]) == 0
    assert capsys.readouterr().out == f"{REMOTE}\n"


def test_get_an_image_that_is_gone(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (database.parent / "nvidia-tensorflow:17.11.sif").unlink()
    assert main(["get", "nvidia/tensorflow:17.11"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "is gone; pull it again" in err


def test_inspect(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "nvidia/caffe2:17.10"]) == 0
    uri, place, document = capsys.readouterr().out.split("\n", 2)
    assert (uri, place) == ("nvidia/caffe2:17.10", REMOTE)
    record = json.loads(document)
    assert document.rstrip("\n") == json.dumps(record, indent=4, sort_keys=True)
    wanted = {"client", "collection", "collection_id", "created_at", "id", "image", "metrics", "name", "tag", "uri", "url", "version"}
    assert wanted <= set(record)
    assert (record["id"], record["image"], record["created_at"]) == (2, None, "2018-01-14 23:00:00")


@pytest.mark.parametrize("command", ["get", "inspect"])
@pytest.mark.parametrize(("uri", "code"), [("nvidia/none:1", 1), ("UPPER/case", 2), ("caffe2:17.10@zzz", 2)])
def test_unknown(database: Path, capsys: pytest.CaptureFixture[str], command: str, uri: str, code: int) -> None:
    assert main([command, uri]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"\[client\|nvidia] .*\nerror: .*\n", err)


def test_bad_settings(database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SREGISTRY_CLIENT", "hub")
    assert main(["images"]) == 2
    assert capsys.readouterr().err == "error: SREGISTRY_CLIENT: 'hub' is unknown; one of nvidia, docker, quay, ghcr, oci, oras\n"


def test_the_file_of_the_current_folder(database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (database.parent / "config").mkdir()
    (database.parent / "config/config.yaml").write_text("client: docker\ndatabase: /none\n")
    assert main(["images"]) == 0
    assert capsys.readouterr().err == f"[client|docker] [database|{database}/sregistry.json]\n"
    monkeypatch.delenv("SREGISTRY_DATABASE")
    assert main(["images"]) == 0
    assert capsys.readouterr().err.startswith("[client|docker] [database|/none/sregistry.json]\n")


def test_a_damaged_catalog(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (database / "sregistry.json").write_text("{")
    assert main(["images"]) == 1
    assert re.search(r"^error: the catalog .* is damaged; ", capsys.readouterr().err, re.MULTILINE)


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert main(["help"]) == 0
    assert capsys.readouterr().out == text
    assert "images" in text
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize(
    ("topic", "usage"),
    [(["pull"], "usage: sregistry pull "), (["backend"], "usage: sregistry backend "), (["backend", "ls"], "usage: sregistry backend ls ")],
)
def test_help_of_a_command(topic: list[str], usage: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["help", *topic])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(usage)


@pytest.mark.parametrize("arguments", [["nothing"], ["help", "nothing"], ["get"], ["images", "--what"], ["serve", "x", "--port", "y"]])
def test_bad_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2


def test_a_reader_that_leaves(database: Path) -> None:
    for number in range(40):
        Catalog(database).add(made(f"nvidia/n{number}:1", image=f"/{number}", metrics={"x": "y" * 9000}))
    command = subprocess.Popen(
        [sys.executable, "-m", "sregistry.cli", "images", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    assert command.stdout is not None
    assert command.stdout.read(10)
    command.stdout.close()
    assert command.stderr is not None
    with command.stderr:
        assert len(command.stderr.read().splitlines()) == 1  # the announcement
    assert command.wait() == 0


def test_serve(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    layout.tag("demo/one:1", layout.image([layer([file(b"one", b"1")])]))
    command = subprocess.Popen(
        [sys.executable, "-m", "sregistry.cli", "serve", str(layout.root), "--port", "0"], stderr=subprocess.PIPE, text=True
    )
    assert command.stderr is not None
    with command.stderr:
        found = re.search(r"http://127\.0\.0\.1:[0-9]+", command.stderr.readline())
        assert found
        with urllib.request.urlopen(f"{found[0]}/v2/demo/one/tags/list") as answer:
            assert json.load(answer)["tags"] == ["1"]
        command.send_signal(signal.SIGINT)
        assert command.wait() == 0
        assert "Traceback" not in command.stderr.read()


def test_serve_what_is_no_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path)]) == 1
    assert "is no OCI image layout" in capsys.readouterr().err
