"""The records of pax extended headers: what they say of an entry, and nothing else of them.

```
| length in decimal, of the whole record | space | key | = | value | newline | length …
```

POSIX.1-2024, pax "pax Header Block"; extended attributes as star and libarchive name them, sparse maps as
GNU tar does. Keys that mean nothing here are passed over at once, so that memory follows what is kept.
"""

from __future__ import annotations

import base64
import binascii
from array import array
from urllib.parse import unquote_to_bytes

from sregistry.layers.tar_fields import Fail, integer, show
from sregistry.system import limits

_KEYS = frozenset((b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"))
_PAIRS = (b"GNU.sparse.offset", b"GNU.sparse.numbytes")
_SPARSE = frozenset(b"GNU.sparse." + name for name in (b"major", b"map", b"name", b"realsize", b"size"))
_STAR, _LIBARCHIVE = b"SCHILY.xattr.", b"LIBARCHIVE.xattr."
#: Names that are a namespace of Linux and nothing more.
_UNNAMED = frozenset((b"", b"user.", b"trusted.", b"security.", b"system."))


class Records:
    """What the extended headers before an entry say, the last of each key.

    Attributes:
        values: of keys that mean something here; an empty one takes back what a global header says.
        xattrs: name → value.
        pairs: offset, length, offset … of a sparse map of version 0.0, which repeats its keys.
        wrong: the first attribute that Linux can't hold, in words; said as soon as the entry's name is known.
    """

    __slots__ = ("_names", "pairs", "values", "wrong", "xattrs")

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.xattrs: dict[bytes, bytes] = {}
        self.pairs: array[int] = array("Q")
        self.wrong = ""
        self._names = 0

    def read(self, data: bytes, fail: Fail) -> None:
        """Read a header's records. Raises LayerError: they are damaged."""
        at, size = 0, len(data)
        while at < size:
            space = data.find(b" ", at, at + 20)
            length = data[at:space] if space > 0 else b""
            if not length.isdigit():
                if not data[at:].strip(b"\0"):
                    break
                raise fail("a damaged pax header")
            end = at + int(length)
            equals = data.find(b"=", space, end) if end <= size else -1
            if equals < 0 or data[end - 1 : end] != b"\n" or equals == end - 1:
                raise fail("a damaged pax header")
            key = data[space + 1 : equals]
            at, value = end, (equals + 1, end - 1)
            if key in _KEYS or key in _SPARSE:
                self.values[key] = data[slice(*value)]
            elif key in _PAIRS:
                self._pair(key, data[slice(*value)], fail)
            elif key.startswith((_STAR, _LIBARCHIVE)):
                self._xattr(key, data[slice(*value)], fail)

    def _pair(self, key: bytes, value: bytes, fail: Fail) -> None:
        if _PAIRS[len(self.pairs) % 2] != key:
            raise fail("a sparse map whose offsets and lengths do not alternate")
        if len(self.pairs) >= 2 * limits.SEGMENTS:
            raise fail(f"a sparse map of more segments than the limit SEGMENTS of {limits.SEGMENTS}")
        self.pairs.append(integer(value, key, fail, 0, limits.FILE))

    def _xattr(self, key: bytes, value: bytes, fail: Fail) -> None:
        if self.wrong:
            return
        if key.startswith(_STAR):
            name = key[len(_STAR) :]
        else:
            name = unquote_to_bytes(key[len(_LIBARCHIVE) :])
            try:
                value = base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
            except binascii.Error:
                raise fail(f"extended attribute {show(name)}: no base64") from None
            value = self.xattrs.get(name, value)
        if name not in self.xattrs:
            self._names += len(name) + 1
        self.wrong = _wrong(name, value, self._names)
        self.xattrs[name] = value

    def over(self, outer: Records) -> Records:
        """Return what holds for an entry: these records over those of global headers."""
        joined = Records()
        joined.values = {**outer.values, **self.values}
        joined.xattrs = {**outer.xattrs, **self.xattrs}
        joined.pairs = self.pairs
        joined.wrong = self.wrong or _too_many(sum(len(name) + 1 for name in joined.xattrs))
        return joined

    def keep_globally(self, fail: Fail) -> None:
        """Keep what a global header may say of all entries. Raises LayerError: attributes that no entry could have."""
        most = limits.GLOBAL_ATTRIBUTES
        if self.wrong or len(self.xattrs) > most:
            raise fail(f"a global header: {self.wrong or f'more extended attributes than the limit GLOBAL_ATTRIBUTES of {most}'}")
        self.values = {key: value for key, value in self.values.items() if key in _KEYS}
        self.pairs = array("Q")


def _wrong(name: bytes, value: bytes, names: int) -> str:
    """Say why Linux can't hold an attribute, or nothing; *names* are the bytes of all names so far."""
    if name in _UNNAMED or b"\0" in name:
        return f"an extended attribute without a name, or with a NUL byte in it: {name[:60]!r}"
    if len(name) > limits.ATTRIBUTE_NAME:
        return f"an extended attribute's name of {len(name)} bytes, over the limit ATTRIBUTE_NAME of {limits.ATTRIBUTE_NAME}: {show(name)}"
    if len(value) > limits.ATTRIBUTE_VALUE:
        return f"extended attribute {show(name)} of {len(value)} bytes, over the limit ATTRIBUTE_VALUE of {limits.ATTRIBUTE_VALUE}"
    return _too_many(names)


def _too_many(names: int) -> str:
    most = limits.ATTRIBUTE_NAMES
    return f"names of extended attributes of more bytes than the limit ATTRIBUTE_NAMES of {most}" if names > most else ""
