"""Requests as they go over the wire, byte for byte, and answers that come byte by byte."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from sregistry.errors import RegistryError, TransferError, UnavailableError
from sregistry.registry.bodies import read, stream
from sregistry.registry.exchange import Exchange
from sregistry.registry.http import Patience, new_session
from sregistry.registry.wire import Overdue, Watch
from sregistry.system import limits
from tests.support.scripted import HASTY, Reply, Scripted, settings

#: Nothing in a test is waited for longer than this; what ends sooner ends by its own limit.
SHORT = replace(HASTY, retries=0, read=5, answer=0.2, document=0.2, error=0.2, slow_seconds=0.2, slow_bytes=1000)


class Clock:
    """Seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def drip() -> Iterator[Callable[[Iterator[bytes]], str]]:
    """A server that sends whatever it is given, piece by piece, and returns its address."""
    stop = threading.Event()
    threads: list[threading.Thread] = []

    def start(pieces: Iterator[bytes], pause: float = 0.005) -> str:
        listener = socket.create_server(("127.0.0.1", 0))

        def run() -> None:
            with listener:
                listener.settimeout(5)
                connection, _ = listener.accept()
            with connection:
                connection.settimeout(5)
                try:
                    connection.recv(65536)
                    for piece in pieces:
                        if stop.is_set():
                            return
                        connection.sendall(piece)
                        stop.wait(pause)
                except OSError:
                    return

        thread = threading.Thread(target=run)
        thread.start()
        threads.append(thread)
        return f"http://127.0.0.1:{listener.getsockname()[1]}/x"

    yield start
    stop.set()
    for thread in threads:
        thread.join()


def exchange(patience: Patience = SHORT) -> Exchange:
    return Exchange(new_session(patience), settings("127.0.0.1"), patience)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(lambda: itertools.repeat(b"H"), id="status"),
        pytest.param(lambda: itertools.chain([HEAD, b"X: "], itertools.repeat(b"x")), id="header"),
        pytest.param(lambda: itertools.chain([HEAD], itertools.cycle([b"X: y\r\n"])), id="headers"),
        pytest.param(lambda: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"), id="interim"),
        pytest.param(lambda: itertools.chain([b"HTTP/1.1 100 Continue\r\n"], itertools.repeat(b"X: y\r\n")), id="interim-headers"),
    ],
)
def test_a_header_block_that_comes_bit_by_bit(drip: Callable[[Iterator[bytes]], str], pieces: Callable[[], Iterator[bytes]]) -> None:
    with pytest.raises(UnavailableError, match=r"can't reach 127\.0\.0\.1:[0-9]+: (its answer takes too long|it speaks no HTTP)"):
        exchange().send(drip(pieces()), {}, None)


def test_interim_answers_without_end_have_a_limit_of_bytes(drip: Callable[..., str]) -> None:
    patience = replace(SHORT, answer=60)
    many = itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
    with pytest.raises(UnavailableError, match="its answer takes too long"):
        exchange(patience).send(drip(many, 0), {}, None)


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(lambda: itertools.chain([HEAD, b"Content-Length: 9999999\r\n\r\n"], itertools.repeat(b" ")), id="length"),
        pytest.param(lambda: itertools.chain([HEAD, b"Connection: close\r\n\r\n"], itertools.repeat(b" ")), id="close"),
        pytest.param(lambda: itertools.chain([CHUNKED], itertools.repeat(b"1\r\n \r\n")), id="chunks"),
        pytest.param(lambda: itertools.chain([CHUNKED, b"1"], itertools.repeat(b"0")), id="chunk-size"),
        pytest.param(lambda: itertools.chain([CHUNKED, b"1;x="], itertools.repeat(b"0")), id="chunk-extension"),
        pytest.param(lambda: itertools.chain([CHUNKED, b"1\r\n{\r\n0\r\n"], itertools.repeat(b"X: y\r\n")), id="trailers"),
        pytest.param(lambda: itertools.chain([CHUNKED, b"1\r\n{\r\n0\r\nX: "], itertools.repeat(b"y")), id="trailer"),
    ],
)
def test_a_body_that_comes_bit_by_bit(drip: Callable[[Iterator[bytes]], str], pieces: Callable[[], Iterator[bytes]]) -> None:
    response = exchange().send(drip(pieces()), {}, None)
    with pytest.raises(RegistryError, match=r"^host takes more than 0\.2 s to send a thing; try again later"):
        read(response, "host", "a thing", 1 << 20)
    response = exchange().send(drip(pieces()), {}, None)
    with pytest.raises(TransferError, match=r"host sends too slowly, and was left after [0-9]+ bytes"):
        for _ in stream(response, "host"):
            pass


def test_the_body_of_an_error_that_is_tried_again_has_limits(drip: Callable[..., str]) -> None:
    """urllib3 reads it before it sends the next request, whatever its length."""
    head = b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    patience = replace(SHORT, retries=1, answer=60, backoff=0)
    with pytest.raises(UnavailableError):
        exchange(patience).send(drip(itertools.chain([head], itertools.repeat(chunk)), 0), {}, None)


def test_a_blob_goes_on_as_long_as_it_brings_enough() -> None:
    clock = Clock()
    watch = Watch(slow_bytes=100, slow_seconds=10, clock=clock)
    watch.allow_blob()
    for _ in range(20):  # 60 bytes in 9 s, and again
        clock.now += 4.5
        left = watch.pause(60)
        clock.now += 1000  # what others do with them does not count
        watch.resume(left)
        assert watch.left() > 0
    clock.now += 4.5
    watch.resume(watch.pause(1))
    clock.now += 9
    with pytest.raises(Overdue):
        watch.left()
    assert watch.over


def test_what_nobody_reads_has_a_limit_of_bytes() -> None:
    watch = Watch(clock=Clock())
    watch.begin()
    watch.took(limits.ANSWER_BYTES)
    with pytest.raises(Overdue):
        watch.took(1)
    watch.allow(1)
    watch.took(1 << 40)


class Counted:
    """A body that counts how often it is read."""

    def __init__(self, raw: Any) -> None:
        self.raw, self.reads = raw, 0

    def read(self, *arguments: Any, **options: Any) -> Any:
        self.reads += 1
        return self.raw.read(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.raw, name)


def test_chunks_of_one_byte_cost_what_their_bytes_do(drip: Callable[..., str]) -> None:
    """A document is asked for by the MiB, whatever its chunks; what came before is never copied again."""
    size = 40_000
    body = CHUNKED + b"1\r\n \r\n" * size + b"0\r\n\r\n"
    response = exchange(replace(SHORT, document=60)).send(drip(iter([body])), {}, None)
    counted = response.raw = Counted(response.raw)
    assert read(response, "host", "a thing", size) == b" " * size
    assert counted.reads <= 3
    response = exchange(replace(SHORT, slow_seconds=60)).send(drip(iter([body])), {}, None)
    pieces = list(stream(response, "host"))
    assert b"".join(pieces) == b" " * size and len(pieces) < 1100


TARGETS = [
    "/a%7Eb?x=%7e",
    "/a~b%2fc%2F?x=%2F+%20&y=a+b&z",
    "/a//b/../c/./d?",
    "/%E2%82%AC%e2%82%ac?q=%zz",
    "/x?a=b;c=d&X-Amz-Signature=0aF%3D%3d/+=",
    "/x!$&'()*+,;=:@-._~|^`{}[]\"<>\\",
    "//double/slash",
    "/?",
    "/x?a?b?c",
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("form", ["absolute", "scheme-relative", "path"])
def test_a_redirect_s_address_is_asked_for_as_it_was_sent(target: str, form: str) -> None:
    with Scripted() as server:
        text = {"absolute": server.url + target, "scheme-relative": f"//{server.host}{target}", "path": target}[form]
        if form == "path" and target.startswith("//"):
            return  # this is a host
        server.routes["/start"] = Reply(307, b"", [("Location", text + "#part")])
        response = exchange().follow(f"{server.url}/start", {}, None)
        assert response.url == server.url + target
        assert server.lines() == ["GET /start HTTP/1.1", f"GET {target} HTTP/1.1"]


@pytest.mark.parametrize(
    ("sent", "asked"),
    [("/ü?ß".encode(), "/%C3%BC?%C3%9F"), (b"/\xff", "/%FF"), (b"/a b?c d", "/a%20b?c%20d")],
)
def test_what_no_request_line_can_hold_is_quoted(sent: bytes, asked: str) -> None:
    with Scripted() as server:
        server.routes["/start"] = Reply(raw=b"HTTP/1.1 307 X\r\nContent-Length: 0\r\nConnection: close\r\nLocation: " + sent + b"\r\n\r\n")
        exchange().follow(f"{server.url}/start", {}, None)
        assert server.lines()[-1] == f"GET {asked} HTTP/1.1"


def test_a_proxy_is_asked_for_the_whole_address(monkeypatch: pytest.MonkeyPatch) -> None:
    target = "http://registry.example/a%7Eb?x=%2f&y"
    with Scripted() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        exchange().send(target, {}, None)
        assert proxy.lines() == [f"GET {target} HTTP/1.1"]
        assert proxy.asked[0].headers["Host"] == "registry.example"


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("http://{host}/y", "redirects from https to plain http on {host}"),
        ("HTTP://{host}/y", "redirects from https to plain http on {host}"),
    ],
)
def test_https_is_never_left(location: str, words: str) -> None:
    """The first request is made over plain http to a server that says it is another: only the order of hops is looked at."""
    with Scripted() as server:
        server.routes["/start"] = Reply(307, b"", [("Location", location.format(host=server.host))])

        class Plain(Exchange):
            """Sends over plain http what is meant for https."""

            def _get(self, address, *rest, **options):  # type: ignore[no-untyped-def]
                return super()._get(replace(address, scheme="http", netloc=server.host), *rest, **options)

        with pytest.raises(RegistryError, match=words.format(host=server.host)):
            Plain(new_session(SHORT), settings("registry.example", https=True), SHORT).follow("HTTPS://registry.example/start", {}, None)


@pytest.mark.parametrize(
    "location",
    [
        *("http://evil\\@{host}/", "http://{host}\\@evil/", "http:\\\\{host}/", "http:/{host}/", "ftp://{host}/", "file:///etc/passwd"),
        *("http://{host}%2eevil/", "http://[fe80::1%25lo]/", "http://{host}:99999/", "javascript:x", "http://b\xfccher.example/"),
    ],
)
def test_redirects_to_what_is_no_address(location: str) -> None:
    with Scripted() as server:
        server.routes["/start"] = Reply(307, b"", [("Location", location.format(host=server.host))])
        with pytest.raises(RegistryError, match=r"redirects to something that is no web address; this is refused") as caught:
            exchange().follow(f"{server.url}/start", {}, "Bearer s3cret")
        assert "s3cret" not in str(caught.value) and len(server.asked) == 1
