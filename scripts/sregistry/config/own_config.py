"""The settings as the configuration file of the working folder has them: what is wrong there is told with its line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sregistry.config.options import BY_NAME
from sregistry.config.settings import CONFIG, Settings, from_file
from sregistry.errors import ConfigError


def load_own(environ: Mapping[str, str], file: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings of the environment and of the configuration file of this folder; or of *file*, its keys.

    Raises:
        ConfigError: a bad value; the message names variable, or file and line.
    """
    keys = from_file() if file is None else file
    try:
        return Settings.load(file=keys, environ=environ)
    except ConfigError as error:
        from sregistry.config.yaml_lines import Marks, blamed

        raise blamed(error, Marks([CONFIG], keys)) from None


def load_local(environ: Mapping[str, str]) -> tuple[Settings, ConfigError | None]:
    """Return the settings for what needs the catalog and the client's name alone, and what is wrong with the others.

    Raises:
        ConfigError: these two can't be told, or the environment is wrong.
    """
    try:
        return load_own(environ), None
    except ConfigError as error:
        Settings.load(environ=environ)  # else the file is not to blame
        try:
            keys = from_file()
        except ConfigError:
            (variable,) = BY_NAME["database"].variables
            if not environ.get(variable):
                raise ConfigError(error.message, hint=f"mend it, or export {variable}") from None
            keys = {}
        return load_own(environ, {key: keys[key] for key in ("client", "database") if key in keys}), error


def foreign(path: Path = CONFIG) -> str | None:
    """Return a warning about a configuration file that somebody else wrote, in a folder that is not one's own."""
    try:
        owner = path.stat().st_uid
    except OSError:
        return None
    return None if owner in (os.geteuid(), 0) else f"{path} is another user's: its settings count here"
