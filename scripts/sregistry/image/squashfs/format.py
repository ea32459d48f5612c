"""The structures of squashfs 4.0 as they lie on disk, little-endian and packed.

Source: Linux, Documentation/filesystems/squashfs.rst and fs/squashfs/squashfs_fs.h.
"""

from __future__ import annotations

import struct
from enum import IntFlag
from typing import NamedTuple

MAGIC = 0x73717368
#: A table that is not there.
ABSENT = (1 << 64) - 1
#: Uncompressed bytes of a metadata block.
METADATA_BLOCK = 8192
#: Bit 15 of a metadata block's header: stored raw.
METADATA_RAW = 0x8000
#: No fragment, no extended attributes.
NONE = 0xFFFFFFFF
#: The image ends at a multiple of this many bytes, which a loop device needs.
PADDING = 4096


class Flag(IntFlag):
    """Superblock flags; the kernel acts on none of these two."""

    DUPLICATES = 0x40
    NO_XATTRS = 0x200


#: The basic inode types are those of `tar.Kind`; an extended one is this much above.
EXTENDED = 7

SUPERBLOCK = struct.Struct("<IIIIIHHHHHHQQQQQQQQ")


class Superblock(NamedTuple):
    """The first 96 bytes. Positions are relative to the start of the file system."""

    magic: int
    inodes: int
    created: int
    block_size: int
    fragments: int
    compressor: int
    block_log: int
    flags: int
    ids: int
    major: int
    minor: int
    root: int
    bytes_used: int
    id_table: int
    xattr_table: int
    inode_table: int
    directory_table: int
    fragment_table: int
    export_table: int


# type, mode, uid index, gid index, mtime, number; then what the type adds
DIRECTORY = struct.Struct("<HHHHIIIIHHI")  # listing block, nlink, listing size, offset, parent number
EXTENDED_DIRECTORY = struct.Struct("<HHHHIIIIIIHHI")  # nlink, size, block, parent, index count, offset, xattr
FILE = struct.Struct("<HHHHIIIIII")  # start, fragment, offset, size
EXTENDED_FILE = struct.Struct("<HHHHIIQQQIIII")  # start, size, sparse, nlink, fragment, offset, xattr
SYMLINK = struct.Struct("<HHHHIIII")  # nlink, target size; then the target, then u32 xattr if extended
DEVICE = struct.Struct("<HHHHIIII")  # nlink, rdev; then u32 xattr if extended
FIFO = struct.Struct("<HHHHIII")  # nlink; then u32 xattr if extended

DIRECTORY_INDEX = struct.Struct("<III")  # listing position, metadata block, name length - 1; then the name
RUN = struct.Struct("<III")  # entries - 1, inode block, base inode number
RUN_ENTRY = struct.Struct("<HhHH")  # inode offset, number - base, basic type, name length - 1; then the name
FRAGMENT = struct.Struct("<QII")  # start, word, unused
XATTR_ID = struct.Struct("<QII")  # reference to the first key, count, bytes
XATTR_TABLE = struct.Struct("<QII")  # keys' start, ids, unused
U32, U64 = struct.Struct("<I"), struct.Struct("<Q")

XATTR_PREFIXES = {b"user.": 0, b"trusted.": 1, b"security.": 2}


def device_number(major: int, minor: int) -> int:
    """Return a device's number as Linux encodes it (new_encode_dev)."""
    return (major << 8) | (minor & 0xFF) | ((minor & ~0xFF) << 12)
