"""What images on record have in common: layers, and the bytes that only one of them needs.

Layers are told by the digests of the recorded manifests; those are read when this is asked, and once for
all records of one manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sregistry.catalog.record import Record

#: Layers without a file, as builders write them by the dozen: having one in common says nothing.
_EMPTY = frozenset(
    (
        "sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4",  # gzip of an empty tar, of schema 1
        "sha256:4f4fb700ef54461cfa02571ae0db9a0dc1e0cdb5577484a6d75e68dc38e8acc1",  # the same, of BuildKit
    )
)

Metrics = Callable[["Record"], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Common:
    """What an image has in common with one other: the number of layers, their compressed bytes."""

    label: str
    layers: int
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharing:
    """Sizes of an image in bytes, and with whom it shares layers, most bytes first.

    `layers` is their number, each counted once; `compressed` and `unique` are bytes as the registry has
    them, `unique` of the layers that no other image has; `image` is the file's. A layer of schema 1 whose
    size was never told counts as 0, and `complete` is then false.
    """

    layers: int
    compressed: int
    image: int
    unique: int
    complete: bool
    shared: tuple[Common, ...]

    def json(self) -> dict[str, Any]:
        """Return it as `sregistry inspect` prints it."""
        shared = [{"image": common.label, "layers": common.layers, "bytes": common.bytes} for common in self.shared]
        sizes = {name: getattr(self, name) for name in ("layers", "compressed", "image", "unique", "complete")}
        return {**sizes, "shared": shared}


def sharing(record: Record, records: Iterable[Record], metrics: Metrics) -> Sharing:
    """Return what *record* has in common with the others of *records*.

    Args:
        record: one image.
        records: all that are looked at; *record* itself, by its id, and other names of its file are passed over.
        metrics: reads a record's manifests, as `Catalog.metrics`.

    Raises:
        CatalogError: as *metrics* does.
    """
    known: dict[str, dict[str, int | None]] = {}
    own = _cached(record, metrics, known)
    elsewhere: set[str] = set()
    found = []
    sizes = dict(own)
    for other in records:
        if other.id == record.id or (record.image and other.image == record.image):
            continue
        theirs = _cached(other, metrics, known)
        common = own.keys() & theirs.keys()
        if not common:
            continue
        elsewhere |= common
        # One manifest may know the size that another, of schema 1, does not.
        sizes |= {digest: theirs[digest] for digest in common if sizes[digest] is None}
        found.append((other.label, common))
    shared = [Common(label=label, layers=len(common), bytes=_sum(sizes, common)) for label, common in found]
    return Sharing(
        layers=len(own),
        compressed=_sum(sizes, own),
        image=record.size,
        unique=_sum(sizes, own.keys() - elsewhere),
        complete=None not in sizes.values(),
        shared=tuple(sorted(shared, key=lambda common: (-common.bytes, -common.layers, common.label))),
    )


def layers(metrics: Mapping[str, Any]) -> dict[str, int | None]:
    """Return digest and size of each layer of the chosen manifest, empty layers left out; what is malformed is passed over."""
    manifest = metrics.get("2") or metrics.get("1")
    if not isinstance(manifest, Mapping):
        return {}
    found: dict[str, int | None] = {}
    for key, name in (("layers", "digest"), ("fsLayers", "blobSum")):
        items = manifest.get(key)
        for item in items if isinstance(items, list) else ():
            digest, size = (item.get(name), item.get("size")) if isinstance(item, Mapping) else (None, None)
            if isinstance(digest, str) and digest not in _EMPTY:
                found[digest] = size if type(size) is int else found.get(digest)
    return found


def _cached(record: Record, metrics: Metrics, known: dict[str, dict[str, int | None]]) -> dict[str, int | None]:
    """Return the layers of a record; a manifest's digest names its layers for good."""
    if not record.digest:
        return layers(metrics(record))
    if record.digest not in known:
        known[record.digest] = layers(metrics(record))
    return known[record.digest]


def _sum(sizes: Mapping[str, int | None], digests: Iterable[str]) -> int:
    return sum(sizes[digest] or 0 for digest in digests)
