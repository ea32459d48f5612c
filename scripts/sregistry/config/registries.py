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
from sregistry.config.schema_check import check
from sregistry.config.yaml_lines import Marks, read_yaml, shown
from sregistry.errors import ConfigError, refuse

#: A registries.yaml of one's own, seen from the working folder.
OWN = Path("config/registries.yaml")
#: Prefixes of the variables USERNAME and PASSWORD of other tools.
PAIRS = ("APPTAINER_DOCKER_", "SINGULARITY_DOCKER_", "DOCKER_")
#: Further variables whose values rows of the working folder may have sent, with commas between them.
TOKEN_VARIABLES = "SREGISTRY_TOKEN_VARIABLES"  # noqa: S105 -- a name

_HOST = {"title": "host or host:port, without https:// and path", "type": "string", "format": "host"}


def _text(title: str, pattern: str, **more: Any) -> dict[str, Any]:
    return {"title": title, "type": ["string", "null"], "pattern": rf"^(?:{pattern})\Z", **more}


#: What a registries.yaml may hold, as a JSON schema; a key without a value is as one that is not there.
_SCHEMA: dict[str, Any] = {
    "title": "a table of registries",
    "type": ["object", "null"],
    "propertyNames": {**_text("a name of lower-case letters, digits and '-'", r"[a-z][a-z0-9-]*"), "type": "string"},
    "additionalProperties": {
        "title": "`key: value` lines, or {}",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "base": {**_HOST, "type": ["string", "null"]},
            "aliases": {"title": "a list of hosts", "type": ["array", "null"], "items": _HOST},
            "collection": _text("the first part of a repository", r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"),
            "version": _text("a version such as v2", r"[A-Za-z0-9._-]+"),
            "username": _text("a user name", r"[^:\x00-\x1f\x7f]+"),
            # Upper case only: a token that stands here by mistake is hardly ever such a name.
            "token": _text("the name of an environment variable, in upper case", r"[A-Z_][A-Z0-9_]*", writeOnly=True),
            "https": {"title": "yes or no", "type": ["boolean", "null"]},
            "rate": {"title": "requests a second, a number above 0", "type": ["number", "null"], "exclusiveMinimum": 0, "format": "finite"},
        },
    },
}


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
    def of(cls, client: str, keys: Mapping[str, Any], own: bool = False) -> Row:
        """Return the row of keys that were checked."""
        fields: dict[str, Any] = {"token": variable(client, "TOKEN"), **{key: value for key, value in keys.items() if value is not None}}
        return cls(client=client, own=own, **{**fields, "aliases": tuple(fields.get("aliases", ()))})


def variable(client: str, name: str) -> str:
    """Return the environment variable ``SREGISTRY_<CLIENT>_<NAME>``."""
    return f"SREGISTRY_{client.upper().replace('-', '_')}_{name}"


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
    table = read_yaml(data, path)
    refuse(check(table, _SCHEMA, Marks([path], table or {}), nowhere=shown(path)))
    return {client: Row.of(client, keys, own) for client, keys in (table or {}).items()}


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what other people's programs may know of an environment: nothing of our own, and no password."""
    withheld = {f"{prefix}PASSWORD" for prefix in PAIRS} | {row.token for row in (*packaged().values(), *rows().values())}
    return {name: value for name, value in environ.items() if not name.startswith("SREGISTRY_") and name not in withheld}
