"""The image stage: a sandbox becomes a file (SIF or simg) or a directory, published whole.

```
sif   | header, objects | squashfs |        simg  | launch line 31 | squashfs |        sandbox  a directory
```

What is published as a SIF is taken as it is, to the byte (`take`).

An image is assembled by copying: planned tables, and stretches of exploded layers' data as they are.
It is written beside its final name, synced and renamed; equal input gives equal bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedRandom
from pathlib import Path
from typing import Any

from sregistry import sif
from sregistry.beneath import discard, opened
from sregistry.compression import Compression
from sregistry.content import Contents
from sregistry.copying import Copier, Follower, copy
from sregistry.errors import ImageError, StoreError, from_oserror
from sregistry.index import Index
from sregistry.oci import Digest, Platform
from sregistry.rootfs import unpack
from sregistry.sandbox import IMPLIED, Sandbox, lookup
from sregistry.squashfs.format import PADDING, SUPERBLOCK
from sregistry.squashfs.layout import Stretch
from sregistry.squashfs.writer import arrange, plan
from sregistry.store import sync
from sregistry.tar import Kind


def build(
    sandbox: Sandbox,
    *,
    format: str,
    target: Path,
    created: int,
    deffile: bytes,
    documents: Mapping[str, bytes],
    architecture: str | None,
) -> dict[str, Any]:
    """Build one image and publish it under *target*; return the receipt.

    Args:
        sandbox: the merged root file system.
        format: ``sif``, ``simg`` or ``sandbox``.
        target: the image's final path; what is there is replaced at the end, at once.
        created: seconds since 1970, the time of the image.
        deffile, documents: the SIF's other objects; see `metadata.sif_objects`.
        architecture: of the config, for an image without an ELF /bin/sh.

    Returns:
        path, format, size in bytes (of a directory: of its files' contents), version (sha256 of the
        file; of a directory, of its layers' digests), architecture, inodes, dropped_xattrs; for a file
        also dead: bytes of tails of files that are not in the image, but share a fragment block with
        some that are, as content (`size`) and of the file (`stored`).

    Raises:
        ImageError: what squashfs can't hold, or no space, or no permission.
        StoreError: an exploded layer is missing or damaged.
    """
    layers = sandbox.indexes()
    if format == "sandbox":
        return _directory(sandbox, layers, target, architecture)
    with Contents(sandbox.folders, layers) as contents:
        architecture = architecture_of(sandbox, layers, contents) or architecture
        rows, layout = arrange(sandbox, layers)
        start = len(prefix_of(format, deffile, documents, b"", PADDING, architecture=architecture, created=created))
        with published(target, start + layout.end) as file, Follower(file.fileno()) as follower:
            with Copier(file.fileno(), start + SUPERBLOCK.size, layout.stretches, layers, contents, follower):
                # Of whatever level the data is: equal layers give equal tables, which not all levels do.
                compression = Compression(codec=layers[0].codec, block_size=layers[0].block_size)
                planned = plan(sandbox, layers, rows, layout, created=created, compression=compression)
                tables = planned.superblock + planned.tables
                prefix = prefix_of(format, deffile, documents, tables, planned.size, architecture=architecture, created=created)
                file.write(prefix + planned.superblock)
                file.flush()
                follower.start()
            file.seek(start + layout.end)
            file.write(planned.tables)
            file.flush()
            follower.reached(start + planned.size)
            os.fsync(file.fileno())  # while the follower still hashes
    return {
        "path": str(target),
        "format": format,
        "size": start + planned.size,
        "version": follower.hash.hexdigest(),
        "architecture": architecture,
        "inodes": planned.inodes,
        "dropped_xattrs": [os.fsdecode(name) for name in planned.dropped],
        "dead": {"size": layout.dead.size, "stored": layout.dead.stored},
    }


def take(blob: Path, digest: Digest, *, ours: bool, target: Path, platform: Platform) -> dict[str, Any]:
    """Publish a SIF of the store under *target*, as it is; return the receipt.

    Args:
        blob: the file in the store.
        digest: of its bytes, which are checked as they are copied.
        ours: whether a damaged one may be removed.
        target: the image's final path; what is there is replaced at the end, at once.
        platform: what the image must be for; a SIF that does not say what it is for is for all.

    Returns:
        path, format, size in bytes, version (sha256 of the file), architecture.

    Raises:
        ImageError: no SIF, or for another platform, or no space, or no permission.
        StoreError: the blob is missing or damaged on disk (it is removed then).
    """
    try:
        file = opened(blob, depth=3)
    except OSError as error:
        raise from_oserror(error, StoreError, "can't read") from error
    with file:
        header, objects = sif.parse(file)
        if not any(item.data_type == sif.DataType.PARTITION for item in objects):
            raise ImageError("no SIF image: it has no file system")
        architecture = sif.Architecture.read(header.architecture)
        if architecture.go not in (platform.architecture, sif.Architecture.UNKNOWN.go):
            raise ImageError(f"the SIF is for {architecture.go}, not for {platform.architecture}", hint="choose another platform or tag")
        size = os.fstat(file.fileno()).st_size
        with published(target, size) as image, Follower(image.fileno(), digest.algorithm) as follower:
            follower.start()
            for done in copy(file.fileno(), image.fileno(), Stretch(0, 0, size), 0):
                follower.reached(done)
            follower.finish()
            if follower.hashes[digest.algorithm].hexdigest() != digest.hex:
                if not ours:
                    raise StoreError(f"{blob} is damaged on disk", hint="leave that folder out of `cache_from`, or repair it")
                discard(blob, depth=3)
                raise StoreError(f"{blob} was damaged on disk and is removed", hint="run again to fetch it anew")
    return {"path": str(target), "format": "sif", "size": size, "version": follower.hash.hexdigest(), "architecture": architecture.go}


def prefix_of(
    format: str, deffile: bytes, documents: Mapping[str, bytes], tables: bytes, size: int, *, architecture: str | None, created: int
) -> bytes:
    """Return what stands before the squashfs of *size* bytes in an image; its length does not depend on the squashfs.

    *tables* are the squashfs' own: with the documents, they tell this image from all others.
    """
    if format == "simg":
        return sif.LAUNCH_LINE
    inputs = hashlib.sha256(deffile + b"".join(documents[name] for name in sorted(documents)))
    inputs.update(tables)
    number = sif.image_id(inputs.hexdigest())
    return sif.plan(deffile, documents, partition_size=size, architecture=architecture, created=created, image=number).prefix


@contextlib.contextmanager
def _neighbour(target: Path) -> Iterator[Path]:
    """Give a temporary name beside *target*; what is left of it is removed."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name[:100]}.", ignore_cleanup_errors=True) as folder:
            yield Path(folder) / "image"
    except OSError as error:
        raise from_oserror(error, ImageError, f"can't write the image {target}:") from error


@contextlib.contextmanager
def published(target: Path, size: int) -> Iterator[BufferedRandom]:
    """Open a temporary neighbour; when the context ends well it gets its name."""
    with _neighbour(target) as path:
        if target.is_dir():
            raise ImageError(f"{target} is a directory", hint="remove it or choose another name")
        with path.open("w+b") as file:
            free = shutil.disk_usage(path.parent).free
            if size > free:
                raise ImageError(
                    f"{target.parent} has {free} bytes left, the image needs {size}", hint="free some space or choose another folder"
                )
            yield file
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o755 & ~_umask())
        path.replace(target)
        sync(target.parent)


def _directory(sandbox: Sandbox, layers: Sequence[Index], target: Path, architecture: str | None) -> dict[str, Any]:
    with Contents(sandbox.folders, layers) as contents, _neighbour(target) as path:
        architecture = architecture_of(sandbox, layers, contents) or architecture
        size = unpack(sandbox, layers, contents, path)
        if target.exists() and not target.is_dir():
            raise ImageError(f"{target} is no directory", hint="remove it or choose another name")
        old = path.with_name("old")
        if target.exists():
            target.rename(old)
        try:
            path.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        if old.exists():
            remove(old)
        sync(target.parent)
    digest = hashlib.sha256()
    for folder in sandbox.folders:
        digest.update(folder.name.encode())
    return {
        "path": str(target),
        "format": "sandbox",
        "size": size,
        "version": digest.hexdigest(),
        "architecture": architecture,
        "inodes": len(set(sandbox.source)),
        "dropped_xattrs": [],
    }


def remove(folder: Path) -> None:
    """Remove a directory tree whose directories may forbid it to their owner."""
    for base, names, _ in os.walk(folder):
        for name in names:
            path = Path(base, name)
            if not path.is_symlink():
                path.chmod(0o700)
    shutil.rmtree(folder)


def architecture_of(sandbox: Sandbox, layers: Sequence[Index], contents: Contents) -> str | None:
    """Return the architecture of /bin/sh's ELF header, links resolved inside the image (oci-to-sif §2)."""
    row = lookup(sandbox, layers, b"bin/sh")
    if row is None or sandbox.source[row] == IMPLIED:
        return None
    layer, item = sandbox.source[row] >> 32, sandbox.source[row] & 0xFFFFFFFF
    if layers[layer].kind[item] != Kind.FILE:
        return None
    return sif.elf_architecture(contents.head(layer, item, 64))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
