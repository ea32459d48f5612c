"""Image files that lie in a folder, and what they are called.

```
deffile of the SIF: `bootstrap: docker`, `from: X`, nothing else ─▶ X            ours, Apptainer's and Nextflow's pulls
nvidia-caffe2:17.10.sif                                          ─▶ nvidia/caffe2:17.10      sregistry's name
nvcr.io+nvidia+caffe2+17.10.sqsh, nvidia+caffe2+17.10.sqsh       ─▶ nvidia/caffe2:17.10      enroot's name
caffe2_mine.sif, caffe2.img                                      ─▶ <collection>/caffe2:mine, where a collection is given
```

Apptainer's file
names drop the collection, those of Nextflow write ``/`` and ``:`` as the same ``-``: they tell no name.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from sregistry.catalog.catalog import Catalog
from sregistry.catalog.image_facts import facts
from sregistry.catalog.imports.records import Skipped
from sregistry.catalog.record import Record
from sregistry.config.settings import Settings
from sregistry.config.targets import locate
from sregistry.errors import SregistryError, UsageError, os_errors_as
from sregistry.image import provenance
from sregistry.oci.reference import DEFAULT_TAG, Reference, is_repository

#: Endings of image files; what has another one is not looked at.
ENDINGS = frozenset({".sif", ".simg", ".img", ".sqsh", ".squashfs", ".sqfs"})

_OURS = re.compile(r"(?P<collection>[^-]+)-(?P<name>.+):(?P<tag>[^:]+)")
_OTHER = re.compile(r"(?P<name>[^_]+(?:_[^_]+)*?)(?:_(?P<tag>[^_]+))?")


def records(
    catalog: Catalog,
    folder: Path,
    settings: Settings,
    environ: Mapping[str, str],
    *,
    collection: str | None,
    say: Callable[[str], None],
) -> Iterator[Record | Skipped]:
    """Yield the records of a folder's image files: those that the catalog has, then new ones, as `read`.

    Args:
        say: is told which file is read.

    Raises:
        UsageError: *collection* is no name of one. SregistryError: a folder can't be read. CatalogError.
    """
    if collection is not None and not is_repository(collection):
        raise UsageError(f"--collection {collection!r} is no name of a collection", hint="small letters and digits, such as lab")
    there = [record for record in catalog.records() if record.image]
    yield from (record for record in there if Path(record.image or "").is_relative_to(folder))
    known = {record.image for record in there}
    files = [file for file in images(folder) if str(file) not in known]
    for number, file in enumerate(files, 1):
        say(f"[{number}/{len(files)}] reading {file}")
        yield from read([file], settings, environ, collection=collection)


def images(folder: Path) -> list[Path]:
    """Return the image files in a folder and those beneath, in order; hidden folders, links and sandboxes are passed over.

    Raises:
        SregistryError: a folder can't be read.
    """
    return sorted(_walk(folder))


def _walk(folder: Path) -> Iterator[Path]:
    with os_errors_as(SregistryError, "can't read the folder"), os.scandir(folder) as entries:
        found = list(entries)
    if any(entry.name == ".singularity.d" for entry in found):
        return
    for entry in found:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        elif entry.is_file(follow_symlinks=False) and Path(entry.name).suffix in ENDINGS:
            yield Path(entry.path)


def read(
    files: Iterable[Path], settings: Settings, environ: Mapping[str, str], *, collection: str | None = None
) -> Iterator[Record | Skipped]:
    """Yield a record, or why there is none, for each image file; each is read whole, for its SHA-256.

    Args:
        files: such as `images` returns.
        settings, environ: what a name means; see `locate`.
        collection: what images belong to whose origin can't be told.
    """
    for file in files:
        try:
            yield _record(file.absolute(), settings, environ, collection)
        except SregistryError as error:
            yield Skipped(what=str(file), why=error.message.removeprefix(f"{file.absolute()} "))


def _record(file: Path, settings: Settings, environ: Mapping[str, str], collection: str | None) -> Record | Skipped:
    """Return the record of a file. Raises ImageError: no whole image."""
    said = provenance.read(file)
    named = _name(file, said.source, settings, environ, collection)
    if named is None:
        return Skipped(what=str(file), why="nothing says what image it is; name a --collection, or `sregistry add --name` it")
    client, reference = named
    platform = f"linux/{said.architecture}" if said.architecture else ""
    return Record.of_file(
        file,
        client=client,
        reference=reference,
        version=provenance.digest(file),
        size=file.stat().st_size,
        created=datetime.fromtimestamp(file.stat().st_mtime, UTC),
        format=said.format,
        platform=platform,
        facts=facts({"config": said.config} if said.config else {}, platform),
    )


def _name(file: Path, source: str, settings: Settings, environ: Mapping[str, str], collection: str | None) -> tuple[str, Reference] | None:
    """Return client and reference of an image; None where nothing tells it."""
    for text, registry in _texts(file, source, collection):
        with contextlib.suppress(SregistryError):
            if registry:
                owner, reference = locate(text, settings.client, environ)
                return owner.client, reference
            return settings.client, Reference.parse(text, registry="", collection="")
    return None


def _texts(file: Path, source: str, collection: str | None) -> Iterator[tuple[str, bool]]:
    """Yield what the image may be called, the surest first, and whether the registry is known with it."""
    if source:
        yield source, True
    stem = file.stem
    if match := _OURS.fullmatch(stem):
        yield f"{match['collection']}/{match['name']}:{match['tag']}", False
    if (parts := stem.split("+")) and len(parts) > 1:
        known = "." in parts[0] and len(parts) > 3
        yield f"{'/'.join(parts[:-1])}:{parts[-1]}", known
    if collection and (match := _OTHER.fullmatch(stem)):
        yield f"{collection}/{match['name'].lower()}:{match['tag'] or DEFAULT_TAG}", False
