"""The store: blobs and exploded layers, shared by images, working directories and users.

```
<root>/oci-layout  index.json             an OCI image layout (image-spec, image-layout.md)
<root>/blobs/<algorithm>/<hex>            blobs: manifests, configs, layers, as published
<root>/exploded/<variant>/<hex>/{data,index}   layers as squashfs blocks and an index
<root>/ingest/                            what is being written: partial blobs, workspaces
<root>/locks/                             one lock file an object that is being made
<root>/leases/                            one a running workflow
<root>/proofs/                            which blob has which diff_id; see `proof`
<root>/pace/                              how fast each registry may be asked
```

An object has its name only when it is whole and verified: it is written in `ingest/`, synced, then
renamed. Nothing is ever changed in place. Readers need no lock. The time of an object is that of its last
use (see `upkeep`). Permissions are those of the root folder: who may write there shares the store.

Further stores are read, never written: other stores, OCI image layouts, Apptainer's cache.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sregistry.errors import DigestMismatch, DocumentError, StoreError, from_oserror
from sregistry.lease import lease
from sregistry.oci import Descriptor, Digest

if TYPE_CHECKING:
    from sregistry.ingest import Ingest

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_REF_NAME = "org.opencontainers.image.ref.name"
#: Where a layout may be in a folder: itself, an sregistry or Singularity cache, Apptainer's cache, the folder above that.
_LAYOUTS = ("", "docker", "blob", "cache/blob")
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class Store:
    """A store at *root*; the folder is made when first written to. *further* are folders with more, see `_LAYOUTS`."""

    def __init__(self, root: Path, further: Sequence[Path] = ()) -> None:
        self.root = root
        self._further = [folder / name for folder in further for name in _LAYOUTS if (folder / name / "blobs").is_dir()]

    # -- blobs

    def blob(self, digest: Digest) -> Path:
        """Return where the blob is in this store, or would be."""
        return self.root / "blobs" / digest.algorithm / digest.hex

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """Tell whether this store has the blob (with *size* bytes), and it can be read."""
        return _readable(self.blob(digest), size)

    def elsewhere(self, digest: Digest, size: int | None = None) -> Iterator[Path]:
        """Yield where further stores have the blob; whether it is the blob is to be checked."""
        for root in self._further:
            path = root / "blobs" / digest.algorithm / digest.hex
            if _readable(path, size):
                yield path

    def knows(self, digest: Digest, most: int, size: int | None = None) -> bool:
        """Tell whether this or a further store has the blob (with *size* bytes), of at most *most* bytes."""
        paths = [self.blob(digest)] if self.has(digest, size) else list(self.elsewhere(digest, size))
        return bool(paths) and paths[0].stat().st_size <= most

    def read(self, digest: Digest) -> bytes:
        """Return a small blob's bytes, verified; from a further store where this one has not got it.

        Raises:
            StoreError: it is not there or can't be read.
            DigestMismatch: the bytes on disk are not the blob's.
        """
        if not self.has(digest):
            for path in self.elsewhere(digest):
                with contextlib.suppress(OSError):
                    data = path.read_bytes()
                    if digest.matches(data):
                        return data
        try:
            data = self.blob(digest).read_bytes()
        except OSError as error:
            raise from_oserror(error, StoreError, "can't read") from error
        if not digest.matches(data):
            raise DigestMismatch(f"{self.blob(digest)} is damaged: its bytes are not those of {digest}", hint="remove that file")
        return data

    def add(self, data: bytes, digest: Digest | None = None) -> Digest:
        """Keep *data* as a blob and return its digest. Raises StoreError, DigestMismatch."""
        digest = digest or Digest.of(data)
        if self.has(digest, len(data)) and self._holds(digest, data):
            self.use(self.blob(digest))
            return digest
        if not digest.matches(data):
            raise DigestMismatch(f"{digest}: other bytes ({Digest.of(data)})", hint="try again")
        try:
            path = self.blob(digest)
            self.folder(path.parent)
            write_atomic(path, data, self.file_mode, beside=self.folder(self.root / "ingest"))
        except OSError as error:
            raise self.failed(error) from error
        return digest

    def _holds(self, digest: Digest, data: bytes) -> bool:
        """Tell whether the blob's bytes on disk are *data*; one that is damaged is to be written anew."""
        try:
            return self.blob(digest).read_bytes() == data
        except OSError:
            return False

    def ingest(self, digest: Digest, size: int | None = None) -> Ingest:
        """Return a context that takes a large blob's bytes, verifies and publishes; for who holds the digest's lock."""
        from sregistry.ingest import Ingest

        return Ingest(self, self.root / "ingest" / f"{digest.algorithm}-{digest.hex}.partial", digest, size)

    # -- exploded layers

    def exploded(self, variant: str, diff_id: Digest) -> Path:
        """Return the folder of an exploded layer in this store, there or not.

        Args:
            variant: codec, level, block size and format version in one word.
            diff_id: digest of the uncompressed tar.
        """
        return self.root / "exploded" / variant / diff_id.hex

    def find_exploded(self, variant: str, diff_id: Digest) -> Path | None:
        """Return the folder of an exploded layer, in this or a further store; None if there is none."""
        for root in (self.root, *self._further):
            folder = root / "exploded" / variant / diff_id.hex
            if _readable(folder / "index", None) and _readable(folder / "data", None):
                return folder
        return None

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """Make a private folder on the store's file system; whatever is left in it is removed."""
        try:
            parent = self.folder(self.root / "ingest")
            with tempfile.TemporaryDirectory(dir=parent, prefix="work-", ignore_cleanup_errors=True) as path:
                yield Path(path)
        except OSError as error:
            raise self.failed(error) from error

    def publish(self, folder: Path, final: Path) -> None:
        """Give the finished *folder* its name; who comes second keeps the first one's."""
        try:
            for path in folder.iterdir():
                path.chmod(self.file_mode)
                sync(path)
            folder.chmod(self.folder_mode)
            self.folder(final.parent)
            try:
                folder.rename(final)
            except OSError:
                if not final.is_dir():
                    raise
            sync(final.parent)
        except OSError as error:
            raise self.failed(error) from error

    # -- sharing

    def use(self, path: Path) -> None:
        """Mark an object of this store as used now; one that may not be written stays as it is."""
        with contextlib.suppress(OSError):
            os.utime(path)

    def keep(self, name: str, path: Path) -> bool:
        """Tell whether the object *path*, whose lock is *name*, is there, and mark it, so that nobody removes it now."""
        try:
            with self.lock(name):
                if path.exists():
                    self.use(path)
                    return True
                return False
        except StoreError:  # read-only: nobody here can remove it
            return path.exists()

    @contextlib.contextmanager
    def lock(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold the lock *name* among all processes that use the store, on all nodes; errors of the body pass unchanged.

        Args:
            wait: else False is yielded at once where another one holds it.
        """
        with contextlib.ExitStack() as stack:
            try:
                held = stack.enter_context(lease(self.folder(self.root / "locks") / name, wait=wait))
            except OSError as error:
                raise self.failed(error) from error
            yield held

    @property
    def file_mode(self) -> int:
        """Permissions of files: who may read or write the root may read or write them."""
        return 0o600 | self._root_mode() & 0o066

    @property
    def folder_mode(self) -> int:
        """Permissions of folders; in a store that a group writes they are the group's, whoever makes them."""
        mode = self._root_mode()
        return 0o700 | mode & 0o077 | (stat.S_ISGID if mode & (stat.S_IWGRP | stat.S_ISGID) else 0)

    def folder(self, path: Path) -> Path:
        """Return the folder *path* of the store, made if it is missing. Raises OSError."""
        self.root.mkdir(parents=True, exist_ok=True)
        missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
        for new in reversed(missing):
            with contextlib.suppress(FileExistsError):
                new.mkdir()
                new.chmod(self.folder_mode)
        return path

    def failed(self, error: OSError) -> StoreError:
        """Return the error of who may not, or can't, write in the store."""
        problem = from_oserror(error, StoreError, f"can't write in the store {self.root}:")
        assert isinstance(problem, StoreError)
        if error.errno in _READ_ONLY:
            problem.hint = "set `cache` to a folder of your own, and `cache_from` to this one to use what it has"
        return problem

    def _root_mode(self) -> int:
        try:
            return self.root.stat().st_mode
        except OSError:
            return 0o755

    # -- names

    def tag(self, name: str, manifest: Descriptor) -> None:
        """Let index.json name *manifest*: `skopeo copy oci:ROOT:NAME …` finds it.

        Entries of other tools, with or without a name, stay. An index.json that is no JSON is begun
        anew: it holds names only, never content. In a store that may not be written nothing is named.
        """
        entry = {**manifest.json(), "annotations": {_REF_NAME: name}}
        with contextlib.suppress(OSError):
            if (self.root / "oci-layout").exists() and [item for item in self.entries() if _name(item) == name] == [entry]:
                return
        try:
            with self.lock("index.json"):
                others = [item for item in self.entries() if _name(item) != name]
                self.write_entries([*others, entry])
        except StoreError as error:
            if not isinstance(error.__cause__, OSError) or error.__cause__.errno not in _READ_ONLY:
                raise
        except OSError as error:
            raise self.failed(error) from error

    def tags(self) -> dict[str, Descriptor]:
        """Return what index.json names; entries without a name or without sense are left out."""
        try:
            entries = self.entries()
        except OSError as error:
            raise from_oserror(error, StoreError, "can't read the store") from error
        named: dict[str, Descriptor] = {}
        for item in entries:
            name = _name(item)
            with contextlib.suppress(DocumentError):
                if name is not None:
                    named[name] = Descriptor.parse(item)
        return named

    def entries(self) -> list[Any]:
        """Return the entries of index.json, none when there is none. Raises OSError."""
        try:
            document = json.loads((self.root / "index.json").read_bytes())
        except (FileNotFoundError, ValueError, RecursionError):
            return []
        entries = document.get("manifests") if isinstance(document, dict) else None
        return entries if isinstance(entries, list) else []

    def write_entries(self, entries: Sequence[Any]) -> None:
        """Replace the entries of index.json; for who holds its lock. Raises OSError."""
        if not (self.root / "oci-layout").exists():
            write_atomic(self.root / "oci-layout", _LAYOUT, self.file_mode)
        text = json.dumps({"schemaVersion": 2, "manifests": list(entries)}, indent=1)
        write_atomic(self.root / "index.json", text.encode(), self.file_mode)


def _name(entry: object) -> str | None:
    """Return the name that an entry of index.json gives (image-spec, annotations.md)."""
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    name = annotations.get(_REF_NAME) if isinstance(annotations, dict) else None
    return name if isinstance(name, str) else None


def _readable(path: Path, size: int | None) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and size in (None, found.st_size) and os.access(path, os.R_OK)


def write_atomic(path: Path, data: bytes, mode: int = 0o644, *, beside: Path | None = None) -> None:
    """Write a whole file under its name at once: a temporary neighbour (or one in *beside*), fsync, rename. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=beside or path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file or a folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
