"""A blob on its way into the store: kept while it is incomplete, named when it is whole and verified.

```
ingest/<algorithm>-<hex>.partial   always the first bytes of the blob, in order ─▶ size, digest ─▶ blobs/<algorithm>/<hex>
```

Who writes holds the digest's lock. What was received stays when a transfer breaks off or the process
dies; the next one, on any node, reads it again for the digest and goes on behind it. A partial file is
never made shorter: an owner that was taken for dead may still hold it, and publish it.

A partial file is its user's alone until it is whole. What somebody else has left under its name, a link or
a file that others may write among it, is not written to: it goes if it may, and another name is taken if not.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from io import FileIO
from types import TracebackType

from sregistry.errors import DigestMismatch, StoreError, TransferError
from sregistry.oci.documents import Digest
from sregistry.store.store import Store, partials

_READ = 1 << 20


class Ingest:
    """Takes a blob's bytes in order, from `position` on; leaving the context verifies and publishes.

    An error keeps what is there for the next try, unless it says that the bytes are wrong.

    Args:
        store: where the blob goes.
        size: in bytes, where it is known.
    """

    def __init__(self, store: Store, digest: Digest, size: int | None) -> None:
        self.position = 0
        self._store, self._files = store, store.files
        self._final = store.files.name(store.blob(digest))
        self._partial, _ = self._names = partials(digest)
        self._digest, self._size = digest, size
        self._hash = digest.hasher()
        self._file: FileIO | None = None
        self._kept = 0
        self._published = False

    def __enter__(self) -> Ingest:
        try:
            self._file = self._open()
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
            self._files.unlink(self._partial)
            self._file = self._files.create(self._partial)
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
        os.fsync(self._file.fileno())
        if not self._is_own():
            if self._files.is_file(self._final):
                return  # whoever took over has verified it
            partial = self._store.root / self._partial
            raise StoreError(f"{partial}: another process has taken over", hint="run again; was this one asleep for long?")
        os.fchmod(self._file.fileno(), self._store.file_mode)
        folder = self._final.rpartition("/")[0]
        self._store.folder(self._store.root / folder)
        self._files.rename(self._partial, self._final)
        self._files.sync(folder)

    def _is_own(self) -> bool:
        """Tell whether the partial file is the one that was written here, and all of it."""
        assert self._file is not None
        own = os.fstat(self._file.fileno())
        try:
            return os.path.samestat(self._files.stat(self._partial), own) and own.st_size == self.position
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
                self._files.unlink(self._partial)

    def _open(self) -> FileIO:
        """Open what is there of the blob and is ours, else a new file. Raises OSError."""
        self._store.folder(self._store.root / "ingest")
        for name in self._names:
            self._partial = name
            with contextlib.suppress(OSError):
                return self._files.resume(name)
        for name in self._names:
            self._partial = name
            if self._vacated():
                with contextlib.suppress(FileExistsError):
                    return self._files.create(name)
        # In a folder where nobody may remove what is another one's; it can't be gone on with by name.
        self._partial = f"{self._names[1].removesuffix('.partial')}.{secrets.token_hex(8)}.partial"
        return self._files.create(self._partial)

    def _vacated(self) -> bool:
        """Remove what is in the way under the name of the partial file, but for what another user has received."""
        try:
            found = self._files.stat(self._partial)
            if stat.S_ISREG(found.st_mode) and found.st_uid != os.geteuid():
                return False
            self._files.unlink(self._partial)
        except FileNotFoundError:
            pass
        except OSError:
            return False
        return True
