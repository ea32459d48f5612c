"""A registry on 127.0.0.1, in a thread of the test: any HTTP server, or the one that the package brings."""

from __future__ import annotations

import contextlib
import http.client
import socketserver
import threading
from collections.abc import Iterator
from typing import TextIO, TypeVar

from sregistry.registry.server import Server, serve
from sregistry.store.store import Store
from tests.support.images import Layout

S = TypeVar("S", bound=socketserver.BaseServer)


@contextlib.contextmanager
def running(server: S) -> Iterator[S]:
    """Let *server*, which listens already, answer until the end of the block."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def serving(layout: Layout | Store, *, log: TextIO | None = None) -> Iterator[Server]:
    """Serve *layout* at any free port, with a line a request in *log*; `Server.address` is HOST:PORT."""
    store = layout if isinstance(layout, Store) else Store(layout.root)
    with running(serve(store, log=log)) as server:
        yield server


def get(server: Server, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Send a path as it is, unlike requests, which tidies it up."""
    connection = http.client.HTTPConnection(server.address, timeout=5)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()
