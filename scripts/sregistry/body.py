"""The body of an answer: read as it comes, exactly as long as it must be, whole or a part (RFC 9110, 14)."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator
from typing import NamedTuple

import requests
import urllib3
from urllib3.exceptions import HTTPError

from sregistry import limits
from sregistry.errors import DigestMismatch, RegistryError, TransferError
from sregistry.oci import Descriptor

#: Bytes read at once, at most.
CHUNK = 1 << 20
#: Bytes of a body that nobody wants, or that says what went wrong.
MAX_ERROR = limits.ERROR_BODY

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")


class Part(NamedTuple):
    """Bytes *start* to *end* of a blob, or to its end if nobody knows how large it is, to be read from `chunks`."""

    start: int
    end: int | None
    chunks: Iterator[bytes]


def stream(response: requests.Response, host: str) -> Iterator[bytes]:
    """Yield a body as it comes over the wire, undecoded. Raises TransferError when it breaks off."""
    received = 0
    try:
        # What is there, at once: waiting for more would lose it when the connection breaks off.
        while chunk := response.raw.read1(CHUNK, decode_content=False):
            received += len(chunk)
            yield chunk
    except (HTTPError, OSError) as error:
        silent = isinstance(error, urllib3.exceptions.ReadTimeoutError)
        reason = "fell silent" if silent else "closed the connection"
        raise TransferError(f"{host} {reason} after {received} bytes", hint="try again later") from None
    finally:
        response.close()


def range_of(start: int, end: int | None) -> dict[str, str]:
    """Return the header that asks for a part (RFC 9110, 14.2)."""
    return {"Range": f"bytes={start}-{'' if end is None else end - 1}"}


def entire(response: requests.Response, blob: Descriptor, host: str) -> Part:
    """Return all of a blob, from an answer of status 200."""
    return Part(0, blob.size, exactly(stream(response, host), blob, host, blob.size))


def ranged(response: requests.Response, blob: Descriptor, host: str, start: int, end: int | None) -> Part | None:
    """Return what a range request got; None where the answer makes no sense, and the whole blob must be asked for.

    RFC 9110, 14.4: an answer of status 206 says which part it is and how long the whole is.
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
    if blob.size is not None and found[3] not in ("*", str(blob.size)):
        response.close()
        raise DigestMismatch(f"{blob.digest}: {host} has {found[3]} bytes, the manifest declares {blob.size}", hint="try again later")
    end = int(found[2]) + 1
    return Part(start, end, exactly(stream(response, host), blob, host, end - start))


def exactly(chunks: Iterator[bytes], blob: Descriptor, host: str, size: int | None) -> Iterator[bytes]:
    """Pass *chunks* of the blob on; a sum that is not *size*, if that is known, is an error."""
    received = 0
    for chunk in chunks:
        received += len(chunk)
        if size is not None and received > size:
            raise DigestMismatch(f"{blob.digest}: {host} sends more than the {size} bytes that it was asked for")
        yield chunk
    if size is not None and received < size:
        raise TransferError(f"{blob.digest}: {host} ended after {received} of {size} bytes", hint="try again later")


def read(response: requests.Response, host: str, what: str, limit: int, until: float = math.inf) -> bytes:
    """Return a small body. Raises TransferError, and RegistryError for one over *limit* bytes or not there by *until* (monotonic)."""
    data = b""
    for chunk in stream(response, host):
        data += chunk
        if time.monotonic() > until:
            response.close()
            raise RegistryError(f"{host} takes too long to send {what}", hint="try again later")
        if len(data) > limit:
            response.close()
            raise RegistryError(f"{host} sends more than {limit} bytes for {what}", hint="check that this host is a registry")
    return data


def drain(response: requests.Response) -> None:
    """Read a short body that nobody wants, so that the connection can be used again."""
    try:
        read(response, "", "", MAX_ERROR)
    except RegistryError:
        response.close()
