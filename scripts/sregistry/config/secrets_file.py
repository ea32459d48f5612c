"""The secrets file: settings of backends that are kept, and which backend is active.

```
${SREGISTRY_CLIENT_SECRETS:-~/.sregistry}   mode 600, replaced whole, changed under a lease
{"SREGISTRY_CLIENT": "nvidia",              the active backend
 "nvidia": {"SREGISTRY_NVIDIA_TOKEN": …},   a backend: variables, as the environment has them
 …}                                         what else is there stays, and means nothing
```

The environment goes before it. `overlay` gives both as one; each process reads the file for itself, so
that no token of it comes into an environment, a command line, a job script or another file.

What others may read is closed to them, with a warning; another user's file is none of ours: whoever wrote
it could have our tokens sent where he likes.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from sregistry.config.options import BY_NAME, CLIENT_SECRETS, PLATFORM, flag, platform
from sregistry.config.registries import TOKEN_VARIABLES, Row, rows, variable
from sregistry.config.settings import registry
from sregistry.errors import ConfigError, from_oserror
from sregistry.store.store import write_atomic
from sregistry.system import limits, logs
from sregistry.system.locks import lease

#: Stands for a value that is not shown.
MASK = "*" * 8
#: The key of the active backend.
(ACTIVE,) = BY_NAME["client"].variables

#: What each backend has a variable for, and of these, what may be shown.
_SUFFIXES = ("BASE", "VERSION", "USERNAME", "NOHTTPS", "TOKEN")
_OPEN = ("BASE", "VERSION", "USERNAME", "NOHTTPS", "CMD", "OS", "ARCHITECTURE", "SECRETS")
#: The further ones of Docker Hub; some of them are of all images, but have its name.
_DOCKER = (
    *("SREGISTRY_DOCKERHUB_USERNAME", "SREGISTRY_DOCKERHUB_PASSWORD", "SREGISTRY_DOCKERHUB_SECRETS"),
    *BY_NAME["docker_cmd"].variables,
    *PLATFORM,
)

_told: set[tuple[Path, str]] = set()


def path_of(environ: Mapping[str, str]) -> Path | None:
    """Return where the file is, there or not; None without a home folder. Raises ConfigError."""
    text = environ.get(CLIENT_SECRETS) or "~/.sregistry"
    home = environ.get("HOME")
    if text.startswith("~/"):
        return Path(home, text[2:]) if home else None
    try:
        return Path.cwd() / Path(text).expanduser()
    except RuntimeError:
        raise ConfigError(f"{CLIENT_SECRETS}: {text}: no such home folder") from None


def overlay(environ: Mapping[str, str]) -> dict[str, str]:
    """Return *environ* with the settings of the secrets file beneath it; an empty variable counts as unset.

    Raises:
        ConfigError: the file is damaged, or a value in it that counts is wrong; nothing of it is shown.
    """
    path = path_of(environ)
    document = None if path is None else read(path)
    found = dict(environ)
    if path is None or not document:
        return found
    active = document.get(ACTIVE)
    if active and not environ.get(ACTIVE):
        if active not in rows():
            raise ConfigError(f"{path}: its active backend is unknown", hint="sregistry backend activate NAME")
        found[ACTIVE] = active
    for name, row in rows().items():
        for key, value in table(document, name).items():
            if key in variables(row) and not environ.get(key) and value != "":
                try:
                    found[key] = check(row, key, value)
                    if key == row.token:  # who keeps it here wants it sent
                        found[TOKEN_VARIABLES] = f"{found.get(TOKEN_VARIABLES, '')},{key}"
                except ConfigError:
                    hint = f"sregistry backend add {name} {key} VALUE, or remove {name} {key}"
                    raise ConfigError(f"{path}: {name}: {key} has a value that can't be used", hint=hint) from None
    return found


def read(path: Path) -> dict[str, Any] | None:
    """Return what is in the file, None if there is none or it is another user's. Others lose what rights they had.

    Raises:
        ConfigError: it can't be read, or is no such file; nothing of it is shown.
    """
    try:
        # A pipe of that name would have us wait.
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        logs.logger().debug("credentials cache %s: no such file", path)
        return None
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}", hint=f"set {CLIENT_SECRETS} to another file") from None
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise ConfigError(f"{path} is no file", hint=f"set {CLIENT_SECRETS} to one")
    with os.fdopen(handle, "rb") as file:
        if found.st_uid != os.geteuid():
            _tell(path, "is another user's: it is passed over")
            return None
        if found.st_mode & 0o077:
            _close(path, handle, stat.S_IMODE(found.st_mode))
        data = file.read(limits.SECRETS_FILE + 1)
    if (path, "") not in _told:
        _told.add((path, ""))
        logs.logger().debug("credentials cache %s", path)
    try:
        document = json.loads(data or b"{}") if len(data) <= limits.SECRETS_FILE else None
        whole = isinstance(document, dict) and isinstance(document.get(ACTIVE) or "", str)
    except (ValueError, RecursionError):
        whole = False
    if not whole:
        raise ConfigError(
            f"{path} is damaged: this is no JSON of settings", hint="repair it, or move it away and set up your backends again"
        )
    return cast(dict[str, Any], document)


def _close(path: Path, handle: int, mode: int) -> None:
    try:
        os.fchmod(handle, 0o600)
    except OSError as error:
        _tell(path, f"is open to others ({mode:o}), and stays so: {error.strerror}")
    else:
        _tell(path, f"was open to others ({mode:o}), and is not any more; a token that was in it may be known: have it replaced")


def _tell(path: Path, what: str) -> None:
    """Warn of a file, once a process."""
    if (path, what) not in _told:
        _told.add((path, what))
        logs.logger().warning("%s %s", path, what)


def table(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the settings of a backend; what is none is left out."""
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def backends(document: Mapping[str, Any]) -> list[str]:
    """Return the backends that have settings in the file, known here or not."""
    return sorted(name for name in document if table(document, name))


def variables(row: Row) -> tuple[str, ...]:
    """Return the variables that a backend has."""
    own = {variable(row.client, suffix): None for suffix in _SUFFIXES[:-1]}
    return (*own, row.token, *(_DOCKER if row.client == "docker" else ()))


def shown(name: str, key: str, value: object) -> str:
    """Return a value of the file as it may be shown: only what is known to be no secret, and to be right."""
    row = rows().get(name)
    if row is None or key not in variables(row) or key == row.token or key.rpartition("_")[2] not in _OPEN:
        return MASK
    try:
        return check(row, key, value)
    except ConfigError:
        return MASK


def check(row: Row, key: str, value: object) -> str:
    """Return the value of a backend's variable. Raises ConfigError: it is wrong; a secret is not shown."""
    if not isinstance(value, str) or not value.strip().isprintable():
        raise ConfigError(f"{key}: expected text in one line")
    if key in BY_NAME["docker_cmd"].variables:
        flag(value, key)
    elif key in PLATFORM:
        platform(f"linux/{value}" if key.endswith("ARCHITECTURE") else f"{value}/amd64", key)
    else:
        registry(row.client, {variable(row.client, "BASE"): row.base, TOKEN_VARIABLES: row.token, key: value})
    return value.strip()


@contextlib.contextmanager
def changing(path: Path) -> Iterator[dict[str, Any]]:
    """Give what is in the file; what the context made of it is written at its end, under a lease.

    Raises:
        ConfigError: the file is damaged, another user's, or can't be written.
    """
    path = path.resolve()  # a link stays one
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with lease(path.with_name(f".{path.name.lstrip('.')}.lock")):
            document = read(path)
            if document is None and path.exists():
                raise ConfigError(f"{path} is another user's", hint=f"set {CLIENT_SECRETS} to a file of yours")
            before = copy.deepcopy(document)
            document = document or {}
            yield document
            if document != before:
                write_atomic(path, f"{json.dumps(document, indent=4)}\n".encode(), 0o600)
    except OSError as error:
        raise from_oserror(error, ConfigError, f"can't write {path}:") from error
