"""Further stores: what they have is not fetched, not copied and not trusted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sregistry.oci.documents import Digest
from sregistry.store.store import Store
from tests.support.place import Place


def _cache(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder / "docker")
    return folder


def _apptainer(source: Path, folder: Path) -> Path:
    shutil.copytree(source / "blobs", folder / "cache" / "blob" / "blobs")
    return folder


def _apptainer_cache(source: Path, folder: Path) -> Path:
    shutil.copytree(source / "blobs", folder / "blob" / "blobs")
    return folder


def _layout(source: Path, folder: Path) -> Path:
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("exploded"))
    return folder


KINDS: dict[str, Callable[[Path, Path], Path]] = {
    "sregistry": _cache,
    "layout": _layout,
    "apptainer": _apptainer,
    "apptainer-cache": _apptainer_cache,
}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_fetched_that_a_further_store_has(place: Place, kind: str) -> None:
    assert place.run("uri=demo/tiny:1").code == 0
    first = (place.images / "demo-tiny:1.sif").read_bytes()
    further = KINDS[kind](place.root / "cache" / "docker", place.root / "further")
    for name in ("cache", "images", "work dir"):
        shutil.rmtree(place.root / name)
    place.work.mkdir()
    place.asked("blobs")
    done = place.run("uri=demo/tiny:1", f"cache_from={further}")
    assert done.code == 0, done.text
    assert place.asked("blobs") == []
    assert (place.images / "demo-tiny:1.sif").read_bytes() == first
    layers = {layer["digest"] for layer in json.loads(next((place.work / "results").glob("demo*/manifest.json")).read_text())["layers"]}
    assert not [digest for digest in layers if Store(place.root / "cache" / "docker").blob(Digest(digest)).exists()]
    # Another place to look in is no reason to work; one that is gone is one to fetch.
    assert place.run("uri=demo/tiny:1").rules == []


def test_a_damaged_one_is_passed_over_and_left(place: Place) -> None:
    assert place.run("uri=demo/tiny:1").code == 0
    further = _layout(place.root / "cache" / "docker", place.root / "further")
    digests = [layer["digest"] for layer in json.loads(next((place.work / "results").glob("demo*/manifest.json")).read_text())["layers"]]
    path = Store(further).blob(Digest(digests[0]))
    path.write_bytes(path.read_bytes()[::-1])
    for name in ("cache", "work dir"):
        shutil.rmtree(place.root / name)
    place.work.mkdir()
    place.asked("blobs")
    done = place.run("uri=demo/tiny:1", SREGISTRY_CACHE_FROM=f"{further}:/nowhere")
    assert done.code == 0, done.text
    assert digests[0] in place.asked("blobs")
    assert path.exists()


def test_a_folder_that_is_gone_is_no_error(place: Place) -> None:
    assert place.run("uri=demo/tiny:1", "cache_from=[/nowhere,/etc]").code == 0
