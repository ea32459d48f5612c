"""The most that is taken from outside: every limit and its reason, here and nowhere else.

A limit bounds the work and the memory that a stranger's bytes may cause, or is a bound of Linux or of
squashfs, past which an image exists that nothing can unpack. An error that hits a limit names the
constant. The table under "Limits" in config/README.md has these lines; a test compares them.

Each constant stands under a comment that begins with its unit.
"""

from __future__ import annotations

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
