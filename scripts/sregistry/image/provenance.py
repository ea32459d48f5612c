"""What an image file, or a sandbox, is by its own bytes, and what it says of where it is from.

```
SIF       header: architecture · definition file: `bootstrap: docker`, `from: X`, nothing else ─▶ X
          inspect-metadata.json: labels · oci-config.json
sandbox   .singularity.d/labels.json: …deffile.bootstrap, …deffile.from, build-arch
simg      a squashfs, behind the line that makes it a program: the same labels.json in it
```

Ours, Apptainer's and Nextflow's pulls write these. A definition that does more than name an image says what the image
began as, not what it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from sregistry.errors import ImageError, SregistryError, from_oserror
from sregistry.image import sif
from sregistry.image.squashfs import reader
from sregistry.image.squashfs.format import SUPERBLOCK, Superblock
from sregistry.oci.json_fields import load_json
from sregistry.system import limits

#: squashfs 4.0, superblock: what a simg begins with, most often behind the line that makes it a program.
_SQUASHFS = b"hsqs"
#: What makes a directory a sandbox.
_MARK = ".singularity.d"
_DEFFILE = re.compile(r"\s*bootstrap:\s*docker\s*\n\s*from:\s*(?P<image>\S+)\s*", re.IGNORECASE)
_LABEL = "org.label-schema.usage.singularity.deffile."
_ARCHITECTURE = "org.label-schema.build-arch"


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What an image says of itself.

    `source` is a reference, as `pull` takes it, "" where nothing tells it; `architecture` is Go's name, None where
    nothing tells it; `config` is the image's config, as far as it is kept. Without `sound` it is damaged where it would say so.
    """

    format: str
    architecture: str | None
    source: str
    config: dict[str, Any] = field(default_factory=dict)
    sound: bool = True


def read(file: Path) -> Said:
    """Return what an image says of itself. Raises ImageError: no image, or it can't be read."""
    form, architecture = recognize(file)
    if form == "sandbox":
        labels = _sandbox_labels(file)
        return Said(format=form, architecture=labels.get(_ARCHITECTURE), source=_source(labels))
    if form != "sif":
        found = _simg_labels(file)
        labels = found or {}
        return Said(format=form, architecture=labels.get(_ARCHITECTURE), source=_source(labels), sound=found is not None)
    objects = _objects(file)
    labels = _sif_labels(objects)
    match = _DEFFILE.fullmatch(objects.get("deffile", b"").decode(errors="replace"))
    return Said(
        format=form,
        architecture=labels.get(_ARCHITECTURE) or architecture,
        source=_named(match["image"]) if match else "",
        config=_document(objects, "oci-config.json"),
    )


def recognize(file: Path) -> tuple[str, str | None]:
    """Return the format of an image file or sandbox, and its architecture, if its header says so. Raises ImageError: no image."""
    with _reading():
        mode = file.stat().st_mode
        if stat.S_ISDIR(mode):
            if not is_sandbox(file):
                raise ImageError(f"{file} is no sandbox: it has no {_MARK}", hint="name an image file, or a sandbox directory")
            return "sandbox", None
        if not stat.S_ISREG(mode):  # to open a pipe would wait for its writer
            raise ImageError(f"{file} is neither a file nor a directory", hint="SIF and squashfs files and sandboxes are taken")
        with file.open("rb") as opened:
            head, superblock = _head(opened)
            if superblock.startswith(_SQUASHFS):
                used = Superblock._make(SUPERBLOCK.unpack(superblock[: SUPERBLOCK.size].ljust(SUPERBLOCK.size, b"\0"))).bytes_used
                end = len(head) - len(superblock) + used
                if end > file.stat().st_size:
                    raise ImageError(f"{file} is cut: it has {file.stat().st_size} of {end} bytes", hint="get it again")
                return "simg", None
            try:
                header, objects = sif.parse(opened)
            except ImageError as error:
                raise ImageError(f"{file} is no image: {error.message}", hint="SIF and squashfs files and sandboxes are taken") from error
    if not any(item.data_type == sif.DataType.PARTITION for item in objects):
        raise ImageError(f"{file} is no image: it has no file system")
    architecture = sif.Architecture.read(header.architecture)
    return "sif", None if architecture is sif.Architecture.UNKNOWN else architecture.go


def looks_like_one(path: Path) -> bool:
    """Tell whether a file begins as an image does, cut or damaged though it may be, or a directory is a sandbox.

    A link is none. Raises ImageError: it can't be read.
    """
    with _reading():
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            return is_sandbox(path)
        if not stat.S_ISREG(mode):
            return False
        with path.open("rb") as opened:
            head, superblock = _head(opened)
        return superblock.startswith(_SQUASHFS) or head[len(sif.LAUNCH_LINE) :].lstrip(b"\0").startswith(sif.MAGIC)


def is_sandbox(folder: Path) -> bool:
    """Tell whether a directory, not a link to one, is an unpacked image."""
    with contextlib.suppress(OSError):
        mark = folder / _MARK
        return not folder.is_symlink() and mark.is_dir() and not mark.is_symlink()
    return False


def _head(opened: BinaryIO) -> tuple[bytes, bytes]:
    """Return the first bytes of a file, and what follows the line that makes it a program."""
    head = opened.read(len(sif.LAUNCH_LINE) + SUPERBLOCK.size)
    return head, head.removeprefix(sif.LAUNCH_LINE)


def _objects(file: Path) -> dict[str, bytes]:
    """Return the definition file and the JSON documents of a SIF image, by name. Raises ImageError."""
    found: dict[str, bytes] = {}
    with _reading(), file.open("rb") as opened:
        for item in sif.parse(opened)[1]:
            known = item.data_type in (sif.DataType.DEFFILE, sif.DataType.GENERIC_JSON)
            if known and item.size <= limits.OWN_DOCUMENT:
                opened.seek(item.offset)
                found["deffile" if item.data_type == sif.DataType.DEFFILE else item.title] = opened.read(item.size)
    return found


def _document(objects: Mapping[str, bytes], name: str) -> dict[str, Any]:
    with contextlib.suppress(SregistryError):
        found = load_json(objects[name], name) if name in objects else {}
        return found if isinstance(found, dict) else {}
    return {}


def _sif_labels(objects: Mapping[str, bytes]) -> dict[str, str]:
    value: Any = _document(objects, "inspect-metadata.json")
    for key in ("data", "attributes", "labels"):
        value = value.get(key) if isinstance(value, dict) else None
    return _texts(value)


def _sandbox_labels(folder: Path) -> dict[str, str]:
    """Return the labels of a sandbox; none of what is no plain file of a sane size inside it."""
    with contextlib.suppress(OSError, SregistryError):
        handle = os.open(folder / _MARK / "labels.json", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(handle, "rb") as opened:
            found = os.fstat(handle)
            if stat.S_ISREG(found.st_mode) and found.st_size <= limits.OWN_DOCUMENT:
                return _texts(load_json(opened.read(), "labels.json"))
    return {}


def _simg_labels(file: Path) -> dict[str, str] | None:
    """Return the labels in a squashfs image, None if it is damaged."""
    try:
        with file.open("rb") as opened:
            head, superblock = _head(opened)
            found = reader.read(opened, len(head) - len(superblock), f"{_MARK}/labels.json")
    except (OSError, SregistryError):
        return None
    with contextlib.suppress(SregistryError):
        return _texts(load_json(found, "labels.json")) if found else {}
    return {}


def _texts(value: object) -> dict[str, str]:
    return {name: text for name, text in value.items() if isinstance(text, str)} if isinstance(value, dict) else {}


def _source(labels: Mapping[str, str]) -> str:
    named = labels.get(f"{_LABEL}from", "")
    return _named(named) if named and labels.get(f"{_LABEL}bootstrap") == "docker" else ""


def _named(image: str) -> str:
    """Return the reference that a definition names: what has no host is Docker Hub's."""
    host, slash, _ = image.partition("/")
    known = slash and ("." in host or ":" in host or host == "localhost")
    return image if known else f"docker://{image}"


@contextlib.contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise from_oserror(error, ImageError, "can't read") from error


def digest(file: Path) -> str:
    """Return a file's SHA-256 as hexadecimal digits. Raises OSError."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
