"""Receipts: small JSON files that the rules make; what they vouch for lies elsewhere.

```
{"holds": [{"path": …, "size": …[, "mtime_ns": …][, "inode": …]}], … what the stage has to say …}
```

`size` null asks only that the path is there. An image's name may be taken by another image of the
same size (squashfs pads to 4 KiB), so its receipt holds the time of the file as well, a sandbox's
the number of its folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sregistry.errors import SregistryError, StoreError, from_oserror
from sregistry.store.store import Store, write_atomic


def read(path: Path) -> dict[str, Any]:
    """Return a receipt. Raises StoreError: it can't be read."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise from_oserror(error, StoreError, "can't read") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: {error}", hint="remove that file") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} is damaged: no JSON object", hint="remove that file")
    return value


def write(path: Path, value: dict[str, Any]) -> None:
    """Write a receipt whole; equal values give equal bytes. Raises StoreError."""
    publish(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def publish(path: Path, data: bytes) -> None:
    """Write an output file whole; its folder is made. Raises StoreError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
    except OSError as error:
        raise from_oserror(error, StoreError, "can't write") from error


def hold(path: Path) -> dict[str, Any]:
    """Return the entry of `holds` for a published image. Raises OSError."""
    found = path.stat()
    if path.is_dir():
        return {"path": str(path), "size": None, "inode": found.st_ino}
    return {"path": str(path), "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def stale(receipt: Mapping[str, Any]) -> bool:
    """Tell whether something that the receipt holds is gone or another."""
    return not all(_held(item) for item in receipt.get("holds", ()))


def vouches(receipt: Path, path: Path) -> bool:
    """Tell whether a receipt says that the file or folder *path* is what its stage made, and it still is."""
    try:
        value = read(receipt)
    except SregistryError:
        return False
    return any(item["path"] == str(path) for item in value.get("holds", ())) and not stale(value)


def _held(item: dict[str, Any]) -> bool:
    try:
        found = Path(item["path"]).stat()
    except OSError:
        return False
    return (
        item["size"] in (None, found.st_size)
        and item.get("mtime_ns") in (None, found.st_mtime_ns)
        and item.get("inode") in (None, found.st_ino)
    )


def pinned(path: Path) -> str | None:
    """Return the text that an earlier run wrote to *path*, even if a failed refresh came since; None: there is none."""
    try:
        value = read(path)
        return value.get("pinned") if "error" in value else path.read_text()
    except (SregistryError, OSError):
        return None


def discard(path: Path, value: dict[str, Any]) -> None:
    """Remove a receipt that no longer counts; a manifest that was pinned before a failed refresh comes back."""
    pinned = value.get("pinned")
    if pinned:
        publish(path, pinned.encode())
    else:
        path.unlink(missing_ok=True)


def sweep(results: Path, variants: Mapping[str, str], store: Path, gathered: Path) -> list[Path]:
    """Discard the receipts of images that are stale, damaged, failed or of another store; return them.

    A receipt that is gone makes its stage run again, but only if an image needs it.

    Args:
        results: folder of the receipts.
        variants: names of the images' folders in it; of each, its compression's in the names of the receipts of exploded layers.
        store: where blobs and exploded layers are looked for.
        gathered: what the images' manifests say together; it counts only while all of them are there.
    """
    discarded = []
    seen: set[Path] = set()
    for key, variant in variants.items():
        folder = results / key
        exploded, blobs = _of_layers(results, key, variant)
        own = [folder / name for name in ("manifest.json", "metadata.json", "image.json", "record.json")]
        for path in (*own, *blobs, *exploded):
            if path in seen:  # images share layers
                continue
            seen.add(path)
            wanted = variant if path.name == "metadata.json" else None
            if path.is_file() and _outdated(path, store, wanted):
                discarded.append(path)
        # The sandbox points into exploded data, and is no receipt that could say so.
        if not all(path.is_file() for path in (folder / "metadata.json", *exploded)):
            (folder / "sandbox.index").unlink(missing_ok=True)
        if not (folder / "manifest.json").is_file():
            gathered.unlink(missing_ok=True)
    return discarded


def sweep_tags(results: Path, keys: Iterable[str], store: Path, chosen: Path) -> None:
    """Discard the lists of tags that are damaged or failed, of the patterns *keys*, and with one of them what was *chosen* of all."""
    for key in keys:
        path = results / "tags" / f"{key}.json"
        if path.is_file():
            _outdated(path, store)
        if not path.is_file():
            chosen.unlink(missing_ok=True)


def remade(results: Path, variants: Mapping[str, str], patterns: Iterable[str], store: Path, gathered: Path) -> set[Path]:
    """Return the outputs that a run makes anew because it sweeps first. Nothing on disk is changed.

    A dry run shows these jobs. An output that is missing is not among them, for Snakemake sees that itself.

    Args:
        results, variants, store, gathered: as for `sweep`.
        patterns: keys of the patterns, as for `sweep_tags`.
    """
    found = {path for key in patterns if _void(path := results / "tags" / f"{key}.json", store) and not _pinned(path)}
    for key, variant in variants.items():
        folder = results / key
        manifest, metadata, image, record = (folder / f"{name}.json" for name in ("manifest", "metadata", "image", "record"))
        if _void(manifest, store):
            # A manifest that was pinned comes back, newer than what was gathered of it.
            found.add(gathered if _pinned(manifest) else manifest)
        if _void(record, store):
            found.add(record)
        if image.is_file() and not _void(image, store):
            continue
        # Only an image that is to be made needs what is below it.
        exploded, blobs = _of_layers(results, key, variant)
        gone = [path for path in (metadata, *exploded) if not path.is_file() or _void(path, store, variant if path is metadata else None)]
        found |= {image, *gone, *((folder / "sandbox.index",) if gone else ())}
        found |= {blob for blob, made in zip(blobs, exploded, strict=True) if made in gone and _void(blob, store)}
    return {path for path in found if path.exists()}


def _of_layers(results: Path, key: str, variant: str) -> tuple[list[Path], list[Path]]:
    """Return the receipts of an image's exploded layers and of their blobs, each once, in one order."""
    layers = _layers(results / key / "manifest.json")
    blobs = [results / "layer" / f"{digest}.json" for digest in layers]
    return [results / "explode" / f"{digest}.{variant}.json" for digest in layers], blobs


def _outdated(path: Path, store: Path, variant: str | None = None) -> bool:
    """Discard the receipt if it no longer counts, and say so; what it holds may have to be of a *variant*, this version's format."""
    value = _read(path)
    outdated = _counts_no_longer(value, store, variant)
    if outdated:
        discard(path, value)
    else:
        _use(value, store)
    return outdated


def _void(path: Path, store: Path, variant: str | None = None) -> bool:
    """Tell whether a receipt is there and no longer counts."""
    return path.is_file() and _counts_no_longer(_read(path), store, variant)


def _pinned(path: Path) -> bool:
    """Tell whether what was pinned before a failed refresh takes the place of the receipt."""
    return bool(_read(path).get("pinned"))


def _read(path: Path) -> dict[str, Any]:
    """Return a receipt; one that can't be read is one of an error."""
    try:
        return read(path)
    except SregistryError as error:
        return {"error": str(error)}


def _counts_no_longer(value: Mapping[str, Any], store: Path, variant: str | None = None) -> bool:
    another = variant is not None and value.get("variant") != variant
    return "error" in value or value.get("store") not in (None, str(store)) or another or stale(value)


def _use(value: dict[str, Any], store: Path) -> None:
    """Mark what the receipt holds in the store as used now: the run that begins may need it."""
    for item in value.get("holds", ()):
        path = Path(item["path"])
        if store in path.parents and "mtime_ns" not in item:  # an image's own time is its identity
            # An exploded layer's time is that of its folder.
            Store(store).use(path.parent if path.name in ("data", "index") else path)


def _layers(manifest: Path) -> list[str]:
    """Return the digests of the image's layers, each once; none if there is no manifest."""
    try:
        return list(dict.fromkeys(str(layer["digest"]) for layer in read(manifest)["layers"]))
    except (SregistryError, KeyError, TypeError):
        return []
