"""Builds the tables of a squashfs image over data that already exists.

`arrange` decides which stretches of each layer's data are alive and where they go (`layout`): they can
be copied from then on. `plan` makes all tables: inodes and directories (`tree`), fragments, ids,
extended attributes (`attributes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sregistry.errors import ImageError
from sregistry.image.squashfs import format as f
from sregistry.image.squashfs.attributes import Attributes
from sregistry.image.squashfs.columns import Columns, Rows, seconds
from sregistry.image.squashfs.layout import Layout
from sregistry.image.squashfs.stream import Stream
from sregistry.image.squashfs.tree import Tree
from sregistry.image.tree import Sandbox
from sregistry.layers.compression import Compression, Encoder
from sregistry.layers.index import Index


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """A whole image: superblock, then the layout's stretches in order, then tables (padding included).

    `size` is the sum, a multiple of 4096 bytes. `dropped` are the names of attributes that squashfs
    can't hold.
    """

    superblock: bytes
    tables: bytes
    size: int
    inodes: int
    dropped: tuple[bytes, ...]


def arrange(sandbox: Sandbox, layers: Sequence[Index]) -> tuple[Rows, Layout]:
    """Tell what the sandbox's rows are, and where the layers' data goes: between superblock and tables.

    Args:
        sandbox: the merged root file system.
        layers: its layers' indexes, of one codec and block size.

    Raises:
        ImageError: the layers don't go together.
    """
    if len({(index.codec, index.block_size) for index in layers}) > 1:
        raise ImageError("layers of different codecs or block sizes can't be composed", hint="explode them alike")
    rows = Rows(sandbox, layers)
    return rows, Layout(layers, rows.live, f.SUPERBLOCK.size)


def plan(sandbox: Sandbox, layers: Sequence[Index], rows: Rows, layout: Layout, *, created: int, compression: Compression) -> Plan:
    """Plan the image of a sandbox.

    Args:
        sandbox, layers: see `arrange`.
        rows, layout: what it returned.
        created: seconds since 1970: the file system's time and that of directories no layer describes.
        compression: codec and block size of the layers; with its level the tables are compressed.

    Raises:
        ImageError: something that squashfs can't hold; the message shows the name.
    """
    attributes = Attributes()
    columns = Columns(layers, rows, layout, attributes, created)
    tree = Tree(sandbox, layers, rows, columns, layout, compression)

    encode = compression.encoder()
    parts: list[bytes | bytearray] = [tree.inodes.finish(), tree.directories.finish()]
    end = layout.end + sum(map(len, parts))
    fragment_table = xattr_table = f.ABSENT
    if layout.fragment_count:
        table, fragment_table = _table(encode, end, bytes(layout.fragments))
        parts.append(table)
        end += len(table)
    table, id_table = _table(encode, end, b"".join(map(f.U32.pack, columns.ids)))
    parts.append(table)
    end += len(table)
    if attributes.sets:
        table, xattr_table = attributes.table(encode, end)
        parts.append(table)
        end += len(table)
    parts.append(bytes(-end % f.PADDING))
    superblock = f.Superblock(
        magic=f.MAGIC,
        inodes=rows.inodes,
        created=seconds(created),
        block_size=compression.block_size,
        fragments=layout.fragment_count,
        compressor=compression.codec,
        block_log=compression.block_size.bit_length() - 1,
        flags=f.Flag.DUPLICATES | (0 if attributes.sets else f.Flag.NO_XATTRS),
        ids=len(columns.ids),
        major=4,
        minor=0,
        root=tree.root,
        bytes_used=end,
        id_table=id_table,
        xattr_table=xattr_table,
        inode_table=layout.end,
        directory_table=layout.end + len(parts[0]),
        fragment_table=fragment_table,
        export_table=f.ABSENT,
    )
    return Plan(
        superblock=f.SUPERBLOCK.pack(*superblock),
        tables=b"".join(parts),
        size=end + len(parts[-1]),
        inodes=rows.inodes,
        dropped=tuple(sorted(attributes.dropped)),
    )


def _table(encode: Encoder, base: int, data: bytes) -> tuple[bytes, int]:
    """Return a table of metadata blocks and their positions, as it stands at *base*, and where the positions are."""
    stream = Stream(encode)
    stream.append(data)
    blocks = bytes(stream.finish())
    return blocks + b"".join(f.U64.pack(base + start) for start in stream.starts), base + len(blocks)
