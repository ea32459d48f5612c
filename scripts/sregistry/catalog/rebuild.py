"""The command that makes a recorded image again.

```
snakemake --config 'images=[{"uri": "nvcr.io/nvidia/caffe2@sha256:…", "name": …, "platform": …, "format": …}]'
                   client=… builder=… docker_cmd=… 'compression={…}' storage=…
```

The manifest's digest stands for the tag, which may mean another image by now. All settings that decide
what is made are given, those with the default's value too: a variable or a file may say otherwise where
the command runs, and the command line goes before both. What a registry needs is in variables; a token's
is named, and its value is nowhere.

The contents are those of the recorded image. The file's bytes are not, because the image holds the name
that it was asked for, and may hold SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sregistry.errors import CatalogError, ConfigError

if TYPE_CHECKING:
    from sregistry.catalog.record import Record
    from sregistry.layers.compression import Compression


@dataclass(frozen=True, kw_only=True, slots=True)
class Rebuild:
    """A command as words, the variables that it needs, and that of the token, if the registry asks for one."""

    command: tuple[str, ...]
    environment: Mapping[str, str]
    token: str

    def __str__(self) -> str:
        """One line for a shell."""
        return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in self.environment.items()), shlex.join(self.command)])

    def json(self) -> dict[str, Any]:
        """Return it as `sregistry inspect` prints it."""
        return {"command": str(self), "environment": dict(self.environment), "token": self.token}


def made(
    *, client: str, platform: str, format: str, builder: str, docker_cmd: bool, compression: Compression, path: Path
) -> dict[str, Any]:
    """Return what a record keeps of how its image, at *path*, was made."""
    return {
        "client": client,
        "platform": platform,
        "format": format,
        "builder": builder,
        "docker_cmd": docker_cmd,
        "compression": {"codec": compression.codec.name.lower(), "level": compression.level, "block_size": compression.block_size},
        "name": path.name,
    }


def rebuild(record: Record) -> Rebuild:
    """Return the command that makes the image of *record* again.

    Raises:
        CatalogError: the record does not say how it was made, being another program's or of an earlier version.
    """
    how = record.made
    try:
        image = {
            "uri": f"{record.registry}/{record.repository}@{record.digest}",
            "name": how["name"],
            "platform": how["platform"],
            "format": how["format"],
        }
        compression = {key: how["compression"][key] for key in ("codec", "level", "block_size")}
        settings = {"client": how["client"], "builder": how["builder"], "docker_cmd": "yes" if how["docker_cmd"] else "no"}
    except (KeyError, TypeError):
        raise CatalogError(f"{record.uri}: the record does not say how the image was made", hint="pull it again") from None
    if not record.digest:
        raise CatalogError(f"{record.uri}: the record has no manifest's digest", hint="pull it again")
    words = [f"images={json.dumps([image])}", *(f"{key}={value}" for key, value in settings.items())]
    words.append(f"compression={json.dumps(compression)}")
    if record.image:
        words.append(f"storage={Path(record.image).parent}")
    environment, token = _registry(record)
    return Rebuild(command=("snakemake", "--config", *words), environment=environment, token=token)


def _registry(record: Record) -> tuple[dict[str, str], str]:
    """Return the variables by which the registry was reached, where they differ from its row, and the token's name."""
    from sregistry.config.registries import rows, variable

    client = str(record.made["client"])
    row = rows().get(client)
    if row is None:
        raise ConfigError(f"{record.uri}: client {client!r} is unknown", hint="add it to config/registries.yaml")
    address = urlsplit(record.url)
    version = address.path.strip("/").partition("/")[0]
    found = {
        "BASE": record.registry if row.base and record.registry != row.base else "",
        "NOHTTPS": "yes" if row.https and address.scheme == "http" else "",
        "VERSION": version if version and version != row.version else "",
    }
    return {variable(client, name): value for name, value in found.items() if value}, row.token
