"""Builds the tables of a squashfs image over data that already exists.

`plan` decides everything before a byte is written: which stretches of each layer's data are alive,
where they go, and all tables. Writing the image is then only copying.

Inode numbers follow the sandbox's rows, so that the children of a directory have consecutive ones;
inodes are written directory by directory, the deepest first, because a directory's inode needs the
place of its listing and a listing the places of its inodes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from sregistry.compression import Compression, Encoder
from sregistry.errors import ImageError
from sregistry.index import RAW, Index, Xattrs
from sregistry.sandbox import IMPLIED, Sandbox
from sregistry.squashfs import format as f
from sregistry.tar import Kind

_LOW = 0xFFFFFFFF
_SIZE = RAW - 1


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes of a layer's data to copy as they are."""

    layer: int
    offset: int
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A whole image: superblock, then the stretches in order, then tables (padding included).

    `size` is the sum, a multiple of 4096 bytes. `dropped` tells the (path, attribute) that squashfs
    can't hold.
    """

    superblock: bytes
    stretches: tuple[Stretch, ...]
    tables: bytes
    size: int
    inodes: int
    dropped: tuple[tuple[bytes, bytes], ...]


def plan(sandbox: Sandbox, layers: Sequence[Index], *, created: int, compression: Compression) -> Plan:
    """Plan the image of a sandbox.

    Args:
        sandbox: the merged root file system.
        layers: its layers' indexes, of one codec and block size.
        created: seconds since 1970: the file system's time and that of directories no layer describes.
        compression: of the layers; also of the tables.

    Raises:
        ImageError: something that squashfs can't hold; the message shows the path.
    """
    for index in layers:
        if (index.codec, index.block_size) != (compression.codec, compression.block_size):
            raise ImageError("layers of different codecs or block sizes can't be composed", hint="explode them alike")
    return _Planner(sandbox, layers, created, compression).plan()


class _Stream:
    """A stream of metadata blocks."""

    def __init__(self, encode: Encoder) -> None:
        self._encode = encode
        self._open = bytearray()
        self.blocks = bytearray()
        self.starts: list[int] = []

    def place(self) -> tuple[int, int]:
        """Return block start and offset of what is appended next."""
        return len(self.blocks), len(self._open)

    def append(self, data: bytes) -> None:
        self._open += data
        while len(self._open) >= f.METADATA_BLOCK:
            self._flush()

    def finish(self) -> bytearray:
        if self._open:
            self._flush()
        return self.blocks

    def _flush(self) -> None:
        raw = bytes(self._open[: f.METADATA_BLOCK])
        del self._open[: f.METADATA_BLOCK]
        packed = self._encode(raw)
        self.starts.append(len(self.blocks))
        if len(packed) < len(raw):
            self.blocks += struct.pack("<H", len(packed)) + packed
        else:
            self.blocks += struct.pack("<H", len(raw) | f.METADATA_RAW) + raw


class _Layout:
    """Where the live data of all layers goes in the image."""

    def __init__(self, layers: Sequence[Index], files: Sequence[set[int]], base: int) -> None:
        self.stretches: list[Stretch] = []
        self.start: list[dict[int, int]] = []
        self.fragment: list[dict[int, int]] = []
        self.fragments = bytearray()
        self.fragment_count = 0
        self.end = base
        for number, index in enumerate(layers):
            self._place(number, index, files[number])

    def _place(self, number: int, index: Index, rows: set[int]) -> None:
        live: dict[int, int] = {}
        alive = set()
        for row in rows:
            size = sum(word & _SIZE for word in index.blocks(row))
            if size:
                live[index.start[row]] = size
            if index.fragment[row] != f.NONE:
                alive.add(index.fragment[row])
        fragments = {index.fragment_start[k]: k for k in alive}
        live.update((start, index.fragment_word[k] & _SIZE) for start, k in fragments.items())
        moved: dict[int, int] = {}
        numbers: dict[int, int] = {}
        run_start = run_end = -1
        for start in sorted(live):
            moved[start] = self.end
            if start in fragments:
                k = fragments[start]
                numbers[k] = self.fragment_count
                self.fragment_count += 1
                self.fragments += f.FRAGMENT.pack(self.end, index.fragment_word[k], 0)
            if start != run_end:
                if run_end > run_start:
                    self.stretches.append(Stretch(number, run_start, run_end - run_start))
                run_start = start
            run_end = start + live[start]
            self.end += live[start]
        if run_end > run_start:
            self.stretches.append(Stretch(number, run_start, run_end - run_start))
        self.start.append(moved)
        self.fragment.append(numbers)


class _Planner:
    def __init__(self, sandbox: Sandbox, layers: Sequence[Index], created: int, compression: Compression) -> None:
        self._sandbox = sandbox
        self._layers = layers
        self._created = created
        self._compression = compression
        self._encode = compression.encoder()
        self._inodes = _Stream(self._encode)
        self._directories = _Stream(self._encode)
        self._ids: dict[int, int] = {}
        self._xattr_ids: dict[tuple[int, int], int] = {}
        self._xattr_sets: dict[Xattrs, int] = {}
        self._dropped: list[tuple[bytes, bytes]] = []
        self._written: dict[int, tuple[int, int]] = {}
        self._number: dict[int, int] = {}

    def plan(self) -> Plan:
        sandbox, layers = self._sandbox, self._layers
        files: list[set[int]] = [set() for _ in layers]
        names: dict[int, int] = {}
        numbers = [0] * len(sandbox)
        count = 0
        directories = []
        kinds = [index.kind for index in layers]
        for row, source in enumerate(sandbox.source):
            if source == IMPLIED or kinds[source >> 32][source & _LOW] == Kind.DIRECTORY:
                directories.append(row)
            elif source in names:
                names[source] += 1
                numbers[row] = self._number[source]
                continue
            else:
                names[source] = 1
                self._number[source] = count + 1
                if kinds[source >> 32][source & _LOW] == Kind.FILE:
                    files[source >> 32].add(source & _LOW)
            count += 1
            numbers[row] = count
        self._numbers = numbers
        self._names = names
        self._layout = layout = _Layout(layers, files, f.SUPERBLOCK.size)
        listings: dict[int, tuple[int, int, int, int, bytes, int]] = {}
        for row in reversed(directories):
            listings[row] = self._listing(row, listings)
        root = self._directory(0, listings.pop(0), parent=count + 1)

        inode_table = bytes(self._inodes.finish())
        directory_table = bytes(self._directories.finish())
        at = layout.end
        tables = bytearray(inode_table + directory_table)
        directory_start = at + len(inode_table)
        fragment_table = self._table(tables, at, bytes(layout.fragments)) if layout.fragment_count else f.ABSENT
        ids = b"".join(map(f.U32.pack, self._ids))
        id_table = self._table(tables, at, ids)
        xattr_table = self._xattr_table(tables, at) if self._xattr_sets else f.ABSENT
        used = at + len(tables)
        tables += bytes(-used % f.PADDING)
        superblock = f.Superblock(
            magic=f.MAGIC,
            inodes=count,
            created=_seconds(self._created),
            block_size=self._compression.block_size,
            fragments=layout.fragment_count,
            compressor=self._compression.codec,
            block_log=self._compression.block_size.bit_length() - 1,
            flags=f.Flag.DUPLICATES | (0 if self._xattr_sets else f.Flag.NO_XATTRS),
            ids=len(self._ids),
            major=4,
            minor=0,
            root=root[0] << 16 | root[1],
            bytes_used=used,
            id_table=id_table,
            xattr_table=xattr_table,
            inode_table=at,
            directory_table=directory_start,
            fragment_table=fragment_table,
            export_table=f.ABSENT,
        )
        return Plan(
            superblock=f.SUPERBLOCK.pack(*superblock),
            stretches=tuple(layout.stretches),
            tables=bytes(tables),
            size=at + len(tables),
            inodes=count,
            dropped=tuple(self._dropped),
        )

    # -- inodes and directories

    def _listing(self, row: int, listings: dict[int, tuple[int, int, int, int, bytes, int]]) -> tuple[int, int, int, int, bytes, int]:
        """Write the inodes of a directory's children, then its listing.

        Returns metadata block, offset and size of the listing, number of subdirectories, the
        directory index and its length.
        """
        sandbox, numbers = self._sandbox, self._numbers
        entries = []
        subdirectories = 0
        for child in sandbox.children(row):
            source = sandbox.source[child]
            if child in listings:
                place = self._directory(child, listings.pop(child), parent=numbers[row])
                kind: int = Kind.DIRECTORY
                subdirectories += 1
            else:
                kind = self._layers[source >> 32].kind[source & _LOW]
                found = self._written.get(source)
                place = found if found is not None else self._leaf(child, source, kind)
            name = sandbox.name(child)
            if len(name) > f.MAX_NAME:
                raise ImageError(f"a file name of {len(name)} bytes, over the limit of {f.MAX_NAME}: {name[:60]!r}…")
            entries.append((name, place, numbers[child], kind))
        stream = self._directories
        block, offset = stream.place()
        size = 0
        index = bytearray()
        indexed = 0
        last_block = block
        at = 0
        while at < len(entries):
            first = entries[at]
            end = at + 1
            while (
                end < len(entries)
                and end - at < 256
                and entries[end][1][0] == first[1][0]
                and -32768 <= entries[end][2] - first[2] <= 32767
            ):
                end += 1
            here = stream.place()[0]
            if here != last_block:
                index += f.DIRECTORY_INDEX.pack(size, here, len(first[0]) - 1) + first[0]
                indexed += 1
                last_block = here
            run = bytearray(f.RUN.pack(end - at - 1, first[1][0], first[2]))
            for name, place, number, kind in entries[at:end]:
                run += f.RUN_ENTRY.pack(place[1], number - first[2], kind, len(name) - 1) + name
            stream.append(bytes(run))
            size += len(run)
            at = end
        return block, offset, size, subdirectories, bytes(index), indexed

    def _directory(self, row: int, listing: tuple[int, int, int, int, bytes, int], parent: int) -> tuple[int, int]:
        block, offset, size, subdirectories, index, indexed = listing
        source = self._sandbox.source[row]
        if source == IMPLIED:
            mode, uid, gid, mtime, xattr = 0o755, self._id(0), self._id(0), _seconds(self._created), f.NONE
        else:
            mode, uid, gid, mtime, xattr = self._common(row, source)
        number = self._numbers[row]
        place = self._inodes.place()
        links = subdirectories + 2
        if size + 3 > 0xFFFF or indexed or xattr != f.NONE:
            kind = Kind.DIRECTORY + f.EXTENDED
            data = f.EXTENDED_DIRECTORY.pack(kind, mode, uid, gid, mtime, number, links, size + 3, block, parent, indexed, offset, xattr)
            self._inodes.append(data + index)
        else:
            data = f.DIRECTORY.pack(Kind.DIRECTORY, mode, uid, gid, mtime, number, block, links, size + 3, offset, parent)
            self._inodes.append(data)
        return place

    def _leaf(self, row: int, source: int, kind: int) -> tuple[int, int]:
        """Write the inode of anything but a directory."""
        layer, item = source >> 32, source & _LOW
        index = self._layers[layer]
        *owned, xattr = self._common(row, source)
        common = (*owned, self._number[source])
        links = self._names[source]
        place = self._inodes.place()
        if kind == Kind.FILE:
            data = self._file(layer, item, common, links, xattr)
        else:
            extended = f.EXTENDED if xattr != f.NONE else 0
            if kind == Kind.SYMLINK:
                target = index.link(item)
                if not 0 < len(target) <= f.MAX_SYMLINK:
                    raise ImageError(f"{self._path(row)}: a symbolic link to {len(target)} bytes (1 to {f.MAX_SYMLINK} are possible)")
                data = f.SYMLINK.pack(kind + extended, *common, links, len(target)) + target
            elif kind == Kind.FIFO:
                data = f.FIFO.pack(kind + extended, *common, links)
            else:
                major, minor = index.major[item], index.minor[item]
                if not (0 <= major <= f.MAX_MAJOR and 0 <= minor <= f.MAX_MINOR):
                    raise ImageError(f"{self._path(row)}: device {major}:{minor} is out of range")
                data = f.DEVICE.pack(kind + extended, *common, links, f.device_number(major, minor))
            if extended:
                data += f.U32.pack(xattr)
        self._inodes.append(data)
        self._written[source] = place
        return place

    def _file(self, layer: int, row: int, common: tuple[int, ...], links: int, xattr: int) -> bytes:
        index = self._layers[layer]
        size = index.size[row]
        words = index.blocks(row)
        start = self._layout.start[layer].get(index.start[row], 0) if any(words) else 0
        fragment, offset = f.NONE, 0
        if index.fragment[row] != f.NONE:
            fragment, offset = self._layout.fragment[layer][index.fragment[row]], index.fragment_offset[row]
        sparse = self._compression.block_size * sum(1 for word in words if not word)
        packed = struct.pack(f"<{len(words)}I", *words)
        if links == 1 and xattr == f.NONE and not sparse and max(start, size) < 1 << 32:
            return f.FILE.pack(Kind.FILE, *common, start, fragment, offset, size) + packed
        kind = Kind.FILE + f.EXTENDED
        return f.EXTENDED_FILE.pack(kind, *common, start, size, sparse, links, fragment, offset, xattr) + packed

    def _common(self, row: int, source: int) -> tuple[int, int, int, int, int]:
        """Return mode, uid index, gid index, mtime and xattr id."""
        layer, item = source >> 32, source & _LOW
        index = self._layers[layer]
        xattr = f.NONE if index.xattr[item] == f.NONE else self._xattr(row, layer, item)
        return index.mode[item], self._id(index.uid[item]), self._id(index.gid[item]), _seconds(index.mtime[item]), xattr

    def _id(self, value: int) -> int:
        number = self._ids.setdefault(value, len(self._ids))
        if number >= f.MAX_IDS:
            raise ImageError(f"more than {f.MAX_IDS} different owners and groups")
        return number

    def _path(self, row: int) -> str:
        return self._sandbox.name(row).decode(errors="backslashreplace")

    # -- tables

    def _table(self, tables: bytearray, base: int, data: bytes) -> int:
        """Append a table of metadata blocks and their positions; return where the positions are."""
        stream = _Stream(self._encode)
        stream.append(data)
        blocks = stream.finish()
        start = base + len(tables)
        tables += blocks
        position = base + len(tables)
        tables += b"".join(f.U64.pack(start + block) for block in stream.starts)
        return position

    def _xattr(self, row: int, layer: int, item: int) -> int:
        """Return the id of an entry's attributes; what squashfs can't hold is left out and told."""
        known = self._xattr_ids.get((layer, self._layers[layer].xattr[item]))
        if known is not None:
            return known
        kept = []
        for name, value in self._layers[layer].xattrs(item):
            # SELinux labels belong to the host that made them; umoci leaves them out as well.
            if name == b"security.selinux":
                continue
            if not name.startswith(tuple(f.XATTR_PREFIXES)):
                self._dropped.append((self._sandbox.name(row), name))
                continue
            kept.append((name, value))
        number = f.NONE
        if kept:
            number = self._xattr_sets.setdefault(tuple(sorted(kept)), len(self._xattr_sets))
        self._xattr_ids[layer, self._layers[layer].xattr[item]] = number
        return number

    def _xattr_table(self, tables: bytearray, base: int) -> int:
        keys = _Stream(self._encode)
        ids = bytearray()
        for xattrs in self._xattr_sets:
            block, offset = keys.place()
            size = 0
            for name, value in xattrs:
                prefix = next(p for p in f.XATTR_PREFIXES if name.startswith(p))
                short = name[len(prefix) :]
                keys.append(struct.pack("<HH", f.XATTR_PREFIXES[prefix], len(short)) + short + f.U32.pack(len(value)) + value)
                size += len(name) + 1 + len(value)
            ids += f.XATTR_ID.pack(block << 16 | offset, len(xattrs), size)
        keys_start = base + len(tables)
        tables += keys.finish()
        stream = _Stream(self._encode)
        stream.append(bytes(ids))
        blocks = stream.finish()
        ids_start = base + len(tables)
        tables += blocks
        position = base + len(tables)
        tables += f.XATTR_TABLE.pack(keys_start, len(self._xattr_sets), 0)
        tables += b"".join(f.U64.pack(ids_start + block) for block in stream.starts)
        return position


def _seconds(value: int) -> int:
    return min(max(value, 0), 0xFFFFFFFF)
