"""`sregistry labels`, `images --where` and what `inspect` says beside the record, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sregistry.catalog.catalog import Catalog
from sregistry.cli.__main__ import main
from tests.support.records import made, manifest, recorded


@pytest.fixture(autouse=True)
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    catalog = Catalog(tmp_path / "database")
    nvidia = {"maintainer": "NVIDIA CORPORATION\n<sw@example.org>", "com.nvidia.volumes.needed": "nvidia_driver"}
    catalog.add(made("nvidia/a:1", version="", metrics=manifest(base=100, a=5), facts={"labels": nvidia, "versions": {"cuda": "12.4.1"}}))
    other = {"maintainer": "someone", "odd\x1b[2J": "\x1b]0;title\x07\ud800"}
    catalog.add(made("nvidia/b:1", version="", metrics=manifest(base=100), facts={"labels": other}))
    catalog.add(recorded(uri="demo/c:1", version="", metrics=manifest(c=1)))
    monkeypatch.setenv("SREGISTRY_DATABASE", str(catalog.path.parent))
    monkeypatch.delenv("SREGISTRY_CLIENT", raising=False)
    monkeypatch.chdir(tmp_path)
    return catalog.path.parent


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], ["1\tcom.nvidia.volumes.needed", "2\tmaintainer", "1\todd\\x1b[2J"]),
        (["odd\x1b[2J"], ["\\x1b]0;title\\x07\\ud800\tnvidia/b:1"]),
        (["maintainer"], ["NVIDIA CORPORATION <sw@example.org>\tnvidia/a:1", "someone\tnvidia/b:1"]),
        (["maintainer=someone"], ["someone\tnvidia/b:1"]),
    ],
)
def test_labels(capsys: pytest.CaptureFixture[str], arguments: list[str], wanted: list[str]) -> None:
    assert main(["labels", *arguments]) == 0
    assert capsys.readouterr().out.splitlines() == wanted


@pytest.mark.parametrize("label", ["none", "maintainer=", "maintainer=some"])
def test_no_such_label(capsys: pytest.CaptureFixture[str], label: str) -> None:
    assert main(["labels", label]) == 0
    out, err = capsys.readouterr()
    assert (out, err.splitlines()[-1]) == ("", "No image has such a label.")
    assert main(["labels", label, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_labels_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labels", "--json", "maintainer=someone"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"key": "maintainer", "value": "someone", "image": "nvidia/b:1"}]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--where", "cuda>=12.4"], ["nvidia/a:1"]),
        (["--where", "cuda>=12.5"], []),
        (["--where", "label.maintainer~some or cuda=12", "nvidia/b"], ["nvidia/b:1"]),
        (["--where", "not cuda=12"], ["nvidia/b:1", "demo/c:1"]),
        (["--where", "not cuda=12", "--where", "label.maintainer~some or tag=9"], ["nvidia/b:1"]),
        (["--where", "cuda=12", "--where", "label.maintainer~some"], []),
    ],
)
def test_images_where(capsys: pytest.CaptureFixture[str], arguments: list[str], wanted: list[str]) -> None:
    assert main(["images", "--json", *arguments]) == 0
    assert [record["uri"] for record in json.loads(capsys.readouterr().out)] == wanted


def test_none_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["images", "--where", "cuda>=13"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "No image matches."


@pytest.mark.parametrize("text", ["", "cuda>", "cdua>=12"])
def test_a_malformed_filter(capsys: pytest.CaptureFixture[str], text: str) -> None:
    assert main(["images", "--where", text]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith(
        f"error: --where '{text}': expected" if text != "cdua>=12" else "error: --where 'cdua>=12': unknown"
    )


def test_inspect(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "nvidia/a:1"]) == 0
    record = json.loads(capsys.readouterr().out.split("\n", 2)[2])
    assert record["facts"]["versions"] == {"cuda": "12.4.1"}
    assert (record["sharing"]["compressed"], record["sharing"]["unique"]) == (105, 5)
    assert record["sharing"]["shared"] == [{"image": "nvidia/b:1", "layers": 1, "bytes": 100}]
    assert record["rebuild"] is None
    assert main(["inspect", "demo/c:1"]) == 0
    record = json.loads(capsys.readouterr().out.split("\n", 2)[2])
    assert record["rebuild"]["command"].startswith("snakemake --config ")
