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


def words(allowed: Collection[str]) -> Callable[[object, str], str]:
    """Return the reader of one of some words."""

    def read(value: object, name: str) -> str:
        if value not in allowed:
            raise ConfigError(f"{name}: {value!r} is unknown", hint="one of " + ", ".join(allowed))
        return str(value)

    return read


def _client(value: object, name: str) -> str:
    return words(rows())(value, name)


def text(value: object, _: str) -> str:
    """Take any text."""
    return str(value)


#: The JSON schema of a value as the configuration has it. What stands inside a key arrives as text from the command line.
_TEXT = {"type": ["string", "null"]}
_TEXTS = {"type": ["string", "array", "null"], "items": {"type": "string"}}
_FLAG = {"type": ["boolean", "string", "integer"]}
_NUMBER, _SIZE = {"type": ["integer", "string"]}, {"type": ["integer", "string", "null"]}


@dataclass(frozen=True, slots=True)
class Option:
    """A setting.

    Args:
        name: of the field of Settings; of an option that the configuration file may have, also its key there, with a dot in a table.
        help: what it is, as a cell of a table in Markdown.
        read: what a value means; None: it is no field of Settings, and read by another module.
        schema: of the value in the configuration; None: only the variable sets it.
        variables: of the environment; `separated` says how one holds several values.
        default: as the configuration would have it; None for what has none, or one that depends on the machine: `otherwise` says it.
        unit: of a number.
        per_image: images and groups may have their own.
    """

    name: str
    help: str
    read: Callable[[Any, str], Any] | None = None
    schema: Mapping[str, Any] | None = None
    variables: tuple[str, ...] = ()
    default: Any = None
    otherwise: str = ""
    separated: str = ""
    unit: str = ""
    per_image: bool = False

    @property
    def is_key(self) -> bool:
        """Whether the configuration file may have it."""
        return self.schema is not None


_CACHE = "~/.singularity"
_CLIENT = "a row of `registries.yaml`; a scheme such as `docker://` goes before it"
_CODECS = [codec.name.lower() for codec in Codec]
_SEE = "see [Compression](#compression)"
_LIMIT = "size that one layer may have uncompressed, holes of sparse files counted: bytes, or such as `10G` (10·10⁹) or `10GiB` (10·2³⁰)"
_CONNECTIONS = "connections at a time, of all downloads; a large layer takes several; `--resources network=N` goes before it"
_USERS = "users, by name or number with `:` between, whose exploded layers are used; `*`: everybody's; see [The store](#the-store)"
_VARIABLES = "further variables whose values rows of `config/registries.yaml` may have sent; see Registries"

#: In the order of the configuration file, then those that only a variable sets.
OPTIONS = (
    Option(
        "client",
        _CLIENT,
        _client,
        _TEXT,
        ("SREGISTRY_CLIENT",),
        "nvidia",
    ),
    Option("platform", "`os/architecture[/variant]`", platform, _TEXT, PLATFORM, otherwise="this machine's", per_image=True),
    Option("format", "what an image becomes", words(FORMATS), {"enum": list(FORMATS)}, default="sif", per_image=True),
    Option("compression.codec", f"of the image's data; {_SEE}", text, {"enum": _CODECS}, default="gzip", per_image=True),
    Option(
        "compression.level", f"`fast` for speed, `small` for size; {_SEE}", text, {"enum": list(LEVELS)}, default="default", per_image=True
    ),
    Option(
        "compression.block_size",
        "a data block of squashfs: a power of two from 65536 to 1048576",
        integer,
        _NUMBER,
        default=131072,
        unit="bytes",
        per_image=True,
    ),
    Option("builder", "what writes the image; see [Builders](#builders)", words(BUILDERS), {"enum": list(BUILDERS)}, default="native"),
    Option("storage", "folder of the images", folder, _TEXT, ("SREGISTRY_STORAGE",), f"{_CACHE}/shub"),
    Option(
        "filename",
        "how the images' files are called; see [Files of images](#files-of-images)",
        Template.parse,
        _TEXT,
        ("SREGISTRY_FILENAME",),
        DEFAULT,
    ),
    Option("force", "yes: an image may take the file of another one", flag, _FLAG, default=False),
    Option("database", "folder of the catalog", folder, _TEXT, ("SREGISTRY_DATABASE",), _CACHE),
    Option("cache", "the store of layers is in its folder `docker/`", folder, _TEXT, ("SINGULARITY_CACHEDIR",), _CACHE),
    Option(
        "cache_from",
        "a folder or a list: further stores, only read; OCI image layouts and Apptainer's cache, too",
        folders,
        _TEXTS,
        ("SREGISTRY_CACHE_FROM",),
        [],
        separated="with `:` between",
    ),
    Option("connections", _CONNECTIONS, count, {"type": ["integer", "null"]}, ("SREGISTRY_PYTHON_THREADS",), 9),
    Option("layer_limit", _LIMIT, size, _SIZE, default=limits.LAYER, otherwise=f"`{limits.LAYER}`, 1 TiB"),
    Option("refresh", "yes: ask again what the tags mean", flag, _FLAG, default=False),
    Option("locked", "a lock file, as a run leaves it in `results/lock.yaml`: make what it says", folder, _TEXT),
    Option("transfer", "the partition or queue for downloads on a cluster; see [Clusters](#clusters)", partition, _TEXT),
    Option("docker_cmd", "yes: runscript from Cmd", flag, _FLAG, ("SREGISTRY_DOCKER_CMD",), False),
    Option("disable", "yes: no record, and images go to the current folder", flag, None, (DISABLE,), False),
    Option(
        "disable_cache",
        "yes: layers are kept for the run only and `cache` is left as it is; see below",
        flag,
        None,
        (DISABLE_CACHE,),
        False,
    ),
    Option("tmpdir", "folder of large temporary files, made if it is missing", folder, None, (TMPDIR,), otherwise="beside what is made"),
    Option("trust", _USERS, lambda value, _: trust.users(value), None, (trust.VARIABLE,), "", "nobody"),
    Option("secrets_file", "the secrets file", variables=(CLIENT_SECRETS,), default="~/.sregistry"),
    Option("unverified", "yes: certificates are not checked, with a warning", variables=(NOVERIFY,), default=False),
    Option("token_variables", _VARIABLES, variables=(TOKEN_VARIABLES,), otherwise="none"),
    Option("registry", "how to reach a registry; see Registries, Login", variables=("SREGISTRY_<CLIENT>_…",), otherwise="the client's row"),
    Option(
        "log_level",
        "how much is said on stderr; `--debug` and `--quiet` go before it",
        variables=(logs.VARIABLE,),
        default=logs.Level.INFO.name,
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
