"""What inodes are made of, as columns: of the sandbox's rows, and of all layers' rows end to end.

```
items   | layer 0: row 0, 1, … | layer 1 | … | one more, which stands for directories that no layer describes |
rows    0 the root, 1, … in breadth-first order; each has an item, and all names of an inode have the same
```

Whatever is done for each entry is done a column at a time, by functions of C: each line of Python in a
loop over a million entries would cost a tenth of a second, and each object kept for an entry 50 MB.
"""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, compress, count
from operator import add

from sregistry.errors import ImageError
from sregistry.image.squashfs import format as f
from sregistry.image.squashfs.attributes import Attributes
from sregistry.image.squashfs.layout import Layout
from sregistry.image.tree import IMPLIED, Sandbox
from sregistry.layers.index import Index, little
from sregistry.layers.tar_reader import Kind
from sregistry.system import limits

_LOW = 0xFFFFFFFF
IS_DIRECTORY = bytes(kind == Kind.DIRECTORY for kind in range(256))
_IS_LEAF = bytes(kind != Kind.DIRECTORY for kind in range(256))

#: What is written for a row at first: nothing (a directory, or another name of an inode), the inode of a
#: file as most are, that of anything else.
NOTHING, PLAIN, SPECIAL = 0, 1, 2
_STATE = bytes(NOTHING if kind == Kind.DIRECTORY else PLAIN if kind == Kind.FILE else SPECIAL for kind in range(256))


class Rows:
    """What the sandbox's rows are.

    Attributes:
        bases: the item of each layer's first row; the last one stands for what no layer describes.
        item, kind: of each row.
        number: inode number of each row; ascending by one, but another name has that of the first.
        first: other names of inodes: row → the first row of the same inode.
        links: number of names of each item that has several.
        live: for each layer a byte for each of its rows, 1 if it is in the tree, else 0.
        implied: some directory is described by no layer.
        inodes: how many there are.
    """

    def __init__(self, sandbox: Sandbox, layers: Sequence[Index]) -> None:
        self.bases = list(accumulate(map(len, layers), initial=0))
        total = self.bases[-1]
        halves = array("I", sandbox.source.tobytes())
        low, high = (halves[0::2], halves[1::2]) if sys.byteorder == "little" else (halves[1::2], halves[0::2])
        shift = dict(enumerate(self.bases[:-1])) | {IMPLIED >> 32: total - (IMPLIED & _LOW)}
        self.item = array("I", map(add, low, map(shift.__getitem__, high)))
        self.kinds = b"".join([*(index.kind.tobytes() for index in layers), bytes([Kind.DIRECTORY])])
        self.kind = bytes(map(self.kinds.__getitem__, self.item))
        live = bytearray(total + 1)
        again = []
        leaf = self.kind.translate(_IS_LEAF)
        for row, item in zip(compress(count(), leaf), compress(self.item, leaf), strict=True):
            if live[item]:
                again.append(row)
            else:
                live[item] = 1
        for item in compress(self.item, self.kind.translate(IS_DIRECTORY)):
            live[item] = 1
        self.live = [bytes(live[start:end]) for start, end in zip(self.bases, self.bases[1:], strict=False)]
        self.implied = bool(live[total])
        self.inodes = len(self.item) - len(again)
        self._name_again(again)

    def _name_again(self, again: list[int]) -> None:
        """Number the rows; those *again* are other names of inodes of earlier rows."""
        self.links = Counter(self.item[row] for row in again)
        self.links.update(list(self.links))
        first: dict[int, int] = {}
        if again:
            for row, item in enumerate(self.item):
                if item in self.links:
                    first.setdefault(item, row)
        self.first = {row: first[self.item[row]] for row in again}
        self.number = array("I")
        at, number = 0, 1
        for row in [*again, len(self.item)]:
            self.number.extend(range(number, number + row - at))
            number += row - at
            if row < len(self.item):
                self.number.append(self.number[self.first[row]])
            at = row + 1


class Columns:
    """What of the layers' items goes into inodes.

    Attributes:
        records: of each item the inode of a file without blocks (`format.FILE`), inode number and start 0.
        xattr: of each item, the number of its set of extended attributes.
        ids: owners and groups of all that is alive, ascending; records have their places.
        state: of each item, NOTHING, PLAIN or SPECIAL.
    """

    def __init__(self, layers: Sequence[Index], rows: Rows, layout: Layout, attributes: Attributes, created: int) -> None:
        self.ids = _ids(layers, rows)
        self.xattr = array("I")
        self.state = bytearray(rows.kinds.translate(_STATE))
        places = {value: place for place, value in enumerate(self.ids)}
        records = []
        for layer, index in enumerate(layers):
            records.append(_records(index, layout.fragment[layer], places))
            self.xattr.extend(attributes.column(index, rows.live[layer]))
            for row in layout.large[layer]:
                self.state[rows.bases[layer] + row] = SPECIAL
        if attributes.sets:
            for item in compress(count(), map(f.NONE.__ne__, self.xattr)):
                if self.state[item] == PLAIN:
                    self.state[item] = SPECIAL
        for item in rows.links:
            self.state[item] = SPECIAL
        owner = places.get(0, 0)
        records.append(f.FILE.pack(Kind.FILE, 0o755, owner, owner, seconds(created), 0, 0, 0, 0, 0))
        self.records = b"".join(records)
        self.xattr.append(f.NONE)


def _records(index: Index, fragment: array[int], places: dict[int, int]) -> bytes:
    records = array("H", bytes(f.FILE.size * len(index)))
    put(records, 0, array("H", [Kind.FILE]) * len(index))
    put(records, 2, index.mode)
    put(records, 4, _placed(index.uid, places))
    put(records, 6, _placed(index.gid, places))
    put(records, 8, _clamped(index.mtime))
    put(records, 20, fragment)
    put(records, 24, index.fragment_offset)
    put(records, 28, index.size)
    return records.tobytes()


def put(records: array[int], at: int, column: array[int]) -> None:
    """Write a column, of 64 bits its lower half, into inodes of files at byte *at* of each.

    Args:
        records: cells of two bytes, as they lie on disk.
    """
    cells = array("H", little(column))
    step, width = f.FILE.size // 2, column.itemsize // 2
    for cell in range(min(width, 2)):
        records[at // 2 + cell :: step] = cells[cell::width]


def _ids(layers: Sequence[Index], rows: Rows) -> list[int]:
    ids = {0} if rows.implied else set()
    for index, live in zip(layers, rows.live, strict=True):
        for column in (index.uid, index.gid):
            ids.update(column[:1] if 1 in live and _constant(column) else compress(column, live))
    if len(ids) > limits.OWNERS:
        raise ImageError(f"{len(ids)} different owners and groups, over the limit OWNERS of {limits.OWNERS}")
    return sorted(ids)


def _placed(column: array[int], places: dict[int, int]) -> array[int]:
    """Return the places of ids; of those that only dead entries have, any."""
    if _constant(column):
        return array("H", [places.get(value, 0) for value in column[:1]]) * len(column)
    known = dict.fromkeys(column, 0) | places
    return array("H", map(known.__getitem__, column))


def _constant(column: array[int]) -> bool:
    return column == column[:1] * len(column)


def _clamped(column: array[int]) -> array[int]:
    if column and not 0 <= min(column) <= max(column) <= _LOW:
        return array("q", map(seconds, column))
    return column


def seconds(value: int) -> int:
    """Return the nearest time that squashfs can hold: seconds since 1970, 32 bits without sign."""
    return min(max(value, 0), _LOW)
