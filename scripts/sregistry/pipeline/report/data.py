"""What a run made and what it cost, read for the pages of `snakemake --report`.

```
results/<image>/{manifest,image}.json ─┐
results/explode/<layer>.json ──────────┼▶ Overview ─▶ images.html, sharing.html, timeline.html, costs.html  (pipeline/report/pages.py)
benchmarks/<stage>/….tsv ──────────────┤
logs/<stage>/<image>.log ──────────────┤
results/summary.json ──────────────────┘
```

Nothing is written for it while a run lasts: Snakemake keeps a benchmark file for each job, which says how long
the job took, and whose own time is when it ended. What is missing or damaged is passed over, or shown as not
made: a report says what is there, it fails for nothing.
"""

from __future__ import annotations

import contextlib
import csv
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from sregistry.errors import SregistryError
from sregistry.results import receipts
from sregistry.results.resolved import Resolved

#: The stages that have jobs, in the order of the data.
STAGES = ("tags", "targets", "manifest", "manifests", "layer", "explode", "metadata", "sandbox", "image", "catalog")

#: Endings of log lines are looked for so far from the end of a log.
_LOG = 64 << 10


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
    """An image that is not made, and why, as far as its logs say."""

    uri: str
    why: str


class Job(NamedTuple):
    """One job; times in seconds since 1970, memory in bytes (None: it was too short to be measured)."""

    stage: str
    name: str
    start: float
    end: float
    memory: float | None

    @property
    def subject(self) -> str:
        """The image, or the layer, that it worked on."""
        return self.name.rpartition(".")[0] if self.stage == "explode" else self.name

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.start


@dataclass(frozen=True, kw_only=True, slots=True)
class Overview:
    """What the pages show: images in the order asked for, jobs in the order of their start, bytes of exploded layers."""

    images: tuple[Image, ...]
    missing: tuple[Missing, ...]
    jobs: tuple[Job, ...]
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
    every = tuple(_jobs(folder / "benchmarks"))
    reasons = _reasons(folder / "results/summary.json")
    images: list[Image] = []
    missing: list[Missing] = []
    exploded: set[str] = set()
    wanted = set(others)
    for item in asked:
        wanted.add(item.key)
        try:
            images.append(_image(folder / "results" / item.key, item.key, item.uri, every))
        except (SregistryError, OSError, KeyError) as error:
            # A manifest that can't be had says why in its place; for what came later the run's end and the logs do.
            why = reasons.get(item.path) or _complaint(folder / "logs", item.key)
            missing.append(Missing(item.uri, why or (error.message if isinstance(error, SregistryError) else "")))
        else:
            exploded |= {f"{digest}.{item.variant}" for digest in images[-1].layers}
    wanted |= exploded | {digest for image in images for digest in image.layers}
    return Overview(
        images=tuple(images),
        missing=tuple(missing),
        jobs=tuple(sorted((job for job in every if job.name in wanted), key=lambda job: (job.start, job.end, job.stage))),
        exploded=sum(_exploded(folder / "results/explode", exploded)),
    )


def _reasons(path: Path) -> dict[str, str]:
    """Return why images failed in the run that ended last, by their files."""
    try:
        return {image["path"]: image["reason"] for image in receipts.read(path)["images"] if image["reason"]}
    except (SregistryError, KeyError, TypeError):
        return {}


def _image(folder: Path, key: str, uri: str, jobs: Iterable[Job]) -> Image:
    """Read an image's receipts. Raises StoreError, DocumentError, OSError, KeyError."""
    resolved, made = Resolved.read(folder / "manifest.json"), receipts.read(folder / "image.json")
    return Image(
        key=key,
        uri=uri,
        platform=str(resolved.platform),
        format=made["format"],
        path=made["path"],
        digest=str(resolved.digest),
        version=made["version"],
        size=made["size"],
        layers={str(layer.blob.digest): layer.blob.size for layer in resolved.layers},
        seconds=sum(job.seconds for job in jobs if job.subject == key),
        made=datetime.fromtimestamp((folder / "image.json").stat().st_mtime, UTC),
    )


def _exploded(folder: Path, layers: Iterable[str]) -> Iterator[int]:
    """Yield the size of each exploded layer, as its receipt has it."""
    for name in layers:
        with contextlib.suppress(SregistryError, KeyError):
            yield sum(held["size"] or 0 for held in receipts.read(folder / f"{name}.json")["holds"])


def _complaint(folder: Path, key: str) -> str:
    """Return the error line of the image's last stage that has one."""
    for stage in reversed(STAGES):
        with contextlib.suppress(OSError), (folder / stage / f"{key}.log").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _LOG))
            lines = file.read().decode(errors="replace").splitlines()
            found = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
            if found:
                return found[-1]
    return ""


def _jobs(folder: Path) -> Iterator[Job]:
    """Read the benchmark files."""
    for stage in STAGES:
        for path in (folder / stage).glob("*.tsv"):
            try:
                end = path.stat().st_mtime
                with path.open(newline="") as file:
                    row = next(csv.DictReader(file, delimiter="\t"))
                seconds = float(row["s"])
                memory = None if row["max_rss"] in ("NA", "-") else float(row["max_rss"]) * (1 << 20)
            except (OSError, ValueError, KeyError, TypeError, StopIteration, csv.Error):
                continue
            yield Job(stage, path.name.removesuffix(".tsv"), end - seconds, end, memory)
