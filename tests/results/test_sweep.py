"""Which receipts no longer count, and what a run makes anew because of it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sregistry.results import paths, receipts, sweep

VARIANT = "gzip-default-131072-3"
DIGEST = "sha256:" + "0123456789abcdef" * 4


class Results:
    """The receipts of one image with one layer."""

    def __init__(self, root: Path) -> None:
        self.root, self.store = root / "results", root / "store"
        self.image = self.root / "demo-0123abcd"
        self.layer = self.root / "layer" / f"{DIGEST}.json"
        self.exploded = self.root / "explode" / f"{DIGEST}.{VARIANT}.json"
        self.gathered = self.root / "batch" / "0123.json"
        self.held = [self.store / name for name in ("blob", "exploded", "metadata")]
        self.store.mkdir(parents=True)
        for path in self.held:
            path.write_bytes(b"held")
        blob, exploded, metadata = ({"store": str(self.store), "holds": [{"path": str(p), "size": 4}]} for p in self.held)
        self.write("manifest.json", {"layers": [{"digest": DIGEST}, {"digest": DIGEST}]})
        self.write("metadata.json", {**metadata, "variant": VARIANT})
        self.write("image.json", {"holds": []})
        receipts.write(self.gathered, {"layers": {}})
        receipts.write(self.layer, blob)
        receipts.write(self.exploded, exploded)
        (self.image / "sandbox.index").write_bytes(b"index")

    def write(self, name: str, value: dict[str, Any]) -> None:
        receipts.write(self.image / name, value)

    def sweep(self, store: Path | None = None) -> list[str]:
        return sorted(
            path.name
            for path in sweep.sweep(paths.Results(self.root.parent), {self.image.name: VARIANT}, store or self.store, self.gathered)
        )


@pytest.fixture
def results(tmp_path: Path) -> Results:
    return Results(tmp_path)


def test_what_holds_is_kept(results: Results) -> None:
    assert results.sweep() == []
    assert (results.image / "sandbox.index").exists()
    assert results.gathered.exists()


def test_a_blob_alone_is_no_reason_to_merge_again(results: Results) -> None:
    results.held[0].unlink()
    assert results.sweep() == [results.layer.name]
    assert (results.image / "sandbox.index").exists()


@pytest.mark.parametrize("held", [1, 2])
def test_a_sandbox_goes_with_what_it_points_into(results: Results, held: int) -> None:
    results.held[held].write_bytes(b"half")
    results.held[held].write_bytes(b"longer")
    assert results.sweep() == [results.exploded.name if held == 1 else "metadata.json"]
    assert not (results.image / "sandbox.index").exists()


def test_another_store(results: Results, tmp_path: Path) -> None:
    assert results.sweep(tmp_path / "other") == sorted([results.exploded.name, results.layer.name, "metadata.json"])
    assert results.held[0].exists()


@pytest.mark.parametrize("variant", [None, "gzip-default-131072-2", "zstd-default-131072-3"])
def test_metadata_of_another_format_is_made_anew(results: Results, variant: str | None) -> None:
    value = receipts.read(results.image / "metadata.json")
    results.write("metadata.json", {**value, "variant": variant})
    assert results.sweep() == ["metadata.json"]
    assert not (results.image / "sandbox.index").exists()


def test_a_link_in_the_store_is_not_touched_along(results: Results, tmp_path: Path) -> None:
    """What a run may need is marked as used: so is what somebody has put there in its place, but not what is behind it."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"held")
    os.utime(victim, (1, 1))
    results.held[0].unlink()
    results.held[0].symlink_to(victim)
    results.sweep()
    assert victim.stat().st_mtime == 1


def test_failed_and_damaged_manifests(results: Results) -> None:
    results.write("manifest.json", {"error": "no such image"})
    (results.image / "record.json").write_text("{")
    assert results.sweep() == ["manifest.json", "record.json"]
    assert not (results.image / "manifest.json").exists()
    assert not results.gathered.exists()


def test_a_failed_refresh_gives_the_manifest_back(results: Results) -> None:
    before = json.dumps({"layers": []})
    results.write("manifest.json", {"error": "unreachable", "pinned": before})
    results.sweep()
    assert (results.image / "manifest.json").read_text() == before


def test_other_images_are_left_alone(results: Results) -> None:
    receipts.write(results.root / "other-0123abcd" / "image.json", {"holds": [{"path": "/none", "size": 1}]})
    assert results.sweep() == []


GONE: dict[str, tuple[list[str], list[str]]] = {
    "nothing": ([], []),
    "the image": (["image"], ["image"]),
    "a blob": (["blob"], []),
    "an exploded layer": (["exploded"], []),
    "the store": (["blob", "exploded", "metadata"], []),
    "the image and its blob": (["image", "blob"], ["image"]),
    "the image and an exploded layer": (["image", "exploded"], ["image", "exploded", "sandbox"]),
    "the image and its metadata": (["image", "metadata"], ["image", "metadata", "sandbox"]),
    "the image and the store": (["image", "blob", "exploded", "metadata"], ["image", "layer", "exploded", "metadata", "sandbox"]),
    "the record": (["record"], ["record"]),
    "the manifest": (["manifest"], ["manifest"]),
    "a failed refresh": (["pinned"], ["gathered"]),
}


@pytest.mark.parametrize(("gone", "expected"), GONE.values(), ids=GONE)
def test_what_a_sweep_makes_anew_is_told_without_one(results: Results, tmp_path: Path, gone: list[str], expected: list[str]) -> None:
    image = tmp_path / "image.sif"
    image.write_bytes(b"image")
    results.write("image.json", {"holds": [receipts.Held.image(image).json()]})
    results.write("record.json", {"holds": []})
    held = dict(zip(("blob", "exploded", "metadata"), results.held, strict=True)) | {"image": image}
    manifest = {"error": "unreachable"}
    for name in gone:
        match name:
            case "record":
                results.write("record.json", {"holds": [{"path": "/none", "size": 1}]})
            case "manifest":
                results.write("manifest.json", manifest)
            case "pinned":
                results.write("manifest.json", manifest | {"pinned": "{}"})
            case _:
                held[name].unlink()
    before = {path: path.stat().st_mtime_ns for path in results.root.rglob("*")}
    variants = {results.image.name: VARIANT}
    found = sweep.remade(paths.Results(results.root.parent), variants, [], results.store, results.gathered)
    names = {"layer": results.layer, "exploded": results.exploded, "gathered": results.gathered, "sandbox": results.image / "sandbox.index"}
    assert found == {names.get(name, results.image / f"{name}.json") for name in expected}
    assert {path: path.stat().st_mtime_ns for path in results.root.rglob("*")} == before
