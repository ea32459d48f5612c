"""The body of an answer: read as it comes, exactly as long as it must be, whole or a part (RFC 9110, 14).

```
response ─▶ stream ─┬─▶ exactly ─▶ Part   a blob: as it came, or decoded; a lowest rate
                    └─▶ read              a document: without its content coding; a limit of bytes and one of seconds
```
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import requests
import urllib3
from urllib3.exceptions import HTTPError

from sregistry.errors import DigestMismatch, RegistryError, TransferError
from sregistry.oci.documents import Descriptor
from sregistry.registry.content_codings import CodingError, codings_of, decoded, plain
from sregistry.registry.wire import watch_of
from sregistry.system import limits

#: Bytes read at once, at most.
CHUNK = 1 << 20
#: A piece of a blob that is hardly worth its handling; how many are bearable; and what is waited for then.
_CRUMB, _CRUMBS, _SLICE = 512, 1000, 16 << 10

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


class Part(NamedTuple):
    """Bytes *start* to *end* of a blob, or to its end if nobody knows how large it is, to be read from `chunks`.

    `coded`: the server says that they are in a content coding, and they come as they are: if the digest does not hold, it may
    be that of the decoded ones. `announced`: the bytes that will come, if the server says so.
    """

    start: int
    end: int | None
    chunks: Iterator[bytes]
    coded: bool = False
    announced: int | None = None


def stream(response: requests.Response, host: str) -> Iterator[bytes]:
    """Yield a blob's bytes as they come over the wire, undecoded. Raises TransferError when they break off, or come too slowly."""
    watch = watch_of(response)
    watch.allow_blob()
    received = 0
    try:
        # What is there, at once: waiting for more would lose it when the connection breaks off. But a body in crumbs is read by the slice.
        crumbs = 0
        while (
            chunk := response.raw.read(_SLICE, decode_content=False)
            if crumbs > _CRUMBS
            else response.raw.read1(CHUNK, decode_content=False)
        ):
            received += len(chunk)
            crumbs += len(chunk) < _CRUMB
            left = watch.pause(len(chunk))
            yield chunk
            watch.resume(left)
    except (HTTPError, OSError) as error:
        reason = "closed the connection"
        if isinstance(error, urllib3.exceptions.ReadTimeoutError):
            reason = "sends too slowly, and was left" if watch.over else "fell silent"
        raise TransferError(f"{host} {reason} after {received} bytes", hint="try again later") from None
    finally:
        response.close()


def range_of(start: int, end: int | None) -> dict[str, str]:
    """Return the header that asks for a part (RFC 9110, 14.2)."""
    return {"Range": f"bytes={start}-{'' if end is None else end - 1}"}


def entire(response: requests.Response, blob: Descriptor, host: str, *, decode: bool = False) -> Part:
    """Return all of a blob, from an answer of status 200.

    Args:
        decode: undo its content coding. Without it, this is done where as many bytes are announced as the blob can't have.
    """
    codings, announced = codings_of(response), _announced(response)
    if codings and (decode or None not in (announced, blob.size)) and (decode or announced != blob.size):
        return Part(0, blob.size, exactly(_decoded(response, host, codings, str(blob.digest)), blob, host, blob.size))
    chunks = exactly(stream(response, host), blob, host, blob.size, coded=bool(codings))
    return Part(0, blob.size, chunks, bool(codings), announced)


def ranged(response: requests.Response, blob: Descriptor, host: str, start: int, end: int | None) -> Part | None:
    """Return what a range request got; None where the answer makes no sense, and the whole blob must be asked for.

    RFC 9110, 14.4: an answer of status 206 says which part it is and how long the whole is. Of a coded body, it is a part of
    what came out of the coding.
    """
    if response.status_code == 200:
        return entire(response, blob, host)
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
    if response.status_code != 206 or found is None or int(found[1]) != start or int(found[2]) < start:
        response.close()
        return None
    last = end or blob.size
    if last is not None and int(found[2]) >= last:
        response.close()
        return None
    codings = codings_of(response)
    if blob.size is not None and found[3] not in ("*", str(blob.size)):
        response.close()
        if codings:
            return None
        raise DigestMismatch(f"{blob.digest}: {host} has {found[3]} bytes, the manifest declares {blob.size}", hint="try again later")
    end = int(found[2]) + 1
    return Part(start, end, exactly(stream(response, host), blob, host, end - start), bool(codings), end - start)


def exactly(chunks: Iterator[bytes], blob: Descriptor, host: str, size: int | None, *, coded: bool = False) -> Iterator[bytes]:
    """Pass *chunks* of the blob on; a sum that is not *size*, if that is known, is an error.

    Args:
        coded: too few of them are not the blob's, and another try brings the same.
    """
    received = 0
    for chunk in chunks:
        received += len(chunk)
        if size is not None and received > size:
            raise DigestMismatch(f"{blob.digest}: {host} sends more than the {size} bytes that it was asked for")
        yield chunk
    if size is not None and received < size:
        kind = DigestMismatch if coded else TransferError
        raise kind(f"{blob.digest}: {host} ended after {received} of {size} bytes", hint="try again later")


def read(response: requests.Response, host: str, what: str, limit: int, *, decode: bool = True) -> bytes:
    """Return a small body, without its content coding.

    Raises:
        TransferError: it breaks off.
        RegistryError: it has more than *limit* bytes, takes too long, or is in a coding that is none.
    """
    data = _read(response, host, what, limit, watch_of(response).document)
    if not decode:
        return data
    try:
        data = plain(data, codings_of(response), limit)
    except CodingError as error:
        raise RegistryError(f"{host} sends {what} {error}", hint="the registry or a proxy is broken") from None
    if len(data) > limit:
        raise _too_long(host, what, limit)
    return data


def read_blob(response: requests.Response, blob: Descriptor, host: str, limit: int) -> bytes:
    """Return a small blob, as it came or decoded: what its digest says. Raises as `read`, DigestMismatch."""
    data = read(response, host, str(blob.digest), limit, decode=False)
    codings = codings_of(response)
    if codings and not blob.digest.matches(data):
        try:
            data = plain(data, codings, limit)
        except CodingError as error:
            raise RegistryError(f"{host} sends {blob.digest} {error}", hint="the registry or a proxy is broken") from None
    elif blob.size is not None and len(data) < blob.size:
        raise TransferError(f"{blob.digest}: {host} ended after {len(data)} of {blob.size} bytes", hint="try again later")
    if blob.size is not None and len(data) > blob.size:
        raise DigestMismatch(f"{blob.digest}: {host} sends more than the {blob.size} bytes that the manifest declares")
    if not blob.digest.matches(data):
        raise DigestMismatch(f"{blob.digest}: {host} sends other bytes", hint="the registry or a proxy is broken")
    return data


def read_error(response: requests.Response) -> bytes:
    """Return a body that says what went wrong. Raises RegistryError: there is too much of it, or it does not come."""
    data = _read(response, "", "", limits.ERROR_BODY, watch_of(response).error)
    try:
        return plain(data, codings_of(response), limits.ERROR_BODY)
    except CodingError:
        raise RegistryError("damaged") from None


def drain(response: requests.Response) -> None:
    """Read a short body that nobody wants, so that the connection can be used again; any other is left with its connection."""
    try:
        if (_announced(response) or 0) <= limits.ERROR_BODY:
            _read(response, "", "", limits.ERROR_BODY, watch_of(response).error)
    except RegistryError:
        pass
    response.close()


def _read(response: requests.Response, host: str, what: str, limit: int, seconds: float) -> bytes:
    """Read a body as it comes, up to *limit* bytes in so many seconds; in time that is linear in its bytes, whatever its chunks."""
    watch = watch_of(response)
    watch.allow(seconds)
    data = bytearray()
    try:
        # `read1` would cost as much for a chunk of one byte as for one of a MiB.
        while chunk := response.raw.read(min(CHUNK, limit + 1 - len(data)), decode_content=False):
            data += chunk
            if len(data) > limit:
                raise _too_long(host, what, limit)
    except (HTTPError, OSError) as error:
        if watch.over:
            raise RegistryError(f"{host} takes more than {seconds:g} s to send {what}", hint="try again later") from None
        silent = isinstance(error, urllib3.exceptions.ReadTimeoutError)
        reason = "fell silent" if silent else "closed the connection"
        raise TransferError(f"{host} {reason} after {len(data)} bytes", hint="try again later") from None
    finally:
        response.close()
    return bytes(data)


def _too_long(host: str, what: str, limit: int) -> RegistryError:
    return RegistryError(f"{host} sends more than {limit} bytes for {what}", hint="check that this host is a registry")


def _decoded(response: requests.Response, host: str, codings: tuple[str, ...], what: str) -> Iterator[bytes]:
    try:
        yield from decoded(stream(response, host), codings)
    except CodingError as error:
        raise RegistryError(f"{host} sends {what} {error}", hint="the registry or a proxy is broken") from None


def _announced(response: requests.Response) -> int | None:
    """Return the bytes of the body, as its header says (RFC 9110, 8.6); of one in chunks it says nothing."""
    length = response.headers.get("Content-Length", "").strip()
    chunked = "Transfer-Encoding" in response.headers
    return int(length) if not chunked and re.fullmatch(r"[0-9]{1,18}", length) else None
