"""The bytes of a blob over the wire: one stream, or several ranges at a time, put in order.

```
                 ┌ get_part ─ bytes 0 … 16 MiB ┐
connections = 3 ─┼ get_part ─ 16 … 32 ─────────┼─▶ in order, at most `connections` of them in memory ─▶ one stream
                 └ get_part ─ 32 … 48 ─────────┘
```

A server may limit what a connection gets; several then are as much faster as there are. A server that
can't do ranges is read by one connection.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from sregistry.errors import RegistryError, TransferError
from sregistry.oci.documents import Descriptor
from sregistry.oci.reference import Reference
from sregistry.registry.bodies import Part
from sregistry.registry.client import RegistryClient

#: Bytes of a range.
SEGMENT = 16 << 20


def open_blob(
    client: RegistryClient, reference: Reference, blob: Descriptor, start: int, connections: int, *, decode: bool = False
) -> Part:
    """Return the blob from byte *start* on, or all of it where the server can't do parts, or where it is to be decoded.

    The registry comes before a foreign layer's own addresses (oci-to-sif.md §13): mirrors often keep
    foreign layers too, and only they see the user's credentials.

    Raises: as RegistryClient.get_part, now or while it is read.
    """
    try:
        if decode or connections == 1 or blob.size is None or blob.size - start < 2 * SEGMENT:
            return client.get_part(reference, blob, start, decode=decode)
        first = client.get_part(reference, blob, start, start + SEGMENT)
        if first.end is None or first.end == blob.size:
            return first
    except RegistryError:
        if not blob.urls:
            raise
        return client.get_foreign(blob, start, decode=decode)
    rest = [(at, min(at + SEGMENT, blob.size)) for at in range(first.end, blob.size, SEGMENT)]
    return Part(first.start, blob.size, _ranges(client, reference, blob, first.chunks, rest, connections), first.coded)


def _ranges(
    client: RegistryClient, reference: Reference, blob: Descriptor, first: Iterator[bytes], rest: list[tuple[int, int]], connections: int
) -> Iterator[bytes]:
    """Yield the *first* part and then the *rest*, fetched by several connections, that part's among them."""
    stop = threading.Event()
    waiting = iter(rest)
    pending: deque[Future[bytes]] = deque()

    def submit() -> None:
        for start, end in islice(waiting, 1):
            pending.append(pool.submit(_fetch, client, reference, blob, start, end, stop))

    pool = ThreadPoolExecutor(connections)
    try:
        for _ in range(connections - 1):
            submit()
        yield from first
        submit()
        while pending:
            data = pending.popleft().result()
            submit()
            yield data
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _fetch(client: RegistryClient, reference: Reference, blob: Descriptor, start: int, end: int, stop: threading.Event) -> bytes:
    """Return a range; one that breaks off is gone on with, as often as the client's patience allows."""
    data = bytearray()
    attempts = client.patience.attempts()
    while True:
        try:
            at = start + len(data)
            part = client.get_part(reference, blob, at, end)
            if part.start != at:
                raise RegistryError(f"{blob.digest}: {reference.registry} gives parts, then none", hint="set connections to 1")
            for chunk in part.chunks:
                data += chunk
                if stop.is_set():
                    return b""
            if start + len(data) == end:
                return bytes(data)
        except TransferError as error:
            attempts.again(error)
