"""Image files that lie in a folder, and what they are called.

```
deffile of the SIF: `bootstrap: docker`, `from: X`, nothing else ─▶ X            ours, Apptainer's and Nextflow's pulls
nvidia-caffe2:17.10.sif                                          ─▶ nvidia/caffe2:17.10      sregistry's name
nvcr.io+nvidia+caffe2+17.10.sqsh, nvidia+caffe2+17.10.sqsh       ─▶ nvidia/caffe2:17.10      enroot's name
caffe2_mine.sif, caffe2.img                                      ─▶ <collection>/caffe2:mine, where a collection is given
```

A definition that does more than name an image says what the image began as, not what it is. Apptainer's file
names drop the collection, those of Nextflow write ``/`` and ``:`` as the same ``-``: they tell no name.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sregistry import library, sif
from sregistry.document import load_json
from sregistry.errors import SregistryError, from_oserror
from sregistry.facts import facts
from sregistry.intake import Skipped
from sregistry.record import TIME, Record
from sregistry.reference import DEFAULT_TAG, Reference
from sregistry.settings import Settings
from sregistry.target import locate

#: Endings of image files; what has another one is not looked at.
ENDINGS = frozenset({".sif", ".simg", ".img", ".sqsh", ".squashfs", ".sqfs"})

_DEFFILE = re.compile(r"\s*bootstrap:\s*docker\s*\n\s*from:\s*(?P<image>\S+)\s*", re.IGNORECASE)
_OURS = re.compile(r"(?P<collection>[^-]+)-(?P<name>.+):(?P<tag>[^:]+)")
_OTHER = re.compile(r"(?P<name>[^_]+(?:_[^_]+)*?)(?:_(?P<tag>[^_]+))?")
#: What of an image's own objects is read at most; the largest seen had some tens of thousands.
_LARGEST = 4 << 20


def images(folder: Path) -> list[Path]:
    """Return the image files in a folder and those beneath, in order; hidden folders, links and sandboxes are passed over.

    Raises:
        SregistryError: a folder can't be read.
    """
    return sorted(_walk(folder))


def _walk(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError as error:
        raise from_oserror(error, SregistryError, "can't read the folder") from error
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
    form, architecture = library.recognize(file)
    objects = _objects(file) if form == "sif" else {}
    named = _name(file, objects.get("deffile", b""), settings, environ, collection)
    if named is None:
        return Skipped(what=str(file), why="nothing says what image it is; name a --collection, or `sregistry add --name` it")
    client, reference = named
    platform = f"linux/{architecture}" if architecture else ""
    return Record(
        client=client,
        collection=reference.collection,
        name=reference.name,
        tag=reference.tag,
        uri=reference.uri,
        url="",
        registry=reference.registry,
        digest=str(reference.digest or ""),
        version=library.digest(file),
        image=str(file),
        size=file.stat().st_size,
        compressed_size=0,
        created_at=datetime.fromtimestamp(file.stat().st_mtime, UTC).strftime(TIME),
        format=form,
        platform=platform,
        facts=facts(_config(objects), platform),
    )


def _objects(file: Path) -> dict[str, bytes]:
    """Return the definition file and the JSON documents of a SIF image, by name. Raises ImageError."""
    found: dict[str, bytes] = {}
    with file.open("rb") as opened:
        for item in sif.parse(opened)[1]:
            known = item.data_type in (sif.DataType.DEFFILE, sif.DataType.GENERIC_JSON)
            if known and item.size <= _LARGEST:
                opened.seek(item.offset)
                found["deffile" if item.data_type == sif.DataType.DEFFILE else item.title] = opened.read(item.size)
    return found


def _config(objects: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what a SIF keeps of the image's config: ours and Apptainer's have `oci-config.json`."""
    with contextlib.suppress(SregistryError):
        return {"config": load_json(objects["oci-config.json"], "oci-config.json")} if "oci-config.json" in objects else {}
    return {}


def _name(
    file: Path, deffile: bytes, settings: Settings, environ: Mapping[str, str], collection: str | None
) -> tuple[str, Reference] | None:
    """Return client and reference of an image; None where nothing tells it."""
    for text, registry in _texts(file, deffile.decode(errors="replace"), collection):
        with contextlib.suppress(SregistryError):
            if registry:
                owner, reference = locate(text, settings.client, environ)
                return owner.client, reference
            return settings.client, Reference.parse(text, registry="", collection="")
    return None


def _texts(file: Path, deffile: str, collection: str | None) -> Iterator[tuple[str, bool]]:
    """Yield what the image may be called, the surest first, and whether the registry is known with it."""
    if match := _DEFFILE.fullmatch(deffile):
        host = match["image"].partition("/")[0]
        known = "/" in match["image"] and ("." in host or ":" in host or host == "localhost")
        # What the definition names without a host is Docker Hub's.
        yield (match["image"] if known else f"docker://{match['image']}"), True
    stem = file.stem
    if match := _OURS.fullmatch(stem):
        yield f"{match['collection']}/{match['name']}:{match['tag']}", False
    if (parts := stem.split("+")) and len(parts) > 1:
        known = "." in parts[0] and len(parts) > 3
        yield f"{'/'.join(parts[:-1])}:{parts[-1]}", known
    if collection and (match := _OTHER.fullmatch(stem)):
        yield f"{collection}/{match['name'].lower()}:{match['tag'] or DEFAULT_TAG}", False
