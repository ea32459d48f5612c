"""The errors of the package, as one tree.

```
SregistryError            exit 1; `message` says what and where, `hint` what to do
├── UsageError            exit 2; the command line or the configuration is wrong
│   ├── ConfigError       a key of the configuration or an environment variable
│   ├── InvalidReference  a text that names no image
│   └── Mistakes          several of these
├── RegistryError         the registry refused, is unreachable or broke the protocol
│   ├── AuthenticationError  401 or 403
│   ├── UnavailableError     no answer, or one that time may change
│   └── TransferError        a body broke off; another try may help
├── DocumentError         a manifest, index or config that is malformed or no image
├── DigestMismatch        bytes that are not what their digest or size says
├── LayerError            a tar stream or its compression that can't be read
├── StoreError            the store can't be read or written
├── ImageError            an image that can't be assembled or published
├── CatalogError          the database of records
└── PullError             images that could not be made, each for a reason of its own
```

Code raises low, with a hint; only the command line prints and exits.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterable, Iterator, Sequence

from sregistry.terminal import printable


class SregistryError(Exception):
    """Anything that went wrong for a reason the user can understand."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """One printable line: the message and, after a semicolon, the hint."""
        text = f"{self.message}; {self.hint}" if self.hint else self.message
        return printable(" ".join(text.split()))


class UsageError(SregistryError):
    """The command line or the configuration is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """A key of the configuration or an environment variable has a bad value."""


class InvalidReference(UsageError):
    """The text names no image."""


class Mistakes(UsageError):
    """Several things are wrong: `each` of them is told in a line of its own."""

    def __init__(self, each: Sequence[UsageError]) -> None:
        super().__init__("; ".join(error.message for error in each))
        self.each = tuple(each)


class RegistryError(SregistryError):
    """The registry refused, is unreachable or broke the protocol."""


class AuthenticationError(RegistryError):
    """The registry wants other credentials (401) or denies access (403)."""


class UnavailableError(RegistryError):
    """There was no answer, or one that time may change: trouble of a server, a limit of requests."""


class TransferError(RegistryError):
    """A body broke off before its end; another try may help."""


class DocumentError(SregistryError):
    """A manifest, index or config is malformed, or describes no image."""


class DigestMismatch(SregistryError):
    """Bytes are not what their digest or size says."""


class LayerError(SregistryError):
    """A layer's tar stream or its compression can't be read."""


class StoreError(SregistryError):
    """The store can't be read or written."""


class ImageError(SregistryError):
    """The image can't be assembled or published."""


class CatalogError(SregistryError):
    """The database of records can't be read or written."""


class PullError(SregistryError):
    """Images could not be made: `errors` has a line for each reason, `pulled` what was made beside them."""

    def __init__(self, errors: Iterable[str], pulled: Sequence[object] = ()) -> None:
        self.errors = tuple(dict.fromkeys(errors))
        self.pulled = list(pulled)
        super().__init__("; ".join(self.errors))


def each(error: UsageError) -> Sequence[UsageError]:
    """Return what *error* tells of, one by one."""
    return error.each if isinstance(error, Mistakes) else (error,)


def refuse(mistakes: Sequence[UsageError]) -> None:
    """Raise what is wrong, if anything is: one mistake as it is, several as Mistakes, each once."""
    found = list({str(mistake): mistake for mistake in mistakes}.values())
    if found:
        raise found[0] if len(found) == 1 else Mistakes(found)


_HINTS = {
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "your quota is used up: free some space or choose another folder",
    errno.EACCES: "check the folder's owner and permissions",
    errno.EPERM: "check the folder's owner and permissions",
    errno.EROFS: "the file system is read-only: choose another folder",
    errno.EEXIST: "a file is where a folder should be: choose another folder",
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
}


def from_oserror(error: OSError, kind: type[SregistryError], what: str) -> SregistryError:
    """Return *error* as a *kind* whose message is *what*, the file that the error names, and the reason.

    A colon that ends *what* stands before the file's name.
    """
    reason = os.strerror(error.errno) if error.errno else str(error)
    if not isinstance(error.filename, str | bytes):  # none, or the number of an open file, which says nothing to a user
        return kind(f"{what.rstrip(':')}: {reason}", hint=_HINTS.get(error.errno or 0))
    where = f" {os.fsdecode(error.filename)}"
    return kind(f"{what}{where}: {reason}", hint=_HINTS.get(error.errno or 0))


@contextlib.contextmanager
def os_errors_as(kind: type[SregistryError], what: str) -> Iterator[None]:
    """Turn an OSError of the block into a *kind*, as `from_oserror`."""
    try:
        yield
    except OSError as error:
        raise from_oserror(error, kind, what) from error


def report(error: SregistryError) -> int:
    """Print the error as one line on stderr, several as a line each, and return its exit code."""
    for one in each(error) if isinstance(error, UsageError) else (error,):
        print(f"error: {one}", file=sys.stderr)
    return error.exit_code
