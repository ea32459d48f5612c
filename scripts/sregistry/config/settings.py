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

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

from sregistry.config.filename import DEFAULT as FILENAME
from sregistry.config.filename import FORMATS, Template
from sregistry.config.registries import is_host, owners, rows, variable, withheld
from sregistry.errors import ConfigError, UsageError
from sregistry.layers.compression import Compression
from sregistry.oci.address import is_loopback
from sregistry.oci.documents import Platform
from sregistry.store import trust
from sregistry.system import limits, units
from sregistry.system.logs import warn

#: Builder → the formats it writes. A directory needs no other program.
BUILDERS = {"native": tuple(FORMATS), "mksquashfs": ("sif", "simg"), "singularity": ("sif", "simg")}

#: The switch that turns the check of certificates off.
NOVERIFY = "SREGISTRY_HTTPS_NOVERIFY"
#: No catalog, images go to the current folder. No store of layers that stays.
DISABLE, DISABLE_CACHE = "SREGISTRY_DISABLE", "SINGULARITY_DISABLE_CACHE"
#: The folder of large temporary files, and the file of backends' settings.
TMPDIR, CLIENT_SECRETS = "SREGISTRY_TMPDIR", "SREGISTRY_CLIENT_SECRETS"
#: The file of the folder that a command runs in.
CONFIG = Path("config/config.yaml")

#: The client of any host that has no row in registries.yaml.
ANY = "oci"

#: Configuration key → environment variable. The platform has a pair of them, which is read as one.
VARIABLES = {
    "client": "SREGISTRY_CLIENT",
    "storage": "SREGISTRY_STORAGE",
    "filename": "SREGISTRY_FILENAME",
    "database": "SREGISTRY_DATABASE",
    "cache": "SINGULARITY_CACHEDIR",
    "cache_from": "SREGISTRY_CACHE_FROM",
    "connections": "SREGISTRY_PYTHON_THREADS",
    "docker_cmd": "SREGISTRY_DOCKER_CMD",
}
_PLATFORM = ("SREGISTRY_DOCKER_OS", "SREGISTRY_DOCKER_ARCHITECTURE")

DEFAULTS: dict[str, Any] = {
    "client": "nvidia",
    "platform": None,
    "format": "sif",
    "compression": {"codec": "gzip", "level": "default", "block_size": 131072},
    "builder": "native",
    "storage": "~/.singularity/shub",
    "filename": FILENAME,
    "force": False,
    "database": "~/.singularity",
    "cache": "~/.singularity",
    "cache_from": [],
    "connections": 9,
    "layer_limit": limits.LAYER,
    "refresh": False,
    "locked": None,
    "transfer": None,
    "docker_cmd": False,
}

#: What a folder's name must not have: it could be written in no line, and in no JSON that others read.
_UNTOLD = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_TRUE, _FALSE = ("yes", "true", "t", "1", "y"), ("no", "false", "f", "0", "n", "")


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
        disable = flag(environ.get(DISABLE, ""), DISABLE)
        return cls(
            client=choice.word("client", clients()),
            platform=choice.platform(),
            format=choice.word("format", tuple(FORMATS)),
            compression=choice.compression(),
            builder=choice.word("builder", tuple(BUILDERS)),
            storage=Path.cwd() if disable and not choice.given.get("storage") else choice.folder("storage"),
            filename=choice.template("filename"),
            force=choice.flag("force"),
            database=choice.folder("database"),
            cache=choice.folder("cache"),
            cache_from=choice.folders("cache_from"),
            connections=choice.count("connections"),
            layer_limit=choice.size("layer_limit"),
            refresh=choice.flag("refresh"),
            locked=choice.path("locked"),
            transfer=choice.partition("transfer"),
            docker_cmd=choice.flag("docker_cmd"),
            disable=disable,
            disable_cache=flag(environ.get(DISABLE_CACHE, ""), DISABLE_CACHE),
            tmpdir=folder(environ[TMPDIR], TMPDIR) if environ.get(TMPDIR) else None,
            trust=trust.users(environ.get(trust.VARIABLE, "")),
        )

    @property
    def store(self) -> Path:
        """Root of the store of layers."""
        return store_root(self.cache)


def store_root(cache: Path) -> Path:
    """Return where the store is in the cache folder, as Singularity has it."""
    return cache / "docker"


class Place(Enum):
    """Where a setting stands."""

    COMMAND_LINE = "command line"
    VARIABLE = "variable"
    FILE = str(CONFIG)
    DEFAULT = "default"


class Found(NamedTuple):
    """A setting as it stands there, unchecked; *name* is to blame for it: a key, or a variable."""

    value: Any
    name: str
    place: Place


@dataclass(frozen=True, slots=True)
class Choice:
    """The places a setting can stand in: `find` tells which counts, each other method returns one setting, checked."""

    given: Mapping[str, Any]
    file: Mapping[str, Any]
    environ: Mapping[str, str]

    def find(self, key: str) -> Found:
        """Return the value of *key*, such as `storage` or `compression.level`. Empty values count as unset. Raises ConfigError."""
        variable = " and ".join(name for name in _PLATFORM if self.environ.get(name)) if key == "platform" else VARIABLES.get(key, "")
        for value, name, place in (
            (_walk(self.given, key), key, Place.COMMAND_LINE),
            (self._pair() if key == "platform" else self.environ.get(variable), variable, Place.VARIABLE),
            (_walk(self.file, key), key, Place.FILE),
        ):
            if value is not None and value != "":
                return Found(value, name, place)
        return Found(_walk(DEFAULTS, key), key, Place.DEFAULT)

    def _pair(self) -> str:
        """The platform's two variables are one setting; what is missing in it is the host's."""
        os, architecture = (self.environ.get(name) for name in _PLATFORM)
        host = Platform.host()
        return f"{os or host.os}/{architecture or host.architecture}" if os or architecture else ""

    def word(self, key: str, allowed: tuple[str, ...]) -> str:
        value, name, _ = self.find(key)
        if value not in allowed:
            raise ConfigError(f"{name}: {value!r} is unknown", hint="one of " + ", ".join(allowed))
        return str(value)

    def flag(self, key: str) -> bool:
        value, name, _ = self.find(key)
        return flag(value, name)

    def count(self, key: str, digits: int = 9) -> int:
        value, name, _ = self.find(key)
        number = _integer(value, name, digits)
        if number < 1:
            raise ConfigError(f"{name}: expected a number from 1, got {value}")
        return number

    def size(self, key: str) -> int:
        """Bytes, from 1."""
        value, name, _ = self.find(key)
        try:
            number = units.size(value)
        except UsageError as error:
            raise ConfigError(f"{name}: {error.message}", hint=error.hint) from None
        if number < 1:
            raise ConfigError(f"{name}: expected a size from 1 byte, got {value}")
        return number

    def partition(self, key: str) -> str | None:
        """The name of a partition or queue: one plain word, as it goes into a command line of the scheduler."""
        value, name, _ = self.find(key)
        if value is not None and not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.,@-]*", str(value)):
            raise ConfigError(f"{name}: {value!r} is no name of a partition or queue")
        return None if value is None else str(value)

    def template(self, key: str) -> Template:
        value, name, _ = self.find(key)
        return Template.parse(value, name)

    def folder(self, key: str) -> Path:
        value, name, _ = self.find(key)
        return folder(value, name)

    def path(self, key: str) -> Path | None:
        value, name, _ = self.find(key)
        return None if value is None else folder(value, name)

    def folders(self, key: str) -> tuple[Path, ...]:
        """A list; a variable separates them as PATH does."""
        value, name, _ = self.find(key)
        if isinstance(value, str):
            value = value.split(os.pathsep) if name == VARIABLES[key] else [value]
        return tuple(folder(item, name) for item in value if item)

    def platform(self) -> Platform:
        value, name, _ = self.find("platform")
        return platform(value, name) if value else Platform.host()

    def compression(self) -> Compression:
        """The keys of `compression` are settings of their own: one may be given alone."""
        codec, level, size = (self.find(f"compression.{key}").value for key in ("codec", "level", "block_size"))
        return Compression.parse(codec=str(codec), level=str(level), block_size=_integer(size, "compression.block_size"))


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


def folder(value: object, name: str) -> Path:
    """Return a folder's absolute path. Raises ConfigError that blames *name*."""
    try:
        path = Path.cwd() / Path(str(value)).expanduser()
    except RuntimeError:
        raise ConfigError(f"{name}: {value}: no such home folder") from None
    if _UNTOLD.search(str(path)):
        raise ConfigError(f"{name}: {str(path)!r} is no folder name", hint="choose one in UTF-8, without line ends and control characters")
    return path


def platform(text: str, name: str) -> Platform:
    """Read a platform. Raises ConfigError that blames *name*."""
    try:
        return Platform.parse(text)
    except ConfigError as error:
        raise ConfigError(f"{name}: {text!r} is no platform", hint=error.hint) from None


def flag(value: object, name: str) -> bool:
    """Read a switch: yes, true, t, 1 and y are on, in any case. Raises ConfigError for nonsense."""
    word = str(value).strip().lower()
    if word not in _TRUE + _FALSE:
        raise ConfigError(f"{name}: {str(value)!r} is neither yes nor no", hint="use yes or no")
    return word in _TRUE


def _integer(value: object, name: str, digits: int = 9) -> int:
    if isinstance(value, bool) or not re.fullmatch(rf"\d{{1,{digits}}}", str(value).strip()):
        raise ConfigError(f"{name}: expected a whole number, got {value!r}")
    return int(str(value))


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
    import yaml

    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from error
    try:
        keys = yaml.safe_load(data) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        why = getattr(error, "problem", None) or "characters that are no text"
        raise ConfigError(f"{path}{f':{mark.line + 1}' if mark else ''}: this is no YAML: {why}") from None
    if not isinstance(keys, dict):
        raise ConfigError(f"{path}: expected `key: value` lines")
    return keys
