"""Exploded layers that are gone or damaged, made anew by the stage that meets one: no image is made of damaged data.

```
DamagedLayer ─▶ its folder removed, if it is ours ─▶ explode again ┬ blob of the layer's receipt
                                                                   └ base environment, metadata.tar
```

Rows of an index follow the tar stream: what was merged stays right, whoever explodes the layer again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from sregistry.errors import SregistryError
from sregistry.image.metadata import environment_tar
from sregistry.layers import verify
from sregistry.layers.compression import Compression
from sregistry.layers.explode import explode, explode_tar
from sregistry.layers.index import DamagedLayer
from sregistry.oci.documents import Digest
from sregistry.results import receipts
from sregistry.results.paths import EXPLODED, LAYER, Results
from sregistry.stages.explode import receipt
from sregistry.store import exploded
from sregistry.store.store import Store
from sregistry.system.cores import usable
from sregistry.system.heartbeat import Kind, tell_user

if TYPE_CHECKING:
    from sregistry.results.resolved import Resolved

T = TypeVar("T")


class Sources:
    """What the exploded layers of an image are made of: the base environment, layers from the lowest, the metadata.

    Args:
        manifest: the image's manifest.json; the receipts of its layers are found from there.
        metadata: the metadata's receipt, with its tar beside it.
    """

    def __init__(self, resolved: Resolved, manifest: Path, metadata: Path) -> None:
        self._digests = [layer.blob.digest for layer in resolved.layers]
        self._results, self._metadata = Results.around(manifest), metadata

    def remade(self, number: int, damaged: DamagedLayer) -> tuple[Path, bytes]:
        """Make layer *number* anew; return its folder and the digest of its index.

        Raises:
            SregistryError: there is nothing to make it of; the next run fetches and explodes it.
        """
        said = exploded.named(damaged.folder)
        if said is None:
            raise damaged
        variant, diff_id = said
        store = Store(Path(receipts.Metadata.read(self._metadata).store))
        if store.root in damaged.folder.parents:
            with store.lock(exploded.lock(variant, diff_id)), contextlib.suppress(OSError):
                # Somebody else may have made it anew meanwhile.
                if verify.owned(store, damaged.folder) and verify.wrong(damaged.folder):
                    exploded.discard(store, damaged.folder)
        made = self._explode(number, store, diff_id, Compression.named(variant))
        found = made.folder, made.digest
        tell_user(f"{damaged.message}; it was made anew", Kind.WARNING)
        return found

    def _explode(self, number: int, store: Store, diff_id: Digest, compression: Compression) -> verify.Layer:
        if number == 0:
            return explode_tar(store, environment_tar(), compression)
        if number > len(self._digests):
            return explode_tar(store, self._metadata.with_suffix(".tar").read_bytes(), compression)
        blob = self._digests[number - 1]
        path = self._results.at(EXPLODED, digest=blob, variant=compression.variant)
        try:
            layer = receipts.Blob.read(self._results.at(LAYER, digest=blob))
            made = explode(store, blob, diff_id, compression, usable(), path=layer.path)
            receipt(made, layer, store).write(path)
        except SregistryError:
            path.unlink(missing_ok=True)  # so that the next run explodes it, and fetches it first if need be
            raise
        return made


def repairing(folders: Sequence[Path], sources: Sources, use: Callable[[dict[int, tuple[Path, bytes]]], T]) -> T:
    """Return what *use* makes of exploded layers; those that are damaged are made anew, once each.

    Args:
        folders: of the layers, in order.
        use: is given folder and digest of the index of the layers that were made anew, by their numbers. Raises DamagedLayer.
    """
    current = list(folders)
    made: dict[int, tuple[Path, bytes]] = {}
    while True:
        try:
            return use(made)
        except DamagedLayer as damaged:
            numbers = [number for number, folder in enumerate(current) if folder == damaged.folder]
            if not numbers or numbers[0] in made:
                raise
            found = sources.remade(numbers[0], damaged)
            for number in numbers:
                made[number] = found
                current[number] = found[0]
