"""The inode table and the directory table of an image.

```
inodes       | all that are no directories, in the order of rows | directories, the deepest level first |
directories  | listings, the deepest level first: runs of | header 12 | entry 8, name | entry 8, name | … |
```

A listing needs the places of its inodes, and a directory's inode the place of its listing. Rows are in
breadth-first order, so all children of a level are rows that follow one another: a level's listings
are written at once, then its directories' inodes.

A run is at most 256 entries whose inodes lie in one metadata block; here it is rows that follow one
another, whose inodes have consecutive numbers. Another name of an inode is a run of its own.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, compress, pairwise, repeat
from operator import ne

from sregistry.image.squashfs import format as f
from sregistry.image.squashfs.columns import IS_DIRECTORY, NOTHING, PLAIN, Columns, Rows, put
from sregistry.image.squashfs.layout import Layout
from sregistry.image.squashfs.stream import MASK, SHIFT, Stream
from sregistry.image.tree import Sandbox
from sregistry.layers.compression import Compression
from sregistry.layers.index import Index, little
from sregistry.layers.tar_reader import Kind

#: Rows that are done at a time: few enough to take no memory worth mentioning.
_CHUNK = 1 << 14
_DIRECTORY = int(Kind.DIRECTORY)
_MAX_RUN = 256
_MAX_INDEX = 0xFFFF
_RAMP = bytes(range(_MAX_RUN))
_LESS_ONE = bytes(max(value - 1, 0) for value in range(256))
_IS_PLAIN = bytes(state == PLAIN for state in range(256))
_FILE, _ENTRY = struct.Struct(f"{f.FILE.size}s"), struct.Struct(f"{f.RUN_ENTRY.size}s")


class Tree:
    """Writes both tables: `inodes` and `directories`; `root` is the reference to the root's inode."""

    def __init__(
        self, sandbox: Sandbox, layers: Sequence[Index], rows: Rows, columns: Columns, layout: Layout, compression: Compression
    ) -> None:
        self._sandbox = sandbox
        self._layers = layers
        self._rows = rows
        self._columns = columns
        self._layout = layout
        self._block_size = compression.block_size
        encode = compression.encoder()
        self.inodes = Stream(encode)
        self.directories = Stream(encode)
        # Of each row's inode: the number of its metadata block, and the offset there.
        self._block = array("I")
        self._offset = array("H")
        self._again = array("I", rows.first)  # rows of other names, ascending
        self._leaves()
        for start, end, parents in reversed(list(self._levels())):
            self._level(start, end, parents)
        self.root = self.inodes.starts[self._block[0]] << 16 | self._offset[0]

    # -- inodes of all but directories

    def _leaves(self) -> None:
        rows, columns, records = self._rows, self._columns, self._columns.records
        states = bytearray(map(columns.state.__getitem__, rows.item))
        for row in rows.first:
            states[row] = NOTHING
        for start in range(0, len(states), _CHUNK):
            state = states[start : start + _CHUNK]
            plain = state.translate(_IS_PLAIN)
            items = compress(rows.item[start : start + _CHUNK], plain)
            made = array("H", b"".join([records[at : at + f.FILE.size] for at in map(f.FILE.size.__mul__, items)]))
            put(made, 12, array("I", compress(rows.number[start : start + _CHUNK], plain)))
            files = _FILE.iter_unpack(made.tobytes())
            inodes = [next(files)[0] if what == PLAIN else self._leaf(row) if what else b"" for row, what in enumerate(state, start)]
            places = list(accumulate(map(len, inodes), initial=self.inodes.place))
            places.pop()
            self._block.extend([place >> SHIFT for place in places])
            self._offset.extend([place & MASK for place in places])
            self.inodes.append(b"".join(inodes))
        for row, first in rows.first.items():
            self._block[row], self._offset[row] = self._block[first], self._offset[first]

    def _leaf(self, row: int) -> bytes:
        """Return the inode of anything but a directory and a plain file."""
        rows, columns = self._rows, self._columns
        item = rows.item[row]
        layer = bisect_right(rows.bases, item) - 1
        index, place = self._layers[layer], item - rows.bases[layer]
        kind, links, xattr = rows.kinds[item], rows.links.get(item, 1), columns.xattr[item]
        if kind == Kind.FILE:
            return self._file(row, index, place, self._layout.large[layer].get(place, 0), links)
        common = self._common(row)
        extended = f.EXTENDED if xattr != f.NONE else 0
        if kind == Kind.SYMLINK:
            target = index.link(place)
            data = f.SYMLINK.pack(kind + extended, *common, links, len(target)) + target
        elif kind == Kind.FIFO:
            data = f.FIFO.pack(kind + extended, *common, links)
        else:
            major, minor = index.major[place], index.minor[place]
            data = f.DEVICE.pack(kind + extended, *common, links, f.device_number(major, minor))
        return data + f.U32.pack(xattr) if extended else data

    def _common(self, row: int) -> tuple[int, int, int, int, int]:
        """Return mode, owner, group, time and inode number."""
        _, mode, uid, gid, mtime, *_ = f.FILE.unpack_from(self._columns.records, f.FILE.size * self._rows.item[row])
        return mode, uid, gid, mtime, self._rows.number[row]

    def _file(self, row: int, index: Index, place: int, start: int, links: int) -> bytes:
        item = self._rows.item[row]
        *_, fragment, offset, _ = f.FILE.unpack_from(self._columns.records, f.FILE.size * item)
        words, size, xattr = array("I", index.blocks(place)), index.size[place], self._columns.xattr[item]
        sparse = self._block_size * words.count(0)
        if links == 1 and xattr == f.NONE and not sparse and max(start, size) < 1 << 32:
            return f.FILE.pack(Kind.FILE, *self._common(row), start, fragment, offset, size) + little(words)
        kind = Kind.FILE + f.EXTENDED
        return f.EXTENDED_FILE.pack(kind, *self._common(row), start, size, sparse, links, fragment, offset, xattr) + little(words)

    # -- listings, and inodes of directories

    def _levels(self) -> Iterator[tuple[int, int, array[int]]]:
        """Yield each level's rows, first and past the last, and the inode numbers of their parents."""
        sandbox, rows = self._sandbox, self._rows
        start, end = 0, 1
        parents = array("I", [rows.inodes + 1])
        while start < end:
            yield start, end, array("I", compress(parents, rows.kind[start:end].translate(IS_DIRECTORY)))
            counts = sandbox.child_count[start:end]
            parents = array("I", chain.from_iterable(map(repeat, rows.number[start:end], counts)))
            start, end = end, end + len(parents)

    def _level(self, start: int, end: int, parents: Sequence[int]) -> None:
        """Write the listings and then the inodes of all directories among the rows from *start* to *end*."""
        sandbox, at = self._sandbox, self._sandbox.name_at
        directories = list(compress(range(start, end), self._rows.kind[start:end].translate(IS_DIRECTORY)))
        below = end + sum(sandbox.child_count[start:end])
        runs = self._runs(end, below, [sandbox.first_child[row] for row in directories if sandbox.child_count[row]])
        # Where the header of each run is, which follows from what is before it.
        begin = self.directories.place - f.RUN_ENTRY.size * end - at[end]
        places = [begin + f.RUN.size * run + f.RUN_ENTRY.size * row + at[row] for run, row in enumerate(runs)]
        done = 0
        while done < len(runs) - 1:
            more = max(bisect_right(runs, runs[done] + _CHUNK) - 1, done + 1)
            self._list(runs[done : more + 1])
            done = more
        inodes = []
        run = 0
        for row, parent in zip(directories, parents, strict=True):
            first = sandbox.first_child[row]
            children = sandbox.child_count[row]
            past = bisect_left(runs, first + children, run) if children else run
            inodes.append(self._directory(row, parent, self._rows.kind.count(_DIRECTORY, first, first + children), runs, places, run, past))
            run = past
        where = accumulate(map(len, inodes), initial=self.inodes.place)
        for row, place in zip(directories, where, strict=False):
            self._block[row], self._offset[row] = place >> SHIFT, place & MASK
        self.inodes.append(b"".join(inodes))

    def _runs(self, start: int, end: int, firsts: list[int]) -> array[int]:
        """Return the first row of each run of the rows from *start* to *end*, and *end*.

        Args:
            firsts: the first child of each directory.
        """
        cut = bytearray(end - start)
        for row in firsts:
            cut[row - start] = 1
        block = self._block[start:end]
        for row in compress(range(1, len(block)), map(ne, block[1:], block)):
            cut[row] = 1
        for row in self._again[bisect_left(self._again, start) : bisect_left(self._again, end)]:
            cut[row - start : row - start + 2] = b"\1" * min(2, end - row)
        runs = array("I")
        for first, past in pairwise([*compress(range(start, end), cut), end]):
            runs.extend(range(first, past, _MAX_RUN))
        runs.append(end)
        return runs

    def _list(self, runs: array[int]) -> None:
        """Write runs of listings; *runs* are their first rows, and the row past the last."""
        start, end = runs[0], runs[-1]
        names = self._sandbox.names(start, end)
        sizes = list(map(len, names))
        # format.RUN_ENTRY, a byte at a time: offset, number - base (which fits in a byte), type, name length - 1.
        entries = bytearray(f.RUN_ENTRY.size * (end - start))
        offsets = little(self._offset[start:end])
        entries[0::8], entries[1::8] = offsets[0::2], offsets[1::2]
        entries[2::8] = b"".join([_RAMP[: past - first] for first, past in pairwise(runs)])
        entries[4::8] = self._rows.kind[start:end]
        entries[6::8] = bytes(sizes).translate(_LESS_ONE)
        parts = [b""] * (3 * (end - start))
        pack, blocks, block, number = f.RUN.pack, self.inodes.starts, self._block, self._rows.number
        for first, past in pairwise(runs):
            parts[3 * (first - start)] = pack(past - first - 1, blocks[block[first]], number[first])
        parts[1::3] = [entry for (entry,) in _ENTRY.iter_unpack(entries)]
        parts[2::3] = names
        self.directories.append(b"".join(parts))

    def _directory(
        self, row: int, parent: int, subdirectories: int, runs: Sequence[int], places: Sequence[int], run: int, past: int
    ) -> bytes:
        """Return a directory's inode.

        Args:
            parent: its parent's inode number.
            runs, places: first row and place of each run of the level.
            run, past: those of its listing, the first one and the one past the last.
        """
        begin = places[run]
        reference = self.directories.reference(begin) if past > run else 0
        size = places[past] - begin + 3  # for . and .., which are not stored
        links = 2 + subdirectories
        common = self._common(row)
        xattr = self._columns.xattr[self._rows.item[row]]
        index = self._index(runs[run:past], places[run:past]) if past - run > 1 and places[past - 1] >> SHIFT != begin >> SHIFT else []
        if size <= 0xFFFF and xattr == f.NONE and not index:
            return f.DIRECTORY.pack(_DIRECTORY, *common, reference >> 16, links, size, reference & 0xFFFF, parent)
        kind = _DIRECTORY + f.EXTENDED
        inode = f.EXTENDED_DIRECTORY.pack(kind, *common, links, size, reference >> 16, parent, len(index), reference & 0xFFFF, xattr)
        return b"".join([inode, *index])

    def _index(self, runs: Sequence[int], places: Sequence[int]) -> list[bytes]:
        """Return the index of a listing: the first run that starts in each metadata block but the first."""
        found = []
        last = places[0] >> SHIFT
        for row, place in zip(runs, places, strict=True):
            if place >> SHIFT != last:
                last = place >> SHIFT
                name = self._sandbox.name(row)
                found.append(f.DIRECTORY_INDEX.pack(place - places[0], self.directories.starts[last], len(name) - 1) + name)
        return found[:_MAX_INDEX]
