"""An image that meets damaged layers is made of sound ones, in the same run, without a word of the user's."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sregistry.oci.documents import Digest, Platform
from sregistry.oci.reference import Reference
from sregistry.registry.resolve import resolve
from sregistry.stages import __main__ as stage
from sregistry.store.store import Store
from tests.support.images import Layout, layer
from tests.support.registry import serving
from tests.support.scripted import client
from tests.support.tarball import directory, file

COMPRESSION = ["--codec", "gzip", "--level", "default", "--block-size", "131072"]


@dataclass
class Run:
    """The stages of one image, as the rules call them."""

    root: Path

    @property
    def store(self) -> Store:
        return Store(self.root / "cache/docker")

    @property
    def image(self) -> Path:
        return self.root / "results/demo"

    def stage(self, *arguments: object) -> int:
        return stage.main([str(argument) for argument in arguments])

    def explode(self) -> list[Path]:
        made = []
        for item in json.loads((self.image / "manifest.json").read_text())["layers"]:
            made.append(self.root / f"results/explode/{item['digest']}.gzip-default-131072-3.json")
            source = self.root / f"results/layer/{item['digest']}.json"
            assert self.stage("explode", "--layer", source, "--cache", self.root / "cache", *COMPRESSION, "--output", made[-1]) == 0
        return made

    def folders(self) -> list[Path]:
        metadata = json.loads((self.image / "metadata.json").read_text())
        layers = [json.loads(path.read_text())["path"] for path in sorted((self.root / "results/explode").iterdir())]
        return [Path(path) for path in (metadata["environment"], metadata["metadata"], *layers)]

    def sandbox(self) -> int:
        manifest, metadata = self.image / "manifest.json", self.image / "metadata.json"
        layers = sorted((self.root / "results/explode").iterdir())
        output = self.image / "sandbox.index"
        return self.stage("sandbox", "--manifest", manifest, "--metadata", metadata, "--output", output, *layers)

    def build(self) -> int:
        options = [
            f"--{name}={self.image / name}{'.json' if name != 'sandbox' else '.index'}" for name in ("manifest", "metadata", "sandbox")
        ]
        return self.stage("image", *options, "--format", "sif", "--target", self.root / "i.sif", "--output", self.image / "image.json")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = Run(tmp_path)
    layout = Layout(made.store.root)
    layers = [layer([directory(b"d%d" % n), file(b"d%d/f" % n, os.urandom(300_000)), file(b"d%d/s" % n, b"small")]) for n in range(2)]
    layout.tag("demo/tiny:1", layout.image(layers, {"Cmd": ["/bin/true"]}))
    with serving(layout) as server:
        reference = Reference.parse(f"{server.address}/demo/tiny:1", registry=server.address, collection="")
        with client(server.address) as it:
            resolved = resolve(it, reference, Platform(architecture="amd64"), made.store)
    made.image.mkdir(parents=True)
    resolved.write(made.image / "manifest.json")
    for item in resolved.layers:
        path = made.root / f"results/layer/{item.blob.digest}.json"
        path.parent.mkdir(exist_ok=True)
        holds = [{"path": str(made.store.blob(item.blob.digest)), "size": item.blob.size}]
        value = {"digest": str(item.blob.digest), "size": item.blob.size, "diff_id": str(item.diff_id), "holds": holds}
        path.write_text(json.dumps({**value, "store": str(made.store.root)}))
    made.explode()
    more = ["--cache", made.root / "cache", *COMPRESSION, "--tar", made.image / "metadata.tar", "--output", made.image / "metadata.json"]
    assert made.stage("metadata", "--manifest", made.image / "manifest.json", *more) == 0
    assert made.sandbox() == 0
    assert made.build() == 0
    return made


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _flip_both(folder: Path) -> None:
    _flip(folder / "data")
    _flip(folder / "index")


def _pipe(folder: Path) -> None:
    (folder / "data").unlink()
    os.mkfifo(folder / "data")


def _link(folder: Path) -> None:
    aside = folder.rename(folder.with_name(f"{folder.name}.aside"))
    folder.symlink_to(aside.name)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "data": lambda folder: _flip(folder / "data"),
    "index": lambda folder: _flip(folder / "index"),
    "both": _flip_both,
    "gone": shutil.rmtree,
    "pipe": _pipe,
    "link": _link,
}


@pytest.mark.parametrize("number", range(4), ids=["environment", "metadata", "lower", "upper"])
@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_layers_are_made_anew_in_the_same_run(run: Run, what: str, number: int, capfd: pytest.CaptureFixture[str]) -> None:
    right = (run.root / "i.sif").read_bytes()
    (run.root / "i.sif").unlink()
    folder = run.folders()[number]
    DAMAGE[what](folder)
    capfd.readouterr()
    assert run.build() == 0, capfd.readouterr()
    said = capfd.readouterr().out
    assert said.count("it was made anew") == 1 and str(folder) in said
    assert (run.root / "i.sif").read_bytes() == right
    # What comes after it knows nothing of it.
    assert run.sandbox() == 0 and run.build() == 0
    assert (run.root / "i.sif").read_bytes() == right


@pytest.mark.parametrize("what", ["index", "gone", "link"])
def test_the_sandbox_needs_only_the_index(run: Run, what: str) -> None:
    right = (run.root / "i.sif").read_bytes()
    for folder in run.folders():
        DAMAGE[what](folder)
    assert run.sandbox() == 0 and run.build() == 0
    assert (run.root / "i.sif").read_bytes() == right


def test_without_the_blob_the_next_run_fetches_it(run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    *_, folder = run.folders()
    _flip(folder / "data")
    (receipt,) = [path for path in (run.root / "results/explode").iterdir() if json.loads(path.read_text())["path"] == str(folder)]
    run.store.blob(Digest(json.loads(receipt.read_text())["digest"])).unlink()
    assert run.build() == 1
    assert capfd.readouterr().err.count("\n") == 1
    assert not folder.exists() and not receipt.exists()


@pytest.mark.needs("root")
def test_a_damaged_layer_of_another_user_is_made_anew_beside_his(run: Run) -> None:
    right = (run.root / "i.sif").read_bytes()
    *_, folder = run.folders()
    _flip(folder / "data")
    for path in (folder, *folder.iterdir()):
        os.chown(path, 65534, 65534)
    assert run.build() == 0
    assert (run.root / "i.sif").read_bytes() == right
    assert folder.exists() and str(folder) not in {str(path) for path in run.folders()}
