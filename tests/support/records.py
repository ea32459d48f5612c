"""Records of a catalog, and the metrics of the images that they stand for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sregistry.catalog import rebuild
from sregistry.catalog.record import Record, record
from sregistry.layers.compression import Codec, Compression
from sregistry.oci.documents import Digest
from sregistry.results.resolved import Resolved

VERSION = "16765f12b73ec77235726fa9e47e808c" * 2


def made(uri: str = "nvidia/tensorflow:17.11", **fields: object) -> Record:
    repository, _, tag = uri.rpartition(":")
    collection, _, name = repository.partition("/")
    values = {
        "client": "nvidia",
        "collection": collection,
        "name": name,
        "tag": tag,
        "uri": uri,
        "url": f"https://nvcr.io/v2/{repository}/manifests/{tag}",
        "registry": "nvcr.io",
        "digest": str(Digest.of(uri.encode())),
        "version": VERSION,
        "image": f"/images/{repository.replace('/', '-')}:{tag}.sif",
        "size": 10,
        "compressed_size": 5,
        "created_at": "2018-01-15 15:33:30",
        "format": "sif",
        "platform": "linux/amd64",
        "metrics": {},
    }
    return Record(**{**values, **fields})  # type: ignore[arg-type]


def recorded(**fields: Any) -> Record:
    """Return the record of an image whose file has a name of its own, and that says how it was made."""
    how = rebuild.made(
        client="nvidia",
        platform="linux/amd64",
        format="sif",
        builder="native",
        docker_cmd=True,
        compression=Compression(codec=Codec.ZSTD),
        path=Path("/images/it's a name.sif"),
    )
    return replace(made(image="/some images/it's a name.sif", made=how), **fields)


def digest(name: str) -> str:
    return str(Digest.of(name.encode()))


def manifest(**sizes: int) -> dict[str, Any]:
    """Return the metrics of an image of layers of these names and sizes in bytes."""
    return {"2": {"schemaVersion": 2, "layers": [{"digest": digest(name), "size": size} for name, size in sizes.items()]}, "selfLink": "x"}


def metrics_of(resolved: Resolved) -> dict[str, Any]:
    """Return what the record of an image that was resolved keeps of its registry's documents."""
    return record(resolved, None, now=datetime.now(UTC)).metrics
