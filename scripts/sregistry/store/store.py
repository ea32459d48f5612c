"""The store: blobs and exploded layers, shared by images, working directories and users.

```
<root>/oci-layout  index.json             an OCI image layout (image-spec, image-layout.md)
<root>/blobs/<algorithm>/<hex>            blobs: manifests, configs, layers, as published
<root>/exploded/<variant>/<hex>/{data,index}   layers as squashfs blocks and an index; see `exploded`
<root>/ingest/                            what is being written: partial blobs, workspaces
<root>/locks/                             one lock file an object that is being made
<root>/leases/                            one a running workflow
<root>/proofs/                            which blob has which diff_id; see `proof`
<root>/pace/                              how fast each registry may be asked
```

An object has its name only when it is whole and verified: it is written in `ingest/`, synced, then
renamed. Nothing is ever changed in place. Readers need no lock. The time of an object is that of its last
use (see `upkeep`). Permissions are those of the root folder: who may write there shares the store.

Whoever shares a store may put anything into it. So nothing in it is followed (see `beneath`), a blob is
hashed whenever something is made of it, and an exploded layer counts only from users who are trusted.

Further stores are read, never written: other stores, OCI image layouts, Apptainer's cache.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
import tempfile
from collections.abc import Collection, Iterator, Sequence
from io import BufferedReader, FileIO
from pathlib import Path
from typing import Any

from sregistry.errors import DigestMismatch, DocumentError, StoreError, from_oserror
from sregistry.oci.documents import Descriptor, Digest
from sregistry.store.beneath import Foreign, Root
from sregistry.system import limits
from sregistry.system.locks import lease

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_REF_NAME = "org.opencontainers.image.ref.name"
#: Where a layout may be in a folder: itself, an sregistry or Singularity cache, Apptainer's cache, the folder above that.
_LAYOUTS = ("", "docker", "blob", "cache/blob")
#: What may be in a workspace: an exploded layer, whole or in the making.
WORKSPACE = ("layer", "data", "index")
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class Store:
    """A store at *root*; the folder is made when first written to.

    Args:
        further: folders with more, see `_LAYOUTS`.
        trusted: users whose exploded layers are used, besides this one and root; None: everybody's.
    """

    def __init__(self, root: Path, further: Sequence[Path] = (), trusted: Collection[int] | None = ()) -> None:
        self.root = root
        self.files = Root(root)
        self.further = [Root(folder / name) for folder in further for name in _LAYOUTS if (folder / name / "blobs").is_dir()]
        self.trusted = None if trusted is None else frozenset({*trusted, os.geteuid(), 0})

    # -- blobs

    def blob(self, digest: Digest) -> Path:
        """Return where the blob is in this store, or would be."""
        return self.root / _blob(digest)

    def open(self, digest: Digest) -> BufferedReader:
        """Open a blob of this store to read; its bytes are to be checked. Raises OSError."""
        return self.files.open(_blob(digest))

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """Tell whether this store has the blob (with *size* bytes), and it can be read."""
        return self.files.is_file(_blob(digest), size)

    def elsewhere(self, digest: Digest, size: int | None = None) -> Iterator[Path]:
        """Yield where further stores have the blob; whether it is the blob is to be checked."""
        for files in self.further:
            if files.is_file(_blob(digest), size):
                yield files.path / _blob(digest)

    def knows(self, digest: Digest, most: int, size: int | None = None) -> bool:
        """Tell whether this or a further store has the blob (with *size* bytes), of at most *most* bytes."""
        for files in (self.files, *self.further):
            if files.is_file(_blob(digest), size):
                with contextlib.suppress(OSError):
                    return files.stat(_blob(digest)).st_size <= most
        return False

    def read(self, digest: Digest) -> bytes:
        """Return a small blob's bytes, verified; from a further store where this one has not got it.

        Raises:
            StoreError: it is not there or can't be read.
            DigestMismatch: the bytes on disk are not the blob's.
        """
        if not self.has(digest):
            for files in self.further:
                with contextlib.suppress(OSError):
                    data = files.read(_blob(digest), limits.STORE_DOCUMENT)
                    if digest.matches(data):
                        return data
        try:
            data = self.files.read(_blob(digest), limits.STORE_DOCUMENT)
        except OSError as error:
            raise from_oserror(error, StoreError, "can't read") from error
        if not digest.matches(data):
            raise DigestMismatch(f"{self.blob(digest)} is damaged: its bytes are not those of {digest}", hint="remove that file")
        return data

    def add(self, data: bytes, digest: Digest | None = None) -> Digest:
        """Keep *data* as a blob and return its digest; one that is damaged is replaced. Raises StoreError, DigestMismatch."""
        digest = digest or Digest.of(data)
        with contextlib.suppress(OSError):
            if self.files.read(_blob(digest), len(data)) == data and digest.matches(data):
                self.use(self.blob(digest))
                return digest
        if not digest.matches(data):
            raise DigestMismatch(f"{digest}: other bytes ({Digest.of(data)})", hint="try again")
        try:
            self.folder(self.root / "ingest")
            self.folder(self.blob(digest).parent)
            self.files.write(_blob(digest), data, self.file_mode, beside="ingest")
        except OSError as error:
            raise self.failed(error) from error
        return digest

    def _holds(self, digest: Digest, data: bytes) -> bool:
        """Tell whether the blob's bytes on disk are *data*; one that is damaged is to be written anew."""
        try:
            return self.blob(digest).read_bytes() == data
        except OSError:
            return False

    def received(self, digest: Digest) -> int | None:
        """Return how many bytes of a blob have come that is on its way, to whomever; None where none is."""
        sizes = []
        for name in partials(digest):
            with contextlib.suppress(OSError):
                found = self.files.stat(name)
                if stat.S_ISREG(found.st_mode):
                    sizes.append(found.st_size)
        return max(sizes, default=None)

    # -- exploded layers

    def exploded(self, variant: str, diff_id: Digest) -> Path:
        """Return the folder of an exploded layer in this store, there or not.

        Args:
            variant: codec, level, block size and format version in one word.
            diff_id: digest of the uncompressed tar.
        """
        return self.root / "exploded" / variant / diff_id.hex

    def create(self, path: Path) -> FileIO:
        """Open a new file of this store to read and write. Raises OSError."""
        return self.files.create(self.files.name(path))

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """Make a private folder on the store's file system; whatever is left in it is removed."""
        name = f"ingest/work-{secrets.token_hex(8)}"
        try:
            self.folder(self.root / "ingest")
            self.files.make(name, 0o700)
            try:
                yield self.root / name
            finally:
                self.files.remove(name, WORKSPACE)
        except OSError as error:
            raise self.failed(error) from error

    def publish(self, folder: Path, final: Path) -> None:
        """Give the finished *folder* its name; who comes second keeps the first one's. Only its owner may change its files."""
        old, new = self.files.name(folder), self.files.name(final)
        try:
            for name, _ in self.files.entries(old):
                self.files.settle(f"{old}/{name}", self.file_mode & 0o644)
            self.files.settle(old, self.folder_mode)
            self.folder(final.parent)
            try:
                self.files.rename(old, new)
            except OSError:
                if not self.files.is_folder(new):
                    raise
            self.files.sync(new.rpartition("/")[0])
        except OSError as error:
            raise self.failed(error) from error

    # -- sharing

    def use(self, path: Path) -> None:
        """Mark an object of this store as used now; one that may not be written stays as it is."""
        with contextlib.suppress(OSError):
            self.files.touch(self.files.name(path))

    def keep(self, name: str, path: Path) -> bool:
        """Tell whether the object *path*, whose lock is *name*, is there, and mark it, so that nobody removes it now."""
        try:
            with self.lock(name):
                if self._exists(path):
                    self.use(path)
                    return True
                return False
        except StoreError:  # read-only: nobody here can remove it
            return self._exists(path)

    def _exists(self, path: Path) -> bool:
        name = self.files.name(path)
        return self.files.is_file(name) or self.files.is_folder(name)

    @contextlib.contextmanager
    def lock(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold the lock *name* among all processes that use the store, on all nodes; errors of the body pass unchanged.

        Args:
            wait: else False is yielded at once where another one holds it.
        """
        with contextlib.ExitStack() as stack:
            try:
                held = stack.enter_context(self.lease("locks", name, wait=wait))
            except OSError as error:
                raise self.failed(error) from error
            yield held

    @contextlib.contextmanager
    def lease(self, folder: str, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold the lock *name* in the store's folder *folder*, as `lock` does. Raises OSError."""
        self.root.mkdir(parents=True, exist_ok=True)
        handle = self.files.hold(folder, self.folder_mode)
        try:
            with lease(self.root / folder / name, wait=wait, folder=handle) as held:
                yield held
        finally:
            os.close(handle)

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
        if path != self.root:
            self.files.make(self.files.name(path), self.folder_mode)
        return path

    def failed(self, error: OSError) -> StoreError:
        """Return the error of who may not, or can't, write in the store."""
        problem = from_oserror(error, StoreError, f"can't write in the store {self.root}:")
        assert isinstance(problem, StoreError)
        if error.errno in _READ_ONLY:
            problem.hint = "set `cache` to a folder of your own, and `cache_from` to this one to use what it has"
        elif isinstance(error, Foreign):
            problem.hint = "remove it, if it is nobody's, or set `cache` to a folder of your own"
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
            if self.files.is_file("oci-layout") and [item for item in self.entries() if _name(item) == name] == [entry]:
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
            document = json.loads(self.files.read("index.json", limits.STORE_DOCUMENT))
        except (FileNotFoundError, Foreign, ValueError, RecursionError):
            return []
        entries = document.get("manifests") if isinstance(document, dict) else None
        return entries if isinstance(entries, list) else []

    def write_entries(self, entries: Sequence[Any]) -> None:
        """Replace the entries of index.json; for who holds its lock. Raises OSError."""
        if not self.files.is_file("oci-layout"):
            self.files.write("oci-layout", _LAYOUT, self.file_mode)
        text = json.dumps({"schemaVersion": 2, "manifests": list(entries)}, indent=1)
        self.files.write("index.json", text.encode(), self.file_mode)


def _name(entry: object) -> str | None:
    """Return the name that an entry of index.json gives (image-spec, annotations.md)."""
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    name = annotations.get(_REF_NAME) if isinstance(annotations, dict) else None
    return name if isinstance(name, str) else None


def _blob(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.hex}"


def partials(digest: Digest) -> tuple[str, str]:
    """Return the names that an incomplete blob may have; the second is this user's, where another one has the first."""
    name = f"ingest/{digest.algorithm}-{digest.hex}"
    return f"{name}.partial", f"{name}.u{os.geteuid()}.partial"


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a whole file under its name at once: a temporary neighbour, fsync, rename. Raises OSError."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
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
