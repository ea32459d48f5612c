"""Make the metadata tar of an image, its environment, runscript and labels, and explode it as a layer is."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sregistry.stages import arguments

if TYPE_CHECKING:
    from sregistry.stages.arguments import Stages


def register(stages: Stages) -> None:
    """Add the command."""
    stage = stages.add_parser("metadata", help="environment, runscript, labels")
    arguments.add_manifest(stage)
    arguments.add_store(stage)
    arguments.add_compression(stage)
    arguments.add_output(stage)
    stage.add_argument("--docker-cmd", action="store_true", help="runscript from Cmd")
    stage.add_argument("--tar", type=Path, required=True, metavar="FILE")
    stage.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Make the metadata tar of a config and explode it, and the base environment."""
    from sregistry.image.metadata import creation_time, environment_tar, metadata_tar
    from sregistry.layers.explode import explode_tar
    from sregistry.results import receipts
    from sregistry.results.resolved import Resolved

    resolved = Resolved.take(options.manifest)
    store, compression = arguments.store(options), arguments.compression(options)
    config = resolved.parsed_config()
    created = creation_time(config, _epoch())
    tar = metadata_tar(config, reference=resolved.full_name, docker_cmd=options.docker_cmd, created=created)
    environment, metadata = explode_tar(store, environment_tar(), compression), explode_tar(store, tar, compression)
    receipts.publish(options.tar, tar)
    receipts.Metadata(
        environment=environment["path"],
        metadata=metadata["path"],
        variant=compression.variant,
        indexes=(environment["index"], metadata["index"]),
        docker_cmd=options.docker_cmd,
        created=created,
        store=str(store.root),
        holds=tuple(map(receipts.Held.parse, (*environment["holds"], *metadata["holds"]))),
    ).write(options.output)


def _epoch() -> int | None:
    """Return SOURCE_DATE_EPOCH in seconds, where it is set. Raises ConfigError."""
    from sregistry.errors import ConfigError

    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if text and not text.isdecimal():
        raise ConfigError(f"SOURCE_DATE_EPOCH: expected seconds since 1970, got {text!r}")
    return int(text) if text else None
