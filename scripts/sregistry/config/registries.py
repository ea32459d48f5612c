"""The registries that have a name: rows of registries.yaml, checked.

```
the package's registries.yaml  <  config/registries.yaml of the working folder   (a row replaces a row)
└ client: {base, aliases, collection, version, username, token, https, rate}
```

A row of the working folder says how a registry is reached, and no more: a folder that was cloned is its author's. So a token
that is kept for a registry of the package stays with that one's hosts, and no row has a variable sent that is no token: `withheld`.
What else may be is for the environment or the secrets file to say, which only the user writes.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sregistry.config.ownership import read_own
from sregistry.errors import ConfigError, InvalidReference
from sregistry.oci.reference import Reference

#: A registries.yaml of one's own, seen from the working folder.
OWN = Path("config/registries.yaml")
#: Prefixes of the variables USERNAME and PASSWORD of other tools.
PAIRS = ("APPTAINER_DOCKER_", "SINGULARITY_DOCKER_", "DOCKER_")
#: Further variables whose values rows of the working folder may have sent, with commas between them.
TOKEN_VARIABLES = "SREGISTRY_TOKEN_VARIABLES"  # noqa: S105 -- a name

_NAME = re.compile(r"[a-z][a-z0-9-]*")
_VERSION = re.compile(r"[A-Za-z0-9._-]+")
_COLLECTION = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
# Upper case only: a token that stands here by mistake is hardly ever such a name.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One registry; base is "" for any host that a reference names. `own`: it is the working folder's."""

    client: str
    base: str = ""
    aliases: tuple[str, ...] = ()
    collection: str = ""
    version: str = "v2"
    username: str | None = None
    token: str
    https: bool = True
    rate: float | None = None
    own: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """All hosts that are this registry."""
        return (self.base, *self.aliases) if self.base else ()

    @classmethod
    def parse(cls, client: object, value: object, file: Path, own: bool = False) -> Row:
        """Check one row. Raises ConfigError that names file, row and key."""
        if not isinstance(client, str) or not _NAME.fullmatch(client):
            raise ConfigError(f"{file}: {str(client)[:40]!r} is no name of a client", hint="use lower-case letters, digits and '-'")
        if not isinstance(value, dict):
            raise ConfigError(f"{file}: {client}: expected `key: value` lines", hint=f"write {client}: {{}} for a row without keys")
        for key in value:
            if key not in _KEYS:
                raise ConfigError(f"{file}: {client}: unknown key {str(key)[:40]!r}", hint="known keys: " + ", ".join(_KEYS))
        fields = {}
        for key, (check, expected) in _KEYS.items():
            if value.get(key) is not None:
                fields[key] = check(value[key])
                if fields[key] is None:
                    # The value of `token` may be one.
                    got = "" if key == "token" else f", got {str(value[key])[:60]!r}"
                    raise ConfigError(f"{file}: {client}.{key}: expected {expected}{got}")
        return cls(client=client, own=own, **{"token": variable(client, "TOKEN"), **fields})


def variable(client: str, name: str) -> str:
    """Return the environment variable ``SREGISTRY_<CLIENT>_<NAME>``."""
    return f"SREGISTRY_{client.upper().replace('-', '_')}_{name}"


def is_host(text: str) -> bool:
    """Tell whether *text* is host[:port]: the reference grammar's judgement, so that both agree."""
    try:
        return "/" not in text and Reference.parse(f"{text}/a/b", registry=text, collection="").registry == text
    except InvalidReference:
        return False


def packaged() -> Mapping[str, Row]:
    """Return client → row of the package. Raises ConfigError, as `rows`."""
    file = _package_file()
    try:
        return _read(file, file.read_bytes(), False)
    except OSError as error:
        raise ConfigError(f"can't read {file}: {error.strerror}", hint="restore that file") from error


def rows() -> Mapping[str, Row]:
    """Return client → row; the working folder's go before the package's. Raises ConfigError: a file that can't be read, or a bad row."""
    data = own_file()
    return packaged() if data is None else {**packaged(), **_read(Path.cwd() / OWN, data, True)}


def own_file() -> bytes | None:
    """Return the working folder's file; None if there is none, or if others could have written it. Raises ConfigError."""
    with contextlib.suppress(OSError):
        if OWN.samefile(_package_file()):  # in a clone of the repository
            return None
    return read_own(OWN)


def is_own(client: str) -> bool:
    """Tell whether a client's row is the working folder's. Raises ConfigError, as `rows`."""
    row = rows().get(client)
    return row is not None and row.own


def withheld(row: Row, base: str, environ: Mapping[str, str]) -> str | None:
    """Return why the token of *row* is not sent to *base*, and what to do; None where it is.

    Args:
        base: the registry's host, by the row or by its variable.
        environ: the user's own word: ``SREGISTRY_<CLIENT>_BASE`` has a token of the package's client go to another host, and
            SREGISTRY_TOKEN_VARIABLES names further variables that rows may name.
    """
    if not row.own:
        return None
    if row.token != variable(row.client, "TOKEN") and row.token not in re.split(r"[\s,:]+", environ.get(TOKEN_VARIABLES, "")):
        allowed = f"name {variable(row.client, 'TOKEN')} there, or export {TOKEN_VARIABLES}={row.token}"
        return f"{row.token} is not sent to {base}: only {OWN} says that it is a token for it; {allowed}"
    known, said = packaged().get(row.client), variable(row.client, "BASE")
    if known is not None and base not in known.names and base != environ.get(said):
        return f"{row.token} is not sent to {base}: only {OWN} says that it is for this host; export {said}={base}"
    return None


def owners(host: str, environ: Mapping[str, str]) -> list[Row]:
    """Return the rows whose registry is *host*, by their own names or by a variable."""
    return [row for row in rows().values() if host in row.names or host == environ.get(variable(row.client, "BASE"))]


def _package_file() -> Path:
    here = Path(__file__).parents[1]
    # In the package in a wheel; in the repository, which an editable install points to, beside it.
    folder = next((f for f in (here / "data" / "config", here.parents[1] / "config") if f.is_dir()), here)
    return folder / "registries.yaml"


@functools.lru_cache(maxsize=8)
def _read(path: Path, data: bytes, own: bool) -> Mapping[str, Row]:
    """Read a file's content, once while it stays the same."""
    import yaml

    try:
        document = yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(f"{path}: this is no YAML" + (f", line {mark.line + 1}" if mark else "")) from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a table of registries")
    return {client: Row.parse(client, value, path, own) for client, value in document.items()}


def _word(pattern: re.Pattern[str]) -> Any:
    return lambda value: value if isinstance(value, str) and pattern.fullmatch(value) else None


def _host(value: object) -> str | None:
    return value if isinstance(value, str) and is_host(value) else None


def _hosts(value: object) -> tuple[str, ...] | None:
    return tuple(value) if isinstance(value, list) and all(_host(item) for item in value) else None


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _rate(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e6 else None


#: Key → how a value is checked (None: it is wrong), and what was expected.
_KEYS: dict[str, tuple[Any, str]] = {
    "base": (_host, "host or host:port, without https:// and path"),
    "aliases": (_hosts, "a list of hosts"),
    "collection": (_word(_COLLECTION), "the first part of a repository"),
    "version": (_word(_VERSION), "a version such as v2"),
    "username": (_word(re.compile(r"[^:\x00-\x1f\x7f]+")), "a user name"),
    "token": (_word(_VARIABLE), "the name of an environment variable, in upper case"),
    "https": (_flag, "yes or no"),
    "rate": (_rate, "requests a second, a number above 0"),
}


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what other people's programs may know of an environment: nothing of our own, and no password."""
    withheld = {f"{prefix}PASSWORD" for prefix in PAIRS} | {row.token for row in (*packaged().values(), *rows().values())}
    return {name: value for name, value in environ.items() if not name.startswith("SREGISTRY_") and name not in withheld}
