"""The address of a request: one parser, whose reading is the one that connects.

```
HTTPS://user:word@Host.example:443/v2/a%7eb?x=%2F#part
└scheme └dropped  └host        └port └ target, byte for byte as it was written
https    ─────────▶ host.example     /v2/a%7eb?x=%2F
```

Python's urlsplit, urllib3 and browsers read odd addresses differently (``http://a\\@b/`` is at a for one, at b for
another), and a check by one parser is worth nothing before a connection by another. So what could be read in two ways is
no address here, and `Address.url`, which every part of requests and urllib3 reads alike, is what is connected to. Grammar: a part of
RFC 3986, 3; names are LDH and ``_``; a host beyond ASCII is to be written in its ``xn--`` form.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_ABSOLUTE = re.compile(r"(https?)://([^/?#]*)([^#]*)(?:#.*)?", re.IGNORECASE | re.DOTALL)
# A user name is read so that it can be dropped.
_AUTHORITY = re.compile(r"(?:[!$&'()*+,;=:%A-Za-z0-9._~-]*@)?(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]*))?")
_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f]")
# What can't stand in a request line.
_UNSENT = re.compile(r"[^\x21-\x7e]+")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a request goes: `scheme` http or https, `netloc` host[:port] in lower case, `target` path and query as they were written."""

    scheme: str
    netloc: str
    target: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an absolute address; ValueError for all that is none, or that parsers read differently.

        Characters that no request line can hold are percent-encoded (UTF-8), and nothing else is changed.
        """
        found = _ABSOLUTE.fullmatch(text)
        if found is None or _FORBIDDEN.search(text):
            raise ValueError("no web address")
        scheme = found[1].lower()
        authority = _AUTHORITY.fullmatch(found[2])
        if authority is None:
            raise ValueError("no host")
        target = found[3] if found[3].startswith("/") else f"/{found[3]}"
        return cls(scheme, _host(authority[1].lower()) + _port(authority[2] or "", scheme), _UNSENT.sub(_quoted, target))

    @property
    def url(self) -> str:
        """The whole address, without user name and fragment."""
        return f"{self.scheme}://{self.netloc}{self.target}"

    @property
    def origin(self) -> tuple[str, str]:
        """Scheme and host[:port]: credentials are for one of these (RFC 6454, 4)."""
        return self.scheme, self.netloc

    def join(self, reference: str) -> Address:
        """Return the address that *reference* names from here (RFC 3986, 5.2); ValueError as `parse`.

        What is absolute, and a path from the root, stay byte for byte as they are: they may be signed.
        """
        if reference.startswith("//"):
            return Address.parse(f"{self.scheme}:{reference}")
        if _SCHEME.match(reference):
            return Address.parse(reference)
        path = self.target.partition("?")[0]
        head = reference.partition("#")[0]
        if not head:
            target = self.target
        elif head.startswith("/"):
            target = head
        elif head.startswith("?"):
            target = path + head
        else:
            below, mark, query = head.partition("?")
            target = _without_dots(path[: path.rindex("/") + 1] + below) + mark + query
        return Address.parse(f"{self.scheme}://{self.netloc}{target}")


def from_header(value: str) -> str:
    """Return a header's value as text: http.client reads its bytes as Latin-1, and an address in it may be UTF-8.

    Bytes beyond ASCII are percent-encoded one by one, so that the same bytes are asked for.
    """
    return _BEYOND_ASCII.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode("latin-1", "replace")), value.strip(" \t"))


def is_loopback(text: str) -> bool:
    """Tell whether an address, or ``//host``, is on this machine: by number, or as localhost."""
    try:
        netloc = Address.parse(f"http:{text}" if text.startswith("//") else text).netloc
    except ValueError:
        return False
    name = netloc.rpartition("]")[0].lstrip("[") or netloc.partition(":")[0]
    try:
        number = ipaddress.ip_address(name)
    except ValueError:
        return name == "localhost"
    mapped = getattr(number, "ipv4_mapped", None)
    return (mapped or number).is_loopback


def origin(url: str | None) -> tuple[str, str]:
    """Return scheme and host[:port] of an address; ("", "") for what is none, which is nobody's origin: compare with `same_origin`."""
    try:
        return Address.parse(url or "").origin
    except ValueError:
        return "", ""


def same_origin(one: str | None, other: str | None) -> bool:
    """Tell whether both are addresses of one origin."""
    return origin(one) == origin(other) != ("", "")


def host_of(url: str | None) -> str:
    """Return host[:port] of an address, "" for what is none: all that messages show of it."""
    return origin(url)[1]


def _host(host: str) -> str:
    if host.startswith("["):
        return f"[{ipaddress.IPv6Address(host[1:-1])}]"
    labels = host.removesuffix(".").split(".")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("no host")
    return host


def _port(text: str, scheme: str) -> str:
    """Return ``:port``, "" for the scheme's own (RFC 3986, 6.2.3)."""
    if not text:
        return ""
    port = int(text) if len(text) <= 9 else 0
    if not 0 < port < 65536:
        raise ValueError("no port")
    return "" if port == _PORTS[scheme] else f":{port}"


def _quoted(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass"))


def _without_dots(path: str) -> str:
    """Remove ``.`` and ``..`` (RFC 3986, 5.2.4) from a path that begins with a slash."""
    kept: list[str] = []
    parts = path.split("/")[1:]
    for i, part in enumerate(parts):
        last = i == len(parts) - 1
        if part == "..":
            kept = kept[:-1]
        elif part != ".":
            kept.append(part)
        if last and part in (".", ".."):
            kept.append("")
    return "/" + "/".join(kept)
