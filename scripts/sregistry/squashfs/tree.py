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

from sregistry.compression import Compression
from sregistry.errors import ImageError
from sregistry.index import Index, little
from sregistry.sandbox import Sandbox
from sregistry.squashfs import format as f
from sregistry.squashfs.columns import IS_DIRECTORY, NOTHING, PLAIN, Columns, Rows
from sregistry.squashfs.layout import Layout
from sregistry.squashfs.stream import MASK, SHIFT, Stream
from sregistry.tar import Kind

#: Rows that are done at a time: few enough to take no memory worth mentioning.
_CHUNK = 1 << 14
_MAX_RUN = 256
_MAX_INDEX = 0xFFFF
_RAMP = bytes(range(_MAX_RUN))
_LESS_ONE = bytes(max(value - 1, 0) for value in range(256))
_IS_PLAIN = bytes(state == PLAIN for state in range(256))
_ENTRY = struct.Struct(f"{f.RUN_ENTRY.size}s")


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
        self._leaves()
        for start, end, parents in reversed(list(self._levels())):
            self._level(start, end, parents)
        self.root = self.inodes.starts[self._block[0]] << 16 | self._offset[0]

    # -- inodes of all but directories

    def _leaves(self) -> None:
        rows, columns = self._rows, self._columns
        states = bytearray(map(columns.state.__getitem__, rows.item))
        for row in rows.first:
            states[row] = NOTHING
        for start in range(0, len(states), _CHUNK):
            state = states[start : start + _CHUNK]
            plain = state.translate(_IS_PLAIN)
            items = list(compress(rows.item[start : start + _CHUNK], plain))
            made = map(
                f.FILE.pack,
                repeat(int(Kind.FILE)),
                map(columns.mode.__getitem__, items),
                map(columns.uid.__getitem__, items),
                map(columns.gid.__getitem__, items),
                map(columns.mtime.__getitem__, items),
                compress(rows.number[start : start + _CHUNK], plain),
                repeat(0),
                map(columns.fragment.__getitem__, items),
                map(columns.fragment_offset.__getitem__, items),
                map(columns.size.__getitem__, items),
            )
            inodes = [next(made) if what == PLAIN else self._leaf(row) if what else b"" for row, what in enumerate(state, start)]
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
        common = (columns.mode[item], columns.uid[item], columns.gid[item], columns.mtime[item], rows.number[row])
        if kind == Kind.FILE:
            return self._file(index, place, self._layout.large[layer].get(place, 0), item, common, links)
        extended = f.EXTENDED if xattr != f.NONE else 0
        if kind == Kind.SYMLINK:
            target = index.link(place)
            if not 0 < len(target) <= f.MAX_SYMLINK:
                raise ImageError(f"{self._path(row)}: a symbolic link to {len(target)} bytes (1 to {f.MAX_SYMLINK} are possible)")
            data = f.SYMLINK.pack(kind + extended, *common, links, len(target)) + target
        elif kind == Kind.FIFO:
            data = f.FIFO.pack(kind + extended, *common, links)
        else:
            major, minor = index.major[place], index.minor[place]
            if not (0 <= major <= f.MAX_MAJOR and 0 <= minor <= f.MAX_MINOR):
                raise ImageError(f"{self._path(row)}: device {major}:{minor} is out of range")
            data = f.DEVICE.pack(kind + extended, *common, links, f.device_number(major, minor))
        return data + f.U32.pack(xattr) if extended else data

    def _file(self, index: Index, place: int, start: int, item: int, common: tuple[int, ...], links: int) -> bytes:
        columns = self._columns
        words = array("I", index.blocks(place))
        fragment, offset, size, xattr = columns.fragment[item], columns.fragment_offset[item], columns.size[item], columns.xattr[item]
        sparse = self._block_size * words.count(0)
        if links == 1 and xattr == f.NONE and not sparse and max(start, size) < 1 << 32:
            return f.FILE.pack(Kind.FILE, *common, start, fragment, offset, size) + little(words)
        kind = Kind.FILE + f.EXTENDED
        return f.EXTENDED_FILE.pack(kind, *common, start, size, sparse, links, fragment, offset, xattr) + little(words)

    def _path(self, row: int) -> str:
        return self._sandbox.name(row).decode(errors="backslashreplace")

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
        begin = self.directories.place
        done = 0
        while done < len(runs) - 1:
            more = max(bisect_right(runs, runs[done] + _CHUNK) - 1, done + 1)
            self._list(runs[done : more + 1])
            done = more

        def place(run: int) -> int:
            """Where a run's header is, which follows from what is before it."""
            return begin + f.RUN.size * run + f.RUN_ENTRY.size * (runs[run] - end) + at[runs[run]] - at[end]

        inodes = []
        run = 0
        for row, parent in zip(directories, parents, strict=True):
            children = sandbox.children(row)
            if children:
                past = bisect_left(runs, children.stop, run)
                inodes.append(self._directory(row, parent, [(place(k), runs[k]) for k in range(run, past)], place(past)))
                run = past
            else:
                inodes.append(self._directory(row, parent, [], 0))
        places = accumulate(map(len, inodes), initial=self.inodes.place)
        for row, here in zip(directories, places, strict=False):
            self._block[row], self._offset[row] = here >> SHIFT, here & MASK
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
        for row in self._rows.first:
            if start <= row < end:
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
        if max(sizes) > f.MAX_NAME:
            name = names[sizes.index(max(sizes))]
            raise ImageError(f"a file name of {len(name)} bytes, over the limit of {f.MAX_NAME}: {name[:60]!r}…")
        # format.RUN_ENTRY, a byte at a time: offset, number - base (which fits in a byte), type, name length - 1.
        entries = bytearray(f.RUN_ENTRY.size * (end - start))
        offsets = little(self._offset[start:end])
        entries[0::8], entries[1::8] = offsets[0::2], offsets[1::2]
        entries[2::8] = b"".join([_RAMP[: past - first] for first, past in pairwise(runs)])
        entries[4::8] = self._rows.kind[start:end]
        entries[6::8] = bytes(sizes).translate(_LESS_ONE)
        parts = [b""] * (3 * (end - start))
        for first, past in pairwise(runs):
            parts[3 * (first - start)] = f.RUN.pack(past - first - 1, self.inodes.starts[self._block[first]], self._rows.number[first])
        parts[1::3] = [entry for (entry,) in _ENTRY.iter_unpack(entries)]
        parts[2::3] = names
        self.directories.append(b"".join(parts))

    def _directory(self, row: int, parent: int, runs: list[tuple[int, int]], end: int) -> bytes:
        """Return a directory's inode.

        Args:
            runs: place and first row of each run of its listing.
            end: place past the listing.
        """
        rows, columns = self._rows, self._columns
        item = rows.item[row]
        children = self._sandbox.children(row)
        begin = runs[0][0] if runs else end
        size = end - begin + 3  # for . and .., which are not stored
        links = 2 + rows.kind.count(Kind.DIRECTORY, children.start, children.stop)
        reference = self.directories.reference(begin) if runs else 0
        common = (columns.mode[item], columns.uid[item], columns.gid[item], columns.mtime[item], rows.number[row])
        index = self._index(begin, runs) if runs and runs[-1][0] >> SHIFT != begin >> SHIFT else []
        xattr = columns.xattr[item]
        if size <= 0xFFFF and not index and xattr == f.NONE:
            return f.DIRECTORY.pack(Kind.DIRECTORY, *common, reference >> 16, links, size, reference & 0xFFFF, parent)
        kind = Kind.DIRECTORY + f.EXTENDED
        inode = f.EXTENDED_DIRECTORY.pack(kind, *common, links, size, reference >> 16, parent, len(index), reference & 0xFFFF, xattr)
        return b"".join([inode, *index])

    def _index(self, begin: int, runs: list[tuple[int, int]]) -> list[bytes]:
        """Return the index of a listing: the first run that starts in each metadata block but the first."""
        found = []
        last = begin >> SHIFT
        for place, row in runs:
            if place >> SHIFT != last:
                last = place >> SHIFT
                name = self._sandbox.name(row)
                found.append(f.DIRECTORY_INDEX.pack(place - begin, self.directories.starts[last], len(name) - 1) + name)
        return found[:_MAX_INDEX]
