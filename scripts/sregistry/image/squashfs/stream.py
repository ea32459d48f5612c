"""Streams of metadata blocks: what inodes, directories and all tables are stored in.

```
| u16 header: bits 0–14 stored size, bit 15 raw | up to 8192 bytes, compressed | u16 | … |
```

A place in a stream is counted in uncompressed bytes; on disk it is the start of its block and the
offset in the block (squashfs 4.0, "Metadata"). Only the last block holds less than 8192 bytes.
"""

from __future__ import annotations

import struct
from array import array

from sregistry.errors import ImageError
from sregistry.image.squashfs import format as f
from sregistry.layers.compression import Encoder
from sregistry.system import limits

_HEADER = struct.Struct("<H")
#: A place is a block's number << SHIFT | an offset in it.
SHIFT = f.METADATA_BLOCK.bit_length() - 1
MASK = f.METADATA_BLOCK - 1


class Stream:
    """Collects bytes and compresses each block as soon as it is full.

    `blocks` is what is stored so far; `starts` are the places of all blocks in it, the open one's last.
    """

    def __init__(self, encode: Encoder) -> None:
        self.blocks = bytearray()
        self.starts = array("Q", [0])
        self._encode = encode
        self._open = b""

    @property
    def place(self) -> int:
        """The place of what is appended next."""
        return (len(self.starts) - 1 << SHIFT) + len(self._open)

    def append(self, data: bytes) -> None:
        """Take more bytes, of any number. Raises ImageError: more than squashfs can refer to."""
        data = self._open + data
        full = len(data) & ~MASK
        for at in range(0, full, f.METADATA_BLOCK):
            self._store(data[at : at + f.METADATA_BLOCK])
        self._open = data[full:]

    def reference(self, place: int) -> int:
        """Return a place, which must not lie ahead, as squashfs refers to it: block start << 16 | offset."""
        return self.starts[place >> SHIFT] << 16 | place & MASK

    def finish(self) -> bytearray:
        """Store what is left and return all blocks; `starts` is without an open one then."""
        if self._open:
            self._store(self._open)
            self._open = b""
        self.starts.pop()
        return self.blocks

    def _store(self, raw: bytes) -> None:
        packed = self._encode(raw)
        if len(packed) < len(raw):
            self.blocks += _HEADER.pack(len(packed)) + packed
        else:
            self.blocks += _HEADER.pack(len(raw) | f.METADATA_RAW) + raw
        self.starts.append(len(self.blocks))
        if len(self.blocks) > limits.TABLE:
            raise ImageError(f"a table of the image has more bytes than the limit TABLE of {limits.TABLE}")
