"""What the user set, where: the command line, the environment, the configuration file, the defaults.

```
--config, --configfile  >  environment  >  secrets file  >  config/config.yaml  >  default
```

`Settings` are the pipeline's, `RegistrySettings` one registry's. A registry is data: its row in
registries.yaml, with ``SREGISTRY_<CLIENT>_…`` on top. The *environ* of all functions here is the
environment with the secrets file beneath it (`secrets.overlay`). A token comes from there only and shows
up nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from sregistry.config.filename import Template
from sregistry.config.options import BY_NAME, DISABLE, NOVERIFY, OPTIONS, PLATFORM, flag
from sregistry.config.registries import owners, rows, variable, withheld
from sregistry.errors import ConfigError
from sregistry.layers.compression import Compression
from sregistry.oci.address import is_loopback
from sregistry.oci.platforms import Platform
from sregistry.oci.reference import is_host
from sregistry.system.logs import warn

#: The file of the folder that a command runs in.
CONFIG = Path("config/config.yaml")

#: The client of any host that has no row in registries.yaml.
ANY = "oci"


@dataclass(frozen=True, kw_only=True)
class RegistrySettings:
    """How to reach one registry; `token` is read from the variable `token_variable`.

    `rate` is in requests a second, None without a limit. `withheld` says why the token is None although there is one.
    """

    client: str
    base: str
    collection: str
    https: bool
    version: str
    username: str | None
    token: str | None = field(repr=False)
    token_variable: str
    verify: bool = True
    rate: float | None = None
    #: Why no token is sent, where there is one.
    withheld: str | None = field(default=None, compare=False)
    #: Whether nothing secret goes to `base`: only a row of the working folder has it asked over plain http.
    exposed: bool = field(default=False, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """The pipeline's settings.

    `filename` makes the names of the images' files; `force` lets an image take the file of another one.
    `disable` means: no catalog, images go to the current folder; `disable_cache`: layers are kept for one run only,
    elsewhere than in `cache`. `tmpdir` is None where nothing is said. `trust` are numbers of users; see `trust.users`.
    """

    client: str
    platform: Platform
    format: str
    compression: Compression
    builder: str
    storage: Path
    filename: Template
    force: bool
    database: Path
    cache: Path
    cache_from: tuple[Path, ...]
    connections: int
    layer_limit: int
    refresh: bool
    locked: Path | None
    transfer: str | None
    docker_cmd: bool
    disable: bool
    disable_cache: bool
    tmpdir: Path | None
    trust: frozenset[int] | None = frozenset()

    @classmethod
    def load(cls, *, given: Mapping[str, Any] | None = None, file: Mapping[str, Any] | None = None, environ: Mapping[str, str]) -> Settings:
        """Choose each setting from where it weighs most.

        Args:
            given: keys of the command line.
            file: keys of the configuration file.
            environ: the process's environment, with the secrets file beneath it.

        Raises:
            ConfigError: a bad value; the message names its key or variable.
        """
        choice = Choice(given or {}, file or {}, environ)
        read: dict[str, Any] = {"disable": flag(environ.get(DISABLE, ""), DISABLE)}
        for option in OPTIONS:
            if option.read and not (option.name == "storage" and read["disable"] and not choice.given.get("storage")):
                found = choice.find(option.name)
                read[option.name] = None if found.value is None else option.read(found.value, found.name)
        # Its keys are settings of their own: one may be given alone.
        compression = Compression.parse(**{key: read.pop(f"compression.{key}") for key in ("codec", "level", "block_size")})
        return cls(**{"storage": Path.cwd(), **read, "platform": read["platform"] or Platform.host(), "compression": compression})

    @property
    def store(self) -> Path:
        """Root of the store of layers."""
        return store_root(self.cache)


def store_root(cache: Path) -> Path:
    """Return where the store is in the cache folder, as Singularity has it."""
    return cache / "docker"


class Origin(Enum):
    """Where a setting stands."""

    COMMAND_LINE = "command line"
    VARIABLE = "variable"
    FILE = str(CONFIG)
    DEFAULT = "default"


class Found(NamedTuple):
    """A setting as it stands there, unchecked; *name* is to blame for it: a key, or a variable."""

    value: Any
    name: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Choice:
    """The places that a setting can stand in; `find` chooses the one that counts."""

    given: Mapping[str, Any]
    file: Mapping[str, Any]
    environ: Mapping[str, str]

    def find(self, name: str) -> Found:
        """Return the value of an option, such as `storage` or `compression.level`. Empty values count as unset. Raises ConfigError."""
        option = BY_NAME[name]
        set_here = [variable for variable in option.variables if self.environ.get(variable)]
        variable = " and ".join(set_here)
        for value, blamed, origin in (
            (_walk(self.given, name) if option.is_key else None, name, Origin.COMMAND_LINE),
            (self._platform() if set_here and name == "platform" else self.environ.get(variable), variable, Origin.VARIABLE),
            (_walk(self.file, name) if option.is_key else None, name, Origin.FILE),
        ):
            if value is not None and value != "":
                return Found(value, blamed, origin)
        return Found(option.default, name, Origin.DEFAULT)

    def _platform(self) -> str:
        """Return the platform that its two variables say; what one of them does not say is the host's."""
        os, architecture = (self.environ.get(name) for name in PLATFORM)
        host = Platform.host()
        return f"{os or host.os}/{architecture or host.architecture}"


def _walk(table: Mapping[str, Any], key: str) -> Any:
    """Return what a dotted key stands for; None where there is nothing. Raises ConfigError: a table is none."""
    value: Any = table
    for part in key.split("."):
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key.rpartition('.')[0]}: expected a table")
        value = value.get(part)
    return value


def registry(client: str, environ: Mapping[str, str], *, fallback: str = "") -> RegistrySettings:
    """Return how to reach the registry of *client*.

    Args:
        client: a row of registries.yaml.
        environ: ``SREGISTRY_<CLIENT>_BASE``, ``…_NOHTTPS``, ``…_VERSION``, ``…_USERNAME`` and the
            token's variable go before the row.
        fallback: host[:port] that a reference names; it counts for a client of any host.

    Raises:
        ConfigError: an unknown client, or a variable with a bad value.
    """
    known = rows()
    if client not in known:
        raise ConfigError(f"client {client!r} is unknown", hint="one of " + ", ".join(known))
    row = known[client]
    own = _host(environ.get(variable(client, "BASE")) or row.base, variable(client, "BASE"))
    base = own if row.base or not fallback else fallback
    # The token of a client of any host is for the host that _BASE names, not for whatever a reference does.
    token = (environ.get(row.token) or "").strip() or None if base == own else None
    kept = withheld(row, own, environ) if token else None
    if kept:
        warn(kept)
        token = None
    if token and not (token.isascii() and token.isprintable()):
        raise ConfigError(f"{row.token}: holds characters that no token has", hint="export it again, without blanks or line ends")
    username = environ.get(variable(client, "USERNAME")) or row.username
    if username and (not username.isprintable() or ":" in username):
        raise ConfigError(f"{variable(client, 'USERNAME')}: holds characters that no user name has", hint="export it again")
    version = environ.get(variable(client, "VERSION")) or row.version
    if not re.fullmatch(r"[A-Za-z0-9._-]+", version):
        raise ConfigError(f"{variable(client, 'VERSION')}: {version!r} is no version", hint="such as v2")
    switch = environ.get(variable(client, "NOHTTPS")) or ""
    https = not flag(switch, variable(client, "NOHTTPS")) if switch else row.https
    return RegistrySettings(
        client=client,
        base=_host(base, variable(client, "BASE")),
        collection=row.collection,
        https=https,
        version=version,
        username=username,
        token=token,
        token_variable=row.token,
        verify=not unverified(environ),
        rate=row.rate,
        withheld=kept,
        exposed=row.own and not https and not switch and not is_loopback(f"//{base}"),
    )


#: What is said wherever it is off.
UNVERIFIED = f"{NOVERIFY}: certificates are not checked: whoever is on the way can read the token and send other manifests"


def unverified(environ: Mapping[str, str]) -> bool:
    """Tell whether certificates are not to be checked. Raises ConfigError."""
    return flag(environ.get(NOVERIFY, ""), NOVERIFY)


def _host(base: str, name: str) -> str:
    """Check host[:port]. Raises ConfigError that blames *name*."""
    if base and not is_host(base):
        raise ConfigError(f"{name}: {base!r} is no host", hint="write host or host:port, without https:// and path")
    return base


def clients() -> tuple[str, ...]:
    """Return the names of the known clients."""
    return tuple(rows())


def client_of(host: str, environ: Mapping[str, str]) -> str:
    """Return the client whose registry is *host*, else `ANY`: a token goes to no other host than its own."""
    for row in owners(host, environ):
        if host == row.base and (environ.get(variable(row.client, "BASE")) or host) != host:
            continue  # this client is elsewhere now, and so is its token
        return row.client
    return ANY


def from_file(path: Path = CONFIG) -> dict[str, Any]:
    """Return the keys of the configuration file, none if there is no file. Raises ConfigError: no YAML, with file and line."""
    from sregistry.config.yaml_lines import read_yaml

    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from error
    keys = read_yaml(data, path) or {}
    if not isinstance(keys, dict):
        raise ConfigError(f"{path}: expected `key: value` lines")
    return keys
