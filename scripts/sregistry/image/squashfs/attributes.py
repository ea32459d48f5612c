"""Extended attributes: each different set is stored once, and an inode has its number.

```
| keys and values, a stream | ids: reference, count, size, 16 bytes each, a stream | header | place of each block of ids |
```
"""

from __future__ import annotations

import struct
from array import array
from itertools import compress

from sregistry.image.squashfs import format as f
from sregistry.image.squashfs.stream import Stream
from sregistry.layers.compression import Encoder
from sregistry.layers.index import Index, Xattrs

_KEY = struct.Struct("<HH")  # prefix, length of the name without it; then that name, u32 length of the value, the value


class Attributes:
    """Numbers the sets of an image. `dropped` are the names of attributes that squashfs can't hold."""

    def __init__(self) -> None:
        self.sets: dict[Xattrs, int] = {}
        self.dropped: set[bytes] = set()

    def column(self, index: Index, live: bytes) -> array[int]:
        """Return the set of each of a layer's rows; of those that are not in the tree, none."""
        column = array("I", [f.NONE]) * len(index)
        used = sorted(set(compress(index.xattr, live)) - {f.NONE})
        numbers = {number: kept for number in used if (kept := self._number(index.xattr_set(number))) != f.NONE}
        if numbers:
            column = array("I", [numbers.get(number, f.NONE) for number in index.xattr])
        return column

    def _number(self, xattrs: Xattrs) -> int:
        kept = []
        for name, value in xattrs:
            # SELinux labels belong to the host that made them; umoci leaves them out as well.
            if name == b"security.selinux":
                continue
            if name.startswith(tuple(f.XATTR_PREFIXES)):
                kept.append((name, value))
            else:
                self.dropped.add(name)
        return self.sets.setdefault(tuple(sorted(kept)), len(self.sets)) if kept else f.NONE

    def table(self, encode: Encoder, base: int) -> tuple[bytes, int]:
        """Return the table as it stands at *base* in the file system, and where its header is in it."""
        keys, ids = Stream(encode), Stream(encode)
        for xattrs in self.sets:
            place, size = keys.place, 0
            for name, value in xattrs:
                prefix = next(p for p in f.XATTR_PREFIXES if name.startswith(p))
                short = name[len(prefix) :]
                keys.append(_KEY.pack(f.XATTR_PREFIXES[prefix], len(short)) + short + f.U32.pack(len(value)) + value)
                size += len(name) + 1 + len(value)
            ids.append(f.XATTR_ID.pack(keys.reference(place), len(xattrs), size))
        front = bytes(keys.finish())
        middle = bytes(ids.finish())
        header = f.XATTR_TABLE.pack(base, len(self.sets), 0)
        starts = b"".join(f.U64.pack(base + len(front) + start) for start in ids.starts)
        return front + middle + header + starts, base + len(front) + len(middle)
