"""Inflate a layer and compress it as squashfs blocks, once a store."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sregistry.stages import arguments
from sregistry.stages.wording import amount, rated, short_digest
from sregistry.system.heartbeat import tell_user

if TYPE_CHECKING:
    from sregistry.stages.arguments import Stages


def register(stages: Stages) -> None:
    """Add the command."""
    stage = stages.add_parser("explode", help="inflate and recompress a layer")
    arguments.add_store(stage)
    arguments.add_compression(stage)
    arguments.add_output(stage)
    stage.add_argument("--layer", type=Path, required=True, metavar="FILE", help="receipt of the layer")
    stage.add_argument("--manifest", type=Path, nargs="*", default=[], metavar="FILE", help="manifest.json of images that name it")
    stage.add_argument("--threads", type=int, default=1, metavar="N")
    stage.add_argument("--limit", type=int, metavar="BYTES", help="of the layer uncompressed")
    stage.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Inflate a layer and compress it as squashfs blocks."""
    from sregistry.layers.explode import explode, unlike
    from sregistry.oci.documents import Digest
    from sregistry.registry import claims
    from sregistry.results import receipts
    from sregistry.store import diff_id_proofs
    from sregistry.system.cores import usable

    layer = receipts.Blob.read(options.layer)
    store = arguments.store(options)
    digest = Digest(layer.digest)
    diff_id = Digest(layer.diff_id) if layer.diff_id else None
    if options.manifest:  # the receipt may be older than some of them
        diff_id = claims.agreed(claims.read(options.manifest, digest))
    threads = min(options.threads, usable())
    compression = arguments.compression(options)
    begun: list[bool] = []
    start = time.monotonic()
    how: dict[str, Any] = {"path": layer.path, "limit": options.limit, "begun": lambda: begun.append(True)}
    made = explode(store, digest, diff_id, compression, threads, **how)
    if diff_id is not None and not begun and not diff_id_proofs.known(store, digest, diff_id):
        # What was there may be another layer's, whose diff_id the config says: the bytes decide.
        made = explode(store, digest, None, compression, threads, **how)
        if made["diff_id"] != str(diff_id):
            raise unlike(f"layer {digest}", made["diff_id"], diff_id)
    diff_id_proofs.keep(store, digest, Digest(made["diff_id"]))
    kept = {"digest": layer.digest, "size": layer.size, "estargz": layer.estargz, "store": str(store.root)}
    receipts.Exploded.parse({**made, **kept}).write(options.output)
    said = rated(layer.size, start) if begun else f"{amount(layer.size)}, there already"
    tell_user(f"explode {short_digest(layer.digest)}: {said}")
