"""The pages of a report: an Overview as HTML, without scripts, each page all that it shows.

```
images.html     each image: sizes, digest, times
sharing.html    each image a bar of its layers, by how many images have them
timeline.html   each job a bar from its start to its end
costs.html      where time and bytes went
```

The jobs are those that made what is there, whichever run they belong to: time in which none of them ran is
drawn as a narrow break, so that a layer of last month is no reason for an empty page.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sregistry.pipeline.report.data import STAGES, Overview
from sregistry.results import receipts
from sregistry.results.job_logs import JobRun

if TYPE_CHECKING:
    from jinja2 import Environment

#: Pages in the order of the report, and what it calls them.
PAGES = {"images": "Images", "sharing": "Shared layers", "timeline": "Timeline", "costs": "Time and bytes"}

#: Seconds without any job that are drawn as a break.
_PAUSE = 60
#: The width of a drawing in its own units, of a break, of the shortest job and of a tick's text in it; the height of a lane.
_WIDTH, _BREAK, _SHORTEST, _LABEL, _LANE = 1000, 24, 1.5, 70, 16


def write(overview: Overview, folder: Path) -> list[str]:
    """Write the pages; return their paths. Raises StoreError."""
    paths = []
    for name, page in pages(overview).items():
        path = folder / f"{name}.html"
        receipts.publish(path, page.encode())
        paths.append(str(path))
    return paths


def pages(overview: Overview) -> Mapping[str, str]:
    """Return the pages, name → HTML; equal overviews give equal pages."""
    views = {"images": _images, "sharing": _sharing, "timeline": _timeline, "costs": _costs}
    environment = _environment()
    return {
        name: environment.get_template(f"{name}.html").render({"title": title, "missing": overview.missing, **views[name](overview)})
        for name, title in PAGES.items()
    }


def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"size": size, "seconds": seconds, "short": _short}
    return environment


def size(count: float) -> str:
    """Write a number of bytes for people, in powers of 1000."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def seconds(duration: float) -> str:
    """Write a duration for people."""
    if duration < 9.95:
        return f"{duration:.2g} s" if duration >= 0.01 else "0 s"
    if duration < 99.5:
        return f"{duration:.0f} s"
    minutes, rest = divmod(round(duration), 60)
    if minutes < 100:
        return f"{minutes} min {rest:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours < 48 else f"{hours // 24} days"


def _short(digest: str) -> str:
    """Shorten a digest as Docker does."""
    return digest.rpartition(":")[2][:12]


def _images(overview: Overview) -> dict[str, Any]:
    users = overview.users()
    return {
        "images": overview.images,
        "unique": {image.key: sum(size or 0 for digest, size in image.layers.items() if users[digest] == 1) for image in overview.images},
        "total": {
            "size": sum(image.size for image in overview.images),
            "compressed": sum(image.compressed for image in overview.images),
            "unique": sum(size for digest, size in overview.layers().items() if users[digest] == 1),
            "distinct": sum(overview.layers().values()),
        },
    }


def _sharing(overview: Overview) -> dict[str, Any]:
    """Each image a bar as long as its layers together, each layer a piece whose colour says who else has it."""
    users = overview.users()
    longest = max((image.compressed for image in overview.images), default=0) or 1
    rows = []
    for image in overview.images:
        x, pieces = 0.0, []
        # What most images share comes first: what an image has for itself is then the end of its bar.
        for digest, count in sorted(image.layers.items(), key=lambda layer: -users[layer[0]]):
            width = (count or 0) / longest * _WIDTH
            pieces.append({"x": x, "width": width, "digest": digest, "size": count or 0, "users": users[digest]})
            x += width
        shared = sum(count or 0 for digest, count in image.layers.items() if users[digest] > 1)
        rows.append({"image": image, "pieces": pieces, "shared": shared})
    return {
        "rows": rows,
        "width": _WIDTH,
        "count": len(overview.images),
        "named": sum(image.compressed for image in overview.images),
        "distinct": sum(overview.layers().values()),
    }


def _timeline(overview: Overview) -> dict[str, Any]:
    """Each job a bar in the first lane that is free when it starts."""
    jobs = overview.jobs
    if not jobs:
        return {"jobs": 0}
    stretches = _stretches(jobs)
    busy = sum(end - start for start, end in stretches) or 1.0
    # With many breaks the drawing grows wider, so that half of its usual width is left for the jobs.
    scale = max(_WIDTH - _BREAK * (len(stretches) - 1), _WIDTH / 2) / busy
    step = _step(busy)
    starts, breaks, x = [], [], 0.0
    ticks: list[dict[str, Any]] = []
    for number, (start, end) in enumerate(stretches):
        if number:
            breaks.append({"x": x, "seconds": start - stretches[number - 1][1]})
            x += _BREAK
        starts.append((start, x))
        ticks += [{"x": x + n * step * scale, "at": n * step} for n in range(int((end - start) / step) + 1)]
        x += (end - start) * scale

    width = x
    for tick, following in zip(ticks, [*ticks[1:], {"x": width}], strict=True):
        tick["label"] = following["x"] - tick["x"] > _LABEL

    def place(time: float) -> float:
        start, at = next(item for item in reversed(starts) if item[0] <= time)
        return at + (time - start) * scale

    ends: list[float] = []
    bars = []
    for job in jobs:
        at = place(job.start)
        length = max(_SHORTEST, job.seconds * scale)
        # By what is drawn: the shortest bars are longer than their jobs.
        lane = next((number for number, end in enumerate(ends) if end <= at + 0.01), len(ends))
        ends[lane : lane + 1] = [at + length]
        after = job.start - jobs[0].start
        bars.append({"job": job, "x": at, "width": length, "y": lane * _LANE, "after": after})
    return {
        "jobs": len(jobs),
        "bars": bars,
        "ticks": ticks,
        "breaks": breaks,
        "width": max(width, *ends),
        "lane": _LANE,
        "gap": _BREAK,
        "height": len(ends) * _LANE,
        "busy": busy,
        "began": datetime.fromtimestamp(jobs[0].start, UTC),
        "ended": datetime.fromtimestamp(max(job.end for job in jobs), UTC),
        "most": _most(jobs),
        "stages": [stage for stage in STAGES if any(job.stage == stage for job in jobs)],
        "rows": _by_stage(jobs, _first_and_last),
    }


def _stretches(jobs: Sequence[JobRun]) -> list[tuple[float, float]]:
    """Return from when to when jobs ran, without the pauses."""
    found: list[tuple[float, float]] = []
    for job in jobs:
        if found and job.start - found[-1][1] < _PAUSE:
            found[-1] = found[-1][0], max(found[-1][1], job.end)
        else:
            found.append((job.start, job.end))
    return found


def _most(jobs: Sequence[JobRun]) -> int:
    """Return how many jobs ran at a time at most."""
    most = running = 0
    for _, change in sorted([(job.end, -1) for job in jobs] + [(job.start, 1) for job in jobs]):
        running += change
        most = max(most, running)
    return most


def _step(length: float) -> float:
    """Return a round number of seconds of which *length* has twelve at most."""
    for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400):
        if length / step <= 12:
            return step
    return 86400


def _by_stage(jobs: Sequence[JobRun], row: Callable[[list[JobRun]], dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for each stage that has jobs, made of them."""
    groups = {stage: [job for job in jobs if job.stage == stage] for stage in STAGES}
    return [{"stage": stage, "jobs": len(own), **row(own)} for stage, own in groups.items() if own]


def _first_and_last(jobs: list[JobRun]) -> dict[str, Any]:
    return {
        "first": datetime.fromtimestamp(min(job.start for job in jobs), UTC),
        "last": datetime.fromtimestamp(max(job.end for job in jobs), UTC),
    }


def _costs(overview: Overview) -> dict[str, Any]:
    """For each stage how many jobs, how long together, the longest, the most memory; and the bytes."""
    names = {image.key: image.uri for image in overview.images}
    layers = overview.layers()

    def sums(jobs: list[JobRun]) -> dict[str, Any]:
        longest = max(jobs, key=lambda job: job.seconds)
        return {
            "seconds": sum(job.seconds for job in jobs),
            "longest": longest.seconds,
            "subject": names.get(longest.subject) or (f"layer {_short(longest.subject)}" if longest.subject in layers else "all images"),
            "memory": max((job.memory or 0 for job in jobs), default=0),
        }

    rows = _by_stage(overview.jobs, sums)
    amounts: Sequence[tuple[str, int, str]] = (
        ("All layers", sum(image.compressed for image in overview.images), "as the registry has them, for each image anew"),
        ("Distinct layers", sum(layers.values()), "the same, what several images share counted once: all that is ever downloaded"),
        ("Exploded layers", overview.exploded, "the distinct layers as compressed blocks in the store, ready to be copied into images"),
        ("Image files", sum(image.size for image in overview.images), "in the storage folder"),
    )
    return {
        "rows": rows,
        "total": sum(row["seconds"] for row in rows),
        "longest": max((row["seconds"] for row in rows), default=0) or 1,
        "amounts": amounts,
        "most": max(count for _, count, _ in amounts) or 1,
    }
