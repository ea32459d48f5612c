"""Limits of the package, each with its reason."""

from __future__ import annotations

# -- names of images and files

#: Bytes of a file's name, without its folder: what Linux takes on all usual file systems (NAME_MAX). One that takes
#: less says so itself (`os.pathconf`).
FILE_NAME = 255
#: Bytes of an image's name in that of its temporary neighbour, so that any name that is allowed has one.
NEIGHBOUR_NAME = 160
#: Bytes of an image file that are hashed before it is replaced. Of a larger one the size and its own labels tell
#: whether it is what was recorded: to hash gigabytes would cost more than to make the image.
HASHED_FILE = 16 << 20
#: Bytes read of one of an image's own documents; the largest seen had some tens of thousands.
OWN_DOCUMENT = 4 << 20
