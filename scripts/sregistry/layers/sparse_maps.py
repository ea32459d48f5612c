"""The maps of sparse files: where in a file its data is, the rest being holes.

```
old GNU   header: offset 12, length 12, four times · extension blocks: twenty-one times, more? 1
pax 0.0   records GNU.sparse.offset, GNU.sparse.numbytes, repeated
pax 0.1   record GNU.sparse.map: offset,length,offset,…
pax 1.0   in front of the data: count, offset, length, offset, … a line each, padded to 512 bytes
```

GNU tar manual, "Sparse Formats". A map is read as it comes and held as 16 bytes a segment.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from sregistry.layers.tar_fields import Fail, number, ranged
from sregistry.system import limits

#: Digits of the largest offset, 2⁶³ − 1.
_DIGITS = 19
_STEP = 1 << 16


class Numbers:
    """Decimal numbers with a separator after each, taken piece by piece into `found`."""

    def __init__(self, separator: bytes, fail: Fail) -> None:
        self.found = array("Q")
        self._separator = separator
        self._fail = fail
        self._rest = b""

    def take(self, text: bytes) -> None:
        """Take more text. Raises LayerError: no numbers, or too many."""
        if len(self._rest) > _DIGITS:
            raise self._fail(f"sparse map: {self._rest[:40]!r} is no number")
        parts = (self._rest + text).split(self._separator)
        self._rest = parts.pop()
        if not all(map(bytes.isdigit, parts)) or max(map(len, parts), default=0) > _DIGITS:
            wrong = next(part for part in parts if not part.isdigit() or len(part) > _DIGITS)
            raise self._fail(f"sparse map: {wrong[:40]!r} is no number")
        self.found.extend(map(int, parts))
        if len(self.found) > 2 * limits.SEGMENTS + 2:
            raise too_many(self._fail)


def too_many(fail: Fail) -> Exception:
    """Return the error of a map with too many segments."""
    return fail(f"a sparse map of more segments than the limit SEGMENTS of {limits.SEGMENTS}")


def of_fields(header: bytes, blocks: Iterator[bytes], fail: Fail) -> array[int]:
    """Read the map of GNU's type S, from its *header* and the extension *blocks* after it, no further than it goes. Raises LayerError."""
    numbers = array("Q")
    part, start, end = header, 386, 482
    while True:
        for at in range(start, end, 12):
            numbers.append(ranged(number(part[at : at + 12], "sparse map"), "sparse map", fail, 0, limits.FILE))
        if not part[end]:
            return numbers
        if len(numbers) > 2 * limits.SEGMENTS:
            raise too_many(fail)
        part, start, end = next(blocks), 0, 504


def of_text(text: bytes, fail: Fail) -> array[int]:
    """Read the map of pax 0.1. Raises LayerError."""
    numbers = Numbers(b",", fail)
    for at in range(0, len(text), _STEP):
        numbers.take(text[at : at + _STEP])
    if not text.endswith(b","):
        numbers.take(b",")
    return numbers.found


def of_lines(blocks: Iterator[bytes], fail: Fail) -> array[int]:
    """Read the map of pax 1.0 from the *blocks* of the data, no further than it goes. Raises LayerError."""
    numbers = Numbers(b"\n", fail)
    for block in blocks:
        numbers.take(block)
        if numbers.found:
            count = numbers.found[0]
            if count > limits.SEGMENTS:
                raise too_many(fail)
            if len(numbers.found) > 2 * count:
                return numbers.found[1 : 1 + 2 * count]
    raise fail("a sparse map that does not end")


def segments(numbers: array[int], real: int, stored: int, fail: Fail) -> array[int]:
    """Return the map without its empty segments, checked.

    Args:
        numbers: offset, length, offset …
        real: size of the file in bytes.
        stored: bytes of data that the tar stream has.

    Raises:
        LayerError: segments that overlap or lead past the end, or another sum than *stored*.
    """
    if len(numbers) % 2:
        raise fail("a sparse map of odd length")
    found = array("Q")
    at = total = 0
    pairs = iter(numbers)
    for start, length in zip(pairs, pairs, strict=True):
        if not length:
            continue
        if start < at or start + length > real:
            raise fail("a sparse map that overlaps or leads past the end")
        at = start + length
        total += length
        found.append(start)
        found.append(length)
    if total != stored:
        raise fail("a sparse map that differs from the data's size")
    return found
