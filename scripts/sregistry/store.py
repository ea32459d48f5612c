"""The store: blobs and exploded layers, shared by images, working directories and users.

```
<root>/oci-layout  index.json             an OCI image layout (image-spec, image-layout.md)
<root>/blobs/<algorithm>/<hex>            blobs: manifests, configs, layers, as published
<root>/exploded/<variant>/<hex>/{data,index}   layers as squashfs blocks and an index
<root>/ingest/                            what is being written: partial blobs, workspaces
<root>/locks/                             one lock file an object that is being made
<root>/pace/                              how fast each registry may be asked
```

An object has its name only when it is whole and verified: it is written in `ingest/`, synced, then
renamed. Nothing is ever changed in place. Readers need no lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sregistry.errors import DigestMismatch, DocumentError, StoreError, from_oserror
from sregistry.lease import lease
from sregistry.oci import Descriptor, Digest

if TYPE_CHECKING:
    from sregistry.ingest import Ingest

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_REF_NAME = "org.opencontainers.image.ref.name"


class Store:
    """A store at *root*; the folder is made when first written to."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def blob(self, digest: Digest) -> Path:
        """Return where the blob is, or would be."""
        return self.root / "blobs" / digest.algorithm / digest.hex

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """Tell whether the blob is there (with *size* bytes)."""
        try:
            found = self.blob(digest).stat()
        except OSError:
            return False
        return size is None or found.st_size == size

    def read(self, digest: Digest) -> bytes:
        """Return a small blob's bytes, verified.

        Raises:
            StoreError: it is not there or can't be read.
            DigestMismatch: the bytes on disk are not the blob's.
        """
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
        if not self.has(digest, len(data)):
            if not digest.matches(data):
                raise DigestMismatch(f"{digest}: other bytes ({Digest.of(data)})", hint="try again")
            try:
                path = self.blob(digest)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(path, data, beside=self._folder("ingest"))
            except OSError as error:
                raise from_oserror(error, StoreError, f"can't write in the store {self.root}:") from error
        return digest

    def ingest(self, digest: Digest, size: int | None = None) -> Ingest:
        """Return a context that takes a large blob's bytes, verifies and publishes; for who holds the digest's lock."""
        from sregistry.ingest import Ingest

        return Ingest(self.root / "ingest" / f"{digest.algorithm}-{digest.hex}.partial", self.blob(digest), digest, size)

    def exploded(self, variant: str, diff_id: Digest) -> Path:
        """Return the folder of an exploded layer, there or not.

        Args:
            variant: codec, level, block size and format version in one word.
            diff_id: digest of the uncompressed tar.
        """
        return self.root / "exploded" / variant / diff_id.hex

    @contextlib.contextmanager
    def workspace(self) -> Iterator[Path]:
        """Make a private folder on the store's file system; whatever is left in it is removed."""
        try:
            parent = self._folder("ingest")
            with tempfile.TemporaryDirectory(dir=parent, prefix="work-", ignore_cleanup_errors=True) as path:
                yield Path(path)
        except OSError as error:
            raise from_oserror(error, StoreError, f"can't write in the store {self.root}:") from error

    def publish(self, folder: Path, final: Path) -> None:
        """Give the finished *folder* its name; who comes second keeps the first one's."""
        try:
            for path in folder.iterdir():
                path.chmod(0o644)
                sync(path)
            folder.chmod(0o755)
            final.parent.mkdir(parents=True, exist_ok=True)
            try:
                folder.rename(final)
            except OSError:
                if not final.is_dir():
                    raise
            sync(final.parent)
        except OSError as error:
            raise from_oserror(error, StoreError, f"can't write in the store {self.root}:") from error

    @contextlib.contextmanager
    def lock(self, name: str, *, wait: bool = True) -> Iterator[bool]:
        """Hold the lock *name* among all processes that use the store, on all nodes; errors of the body pass unchanged.

        Args:
            wait: else False is yielded at once where another one holds it.
        """
        with contextlib.ExitStack() as stack:
            try:
                held = stack.enter_context(lease(self._folder("locks") / name, wait=wait))
            except OSError as error:
                raise from_oserror(error, StoreError, f"can't lock the store {self.root}:") from error
            yield held

    def tag(self, name: str, manifest: Descriptor) -> None:
        """Let index.json name *manifest*: `skopeo copy oci:ROOT:NAME …` finds it.

        Entries of other tools, with or without a name, stay. An index.json that is no JSON is begun
        anew: it holds names only, never content.
        """
        with self.lock("index.json"):
            path = self.root / "index.json"
            entry = {**manifest.json(), "annotations": {_REF_NAME: name}}
            try:
                if not (self.root / "oci-layout").exists():
                    write_atomic(self.root / "oci-layout", _LAYOUT)
                before = self._index()
                others = [item for item in before if _name(item) != name]
                if entry not in before or len(others) + 1 != len(before):
                    text = json.dumps({"schemaVersion": 2, "manifests": [*others, entry]}, indent=1)
                    write_atomic(path, text.encode())
            except OSError as error:
                raise from_oserror(error, StoreError, f"can't write in the store {self.root}:") from error

    def tags(self) -> dict[str, Descriptor]:
        """Return what index.json names; entries without a name or without sense are left out."""
        try:
            entries = self._index()
        except OSError as error:
            raise from_oserror(error, StoreError, "can't read the store") from error
        named: dict[str, Descriptor] = {}
        for item in entries:
            name = _name(item)
            with contextlib.suppress(DocumentError):
                if name is not None:
                    named[name] = Descriptor.parse(item)
        return named

    def _index(self) -> list[Any]:
        """Return the entries of index.json, none when there is none. Raises OSError."""
        try:
            document = json.loads((self.root / "index.json").read_bytes())
        except (FileNotFoundError, ValueError, RecursionError):
            return []
        entries = document.get("manifests") if isinstance(document, dict) else None
        return entries if isinstance(entries, list) else []

    def _folder(self, name: str) -> Path:
        path = self.root / name
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise from_oserror(error, StoreError, f"can't write in the store {self.root}:") from error
        return path


def _name(entry: object) -> str | None:
    """Return the name that an entry of index.json gives (image-spec, annotations.md)."""
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    name = annotations.get(_REF_NAME) if isinstance(annotations, dict) else None
    return name if isinstance(name, str) else None


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
