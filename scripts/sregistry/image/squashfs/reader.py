"""One small file of a squashfs, read: superblock, inode, directory listing, inode …, fragment or blocks.

```
superblock ─▶ inode of / ─▶ listing ─▶ inode of a directory ─▶ listing ─▶ inode of a file ─▶ blocks, end in a fragment
```

Source: Linux, Documentation/filesystems/squashfs.rst. It is for images that others may have made: whatever a number in
it says, no more than a few megabytes are read.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from typing import BinaryIO

from sregistry.errors import ImageError, LayerError
from sregistry.image.squashfs import format as f
from sregistry.layers.compression import Codec, decoder

_DIRECTORY, _FILE = 1, 2
#: Bytes of a listing, of a file, and of a block that are read at most.
_MOST, _BLOCK = 4 << 20, 1 << 20
_ZLIB, _XZ, _ZSTD = 1, 4, 6
_TABLE_BLOCK = f.METADATA_BLOCK // f.FRAGMENT.size


def read(file: BinaryIO, start: int, path: str) -> bytes | None:
    """Return the contents of a regular file; None where there is none of that path, or all is compressed by lzo, lz4 or lzma.

    Args:
        file: holds a squashfs from *start* on.
        path: without links, from the root.

    Raises:
        ImageError: the squashfs is damaged.
        OSError: the file can't be read.
    """
    try:
        return _Reader(file, start).read(path.strip("/").split("/"))
    except _Unsupported:
        return None
    except (struct.error, zlib.error, lzma.LZMAError, IndexError, ValueError, OverflowError) as error:
        raise ImageError(f"no whole squashfs: {error}") from error


class _Unsupported(Exception):
    """The squashfs is compressed in a way that nothing here can undo."""


class _Reader:
    def __init__(self, file: BinaryIO, start: int) -> None:
        self._file, self._start = file, start
        self._super = f.Superblock._make(f.SUPERBLOCK.unpack(self._raw(0, f.SUPERBLOCK.size)))
        if self._super.magic != f.MAGIC or not 0 < self._super.block_size <= _BLOCK:
            raise ImageError("no squashfs")

    def read(self, names: list[str]) -> bytes | None:
        place = self._super.root
        for name in names:
            found = self._entry(place, name.encode())
            if found is None:
                return None
            place = found
        return self._content(place)

    def _entry(self, place: int, name: bytes) -> int | None:
        """Return where the inode of an entry is, of the directory whose inode is at *place*."""
        inode = self._metadata(self._super.inode_table, place >> 16, place & 0xFFFF, f.EXTENDED_DIRECTORY.size, partly=True)
        (kind,) = struct.unpack_from("<H", inode)
        if kind == _DIRECTORY:
            _, _, _, _, _, _, block, _, size, offset, _ = f.DIRECTORY.unpack_from(inode)
        elif kind == _DIRECTORY + f.EXTENDED:
            _, _, _, _, _, _, _, size, block, _, _, offset, _ = f.EXTENDED_DIRECTORY.unpack_from(inode)
        else:
            return None
        # A listing counts `.` and `..`, which it does not hold, as three bytes.
        listing = self._metadata(self._super.directory_table, block, offset, max(0, min(size - 3, _MOST)))
        at = 0
        while at < len(listing):
            count, inode_block, _ = f.RUN.unpack_from(listing, at)
            at += f.RUN.size
            for _ in range(count + 1):
                inode_offset, _, _, length = f.RUN_ENTRY.unpack_from(listing, at)
                at += f.RUN_ENTRY.size + length + 1
                if listing[at - length - 1 : at] == name:
                    return int(inode_block << 16 | inode_offset)
        return None

    def _content(self, place: int) -> bytes | None:
        table = self._super.inode_table
        inode = self._metadata(table, place >> 16, place & 0xFFFF, f.EXTENDED_FILE.size, partly=True)
        (kind,) = struct.unpack_from("<H", inode)
        if kind == _FILE:
            shape, (_, _, _, _, _, _, begin, fragment, offset, size) = f.FILE, f.FILE.unpack_from(inode)
        elif kind == _FILE + f.EXTENDED:
            shape, (_, _, _, _, _, _, begin, size, _, _, fragment, offset, _) = f.EXTENDED_FILE, f.EXTENDED_FILE.unpack_from(inode)
        else:
            return None
        if size > _MOST:
            raise ImageError(f"no whole squashfs: a file of {size} bytes")
        block_size = self._super.block_size
        count = size // block_size if fragment != f.NONE else -(-size // block_size)
        words = self._metadata(table, place >> 16, (place & 0xFFFF), shape.size + 4 * count)[shape.size :]
        found = b""
        for (word,) in f.U32.iter_unpack(words):
            found += self._block(begin, word) if word else bytes(min(block_size, size - len(found)))
            begin += word & 0xFFFFFF
        if fragment != f.NONE:
            (where,) = f.U64.unpack(self._raw(self._super.fragment_table + 8 * (fragment // _TABLE_BLOCK), 8))
            entry = self._metadata(where, 0, f.FRAGMENT.size * (fragment % _TABLE_BLOCK), f.FRAGMENT.size)
            at, word, _ = f.FRAGMENT.unpack(entry)
            found += self._block(at, word)[offset : offset + size % block_size]
        if len(found) != size:
            raise ImageError(f"no whole squashfs: {len(found)} of {size} bytes of a file")
        return found

    def _metadata(self, table: int, block: int, offset: int, size: int, *, partly: bool = False) -> bytes:
        """Return *size* bytes at *offset* of what begins with the metadata block at *block* of a table; fewer at its end, with *partly*."""
        found, at = b"", table + block
        while len(found) < offset + size:
            (word,) = struct.unpack("<H", self._raw(at, 2))
            stored = word & ~f.METADATA_RAW
            try:
                data = self._raw(at + 2, stored)
                data = data if word & f.METADATA_RAW else self._expand(data, f.METADATA_BLOCK)
            except (ImageError, zlib.error):
                if partly and found:
                    break
                raise
            if not data:
                break
            found += data
            at += 2 + stored
            if len(data) < f.METADATA_BLOCK:
                break
        found = found[offset : offset + size]
        if len(found) < size and not partly:
            raise ImageError("no whole squashfs: a table ends too early")
        return found

    def _block(self, at: int, word: int) -> bytes:
        """Return a data block; bit 24 of its word says that it is stored raw."""
        data = self._raw(at, word & 0xFFFFFF)
        return data if word & 1 << 24 else self._expand(data, self._super.block_size)

    def _expand(self, data: bytes, most: int) -> bytes:
        if self._super.compressor == _ZLIB:
            return zlib.decompressobj().decompress(data, most)
        if self._super.compressor == _XZ:
            return lzma.LZMADecompressor().decompress(data, most)
        if self._super.compressor == _ZSTD:
            try:
                return decoder(Codec.ZSTD)(data, most)
            except LayerError as error:
                raise ImageError(f"no whole squashfs: {error}") from error
        raise _Unsupported

    def _raw(self, at: int, size: int) -> bytes:
        if not 0 <= size <= _BLOCK:
            raise ImageError(f"no whole squashfs: a block of {size} bytes")
        self._file.seek(self._start + at)
        data = self._file.read(size)
        if len(data) != size:
            raise ImageError("no whole squashfs: it ends too early")
        return data
