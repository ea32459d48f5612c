"""Gather what single jobs found out, for the rules to plan with: the tags of all patterns, the layers of all images."""

from __future__ import annotations

import argparse
from pathlib import Path

from sregistry.stages import arguments


def register(stages: arguments.Stages) -> None:
    """Add the commands."""
    stage = arguments.command(stages, "gather-tags", gather_tags, "gather the tags of all patterns", "output")
    stage.add_argument("lists", type=Path, nargs="+", metavar="FILE")

    stage = arguments.command(stages, "gather-layers", gather_layers, "gather the layers of all images", "output")
    stage.add_argument("manifests", type=Path, nargs="*", metavar="FILE")


def gather_tags(options: argparse.Namespace) -> None:
    """Gather the tags of all patterns, and which patterns failed."""
    from sregistry.results import receipts

    lists = {path.stem: receipts.TagList.read(path) for path in options.lists}
    failed = {key: value.error for key, value in lists.items() if value.error is not None}
    receipts.TagLists(tags={key: value.tags for key, value in lists.items()}, failed=failed).write(options.output)


def gather_layers(options: argparse.Namespace) -> None:
    """Gather the layers of all images, and which are SIFs; an image that could not be resolved has none."""
    from collections import Counter

    from sregistry.registry.claims import Claim
    from sregistry.results import receipts
    from sregistry.results.resolved import SIF, Resolved, Unresolved

    layers: dict[str, list[str]] = {}
    sizes: dict[str, list[int]] = {}
    sources: dict[str, dict[tuple[object, ...], str]] = {}
    sifs = []
    for path in options.manifests:
        image = path.parent.name
        layers[image] = []
        try:
            resolved = Resolved.read(path)
        except Unresolved:
            continue
        found = {str(layer.blob.digest): layer for layer in resolved.layers}
        layers[image] = list(found)
        for digest, layer in found.items():
            sources.setdefault(digest, {}).setdefault(Claim(resolved, layer).key, image)
            sizes.setdefault(digest, []).extend([] if layer.blob.size is None else [layer.blob.size])
        if resolved.kind == SIF:
            sifs.append(image)
    receipts.Gathered(
        layers=layers,
        # One manifest may know the size that another, of schema 1, does not; and one may be wrong.
        sizes={digest: Counter(said).most_common(1)[0][0] if said else None for digest, said in sizes.items()},
        sources={digest: list(images.values()) for digest, images in sources.items()},
        sifs=tuple(sifs),
    ).write(options.output)
