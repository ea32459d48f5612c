"""Download a layer into the store."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sregistry.errors import StoreError
from sregistry.stages import arguments
from sregistry.stages.wording import amount, rated, short_digest
from sregistry.system.heartbeat import tell_user

if TYPE_CHECKING:
    from sregistry.registry.client import RegistryClient
    from sregistry.results.resolved import Resolved


def register(stages: arguments.Stages) -> None:
    """Add the command."""
    stage = arguments.command(stages, "layer", run, "download a layer", "store", "output")
    stage.add_argument("--manifest", type=Path, required=True, nargs="+", metavar="FILE", help="manifest.json of images that name it")
    stage.add_argument("--digest", required=True)
    stage.add_argument("--connections", type=int, default=1, metavar="N", help="at a time, for a large layer")
    stage.add_argument("--limit", type=int, metavar="BYTES", help="of the layer uncompressed")


def run(options: argparse.Namespace) -> None:
    """Download one blob into the store, as one of the images that name it leads to it."""
    from dataclasses import replace

    from sregistry.config.options import DEFAULTS
    from sregistry.config.secrets_file import overlay
    from sregistry.config.settings import registry
    from sregistry.layers.inflate import is_estargz
    from sregistry.oci.documents import Digest
    from sregistry.registry import claims
    from sregistry.store.beneath import opened

    digest, store = Digest(options.digest), arguments.store(options)
    environ = overlay(os.environ)

    def connected(resolved: Resolved) -> RegistryClient:
        from sregistry.registry.client import connect  # a layer that is there needs no HTTP

        return connect(registry(resolved.client, environ, fallback=resolved.registry), environ, store)

    found = claims.read(options.manifest, digest)
    was = any(store.has(digest, claim.layer.blob.size) for claim in found)
    start = time.monotonic()
    try:
        made = claims.fetch(found, store, connected, connections=options.connections, limit=options.limit or DEFAULTS["layer_limit"])
        with opened(made.path, depth=3) as file:
            estargz = is_estargz(file)
    except FileNotFoundError as error:
        raise StoreError(f"{error.filename} was removed meanwhile", hint="run again to fetch it anew") from error
    diff_id = claims.agreed(found)
    replace(made, diff_id=None if diff_id is None else str(diff_id), estargz=estargz).write(options.output)
    there = was or store.root not in made.path.parents
    tell_user(f"layer {short_digest(options.digest)}: {f'{amount(made.size)}, there already' if there else rated(made.size, start)}")
