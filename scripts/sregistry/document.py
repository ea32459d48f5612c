"""JSON documents, read key by key: what is not as expected is refused, and the key named.

```
bytes ─▶ load_json ─▶ {…} ─▶ table | listed | text | optional_text ─▶ value
                               └ DocumentError: layers[3].size: expected an integer, got 'x'
```
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from sregistry import limits
from sregistry.errors import DocumentError

#: Largest manifest, index or config that is read, in bytes.
MAX_DOCUMENT = limits.DOCUMENT


def load_json(data: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object. Raises DocumentError."""
    if len(data) > MAX_DOCUMENT:
        raise DocumentError(f"{what}: {len(data)} bytes, over the limit DOCUMENT of {MAX_DOCUMENT}")
    try:
        document = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{what}: no JSON: {error}") from None
    return table(document, what)


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


def wrong(key: str, expected: str, got: object) -> NoReturn:
    """Refuse what stands at *key*."""
    raise DocumentError(f"{key}: expected {expected}, got {str(got)[:80]!r}" if got is not None else f"{key}: missing, expected {expected}")
