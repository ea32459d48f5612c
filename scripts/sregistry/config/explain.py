"""What is in effect, and where each setting comes from: what `sregistry config` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sregistry.config import secrets_file
from sregistry.config.filename import Template
from sregistry.config.options import DISABLE, DISABLE_CACHE, OPTIONS
from sregistry.config.own_config import load_own
from sregistry.config.registries import OWN, is_own, rows, variable
from sregistry.config.settings import Choice, Origin, Settings, registry, unverified
from sregistry.oci.platforms import Platform
from sregistry.store import trust
from sregistry.system import logs


@dataclass(frozen=True, kw_only=True, slots=True)
class Effective:
    """One setting: a key of the configuration or of a registry, or the name of a variable; *origin* says who set it."""

    name: str
    value: str | int | bool | list[str] | None
    origin: str

    def text(self) -> str:
        """Return the value as the configuration has it."""
        if isinstance(self.value, bool):
            return "yes" if self.value else "no"
        if isinstance(self.value, list):
            return ":".join(self.value) or "-"
        return "-" if self.value is None else str(self.value)


def effective(file: Mapping[str, Any], environ: Mapping[str, str]) -> list[Effective]:
    """Return all settings.

    Args:
        file: keys of the configuration file.
        environ: the process's environment, without the secrets file.

    Raises:
        ConfigError: one of them is wrong.
    """
    known = secrets_file.overlay(environ)
    settings = load_own(known, file)
    origins = _Origins(environ, known)
    return [
        *_configured(settings, Choice({}, file, known), origins),
        *_variables(settings, environ, origins),
        *_registry(settings.client, known, origins),
    ]


@dataclass(frozen=True, slots=True)
class _Origins:
    """Tells the environment from the secrets file."""

    environ: Mapping[str, str]
    known: Mapping[str, str]

    def of(self, *names: str, default: str = Origin.DEFAULT.value) -> str:
        """Say where variables are set; *default* if none of them is."""
        found = []
        for name in names:
            if self.environ.get(name):
                found.append(f"environment {name}")
            elif self.known.get(name):
                found.append(f"{secrets_file.path_of(self.environ)} {name}")
        return ", ".join(found) or default


def _configured(settings: Settings, choice: Choice, origins: _Origins) -> Iterator[Effective]:
    """What the configuration file may have, in its order."""
    values: dict[str, Any] = {f"compression.{key}": value for key, value in settings.compression.words().items()}
    # What a switch does counts, whatever is set; a cache for one run has no name before that.
    switched = {"storage": DISABLE} if settings.disable else {}
    if settings.disable_cache:
        switched["cache"], values["cache"] = DISABLE_CACHE, None
    for key in (option.name for option in OPTIONS if option.is_key):
        found = choice.find(key)
        origin = origins.of(*found.name.split(" and ")) if found.origin is Origin.VARIABLE else found.origin.value
        if key in switched:
            origin = origins.of(switched[key])
        yield Effective(name=key, value=_plain(values[key] if key in values else getattr(settings, key)), origin=origin)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [str(item) for item in value]
    return str(value) if isinstance(value, (Path, Template, Platform)) else value


def _variables(settings: Settings, environ: Mapping[str, str], origins: _Origins) -> Iterator[Effective]:
    """What only a variable sets; those of registries are beside their registry."""
    values: dict[str, Any] = {
        **{option.name: getattr(settings, option.name) for option in OPTIONS if option.read and not option.is_key},
        "trust": tuple(trust.words(settings.trust)),
        "secrets_file": secrets_file.path_of(environ),
        "unverified": unverified(environ),
        "log_level": logs.level(environ).name,
    }
    for option in OPTIONS:
        if option.name in values:
            (name,) = option.variables
            yield Effective(name=name, value=_plain(values[option.name]), origin=origins.of(name))


def _registry(client: str, known: Mapping[str, str], origins: _Origins) -> Iterator[Effective]:
    """The active client's registry, and all further variables that it has, secrets as set or not."""
    row, found = rows()[client], registry(client, known)
    default = str(OWN) if is_own(client) else Origin.DEFAULT.value
    values = {"BASE": found.base or None, "VERSION": found.version, "USERNAME": found.username, "NOHTTPS": not found.https}
    for suffix, value in values.items():
        name = variable(client, suffix)
        yield Effective(name=name, value=value, origin=origins.of(name, default=default))
    yield Effective(name=row.token, value=secrets_file.MASK if found.token else None, origin=origins.of(row.token))
    # The two of the platform are shown: they are one setting above.
    taken = {variable(client, suffix) for suffix in values} | {row.token}
    taken |= {name for option in OPTIONS if option.name != "platform" for name in option.variables}
    for name in secrets_file.variables(row):
        if name not in taken and known.get(name):
            yield Effective(name=name, value=secrets_file.shown(client, name, known[name]), origin=origins.of(name))
