"""The most that is taken from outside: every limit and its reason, here and nowhere else.

A limit bounds the work and the memory that a stranger's bytes may cause, or is a bound of Linux or of
squashfs, past which an image exists that nothing can unpack. An error that hits a limit names the
constant. The table under "Limits" in config/README.md has these lines; a test compares them.

Each constant stands under a comment, `#: unit, and of what; reason`, which is its row of that table.
"""

from __future__ import annotations

# -- Names and attributes: what Linux can hold

#: bytes of a file's name; NAME_MAX of Linux, and no tool unpacks a squashfs with longer ones
NAME = 255
#: bytes of a path in a layer or an image; PATH_MAX of Linux: nothing opens a longer one
PATH = 4096
#: bytes of a symbolic link's target; readers of squashfs refuse 4,096
LINK = 4095
#: bytes of an extended attribute's name; XATTR_NAME_MAX of Linux
ATTRIBUTE_NAME = 255
#: bytes of an extended attribute's value; XATTR_SIZE_MAX of Linux
ATTRIBUTE_VALUE = 65536
#: bytes of the names of an entry's extended attributes, a NUL after each; XATTR_LIST_MAX of Linux
ATTRIBUTE_NAMES = 65536
#: is the largest major number of a device; squashfs and Linux hold 12 bits
DEVICE_MAJOR = 0xFFF
#: is the largest minor number of a device; squashfs and Linux hold 20 bits
DEVICE_MINOR = 0xFFFFF
#: is the largest uid or gid; Linux reserves 2³² − 1
OWNER = 0xFFFFFFFE
#: owners and groups of an image; squashfs counts them in 16 bits
OWNERS = 0xFFFF
#: bytes of a file, holes included; the offsets of Linux have 63 bits
FILE = 0x7FFFFFFFFFFFFFFF
#: bytes of a squashfs' table of inodes, and of its listings; a directory refers to them with 32 bits
TABLE = 0xFFFFFFFF

# -- Layers: what a few compressed bytes may grow to

#: bytes that a layer may have uncompressed, holes counted, if `layer_limit` says nothing else; far above the largest images
LAYER = 1 << 40
#: bytes of extended headers and long names before one entry; they are held in memory
HEADERS = 16 << 20
#: extended attributes in global headers; each entry that follows has them all
GLOBAL_ATTRIBUTES = 32
#: segments of a sparse file; 16 bytes of memory each, and an honest image of a disk has some 200,000
SEGMENTS = 1 << 22
#: entries of a layer, and inodes of an image; 70 to 400 bytes of memory each, ten times the largest image that is measured
INODES = 10_000_000
#: directories of an image that no layer describes; a path of 4 kB, 30 bytes compressed, implies 2,048
IMPLIED = 1_000_000
#: symbolic links on the way to one entry; loops end there
LINKS = 255
#: names on the way through symbolic links, for each entry of a layer on average; a link of 4 kB leads through 2,048
LINK_STEPS = 64
#: bytes of a zstd frame's window, which is memory; the zstd program takes no larger one unasked
ZSTD_WINDOW = 128 << 20
#: levels of directories in an image of format sandbox; one descriptor is open for each, and a process may have 1,024
SANDBOX_DEPTH = 400

# -- Documents and answers

#: bytes of a manifest, index or config; the distribution-spec asks for at least 4 MiB
DOCUMENT = 4 << 20
#: bytes of a body that says what went wrong, or that nobody wants; a page of a proxy has a few thousand
ERROR_BODY = 64 << 10
