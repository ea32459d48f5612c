"""Inflate a layer and compress it as squashfs blocks, once a store."""

from __future__ import annotations

import argparse
import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sregistry.stages import arguments
from sregistry.stages.wording import amount, rated, short_digest
from sregistry.system.heartbeat import tell_user

if TYPE_CHECKING:
    from sregistry.layers import verify
    from sregistry.results.receipts import Blob, Exploded, Held
    from sregistry.store.store import Store


def register(stages: arguments.Stages) -> None:
    """Add the command."""
    stage = arguments.command(stages, "explode", run, "inflate and recompress a layer", "store", "compression", "output")
    stage.add_argument("--layer", type=Path, required=True, metavar="FILE", help="receipt of the layer")
    stage.add_argument("--manifest", type=Path, nargs="*", default=[], metavar="FILE", help="manifest.json of images that name it")
    stage.add_argument("--threads", type=int, default=1, metavar="N")
    stage.add_argument("--limit", type=int, metavar="BYTES", help="of the layer uncompressed")


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
    attempt = functools.partial(explode, path=layer.path, limit=options.limit, begun=lambda: begun.append(True))
    made = attempt(store, digest, diff_id, compression, threads)
    if diff_id is not None and not begun and not diff_id_proofs.known(store, digest, diff_id):
        # What was there may be another layer's, whose diff_id the config says: the bytes decide.
        made = attempt(store, digest, None, compression, threads)
        if made.diff_id != diff_id:
            raise unlike(f"layer {digest}", str(made.diff_id), diff_id)
    diff_id_proofs.keep(store, digest, made.diff_id)
    receipt(made, layer, store).write(options.output)
    said = rated(layer.size, start) if begun else f"{amount(layer.size)}, there already"
    tell_user(f"explode {short_digest(layer.digest)}: {said}")


def receipt(made: verify.Layer, blob: Blob, store: Store) -> Exploded:
    """Return the receipt of the exploded layer that was made of a blob."""
    from sregistry.results.receipts import Exploded

    return Exploded(
        digest=blob.digest,
        size=blob.size,
        diff_id=str(made.diff_id),
        variant=made.variant,
        path=str(made.folder),
        index=made.digest.hex(),
        estargz=blob.estargz,
        store=str(store.root),
        holds=held(made),
    )


def held(made: verify.Layer) -> tuple[Held, ...]:
    """Return what a receipt vouches for that is made of an exploded layer."""
    from sregistry.results.receipts import Held

    return tuple(Held(str(made.folder / name), size) for name, size in (("data", made.data), ("index", made.index)))
