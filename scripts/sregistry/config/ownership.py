"""Whose word counts: files of the working folder that say where secrets go.

A folder that one works in may be another user's, shared, or open to all (/tmp). What is in it is obeyed as far as only its reader, or
root, could have written it, as ssh does with its files.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from sregistry.errors import ConfigError
from sregistry.system import limits
from sregistry.system.logs import warn


def read_own(path: Path) -> bytes | None:
    """Return what is in a file, None if there is none, or if others could have written it, with a warning.

    Raises:
        ConfigError: it can't be read, is no file, or has more than 4 MiB.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe of that name would have us wait
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        if error.errno == errno.EACCES and not _is_mine(path):
            warn(f"{path} is another user's, and closed: it is passed over")
            return None
        raise ConfigError(f"can't read {path}: {error.strerror}") from error
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise ConfigError(f"{path} is no file")
    with os.fdopen(handle, "rb") as file:
        foreign = whose(found)
        if foreign:
            warn(f"{path} {foreign}: it is passed over")
            return None
        try:
            data = file.read(limits.OWN_FILE + 1)
        except OSError as error:
            raise ConfigError(f"can't read {path}: {error.strerror}") from error
    if len(data) > limits.OWN_FILE:
        raise ConfigError(f"{path} has more bytes than the limit OWN_FILE of {limits.OWN_FILE}")
    return data


def _is_mine(path: Path) -> bool:
    try:
        return path.stat().st_uid == os.geteuid()
    except OSError:  # not even its folder may be entered
        return False


def whose(found: os.stat_result) -> str | None:
    """Return why a file's word does not count, None where it does: it is the user's or root's, and nobody else may write it."""
    if found.st_uid not in (os.geteuid(), 0):
        return "is another user's"
    if found.st_mode & 0o022:  # an access list shows as rights of the group
        return f"may be written by others ({stat.S_IMODE(found.st_mode):o}; chmod go-w)"
    return None
