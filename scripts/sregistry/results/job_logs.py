"""What the jobs of a run left beside their outputs: logs, benchmarks and failures.

```
logs/<rule>/<name>.log         its time says when the job ran
benchmarks/<rule>/<name>.tsv   seconds, memory; its time is when the job ended
<output>.failed                why there is no output (results/failures.py)
```
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sregistry.results.failures import Failure
from sregistry.results.paths import BENCHMARK, BENCHMARKS, EXPLODED, IMAGE, LAYER, LOG, MANIFEST, METADATA, RECORD, SANDBOX, Results

#: The rules whose jobs make one image, in the order of the data, each with its output.
OF_IMAGE = {"manifest": MANIFEST, "metadata": METADATA, "sandbox": SANDBOX, "image": IMAGE, "catalog": RECORD}


class Job(NamedTuple):
    """A job by its rule, the name of its log, and its output."""

    rule: str
    name: str
    output: Path


class JobRun(NamedTuple):
    """A job that ended; times in seconds since 1970, memory in bytes (None: it was too short to be measured)."""

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


@dataclass(frozen=True, slots=True)
class JobTrace:
    """What a job of this run left. Without a log of this run it did not run, and the rest is empty."""

    ran: bool
    seconds: float = 0.0
    failure: Failure | None = None


class JobLogs:
    """Reads what jobs left in the working folder.

    Args:
        begin: nanoseconds since 1970, by the clock of that folder: when the run began whose jobs count.
    """

    def __init__(self, place: Results, begin: int = 0) -> None:
        self._place, self._begin = place, begin
        self.trace = functools.cache(self._trace)

    def jobs(self, image: str, variant: str, digests: Iterable[str]) -> list[Job]:
        """Return the jobs of an image.

        Its own come first, because they tell what the registry refused.

        Args:
            image: its key.
            variant: of its compression.
            digests: of its layers, each once.
        """
        layers = list(digests)
        return [
            *(Job(rule, image, self._place.at(output, image=image)) for rule, output in OF_IMAGE.items()),
            *(Job("layer", digest, self._place.at(LAYER, digest=digest)) for digest in layers),
            *(Job("explode", f"{digest}.{variant}", self._place.at(EXPLODED, digest=digest, variant=variant)) for digest in layers),
        ]

    def log(self, job: Job) -> Path:
        """Return the path of a job's log."""
        return self._place.at(LOG, rule=job.rule, name=job.name)

    def _trace(self, job: Job) -> JobTrace:
        try:
            if self.log(job).stat().st_mtime_ns < self._begin:
                return JobTrace(ran=False)
        except OSError:
            return JobTrace(ran=False)
        path = self._place.at(BENCHMARK, rule=job.rule, name=job.name)
        run = _read(job.rule, path, since=self._begin)
        return JobTrace(ran=True, seconds=0.0 if run is None else run.seconds, failure=Failure.look(job.output))

    def runs(self, rules: Iterable[str]) -> Iterator[JobRun]:
        """Yield the jobs of *rules* that have a benchmark."""
        for rule in rules:
            for path in (self._place.top / BENCHMARKS / rule).glob("*.tsv"):
                run = _read(rule, path, since=self._begin)
                if run is not None:
                    yield run


def _read(rule: str, benchmark: Path, *, since: int) -> JobRun | None:
    """Read a benchmark of Snakemake; None for an older one, or none."""
    try:
        found = benchmark.stat()
        with benchmark.open(newline="") as file:
            row = next(csv.DictReader(file, delimiter="\t"))
        end, seconds = found.st_mtime, float(row["s"])
        memory = None if row["max_rss"] in ("NA", "-") else float(row["max_rss"]) * (1 << 20)
    except (OSError, ValueError, KeyError, TypeError, StopIteration, csv.Error):
        return None
    return JobRun(rule, benchmark.name.removesuffix(".tsv"), end - seconds, end, memory) if found.st_mtime_ns >= since else None
