"""The manifest stage: a reference becomes one platform's manifest, its config and its layers.

```
reference ─▶ index ─▶ [nested index …] ─▶ manifest ─┬▶ config ── os, architecture, diff_ids
             choice by os/architecture/variant       └▶ layers ── digest, size      │
                                                        layers[i] + diff_ids[i] ◀──┘
```

A schema 1 manifest has its config in itself, and neither sizes nor diff_ids: they stay None here, and
are found out where the bytes are. A SIF that was pushed as an artifact has one layer, the SIF.

Old registries make a schema 1 manifest of an image of Docker's schema 2. Where there is one beside, it is kept
for the record; nothing is made of it.

Every document is checked against the digest and size that its parent names (image-spec,
descriptor.md) and kept in the store. `Resolved` is the stage's output, manifest.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sregistry.document import MAX_DOCUMENT
from sregistry.errors import DigestMismatch, DocumentError, StoreError, from_oserror
from sregistry.oci import (
    UNNAMED,
    Descriptor,
    Digest,
    ImageConfig,
    Index,
    Manifest,
    MediaType,
    Platform,
    Sif,
    parse_manifest,
)
from sregistry.reference import Reference
from sregistry.schema1 import EMPTY, Schema1
from sregistry.store import Store, write_atomic

if TYPE_CHECKING:  # stages that only read a manifest start without an HTTP client
    from sregistry.registry import RegistryClient

#: The artifact types of an index's entries that are images.
_IMAGES = (None, "", *MediaType.CONFIGS, MediaType.SIF_CONFIG, MediaType.SIF_LAYER)

#: How many indexes may follow each other; real ones have one, seldom two.
MAX_DEPTH = 4
#: What an image is published as: layers to be merged, or a SIF to be taken as it is.
LAYERS, SIF = "layers", "sif"

#: How many entries of indexes are read in search of a platform.
MAX_DOCUMENTS = 64


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
        """Return the image config, read. Raises DocumentError: a SIF has none."""
        if self.kind == SIF:
            raise DocumentError(f"{self.uri} is a SIF already: its environment and runscript are inside")
        return ImageConfig.parse(self.image_config.encode())

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


class _Found(NamedTuple):
    """A manifest, its parents and itself as documents, and the platform that its index says."""

    manifest: Manifest | Sif | Schema1
    path: tuple[Document, ...]
    platform: Platform | None


def resolve(client: RegistryClient, reference: Reference, platform: Platform, store: Store, *, locked: Digest | None = None) -> Resolved:
    """Find the manifest of *reference* for *platform*, and its config.

    A tag is always asked for; what a digest names is taken from the store when it is there. All
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
        found = _Search(client, asked, platform, store).start()
        content = _content(client, asked, found, platform, store)
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
        size=len(found.path[-1].text.encode()),
        platform=content.platform or found.platform or platform,
        kind=SIF if isinstance(found.manifest, Sif) else LAYERS,
        config=None if isinstance(found.manifest, Schema1) else found.manifest.config,
        layers=content.layers,
        documents=(*beside, *found.path),
        image_config=content.config.decode(),
    )


class _Content(NamedTuple):
    """What a manifest stands for; `platform` is the config's."""

    layers: tuple[Layer, ...]
    config: bytes
    platform: Platform | None


def _content(client: RegistryClient, reference: Reference, found: _Found, platform: Platform, store: Store) -> _Content:
    """Return what a manifest stands for. Raises DocumentError: not for this platform, or broken."""
    manifest = found.manifest
    blobs = (manifest.layer,) if isinstance(manifest, Sif) else manifest.layers
    for blob in blobs:
        if blob.data is not None:  # what the manifest brings along is not asked for again
            store.add(blob.data, blob.digest)
    if isinstance(manifest, Sif):
        return _Content((Layer(blob=manifest.layer, diff_id=None),), b"", None)
    text = manifest.config if isinstance(manifest, Schema1) else _config(client, reference, manifest.config, store)
    config = ImageConfig.parse(text)
    # a config without a platform is taken at its index's word, or at the user's
    if config.platform is not None and platform.rank(config.platform) is None:
        raise DocumentError(f"the image is for {config.platform}, not for {platform}", hint="choose another platform or tag")
    if isinstance(manifest, Schema1):
        return _Content(tuple(Layer(blob=blob, diff_id=None) for blob in blobs), text, config.platform)
    if len(config.diff_ids) != len(blobs):
        counts = f"the config lists {len(config.diff_ids)} layers, the manifest {len(blobs)}"
        raise DocumentError(counts, hint="the image is broken")
    layers = tuple(Layer(blob=blob, diff_id=diff_id) for blob, diff_id in zip(blobs, config.diff_ids, strict=True))
    return _Content(layers, text, config.platform)


class _Search:
    """The way from a reference down to one manifest; counts what it reads."""

    def __init__(self, client: RegistryClient, reference: Reference, wanted: Platform, store: Store) -> None:
        self._client, self._reference, self._wanted, self._store = client, reference, wanted, store
        self._read = 0
        self._offered: set[str] = set()

    def start(self) -> _Found:
        """Return the manifest. Raises DocumentError that lists the platforms when none fits."""
        document, path = self._keep(self._outermost(), None, ())
        if not isinstance(document, Index):
            return _Found(document, path, None)
        # the best of all, wherever it stands: `sorted` keeps the order of equals
        for _, entry, parents in sorted(self._candidates(document, path), key=lambda candidate: candidate[0]):
            document, path = self._keep(self._child(entry), entry, parents)
            if not isinstance(document, Index):
                return _Found(document, path, entry.platform)
            raise DocumentError(f"{entry.digest}: an index where its index says a manifest", hint="the image is broken")
        offered = ", ".join(sorted(self._offered)) or "no platform at all"
        raise DocumentError(f"no image for {self._wanted}, the tag offers {offered}", hint="choose another platform or tag")

    def _outermost(self) -> bytes:
        """Return the document that the reference names."""
        digest = self._reference.digest
        if digest is not None and self._store.knows(digest, MAX_DOCUMENT):
            return self._store.read(digest)
        return self._client.get_manifest(self._reference).data

    def _keep(
        self, data: bytes, entry: Descriptor | None, parents: tuple[Document, ...]
    ) -> tuple[Index | Manifest | Sif | Schema1, tuple[Document, ...]]:
        """Read a document and keep it in the store; return it and the way to it, outermost first.

        Args:
            data: the document.
            entry: what its parent says of it.
            parents: the way to its parent.
        """
        document = parse_manifest(data)
        digest = entry.digest if entry else self._reference.digest or Digest.of(data)
        self._store.add(data, digest)
        descriptor = Descriptor(media_type=document.media_type, digest=digest, size=len(data))
        return document, (*parents, Document(descriptor=descriptor, text=data.decode()))

    def _candidates(self, index: Index, path: tuple[Document, ...]) -> Iterator[tuple[int, Descriptor, tuple[Document, ...]]]:
        """Yield rank, entry and way of each manifest that may serve, in this index and those below it."""
        if len(path) > MAX_DEPTH:
            raise DocumentError(f"more than {MAX_DEPTH} indexes inside each other", hint="the image is broken")
        self._offered.update(index.platforms())
        for entry in index.choose(self._wanted):
            if entry.artifact_type not in _IMAGES:  # a signature, an SBOM or an accelerator's data (image-spec, descriptor.md)
                continue
            if entry.media_type in MediaType.INDEXES:
                document, below = self._keep(self._child(entry), entry, path)
                if not isinstance(document, Index):
                    raise DocumentError(
                        f"{entry.digest}: its index says that it is an index, but it is a manifest", hint="the image is broken"
                    )
                yield from self._candidates(document, below)
            else:
                rank = self._wanted.rank(entry.platform or UNNAMED)
                assert rank is not None, "the index chose it"
                yield rank, entry, path

    def _child(self, entry: Descriptor) -> bytes:
        """Return the document of an index's entry, of the digest and size that the entry says."""
        self._read += 1
        if self._read > MAX_DOCUMENTS:
            raise DocumentError(f"more than {MAX_DOCUMENTS} indexes", hint="the image is broken")
        if entry.data is not None:
            return entry.data
        if (entry.size or 0) > MAX_DOCUMENT:
            raise DocumentError(f"{entry.digest}: {entry.size} bytes, over the limit of {MAX_DOCUMENT} for a document")
        if self._store.knows(entry.digest, MAX_DOCUMENT, entry.size):
            return self._store.read(entry.digest)
        data = self._client.get_manifest(self._reference, entry.digest).data
        if len(data) != entry.size:
            raise DigestMismatch(f"{entry.digest}: {len(data)} bytes, its index says {entry.size}", hint="the image is broken")
        return data


def _beside(client: RegistryClient, reference: Reference, found: _Found) -> tuple[Document, ...]:
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


def _config(client: RegistryClient, reference: Reference, blob: Descriptor, store: Store) -> bytes:
    """Return a config, from the store or the registry, and keep it."""
    if blob.data is not None:
        store.add(blob.data, blob.digest)
        return blob.data
    if store.knows(blob.digest, MAX_DOCUMENT, blob.size):
        return store.read(blob.digest)
    data = client.get_document(reference, blob)
    store.add(data, blob.digest)
    return data
