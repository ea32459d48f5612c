"""Gather what single jobs found out, for the rules to plan with: the tags of all patterns, the layers of all images."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sregistry.stages import arguments

if TYPE_CHECKING:
    from sregistry.stages.arguments import Stages


def register(stages: Stages) -> None:
    """Add the commands."""
    stage = stages.add_parser("gather-tags", help="gather the tags of all patterns")
    arguments.add_output(stage)
    stage.add_argument("lists", type=Path, nargs="+", metavar="FILE")
    stage.set_defaults(run=gather_tags)

    stage = stages.add_parser("gather-layers", help="gather the layers of all images")
    arguments.add_output(stage)
    stage.add_argument("manifests", type=Path, nargs="*", metavar="FILE")
    stage.set_defaults(run=gather_layers)


def gather_tags(options: argparse.Namespace) -> None:
    """Gather the tags of all patterns, and which patterns failed."""
    from sregistry.results import receipts

    values = {path.stem: receipts.read(path) for path in options.lists}
    failed = {key: value["error"] for key, value in values.items() if "error" in value}
    receipts.write(options.output, {"tags": {key: value["tags"] for key, value in values.items()}, "failed": failed})


def gather_layers(options: argparse.Namespace) -> None:
    """Gather the layers of all images, and which are SIFs; an image that could not be resolved has none."""
    from collections import Counter

    from sregistry.registry.claims import key
    from sregistry.results import receipts

    layers = {}
    sizes: dict[str, list[int]] = {}
    sources: dict[str, dict[tuple[str, ...], str]] = {}
    sifs = []
    for path in options.manifests:
        value = receipts.read(path)
        image = path.parent.name
        found = {layer["digest"]: layer for layer in value.get("layers", ())}
        layers[image] = list(found)
        for digest, layer in found.items():
            sources.setdefault(digest, {}).setdefault(key(value, layer), image)
            sizes.setdefault(digest, []).extend([] if layer["size"] is None else [layer["size"]])
        if value.get("kind") == "sif":
            sifs.append(image)
    receipts.write(
        options.output,
        {
            "layers": layers,
            # One manifest may know the size that another, of schema 1, does not; and one may be wrong.
            "sizes": {digest: Counter(said).most_common(1)[0][0] if said else None for digest, said in sizes.items()},
            "sources": {digest: list(images.values()) for digest, images in sources.items()},
            "sifs": sifs,
        },
    )
