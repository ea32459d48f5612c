"""A sandbox unpacked: a real directory that engines run and people look into.

Every path is reached through descriptors of directories that this module made itself, one name at a
time (openat and friends, never following links), so that no link of the image leads anywhere else.
As root, owners, devices and all attributes are those of the image. As an ordinary user, what the
system forbids is left out: owners, devices (an empty file stands for one), privileged attributes.

A directory that is kept lends nobody rights. A set-uid file that a user made would give his own rights to all who run
it: the set-id bits of files are left out. As root they stay, with devices and capabilities, and are told, so that the
directory can be closed to others.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from sregistry.errors import ImageError
from sregistry.image.squashfs.columns import seconds
from sregistry.image.tree import IMPLIED, Sandbox
from sregistry.layers.contents import Contents
from sregistry.layers.index import Index
from sregistry.layers.tar_fields import show
from sregistry.layers.tar_reader import Kind
from sregistry.system import limits

_SET_ID = stat.S_ISUID | stat.S_ISGID
_CAPABILITY = b"security.capability"
_NODE = {Kind.BLOCK_DEVICE: stat.S_IFBLK, Kind.CHARACTER_DEVICE: stat.S_IFCHR}


def open_bits(kind: int) -> int:
    """Return the permission bits that let an owner read an entry, and fill it if it is a directory."""
    return 0o700 if kind == Kind.DIRECTORY else 0o400


class Unpacked(NamedTuple):
    """Bytes of content written, and names of what gives rights: to whom runs or opens it, or would, if it were not left out."""

    size: int
    powers: list[str]


def unpack(
    sandbox: Sandbox, layers: Sequence[Index], contents: Contents, target: Path, *, readable: bool = False, kept: bool = False
) -> Unpacked:
    """Make *target*, which must not exist, and fill it.

    Args:
        readable: all modes are opened for the owner; see `open_bits`.
        kept: the directory is the image itself, which others may come to, not a step on the way to one.

    Raises:
        ImageError: more than `limits` allows, or an attribute that the file system can't hold.
        OSError: the file system refuses; the error names the file.
        StoreError: an exploded layer is missing or damaged.
    """
    target.mkdir(mode=0o700)
    return _Unpacker(sandbox, layers, contents, target, readable, kept).run()


class _Unpacker:
    def __init__(self, sandbox: Sandbox, layers: Sequence[Index], contents: Contents, target: Path, readable: bool, kept: bool) -> None:
        self._sandbox = sandbox
        self._layers = layers
        self._contents = contents
        self._target = target
        self._readable = readable
        self._kept = kept
        self._powers: list[str] = []
        self._root = os.geteuid() == 0
        self._made: dict[int, tuple[tuple[int, ...], int]] = {}  # source of a file → rows that lead to its folder, row of its first name
        self._size = 0

    def run(self) -> Unpacked:
        with self._folder((0,)) as handle:
            self._fill((0,), handle)
            self._seal(0, handle)
        return Unpacked(self._size, self._powers)

    def _fill(self, trail: tuple[int, ...], handle: int) -> None:
        """Fill the open directory whose row ends *trail*."""
        sandbox = self._sandbox
        for row in sandbox.children(trail[-1]):
            name = sandbox.name(row)
            try:
                if not sandbox.is_directory(row, self._layers):
                    self._leaf(trail, row, name, handle)
                    continue
                if len(trail) > limits.SANDBOX_DEPTH:
                    message = f"{self._path(trail, name)}: directories deeper than the limit SANDBOX_DEPTH of {limits.SANDBOX_DEPTH}"
                    raise ImageError(message, hint="use format: sif")
                os.mkdir(name, 0o700, dir_fd=handle)
            except OSError as error:
                error.filename = self._path(trail, name)
                raise
            with _opened(name, handle) as below:
                self._fill((*trail, row), below)

    def _path(self, trail: tuple[int, ...], name: bytes) -> str:
        """Return where *name*, below the directory whose row ends *trail*, is in the image."""
        return b"/".join([*map(self._sandbox.name, trail), name]).decode(errors="backslashreplace")

    def _seal(self, row: int, handle: int) -> None:
        """Give the open directory its own metadata, those below it first: a mode may forbid to enter it."""
        sandbox = self._sandbox
        for child in sandbox.children(row):
            if sandbox.is_directory(child, self._layers):
                with _opened(sandbox.name(child), handle) as below:
                    self._seal(child, below)
        source = sandbox.source[row]
        if source == IMPLIED:
            os.fchmod(handle, 0o755)
        else:
            self._finish(source >> 32, source & 0xFFFFFFFF, handle, None)

    def _leaf(self, trail: tuple[int, ...], row: int, name: bytes, handle: int) -> None:
        source = self._sandbox.source[row]
        first = self._made.get(source)
        if first is not None:
            with self._folder(first[0]) as folder:
                os.link(self._sandbox.name(first[1]), name, src_dir_fd=folder, dst_dir_fd=handle, follow_symlinks=False)
            return
        self._made[source] = trail, row
        layer, item = source >> 32, source & 0xFFFFFFFF
        index = self._layers[layer]
        kind = index.kind[item]
        if kind == Kind.SYMLINK:
            os.symlink(index.link(item), name, dir_fd=handle)
        elif kind == Kind.FIFO:
            os.mkfifo(name, 0o600, dir_fd=handle)
        elif kind == Kind.FILE:
            self._file(layer, item, name, handle)
        elif self._root:
            os.mknod(name, 0o600 | _NODE[Kind(kind)], os.makedev(index.major[item], index.minor[item]), dir_fd=handle)
        else:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=handle))
        self._finish(layer, item, handle, name)

    def _file(self, layer: int, item: int, name: bytes, handle: int) -> None:
        index = self._layers[layer]
        file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=handle)
        try:
            at = 0
            for block in self._contents.blocks(layer, item):
                if block is None:
                    at += index.block_size
                    continue
                view = memoryview(block)
                while view:
                    done = os.pwrite(file, view, at)
                    view, at = view[done:], at + done
                self._size += len(block)
            os.ftruncate(file, index.size[item])
        finally:
            os.close(file)

    def _finish(self, layer: int, item: int, handle: int, name: bytes | None) -> None:
        """Apply owner, then mode (which a change of owner may clear), attributes and time."""
        index = self._layers[layer]
        # The descriptor's own path reaches an entry without following a link, also for attributes.
        path: bytes | int = handle if name is None else f"/proc/self/fd/{handle}/".encode() + name
        folder = None if name is None else handle
        target: bytes | int = handle if name is None else name
        if self._root:
            os.chown(target, index.uid[item], index.gid[item], dir_fd=folder, follow_symlinks=name is None)
        link = index.kind[item] == Kind.SYMLINK
        if not link:
            more = open_bits(index.kind[item]) if self._readable else 0
            os.chmod(target, self._harmless(layer, item, name) | more, dir_fd=folder)
        for key, value in index.xattrs(item):
            if key != b"security.selinux":
                _set_attribute(path, key, value, follow=name is None)
        time = seconds(index.mtime[item])
        os.utime(target, (time, time), dir_fd=folder, follow_symlinks=name is None)

    def _harmless(self, layer: int, item: int, name: bytes | None) -> int:
        """Return the mode of an entry that is no link, and note whether it gives rights to others."""
        index = self._layers[layer]
        kind, mode = index.kind[item], index.mode[item]
        if not self._kept or name is None:  # set-gid of a directory passes its group on, and no rights
            return mode
        runs = bool(mode & _SET_ID)
        if self._root:
            runs = runs or kind in _NODE or any(key == _CAPABILITY for key, _ in index.xattrs(item))
        if runs:
            self._powers.append(name.decode(errors="backslashreplace"))
        return mode & ~_SET_ID if runs and not self._root else mode

    @contextlib.contextmanager
    def _folder(self, trail: tuple[int, ...]) -> Iterator[int]:
        """Open the directory at the end of *trail* anew, name by name."""
        with contextlib.ExitStack() as stack:
            handle = stack.enter_context(_opened(self._target, None))
            for row in trail[1:]:
                handle = stack.enter_context(_opened(self._sandbox.name(row), handle))
            yield handle


@contextlib.contextmanager
def _opened(name: bytes | Path, parent: int | None) -> Iterator[int]:
    handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        yield handle
    finally:
        os.close(handle)


def _set_attribute(path: bytes | int, key: bytes, value: bytes, *, follow: bool) -> None:
    try:
        if follow:
            os.setxattr(path, key, value)
        else:
            os.setxattr(path, key, value, follow_symlinks=False)
    except OSError as error:
        # What an ordinary user or this file system can't set is not part of the promise.
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EACCES):
            return
        if error.errno in (errno.ENOSPC, errno.E2BIG, errno.ERANGE, errno.EINVAL):  # ext4 has room for some 4,000 bytes
            reason = "no valid one" if error.errno == errno.EINVAL else "the file system has no room for it"
            where = os.fsdecode(path) if isinstance(path, bytes) else "a directory"
            message = f"{where.rpartition('/')[2]}: extended attribute {show(key)} of {len(value)} bytes: {reason}"
            raise ImageError(message, hint="use format: sif") from error
        raise
