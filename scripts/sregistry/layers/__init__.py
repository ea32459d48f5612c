"""A layer's tar stream becomes squashfs blocks and an index, once for all images."""
