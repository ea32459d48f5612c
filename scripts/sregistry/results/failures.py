"""Marks of images that could not be made for a reason that their publisher may mend.

```
results/<image>/{metadata,sandbox,image}.failed ┐
results/layer/<digest>.failed                   ├─▶ a tag that leads there is asked again by the next run
results/explode/<digest>.<variant>.failed       ┘
```

A tag is asked once, and what it meant stays pinned. An image that was published wrongly and then repaired under the same
tag would fail for ever. A mark stands beside the output that is missing, and goes when that is made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from sregistry.errors import SregistryError, StoreError, TransferError, UnavailableError, UsageError
from sregistry.results import receipts

_OF_IMAGE = ("metadata", "sandbox", "image")
_ENDING = ".failed"


def note(output: Path, error: SregistryError) -> None:
    """Mark a stage's *output* as missing, if the reason is in what was published and not in this machine, network or configuration."""
    here = isinstance(error, (StoreError, UnavailableError, TransferError, UsageError)) or isinstance(error.__cause__, OSError)
    if not here:
        with contextlib.suppress(SregistryError):  # it only saves asking by `refresh`
            receipts.write(output.with_suffix(_ENDING), {"error": str(error)})


def forget(outputs: Iterable[Path]) -> None:
    """Remove the marks of what is there now."""
    for output in outputs:
        with contextlib.suppress(OSError):
            output.with_suffix(_ENDING).unlink()


def outputs(folder: Path) -> list[Path]:
    """Return the outputs of the stages of one image, by its *folder* in the results."""
    return [folder / f"{stage}.json" for stage in _OF_IMAGE]


def unmade(results: Path, keys: Iterable[tuple[str, str]]) -> set[str]:
    """Return the keys of those images that were never made of the manifests that are pinned, because of what was published.

    Args:
        results: folder of the receipts.
        keys: of the images, each with the name of its compression in the names of receipts.
    """
    layers = {path.name.removesuffix(_ENDING) for stage in ("layer", "explode") for path in (results / stage).glob(f"*{_ENDING}")}
    return {key for key, variant in keys if _failed(results / key, variant, layers)}


def _failed(folder: Path, variant: str, layers: set[str]) -> bool:
    own = any(output.with_suffix(_ENDING).exists() for output in outputs(folder))
    if not own and not layers:
        return False
    try:
        manifest = receipts.read(folder / "manifest.json")
        names = {str(layer["digest"]) for layer in manifest["layers"]}
        digest = manifest["digest"]
    except (SregistryError, KeyError, TypeError):  # it is asked for anyway
        return False
    if not own and layers.isdisjoint({*names, *(f"{name}.{variant}" for name in names)}):
        return False
    try:
        made = receipts.read(folder / "image.json")
    except SregistryError:
        return True
    return bool(made.get("manifest", digest) != digest)
