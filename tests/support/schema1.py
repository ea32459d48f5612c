"""Schema 1 manifests: alone, and beside the schema 2 manifest of the same image."""

from __future__ import annotations

import json
from typing import Any

from sregistry.oci.documents import Descriptor, Digest, MediaType
from sregistry.oci.schema1 import EMPTY
from tests.support.repository import Repository
from tests.support.scripted import Answer, Asked, Reply

BLOBS = [str(Digest.of(b"%d" % number)) for number in range(5)]
CONFIG = {"Env": ["A=1"], "Cmd": ["/x"], "Entrypoint": None, "Labels": {"l": "1"}}


def step(number: int, **more: Any) -> dict[str, Any]:
    """Return an entry of the history."""
    return {"id": f"{number:064x}", "parent": f"{number - 1:064x}", "created": f"2016-01-0{number + 1}T00:00:00Z", **more}


def manifest(steps: list[tuple[str, dict[str, Any]]], **more: Any) -> dict[str, Any]:
    """Return a manifest of (blob, entry) pairs, from the lowest."""
    return {
        "schemaVersion": 1,
        "name": "demo/tiny",
        "tag": "1",
        "architecture": "amd64",
        "fsLayers": [{"blobSum": blob} for blob, _ in reversed(steps)],
        "history": [{"v1Compatibility": json.dumps(entry)} for _, entry in reversed(steps)],
        **more,
    }


OLD = manifest([(BLOBS[0], step(0)), (BLOBS[1], step(1)), (BLOBS[2], step(2, os="linux", config=CONFIG, Size=5))])


def encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=3).encode()


IMAGE = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [f"sha256:{n:064x}" for n in range(3)]}}).encode()
BESIDE = encode(
    manifest(
        [
            (BLOBS[0], step(0)),
            (str(EMPTY), step(1, throwaway=True)),
            (BLOBS[1], step(2)),
            (BLOBS[2], step(3, architecture="amd64", os="linux", config=CONFIG)),
        ]
    )
)
ASKED = f"{MediaType.SCHEMA1_SIGNED}, {MediaType.SCHEMA1}"


def schema2(repository: Repository, kind: str = MediaType.DOCKER_MANIFEST) -> bytes:
    """Publish the config of a manifest of OLD's layers, and return that manifest."""
    layers = [Descriptor(media_type=MediaType.DOCKER_LAYER, digest=Digest(blob), size=1).json() for blob in BLOBS[:3]]
    config = repository.blob(IMAGE, MediaType.DOCKER_CONFIG)
    return json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}).encode()


def both(repository: Repository, beside: Answer, document: bytes | None = None, tag: str = "1") -> bytes:
    """Publish an image that is *beside* for who wants nothing but schema 1; return its manifest."""
    main = document or schema2(repository)

    def reply(asked: Asked) -> Reply:
        if asked.headers["Accept"] != ASKED:
            return Reply(200, main)
        return beside if isinstance(beside, Reply) else beside(asked)

    repository.routes[f"/v2/demo/tiny/manifests/{tag}"] = reply
    return main
