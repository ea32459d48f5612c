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

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from sregistry.errors import DigestMismatch, DocumentError
from sregistry.oci.documents import Descriptor, Digest, ImageConfig, Manifest, MediaType, Platform, Sif
from sregistry.oci.parse import parse_manifest
from sregistry.oci.platforms import BEYOND
from sregistry.oci.reference import Reference
from sregistry.oci.schema1 import EMPTY, Schema1
from sregistry.registry.candidates import Found, Search
from sregistry.results.resolved import LAYERS, SIF, Document, Layer, Resolved
from sregistry.store.store import Store

if TYPE_CHECKING:  # stages that only read a manifest start without an HTTP client
    from sregistry.registry.client import RegistryClient


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
