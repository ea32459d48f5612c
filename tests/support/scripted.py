"""An HTTP server on 127.0.0.1 that answers as a test tells it, faults included, and remembers what it was asked."""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Protocol, Self

from sregistry.config.settings import RegistrySettings
from sregistry.registry.client import RegistryClient
from sregistry.registry.credentials import Keyring
from sregistry.registry.http import Patience
from tests.support.registry import running

#: Times short enough for tests; three tries.
HASTY = Patience(connect=2, read=0.5, retries=2, backoff=0.005, longest=0.02)

TOKEN = "nvapi-s3cret/tok+en"


@dataclass(frozen=True)
class Reply:
    """One answer. `length` declares another Content-Length than the body's; `raw` is sent in place of any HTTP.

    The server waits `delay` seconds before it answers, and `silence` before it hangs up in the middle of a body,
    of which it sends `rate` bytes a second, if that is given.
    """

    status: int = 200
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = ()
    length: int | None = None
    delay: float = 0
    silence: float = 0
    rate: int = 0
    raw: bytes | None = None


@dataclass(frozen=True)
class Asked:
    """One request: the path with its query, the headers, the body of a POST, and the request line as it came."""

    path: str
    headers: Message
    body: bytes = b""
    line: str = ""

    @property
    def authorization(self) -> str | None:
        return self.headers["Authorization"]


Answer = Reply | Callable[[Asked], Reply]


@dataclass
class Scripted:
    """`routes`: path → answer, or a list of answers of which the last one stays. Unknown paths give 404."""

    routes: dict[str, Answer | list[Answer]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> Self:
        script = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                script._answer(self)

            def do_POST(self) -> None:
                script._answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._running = running(self._server)
        self._running.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._running.__exit__(kind, error, trace)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}"

    def paths(self) -> list[str]:
        return [asked.path for asked in self.asked]

    def lines(self) -> list[str]:
        return [asked.line for asked in self.asked]

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = Asked(handler.path, handler.headers, handler.rfile.read(int(handler.headers["Content-Length"] or 0)), handler.requestline)
        self.asked.append(asked)
        answer = self.routes.get(handler.path, self.routes.get(handler.path.partition("?")[0], Reply(404, b"404 page not found")))
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        reply = answer if isinstance(answer, Reply) else answer(asked)
        time.sleep(reply.delay)
        try:
            if reply.raw is not None:
                handler.connection.sendall(reply.raw)
                self._hang_up(handler)
                return
            handler.send_response(reply.status)
            for name, value in reply.headers:
                handler.send_header(name, value)
            chunked = any(name.lower() == "transfer-encoding" for name, _ in reply.headers)
            if not chunked:
                handler.send_header("Content-Length", str(len(reply.body) if reply.length is None else reply.length))
            handler.end_headers()
            for at in range(0, len(reply.body), reply.rate // 20) if reply.rate else ():
                handler.wfile.write(reply.body[at : at + reply.rate // 20])
                time.sleep(0.05)
            if not reply.rate:
                handler.wfile.write(reply.body)
            if reply.length is not None and reply.length > len(reply.body):
                time.sleep(reply.silence)
                self._hang_up(handler)
        except (ConnectionError, TimeoutError):
            handler.close_connection = True

    @staticmethod
    def _hang_up(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_WR)


class _Server(ThreadingHTTPServer):
    """A server that says nothing of clients that left."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Request(Protocol):
    """What asks: this server's, or http.server's own."""

    @property
    def headers(self) -> Message: ...


def ranged(data: bytes) -> Callable[[_Request], Reply]:
    """Answer with *data*, or the part of it that is asked for (RFC 9110, 14.2)."""

    def reply(asked: _Request) -> Reply:
        found = re.fullmatch(r"bytes=([0-9]+)-([0-9]*)", asked.headers["Range"] or "")
        if found is None:
            return Reply(200, data)
        start, end = int(found[1]), min(int(found[2]) + 1 if found[2] else len(data), len(data))
        if start >= end:
            return Reply(416, b"", [("Content-Range", f"bytes */{len(data)}")])
        return Reply(206, data[start:end], [("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")])

    return reply


def settings(host: str, *, token: str | None = None, client: str = "nvidia", https: bool = False) -> RegistrySettings:
    """Return the settings of a client whose registry is *host*."""
    return RegistrySettings(
        client=client,
        base=host,
        collection="nvidia" if client == "nvidia" else "library",
        https=https,
        version="v2",
        username="$oauthtoken" if client == "nvidia" else "me",
        token=token,
        token_variable=f"SREGISTRY_{client.upper()}_TOKEN",
    )


def client(host: str, *, environ: Mapping[str, str] | None = None, **options: Any) -> RegistryClient:
    """Return a hasty client of the registry *host*, which knows no credentials but those of *environ*."""
    meant = settings(host, **options)
    return RegistryClient(meant, patience=HASTY, keyring=Keyring(meant, environ or {}))


def json_errors(code: str, message: str = "") -> bytes:
    """Return the body of an error answer (distribution-spec, "Error codes")."""
    return f'{{"errors":[{{"code":"{code}","message":"{message}"}}]}}'.encode()


def bearer(realm: str, **parameters: str) -> Mapping[str, str]:
    """Return a Bearer challenge as a header."""
    words = [f'realm="{realm}"', *(f'{name}="{value}"' for name, value in parameters.items())]
    return {"WWW-Authenticate": "Bearer " + ",".join(words)}
