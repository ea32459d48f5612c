"""A registry of one repository, demo/tiny, that a test fills document by document."""

from __future__ import annotations

import json
from typing import Any

from sregistry.oci.documents import Descriptor, Digest, MediaType, Platform
from sregistry.oci.reference import Reference
from sregistry.registry.resolve import resolve
from sregistry.results.resolved import Resolved
from sregistry.store.store import Store
from tests.support.scripted import Reply, Scripted, client

AMD64 = Platform(architecture="amd64")
DIFF = [f"sha256:{n:064x}" for n in range(1, 9)]


class Repository(Scripted):
    """The repository demo/tiny, to be filled."""

    def blob(self, data: bytes, media_type: str = MediaType.OCI_CONFIG) -> dict[str, Any]:
        self.routes[f"/v2/demo/tiny/blobs/{Digest.of(data)}"] = Reply(200, data)
        return Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data)).json()

    def config(self, platform: str | None = "linux/amd64", layers: int = 2, **more: Any) -> dict[str, Any]:
        document: dict[str, Any] = {"rootfs": {"type": "layers", "diff_ids": DIFF[:layers]}, **more}
        if platform:
            document |= dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        return self.blob(json.dumps(document).encode())

    def layers(self, count: int = 2) -> list[dict[str, Any]]:
        return [Descriptor(media_type=MediaType.OCI_LAYER + "+gzip", digest=Digest.of(b"%d" % n), size=n).json() for n in range(count)]

    def document(self, value: dict[str, Any] | bytes, tag: str | None = None) -> dict[str, Any]:
        """Publish a manifest or index by digest, and by tag; return its descriptor."""
        data = value if isinstance(value, bytes) else json.dumps({"schemaVersion": 2, **value}, indent=1).encode()
        media_type = MediaType.OCI_INDEX if isinstance(value, dict) and "manifests" in value else MediaType.OCI_MANIFEST
        for name in (str(Digest.of(data)), tag):
            self.routes[f"/v2/demo/tiny/manifests/{name}"] = Reply(200, data, [("Content-Type", "text/html")])
        return Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data)).json()

    def manifest(self, platform: str | None = "linux/amd64", tag: str | None = None, layers: int = 2, **more: Any) -> dict[str, Any]:
        return self.document({"config": self.config(platform, layers), "layers": self.layers(layers), **more}, tag)

    def entry(self, platform: str, **more: Any) -> dict[str, Any]:
        os, architecture, *variant = platform.split("/")
        named = {"os": os, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
        return {**self.manifest(platform), "platform": named, **more}


def find(repository: Repository, store: Store, text: str = "demo/tiny:1", platform: Platform = AMD64) -> Resolved:
    with client(repository.host) as it:
        return resolve(it, Reference.parse(text, registry=repository.host, collection="nvidia"), platform, store)
