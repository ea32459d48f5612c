"""The layer stage: one blob from the registry into the store, and a receipt.

```
Layer ─▶ in the store? ─ yes ──────────────────────────────────────────▶ receipt
          └ no ─▶ lock of the digest ─▶ GET ─▶ size, digest ─▶ blob ─▶ receipt
```

However many processes ask for one digest, one downloads it; the others wait for the lock and find it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any, TextIO

from sregistry.errors import RegistryError, TransferError
from sregistry.manifest import Layer
from sregistry.oci import Descriptor
from sregistry.reference import Reference
from sregistry.registry import RegistryClient
from sregistry.store import Store


def fetch(client: RegistryClient, reference: Reference, layer: Layer, store: Store, *, log: TextIO | None = None) -> dict[str, Any]:
    """Have a layer's blob in the store.

    Args:
        reference: the image that names the layer.
        log: for a line about what is fetched and one about its size and rate; stderr without it.

    Returns:
        The receipt: `digest`, `size`, `diff_id`, `media_type`, and in `holds` path and size of the blob.

    Raises:
        RegistryError: the registry does not give it; TransferError: it broke off time and again.
        DigestMismatch: other bytes came. StoreError: the store can't be written.
    """
    blob = layer.blob
    if not store.has(blob.digest, blob.size):
        with store.lock(f"{blob.digest.algorithm}-{blob.digest.hex}"):
            if not store.has(blob.digest, blob.size):
                _download(client, reference, blob, store, log or sys.stderr)
    path = store.blob(blob.digest)
    size = path.stat().st_size if blob.size is None else blob.size
    return {
        "digest": str(blob.digest),
        "size": size,
        "diff_id": None if layer.diff_id is None else str(layer.diff_id),
        "media_type": blob.media_type,
        "holds": [{"path": str(path), "size": size}],
    }


def _download(client: RegistryClient, reference: Reference, blob: Descriptor, store: Store, log: TextIO) -> None:
    """Fetch a blob; one that broke off is begun again, as often as the client's patience allows."""
    source = f"{reference.registry}/{reference.repository}"
    size = "of unknown size" if blob.size is None else f"{blob.size / 1e6:.1f} MB"
    print(f"fetching {blob.digest} ({size}) of {source}", file=log, flush=True)
    start = time.monotonic()
    tries = client.patience.retries + 1
    for attempt in range(tries):
        try:
            with store.ingest(blob.digest, blob.size) as sink:
                for chunk in _chunks(client, reference, blob):
                    sink.write(chunk)
            break
        except TransferError as error:
            if attempt + 1 == tries:
                hint = "try again later; fewer `connections` may help"
                raise TransferError(f"{source}: gave up after {tries} tries: {error.message}", hint=hint) from None
            print(f"again: {error}", file=log, flush=True)
            client.patience.wait(attempt)
    seconds = max(time.monotonic() - start, 1e-3)
    got = store.blob(blob.digest).stat().st_size / 1e6
    print(f"fetched {blob.digest}: {got:.1f} MB in {seconds:.1f} s, {got / seconds:.1f} MB/s", file=log, flush=True)


def _chunks(client: RegistryClient, reference: Reference, blob: Descriptor) -> Iterator[bytes]:
    """Return the blob's bytes: from the registry, else, for a foreign layer, from its own addresses.

    The registry comes first (oci-to-sif.md §13): mirrors often keep foreign layers too, and only they
    see the user's credentials.
    """
    try:
        return client.get_blob(reference, blob)
    except RegistryError:
        if not blob.urls:
            raise
        return client.get_foreign(blob)
