"""A layer from a server that limits what each connection gets, by one connection and by several.

```
1 connection   ├────────────────────────────────┤        4   ├────────┤
```

The server is ours, on 127.0.0.1, and gives each connection RATE bytes a second, as content delivery
networks do.
"""

from __future__ import annotations

import io
import random
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from sregistry.config.settings import registry
from sregistry.oci.documents import Descriptor, Digest, MediaType
from sregistry.oci.reference import Reference
from sregistry.registry.client import RegistryClient
from sregistry.registry.fetch import fetch
from sregistry.results.resolved import Layer
from sregistry.store.store import Store

#: Bytes of the layer, and bytes a second of a connection.
SIZE, RATE = 256 << 20, 16 << 20
_STEP = 0.05


@contextmanager
def limited(data: bytes) -> Iterator[str]:
    """Serve *data* under any path, in ranges where asked; give host:port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", self.headers["Range"] or "")
            start, end = (int(found[1]), int(found[2]) + 1 if found[2] else len(data)) if found else (0, len(data))
            self.send_response(206 if found else 200)
            if found:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
            self.send_header("Content-Length", str(end - start))
            self.end_headers()
            size = int(RATE * _STEP)
            due = time.monotonic()
            for at in range(start, end, size):
                self.wfile.write(data[at : min(at + size, end)])
                due += _STEP
                time.sleep(max(0.0, due - time.monotonic()))

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()


def main() -> None:
    """Print what each number of connections took."""
    data = random.Random(1).randbytes(1 << 20) * (SIZE >> 20)  # noqa: S311 -- the same bytes each time
    digest = Digest.of(data)
    layer = Layer(blob=Descriptor(media_type=MediaType.OCI_LAYER, digest=digest, size=SIZE), diff_id=digest)
    print(f"A layer of {SIZE / 1e6:.0f} MB from a server that gives a connection {RATE / 1e6:.0f} MB/s\n")
    print("| connections | wall s | MB/s | times as fast |\n| ---: | ---: | ---: | ---: |")
    first = 0.0
    with limited(data) as host:
        reference = Reference.parse("demo/large:1", registry=host, collection="")
        for connections in (1, 2, 4, 8):
            with (
                tempfile.TemporaryDirectory() as folder,
                RegistryClient(registry("oci", {"SREGISTRY_OCI_NOHTTPS": "yes"}, fallback=host)) as client,
            ):
                start = time.monotonic()
                fetch(client, reference, layer, Store(Path(folder)), connections=connections, log=io.StringIO())
                wall = time.monotonic() - start
            first = first or wall
            print(f"| {connections} | {wall:.1f} | {SIZE / 1e6 / wall:.0f} | {first / wall:.1f} |")
            sys.stdout.flush()
