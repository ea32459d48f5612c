"""Assemble an image and publish it under its final name; a SIF from the registry is published as it is."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sregistry.errors import ImageError, UsageError
from sregistry.stages import arguments
from sregistry.stages.wording import rated
from sregistry.system.heartbeat import Kind, tell_user

if TYPE_CHECKING:
    from sregistry.image.tree import Sandbox
    from sregistry.results.receipts import Built
    from sregistry.results.resolved import Resolved


def register(stages: arguments.Stages) -> None:
    """Add the command."""
    stage = arguments.command(stages, "image", run, "assemble the image", "manifest", "output", "guard", "builder")
    stage.add_argument("--metadata", type=Path, metavar="FILE", help="receipt of the metadata")
    stage.add_argument("--sandbox", type=Path, metavar="FILE", help="sandbox.index")
    stage.add_argument("--sif", type=Path, metavar="FILE", help="receipt of the layer, in place of both, if it is a SIF")
    stage.add_argument("--format", required=True)
    stage.add_argument("--target", type=Path, required=True, metavar="PATH")
    levels = ("fast", "default", "small")
    stage.add_argument("--level", choices=levels, default="default", help="of compression, for another builder than native")
    stage.add_argument("--threads", type=int, default=1, metavar="N", help="for another builder than native")


def run(options: argparse.Namespace) -> None:
    """Assemble the image, or let another tool, and publish it under its final name; what that can't keep goes to stdout."""
    from sregistry.catalog.occupant import Identity
    from sregistry.image.metadata import sif_objects
    from sregistry.image.tree import Sandbox
    from sregistry.results import receipts
    from sregistry.results.resolved import SIF, Resolved
    from sregistry.stages.remake import Sources, repairing

    resolved = Resolved.take(options.manifest)
    start = time.monotonic()
    guard = arguments.guard(options, Identity.of_resolved(resolved, options.format))
    guard()
    if resolved.kind == SIF:
        _finish(options, resolved, _taken(options, resolved, guard), start)
        return
    if options.metadata is None or options.sandbox is None:
        raise UsageError(f"{resolved.uri} is made of layers: --metadata and --sandbox are needed")
    metadata = receipts.Metadata.read(options.metadata)
    deffile, documents = sif_objects(
        resolved.parsed_config(), reference=resolved.full_name, docker_cmd=metadata.docker_cmd, created=metadata.created
    )
    options.target.parent.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, Any] = {
        "format": options.format,
        "target": options.target,
        "created": metadata.created,
        "deffile": deffile,
        "documents": documents,
        "architecture": resolved.platform.architecture,
        "guard": guard,
    }
    sandbox = Sandbox.read(options.sandbox)

    def build(remade: Mapping[int, tuple[Path, bytes]]) -> Built:
        sandbox.replace(remade)
        return _built(options, sandbox, wanted)

    made = repairing(sandbox.folders, Sources(resolved, options.manifest, options.metadata), build)
    if made.lost:
        who = "a sandbox here" if options.builder == "native" else f"builder: {options.builder}"
        tell_user(f"{resolved.uri}: {who} can't keep: {'; '.join(made.lost)}", Kind.WARNING)
    _finish(options, resolved, made, start)


def _finish(options: argparse.Namespace, resolved: Resolved, made: Built, start: float) -> None:
    """Write the receipt, and say how large the image is and how long it took."""
    from sregistry.results.receipts import Image

    Image.of(made, str(resolved.digest)).write(options.output)
    tell_user(f"image {resolved.uri}: {rated(made.size, start)}, {options.target}")


def _built(options: argparse.Namespace, sandbox: Sandbox, wanted: Mapping[str, Any]) -> Built:
    """Build the image with the builder that is asked for."""
    if options.builder == "native":
        from sregistry.image.assemble import build

        return build(sandbox, **wanted)
    from sregistry.config import temporary
    from sregistry.image import other_builders
    from sregistry.system.cores import usable

    return other_builders.build(
        sandbox,
        builder=options.builder,
        level=options.level,
        threads=min(options.threads, usable()),
        scratch=temporary.working(os.environ),
        **wanted,
    )


def _taken(options: argparse.Namespace, resolved: Resolved, guard: Callable[[], None]) -> Built:
    """Publish a SIF as it is. Raises ImageError that names the image."""
    from sregistry.image.assemble import take
    from sregistry.results import receipts

    if options.format != "sif":
        raise ImageError(f"{resolved.uri} is a SIF in the registry already, and can't become {options.format}", hint="choose format: sif")
    if options.sif is None:
        raise UsageError(f"{resolved.uri} is a SIF in the registry: --sif is needed")
    blob = receipts.Blob.read(options.sif)
    resolved.compare_size(resolved.layers[0], blob.size)
    ours = Path(blob.store) in blob.path.parents
    try:
        return take(blob.path, resolved.layers[0].blob.digest, ours=ours, target=options.target, platform=resolved.platform, guard=guard)
    except ImageError as error:
        raise ImageError(f"{resolved.uri}: {error.message}", hint=error.hint) from error
