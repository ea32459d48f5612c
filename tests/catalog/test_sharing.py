"""Layers that images have in common, and what one of them needs alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sregistry.catalog.catalog import Catalog
from sregistry.catalog.record import Record
from sregistry.catalog.sharing import Common, layers, sharing
from tests.support.records import digest, made, manifest

EMPTY = "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"


def schema1(*names: str) -> dict[str, Any]:
    return {"1": {"schemaVersion": 1, "fsLayers": [{"blobSum": EMPTY}, *({"blobSum": digest(name)} for name in names)]}}


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path)


def add(catalog: Catalog, uri: str, metrics: Mapping[str, Any], **fields: Any) -> Record:
    return catalog.add(made(uri, metrics=metrics, **fields))[0]


def test_images_of_one_base(catalog: Catalog) -> None:
    one = add(catalog, "demo/one:1", manifest(base=100, tools=30, own=7), version="", size=90)
    two = add(catalog, "demo/two:1", manifest(base=100, tools=30, other=5))
    add(catalog, "demo/three:1", manifest(base=100), version="")
    add(catalog, "demo/apart:1", manifest(apart=9))
    found = sharing(one, catalog.records(), catalog.metrics)
    assert (found.layers, found.compressed, found.image, found.unique, found.complete) == (3, 137, 90, 7, True)
    assert found.shared == (Common(label=two.label, layers=2, bytes=130), Common(label="demo/three:1", layers=1, bytes=100))
    assert found.json()["shared"][1] == {"image": "demo/three:1", "layers": 1, "bytes": 100}


def test_another_tag_of_the_same_image(catalog: Catalog) -> None:
    one = add(catalog, "demo/one:1", manifest(base=100, own=7))
    add(catalog, "demo/one:latest", manifest(base=100, own=7), digest=one.digest, version="")
    assert sharing(one, catalog.records(), catalog.metrics).unique == 0


def test_another_name_of_the_same_file(catalog: Catalog) -> None:
    one = add(catalog, "demo/one:1", manifest(base=100, own=7))
    add(catalog, "demo/one:stable", manifest(base=100, own=7), digest=one.digest, image=one.image)
    found = sharing(one, catalog.records(), catalog.metrics)
    assert (found.unique, found.shared) == (107, ())


def test_a_layer_counts_once(catalog: Catalog) -> None:
    twice = manifest(base=100)
    twice["2"]["layers"] *= 2
    one = add(catalog, "demo/one:1", twice)
    found = sharing(one, catalog.records(), catalog.metrics)
    assert (found.layers, found.compressed, found.unique, found.shared) == (1, 100, 100, ())


def test_schema_1_has_no_sizes_but_another_may_know_them(catalog: Catalog) -> None:
    one = add(catalog, "demo/one:1", schema1("base", "own"))
    assert (found := sharing(one, catalog.records(), catalog.metrics)).complete is False
    assert (found.layers, found.compressed) == (2, 0)
    add(catalog, "demo/two:1", manifest(base=100, own=7), version="")
    found = sharing(one, catalog.records(), catalog.metrics)
    assert (found.compressed, found.unique, found.complete) == (107, 0, True)


def test_the_empty_layer_is_not_shared(catalog: Catalog) -> None:
    one = add(catalog, "demo/one:1", schema1("own"))
    add(catalog, "demo/two:1", schema1("other"))
    assert sharing(one, catalog.records(), catalog.metrics).shared == ()


def test_manifests_are_read_once(catalog: Catalog) -> None:
    one = add(catalog, "demo/one:1", manifest(base=100))
    for tag in range(5):
        add(catalog, f"demo/two:{tag}", manifest(base=100, own=7), digest=digest("two"))
    read: list[str] = []

    def metrics(record: Record) -> dict[str, Any]:
        read.append(record.digest)
        return catalog.metrics(record)

    assert len(sharing(one, catalog.records(), metrics).shared) == 5
    assert sorted(read) == sorted([one.digest, digest("two")])


@pytest.mark.parametrize(
    "metrics",
    [
        {},
        {"2": 7},
        {"2": {}},
        {"2": {"layers": {}}},
        {"2": {"layers": [1, {}, {"digest": 1}]}},
        {"index": {"manifests": []}},
        {"1": {"fsLayers": [None]}},
    ],
)
def test_what_is_malformed_has_no_layers(metrics: dict[str, Any]) -> None:
    assert layers(metrics) == {}
