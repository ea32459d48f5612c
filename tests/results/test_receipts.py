"""Receipts: what they hold, whether it is still there, and those of earlier versions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from sregistry.errors import StoreError
from sregistry.results import receipts


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
