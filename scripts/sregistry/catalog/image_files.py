"""Images' files together with their records: taken in, moved, renamed, tagged, removed.

```
add       FILE ─▶ <storage>/<name by the template filename>, recorded
move      the file to another place, and its record after it
rename    the record, and the file where its name was the image's and no other record's
tag       one more record of the same file
remove    the record, then the file unless another record needs it
```

A file is in its new place whole before the record says so, and a record is gone before its file is: whatever
dies in between, no record leads to another image's bytes, and no file is lost.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from sregistry.catalog.catalog import Catalog
from sregistry.catalog.record import TIME, Record
from sregistry.config import filename
from sregistry.config.filename import FORMATS, Template
from sregistry.errors import CatalogError, ImageError, os_errors_as
from sregistry.image import assemble, provenance
from sregistry.oci.documents import Platform
from sregistry.oci.reference import Reference
from sregistry.store.store import sync


def add(
    catalog: Catalog,
    file: Path,
    storage: Path,
    *,
    client: str,
    reference: Reference,
    template: Template,
    copy: bool,
    force: bool,
    now: datetime,
) -> tuple[Record, bool]:
    """Take an image file into the storage folder and record it.

    Args:
        file: a SIF, a squashfs image, or a sandbox directory; moved, unless *copy*.
        client: whose image it counts as.
        reference: what it is called from now on.
        template: makes the file's name.
        force: replace what has its place.

    Returns:
        The record, and whether it is new.

    Raises:
        ImageError: no image, its place is taken, or it can't be moved. ConfigError: no file can have the name. CatalogError.
    """
    if file.is_symlink() and not copy:
        raise ImageError(f"{file} is a link, which is not moved", hint="name the file itself, or say --copy")
    form, architecture = provenance.recognize(file)
    platform = Platform(architecture=architecture) if architecture else None
    made = template.name(reference, client=client, platform=platform, format=form)
    target = storage / filename.checked(made, storage, str(reference))
    if os.path.lexists(target) and not force and not _same(file, target):
        raise ImageError(f"{target} is there already", hint="remove it, or say --force")
    with os_errors_as(ImageError, "can't read"):
        version = "" if form == "sandbox" else provenance.digest(file)
        size = 0 if form == "sandbox" else file.stat().st_size
    if not _same(file, target):
        _place(file, target, copy=copy, force=force)
    record = Record.of_file(
        target,
        client=client,
        reference=replace(reference, registry=""),
        version=version,
        size=size,
        created=now,
        format=form,
        platform=str(platform or ""),
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


def rename(catalog: Catalog, record: Record, reference: Reference, template: Template) -> Record:
    """Give an image another name; its file gets it too, where it had the old one and no other name.

    Raises ImageError, CatalogError; ConfigError: no file can have the name.
    """
    records = catalog.records()
    if _named(records, record, reference):
        raise CatalogError(f"{reference.uri} is on record already", hint="remove it, or choose another name")
    named = _name(record, reference)
    if record.image is None:
        return catalog.replace(named)
    source = _local(record)
    if source.name != _filename(record, template) or any(other.image == record.image for other in records if other.id != record.id):
        return catalog.replace(named)  # it was given a name of its own, or several
    target = source.with_name(filename.checked(_filename(named, template), source.parent, reference.uri))
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Removal:
    """What goes with an image: its record and, unless it is None, a file of so many bytes."""

    record: Record
    file: Path | None
    size: int


def removals(catalog: Catalog, records: Sequence[Record]) -> list[Removal]:
    """Return what goes with images, one after the other: a file with its last record, unless it is gone.

    Raises:
        ImageError: what has the file's name is no image any more: it is somebody's work, and stays.
    """
    left = {record.id: record.image for record in catalog.records()}
    found = []
    for record in records:
        left.pop(record.id, None)
        found.append(_removal(record, keep=record.image in left.values()))
    return found


def _removal(record: Record, *, keep: bool) -> Removal:
    if keep or record.image is None or not os.path.lexists(record.image):
        return Removal(record=record, file=None, size=0)
    path = Path(record.image)
    if not path.is_symlink() and not provenance.looks_like_one(path):
        what = "a directory and no image" if path.is_dir() else "no image"
        raise ImageError(f"{path}, which is on record as {record.uri}, is {what}", hint="nothing is removed: move it away first")
    with os_errors_as(ImageError, "can't read"):
        return Removal(record=record, file=path, size=_size(path))


def remove(catalog: Catalog, record: Record) -> None:
    """Remove a record and, unless another one needs it, the file; of a link the link alone.

    Raises:
        CatalogError; ImageError: the file stays, or, as `removals`, both.
    """
    removals(catalog, [record])
    catalog.remove(record)
    # Once more: a record may have come to the file meanwhile.
    (gone,) = removals(catalog, [record])
    if gone.file is not None:
        with os_errors_as(ImageError, f"{record.uri} is off the record, but its file stays: can't remove"):
            assemble.remove(gone.file)


def wrong(record: Record, *, deep: bool = False) -> str | None:
    """Return what is wrong with an image's file, None if nothing is: it is gone, or of another size or, looked at *deep*, other bytes."""
    if record.image is None:
        return None
    path = Path(record.image)
    with os_errors_as(ImageError, "can't read"):
        if not path.exists():
            return "is gone"
        if path.is_dir() != (record.format == "sandbox"):
            return "is something else"
        if record.format == "sandbox":
            return None
        size = path.stat().st_size
        if size != record.size:
            return f"has {size} bytes, not {record.size}"
        if deep and record.version and len(record.version) == 64 and provenance.digest(path) != record.version:
            return "has other bytes than were recorded"
    return None


def _named(records: Iterable[Record], record: Record, reference: Reference) -> list[Record]:
    """Return the records that have a name: those of *record*'s registry, and those whose names were given here."""
    return [r for r in records if r.uri == reference.uri and (r.is_renamed or (r.client, r.registry) == (record.client, record.registry))]


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


def _filename(record: Record, template: Template) -> str:
    """Return the name that the file of a record has by the template."""
    if record.format not in FORMATS:
        return ""
    platform = Platform.parse(record.platform) if record.platform else None
    return template.name(record.reference, client=record.client, platform=platform, format=record.format)


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a directory; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(os.lstat(os.path.join(base, name)).st_size for base, _, names in os.walk(path) for name in names)


def _same(one: Path, other: Path) -> bool:
    return os.path.lexists(other) and one.exists() and other.exists() and one.samefile(other)


def _place(source: Path, target: Path, *, copy: bool, force: bool) -> None:
    """Bring a file or a directory to *target*, whole or not at all. Raises ImageError."""
    with os_errors_as(ImageError, "can't write"):
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
        beside = target.with_name(f"{filename.neighbour(target.name)}{os.getpid()}")
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
