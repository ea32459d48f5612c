"""The manifest stage: a reference becomes one platform's manifest, its config and its layers.

```
reference ─▶ index ─▶ [nested index …] ─▶ manifest ─┬▶ config ── os, architecture, diff_ids
             choice by os/architecture/variant       └▶ layers ── digest, size      │
                                                        layers[i] + diff_ids[i] ◀──┘
```

Where an index and a config disagree about the platform, the index decides, and `warnings` tells.

A schema 1 manifest has its config in itself, and neither sizes nor diff_ids: they stay None here, and
are found out where the bytes are. A SIF that was pushed as an artifact has one layer, the SIF.

Old registries make a schema 1 manifest of an image of Docker's schema 2. Where there is one beside, it is kept
for the record; nothing is made of it.

Every document is checked against the digest and size that its parent names (image-spec,
descriptor.md) and kept in the store. `Resolved` is the stage's output, manifest.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sregistry.errors import DigestMismatch, DocumentError, StoreError, from_oserror
from sregistry.oci.documents import Descriptor, Digest, ImageConfig, Manifest, MediaType, Platform, Sif, parse_manifest
from sregistry.oci.platforms import BEYOND
from sregistry.oci.reference import Reference
from sregistry.oci.schema1 import EMPTY, Schema1
from sregistry.registry.candidates import Document as Document  # noqa: PLC0414 - what `Resolved` is made of
from sregistry.registry.candidates import Found, Search
from sregistry.store.store import Store, write_atomic

if TYPE_CHECKING:  # stages that only read a manifest start without an HTTP client
    from sregistry.registry.client import RegistryClient

#: What an image is published as: layers to be merged, or a SIF to be taken as it is.
LAYERS, SIF = "layers", "sif"


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
            StoreError: it can't be read.
            DocumentError: it is damaged, or it records why the image could not be resolved; then the
                message is that line.
        """
        try:
            data = path.read_bytes()
        except OSError as error:
            raise from_oserror(error, StoreError, "can't read") from error
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise DocumentError(f"{path} is damaged", hint="remove that file")
        if "error" in value:
            raise DocumentError(str(value["error"]))
        return cls.parse(value)

    def write(self, path: Path) -> None:
        """Write manifest.json whole; equal images give equal bytes. Raises StoreError."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, (json.dumps(self.json(), indent=1) + "\n").encode())
        except OSError as error:
            raise from_oserror(error, StoreError, "can't write") from error


def resolve(client: RegistryClient, reference: Reference, platform: Platform, store: Store, *, locked: Digest | None = None) -> Resolved:
    """Find the manifest of *reference* for *platform*, and its config.

    A tag is always asked for; what a digest names is taken from the store when it is there, whole. All
    documents are kept in the store, where index.json gives the manifest the reference's name.

    Args:
        locked: what the reference's tag is to mean, in place of what the registry says by now.

    Raises:
        DocumentError: malformed, no image, or not for this platform.
        DigestMismatch: bytes that are not what their descriptor says.
        RegistryError, AuthenticationError, StoreError: as the client and the store.
    """
    asked = reference if locked is None else replace(reference, digest=locked)
    try:
        found = Search(client, asked, platform, store).start()
        content = _content(found, platform, store)
    except (DocumentError, DigestMismatch) as error:
        raise type(error)(f"{reference}: {error.message}", hint=error.hint) from error
    chosen = found.path[-1].descriptor
    beside = _beside(client, reference, found)
    store.tag(str(reference), chosen)
    return Resolved(
        uri=reference.uri,
        client=client.settings.client,
        registry=reference.registry,
        repository=reference.repository,
        tag=reference.tag,
        url=client.manifest_url(reference),
        digest=chosen.digest,
        size=chosen.size or 0,
        platform=content.platform,
        kind=SIF if isinstance(found.manifest, Sif) else LAYERS,
        config=None if isinstance(found.manifest, Schema1) else found.manifest.config,
        layers=content.layers,
        documents=(*beside, *found.path),
        image_config=content.config.decode(errors="replace"),
        warnings=content.warnings,
    )


class _Content(NamedTuple):
    """What a manifest stands for."""

    layers: tuple[Layer, ...]
    config: bytes
    platform: Platform
    warnings: tuple[str, ...] = ()


def _content(found: Found, wanted: Platform, store: Store) -> _Content:
    """Return what a manifest stands for. Raises DocumentError: not for this platform, or broken."""
    manifest = found.manifest
    blobs = (manifest.layer,) if isinstance(manifest, Sif) else manifest.layers
    for blob in blobs:
        if blob.data is not None:  # what the manifest brings along is not asked for again
            store.add(blob.data, blob.digest)
    if isinstance(manifest, Sif):
        return _Content((Layer(blob=manifest.layer, diff_id=None),), b"", found.platform or wanted)
    text = found.config or b""
    config = ImageConfig.parse(text, MediaType.OCI_CONFIG if isinstance(manifest, Schema1) else manifest.config.media_type)
    platform, warnings = _decided(found.platform, config.platform, wanted)
    if isinstance(manifest, Schema1):
        return _Content(tuple(Layer(blob=blob, diff_id=None) for blob in blobs), text, platform, warnings)
    if len(config.diff_ids) != len(blobs):
        counts = f"the config lists {len(config.diff_ids)} layers, the manifest {len(blobs)}"
        raise DocumentError(counts, hint="the image is broken")
    layers = tuple(Layer(blob=blob, diff_id=diff_id) for blob, diff_id in zip(blobs, config.diff_ids, strict=True))
    return _Content(layers, text, platform, warnings)


def _decided(listed: Platform | None, own: Platform | None, wanted: Platform) -> tuple[Platform, tuple[str, ...]]:
    """Return what an image is for, and warnings.

    Args:
        listed: what its index says, which decides, as for Docker and containerd.
        own: what its config says, which decides where there is no index, and completes it otherwise.
        wanted: what was asked for, which is believed where nobody says anything.

    Raises:
        DocumentError: the image is for another platform.
    """
    warnings = []
    platform = listed or own or wanted
    if listed is not None and own is not None and listed != own:
        if listed.variant is None and listed == replace(own, variant=None):
            platform = own
        elif listed.rank(own) != 0:
            warnings.append(f"the index says {listed}, the config of the image {own}: the index decides")
    if wanted.rank(listed or platform) is None:
        raise DocumentError(f"the image is for {platform}, not for {wanted}", hint="choose another platform or tag")
    rank = wanted.rank(platform)
    if rank is None or rank >= BEYOND:
        warnings.append(f"there is nothing for every {wanted}: this is for {platform}, which older processors do not run")
    return platform, tuple(warnings)


def _beside(client: RegistryClient, reference: Reference, found: Found) -> tuple[Document, ...]:
    """Return the schema 1 manifest of the image that was found, if the registry may have one and gives it."""
    docker = found.path[0].descriptor.media_type in (MediaType.DOCKER_MANIFEST, MediaType.DOCKER_LIST)
    # Docker Hub has none any more, and counts each manifest that is asked for as a pull
    if not docker or reference.digest is not None or client.settings.client == "docker" or not isinstance(found.manifest, Manifest):
        return ()
    data = client.get_schema1(reference)
    if data is None:
        return ()
    try:
        manifest = parse_manifest(data)
    except DocumentError:
        return ()
    # of another platform of a list, or of what the tag means by now, it would tell nothing of this image
    if not isinstance(manifest, Schema1) or _digests(manifest) != _digests(found.manifest):
        return ()
    descriptor = Descriptor(media_type=manifest.media_type, digest=Digest.of(data), size=len(data))
    return (Document(descriptor=descriptor, text=data.decode()),)


def _digests(manifest: Manifest | Schema1) -> list[Digest]:
    """Return the layers of a manifest, without those that schema 1 leaves out."""
    return [layer.digest for layer in manifest.layers if layer.digest != EMPTY]
