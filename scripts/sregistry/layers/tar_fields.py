"""Numbers and names of tar headers: octal, base-256, decimal, each within the bounds that its reader gives."""

from __future__ import annotations

import re
from collections.abc import Callable

from sregistry.errors import LayerError
from sregistry.system import limits

#: Makes an error of a message; it knows the layer and the offset.
Fail = Callable[[str], LayerError]

_WHITEOUT = b".wh."
_OCTAL = re.compile(rb"[0-7]+")
_INTEGER = re.compile(rb"[+-]?[0-9]{1,20}")
_DECIMAL = re.compile(rb"([+-]?[0-9]{1,20})(?:\.([0-9]*))?")


class NoNumber(Exception):
    """A field holds something else."""


def number(field: bytes, what: str) -> int:
    """Read an octal or base-256 field. Raises NoNumber.

    Blanks and NULs around the digits mean nothing, and what follows a NUL is not read, as for archive/tar. `int` alone
    would take signs, underscores and prefixes.
    """
    text = field.strip(b"\0 ")
    if text.isdigit():
        try:
            return int(text, 8)
        except ValueError:  # 8 or 9
            pass
    elif not text:
        return 0
    elif field[0] & 0x80:  # GNU base-256: two's complement after the marker bit
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if field[0] & 0x40 else value
    elif _OCTAL.fullmatch(found := text.partition(b"\0")[0].rstrip(b" ")):
        return int(found, 8)
    raise NoNumber(f"{what}: {field!r} is no number")


def integer(text: bytes, key: bytes, fail: Fail, least: int, most: int) -> int:
    """Read a decimal number. Raises LayerError: none, or out of range."""
    if not _INTEGER.fullmatch(text):
        raise fail(f"{show(key)}: {text[:40]!r} is no number")
    return ranged(int(text), show(key), fail, least, most)


def decimal(text: bytes, key: bytes, fail: Fail, least: int, most: int) -> int:
    """Read a number of seconds; a fraction is cut off downwards. Raises LayerError: no number, or out of range."""
    found = _DECIMAL.fullmatch(text)
    if found is None:
        raise fail(f"{show(key)}: {text[:40]!r} is no number")
    whole = int(found[1])
    if found[1].startswith(b"-") and (found[2] or b"").strip(b"0"):
        whole -= 1
    return ranged(whole, show(key), fail, least, most)


def ranged(value: int, what: str, fail: Fail, least: int, most: int) -> int:
    """Return *value*. Raises LayerError unless it is from *least* to *most*."""
    if not least <= value <= most:
        raise fail(f"{what}: {value} is out of range, {least} to {most}")
    return value


def show(name: bytes) -> str:
    """Return a name for a message, cut to what is read."""
    return name[:100].decode(errors="backslashreplace") + ("…" if len(name) > 100 else "")


# A path that needs cleaning has an empty, '.' or '..' component.
_UNCLEAN = re.compile(rb"(?:^|/)\.{0,2}(?:/|$)")


def clean(path: bytes) -> bytes:
    """Return *path* relative to the root, lexically: ``..`` never leads above it."""
    if not _UNCLEAN.search(path):
        return path
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            if parts:
                parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def check_path(path: bytes, what: str, fail: Fail) -> None:
    """Refuse a path that Linux can't hold; *what* says whose it is. Raises LayerError."""
    if len(path) > limits.PATH:
        raise fail(f"{what} of {len(path)} bytes, over the limit PATH of {limits.PATH}")
    if len(path) > limits.NAME:
        parts = clean(path).split(b"/")
        # A marker is on no disk: the name that it hides counts.
        longest = max(map(len, [*parts[:-1], parts[-1].removeprefix(_WHITEOUT)]))
        if longest > limits.NAME:
            raise fail(f"a file name of {longest} bytes, over the limit NAME of {limits.NAME}")
