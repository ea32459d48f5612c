"""A blob on its way into the store: kept while it is incomplete, named when it is whole and verified.

```
ingest/<algorithm>-<hex>.partial   always the first bytes of the blob, in order ─▶ size, digest ─▶ blobs/<algorithm>/<hex>
```

Who writes holds the digest's lock. What was received stays when a transfer breaks off or the process
dies; the next one, on any node, reads it again for the digest and goes on behind it. A partial file is
never made shorter: an owner that was taken for dead may still hold it, and publish it.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import IO

from sregistry.errors import DigestMismatch, StoreError, TransferError
from sregistry.oci import Digest
from sregistry.store import Store, sync

_READ = 1 << 20


class Ingest:
    """Takes a blob's bytes in order, from `position` on; leaving the context verifies and publishes.

    An error keeps what is there for the next try, unless it says that the bytes are wrong.

    Args:
        store: where the blob goes.
        partial: where it is until it is whole.
        size: in bytes, where it is known.
    """

    def __init__(self, store: Store, partial: Path, digest: Digest, size: int | None) -> None:
        self.position = 0
        self._store, self._partial, self._final = store, partial, store.blob(digest)
        self._digest, self._size = digest, size
        self._hash = digest.hasher()
        self._file: IO[bytes] | None = None
        self._kept = 0
        self._published = False

    def __enter__(self) -> Ingest:
        try:
            self._file = self._open(os.O_CREAT)
            while data := self._file.read(_READ):
                self._hash.update(data)
                self.position += len(data)
        except OSError as error:
            raise self._store.failed(error) from error
        self._kept = self.position
        if self._size is not None and self.position > self._size:
            self.restart()
        return self

    def write(self, data: bytes) -> None:
        """Take more bytes. Raises DigestMismatch at the first byte over the size, StoreError."""
        if self._size is not None and self.position + len(data) > self._size:
            raise DigestMismatch(f"{self._digest}: the registry sends more than the {self._size} bytes that the manifest declares")
        assert self._file is not None
        rest = memoryview(data)
        try:
            while rest:  # a disk that is nearly full takes a part
                done = self._file.write(rest)
                self._hash.update(rest[:done])
                self.position += done
                rest = rest[done:]
        except OSError as error:
            raise self._store.failed(error) from error

    def restart(self) -> None:
        """Begin again at the first byte, in a new file. Raises StoreError."""
        assert self._file is not None
        try:
            self._file.close()
            self._partial.unlink(missing_ok=True)
            self._file = self._open(os.O_CREAT | os.O_EXCL)
        except OSError as error:
            raise self._store.failed(error) from error
        self._hash = self._digest.hasher()
        self.position = self._kept = 0

    def finish(self) -> None:
        """Verify and publish what has come.

        Raises:
            DigestMismatch: it is not the blob.
            TransferError: it is not, but a part of it was on the disk before: it is begun anew.
            StoreError: it can't be written, or somebody else has taken over.
        """
        if self._size is not None and self.position != self._size:
            raise DigestMismatch(f"{self._digest}: got {self.position} of {self._size} bytes", hint="try again")
        if self._hash.hexdigest() != self._digest.hex:
            if self._kept:
                self.restart()
                raise TransferError(f"{self._digest}: what an earlier run left of it was damaged", hint="it is fetched anew")
            raise DigestMismatch(
                f"{self._digest}: the registry sent other bytes ({self._digest.algorithm}:{self._hash.hexdigest()})",
                hint="try again; if it stays so, the registry or a proxy is broken",
            )
        try:
            self._publish()
        except OSError as error:
            raise self._store.failed(error) from error
        self._published = True

    def _publish(self) -> None:
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        if not self._is_own():
            if self._final.exists():
                return  # whoever took over has verified it
            raise StoreError(f"{self._partial}: another process has taken over", hint="run again; was this one asleep for long?")
        self._store.folder(self._final.parent)
        os.replace(self._partial, self._final)
        sync(self._final.parent)

    def _is_own(self) -> bool:
        """Tell whether the partial file is the one that was written here, and all of it."""
        assert self._file is not None
        own = os.fstat(self._file.fileno())
        try:
            return os.path.samestat(self._partial.stat(), own) and own.st_size == self.position
        except FileNotFoundError:
            return False

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        wrong = kind is not None and issubclass(kind, DigestMismatch)
        try:
            if kind is None and not self._published:
                self.finish()
        except DigestMismatch:
            wrong = True
            raise
        finally:
            assert self._file is not None
            with contextlib.suppress(OSError):
                self._file.close()
            if (wrong or not self.position) and not self._published:
                self._partial.unlink(missing_ok=True)

    def _open(self, flags: int) -> IO[bytes]:
        self._store.folder(self._partial.parent)
        handle = os.open(self._partial, os.O_RDWR | flags, 0o600)
        with contextlib.suppress(PermissionError):  # another user's, who has seen to it
            os.fchmod(handle, self._store.file_mode)
        # Unbuffered: what is counted in `position` is in the file.
        return os.fdopen(handle, "r+b", buffering=0)
