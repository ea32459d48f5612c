"""What several images say of a layer that they share: where it is, its size, its diff_id.

```
manifest.json … ─▶ claims ─┬▶ fetch ──▶ the blob, from the first that leads to it
                           └▶ agreed ─▶ the diff_id, if all say the same; else the bytes say it
```

A digest says what a layer is. What an image says beside that may be wrong, and its registry may refuse: that
concerns this image alone, whose later stages compare. So none of the claims is trusted before another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from sregistry.errors import DocumentError, SregistryError, StoreError
from sregistry.oci.documents import Digest
from sregistry.results.receipts import Blob
from sregistry.results.resolved import Layer, Resolved
from sregistry.store.store import Store
from sregistry.system import limits

if TYPE_CHECKING:
    from sregistry.registry.client import RegistryClient


class Claim(NamedTuple):
    """An image, and what it says of a layer."""

    resolved: Resolved
    layer: Layer

    @property
    def key(self) -> tuple[object, ...]:
        """What tells this claim from another: equal ones end alike."""
        image, blob = self.resolved, self.layer.blob
        return image.client, image.registry, image.repository, blob.size, self.layer.diff_id, tuple(blob.urls)


def read(manifests: Iterable[Path], digest: Digest) -> list[Claim]:
    """Return the claims of those images that can be read and have the layer. Raises SregistryError if there is none."""
    found: list[Claim] = []
    problem: SregistryError | None = None
    for path in manifests:
        try:
            resolved = Resolved.read(path)
            found.append(Claim(resolved, resolved.layer(digest)))
        except SregistryError as error:
            problem = problem or error
    if not found:
        raise problem or DocumentError(f"no manifest names {digest}")
    return found


def agreed(claims: Iterable[Claim]) -> Digest | None:
    """Return the diff_id that all images say; None if one does not say it, or they disagree."""
    said = {claim.layer.diff_id for claim in claims}
    return said.pop() if len(said) == 1 else None


def fetch(
    claims: Iterable[Claim],
    store: Store,
    connect: Callable[[Resolved], AbstractContextManager[RegistryClient]],
    *,
    connections: int = 1,
    limit: int = limits.LAYER,
    log: TextIO | None = None,
) -> Blob:
    """Have the layer's blob in the store, as one of the *claims* leads to it, and return the receipt of `layer.fetch`.

    Args:
        connect: gives a client for an image's registry.
        connections, limit, log: as for `layer.fetch`.

    Raises:
        SregistryError: all claims failed; the error is that of the first. StoreError: at once.
    """
    from sregistry.registry.fetch import fetch as fetch_one

    # those whose size is that of the blob which is there need no registry
    order = sorted(claims, key=lambda claim: not store.has(claim.layer.blob.digest, claim.layer.blob.size))
    problem: SregistryError | None = None
    for claim in order:
        try:
            with connect(claim.resolved) as client:
                return fetch_one(client, claim.resolved.reference, claim.layer, store, connections=connections, limit=limit, log=log)
        except StoreError:
            raise
        except SregistryError as error:
            problem = problem or error
    raise problem or DocumentError("no manifest names the layer")
