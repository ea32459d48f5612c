"""Which of the manifests behind a reference is the image for a platform.

```
reference ─▶ index ─┬▶ entries with a platform, by rank ───▶ the first that is an image
                    ├▶ entries without ─▶ their configs ───▶ the best that is an image, if no other serves
                    └▶ indexes: the same once more
```

What says nothing of its platform goes behind what does, and what is no image (a chart, a signature, an SBOM) is passed
over. Only what is chosen has to be sound. Every document is checked against the digest and size that its parent names
(image-spec, descriptor.md) and kept in the store.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from sregistry.errors import (
    AuthenticationError,
    DigestMismatch,
    DocumentError,
    RegistryError,
    StoreError,
    TransferError,
    UnavailableError,
)
from sregistry.oci.documents import UNNAMED, Descriptor, Digest, ImageConfig, Index, Manifest, MediaType, NoImage, Platform, Sif
from sregistry.oci.json_fields import MAX_DOCUMENT
from sregistry.oci.parse import parse_manifest
from sregistry.oci.reference import Reference
from sregistry.oci.schema1 import Schema1
from sregistry.results.resolved import Document
from sregistry.store.store import Store
from sregistry.system import limits

if TYPE_CHECKING:  # stages that only read a manifest start without an HTTP client
    from sregistry.registry.client import RegistryClient

#: The artifact types of an index's entries that are images.
_IMAGES = (None, "", *MediaType.CONFIGS, MediaType.SIF_CONFIG, MediaType.SIF_LAYER)


class Found(NamedTuple):
    """A manifest, its parents and itself as documents, the platform that its index says, and its config where it has been read."""

    manifest: Manifest | Sif | Schema1
    path: tuple[Document, ...]
    platform: Platform | None = None
    config: bytes | None = None


class _Candidate(NamedTuple):
    """An entry that may serve, sound or not, and the way to its index."""

    rank: int
    name: str
    entry: Descriptor | DocumentError
    parents: tuple[Document, ...]


class Search:
    """The way from a reference down to one manifest; counts what it reads."""

    def __init__(self, client: RegistryClient, reference: Reference, wanted: Platform, store: Store) -> None:
        self._client, self._reference, self._wanted, self._store = client, reference, wanted, store
        self._read = 0
        self._offered: set[str] = set()
        #: Entries that say what they are for; and those that don't: manifests, and indexes that are not yet read.
        self._named: list[_Candidate] = []
        self._unnamed: list[tuple[Descriptor, tuple[Document, ...]]] = []
        #: Why something was passed over.
        self._passed: list[DocumentError | DigestMismatch | RegistryError] = []

    def start(self) -> Found:
        """Return the manifest. Raises DocumentError that lists the platforms when none fits."""
        document, path = self._keep(self._outermost(), None, ())
        if not isinstance(document, Index):
            return self._configured(Found(document, path))
        self._look(document, path)
        return self._first_named() or self._best_unnamed() or self._nothing()

    def _first_named(self) -> Found | None:
        """Return the best of those that say what they are for, and are an image; of equal ones, a sound one, the first."""
        for candidate in sorted(self._named, key=lambda it: (it.rank, isinstance(it.entry, DocumentError), it.name)):
            if isinstance(candidate.entry, DocumentError):
                raise candidate.entry
            try:
                return self._manifest(candidate.entry, candidate.parents)
            except NoImage as error:
                self._passed.insert(0, error)
        return None

    def _best_unnamed(self) -> Found | None:
        """Return the best, the first of equals, of those whose configs have to say what they are for."""
        best: tuple[int, Found] | None = None
        for entry, parents in self._unnamed:
            try:
                found = self._manifest(entry, parents)
                if isinstance(found.manifest, Sif):
                    platform = self._wanted  # its header says it, which is read where the bytes are
                else:
                    kind = MediaType.OCI_CONFIG if isinstance(found.manifest, Schema1) else found.manifest.config.media_type
                    platform = ImageConfig.parse(found.config or b"", kind).platform or UNNAMED
            except (DocumentError, DigestMismatch, RegistryError) as error:
                self._pass(error)
                continue
            self._offered.add(str(platform))
            rank = self._wanted.rank(platform)
            if rank is not None and (best is None or rank < best[0]):
                best = rank, found
            if rank == 0:
                break
        return best[1] if best else None

    def _nothing(self) -> NoReturn:
        """Say what there is in place of what is wanted."""
        if self._passed and (self._named or not self._offered):
            raise self._passed[0]
        offered = sorted(self._offered)
        more = f" and {len(offered) - limits.LISTED_PLATFORMS} more" if len(offered) > limits.LISTED_PLATFORMS else ""
        listed = (", ".join(offered[: limits.LISTED_PLATFORMS]) or "no platform at all") + more
        passed = f" (passed over: {self._passed[0].message})" if self._passed else ""
        raise DocumentError(f"no image for {self._wanted}, the tag offers {listed}{passed}", hint="choose another platform or tag")

    def _outermost(self) -> bytes:
        """Return the document that the reference names."""
        digest = self._reference.digest
        return (digest and _stored(self._store, digest)) or self._client.get_manifest(self._reference).data

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
        return document, (*parents, Document(descriptor=descriptor, text=data.decode(errors="replace")))

    def _pass(self, error: DocumentError | DigestMismatch | RegistryError) -> None:
        """Pass over what nobody asked for. Raises RegistryError: what is there may be told another time."""
        if isinstance(error, (UnavailableError, AuthenticationError, TransferError)):
            raise error
        self._passed.append(error)

    def _look(self, index: Index, path: tuple[Document, ...], outer: Platform | None = None) -> None:
        """Take down what may serve, in this index and in those below it; *outer* is what is said of the index."""
        if len(path) > limits.INDEX_DEPTH:
            raise DocumentError(
                f"more indexes inside each other than the limit INDEX_DEPTH of {limits.INDEX_DEPTH}", hint="the image is broken"
            )
        self._offered.update(index.platforms())
        for platform, error in index.unsound:
            rank = None if platform is None else self._wanted.rank(platform)
            if rank is None:
                self._passed.append(error)
            else:
                self._named.append(_Candidate(rank, str(platform), error, path))
        for entry in index.choose(self._wanted):
            if entry.artifact_type not in _IMAGES:  # a signature, an SBOM or an accelerator's data (image-spec, descriptor.md)
                continue
            if entry.media_type in MediaType.INDEXES:
                # what suits exactly is not bettered by an index that says nothing
                if entry.platform is not None or not any(it.rank == 0 and isinstance(it.entry, Descriptor) for it in self._named):
                    self._look_below(entry, path, entry.platform or outer)
            elif (platform := entry.platform or outer) is None:
                self._unnamed.append((entry, path))
            else:
                rank = self._wanted.rank(platform)
                assert rank is not None, "the index chose it"
                self._named.append(_Candidate(rank, str(platform), replace(entry, platform=platform), path))

    def _look_below(self, entry: Descriptor, path: tuple[Document, ...], outer: Platform | None) -> None:
        try:
            document, below = self._keep(self._child(entry), entry, path)
            if not isinstance(document, Index):
                raise DocumentError(f"{entry.digest}: its index says that it is an index, but it is a manifest", hint="the image is broken")
            self._look(document, below, outer)
        except (DocumentError, DigestMismatch, RegistryError) as error:
            if entry.platform is not None:
                raise
            self._pass(error)

    def _manifest(self, entry: Descriptor, parents: tuple[Document, ...]) -> Found:
        """Return the manifest that an entry names, and its config. Raises NoImage, DocumentError, DigestMismatch, RegistryError."""
        document, path = self._keep(self._child(entry), entry, parents)
        if isinstance(document, Index):
            raise DocumentError(f"{entry.digest}: an index where its index says a manifest", hint="the image is broken")
        return self._configured(Found(document, path, entry.platform))

    def _configured(self, found: Found) -> Found:
        """Add the config. Raises NoImage: what should be a config is none."""
        manifest = found.manifest
        if isinstance(manifest, Sif):
            return found
        if isinstance(manifest, Schema1):
            return found._replace(config=manifest.config)
        config = _config(self._client, self._reference, manifest.config, self._store)
        if manifest.config.media_type not in MediaType.CONFIGS:
            ImageConfig.parse(config, manifest.config.media_type)
        return found._replace(config=config)

    def _child(self, entry: Descriptor) -> bytes:
        """Return the document of an index's entry, of the digest and size that the entry says."""
        self._read += 1
        if self._read > limits.INDEX_DOCUMENTS:
            raise DocumentError(
                f"more documents in search of a platform than the limit INDEX_DOCUMENTS of {limits.INDEX_DOCUMENTS}",
                hint="the image is broken",
            )
        if entry.data is not None:
            return entry.data
        if (entry.size or 0) > MAX_DOCUMENT:
            raise DocumentError(f"{entry.digest}: {entry.size} bytes, over the limit of {MAX_DOCUMENT} for a document")
        data = _stored(self._store, entry.digest, entry.size) or self._client.get_manifest(self._reference, entry.digest).data
        if len(data) != entry.size:
            raise DigestMismatch(f"{entry.digest}: {len(data)} bytes, its index says {entry.size}", hint="the image is broken")
        return data


def _stored(store: Store, digest: Digest, size: int | None = None) -> bytes | None:
    """Return a document that a store has, whole; None where it is to be asked for, a damaged one included: `Store.add` heals it."""
    if not store.knows(digest, MAX_DOCUMENT, size):
        return None
    try:
        return store.read(digest)
    except (DigestMismatch, StoreError):
        return None


def _config(client: RegistryClient, reference: Reference, blob: Descriptor, store: Store) -> bytes:
    """Return a config, from the store or the registry, and keep it."""
    data = blob.data
    if data is None:
        data = _stored(store, blob.digest, blob.size)
    if data is None:
        data = client.get_document(reference, blob)
    store.add(data, blob.digest)
    return data
