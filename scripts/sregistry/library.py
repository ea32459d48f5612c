"""Images' files together with their records: taken in, moved, renamed, tagged, removed.

```
add       FILE ─▶ <storage>/<collection>-<name>:<tag>.<sif|simg>, recorded
move      the file to another place, and its record after it
rename    the record, and the file where its name was the image's and no other record's
tag       one more record of the same file
remove    the record, then the file unless another record needs it
```

A file is in its new place whole before the record says so, and a record is gone before its file is: whatever
dies in between, no record leads to another image's bytes, and no file is lost.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from sregistry import image, sif
from sregistry.catalog import Catalog
from sregistry.errors import CatalogError, ImageError, from_oserror
from sregistry.record import TIME, Record
from sregistry.reference import Reference
from sregistry.settings import FORMATS
from sregistry.squashfs.format import SUPERBLOCK, Superblock
from sregistry.store import sync

#: squashfs 4.0, superblock: what a simg begins with, most often behind the line that makes it a program.
_SQUASHFS = b"hsqs"


def add(
    catalog: Catalog, file: Path, storage: Path, *, client: str, reference: Reference, copy: bool, force: bool, now: datetime
) -> tuple[Record, bool]:
    """Take an image file into the storage folder and record it.

    Args:
        file: a SIF, a squashfs image, or a sandbox directory; moved, unless *copy*.
        client: whose image it counts as.
        reference: what it is called from now on.
        force: replace what has its place.

    Returns:
        The record, and whether it is new.

    Raises:
        ImageError: no image, its place is taken, or it can't be moved. CatalogError.
    """
    if file.is_symlink() and not copy:
        raise ImageError(f"{file} is a link, which is not moved", hint="name the file itself, or say --copy")
    form, architecture = recognize(file)
    target = storage / f"{reference.filename}{FORMATS[form]}"
    if os.path.lexists(target) and not force and not _same(file, target):
        raise ImageError(f"{target} is there already", hint="remove it, or say --force")
    with _failing("can't read"):
        version = "" if form == "sandbox" else digest(file)
        size = 0 if form == "sandbox" else file.stat().st_size
    if not _same(file, target):
        _place(file, target, copy=copy, force=force)
    record = Record(
        client=client,
        collection=reference.collection,
        name=reference.name,
        tag=reference.tag,
        uri=reference.uri,
        url="",
        registry="",
        digest=str(reference.digest or ""),
        version=version,
        image=str(target),
        size=size,
        compressed_size=0,
        created_at=now.strftime(TIME),
        format=form,
        platform=f"linux/{architecture}" if architecture else "",
    )
    try:
        return catalog.add(record)
    except CatalogError as error:
        raise CatalogError(f"{target} is in place, but not recorded: {error.message}", hint=error.hint) from error


def move(catalog: Catalog, record: Record, place: Path) -> Record:
    """Move an image's file to *place*, a folder or a name that is free. Raises ImageError, CatalogError."""
    source = _local(record)
    target = Path.cwd() / (place / source.name if place.is_dir() else place)
    if os.path.lexists(target):
        raise ImageError(f"{target} is there already", hint="choose another name")
    if not target.parent.is_dir():
        raise ImageError(f"{target.parent} is no folder", hint="make it first")
    return _follow(catalog, record, source, target)


def rename(catalog: Catalog, record: Record, reference: Reference) -> Record:
    """Give an image another name; its file gets it too, where it had the old one and no other name. Raises ImageError, CatalogError."""
    records = catalog.records()
    if _named(records, record, reference):
        raise CatalogError(f"{reference.uri} is on record already", hint="remove it, or choose another name")
    named = _name(record, reference)
    if record.image is None:
        return catalog.replace(named)
    source = _local(record)
    old = record.uri.replace("/", "-")
    ending = FORMATS.get(record.format, source.suffix)
    if source.name != f"{old}{ending}" or any(other.image == record.image for other in records if other.id != record.id):
        return catalog.replace(named)  # it was given a name of its own, or several
    target = source.with_name(f"{reference.filename}{ending}")
    if os.path.lexists(target):
        raise ImageError(f"{target} is there already", hint="remove it, or choose another name")
    return _follow(catalog, named, source, target)


def tag(catalog: Catalog, record: Record, reference: Reference, *, now: datetime) -> tuple[Record, bool]:
    """Give an image one more name, of the same file; return that record, and whether it is new. Raises CatalogError: the name is taken."""
    for there in _named(catalog.records(), record, reference):
        if (there.image, there.version, there.digest) == (record.image, record.version, record.digest):
            return there, False
        raise CatalogError(f"{reference.uri} is on record already, for another image", hint="remove it, or choose another name")
    if record.image is not None:
        _local(record)
    return catalog.add(replace(_name(record, reference), id=0, created_at=now.strftime(TIME)))


def remove(catalog: Catalog, record: Record) -> None:
    """Remove a record and, unless another one needs it, the file. Raises CatalogError, ImageError: the file stays."""
    catalog.remove(record)
    if record.image is None or any(other.image == record.image for other in catalog.records()):
        return
    path = Path(record.image)
    with _failing(f"{record.uri} is off the record, but its file stays: can't remove"), contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            image.remove(path)
        else:
            path.unlink()


def wrong(record: Record, *, deep: bool = False) -> str | None:
    """Return what is wrong with an image's file, None if nothing is: it is gone, or of another size or, looked at *deep*, other bytes."""
    if record.image is None:
        return None
    path = Path(record.image)
    with _failing("can't read"):
        if not path.exists():
            return "is gone"
        if path.is_dir() != (record.format == "sandbox"):
            return "is something else"
        if record.format == "sandbox":
            return None
        size = path.stat().st_size
        if size != record.size:
            return f"has {size} bytes, not {record.size}"
        if deep and record.version and len(record.version) == 64 and digest(path) != record.version:
            return "has other bytes than were recorded"
    return None


def _named(records: Iterable[Record], record: Record, reference: Reference) -> list[Record]:
    """Return the records of *record*'s registry that have a name."""
    return [r for r in records if (r.client, r.registry, r.uri) == (record.client, record.registry, reference.uri)]


def _name(record: Record, reference: Reference) -> Record:
    return replace(record, collection=reference.collection, name=reference.name, tag=reference.tag, uri=reference.uri)


def _follow(catalog: Catalog, record: Record, source: Path, target: Path) -> Record:
    """Place the file and have the record say so; if that can't be written, the file is where it was."""
    _place(source, target, copy=False, force=False)
    try:
        return catalog.replace(replace(record, image=str(target)))
    except CatalogError:
        _place(target, source, copy=False, force=False)
        raise


def _local(record: Record) -> Path:
    if record.image is None:
        raise CatalogError(f"{record.uri} is in the registry only", hint="pull it first")
    if not os.path.lexists(record.image):
        raise CatalogError(f"{record.uri} was at {record.image}, but is gone", hint="pull it again")
    return Path(record.image)


def recognize(file: Path) -> tuple[str, str | None]:
    """Return the format of an image file or sandbox, and its architecture, if it says so. Raises ImageError: no image."""
    with _failing("can't read"):
        if file.is_dir():
            if not (file / ".singularity.d").is_dir():
                raise ImageError(f"{file} is no sandbox: it has no .singularity.d", hint="name an image file, or a sandbox directory")
            return "sandbox", None
        with file.open("rb") as opened:
            head = opened.read(len(sif.LAUNCH_LINE) + SUPERBLOCK.size)
            superblock = head.removeprefix(sif.LAUNCH_LINE)
            if superblock.startswith(_SQUASHFS):
                used = Superblock._make(SUPERBLOCK.unpack(superblock[: SUPERBLOCK.size].ljust(SUPERBLOCK.size, b"\0"))).bytes_used
                end = len(head) - len(superblock) + used
                if end > file.stat().st_size:
                    raise ImageError(f"{file} is cut: it has {file.stat().st_size} of {end} bytes", hint="get it again")
                return "simg", None
            opened.seek(0)
            try:
                header, objects = sif.parse(opened)
            except ImageError as error:
                raise ImageError(f"{file} is no image: {error.message}", hint="SIF and squashfs files and sandboxes are taken") from error
    if not any(item.data_type == sif.DataType.PARTITION for item in objects):
        raise ImageError(f"{file} is no image: it has no file system")
    architecture = sif.Architecture.read(header.architecture)
    return "sif", None if architecture is sif.Architecture.UNKNOWN else architecture.go


def digest(file: Path) -> str:
    """Return a file's SHA-256 as hexadecimal digits. Raises OSError."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _same(one: Path, other: Path) -> bool:
    return os.path.lexists(other) and one.exists() and other.exists() and one.samefile(other)


def _place(source: Path, target: Path, *, copy: bool, force: bool) -> None:
    """Bring a file or a directory to *target*, whole or not at all. Raises ImageError."""
    with _failing("can't write"):
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = source.is_dir() and not source.is_symlink()
        if folder and copy:
            raise ImageError(f"{source} is a directory, which is not copied", hint="leave out --copy: it is moved")
        if folder and os.path.lexists(target):
            raise ImageError(f"{target} is there already", hint="remove it first")
        if not copy:
            try:
                if not force and not folder:
                    os.link(source, target, follow_symlinks=False)  # unlike a rename, it never replaces
                    source.unlink()
                else:
                    source.rename(target)
                return
            except FileExistsError:
                raise ImageError(f"{target} is there already", hint="choose another name") from None
            except OSError as error:
                if folder and error.errno == errno.EXDEV:
                    raise ImageError(f"{source} can't become {target}: a directory stays on its file system") from None
                if error.errno not in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
                    raise
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            shutil.copy2(source, beside)
            sync(beside)
            if not force and os.path.lexists(target):
                raise ImageError(f"{target} is there already", hint="choose another name")
            beside.replace(target)
            sync(target.parent)  # before the other one goes
        finally:
            beside.unlink(missing_ok=True)
        if not copy:
            source.unlink()


@contextlib.contextmanager
def _failing(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise from_oserror(error, ImageError, what) from error
