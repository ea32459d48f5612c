"""A store, or any OCI image layout, as a read-only registry.

```
GET, HEAD  /v2/                                   200: a registry
           /v2/<name>/manifests/<tag | digest>    a manifest or index
           /v2/<name>/blobs/<digest>              a blob; one byte range if asked for
           /v2/<name>/tags/list[?n=…&last=…]      the tags, with a Link to the next page
           /v2/_catalog[?n=…&last=…]              the repositories, likewise
```

OCI distribution-spec 1.1, "Pull" and "Content discovery"; docker/distribution's HTTP API, "Listing
Repositories". Names come from the layout's index.json: `[host/]repository:tag` serves `repository`,
whatever the host. Every repository that index.json names offers every blob of the layout. A path becomes a
file only by way of a digest, and only a regular file: a layout may come from anywhere, with links to anywhere.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import socket
import socketserver
import sys
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from sregistry.errors import DocumentError, InvalidReference, RegistryError, SregistryError, StoreError
from sregistry.oci.documents import Descriptor, Digest
from sregistry.oci.json_fields import MAX_DOCUMENT
from sregistry.oci.parse import parse_manifest
from sregistry.oci.reference import Reference
from sregistry.store.beneath import Root
from sregistry.store.store import Store
from sregistry.terminal import printable

_ROUTE = re.compile(r"/v2/(?P<name>.+)/(?P<kind>manifests|blobs|tags)/(?P<target>[^/]+)")
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
#: Errors of this machine, which may pass: the blob may well be there.
_TROUBLE = (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE)
_JSON = "application/json"
_OCTETS = "application/octet-stream"

#: Tag (or digest) → descriptor, a repository.
Names = Mapping[str, Mapping[str, Descriptor]]


def serve(store: Store, host: str = "127.0.0.1", port: int = 0, *, log: TextIO | None = None) -> Server:
    """Return a server that listens, and answers once its `serve_forever` runs.

    Args:
        port: 0 takes any free one; `server.address` says which.
        log: for a line a request.

    Raises:
        RegistryError: the address can't be used.
    """
    try:
        return Server(store, host, port, log)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise RegistryError(f"can't listen on {host}:{port}: {reason}", hint="choose another port") from error


def run(root: Path, host: str, port: int, *, log: TextIO | None = None) -> int:
    """Serve the layout at *root* until Ctrl-C and return 0.

    Raises:
        StoreError: *root* is no image layout. RegistryError: the address can't be used.
    """
    if not Root(root).is_file("oci-layout"):
        raise StoreError(f"{root} is no OCI image layout", hint="name a folder that holds oci-layout, index.json and blobs")
    log = log or sys.stderr
    with serve(Store(root), host, port, log=log) as server:
        print(f"serving {root} on http://{server.address}", file=log, flush=True)
        for name, tags in sorted(server.names().items()):
            print(printable(f"  {server.address}/{name}: {', '.join(sorted(tags))}"), file=log, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return 0


class Server(ThreadingHTTPServer):
    """The listening server; one thread a connection."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, store: Store, host: str, port: int, log: TextIO | None) -> None:
        self.store, self.log = store, log
        self._names: tuple[object, Names] = (None, {})
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind without HTTPServer's look-up of the host's name, which waits for a slow name server."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    @property
    def address(self) -> str:
        """``host:port``, as it stands in a reference."""
        name = f"[{self.server_name}]" if ":" in self.server_name else self.server_name
        return f"{name}:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error; anything else is one of ours and shows its traceback."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)

    def names(self) -> Names:
        """Return what index.json names, read again when it has changed. Raises StoreError."""
        try:
            found = self.store.files.stat("index.json")
            state: object = (found.st_mtime_ns, found.st_size, found.st_ino)
        except OSError:
            state = None
        if state is None or state != self._names[0]:
            self._names = (state, _names(self.store.tags()))
        return self._names[1]


def _names(tags: Mapping[str, Descriptor]) -> Names:
    """Return descriptors by repository and by tag; names that are no reference are left out."""
    found: dict[str, dict[str, Descriptor]] = {}
    for text, descriptor in tags.items():
        with contextlib.suppress(InvalidReference):
            reference = Reference.parse(text, registry="", collection="")
            named = found.setdefault(reference.repository, {})
            if reference.tag is not None:
                named[reference.tag] = descriptor
    return found


class _Problem(Exception):
    """An answer that is an error (distribution-spec, "Error codes")."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "sregistry"
    sys_version = ""
    disable_nagle_algorithm = True
    timeout = 60  # seconds; of a silent connection
    server: Server

    def do_GET(self) -> None:
        self._handle()

    def do_HEAD(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._refuse()

    do_PUT = do_PATCH = do_DELETE = do_POST  # noqa: N815 - the names are http.server's

    def _refuse(self) -> None:
        self.close_connection = True  # the body stays unread
        self._fail(_Problem(405, "UNSUPPORTED", "this registry is read-only"))

    def _handle(self) -> None:
        if self.headers.get("Content-Length", "0") != "0" or self.headers.get("Transfer-Encoding"):
            self.close_connection = True  # a GET with a body, which stays unread
        try:
            self._route()
        except _Problem as problem:
            self._fail(problem)
        except SregistryError as error:
            self._fail(_Problem(500, "UNKNOWN", str(error)))

    def _route(self) -> None:
        try:
            parts = urlsplit(self.path)
            path, query = unquote(parts.path, errors="strict"), parse_qs(parts.query)
        except ValueError:
            raise _Problem(400, "UNSUPPORTED", "this is no address") from None
        if path in ("/v2", "/v2/"):
            self._send(b"{}", _JSON)
            return
        if path == "/v2/_catalog":
            self._list(path, {}, "repositories", self.server.names(), query)
            return
        match = _ROUTE.fullmatch(path)
        if match is None:
            raise _Problem(404, "UNSUPPORTED", "no such endpoint")
        tags = self.server.names().get(match["name"])
        if tags is None:
            raise _Problem(404, "NAME_UNKNOWN", "repository name not known to registry")
        if match["kind"] == "tags":
            if match["target"] != "list":
                raise _Problem(404, "UNSUPPORTED", "no such endpoint")
            self._list(path, {"name": match["name"]}, "tags", tags, query)
        elif match["kind"] == "blobs":
            self._file(self._digest(match["target"], "BLOB_UNKNOWN"), _OCTETS, "BLOB_UNKNOWN")
        else:
            self._manifest(match["target"], tags)

    def _list(self, path: str, document: Mapping[str, object], key: str, names: Iterable[str], query: Mapping[str, list[str]]) -> None:
        """Send names in order, all or a part of them (distribution-spec, "Listing Tags")."""
        listed = sorted(name for name in names if name > query.get("last", [""])[0])
        limit = query.get("n", [""])[0]
        if limit and not re.fullmatch(r"[0-9]{1,9}", limit):
            raise _Problem(400, "PAGINATION_NUMBER_INVALID", "n is no number")
        part = listed[: int(limit)] if limit else listed
        extra = {}
        if part and len(part) < len(listed):
            extra["Link"] = f'<{path}?{urlencode({"n": limit, "last": part[-1]})}>; rel="next"'
        self._send(json.dumps({**document, key: part}).encode(), _JSON, extra=extra)

    def _manifest(self, target: str, tags: Mapping[str, Descriptor]) -> None:
        descriptor = tags.get(target)
        if descriptor is not None:
            self._file(descriptor.digest, descriptor.media_type, "MANIFEST_UNKNOWN")
            return
        digest = self._digest(target, "MANIFEST_UNKNOWN")
        try:
            with self.server.store.open(digest) as file:
                data = file.read(MAX_DOCUMENT + 1)  # what has more is refused as no document
            media_type = parse_manifest(data).media_type
        except (OSError, DocumentError):
            raise _Problem(404, "MANIFEST_UNKNOWN", "manifest unknown") from None
        self._send(data, media_type, digest)

    def _digest(self, text: str, code: str) -> Digest:
        try:
            return Digest(text)
        except DocumentError:
            status, code = (400, "DIGEST_INVALID") if ":" in text or code == "BLOB_UNKNOWN" else (404, code)
            raise _Problem(status, code, "no such digest or tag") from None

    def _file(self, digest: Digest, media_type: str, code: str) -> None:
        """Send a blob, or the part of it that is asked for, straight from the file to the socket."""
        try:
            file = self.server.store.open(digest)
        except OSError as error:
            if error.errno in _TROUBLE:
                raise _Problem(500, "UNKNOWN", "this registry can't read it now") from error
            # It isn't there, or it is a link, a pipe or a folder, or not for this user: no blob of this layout.
            raise _Problem(404, code, "unknown to registry") from None
        with file:
            size = os.fstat(file.fileno()).st_size
            asked = _range(self.headers.get("Range", ""), size)
            if asked == (0, 0) and size:
                self.send_response(416)
                self._headers(_JSON, 0, digest, {"Content-Range": f"bytes */{size}"})
                return
            start, end = asked or (0, size)
            self.send_response(206 if asked else 200)
            extra = {"Content-Range": f"bytes {start}-{end - 1}/{size}"} if asked else {}
            self._headers(media_type, end - start, digest, {"Accept-Ranges": "bytes", **extra})
            if self.command == "GET" and end > start:
                sent = self.connection.sendfile(file, start, end - start)
                if sent != end - start:  # the file got shorter: only a closed connection can say so
                    self.close_connection = True

    def _send(
        self, data: bytes, media_type: str, digest: Digest | None = None, status: int = 200, extra: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(status)
        self._headers(media_type, len(data), digest, extra or {})
        if self.command != "HEAD":
            self.wfile.write(data)

    def _headers(self, media_type: str, length: int, digest: Digest | None, extra: Mapping[str, str]) -> None:
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(length))
        self.send_header("Docker-Distribution-Api-Version", "registry/2.0")
        if digest is not None:
            self.send_header("Docker-Content-Digest", str(digest))
            self.send_header("ETag", f'"{digest}"')
        for name, value in extra.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _fail(self, problem: _Problem) -> None:
        body = {"errors": [{"code": problem.code, "message": problem.message}]}
        self._send(json.dumps(body).encode(), _JSON, status=problem.status)

    def log_message(self, format: str, *args: Any) -> None:
        """Write the request's line to the server's log; control characters are shown, not obeyed."""
        if self.server.log is not None:
            print(f"{self.address_string()} {printable(format % args)}", file=self.server.log, flush=True)


def _range(text: str, size: int) -> tuple[int, int] | None:
    """Return start and end of a byte range (RFC 9110, 14.1.2).

    None means the whole file: no range, one that breaks the grammar, or several at once, which a server
    may pass over. (0, 0) means that the range lies outside of the file.
    """
    match = _RANGE.fullmatch(text.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        last = min(int(match[2]), size)
        return (size - last, size) if last else (0, 0)
    start, end = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
    if match[2] and int(match[2]) < start:
        return None
    return (start, end) if start < size else (0, 0)
