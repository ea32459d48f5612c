"""JSON documents, read key by key: what is not as expected is refused, and the key named.

```
bytes ─▶ load_json ─▶ {…} ─▶ table | listed | text | optional_text ─▶ value
                               └ DocumentError: layers[3].size: expected an integer, got 'x'
```
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from sregistry.errors import DocumentError
from sregistry.system import limits

#: Largest manifest, index or config that is read, in bytes.
MAX_DOCUMENT = limits.DOCUMENT

_SURROGATE = re.compile("[\ud800-\udfff]")


class _NoNumber(float):
    """NaN, Infinity, or a number out of range: its place in the document is known when all is read."""

    def __new__(cls, word: str) -> _NoNumber:
        return super().__new__(cls, "nan")

    def __init__(self, word: str) -> None:
        self.word = word


def load_json(data: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object; what it holds can be written as JSON again.

    As in Go, of equal keys the last counts, and what is no character (bytes that are no UTF-8, an escape of half a
    surrogate pair) becomes U+FFFD.

    Raises:
        DocumentError: no JSON object, or one that is too large, nested too deeply or has numbers that are none.
    """
    if len(data) > MAX_DOCUMENT:
        raise DocumentError(f"{what}: {len(data)} bytes, over the limit DOCUMENT of {MAX_DOCUMENT}")
    odd: list[_NoNumber] = []

    def refused(word: str) -> float:
        odd.append(_NoNumber(word))
        return odd[-1]

    def integer(word: str) -> float:
        # Where Python refuses to read more, it says so without the place, and quadratic work is behind it.
        return int(word) if len(word) <= limits.JSON_DIGITS else refused(word)

    def real(word: str) -> float:
        value = float(word)
        return value if math.isfinite(value) else refused(word)

    try:
        document = json.loads(data.decode(errors="replace"), parse_constant=refused, parse_int=integer, parse_float=real)
    except RecursionError:
        raise DocumentError(f"{what}: nested deeper than the limit JSON_DEPTH of {limits.JSON_DEPTH}") from None
    except ValueError as error:
        raise DocumentError(f"{what}: no JSON: {error}") from None
    # Seldom needed: no escape of half a character, and too few brackets to be deep.
    if odd or data.count(b"[") + data.count(b"{") > limits.JSON_DEPTH or re.search(rb"\\u[dD][89a-fA-F]", data):
        document = _sound(document, what, "", 0)
    return table(document, what)


def _sound(value: Any, what: str, key: str, depth: int) -> Any:
    """Return *value* with whole characters alone. Raises DocumentError that names the key: too deep, or no number."""
    if depth > limits.JSON_DEPTH:
        raise DocumentError(f"{what}: nested deeper than the limit JSON_DEPTH of {limits.JSON_DEPTH}: {key[:80]}…")
    if isinstance(value, dict):
        return {whole(name): _sound(item, what, f"{key}.{name[:80]}".lstrip("."), depth + 1) for name, item in value.items()}
    if isinstance(value, list):
        return [_sound(item, what, f"{key}[{i}]", depth + 1) for i, item in enumerate(value)]
    if isinstance(value, _NoNumber):
        wrong(f"{what}: {whole(key)}", "a number", value.word)
    return whole(value) if isinstance(value, str) else value


def whole(text: str) -> str:
    """Return *text* with U+FFFD for half characters (lone surrogates), which no encoding has."""
    return _SURROGATE.sub("\ufffd", text)


def table(value: object, key: str) -> dict[str, Any]:
    """Return *value* if it is an object."""
    if not isinstance(value, dict):
        wrong(key, "an object", value)
    return value


def listed(value: object, key: str) -> Sequence[Any]:
    """Return *value* if it is a list."""
    if not isinstance(value, list):
        wrong(key, "a list", value)
    return value


def text(item: Mapping[str, Any], name: str, key: str) -> str:
    """Return the string *name* of the object at *key*."""
    value = item.get(name)
    if not isinstance(value, str):
        wrong(f"{key}.{name}", "a string", value)
    return value


def optional_text(item: Mapping[str, Any], name: str, key: str) -> str | None:
    """Return the string *name* of the object at *key*, None when it is not there."""
    value = item.get(name)
    if value is not None and not isinstance(value, str):
        wrong(f"{key}.{name}".lstrip("."), "a string", value)
    return value


def any_case(item: Mapping[str, Any], name: str) -> Any:
    """Return a field as Go finds it: of the keys that are the name in any case, the last. Configs by hand have `cmd` and `env`."""
    found = [value for key, value in item.items() if key.lower() == name.lower()]
    return found[-1] if found else None


def limited(key: str, count: int, name: str, limit: int) -> None:
    """Refuse more than *limit* items at *key*; *name* is the limit's in `limits`."""
    if count > limit:
        raise DocumentError(f"{key}: {count} items, over the limit {name} of {limit}")


def wrong(key: str, expected: str, got: object) -> NoReturn:
    """Refuse what stands at *key*."""
    raise DocumentError(f"{key}: expected {expected}, got {str(got)[:80]!r}" if got is not None else f"{key}: missing, expected {expected}")
