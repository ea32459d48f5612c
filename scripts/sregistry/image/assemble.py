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
import errno
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BufferedRandom
from pathlib import Path

from sregistry.config.filename import neighbour
from sregistry.errors import ImageError, StoreError, from_oserror
from sregistry.image import sif
from sregistry.image.copying import Copier, Follower, copy
from sregistry.image.provenance import is_sandbox
from sregistry.image.squashfs.format import PADDING, SUPERBLOCK
from sregistry.image.squashfs.layout import Stretch
from sregistry.image.squashfs.writer import arrange, plan
from sregistry.image.tree import IMPLIED, Sandbox, lookup
from sregistry.image.unpack import unpack
from sregistry.layers.compression import Compression
from sregistry.layers.contents import Contents
from sregistry.layers.index import Index
from sregistry.layers.tar_reader import Kind
from sregistry.oci.documents import Digest, Platform
from sregistry.results.receipts import Built
from sregistry.store.beneath import discard, opened
from sregistry.store.store import sync


def unguarded() -> None:
    """Have nothing against any file that is replaced."""


def build(
    sandbox: Sandbox,
    *,
    format: str,
    target: Path,
    created: int,
    deffile: bytes,
    documents: Mapping[str, bytes],
    architecture: str | None,
    guard: Callable[[], None] = unguarded,
) -> Built:
    """Build one image and publish it under *target*; return what it is.

    Args:
        sandbox: the merged root file system.
        format: ``sif``, ``simg`` or ``sandbox``.
        target: the image's final path; what is there is replaced at the end, at once.
        created: seconds since 1970, the time of the image.
        deffile, documents: the SIF's other objects; see `metadata.sif_objects`.
        architecture: of the config, for an image without an ELF /bin/sh.
        guard: raises ImageError where what has the name must stay; asked at the end, before anything is replaced.

    Raises:
        ImageError: what squashfs can't hold, or no space, or no permission.
        StoreError: an exploded layer is missing or damaged.
    """
    layers = sandbox.indexes()
    if format == "sandbox":
        return _directory(sandbox, layers, target, architecture, guard)
    with Contents(sandbox.folders, layers) as contents:
        architecture = architecture_of(sandbox, layers, contents) or architecture
        rows, layout = arrange(sandbox, layers)
        start = len(prefix_of(format, deffile, documents, b"", PADDING, architecture=architecture, created=created))
        with published(target, start + layout.end, guard) as file, Follower(file.fileno()) as follower:
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
    return Built(
        path=str(target),
        format=format,
        size=start + planned.size,
        version=follower.hash.hexdigest(),
        architecture=architecture,
        inodes=planned.inodes,
        dropped_xattrs=tuple(os.fsdecode(name) for name in planned.dropped),
        dead={"size": layout.dead.size, "stored": layout.dead.stored},
    )


def take(blob: Path, digest: Digest, *, ours: bool, target: Path, platform: Platform, guard: Callable[[], None] = unguarded) -> Built:
    """Publish a SIF of the store under *target*, as it is; return what it is.

    Args:
        blob: the file in the store.
        digest: of its bytes, which are checked as they are copied.
        ours: whether a damaged one may be removed.
        target: the image's final path; what is there is replaced at the end, at once.
        platform: what the image must be for; a SIF that does not say what it is for is for all.
        guard: as for `build`.

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
        with published(target, size, guard) as image, Follower(image.fileno(), digest.algorithm) as follower:
            follower.start()
            for done in copy(file.fileno(), image.fileno(), Stretch(0, 0, size), 0):
                follower.reached(done)
            follower.finish()
            if follower.hashes[digest.algorithm].hexdigest() != digest.hex:
                if not ours:
                    raise StoreError(f"{blob} is damaged on disk", hint="leave that folder out of `cache_from`, or repair it")
                discard(blob, depth=3)
                raise StoreError(f"{blob} was damaged on disk and is removed", hint="run again to fetch it anew")
    return Built(path=str(target), format="sif", size=size, version=follower.hash.hexdigest(), architecture=architecture.go)


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
    """Give a temporary name beside *target*; what is left of it, and of those of killed processes, is removed."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            folder = _claimed(target, stack)
            _sweep(target)
            yield folder / "image"
    except OSError as error:
        raise from_oserror(error, ImageError, f"can't write the image {target}:") from error


def _claimed(target: Path, stack: contextlib.ExitStack) -> Path:
    """Return a new folder beside *target* that is locked as long as this process lives, and goes with *stack*."""
    while True:
        folder = tempfile.TemporaryDirectory(dir=target.parent, prefix=neighbour(target.name), ignore_cleanup_errors=True)
        try:
            _lock(Path(folder.name), stack)
        except BlockingIOError:  # somebody sweeps, and was quicker
            folder.cleanup()
            continue
        except OSError:  # a file system without these locks, such as NFS: nobody sweeps there
            pass
        return Path(stack.enter_context(folder))


def _lock(folder: Path, stack: contextlib.ExitStack) -> int:
    """Lock a folder until *stack* ends, and return its descriptor.

    Raises BlockingIOError: another process has it. OSError: it is not this user's, or can't be locked.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    stack.callback(os.close, handle)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    if os.fstat(handle).st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(folder))
    return handle


def _sweep(target: Path) -> None:
    """Remove the temporary neighbours of *target* that killed processes of this user left; they are as large as images."""
    name = re.compile(re.escape(neighbour(target.name)) + r"[a-z0-9_]{8}")
    for entry in filter(name.fullmatch, os.listdir(target.parent)):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            handle = _lock(target.parent / entry, stack)
            if set(os.listdir(handle)) <= {"image", "old"}:
                for part in ("image", "old"):
                    remove(Path(f"/proc/self/fd/{handle}") / part)  # whatever has the folder's name by now
                (target.parent / entry).rmdir()


@contextlib.contextmanager
def published(target: Path, size: int, guard: Callable[[], None] = unguarded) -> Iterator[BufferedRandom]:
    """Open a temporary neighbour; when the context ends well, and *guard* does not raise, it gets its name.

    A link of that name is replaced, not what is behind it.
    """
    with _neighbour(target) as path:
        if target.is_dir() and not target.is_symlink():
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
        _name(path, target, guard)
        sync(target.parent)


def _name(path: Path, target: Path, guard: Callable[[], None]) -> None:
    """Give a whole file its name. What somebody else published under it meanwhile is replaced only if *guard* allows it."""
    if not os.path.lexists(target):
        try:
            os.link(path, target, follow_symlinks=False)
            path.unlink()
            return
        except FileExistsError:
            pass
        except OSError:  # a file system without links: a rename is as good, but for who comes in between
            path.replace(target)
            return
    guard()
    path.replace(target)


def _directory(sandbox: Sandbox, layers: Sequence[Index], target: Path, architecture: str | None, guard: Callable[[], None]) -> Built:
    with Contents(sandbox.folders, layers) as contents, _neighbour(target) as path:
        architecture = architecture_of(sandbox, layers, contents) or architecture
        unpacked = unpack(sandbox, layers, contents, path, kept=True)
        lost = _closed(path, target.parent, unpacked.powers)
        guard()
        old = path.with_name("old")
        if os.path.lexists(target):
            _replaceable(target)
            target.rename(old)
        try:
            path.rename(target)
        except OSError:
            if os.path.lexists(old):
                old.rename(target)
            raise
        remove(old)
        sync(target.parent)
    digest = hashlib.sha256()
    for folder in sandbox.folders:
        digest.update(folder.name.encode())
    return Built(
        path=str(target),
        format="sandbox",
        size=unpacked.size,
        version=digest.hexdigest(),
        architecture=architecture,
        inodes=len(set(sandbox.source)),
        dropped_xattrs=(),
        lost=tuple(lost),
    )


def _closed(path: Path, storage: Path, powers: Sequence[str]) -> list[str]:
    """Close a sandbox to others where it would lend them rights; return what of the image is lost with that, in words."""
    if not powers:
        return []
    some = f"{len(powers)}, such as {powers[0]}"
    if os.geteuid() != 0:
        return [f"set-uid and set-gid bits of files ({some}), which would lend your rights to others"]
    if not _is_open(storage):
        return []
    path.chmod(0o700)
    return [f"the mode of its root, 0700 here, as others could use set-id files, capabilities or devices ({some})"]


def _is_open(folder: Path) -> bool:
    """Tell whether others than the owner may come into a folder: an access list shows in the group's bits."""
    folder = folder.resolve()
    return all(place.stat().st_mode & 0o011 for place in (folder, *folder.parents))


def _replaceable(target: Path) -> None:
    """Check that a sandbox may take a name: a link's, a sandbox's, an empty directory's. Raises ImageError."""
    if target.is_symlink() or is_sandbox(target):
        return
    if not target.is_dir():
        raise ImageError(f"{target} is no directory", hint="remove it or choose another name")
    if next(target.iterdir(), None) is not None:
        raise ImageError(f"{target} is a directory and no image", hint="move it away or choose another name")


def remove(path: Path) -> None:
    """Remove a file, a link, or a directory tree whose directories may forbid it to their owner; one that is gone is no error.

    No link is followed, neither *path* itself nor one inside. Raises OSError.
    """
    with contextlib.suppress(FileNotFoundError):
        if path.is_symlink() or not path.is_dir():
            path.unlink()
            return
        _open_up(path.name, None, path.parent)
        for _, names, _, handle in os.fwalk(path, follow_symlinks=False):
            for name in names:
                _open_up(name, handle)
        shutil.rmtree(path)


def _open_up(name: str, parent: int | None, folder: Path | None = None) -> None:
    """Let the owner into a directory, but not through a link that took its place."""
    with contextlib.suppress(NotADirectoryError):
        handle = os.open(name if folder is None else folder / name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
        finally:
            os.close(handle)


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
