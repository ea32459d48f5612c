"""Why a stage failed: a small JSON file in place of its output, for the summary, `sregistry pull`, the report and the next run.

```
results/<image>/{metadata,sandbox,image,…}.failed ┐     cause "published": its publisher may mend it, and the next run
results/layer/<digest>.failed                     ├─▶   asks again what the tag means
results/explode/<digest>.<variant>.failed         ┘     "here": this machine, the network or the configuration; "bug": ours
```

A tag is asked once, and what it meant stays pinned. An image that was published wrongly and then repaired under the same
tag would fail for ever. A failure stands beside the output that is missing, and goes when its stage starts again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sregistry.errors import SregistryError, StoreError, TransferError, UnavailableError, UsageError
from sregistry.results import receipts
from sregistry.results.paths import EXPLODED, FAILED, IMAGE, LAYER, MANIFEST, METADATA, SANDBOX, Results
from sregistry.results.resolved import Unresolved

PUBLISHED, HERE, BUG = "published", "here", "bug"

_OF_IMAGE = (METADATA, SANDBOX, IMAGE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure(receipts.Receipt):
    """Why a stage failed: the message, a hint, its exit code, and the cause: PUBLISHED, HERE or BUG."""

    error: str
    hint: str | None = None
    exit_code: int = 1
    cause: str = PUBLISHED

    @classmethod
    def of(cls, error: BaseException, stage: str) -> Failure:
        """Return the failure of *stage*."""
        if not isinstance(error, SregistryError):
            return cls(error=f"{stage}: {type(error).__name__}: {error}; please report this", cause=BUG)
        # A manifest that could not be resolved is asked for again anyway, or was pinned before and is good.
        here = (StoreError, UnavailableError, TransferError, UsageError, Unresolved)
        cause = HERE if isinstance(error, here) or isinstance(error.__cause__, OSError) else PUBLISHED
        return cls(error=error.message, hint=error.hint, exit_code=error.exit_code, cause=cause)

    @classmethod
    def look(cls, output: Path) -> Failure | None:
        """Return why there is no *output*, if its stage said so."""
        try:
            return cls.read(output.with_suffix(FAILED))
        except SregistryError:
            return None

    def __str__(self) -> str:
        return str(SregistryError(self.error, hint=self.hint))


def note(output: Path, failure: Failure) -> None:
    """Write down why there is no *output*."""
    with contextlib.suppress(SregistryError):  # the log says it, too
        failure.write(output.with_suffix(FAILED))


def forget(outputs: Iterable[Path]) -> None:
    """Remove what is known of failures to make *outputs*."""
    for output in outputs:
        with contextlib.suppress(OSError):
            output.with_suffix(FAILED).unlink()


def forget_image(manifest: Path) -> None:
    """Remove what is known of failures to make an image of what its manifest.json said before."""
    place = Results.around(manifest)
    forget(place.at(output, image=manifest.parent.name) for output in _OF_IMAGE)


def unmade(place: Results, keys: Iterable[tuple[str, str]]) -> set[str]:
    """Return the keys of those images that were never made of the manifests that are pinned, because of what was published.

    Args:
        keys: of the images, each with the name of its compression in the names of receipts.
    """
    folders = (place.at(LAYER, digest="_").parent, place.at(EXPLODED, digest="_", variant="_").parent)
    layers = {path for folder in folders for path in folder.glob(f"*{FAILED}") if _is_published(path)}
    return {key for key, variant in keys if _failed(place, key, variant, layers)}


def _failed(place: Results, key: str, variant: str, layers: set[Path]) -> bool:
    own = any(_is_published(place.at(output, image=key)) for output in _OF_IMAGE)
    if not own and not layers:
        return False
    try:
        manifest = receipts.read(place.at(MANIFEST, image=key))
        names = {str(layer["digest"]) for layer in manifest["layers"]}
        digest = manifest["digest"]
    except (SregistryError, KeyError, TypeError):  # it is asked for anyway
        return False
    needed = {place.at(LAYER, digest=name) for name in names} | {place.at(EXPLODED, digest=name, variant=variant) for name in names}
    if not own and layers.isdisjoint(path.with_suffix(FAILED) for path in needed):
        return False
    try:
        made: Mapping[str, Any] = receipts.read(place.at(IMAGE, image=key))
    except SregistryError:
        return True
    return bool(made.get("manifest", digest) != digest)


def _is_published(output: Path) -> bool:
    failure = Failure.look(output)
    return failure is not None and failure.cause == PUBLISHED
