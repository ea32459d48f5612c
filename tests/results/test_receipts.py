"""Receipts: what they hold, and when they no longer count."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sregistry.errors import StoreError
from sregistry.results import receipts

VARIANT = "gzip-default-131072-3"
DIGEST = "sha256:" + "0123456789abcdef" * 4


def test_equal_values_give_equal_bytes(tmp_path: Path) -> None:
    receipts.write(tmp_path / "new" / "a", {"a": 1, "b": 2})
    receipts.write(tmp_path / "b", {"b": 2, "a": 1})
    assert (tmp_path / "new" / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert receipts.read(tmp_path / "b") == {"a": 1, "b": 2}


@pytest.mark.parametrize("text", ["", "{", "[1]", "\0"])
def test_damaged(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(StoreError, match="damaged"):
        receipts.read(tmp_path / "x")


def test_a_file_taken_by_another_of_its_size(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"one")
    holds = [receipts.Held.image(image)]
    assert not receipts.stale(holds)
    os.utime(image, ns=(1, 1))
    assert receipts.stale(holds)


def test_a_sandbox_may_be_written_in_but_not_replaced(tmp_path: Path) -> None:
    sandbox = tmp_path / "sandbox"
    sandbox.mkdir()
    holds = [receipts.Held.image(sandbox)]
    (sandbox / "new").write_text("")
    assert not receipts.stale(holds)
    (tmp_path / "other").mkdir()
    sandbox.rename(tmp_path / "old")
    (tmp_path / "other").rename(sandbox)
    assert receipts.stale(holds)


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
        return sorted(path.name for path in receipts.sweep(self.root, {self.image.name: VARIANT}, store or self.store, self.gathered))


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
    found = receipts.remade(results.root, variants, [], results.store, results.gathered)
    names = {"layer": results.layer, "exploded": results.exploded, "gathered": results.gathered, "sandbox": results.image / "sandbox.index"}
    assert found == {names.get(name, results.image / f"{name}.json") for name in expected}
    assert {path: path.stat().st_mtime_ns for path in results.root.rglob("*")} == before


EARLIER: dict[str, type[receipts.Receipt]] = {
    "explode": receipts.Exploded,
    "gathered": receipts.Gathered,
    "image": receipts.Image,
    "layer": receipts.Blob,
    "metadata": receipts.Metadata,
    "no_tags": receipts.TagList,
    "record": receipts.Recorded,
    "refused": receipts.Refused,
    "sandbox": receipts.Image,
    "tags": receipts.TagList,
    "targets": receipts.TagLists,
}


@pytest.mark.parametrize(("name", "kind"), EARLIER.items(), ids=EARLIER)
def test_a_receipt_of_an_earlier_version_is_taken_as_it_is(tmp_path: Path, name: str, kind: type[receipts.Receipt]) -> None:
    """The stages before receipts had types wrote these files."""
    earlier = Path(__file__).with_name("earlier") / f"{name}.json"
    kind.read(earlier).write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == earlier.read_bytes()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": None}, "size: missing"),
        ({"size": "93"}, "size: expected int, got '93'"),
        ({"diff_id": 1}, "diff_id: expected str | None, got 1"),
        ({"holds": {}}, "holds: expected tuple"),
        ({"holds": ["x"]}, "holds: "),
        ({"holds": [{"size": 1}]}, "holds: KeyError 'path'"),
    ],
    ids=["missing", "no number", "no text", "no list", "no object", "no path"],
)
def test_a_damaged_receipt_names_its_key(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    value = {**receipts.read(Path(__file__).with_name("earlier") / "layer.json"), **change}
    receipts.write(tmp_path / "layer.json", {key: item for key, item in value.items() if key != "size" or item is not None})
    with pytest.raises(StoreError) as caught:
        receipts.Blob.read(tmp_path / "layer.json")
    assert caught.value.message.startswith(f"{tmp_path / 'layer.json'} is damaged: {said}")
    assert caught.value.hint == "remove that file"
