"""What the user asked for, one Target an image: where it comes from and which file it becomes.

```
Entry {uri, name, platform, format, compression} ─▶ Target ─▶ <storage>/<name, or by the template filename>
                                                     └ key: results/<key>/…
```
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sregistry.config.filename import FORMATS, checked, ended
from sregistry.config.options import BUILDERS, platform
from sregistry.config.requested import Entry
from sregistry.config.settings import RegistrySettings, Settings, client_of, clients, registry
from sregistry.errors import ConfigError, InvalidReference, UsageError, refuse
from sregistry.layers.compression import Compression
from sregistry.oci.documents import Digest, Platform
from sregistry.oci.reference import Reference, split_scheme


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One image to be made; `locked` is what its tag is to mean, whatever the registry says."""

    client: str
    reference: Reference
    platform: Platform
    format: str
    compression: Compression
    path: Path
    key: str
    locked: Digest | None = None
    entry: Entry = field(compare=False, repr=False)

    @property
    def uri(self) -> str:
        """The reference with its registry, which leaves nothing to defaults."""
        tag = f":{self.reference.tag}" if self.reference.tag else ""
        digest = f"@{self.reference.digest}" if self.reference.digest else ""
        return f"{self.reference.registry}/{self.reference.repository}{tag}{digest}"


def locate(text: str, client: str, environ: Mapping[str, str]) -> tuple[RegistrySettings, Reference]:
    """Return the registry and the reference in it that *text* means.

    Args:
        text: with or without a scheme, which names the client, and a registry.
        client: whose registry and collection are meant when the text says nothing.
        environ: may name other hosts for the clients.

    Raises:
        InvalidReference: the text names no image.
        ConfigError: an unknown scheme.
    """
    scheme, rest = split_scheme(text)
    if scheme is not None and scheme not in clients():
        raise ConfigError(f"{text!r}: {scheme}:// is unknown", hint="one of " + ", ".join(f"{name}://" for name in clients()))
    settings = registry(scheme or client, environ)
    reference = Reference.parse(rest, registry=settings.base, collection=settings.collection)
    if not reference.registry:
        raise InvalidReference(f"{text!r} names no registry", hint="write host/name:tag")
    if reference.registry != settings.base:
        # Another host than the client's: its own client, and never this one's token.
        host, _, path = rest.partition("/")
        settings = registry(client_of(host, environ), environ, fallback=host)
        reference = Reference.parse(f"{settings.base}/{path}", registry=settings.base, collection=settings.collection)
    return settings, reference


def targets(
    entries: Iterable[Entry],
    settings: Settings,
    environ: Mapping[str, str],
    *,
    blame: Callable[[UsageError, Entry], UsageError] | None = None,
) -> list[Target]:
    """Return the targets of *entries*; equal ones once.

    Args:
        entries: those without `tags`.
        blame: tells, in an error, where the entry stands.

    Raises:
        ConfigError: two different images would become one file; or a bad value, and the message begins with its option.
        InvalidReference: an entry that names no image.
        Mistakes: several of these.
    """
    found: dict[Path, Target] = {}
    mistakes: list[UsageError] = []
    for entry in entries:
        try:
            target = _target(entry, settings, environ)
            other = found.setdefault(target.path, target)
            if other.key != target.key:
                raise ConfigError(
                    f"{_describe(other)} and {_describe(target)} would both become {target.path}", hint="give one of them another name"
                )
        except UsageError as error:
            mistakes.append(blame(error, entry) if blame else error)
    refuse(mistakes)
    return list(found.values())


def _target(entry: Entry, settings: Settings, environ: Mapping[str, str]) -> Target:
    owner, reference = locate(entry.uri, settings.client, environ)
    if reference.version:
        raise InvalidReference(f"{entry.uri!r} names one build of an image, which no registry has", hint="leave out what follows '@'")
    options = entry.options
    if "newest" in options:
        raise ConfigError("newest: is for an entry with `tags` only", hint="add tags: '*', or leave it out")
    wanted = platform(options["platform"], "platform") if options.get("platform") else settings.platform
    form = options.get("format") or settings.format
    if form not in FORMATS:
        raise ConfigError(f"format: {form!r} is unknown", hint="one of " + ", ".join(FORMATS))
    if form not in BUILDERS[settings.builder]:
        written = " and ".join(BUILDERS[settings.builder])
        raise ConfigError(f"format: {form}: builder: {settings.builder} writes {written} only", hint="choose builder: native for it")
    compression = settings.compression.changed(options.get("compression") or {})
    if options.get("name"):
        name = checked(ended(options["name"], form), settings.storage, "name", options["name"])
    else:
        made = settings.filename.name(reference, client=owner.client, platform=wanted, format=form)
        name = checked(made, settings.storage, str(reference))
    decides = [str(reference), str(wanted), form, name, compression.variant, settings.builder, settings.docker_cmd]
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", reference.uri)[:80]
    return Target(
        client=owner.client,
        reference=reference,
        platform=wanted,
        format=form,
        compression=compression,
        path=settings.storage / name,
        key=f"{slug}-{hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:8]}",
        entry=entry,
    )


def _describe(target: Target) -> str:
    return f"{target.uri} ({target.platform}, {target.format})"
