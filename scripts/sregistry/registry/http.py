"""HTTP as registries need it: how long and how often to try, and why there was no answer.

urllib3 retries requests without an answer or with a status in `RETRIED`. A truncated body is retried by its reader.
"""

from __future__ import annotations

import http.client
import os
import random
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import requests
import urllib3
from requests.adapters import BaseAdapter
from requests.auth import AuthBase
from urllib3.exceptions import InvalidHeader
from urllib3.util.retry import Retry

from sregistry._version import __version__
from sregistry.registry.rate_limit import reset_of
from sregistry.registry.wire import ExactAdapter, Overdue, Watch
from sregistry.system import limits

#: Answers that another try may change: time-outs, rate limits, and what gateways say.
RETRIED = (408, 425, 429, 499, 500, 502, 503, 504, 522, 524)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long and how often to try; all times in seconds.

    `connect` and `read` bound one connection attempt and one silence; `answer`, `document` and `error` the time from a request
    to its header lines, for a document's body, and for a body that says what went wrong. A blob brings `slow_bytes` in
    `slow_seconds`, or the try ends. The n-th repetition waits `backoff * 2**n` or up to a half less, so that clients that were cut
    off together don't come back together; at most `longest`, which also bounds a Retry-After.
    """

    connect: float = 10
    read: float = 60
    retries: int = 5
    backoff: float = 1
    longest: float = 60
    answer: float = limits.ANSWER_SECONDS
    document: float = limits.DOCUMENT_SECONDS
    error: float = limits.ERROR_SECONDS
    slow_bytes: int = limits.SLOW_BYTES
    slow_seconds: float = limits.SLOW_SECONDS
    clock: Callable[[], float] = time.monotonic

    def watch(self, brief: float | None = None) -> Watch:
        """Return the watch of a request; with *brief* its answer comes in so many seconds."""
        return Watch(
            answer=self.answer if brief is None else brief,
            document=self.document if brief is None else brief,
            error=self.error,
            slow_bytes=self.slow_bytes,
            slow_seconds=self.slow_seconds,
            clock=self.clock,
        )

    def attempts(self) -> Attempts:
        """Return a count of attempts at one thing."""
        return Attempts(self)

    def wait(self, attempt: int) -> None:
        """Sleep after the failed *attempt*, counted from 0."""
        time.sleep(min(self.longest, self.backoff * 2**attempt) * random.uniform(0.5, 1))  # noqa: S311 -- no secret


class Attempts:
    """Attempts at one thing, of which each that follows another waits for longer.

    ```
    attempts = patience.attempts()
    while True:
        try:
            return get()
        except TransferError as error:
            attempts.again(error)
    ```
    """

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        #: Those that failed, since something was got last.
        self.failed = 0

    def again(self, error: Exception) -> None:
        """Wait before the next attempt. Raises *error*, of the last one: there is none left."""
        self.failed += 1
        if self.failed > self._patience.retries:
            raise error
        self._patience.wait(self.failed - 1)


#: That of somebody who waits for the answer.
IMPATIENT = Patience(retries=2, longest=10)


class _Retry(Retry):
    """urllib3's Retry that survives a senseless Retry-After, knows the headers of rate limits, and bounds both by `backoff_max`."""

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        try:
            seconds = super().get_retry_after(response)
        except (InvalidHeader, ValueError, OverflowError):
            seconds = None
        if seconds is None and response.status == 429:
            seconds = reset_of(response.headers)
        return None if seconds is None else min(seconds, self.backoff_max)


class Authorization(AuthBase):
    """Sets the header, or none; being there at all keeps requests from looking into ~/.netrc."""

    def __init__(self, header: str | None) -> None:
        self._header = header

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers.pop("Authorization", None)
        if self._header is not None:
            request.headers["Authorization"] = self._header
        return request


def new_session(patience: Patience) -> requests.Session:
    """Return a session that retries as *patience* says.

    Connection failures are repeated twice only: a wrong host name should not cost minutes. TLS
    failures are not repeated.
    """
    retry = _Retry(
        total=patience.retries,
        connect=min(2, patience.retries),
        read=min(2, patience.retries),
        other=0,
        redirect=False,
        status_forcelist=RETRIED,
        allowed_methods={"GET"},
        backoff_factor=patience.backoff,
        backoff_max=patience.longest,
        backoff_jitter=patience.backoff / 2,
        raise_on_status=False,
    )
    session = requests.Session()
    session.headers.update({"User-Agent": f"sregistry/{__version__}", "Accept-Encoding": "identity"})
    for scheme in ("http://", "https://"):
        session.mount(scheme, ExactAdapter(max_retries=retry))
    return session


NO_TLS = "plain http?"


def why(error: BaseException, patience: Patience) -> tuple[str, str | None]:
    """Return why there was no answer, and what to do."""
    chain = _chain(error)

    def find(kind: type[T]) -> T | None:
        return next((item for item in chain if isinstance(item, kind)), None)

    if certificate := find(ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {certificate.verify_message}", "for a private authority set REQUESTS_CA_BUNDLE"
    if find(socket.gaierror) or find(urllib3.exceptions.NameResolutionError):
        return "this name is not known", "check the name and the network"
    if find(urllib3.exceptions.ProxyError):
        return "the proxy does not answer", "check HTTPS_PROXY and NO_PROXY"
    if find(ssl.SSLError) or find(urllib3.exceptions.SSLError):
        return "it speaks no TLS", NO_TLS
    if find(Overdue):
        return "its answer takes too long", "try again later"
    if find(urllib3.exceptions.ReadTimeoutError):
        return f"no answer in {patience.read:g} s", "try again later"
    if find(http.client.RemoteDisconnected):
        return "it closed the connection without an answer", "check host and port"
    if find(http.client.HTTPException):
        return "it speaks no HTTP", "check host and port"
    for problem in chain:
        if isinstance(problem, OSError) and problem.errno:
            return os.strerror(problem.errno).lower(), "check host, port and network"
    if find(urllib3.exceptions.ConnectTimeoutError) or find(TimeoutError):
        return f"no connection in {patience.connect:g} s", "check host, port and network"
    if isinstance(error, ValueError):
        return "this is no valid address", "check host and port"
    return type(error).__name__, None


def _chain(error: BaseException) -> list[BaseException]:
    """Return *error* and everything that it wraps."""
    found: list[BaseException] = []
    todo: list[object] = [error]
    while todo:
        item = todo.pop(0)
        if isinstance(item, BaseException) and item not in found:
            found.append(item)
            todo += [item.__cause__, item.__context__, getattr(item, "reason", None), *item.args]
    return found


def without_retries(adapter: BaseAdapter) -> ExactAdapter:
    """Return one that uses the connections of *adapter*, which `new_session` made, and tries once."""
    assert isinstance(adapter, ExactAdapter)
    single = ExactAdapter(max_retries=0)
    single.poolmanager, single.proxy_manager = adapter.poolmanager, adapter.proxy_manager
    return single
