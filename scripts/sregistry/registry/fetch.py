"""The layer stage: one blob from the registry into the store, and a receipt.

```
Layer ─▶ in the store? ─ yes ─▶ marked as used ──────────────────────────────────▶ receipt
          └ no ─▶ in a further one? ─ yes ─▶ digest ─────────────────────────────▶ receipt
                   └ no ─▶ lock of the digest ─▶ GET, from where the last try ended ─▶ receipt
```

However many processes ask for one digest, one downloads it; the others wait for the lock and find it.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from sregistry.config.options import DEFAULTS
from sregistry.errors import DigestMismatch, LayerError, StoreError, TransferError, UnavailableError, os_errors_as
from sregistry.oci.documents import Descriptor
from sregistry.oci.reference import Reference
from sregistry.registry.client import RegistryClient
from sregistry.registry.ranges import open_blob
from sregistry.results.receipts import Blob, Held
from sregistry.results.resolved import Layer
from sregistry.store.beneath import opened
from sregistry.store.partial_blob import Ingest
from sregistry.store.store import Store
from sregistry.system import limits

#: A transfer that has advanced this many bytes starts counting its retries anew.
_PROGRESS = 1 << 20
_RAISE = "raise layer_limit if you trust the image"


def fetch(
    client: RegistryClient,
    reference: Reference,
    layer: Layer,
    store: Store,
    *,
    connections: int = 1,
    limit: int = DEFAULTS["layer_limit"],
    log: TextIO | None = None,
) -> Blob:
    """Have a layer's blob in the store, and return its receipt.

    Args:
        reference: the image that names the layer.
        connections: at a time, for a large layer.
        limit: bytes that a layer may have uncompressed, and so a blob.
        log: for a line about what is fetched and one about its size and rate; stderr without it.

    Raises:
        RegistryError: the registry does not give it; TransferError: it broke off time and again.
        DigestMismatch: other bytes came. StoreError: the store can't be written, or has no room. LayerError: over the limit.
    """
    blob = layer.blob
    log = log or sys.stderr
    path = store.blob(blob.digest)
    name = f"{blob.digest.algorithm}-{blob.digest.hex}"
    if not (store.has(blob.digest, blob.size) and store.keep(name, path)):
        found = _elsewhere(store, blob, log)
        if found is None:
            with store.lock(name):
                if not store.has(blob.digest, blob.size):
                    _download(client, reference, blob, store, connections, limit, log)
        path = found or path
    size = path.stat().st_size if blob.size is None else blob.size
    return Blob(
        digest=str(blob.digest),
        size=size,
        diff_id=None if layer.diff_id is None else str(layer.diff_id),
        media_type=blob.media_type,
        store=str(store.root),
        holds=(Held(str(path), size),),
    )


def free_bytes(folder: Path) -> int:
    """Return the bytes that a user may still write below a folder, which may be yet to be made. Raises StoreError."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    with os_errors_as(StoreError, "can't read"):
        found = os.statvfs(there)
    return found.f_bavail * found.f_frsize


def _elsewhere(store: Store, blob: Descriptor, log: TextIO) -> Path | None:
    """Return where a further store has the blob, checked; it stays there."""
    for path in store.elsewhere(blob.digest, blob.size):
        try:
            with opened(path, depth=3) as file:
                found = hashlib.file_digest(file, blob.digest.algorithm).hexdigest()
        except OSError as error:
            print(f"passed over: {path}: {error.strerror or error}", file=log, flush=True)
            continue
        if found == blob.digest.hex:
            print(f"found {path}", file=log, flush=True)
            return path
        print(f"passed over: {path} is damaged", file=log, flush=True)
    return None


def _download(
    client: RegistryClient, reference: Reference, blob: Descriptor, store: Store, connections: int, limit: int, log: TextIO
) -> None:
    """Download a blob, resuming after interruptions; give up after `retries` repetitions in a row without progress."""
    source = f"{reference.registry}/{reference.repository}"
    size = "of unknown size" if blob.size is None else f"{blob.size / 1e6:.1f} MB"
    room = Room(store.root, blob, limit)
    print(f"fetching {blob.digest} ({size}) of {source}", file=log, flush=True)
    start = time.monotonic()
    attempts = client.patience.attempts()
    decode = False
    with Ingest(store, blob.digest, blob.size) as sink:
        kept = best = sink.position
        if kept:
            print(f"going on after {kept / 1e6:.1f} MB that an earlier run left", file=log, flush=True)
        while True:
            coded = False
            try:
                if blob.size is None or sink.position < blob.size:
                    room.check(sink.position, blob.size)
                    part = open_blob(client, reference, blob, sink.position, connections, decode=decode)
                    coded = part.coded
                    if part.start != sink.position:
                        sink.restart()
                    kept = min(kept, sink.position)
                    if blob.size is None and part.announced is not None:
                        room.check(sink.position, sink.position + part.announced)
                    for chunk in part.chunks:
                        room.take(sink.position, len(chunk))
                        sink.write(chunk)
                if blob.size is None or sink.position >= blob.size:
                    sink.finish()
                    break
            except LayerError:
                sink.restart()  # what is kept of it would be in the way of all that fits
                raise
            except DigestMismatch:
                if not coded:
                    raise
                print(f"again, decoded: {reference.registry} sends it in a content coding", file=log, flush=True)
                decode = True
                sink.restart()
            except (TransferError, UnavailableError) as error:
                if isinstance(error, UnavailableError) and not sink.position:
                    raise  # it was asked several times, and nothing says that it ever answered
                if sink.position >= best + _PROGRESS:
                    attempts.failed = 0
                best = max(best, sink.position)
                if attempts.failed < client.patience.retries:
                    print(f"again: {error}", file=log, flush=True)
                hint = "try again later: what was received is kept; fewer `connections` may help"
                over = f"{source}: gave up after {client.patience.retries + 1} tries: {error.message}"
                attempts.again(TransferError(over, hint=hint))
    seconds = max(time.monotonic() - start, 1e-3)
    got = (store.blob(blob.digest).stat().st_size - kept) / 1e6
    print(f"fetched {blob.digest}: {got:.1f} MB in {seconds:.1f} s, {got / seconds:.1f} MB/s", file=log, flush=True)


class Room:
    """What a blob may take: the layer limit, and what is free where it goes.

    Args:
        folder: of the store.
        limit: bytes that a layer may have uncompressed; compressed it has hardly more.
        free: the free bytes of a folder.
    """

    def __init__(self, folder: Path, blob: Descriptor, limit: int, free: Callable[[Path], int] = free_bytes) -> None:
        self._folder, self._blob, self._free = folder, blob, free
        # deflate and zstd add some bytes to each block of what they can't compress
        self._limit, self._most = limit, limit + (limit >> 8) + 4096
        self._look = 0

    def check(self, position: int, size: int | None) -> None:
        """Refuse a blob of *size* bytes, of which there are *position*, that can't be had.

        Raises:
            LayerError: it is over the limit. StoreError: there is no room for it.
        """
        if size is not None and size > self._most:
            raise LayerError(f"layer {self._blob.digest}: {size} bytes, more than the layer_limit of {self._limit}", hint=_RAISE)
        free = self._free(self._folder)
        if size is not None and size - position > free:
            hint = "free some space or choose another folder"
            raise StoreError(f"{self._blob.digest} needs {size - position} bytes in {self._folder}, which has {free}", hint=hint)

    def take(self, position: int, size: int) -> None:
        """Refuse bytes of a blob that nobody said the size of, once there are too many. Raises as `check`."""
        if self._blob.size is not None:
            return
        if position + size > self._most:
            raise LayerError(f"layer {self._blob.digest}: more than {position} bytes, over the layer_limit of {self._limit}", hint=_RAISE)
        if position >= self._look:
            self._look = position + limits.FREE_EVERY
            free = self._free(self._folder)
            if free < limits.FREE_BYTES:
                hint = "free some space or choose another folder"
                line = f"{self._blob.digest}: {self._folder} has {free} bytes left, and nobody says how many more it needs"
                raise StoreError(line, hint=hint)
