"""Files beneath a folder that others may write: reached by descriptors, never along a link.

```
<root> ─ openat ─▶ folder ─ openat ─▶ folder ─ openat ─▶ a regular file, or an error that says what is there
```

The root may be reached over a link: its name is the user's own choice, as long as the link is his, root's or that of
whoever has the folder it is in (proc(5), protected_symlinks). Below it, each folder is opened with
O_NOFOLLOW | O_DIRECTORY, so that no link leads out and no renamed folder changes what a name means halfway
(openat(2); Go's os.Root and openat2's RESOLVE_NO_SYMLINKS are the same idea). Files are opened with
O_NONBLOCK, and only regular ones: a pipe holds nobody. What is written is made with O_EXCL.

Names are relative to the root, with `/` between their parts. Errors name the whole path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Collection, Iterator
from io import BufferedReader, FileIO
from pathlib import Path

#: O_PATH needs no more than the right to enter a folder.
_FOLDER = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_LISTED = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

_KINDS = {
    stat.S_IFLNK: "a link, and none is followed here",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Foreign(OSError):
    """Something else is where a folder or a regular file should be; the message names it."""


def kind(found: os.stat_result) -> str:
    """Return in words what is there."""
    return _KINDS.get(stat.S_IFMT(found.st_mode), "no file")


def opened(path: Path, depth: int) -> BufferedReader:
    """Open a regular file to read, *depth* names below the root of its store. Raises OSError, Foreign."""
    return Root(path.parents[depth - 1]).open("/".join(path.parts[-depth:]))


def discard(path: Path, depth: int) -> None:
    """Remove a file or a link, *depth* names below the root of its store, if it is there. Raises OSError, Foreign."""
    Root(path.parents[depth - 1]).unlink("/".join(path.parts[-depth:]))


class Root:
    """What is beneath the folder *path*, which may be missing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def name(self, path: Path) -> str:
        """Return the name of *path*, which is beneath the root."""
        return path.relative_to(self.path).as_posix()

    # -- reading

    def stat(self, name: str) -> os.stat_result:
        """Return what has this name, a link itself. Raises OSError, Foreign: a folder above it is none."""
        with self._at(name) as (folder, last):
            return os.stat(last, dir_fd=folder, follow_symlinks=False)

    def open(self, name: str) -> BufferedReader:
        """Open a regular file to read. Raises OSError, Foreign."""
        return os.fdopen(self._open(name, os.O_RDONLY), "rb")

    def read(self, name: str, limit: int) -> bytes:
        """Return a regular file's bytes. Raises OSError, Foreign: there are more than *limit*, too."""
        with self.open(name) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise Foreign(f"{self.path / name} has more than {limit} bytes")
        return data

    def is_file(self, name: str, size: int | None = None) -> bool:
        """Tell whether there is a regular file (of *size* bytes) that can be read."""
        try:
            with self.open(name) as file:
                return size in (None, os.fstat(file.fileno()).st_size)
        except OSError:
            return False

    def is_folder(self, name: str) -> bool:
        """Tell whether there is a folder, no link to one."""
        try:
            return stat.S_ISDIR(self.stat(name).st_mode)
        except OSError:
            return False

    def entries(self, name: str = "") -> list[tuple[str, os.stat_result]]:
        """Return the names in a folder, sorted, and what has them; none where there is no folder. Raises OSError, Foreign."""
        found = []
        try:
            with self.listed(name) as folder:
                for entry in sorted(os.listdir(folder)):
                    with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                        found.append((entry, os.stat(entry, dir_fd=folder, follow_symlinks=False)))
        except FileNotFoundError:
            return []
        return found

    # -- writing

    def make(self, name: str, mode: int) -> None:
        """Have a folder, and those above it; those that are new get *mode*, whatever the umask. Raises OSError, Foreign."""
        with self._at(f"{name}/x", make=mode):
            pass

    def create(self, name: str, mode: int = 0o600) -> FileIO:
        """Open a new file to read and write; its folder is there. Raises OSError: something has its name."""
        with self._at(name) as (folder, last):
            handle = os.open(last, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FILE, mode, dir_fd=folder)
        # Unbuffered: what was written is in the file.
        return FileIO(handle, "r+")

    def resume(self, name: str) -> FileIO:
        """Open a file to go on with: one of ours alone. Raises OSError, Foreign: others had, or have, a hand in it."""
        handle = self._open(name, os.O_RDWR)
        found = os.fstat(handle)
        if found.st_nlink != 1 or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            os.close(handle)
            raise Foreign(f"{self.path / name} is not this user's alone")
        return FileIO(handle, "r+")

    def write(self, name: str, data: bytes, mode: int, *, beside: str | None = None) -> None:
        """Write a whole file under its name at once: a new neighbour (or one in the folder *beside*), fsync, rename. Raises OSError."""
        above, _, last = name.rpartition("/")
        above = above if beside is None else beside
        new = f"{above}/" * bool(above) + f".{last[:100]}.{secrets.token_hex(8)}"
        file = self.create(new)
        try:
            with file:
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
                os.fchmod(file.fileno(), mode)
            self.rename(new, name)
        except BaseException:
            with contextlib.suppress(OSError):
                self.unlink(new)
            raise
        self.sync(name.rpartition("/")[0])

    def settle(self, name: str, mode: int) -> None:
        """Give a file or a folder its permissions, and flush a file to disk. Raises OSError, Foreign."""
        folder = self.is_folder(name)
        handle = self._listed(name) if folder else self._open(name, os.O_RDONLY)
        try:
            os.fchmod(handle, mode)
            if not folder:
                os.fsync(handle)
        finally:
            os.close(handle)

    def sync(self, name: str) -> None:
        """Flush a folder to disk. Raises OSError, Foreign."""
        with self.listed(name) as folder:
            os.fsync(folder)

    def rename(self, old: str, new: str) -> None:
        """Move a name; a file, link or empty folder of the new name is replaced. Raises OSError, Foreign."""
        with self._at(old) as (source, first), self._at(new) as (target, last):
            os.rename(first, last, src_dir_fd=source, dst_dir_fd=target)

    def unlink(self, name: str) -> None:
        """Remove a name that is no folder's, if it is there. Raises OSError, Foreign."""
        with contextlib.suppress(FileNotFoundError), self._at(name) as (folder, last):
            os.unlink(last, dir_fd=folder)

    def remove(self, name: str, inside: Collection[str] = ()) -> bool:
        """Remove a file, a link, or a folder with what has the names *inside*, at any depth; tell whether it is gone.

        What has other names stays, and the folder with it: somebody may have moved a folder here that is none of ours.
        """
        try:
            with self._at(name) as (folder, last):
                _remove(folder, last, inside)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def touch(self, name: str) -> None:
        """Set the times of what has this name to now. Raises OSError, Foreign."""
        with self._at(name) as (folder, last):
            os.utime(last, dir_fd=folder, follow_symlinks=False)

    def hold(self, name: str, mode: int) -> int:
        """Return the descriptor of a folder, made if it is missing, that stays open. Raises OSError, Foreign."""
        self.make(name, mode)
        return self._listed(name)

    # -- descriptors

    @contextlib.contextmanager
    def _at(self, name: str, make: int | None = None) -> Iterator[tuple[int, str]]:
        """Give the open folder of *name* and its last part; folders that are missing are made with the mode *make*, if given."""
        *above, last = _parts(name)
        handle = self._top(_FOLDER)
        try:
            for depth, part in enumerate(above, 1):
                below = self._enter(handle, "/".join(above[:depth]), part, make)
                os.close(handle)
                handle = below
            yield handle, last
        except OSError as error:
            if isinstance(error.filename, str) and not os.path.isabs(error.filename):
                error.filename, error.filename2 = str(self.path / name), None
            raise
        finally:
            os.close(handle)

    def _top(self, how: int) -> int:
        """Open the root."""
        found = os.lstat(self.path)
        if stat.S_ISLNK(found.st_mode) and found.st_uid not in (os.geteuid(), 0, os.stat(self.path.parent).st_uid):
            raise Foreign(f"{self.path} is a link of another user")
        return os.open(self.path, how)

    def _enter(self, handle: int, name: str, part: str, make: int | None) -> int:
        try:
            return os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=handle)
        except FileNotFoundError:
            if make is None:
                raise
        except OSError as error:
            raise self._foreign(error, handle, name, part, stat.S_IFDIR) from None
        with contextlib.suppress(FileExistsError):
            os.mkdir(part, make & 0o777, dir_fd=handle)
            made = os.open(part, _LISTED, dir_fd=handle)
            try:
                os.fchmod(made, make)
            finally:
                os.close(made)
        return self._enter(handle, name, part, None)

    @contextlib.contextmanager
    def listed(self, name: str) -> Iterator[int]:
        """Give the descriptor of a folder that can be listed; the empty name is the root's. Raises OSError, Foreign."""
        handle = self._listed(name)
        try:
            yield handle
        finally:
            os.close(handle)

    def _listed(self, name: str) -> int:
        if not name:
            return self._top(os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with self._at(name) as (above, last):
            try:
                return os.open(last, _LISTED, dir_fd=above)
            except OSError as error:
                raise self._foreign(error, above, name, last, stat.S_IFDIR) from None

    def _open(self, name: str, how: int) -> int:
        """Open a regular file."""
        with self._at(name) as (folder, last):
            found = os.stat(last, dir_fd=folder, follow_symlinks=False)  # to open some devices is to use them
            if not stat.S_ISREG(found.st_mode):
                raise self._is(name, found)
            try:
                handle = os.open(last, how | _FILE, dir_fd=folder)
            except OSError as error:
                raise self._foreign(error, folder, name, last, stat.S_IFREG) from None
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            os.close(handle)
            raise self._is(name, found)
        return handle

    def _foreign(self, error: OSError, folder: int, name: str, last: str, wanted: int) -> OSError:
        """Return the error that says what is there in place of what is wanted; *error* itself if that is not the reason."""
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR):
            with contextlib.suppress(OSError):
                found = os.stat(last, dir_fd=folder, follow_symlinks=False)
                if stat.S_IFMT(found.st_mode) != wanted:
                    return self._is(name, found)
        return error

    def _is(self, name: str, found: os.stat_result) -> Foreign:
        return Foreign(f"{self.path / name} is {kind(found)}")


def _remove(folder: int, name: str, inside: Collection[str]) -> None:
    if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=folder)
        return
    below = os.open(name, _LISTED, dir_fd=folder)
    try:
        for entry in os.listdir(below):
            if entry in inside:
                _remove(below, entry, inside)
    finally:
        os.close(below)
    os.rmdir(name, dir_fd=folder)


def _parts(name: str) -> list[str]:
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{name!r} is no name beneath a folder")
    return parts
