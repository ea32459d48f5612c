"""Record an image in the catalog."""

from __future__ import annotations

import argparse
from pathlib import Path

from sregistry.errors import ImageError
from sregistry.stages import arguments
from sregistry.system.heartbeat import Kind, tell_user


def register(stages: arguments.Stages) -> None:
    """Add the command."""
    stage = arguments.command(stages, "catalog", run, "record the image", "manifest", "compression", "output", "builder")
    stage.add_argument("--docker-cmd", action="store_true", help="its runscript is from Cmd")
    stage.add_argument("--image", type=Path, required=True, metavar="FILE", help="receipt of the image")
    stage.add_argument("--database", type=Path, required=True, metavar="DIR")


def run(options: argparse.Namespace) -> None:
    """Record an image; what happened goes to stdout."""
    from datetime import UTC, datetime

    from sregistry.catalog.catalog import Catalog
    from sregistry.catalog.image_facts import facts
    from sregistry.catalog.rebuild import made
    from sregistry.catalog.record import record
    from sregistry.oci.json_fields import load_json
    from sregistry.results import receipts
    from sregistry.results.resolved import SIF, Resolved

    resolved, image = Resolved.take(options.manifest), receipts.Image.read(options.image)
    if receipts.stale(image.holds):
        raise ImageError(f"{image.path} was replaced or removed meanwhile, and is not recorded as {resolved.uri}", hint="run again")
    catalog = Catalog(options.database)
    config = {} if resolved.kind == SIF else load_json(resolved.image_config.encode(), "config")
    how = made(
        client=resolved.client,
        platform=str(resolved.platform),
        format=image.format,
        builder=options.builder,
        docker_cmd=options.docker_cmd,
        compression=arguments.compression(options),
        path=Path(image.path),
    )
    written = record(resolved, image, now=datetime.now(UTC), facts=facts(config, str(resolved.platform)), made=how)
    kept, new = catalog.add(written)
    holds = (receipts.Held(str(catalog.path), None), *image.holds)
    receipts.Recorded(id=kept.id, uri=kept.uri, new=new, version=kept.version, holds=holds).write(options.output)
    tell_user(f"[container][{'new' if new else 'update'}] {kept.uri}", Kind.RECORDED)
    tell_user(f"Success! {kept.image}", Kind.RECORDED)
