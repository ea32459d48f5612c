"""Make the metadata tar of an image, its environment, runscript and labels, and explode it as a layer is."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from sregistry.stages import arguments


def register(stages: arguments.Stages) -> None:
    """Add the command."""
    stage = arguments.command(stages, "metadata", run, "environment, runscript, labels", "manifest", "store", "compression", "output")
    stage.add_argument("--docker-cmd", action="store_true", help="runscript from Cmd")
    stage.add_argument("--tar", type=Path, required=True, metavar="FILE")


def run(options: argparse.Namespace) -> None:
    """Make the metadata tar of a config and explode it, and the base environment."""
    from sregistry.image.metadata import creation_time, environment_tar, metadata_tar
    from sregistry.layers.explode import explode_tar
    from sregistry.results import receipts
    from sregistry.results.resolved import Resolved
    from sregistry.stages.explode import held

    resolved = Resolved.take(options.manifest)
    store, compression = arguments.store(options), arguments.compression(options)
    config = resolved.parsed_config()
    created = creation_time(config, _epoch())
    tar = metadata_tar(config, reference=resolved.full_name, docker_cmd=options.docker_cmd, created=created)
    environment, metadata = explode_tar(store, environment_tar(), compression), explode_tar(store, tar, compression)
    receipts.publish(options.tar, tar)
    receipts.Metadata(
        environment=str(environment.folder),
        metadata=str(metadata.folder),
        variant=compression.variant,
        indexes=(environment.digest.hex(), metadata.digest.hex()),
        docker_cmd=options.docker_cmd,
        created=created,
        store=str(store.root),
        holds=(*held(environment), *held(metadata)),
    ).write(options.output)


def _epoch() -> int | None:
    """Return SOURCE_DATE_EPOCH in seconds, where it is set. Raises ConfigError."""
    from sregistry.errors import ConfigError

    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if text and not text.isdecimal():
        raise ConfigError(f"SOURCE_DATE_EPOCH: expected seconds since 1970, got {text!r}")
    return int(text) if text else None
