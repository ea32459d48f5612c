"""Digests: the names of blobs, and what their bytes are checked against."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from sregistry.errors import DocumentError
from sregistry.oci.json_fields import wrong

_TEXT = re.compile(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")


def is_digest(text: str) -> bool:
    """Tell whether *text* is a digest."""
    return _TEXT.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """``sha256:`` + 64 or ``sha512:`` + 128 lower-case hexadecimal digits (image-spec, descriptor.md)."""

    text: str

    def __post_init__(self) -> None:
        if not is_digest(self.text):
            raise DocumentError(f"{self.text!r} is no digest (sha256: and 64 hexadecimal digits, lower case)")

    def __str__(self) -> str:
        return self.text

    @property
    def algorithm(self) -> str:
        return self.text.partition(":")[0]

    @property
    def hex(self) -> str:
        return self.text.partition(":")[2]

    def hasher(self) -> hashlib._Hash:
        """Return a new hash object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def matches(self, data: bytes) -> bool:
        """Tell whether *data* has this digest."""
        return hashlib.new(self.algorithm, data).hexdigest() == self.hex

    @classmethod
    def parse(cls, value: object, key: str) -> Digest:
        """Read a digest. Raises DocumentError that names the key."""
        if not isinstance(value, str) or not is_digest(value):
            wrong(key, "a sha256 or sha512 digest", value)
        return cls(value)

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """Return the sha256 digest of *data*."""
        return cls("sha256:" + hashlib.sha256(data).hexdigest())
