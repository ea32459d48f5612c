"""The options: one row each, of which everything else that is said of options is made.

```
row ─┬─▶ Settings.load                           chooses, reads and checks values (config/settings.py)
     ├─▶ sregistry config                        shows what is in effect (config/explain.py)
     ├─▶ workflow/schemas/config.schema.yaml  ┐
     └─▶ config/README.md, "Configuration"    ┘  written by scripts/option_pages.py
```

A reader takes a value as the configuration or a variable has it, and the name that is to blame for it; it returns what it means, or
raises ConfigError.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sregistry.config.filename import DEFAULT, FORMATS, Template
from sregistry.config.registries import TOKEN_VARIABLES, rows
from sregistry.errors import ConfigError, UsageError
from sregistry.layers.compression import LEVELS, Codec
from sregistry.oci.platforms import Platform
from sregistry.store import trust
from sregistry.system import limits, logs, units

#: Builder → the formats it writes. A directory needs no other program.
BUILDERS = {"native": tuple(FORMATS), "mksquashfs": ("sif", "simg"), "singularity": ("sif", "simg")}

#: The switch that turns the check of certificates off.
NOVERIFY = "SREGISTRY_HTTPS_NOVERIFY"
#: No catalog, images go to the current folder. No store of layers that stays.
DISABLE, DISABLE_CACHE = "SREGISTRY_DISABLE", "SINGULARITY_DISABLE_CACHE"
#: The folder of large temporary files, and the file of backends' settings.
TMPDIR, CLIENT_SECRETS = "SREGISTRY_TMPDIR", "SREGISTRY_CLIENT_SECRETS"
#: The platform's variables, which are read as one.
PLATFORM = ("SREGISTRY_DOCKER_OS", "SREGISTRY_DOCKER_ARCHITECTURE")

#: What a folder's name must not have: it could be written in no line, and in no JSON that others read.
_UNTOLD = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")

_TRUE, _FALSE = ("yes", "true", "t", "1", "y"), ("no", "false", "f", "0", "n", "")


def folder(value: object, name: str) -> Path:
    """Return a folder's absolute path."""
    try:
        path = Path.cwd() / Path(str(value)).expanduser()
    except RuntimeError:
        raise ConfigError(f"{name}: {value}: no such home folder") from None
    if _UNTOLD.search(str(path)):
        raise ConfigError(f"{name}: {str(path)!r} is no folder name", hint="choose one in UTF-8, without line ends and control characters")
    return path


def folders(value: Any, name: str) -> tuple[Path, ...]:
    """Read a folder or a list of them; a variable separates them as PATH does."""
    if isinstance(value, str):
        value = value.split(os.pathsep) if name.isupper() else [value]
    return tuple(folder(item, name) for item in value if item)


def flag(value: object, name: str) -> bool:
    """Read a switch: yes, true, t, 1 and y are on, in any case."""
    word = str(value).strip().lower()
    if word not in _TRUE + _FALSE:
        raise ConfigError(f"{name}: {str(value)!r} is neither yes nor no", hint="use yes or no")
    return word in _TRUE


def integer(value: object, name: str) -> int:
    """Read a whole number of up to nine digits."""
    if isinstance(value, bool) or not re.fullmatch(r"\d{1,9}", str(value).strip()):
        raise ConfigError(f"{name}: expected a whole number, got {value!r}")
    return int(str(value))


def count(value: object, name: str) -> int:
    """Read a number from 1."""
    number = integer(value, name)
    if number < 1:
        raise ConfigError(f"{name}: expected a number from 1, got {value}")
    return number


def size(value: object, name: str) -> int:
    """Read bytes, from 1."""
    try:
        number = units.size(value)
    except UsageError as error:
        raise ConfigError(f"{name}: {error.message}", hint=error.hint) from None
    if number < 1:
        raise ConfigError(f"{name}: expected a size from 1 byte, got {value}")
    return number


def platform(value: str, name: str) -> Platform:
    """Read a platform."""
    try:
        return Platform.parse(value)
    except ConfigError as error:
        raise ConfigError(f"{name}: {value!r} is no platform", hint=error.hint) from None


def partition(value: object, name: str) -> str:
    """Read the name of a partition or queue: one plain word, as it goes into a command line of the scheduler."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.,@-]*", str(value)):
        raise ConfigError(f"{name}: {value!r} is no name of a partition or queue")
    return str(value)


def word(value: object, name: str, allowed: Collection[str]) -> str:
    """Read one of some words."""
    if value not in allowed:
        raise ConfigError(f"{name}: {value!r} is unknown", hint="one of " + ", ".join(allowed))
    return str(value)


def text(value: object, _: str) -> str:
    """Take any text."""
    return str(value)


#: The JSON schema of a value as the configuration has it. What stands inside a key arrives as text from the command line.
_TEXT = {"type": ["string", "null"]}
_FLAG = {"type": ["boolean", "string", "integer"]}


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """A setting.

    Args:
        name: of the field of Settings; of an option that the configuration file may have, also its key there, with a dot in a table.
        help: what it is, as a cell of a table in Markdown.
        default: as the configuration would have it; None for what has none, or one that depends on the machine: `otherwise` says it.
        read: what a value means; None: it is no field of Settings, and read by another module.
        schema: of the value in the configuration; None: only the variable sets it.
        variables: of the environment; `separated` says how one holds several values.
        unit: of a number.
        per_image: images and groups may have their own.
    """

    name: str
    help: str
    default: Any = None
    otherwise: str = ""
    read: Callable[[Any, str], Any] | None = None
    schema: Mapping[str, Any] | None = None
    variables: tuple[str, ...] = ()
    separated: str = ""
    unit: str = ""
    per_image: bool = False

    @property
    def is_key(self) -> bool:
        """Whether the configuration file may have it."""
        return self.schema is not None


def _words(name: str, help: str, default: str, allowed: Collection[str], *, per_image: bool = False) -> Option:
    """Return an option that is one of some words."""

    def read(value: object, blamed: str) -> str:
        return word(value, blamed, allowed)

    return Option(name=name, help=help, default=default, read=read, schema={"enum": list(allowed)}, per_image=per_image)


def _switch(name: str, help: str, variable: str = "") -> Option:
    """Return an option that is on or off in the configuration."""
    return Option(name=name, help=help, default=False, read=flag, schema=_FLAG, variables=(variable,) if variable else ())


_CACHE = "~/.singularity"

#: In the order of the configuration file, then those that only a variable sets.
OPTIONS = (
    Option(
        name="client",
        help="a row of `registries.yaml`; a scheme such as `docker://` goes before it",
        default="nvidia",
        read=lambda value, name: word(value, name, rows()),
        schema=_TEXT,
        variables=("SREGISTRY_CLIENT",),
    ),
    Option(
        name="platform",
        help="`os/architecture[/variant]`",
        otherwise="this machine's",
        read=platform,
        schema=_TEXT,
        variables=PLATFORM,
        per_image=True,
    ),
    _words("format", "what an image becomes", "sif", FORMATS, per_image=True),
    Option(
        name="compression.codec",
        help="of the image's data; see [Compression](#compression)",
        default="gzip",
        read=text,
        schema={"enum": [codec.name.lower() for codec in Codec]},
        per_image=True,
    ),
    Option(
        name="compression.level",
        help="`fast` for speed, `small` for size; see [Compression](#compression)",
        default="default",
        read=text,
        schema={"enum": list(LEVELS)},
        per_image=True,
    ),
    Option(
        name="compression.block_size",
        help="of squashfs, a power of two from 65536 to 1048576",
        default=131072,
        unit="bytes",
        read=integer,
        schema={"type": ["integer", "string"]},
        per_image=True,
    ),
    _words("builder", "what writes the image; see [Builders](#builders)", "native", BUILDERS),
    Option(
        name="storage",
        help="folder of the images",
        default=f"{_CACHE}/shub",
        read=folder,
        schema=_TEXT,
        variables=("SREGISTRY_STORAGE",),
    ),
    Option(
        name="filename",
        help="how the images' files are called; see [Files of images](#files-of-images)",
        default=DEFAULT,
        read=Template.parse,
        schema=_TEXT,
        variables=("SREGISTRY_FILENAME",),
    ),
    _switch("force", "yes: an image may take the file of another one"),
    Option(
        name="database",
        help="folder of the catalog",
        default=_CACHE,
        read=folder,
        schema=_TEXT,
        variables=("SREGISTRY_DATABASE",),
    ),
    Option(
        name="cache",
        help="the store of layers is in its folder `docker/`",
        default=_CACHE,
        read=folder,
        schema=_TEXT,
        variables=("SINGULARITY_CACHEDIR",),
    ),
    Option(
        name="cache_from",
        help="a folder or a list: further stores, only read; OCI image layouts and Apptainer's cache, too",
        default=[],
        read=folders,
        schema={"type": ["string", "array", "null"], "items": {"type": "string"}},
        variables=("SREGISTRY_CACHE_FROM",),
        separated="with `:` between",
    ),
    Option(
        name="connections",
        help="connections at a time, of all downloads; a large layer takes several; `--resources network=N` goes before it",
        default=9,
        read=count,
        schema={"type": ["integer", "null"]},
        variables=("SREGISTRY_PYTHON_THREADS",),
    ),
    Option(
        name="layer_limit",
        help="size that one layer may have uncompressed, holes of sparse files counted; or such as `10G` (10·10⁹) or `10GiB` (10·2³⁰)",
        default=limits.LAYER,
        otherwise=f"`{limits.LAYER}`, 1 TiB",
        unit="bytes",
        read=size,
        schema={"type": ["integer", "string", "null"]},
    ),
    _switch("refresh", "yes: ask again what the tags mean"),
    Option(
        name="locked",
        help="a lock file, as a run leaves it in `results/lock.yaml`: make what it says",
        read=folder,
        schema=_TEXT,
    ),
    Option(
        name="transfer",
        help="the partition or queue for downloads on a cluster; see [Clusters](#clusters)",
        read=partition,
        schema=_TEXT,
    ),
    _switch("docker_cmd", "yes: runscript from Cmd", "SREGISTRY_DOCKER_CMD"),
    Option(
        name="disable",
        help="yes: no record, and images go to the current folder",
        default=False,
        read=flag,
        variables=(DISABLE,),
    ),
    Option(
        name="disable_cache",
        help="yes: layers are kept for the run only and `cache` is left as it is; see below",
        default=False,
        read=flag,
        variables=(DISABLE_CACHE,),
    ),
    Option(
        name="tmpdir",
        help="folder of large temporary files, made if it is missing",
        otherwise="beside what is made",
        read=folder,
        variables=(TMPDIR,),
    ),
    Option(
        name="trust",
        help="users, by name or number with `:` between, whose exploded layers are used; `*`: everybody's; see [The store](#the-store)",
        default="",
        otherwise="nobody",
        read=lambda value, _: trust.users(value),
        variables=(trust.VARIABLE,),
    ),
    Option(
        name="secrets_file",
        help="the secrets file",
        default="~/.sregistry",
        variables=(CLIENT_SECRETS,),
    ),
    Option(
        name="unverified",
        help="yes: certificates are not checked, with a warning",
        default=False,
        variables=(NOVERIFY,),
    ),
    Option(
        name="token_variables",
        help="further variables whose values rows of `config/registries.yaml` may have sent; see Registries",
        otherwise="none",
        variables=(TOKEN_VARIABLES,),
    ),
    Option(
        name="registry",
        help="how to reach a registry; see Registries, Login",
        otherwise="the client's row",
        variables=("SREGISTRY_<CLIENT>_…",),
    ),
    Option(
        name="log_level",
        help="how much is said on stderr; `--debug` and `--quiet` go before it",
        default=logs.Level.INFO.name,
        variables=(logs.VARIABLE,),
    ),
)

BY_NAME = {option.name: option for option in OPTIONS}
#: What an image has of its group.
SHARED = tuple(dict.fromkeys(option.name.partition(".")[0] for option in OPTIONS if option.per_image))


def _defaults() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for option in OPTIONS:
        if option.is_key:
            head, _, rest = option.name.partition(".")
            if rest:
                found.setdefault(head, {})[rest] = option.default
            else:
                found[head] = option.default
    return found


#: The configuration file that says what is in effect without one.
DEFAULTS = _defaults()
