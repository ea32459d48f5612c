"""Connections that ask for an address byte for byte, and that wait for an answer as long as its watch says.

```
Sent ── target ─▶ request line, as the address has it       requests and urllib3 would quote it anew: a signature of it would be void
     └─ watch ──▶ each read from the socket                 ┌ answer   status and header lines, interim answers, what nobody reads
                                                            ├ document its whole body
                                                            └ blob     a window of seconds that must bring so many bytes of it
```

A timeout of the socket bounds one silence, not an answer that comes byte by byte; http.client and urllib3 read header lines, chunk sizes
and trailers in loops of their own. So the clock is looked at where the bytes come in, below them all.
"""

from __future__ import annotations

import functools
import http.client
import io
import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.poolmanager import PoolManager

from sregistry.oci.address import Address
from sregistry.system import limits

if TYPE_CHECKING:
    import socket


class Overdue(TimeoutError):
    """An answer, or a part of it, that takes too long."""


class Watch:
    """How long, and how far, the answer to one request may be read; times in seconds of *clock*.

    Args:
        answer: from the request to the end of the header lines.
        document, error: for a body that is wanted, and for one that says what went wrong, or that nobody wants.
        slow_bytes, slow_seconds: what a blob must bring in which time; the time in which nobody waits for it does not count.
    """

    def __init__(
        self,
        *,
        answer: float = limits.ANSWER_SECONDS,
        document: float = limits.DOCUMENT_SECONDS,
        error: float = limits.ERROR_SECONDS,
        slow_bytes: int = limits.SLOW_BYTES,
        slow_seconds: float = limits.SLOW_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.document, self.error = document, error
        self._answer, self._slow_bytes, self._slow_seconds, self._clock = answer, slow_bytes, slow_seconds, clock
        self._until, self._bytes, self._progress = math.inf, math.inf, 0
        #: Whether something took too long.
        self.over = False

    def begin(self) -> None:
        """A request was sent: its answer is waited for."""
        self.allow(self._answer)
        self._bytes = limits.ANSWER_BYTES

    def allow(self, seconds: float) -> None:
        """What comes now is read by somebody who counts its bytes; it may take *seconds*."""
        self._until, self._bytes = self._clock() + seconds, math.inf

    def allow_blob(self) -> None:
        """What comes now is a blob: its rate counts."""
        self.allow(self._slow_seconds)
        self._progress = 0

    def pause(self, received: int) -> float:
        """So many bytes of the blob have come; return what `resume` wants when more are waited for."""
        self._progress += received
        if self._progress >= self._slow_bytes:
            self._progress = 0
            return self._slow_seconds
        return self._until - self._clock()

    def resume(self, seconds: float) -> None:
        """Go on with a blob's window, of which *seconds* are left."""
        self._until = self._clock() + seconds

    def left(self) -> float:
        """Return the seconds that are left. Raises Overdue: there are none."""
        left = self._until - self._clock()
        if left <= 0:
            self.over = True
            raise Overdue
        return left

    def took(self, size: int) -> None:
        """Count bytes that came over the wire. Raises Overdue: more than an answer has before its body."""
        self._bytes -= size
        if self._bytes < 0:
            self.over = True
            raise Overdue


class Sent(requests.PreparedRequest):
    """A request that goes out as it is."""

    address: Address
    watch: Watch
    #: What stands in the request line: the target, or for a proxy of plain http the whole address.
    line: str


_current: ContextVar[Sent | None] = ContextVar("sent", default=None)


def watch_of(response: requests.Response) -> Watch:
    """Return the watch of an answer; one of its own for a request that had none."""
    return response.request.watch if isinstance(response.request, Sent) else Watch()


class ExactAdapter(HTTPAdapter):
    """An adapter of requests for `Sent`; any other request goes out as ever."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Make the pools that keep connections."""
        super().init_poolmanager(*args, **options)
        _exact_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Return the pools of a proxy."""
        known = proxy in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **options)
        if not known:
            _exact_pools(manager)
        return manager

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """Return what urllib3 is to ask for, and see to what is asked for."""
        meant = super().request_url(request, proxies)
        if isinstance(request, Sent):
            request.line = request.address.target if meant.startswith("/") else request.address.url
        return meant

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """Send it; the thread's connection learns by `_current` which request it is, as urllib3 hands on no more than its parts."""
        token = _current.set(request if isinstance(request, Sent) else None)
        try:
            return super().send(request, *args, **options)
        finally:
            _current.reset(token)


def _exact_pools(manager: PoolManager) -> None:
    """Have the connections of a manager be exact ones; a SOCKS proxy's as well."""
    manager.pool_classes_by_scheme = {scheme: _exact(pool) for scheme, pool in manager.pool_classes_by_scheme.items()}


@functools.cache
def _exact(pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
    connection = type(pool.ConnectionCls.__name__, (_ExactConnection, pool.ConnectionCls), {})
    return type(pool.__name__, (pool,), {"ConnectionCls": connection})


class _Answer(http.client.HTTPResponse):
    """An answer that is read under the watch of its request."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        sent = _current.get()
        if sent is not None:
            sent.watch.begin()
            self.fp = io.BufferedReader(_Watched(self.fp.detach(), sock, sent.watch))


class _ExactConnection:
    """What an exact connection does otherwise than urllib3's."""

    response_class = _Answer

    def putrequest(self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False) -> None:
        sent = _current.get()
        line = url if sent is None else sent.line
        super().putrequest(method, line, skip_host, skip_accept_encoding)  # type: ignore[misc]  # of the class that it is mixed with


class _Watched(io.RawIOBase):
    """The bytes of a socket, as long as a watch allows."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, watch: Watch) -> None:
        super().__init__()
        self._raw, self._socket, self._watch = raw, sock, watch

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: Any) -> int | None:
        left, silence = self._watch.left(), self._socket.gettimeout()
        if left == math.inf or (silence is not None and silence <= left):
            size = self._raw.readinto(buffer)
        else:
            try:
                self._socket.settimeout(left)
                size = self._raw.readinto(buffer)
            except TimeoutError:
                self._watch.left()  # says that it is over
                raise
            finally:
                self._socket.settimeout(silence)
        self._watch.took(size or 0)
        return size

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()
