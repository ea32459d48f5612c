"""What the images of a run share, as the gathering file says it: results/batch/<batch>.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from sregistry.results import receipts


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """Layers of all images, once their manifests are there; empty before.

    `layers` has the digests of each image, `sizes` the compressed bytes of each layer (None where no manifest says it), and
    `sifs` the images that are SIFs in the registry. `named` has, for a layer, the images that say different things of it or
    would fetch it elsewhere; one image stands for all that agree.
    """

    layers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    sizes: Mapping[str, int | None] = field(default_factory=dict)
    sifs: Sequence[str] = ()
    named: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @cached_property
    def images(self) -> dict[str, list[str]]:
        """The images that each layer is in, in their order."""
        found: dict[str, list[str]] = {}
        for image, digests in self.layers.items():
            for digest in digests:
                found.setdefault(digest, []).append(image)
        return found

    def sources(self, digest: str) -> Sequence[str]:
        """Return the images whose manifests a layer's jobs read."""
        return self.named.get(digest) or self.images[digest][:1]

    @cached_property
    def bytes(self) -> int:
        """Bytes of all layers whose size is known."""
        return sum(size for size in self.sizes.values() if size is not None)

    @cached_property
    def usual(self) -> float:
        """What a layer of unknown size counts as, in bytes: the average of those that are known."""
        known = sum(size is not None for size in self.sizes.values())
        return max(1, self.bytes / known) if known else 1

    @cached_property
    def total(self) -> float:
        """Bytes of all layers, with the usual size for unknown ones."""
        return sum(self.usual if size is None else size for size in self.sizes.values())


@cache
def read(path: Path, time: int) -> Gathered:
    """Read a gathering file whose modification time is *time*: a new one is read anew. Raises StoreError."""
    found = receipts.Gathered.parse({"sources": {}, **receipts.read(path)})  # an older version kept no sources
    return Gathered(layers=found.layers, sizes=found.sizes, sifs=found.sifs, named=found.sources)
