"""What a run made and what it cost, read for the pages of `snakemake --report`.

```
results/<image>/{manifest,image}.json ─┐
results/explode/<layer>.json ──────────┼▶ Overview ─▶ images.html, sharing.html, timeline.html, costs.html  (pipeline/report/pages.py)
benchmarks/<stage>/….tsv ──────────────┤
results/<image>/*.failed ──────────────┤
results/summary.json ──────────────────┘
```

Nothing is written for it while a run lasts: Snakemake keeps a benchmark file for each job, which says how long
the job took, and whose own time is when it ended. What is missing or damaged is passed over, or shown as not
made: a report says what is there, it fails for nothing.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from sregistry.errors import SregistryError
from sregistry.results import receipts
from sregistry.results.failures import Failure
from sregistry.results.job_logs import Job, JobLogs, JobRun
from sregistry.results.paths import EXPLODED, IMAGE, MANIFEST, SUMMARY, Results
from sregistry.results.resolved import Resolved

#: The stages that have jobs, in the order of the data.
STAGES = ("tags", "targets", "manifest", "manifests", "layer", "explode", "metadata", "sandbox", "image", "catalog")


@dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """One image that was made; sizes in bytes, None where a registry does not publish them, seconds of its own jobs."""

    key: str
    uri: str
    platform: str
    format: str
    path: str
    digest: str
    version: str
    size: int
    layers: Mapping[str, int | None]
    seconds: float
    made: datetime

    @property
    def compressed(self) -> int:
        """What the registry sends for it, as far as it is known."""
        return sum(size or 0 for size in self.layers.values())


class Asked(NamedTuple):
    """An image that a run was about: its folder in results/, what it is called, its file, and how its layers are compressed."""

    key: str
    uri: str
    path: str
    variant: str


class Missing(NamedTuple):
    """An image that is not made, and why, as far as its jobs say."""

    uri: str
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """What the pages show: images in the order asked for, jobs in the order of their start, bytes of exploded layers."""

    images: tuple[Image, ...]
    missing: tuple[Missing, ...]
    jobs: tuple[JobRun, ...]
    exploded: int

    def users(self) -> Counter[str]:
        """Layer → how many of the images have it."""
        return Counter(digest for image in self.images for digest in image.layers)

    def layers(self) -> dict[str, int]:
        """Each layer of the images once, and its size, 0 where it is unknown."""
        return {digest: size or 0 for image in self.images for digest, size in image.layers.items()}


def read(folder: Path, asked: Iterable[Asked], *, others: Iterable[str] = ()) -> Overview:
    """Return what a run made.

    Args:
        folder: the run's working folder.
        asked: the images.
        others: names of jobs that belong to all of them.
    """
    place = Results(folder)
    logs = JobLogs(place)
    every = tuple(logs.runs(STAGES))
    reasons = _reasons(place)
    images: list[Image] = []
    missing: list[Missing] = []
    exploded: set[tuple[str, str]] = set()
    wanted = set(others)
    for item in asked:
        wanted.add(item.key)
        try:
            images.append(_image(place, item.key, item.uri, every))
        except (SregistryError, OSError) as error:
            # A manifest that can't be had says why in its place; for what came later the run's end and the jobs do.
            why = reasons.get(item.path) or _complaint(logs.jobs(item.key, item.variant, ()))
            missing.append(Missing(item.uri, why or (error.message if isinstance(error, SregistryError) else "")))
        else:
            exploded |= {(digest, item.variant) for digest in images[-1].layers}
    wanted |= {f"{digest}.{variant}" for digest, variant in exploded} | {digest for image in images for digest in image.layers}
    return Overview(
        images=tuple(images),
        missing=tuple(missing),
        jobs=tuple(sorted((job for job in every if job.name in wanted), key=lambda job: (job.start, job.end, job.stage))),
        exploded=sum(_exploded(place, exploded)),
    )


def _reasons(place: Results) -> dict[str, str]:
    """Return why images failed in the run that ended last, by their files."""
    try:
        return {image["path"]: image["reason"] for image in receipts.read(place.at(SUMMARY))["images"] if image["reason"]}
    except (SregistryError, KeyError, TypeError):
        return {}


def _image(place: Results, key: str, uri: str, jobs: Iterable[JobRun]) -> Image:
    """Read an image's receipts. Raises StoreError, DocumentError, OSError."""
    path = place.at(IMAGE, image=key)
    resolved, made = Resolved.read(place.at(MANIFEST, image=key)), receipts.Image.read(path)
    return Image(
        key=key,
        uri=uri,
        platform=str(resolved.platform),
        format=made.format,
        path=made.path,
        digest=str(resolved.digest),
        version=made.version,
        size=made.size,
        layers={str(layer.blob.digest): layer.blob.size for layer in resolved.layers},
        seconds=sum(job.seconds for job in jobs if job.subject == key),
        made=datetime.fromtimestamp(path.stat().st_mtime, UTC),
    )


def _exploded(place: Results, layers: Iterable[tuple[str, str]]) -> Iterator[int]:
    """Yield the size of each exploded layer, as its receipt has it."""
    for digest, variant in layers:
        with contextlib.suppress(SregistryError):
            yield sum(held.size or 0 for held in receipts.Exploded.read(place.at(EXPLODED, digest=digest, variant=variant)).holds)


def _complaint(jobs: Iterable[Job]) -> str:
    """Return why the last of an image's jobs failed that did."""
    return next((str(failure) for job in reversed([*jobs]) if (failure := Failure.look(job.output)) is not None), "")
