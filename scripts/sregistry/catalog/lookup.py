"""Which image on record a name means: for every verb what it means to `pull`.

```
a path: / ./ ../ ~      ─▶ the records of that file
uri@version             ─▶ that build
else as `pull` reads it ─▶ registry, repository, tag or digest; then, of several, the one that `pull` would make
```

Of several records with the name, those count that agree in most, in this order: the registry, a local file rather
than an address, the platform and the format of the settings. What is still several images is told, and nothing is
done. One image in several places: where it is only looked at, a file that exists goes before one that is gone, then the
newest; else the file that `pull` would write is meant.

A name that was given here (`add`, `rename`, `tag`) is in no registry: it counts as of the one that the text means. A
text without a registry, of which the registry that it means has nothing, may still be looked at where it is the name of
one image elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sregistry.catalog.catalog import Catalog
from sregistry.catalog.occupant import canonical
from sregistry.catalog.record import Record
from sregistry.config.filename import FORMATS
from sregistry.config.options import platform
from sregistry.config.settings import Settings, clients
from sregistry.config.targets import locate
from sregistry.errors import CatalogError, ConfigError, InvalidReference, UsageError
from sregistry.oci.platforms import Platform, may_be_one
from sregistry.oci.reference import Reference, split_scheme
from sregistry.system import logs

_PATH = re.compile(r"(/|\./|\.\./|~)")
_VERSION = re.compile(r"(?P<name>.+)@(?P<version>[0-9a-f]{32}|[0-9a-f]{64})")
_HINT = "`sregistry images` lists them"
#: Candidates that an error names.
_SHOWN = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Lookup:
    """What names mean to one user.

    `platform` and `format` are asked for; those of the settings only decide between several.
    """

    catalog: Catalog
    settings: Settings
    environ: Mapping[str, str]
    platform: Platform | None = None
    format: str | None = None

    @classmethod
    def of(
        cls, catalog: Catalog, settings: Settings, environ: Mapping[str, str], *, platform_: str | None = None, format_: str | None = None
    ) -> Lookup:
        """Return a lookup of records for a platform or a format. Raises ConfigError: such is unknown."""
        if format_ is not None and format_ not in FORMATS:
            raise ConfigError(f"format: {format_!r} is unknown", hint="one of " + ", ".join(FORMATS))
        wanted = platform(platform_, "platform") if platform_ else None
        return cls(catalog=catalog, settings=settings, environ=environ, platform=wanted, format=format_)

    def find(self, text: str, *, change: bool = False) -> Record:
        """Return the record that *text* means.

        Args:
            text: a name as `pull` takes it or `images` prints it, or the path of a file.
            change: the image is not only looked at: one of another registry than `pull` would ask is not meant.

        Raises:
            CatalogError: there is none, or several, which are listed.
            InvalidReference: the text names no image.
        """
        named = self._named(text.strip())
        found = [record for record in named.records if self._asked(record)]
        if not found:
            raise self._none(text, [*named.records, *named.elsewhere])
        if named.elsewhere:
            if change:
                raise CatalogError(f"{text}: no such image of {named.registry} in {self.catalog.path}; {_listed(found, 'there is')}")
            if len({_origin(record) for record in found}) > 1:
                raise _several(text, found)
        for prefers in self._preferences(named.reference if change else None):
            found = [record for record in found if prefers(record)] or found
        if len(found) > 1 and (change or len({_kind(record) for record in found}) > 1):
            raise _several(text, found)
        if named.elsewhere:
            logs.logger().warning("%s: nothing of %s is on record; this is %s", text, named.registry, _name(found[-1]))
        there = [record for record in found if record.image is None or os.path.lexists(record.image)]
        return (there or found)[-1]

    def _named(self, text: str) -> _Named:
        """Return the records with a name, oldest first, and what the name is for `pull`."""
        records = self.catalog.records()
        if _PATH.match(text):
            place = os.path.abspath(os.path.expanduser(text))
            real = os.path.join(os.path.realpath(os.path.dirname(place)), os.path.basename(place))
            return _Named([record for record in records if record.image in (place, real)])
        name, version = text, None
        if match := _VERSION.fullmatch(text):
            name, version = match["name"], match["version"]
            records = [record for record in records if record.version.startswith(match["version"])]
        scheme, rest = split_scheme(name)
        try:
            owner, reference = locate(name, self.settings.client, self.environ)
        except UsageError:
            # A client that only records have, such as one of the original's, or one without a registry of its own.
            if scheme is None or (not any(record.client == scheme for record in records) and scheme not in clients()):
                raise
            reference = Reference.parse(rest, registry="", collection="")
            return _Named([record for record in records if record.client == scheme and _is_called(record, reference)])
        registry = canonical(reference.registry)
        explicit = scheme is not None or _has_host(rest)
        mine = [record for record in records if _is_called(record, reference) and _is_of(record, registry, owner.client, explicit)]
        if mine or explicit:
            return _Named(mine, reference=reference, registry=registry)
        called = [record for record in records if record.uri == rest or _is_called(record, reference)]
        # A build is told by its bytes, wherever it is from.
        return _Named(called, reference=reference, registry=registry, elsewhere=[] if version else called)

    def _asked(self, record: Record) -> bool:
        """Whether a record is of the platform and the format that are asked for."""
        return (self.format in (None, record.format)) and (self.platform is None or may_be_one(record.platform, str(self.platform)))

    def _preferences(self, reference: Reference | None) -> Sequence[Callable[[Record], bool]]:
        """Return what tells the image that `pull` would make from others of its name, what weighs most first.

        Without a reference, where its file is does not count.
        """
        wanted, form = self.platform or self.settings.platform, self.format or self.settings.format
        return (
            lambda record: record.image is not None,
            lambda record: may_be_one(record.platform, str(wanted)) and record.format in ("", form),
            lambda record: reference is None or record.image == str(self._place(record, reference)),
        )

    def _place(self, record: Record, reference: Reference) -> Path:
        settings = self.settings
        wanted, form = settings.platform, record.format or settings.format
        with contextlib.suppress(ConfigError):
            wanted = Platform.parse(record.platform or str(wanted))
        return settings.storage / settings.filename.name(reference, client=record.client, platform=wanted, format=form)

    def _none(self, text: str, others: Sequence[Record]) -> CatalogError:
        asked = ", ".join(filter(None, (str(self.platform or ""), self.format or "")))
        if asked and others:
            return CatalogError(f"{text}: no such image for {asked} in {self.catalog.path}; {_listed(others, 'there is')}")
        return CatalogError(f"{text}: no such image in {self.catalog.path}", hint=_HINT)


def named(text: str, record: Record, client: str, environ: Mapping[str, str]) -> Reference:
    """Read a name that an image is to get, as *client* means it. Raises UsageError: it says another registry than the image's."""
    owner, reference = locate(text, client, environ)
    scheme, rest = split_scheme(text)
    says = scheme is not None or _has_host(rest)
    if says and record.registry and canonical(record.registry) != canonical(owner.base):
        hint = "leave the registry out of the new name"
        raise UsageError(f"{text!r} is a name at {owner.base}, and {record.uri} is an image of {record.registry}", hint=hint)
    return reference


@dataclass(frozen=True, slots=True)
class _Named:
    """The records with a name, those among them that are of another registry than the name means, and what it means."""

    records: list[Record]
    reference: Reference | None = None
    registry: str = ""
    elsewhere: Sequence[Record] = ()


def _is_called(record: Record, wanted: Reference) -> bool:
    """Whether a record has a name, in whatever registry."""
    repository, _, digest = record.uri.partition("@")
    if wanted.digest:
        return f"{record.collection}/{record.name}".rstrip("/") == wanted.repository and str(wanted.digest) in (record.digest, digest)
    return not digest and repository == f"{wanted.repository}:{wanted.tag}"


def _is_of(record: Record, registry: str, client: str, explicit: bool) -> bool:
    """Whether a record is of a registry, or its name was given here, for the same client or for none in particular."""
    if record.registry and canonical(record.registry) == registry:
        return True
    if not record.registry:
        return record.client == client
    return record.is_renamed and not explicit


def _has_host(text: str) -> bool:
    try:
        return bool(Reference.parse(text, registry="", collection="").registry)
    except InvalidReference:
        return False


def _origin(record: Record) -> tuple[str, str]:
    return canonical(record.registry), record.repository


def _kind(record: Record) -> tuple[object, ...]:
    """What makes two records of one name different images, and not the same in two places."""
    return (*_origin(record), record.platform, record.format)


def _name(record: Record) -> str:
    return f"{record.registry}/{record.uri}" if record.registry else f"{record.client}://{record.uri}"


def _several(text: str, found: Sequence[Record]) -> CatalogError:
    hint = "name the file, or add @ and the version, --platform or --format"
    return CatalogError(f"{text} means several images: {_listed(found)}", hint=hint)


def _listed(found: Sequence[Record], verb: str = "") -> str:
    """Return records as an error names them: registry, uri, platform, format and the digest's first twelve digits."""
    lines = []
    for record in found[:_SHOWN]:
        name = _name(record)
        digest = (record.digest.partition(":")[2] or record.version)[:12]
        lines.append(" ".join(filter(None, (name, record.platform, record.format, digest, record.image and f"at {record.image}"))))
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{verb} {', '.join(lines)}{more}".strip()
