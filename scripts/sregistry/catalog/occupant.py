"""What a file holds, before another image takes its name.

```
nothing there, or a link to no image                         ─▶ free (a link is replaced, never what is behind it)
on record, and still the bytes that were recorded            ─▶ the record's image
else what the image says of itself (image/provenance.py)           ─▶ that image
a file on record that is no whole image any more             ─▶ the record's image, damaged: it is made again
a directory that is no sandbox                               ─▶ somebody's work: never replaced
anything else                                                ─▶ unknown: replaced by `force` alone
```

An image is told by registry, repository, tag or digest, platform and format. What a tag means now and meant before is
one image, so that a file follows its tag.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sregistry.config.registries import rows
from sregistry.errors import ImageError, SregistryError
from sregistry.image import provenance
from sregistry.oci.platforms import Platform, may_be_one
from sregistry.results import receipts
from sregistry.results.paths import IMAGE, Results
from sregistry.system import limits

if TYPE_CHECKING:
    from sregistry.catalog.record import Record
    from sregistry.config.settings import Settings
    from sregistry.config.targets import Target
    from sregistry.oci.reference import Reference
    from sregistry.results.resolved import Resolved

_WAYS = "give it another file name (--name, or name:), choose another storage, or replace what is there: --force, or force: yes"
_MOVE = "move it away, give the image another file name (--name, or name:), or choose another storage"


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """What tells an image from all others.

    `tag` is None for one that is asked for by digest; `digests` are those that it is known by, none where nothing tells
    them. `platform` is os/architecture[/variant], and "" where nothing tells it.
    """

    registry: str
    repository: str
    tag: str | None
    digests: frozenset[str]
    platform: str
    format: str

    @classmethod
    def of_target(cls, target: Target) -> Identity:
        """Return what is asked for."""
        return cls.of_reference(target.reference, target.platform, target.format)

    @classmethod
    def of_reference(cls, reference: Reference, platform: Platform, format: str) -> Identity:
        """Return what is asked for. The variant of the platform is the registry's to choose: it does not count yet."""
        tag = None if reference.digest else reference.tag
        asked = f"{platform.os}/{platform.architecture}"
        return cls.of(reference.registry, reference.repository, tag, [reference.digest], asked, format)

    @classmethod
    def of_resolved(cls, resolved: Resolved, format: str) -> Identity:
        """Return what a reference means."""
        tag = None if "@" in resolved.uri else resolved.tag
        digests = [resolved.digest, resolved.named if resolved.documents else None]
        return cls.of(resolved.registry, resolved.reference.repository, tag, digests, str(resolved.platform), format)

    @classmethod
    def of_record(cls, record: Record) -> Identity:
        """Return what is on record: where it is from, whatever it is called by now."""
        tag, digest = record.origin
        return cls.of(record.registry, record.repository, tag, [digest, record.digest], record.platform, record.format)

    @classmethod
    def of(cls, registry: str, repository: str, tag: str | None, digests: Iterable[object], platform: str, format: str) -> Identity:
        """Return an identity; a registry's other names are its first one."""
        return cls(
            registry=canonical(registry),
            repository=repository,
            tag=tag,
            digests=frozenset(str(digest) for digest in digests if digest),
            platform=platform,
            format=format,
        )

    def is_same(self, other: Identity) -> bool:
        """Tell whether what is wanted, *self*, is the image *other* or what its tag means now."""
        if (self.registry, self.repository, self.format) != (other.registry, other.repository, other.format):
            return False
        if not may_be_one(self.platform, other.platform):
            return False
        if self.tag and other.tag:
            return self.tag == other.tag
        return bool(self.tag) or not (self.digests and other.digests) or bool(self.digests & other.digests)

    def __str__(self) -> str:
        name = f"{self.registry}/{self.repository}"
        named = f"{name}:{self.tag}" if self.tag else f"{name}@{min(self.digests, default='?')}"
        return f"{named} ({', '.join(filter(None, (self.platform, self.format)))})"


def refusal(
    path: Path, wanted: Identity, records: Callable[[], Sequence[Record]], environ: Mapping[str, str], *, force: bool
) -> ImageError | None:
    """Return why an image must not take the name *path*, None if it may.

    Args:
        wanted: the image.
        records: returns the catalog's records; called only if something is there.
        environ: says what a name in an image's own labels means.
        force: it may take another image's place, or that of a file that nothing is known of.
    """
    if not os.path.lexists(path):
        return None
    if path.is_dir() and not path.is_symlink() and not provenance.is_sandbox(path):
        if wanted.format == "sandbox" and _is_empty(path):
            return None
        return ImageError(f"{path} is a directory and no image", hint=_MOVE)
    if force:
        return None
    held = holds(path, records(), environ)
    if held is None:
        if path.is_symlink():
            return None
        return ImageError(f"{path} is there, and nothing tells which image it is, so {wanted} does not replace it", hint=_WAYS)
    if any(wanted.is_same(identity) for identity in held):
        return None
    return ImageError(f"{path} holds {held[0]}, not {wanted}", hint=_WAYS)


def refusals(targets: Iterable[Target], settings: Settings, environ: Mapping[str, str], results: Results) -> dict[str, ImageError]:
    """Return target's key → why it must not be made, for those that must not; the stages see to what is known only later.

    Args:
        settings: tell where the catalog is.
        environ: as for `refusal`.
        results: a file that a receipt there vouches for is the image.

    Raises:
        CatalogError: the catalog can't be read.
    """
    records = functools.cache(_records(settings.database, settings.disable))
    found = {}
    for target in targets:
        if os.path.lexists(target.path) and not receipts.vouches(results.at(IMAGE, image=target.key), target.path):
            error = refusal(target.path, Identity.of_target(target), records, environ, force=settings.force)
            if error is not None:
                found[target.key] = error
    return found


def _records(database: Path, disable: bool) -> Callable[[], Sequence[Record]]:
    from sregistry.catalog.catalog import Catalog

    return (lambda: ()) if disable else Catalog(database).records


def holds(path: Path, records: Iterable[Record], environ: Mapping[str, str]) -> list[Identity] | None:
    """Return which image a file or a sandbox is, several where one has several origins on record; None where nothing tells."""
    said: provenance.Said | None = None
    with contextlib.suppress(SregistryError):
        said = provenance.read(path)
    place = _place(path)
    kept = [record for record in records if record.image and Path(record.image).name == path.name and _place(Path(record.image)) == place]
    if said is None or not said.sound:
        # Cut, damaged or overwritten: what says nothing of itself counts as what was recorded, which is to be made again.
        return [Identity.of_record(record) for record in kept if record.registry and path.is_file()] or None
    found = [Identity.of_record(record) for record in kept if record.registry and is_still(record, path)]
    if said.format == "sandbox" or not found:
        own = _said(said, environ)
        # A sandbox is no bytes to compare: what it says goes before what was recorded.
        found = [own] if own is not None else found
    return found or None


def is_still(record: Record, path: Path) -> bool:
    """Tell whether a file has the bytes that were recorded: the size counts, and of a small one the SHA-256."""
    if record.format == "sandbox":
        return provenance.is_sandbox(path)
    try:
        size = path.stat().st_size
        if size != record.size:
            return False
        return size > limits.HASHED_FILE or len(record.version) != 64 or provenance.digest(path) == record.version
    except OSError:
        return False


def canonical(registry: str) -> str:
    """Return the first name of a registry: docker.io and index.docker.io are registry-1.docker.io."""
    return next((row.base for row in rows().values() if registry in row.names), registry)


def _said(said: provenance.Said, environ: Mapping[str, str]) -> Identity | None:
    from sregistry.config.targets import locate

    if not said.source:
        return None
    with contextlib.suppress(SregistryError):
        _, reference = locate(said.source, "docker", environ)
        platform = f"linux/{said.architecture}" if said.architecture else ""
        tag = None if reference.digest else reference.tag
        return Identity.of(reference.registry, reference.repository, tag, [reference.digest], platform, said.format)
    return None


def _place(path: Path) -> str:
    """Return a path by which files are compared: their folder may have several names."""
    return os.path.join(os.path.realpath(path.parent), path.name)


def _is_empty(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return False
