"""Receipts that no longer count, discarded before a run looks for what is there: their stages run again.

```
stale: what it holds is gone or another ┐
damaged, of a failure, of another store ├─▶ sweep, sweep_tags: discarded        remade: only told, for a dry run
metadata of another format              ┘
```
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from sregistry.results.paths import EXPLODED, IMAGE, LAYER, MANIFEST, METADATA, RECORD, SANDBOX, TAGS, Results
from sregistry.results.receipts import Vouched, discard, layer_digests
from sregistry.store.store import Store


def sweep(place: Results, variants: Mapping[str, str], store: Path, gathered: Path) -> list[Path]:
    """Discard the receipts of images that are stale, damaged, failed or of another store; return them.

    A receipt that is gone makes its stage run again, but only if an image needs it.

    Args:
        variants: names of the images' folders in it; of each, its compression's in the names of the receipts of exploded layers.
        store: where blobs and exploded layers are looked for.
        gathered: what the images' manifests say together; it counts only while all of them are there.
    """
    discarded = []
    seen: set[Path] = set()
    for key, variant in variants.items():
        exploded, blobs = _of_layers(place, key, variant)
        manifest, metadata, *later = (place.at(name, image=key) for name in (MANIFEST, METADATA, IMAGE, RECORD))
        for path in (manifest, metadata, *later, *blobs, *exploded):
            if path in seen:  # images share layers
                continue
            seen.add(path)
            if path.is_file() and _outdated(path, store, variant if path is metadata else None):
                discarded.append(path)
        # The sandbox points into exploded data, and is no receipt that could say so.
        if not all(path.is_file() for path in (metadata, *exploded)):
            place.at(SANDBOX, image=key).unlink(missing_ok=True)
        if not manifest.is_file():
            gathered.unlink(missing_ok=True)
    return discarded


def sweep_tags(place: Results, keys: Iterable[str], store: Path, chosen: Path) -> None:
    """Discard damaged or failed tag lists of the patterns *keys*; if one is missing, discard the gathered list *chosen* as well."""
    for key in keys:
        path = place.at(TAGS, pattern=key)
        if path.is_file():
            _outdated(path, store)
        if not path.is_file():
            chosen.unlink(missing_ok=True)


def remade(place: Results, variants: Mapping[str, str], patterns: Iterable[str], store: Path, gathered: Path) -> set[Path]:
    """Return the outputs that a run makes anew because it sweeps first. Nothing on disk is changed.

    A dry run shows these jobs. An output that is missing is not among them, for Snakemake sees that itself.

    Args:
        place, variants, store, gathered: as for `sweep`.
        patterns: keys of the patterns, as for `sweep_tags`.
    """
    lists = (place.at(TAGS, pattern=key) for key in patterns)
    found = {path for path in lists if _void(path, store) and not Vouched.look(path).pinned}
    for key, variant in variants.items():
        manifest, metadata, sandbox, image, record = (place.at(name, image=key) for name in (MANIFEST, METADATA, SANDBOX, IMAGE, RECORD))
        if _void(manifest, store):
            # A manifest that was pinned comes back, newer than what was gathered of it.
            found.add(gathered if Vouched.look(manifest).pinned else manifest)
        if _void(record, store):
            found.add(record)
        if image.is_file() and not _void(image, store):
            continue
        # Only an image that is to be made needs what is below it.
        exploded, blobs = _of_layers(place, key, variant)
        gone = [path for path in (metadata, *exploded) if not path.is_file() or _void(path, store, variant if path is metadata else None)]
        found |= {image, *gone, *((sandbox,) if gone else ())}
        found |= {blob for blob, made in zip(blobs, exploded, strict=True) if made in gone and _void(blob, store)}
    return {path for path in found if path.exists()}


def _of_layers(place: Results, key: str, variant: str) -> tuple[list[Path], list[Path]]:
    """Return the receipts of an image's exploded layers and of their blobs, each once, in one order."""
    layers = layer_digests(place.at(MANIFEST, image=key))
    return [place.at(EXPLODED, digest=one, variant=variant) for one in layers], [place.at(LAYER, digest=one) for one in layers]


def _outdated(path: Path, store: Path, variant: str | None = None) -> bool:
    """Discard the receipt if it no longer counts, and say so; what it holds may have to be of a *variant*, this version's format."""
    value = Vouched.look(path)
    outdated = value.is_void(store, variant)
    if outdated:
        discard(path, value)
    else:
        _use(value, store)
    return outdated


def _void(path: Path, store: Path, variant: str | None = None) -> bool:
    """Tell whether a receipt is there and no longer counts."""
    return path.is_file() and Vouched.look(path).is_void(store, variant)


def _use(value: Vouched, store: Path) -> None:
    """Mark what the receipt holds in the store as used now: the run that begins may need it."""
    for item in value.holds:
        path = Path(item.path)
        if store in path.parents and item.mtime_ns is None:  # an image's own time is its identity
            # An exploded layer's time is that of its folder.
            Store(store).use(path.parent if path.name in ("data", "index") else path)
