"""Sizes, days, counts and tables as people write them: the one owner of each.

```
10G = 10 GB = 10·10⁹ bytes        10GiB = 10Gi = 10·2³⁰ bytes        K, M, G, T in either case; none: bytes
```
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

from sregistry.errors import UsageError

_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?(?:([KMGT])(i?)B?|B)?", re.ASCII | re.IGNORECASE)
#: What a size looks like, for messages.
SIZE = "a size such as 500M, 50G or 2GiB"


def size(text: object) -> int:
    """Return bytes. Raises UsageError."""
    found = None if isinstance(text, bool) else _SIZE.fullmatch(str(text).strip())
    if found is None:
        raise UsageError(f"{text!r} is no size", hint=f"write {SIZE.removeprefix('a size ')}")
    power = " KMGT".index((found[2] or " ").upper())
    return int(Decimal(found[1]) * (1024 if found[3] else 1000) ** power)


def days(text: str) -> float:
    """Return a number of days, parts of them included. Raises UsageError."""
    if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", text, re.ASCII):
        raise UsageError(f"{text!r} is no number of days", hint="such as 30 or 0.5")
    return float(text)


def count(text: str) -> int:
    """Return a number from 1. Raises UsageError."""
    if not re.fullmatch(r"0*[1-9][0-9]{0,8}", text, re.ASCII):
        raise UsageError(f"{text!r} is no number from 1")
    return int(text)


def port(text: str) -> int:
    """Return a number of a port; 0 stands for any. Raises UsageError."""
    if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) or int(text) > 65535:
        raise UsageError(f"{text!r} is no port", hint="a number from 0 to 65535")
    return int(text)


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows with aligned columns, without those that are empty; the last one is as long as it is."""
    columns = [column for column in zip(*rows, strict=True) if any(column)]
    widths = [max(map(len, column)) for column in columns]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in zip(*columns, strict=True)]


def amount(count: int | None) -> str:
    """Say bytes; nothing where they are not known."""
    if count is None:
        return ""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def span(seconds: float) -> str:
    """Write a time as people do: 0:07, 12:34, 1:02:03."""
    minutes, rest = divmod(round(min(seconds, 359_999)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
