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
#: levels of a JSON document; real ones have fewer than ten, and the interpreter ends at some 1,000
JSON_DEPTH = 100
#: digits of a whole number in JSON; the largest double has 309, and reading longer ones costs the square of their length
JSON_DIGITS = 309
#: bytes that a descriptor may declare; sizes have 63 bits in the image-spec
DECLARED_SIZE = 0x7FFFFFFFFFFFFFFF
#: layers of an image, and steps of its history in schema 1; overlayfs and Docker end at 127, and each is two jobs here
IMAGE_LAYERS = 1000
#: entries of an index; real ones have some dozens, and 4 MiB hold a million
INDEX_ENTRIES = 10_000
#: indexes inside each other; real images have one, seldom two
INDEX_DEPTH = 4
#: documents that are read in search of a platform; each is a request
INDEX_DOCUMENTS = 64
#: platforms that a message lists; an index may have thousands
LISTED_PLATFORMS = 20
#: bytes of a body that says what went wrong, or that nobody wants; a page of a proxy has a few thousand
ERROR_BODY = 64 << 10

# -- Answers of registries

#: seconds from a request to the end of the answer's header lines; a busy registry takes some, a proxy that scans a blob a minute
ANSWER_SECONDS = 120.0
#: bytes of an answer before somebody reads its body; http.client takes 100 header lines of 64 KiB, real ones have 8 KiB in all
ANSWER_BYTES = 1 << 20
#: seconds for the body of a document, a token, a page of a list; of 4 MiB at most, and of some KiB mostly
DOCUMENT_SECONDS = 120.0
#: seconds for a body that says what went wrong, or that nobody wants; a new connection is cheaper than a longer wait
ERROR_SECONDS = 10.0
#: bytes of a realm's answer; tokens have some KiB, and up to 64 KiB with many scopes
TOKEN_BYTES = 1 << 20
#: bytes of a blob that must come in SLOW_SECONDS, else the try ends and the next one goes on; 1 KiB/s is a tenth of a modem's rate
SLOW_BYTES = 64 << 10
#: seconds of waiting for SLOW_BYTES; a registry that scans a blob first may be silent that long
SLOW_SECONDS = 60.0
#: redirects of one request; browsers follow 20, registries send one or two
REDIRECTS = 10
#: content codings of one body, one over the other; servers use one, and each may be a bomb
CODINGS = 2
#: addresses of a foreign layer that are tried; Microsoft's layers have one, and each may cost a time-out
FOREIGN_ADDRESSES = 8
#: pages of a list; real ones have some thousand names on a few pages
LIST_PAGES = 1000
#: names of a list; Docker Hub's longest has some 30,000
LIST_NAMES = 500_000
#: pages of a list in a row that bring nothing new; a registry that filters late sends an empty page now and then
LIST_IDLE_PAGES = 20
#: seconds for all pages of a list; a thousand pages at one a second
LIST_SECONDS = 900.0
#: bytes that a file system keeps free where a blob of unknown size comes in; other jobs' receipts and catalog must go on
FREE_BYTES = 256 << 20
#: bytes of a blob of unknown size between two looks at the free space; 64 looks a GiB cost nothing
FREE_EVERY = 16 << 20

# -- Names and files of images

#: bytes of an image's name in that of its temporary neighbour; any name that is allowed then has one
NEIGHBOUR_NAME = 160
#: bytes of an image file that are hashed before it is replaced; of a larger one, size and labels tell, as a hash would cost too much
HASHED_FILE = 16 << 20
#: bytes read of one of an image's own documents; the largest seen had some tens of thousands
OWN_DOCUMENT = 4 << 20

# -- Files of this machine

#: bytes of the secrets file; a hundred backends have some tens of thousands
SECRETS_FILE = 1 << 20
#: bytes of another file of one's own that is read whole; rows of registries and credentials of Docker have some thousand
OWN_FILE = 4 << 20
#: bytes of a lock; ours have some hundred, and what is there may be a stranger's
LOCK_FILE = 4096
#: bytes of index.json, and of the manifests of a record; a store of 100,000 names has some 30 MB
STORE_DOCUMENT = 64 << 20
#: bytes of an image's labels in its record, the longest values left out beyond; a list of 10,000 records stays quick
LABELS = 4096
