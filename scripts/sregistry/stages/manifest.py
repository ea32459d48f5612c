"""Resolve a reference: which manifests, config and layers it means on one platform."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from sregistry.errors import SregistryError
from sregistry.stages import arguments
from sregistry.system.heartbeat import Kind, tell_user


def register(stages: arguments.Stages) -> None:
    """Add the command."""
    stage = arguments.command(stages, "manifest", run, "resolve a reference", "store", "output", "guard")
    stage.add_argument("--uri", required=True)
    stage.add_argument("--client", required=True)
    stage.add_argument("--platform", required=True)
    stage.add_argument("--locked", metavar="DIGEST", help="what the tag is to mean")
    stage.add_argument("--format", default="sif", help="of the image")
    stage.add_argument("--target", type=Path, metavar="PATH", help="the image: refuse at once if another one is there")


def run(options: argparse.Namespace) -> None:
    """Resolve a reference. A refusal is written down: other images go on, and `metadata` reports it."""
    from sregistry.catalog.occupant import Identity
    from sregistry.config.secrets_file import overlay
    from sregistry.config.targets import locate
    from sregistry.oci.documents import Digest, Platform
    from sregistry.registry.client import connect
    from sregistry.registry.resolve import resolve
    from sregistry.results import failures, receipts
    from sregistry.results.paths import IMAGE

    output: Path = options.output
    pinned = receipts.pinned(output)
    try:
        environ = overlay(os.environ)
        settings, reference = locate(options.uri, options.client, environ)
        store, platform = arguments.store(options), Platform.parse(options.platform)
        locked = Digest(options.locked) if options.locked else None
        guarded = options.target is not None and not receipts.vouches(output.with_name(Path(IMAGE).name), options.target)
        if guarded:  # before anything is asked, and once more when the platform is known
            arguments.guard(options, Identity.of_reference(reference, platform, options.format))()
        with connect(settings, environ, store) as client:
            resolved = resolve(client, reference, platform, store, locked=locked)
        if guarded:
            arguments.guard(options, Identity.of_resolved(resolved, options.format))()
    except SregistryError as error:
        receipts.Refused(uri=options.uri, error=str(error), pinned=pinned).write(output)
        return
    resolved.write(output)
    failures.forget_image(output)
    for line in resolved.warnings:
        tell_user(f"{resolved.uri}: {line}", Kind.WARNING)
