"""What the manifest stage writes, manifest.json: what a reference means on one platform."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sregistry.errors import DigestMismatch, DocumentError
from sregistry.oci.documents import Descriptor, Digest, ImageConfig, MediaType, Platform
from sregistry.oci.reference import Reference
from sregistry.results import receipts

#: What an image is published as: layers to be merged, or a SIF to be taken as it is.
LAYERS, SIF = "layers", "sif"


class Unresolved(DocumentError):
    """The manifest.json says why the image could not be resolved. The next run asks again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A layer of an image: its blob, and the digest of the tar stream inside, if that is published."""

    blob: Descriptor
    diff_id: Digest | None

    def json(self) -> dict[str, Any]:
        """Return the layer as it stands in manifest.json."""
        urls = {"urls": list(self.blob.urls)} if self.blob.urls else {}
        annotations = {"annotations": dict(self.blob.annotations)} if self.blob.annotations else {}
        return {**self.blob.json(), **urls, **annotations, "diff_id": None if self.diff_id is None else str(self.diff_id)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """An index or manifest as the registry sent it."""

    descriptor: Descriptor
    text: str

    def json(self) -> dict[str, Any]:
        """Return the document as it stands in manifest.json."""
        return {**self.descriptor.json(), "text": self.text}


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """What one reference means on one platform.

    `digest` and `size` are the chosen manifest's; `url` is where the reference was asked for.
    `documents` are what was read on the way, outermost first, the chosen manifest last; before them stands the
    schema 1 manifest of the same image, where there is one beside.
    `image_config` is the config's text as published; of a schema 1 manifest, which has no config of
    its own, what its history says, and `config` is None. `kind` is LAYERS or SIF; a SIF has one layer.
    `warnings` say what about the image may not be meant, a line each.
    """

    uri: str
    client: str
    registry: str
    repository: str
    tag: str | None
    url: str
    digest: Digest
    size: int
    platform: Platform
    config: Descriptor | None
    layers: tuple[Layer, ...]
    documents: tuple[Document, ...]
    image_config: str
    kind: str = LAYERS
    warnings: tuple[str, ...] = ()

    @property
    def reference(self) -> Reference:
        """The chosen manifest as a reference, pinned by its digest."""
        return Reference(registry=self.registry, repository=self.repository, tag=self.tag, digest=self.digest)

    @property
    def named(self) -> Digest:
        """Digest of what the reference named, an index or the manifest: what pins it for any platform."""
        last = self.documents[-1]
        return next(item.descriptor.digest for item in self.documents if item is last or item.descriptor.media_type in MediaType.INDEXES)

    def layer(self, digest: Digest) -> Layer:
        """Return the layer with this digest. Raises DocumentError when there is none."""
        for layer in self.layers:
            if layer.blob.digest == digest:
                return layer
        raise DocumentError(f"{self.uri} has no layer {digest}")

    @property
    def full_name(self) -> str:
        """The image as `docker pull` takes it."""
        return f"{self.registry}/{self.uri}"

    def compare_size(self, layer: Layer, size: int | None) -> None:
        """Compare a layer's size in the manifest with that of its blob, None where it is not known. Raises DigestMismatch."""
        if size is not None and layer.blob.size not in (None, size):
            raise DigestMismatch(f"{self.uri}: layer {layer.blob.digest} has {size} bytes, not {layer.blob.size} as its manifest says")

    def parsed_config(self) -> ImageConfig:
        """Return the image config, read; the platform in it is the one that was decided. Raises DocumentError: a SIF has none."""
        if self.kind == SIF:
            raise DocumentError(f"{self.uri} is a SIF already: its environment and runscript are inside")
        config = ImageConfig.parse(self.image_config.encode())
        return config if config.platform is None else replace(config, platform=self.platform)

    def json(self) -> dict[str, Any]:
        """Return the object of manifest.json."""
        return {
            "uri": self.uri,
            "client": self.client,
            "registry": self.registry,
            "repository": self.repository,
            "tag": self.tag,
            "url": self.url,
            "digest": str(self.digest),
            "size": self.size,
            "platform": str(self.platform),
            "kind": self.kind,
            "config": self.config and self.config.json(),
            "layers": [layer.json() for layer in self.layers],
            "documents": [document.json() for document in self.documents],
            "image_config": self.image_config,
            **({"warnings": list(self.warnings)} if self.warnings else {}),
        }

    @classmethod
    def parse(cls, value: dict[str, Any]) -> Resolved:
        """Read the object of manifest.json; keys of other stages are passed over. Raises DocumentError."""
        try:
            os, architecture, *variant = value["platform"].split("/")
            return cls(
                **{name: value[name] for name in ("uri", "client", "registry", "repository", "tag", "url", "size", "image_config")},
                digest=Digest(value["digest"]),
                platform=Platform(os=os, architecture=architecture, variant=variant[0] if variant else None),
                kind=value.get("kind", LAYERS),
                warnings=tuple(map(str, value.get("warnings", ()))),
                config=value["config"] and Descriptor.parse(value["config"], "config"),
                layers=tuple(
                    Layer(
                        blob=Descriptor.parse(item, f"layers[{i}]", sized=False),
                        diff_id=item["diff_id"] and Digest(item["diff_id"]),
                    )
                    for i, item in enumerate(value["layers"])
                ),
                documents=tuple(
                    Document(descriptor=Descriptor.parse(item, f"documents[{i}]"), text=item["text"])
                    for i, item in enumerate(value["documents"])
                ),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DocumentError(f"manifest.json: {type(error).__name__} {error}", hint="remove that file") from None

    @classmethod
    def read(cls, path: Path) -> Resolved:
        """Read manifest.json.

        Raises:
            StoreError: it can't be read, or is no JSON object.
            Unresolved: it records why the image could not be resolved, and the message is that line.
            DocumentError: a key is missing or damaged.
        """
        value = receipts.read(path)
        if "error" in value:
            raise Unresolved(str(value["error"]))
        return cls.parse(value)

    @classmethod
    def take(cls, path: Path) -> Resolved:
        """Read manifest.json as the input of a stage: one that records a refusal is discarded, so that the next run asks again."""
        try:
            return cls.read(path)
        except Unresolved:
            receipts.discard(path, receipts.Vouched.look(path))
            raise

    def write(self, path: Path) -> None:
        """Write manifest.json whole; equal images give equal bytes. Raises StoreError."""
        receipts.publish(path, (json.dumps(self.json(), indent=1) + "\n").encode())
