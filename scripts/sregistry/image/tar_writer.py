"""A sandbox as one tar stream: what tools that read tar need to know every entry exactly, without root.

```
| [x: SCHILY.xattr.… ] [L, K: long names] header 512 | content, padded to 512 | … | two zero blocks |
```

GNU's format for names, owners and numbers of any size, as bytes; a pax header only where there are
extended attributes. Directories come before what is in them, names of an inode after the first one
are hard links. The root has no entry: tools take its metadata by other ways, see `metadata`.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sregistry.image.programs import Sink
from sregistry.image.squashfs.columns import seconds
from sregistry.image.squashfs.format import XATTR_PREFIXES
from sregistry.image.tree import IMPLIED, Sandbox
from sregistry.layers.contents import Contents
from sregistry.layers.index import Index, Xattrs
from sregistry.layers.tar_reader import Kind

_BLOCK = 512
_LOW = 0xFFFFFFFF
_TYPES = {
    Kind.DIRECTORY: tarfile.DIRTYPE,
    Kind.FILE: tarfile.REGTYPE,
    Kind.SYMLINK: tarfile.SYMTYPE,
    Kind.BLOCK_DEVICE: tarfile.BLKTYPE,
    Kind.CHARACTER_DEVICE: tarfile.CHRTYPE,
    Kind.FIFO: tarfile.FIFOTYPE,
}


class Metadata(NamedTuple):
    """What an entry says about itself: permission bits, owner, group, whole seconds, attributes squashfs can hold."""

    mode: int
    uid: int
    gid: int
    mtime: int
    xattrs: Xattrs


class Written(NamedTuple):
    """What a stream holds: its inodes, the root among them, and the (path, attribute) left out."""

    inodes: int
    dropped: tuple[tuple[bytes, bytes], ...]


def metadata(sandbox: Sandbox, layers: Sequence[Index], row: int, created: int) -> tuple[Metadata, list[bytes]]:
    """Return a row's metadata, and the names of the attributes that squashfs can't hold."""
    source = sandbox.source[row]
    if source == IMPLIED:
        return Metadata(0o755, 0, 0, created, ()), []
    index, item = layers[source >> 32], source & _LOW
    kept, dropped = [], []
    for name, value in index.xattrs(item):
        if name.startswith(tuple(XATTR_PREFIXES)) and b"=" not in name:
            # SELinux labels belong to the host that made them.
            if name != b"security.selinux":
                kept.append((name, value))
        else:
            dropped.append(name)
    return Metadata(index.mode[item], index.uid[item], index.gid[item], seconds(index.mtime[item]), tuple(kept)), dropped


def write(sandbox: Sandbox, layers: Sequence[Index], contents: Contents, created: int, sink: Sink) -> Written:
    """Give the stream to *sink*, piece by piece.

    Args:
        sandbox: the merged root file system.
        layers: its layers' indexes.
        contents: their data.
        created: time of directories that no layer describes, in seconds since 1970.
        sink: takes bytes.

    Raises:
        StoreError: the data is missing or damaged.
    """
    first: dict[int, bytes] = {}
    inodes, left_out = 1, []
    for path, row in walk(sandbox):
        source = sandbox.source[row]
        info = tarfile.TarInfo(path.decode("utf-8", "surrogateescape"))
        if source in first:
            info.type, info.linkname = tarfile.LNKTYPE, first[source].decode("utf-8", "surrogateescape")
            sink(_header(info))
            continue
        inodes += 1
        own, dropped = metadata(sandbox, layers, row, created)
        left_out += [(path, name) for name in dropped]
        info.mode, info.uid, info.gid, info.mtime, _ = own
        if sandbox.is_directory(row, layers):
            info.type = tarfile.DIRTYPE
            sink(_header(info, own.xattrs))
            continue
        first[source] = path
        layer, item = source >> 32, source & _LOW
        index = layers[layer]
        kind = Kind(index.kind[item])
        info.type, info.size = _TYPES[kind], index.size[item]
        info.linkname = index.link(item).decode("utf-8", "surrogateescape")
        info.devmajor, info.devminor = index.major[item], index.minor[item]
        sink(_header(info, own.xattrs))
        if kind is Kind.FILE:
            hole = bytes(index.block_size)
            for block in contents.blocks(layer, item):
                sink(hole if block is None else block)
            sink(bytes(-info.size % _BLOCK))
    sink(bytes(2 * _BLOCK))
    return Written(inodes, tuple(left_out))


def walk(sandbox: Sandbox) -> Iterator[tuple[bytes, int]]:
    """Yield path and row of all but the root, directories before their content, by name."""
    waiting = [(b"", 0)]
    while waiting:
        path, row = waiting.pop()
        if row:
            yield path, row
        prefix = path + b"/" if path else b""
        for child in reversed(sandbox.children(row)):
            waiting.append((prefix + sandbox.name(child), child))


def _header(info: tarfile.TarInfo, xattrs: Xattrs = ()) -> bytes:
    data = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    if not xattrs:
        return data
    records = b"".join(_record(b"SCHILY.xattr." + name, value) for name, value in xattrs)
    extended = tarfile.TarInfo("attributes")
    extended.type, extended.size = tarfile.XHDTYPE, len(records)
    return extended.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % _BLOCK) + data


def _record(key: bytes, value: bytes) -> bytes:
    """Return a pax record; its length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)
