"""Merge base environment, layers and metadata into one root file system: an index into exploded data."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sregistry.errors import DigestMismatch, StoreError
from sregistry.stages import arguments

if TYPE_CHECKING:
    from sregistry.image.tree import Sandbox


def register(stages: arguments.Stages) -> None:
    """Add the command."""
    stage = arguments.command(stages, "sandbox", run, "merge the layers", "manifest", "output")
    stage.add_argument("--metadata", type=Path, required=True, metavar="FILE", help="receipt of the metadata")
    stage.add_argument("layers", type=Path, nargs="*", metavar="FILE", help="receipts of exploded layers")


def run(options: argparse.Namespace) -> None:
    """Merge base environment, layers and metadata."""
    from sregistry.image.merge import merge
    from sregistry.results import receipts
    from sregistry.results.resolved import Resolved
    from sregistry.stages.remake import Sources, repairing

    resolved, metadata = Resolved.take(options.manifest), receipts.Metadata.read(options.metadata)
    exploded = {value.digest: value for value in map(receipts.Exploded.read, options.layers)}
    layers: list[tuple[str, str]] = []
    estargz = []
    for layer in resolved.layers:
        made = exploded.get(str(layer.blob.digest))
        if made is None:
            raise StoreError(f"{resolved.uri}: no receipt for layer {layer.blob.digest}", hint="run again")
        if layer.diff_id is not None and made.diff_id != str(layer.diff_id):
            # Two images name one blob with different contents: one of the configs is wrong.
            raise DigestMismatch(
                f"{resolved.uri}: layer {layer.blob.digest} has diff_id {made.diff_id}, not {layer.diff_id} as its config says"
            )
        resolved.compare_size(layer, made.size)
        layers.append((made.path, made.index))
        if layer.blob.estargz or made.estargz:
            estargz.append(len(layers))  # the environment is below
    first, last = metadata.indexes
    layers = [(metadata.environment, first), *layers, (metadata.metadata, last)]
    known = {number: (Path(path), bytes.fromhex(digest)) for number, (path, digest) in enumerate(layers)}

    def merged(remade: Mapping[int, tuple[Path, bytes]]) -> Sandbox:
        folders, digests = zip(*({**known, **remade}).values(), strict=True)
        return merge(folders, estargz, digests)

    sources = Sources(resolved, options.manifest, options.metadata)
    repairing([folder for folder, _ in known.values()], sources, merged).write(options.output)
