"""The results: what was run, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.batches import SHARED, Batch
from benchmarks.measure import Cost
from benchmarks.peers import REFERENCE, WORKS
from benchmarks.scale import Scaled


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One run: `size` is what it made, in bytes."""

    work: str
    peer: str
    round: int
    cost: Cost
    size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """An image as published: bytes of its tars and blobs, entries of the tars."""

    image: str
    layers: int
    tar: int
    size: int
    entries: int


@dataclass(frozen=True, kw_only=True)
class Results:
    """All that a benchmark found.

    Args:
        command: how to do it again.
        machine: words about it.
        images: what the registry served.
        peers: name → title, with version.
        missing: name → what the machine lacks.
        runs: works of the peers.
        sample: the layer of `levels`.
        levels: runs on that layer; `peer` is the level's title.
        scale: our stages on images of any number of entries.
        batches: our pipeline on any number of images.
    """

    command: str
    machine: str
    images: Sequence[Content] = ()
    peers: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    runs: Sequence[Run] = ()
    sample: Content | None = None
    levels: Sequence[Run] = ()
    scale: Sequence[Scaled] = ()
    batches: Sequence[Batch] = ()


def markdown(results: Results) -> str:
    """Return the tables."""
    rounds = max((run.round for run in [*results.runs, *results.levels]), default=1)
    parts = [
        f"`{results.command}` · {results.machine} · {rounds} {'round' if rounds == 1 else 'rounds, interleaved'}\n",
        *([_images(results.images)] if results.images else []),
        *(f"Left out: {name}; the machine lacks {what}.\n" for name, what in results.missing.items()),
    ]
    for work, title in WORKS.items():
        rows = _rows(results, work)
        if rows:
            parts += [f"### {title}\n", _table(_HEAD, rows)]
    if results.levels and results.sample:
        parts += [f"### Levels, on one layer of {_mega(results.sample.tar)} MB ({results.sample.entries:,} entries)\n", _levels(results)]
    if results.runs or results.levels:
        parts.append(_LEGEND)
    if results.scale:
        parts += ["### Scale\n", _scale(results.scale), _SCALE_LEGEND]
    if results.batches:
        parts += ["### Batches\n", _batches(results.batches), _BATCHES_LEGEND]
    return "\n".join(parts)


_HEAD = [
    *("peer", "wall s, min / median", "CPU s", "memory MB, tree / process", "disk MB, peak / beyond what stays", "image MB"),
    *("times as fast", "1/n of the CPU", "× size"),
]
_LEGEND = """\
Medians, unless said otherwise. Memory: of the process tree (largest sum of PSS, sampled) and of its largest process (VmHWM). \
Disk: largest growth of the file system while it ran, and how much of that was gone at the end. \
The last three columns compare with Apptainer's `pull` as it is.
"""


_SCALE_LEGEND = """\
Each stage in a process of its own, with one thread. Entries: of the tars; of the image's tree in its last stage. \
Memory: the largest resident set.
"""

_BATCHES_LEGEND = f"""\
{SHARED:.0%} of an image's layers are those of all others; each layer is one file of a few bytes. Plan: a dry run of all jobs but \
the manifests'. Empty: from nothing, where a copy of what a stage made is its whole work; engine is Snakemake's own CPU time, memory \
its largest resident set. Whole: from nothing, the stages themselves, with a registry on the same cores. Again: nothing is left to do.
"""


def _images(contents: Sequence[Content]) -> str:
    return _table(
        ["image", "layers", "tar MB", "compressed MB", "entries"],
        [[f"`{c.image}`", str(c.layers), _mega(c.tar), _mega(c.size), f"{c.entries:,}"] for c in contents],
    )


def _scale(found: Sequence[Scaled]) -> str:
    rows = [
        [
            *(s.case, s.stage, f"{s.entries:,}", f"{s.cpu:.2f}", f"{s.cpu / s.entries * 1e6:,.1f}"),
            *(_mega(s.memory), f"{s.memory / s.entries:,.0f}"),
        ]
        for s in found
    ]
    return _table(["case", "stage", "entries", "CPU s", "µs an entry", "memory MB", "bytes an entry"], rows)


def _batches(found: Sequence[Batch]) -> str:
    rows = [
        [
            *(f"{b.images}", str(b.layers), f"{b.jobs:,}", f"{b.plan.wall:.1f}", f"{b.empty.wall:.1f}", f"{b.jobs / b.empty.wall:.0f}"),
            *(f"{b.empty.own / b.jobs * 1e3:.1f}", _mega(b.empty.memory)),
            *(f"{b.whole.wall:.1f}", f"{(b.whole.own + b.whole.jobs) / b.jobs * 1e3:.0f}", f"{b.again.wall:.1f}"),
        ]
        for b in found
    ]
    empty = ["empty s", "jobs a second", "engine ms a job", "memory MB"]
    return _table(["images", "layers each", "jobs", "plan s", *empty, "whole s", "CPU ms a job", "again s"], rows)


def _rows(results: Results, work: str) -> list[list[str]]:
    # Whatever the level, the measure is a pull as it is.
    reference = _of(results.runs, "cold" if work == "fast" else work, REFERENCE)
    rows = []
    for peer, title in results.peers.items():
        runs = _of(results.runs, work, peer)
        if not runs:
            continue
        costs = [run.cost for run in runs]
        same = peer == REFERENCE and work != "fast"
        rows.append(
            [
                title + _FAST.get(peer, "") if work == "fast" else title,
                _wall(costs),
                f"{median(cost.cpu for cost in costs):.1f}",
                f"{_middle(costs, lambda c: c.memory_tree)} / {_middle(costs, lambda c: c.memory_process)}",
                f"{_middle(costs, lambda c: c.disk_peak)} / {_middle(costs, lambda c: c.disk_peak - c.disk_left)}",
                _mega(median(run.size for run in runs)),
                *(["1", "1", "1"] if same else _ratios(runs, reference)),
            ]
        )
    return rows


#: What the fastest level is, for each peer.
_FAST = {"ours": ", level fast", REFERENCE: " `build`, gzip 1", "tools": ", gzip 1"}


def _of(runs: Iterable[Run], work: str, peer: str) -> list[Run]:
    return [run for run in runs if (run.work, run.peer) == (work, peer)]


def _ratios(runs: Sequence[Run], reference: Sequence[Run]) -> list[str]:
    if not reference:
        return ["–"] * 3
    wall, cpu, size = (
        median(of(run) for run in reference) / max(median(of(run) for run in runs), 1e-9)
        for of in (lambda r: r.cost.wall, lambda r: r.cost.cpu, lambda r: float(r.size))
    )
    return [f"{wall:.1f}", f"{cpu:.1f}", f"{1 / size:.3f}" if size else "–"]


def _levels(results: Results) -> str:
    assert results.sample is not None
    rows = []
    for title in dict.fromkeys(run.peer for run in results.levels):
        runs = [run for run in results.levels if run.peer == title]
        walls, size = [run.cost.wall for run in runs], median(run.size for run in runs)
        rows.append(
            [
                title,
                _wall([run.cost for run in runs]),
                f"{results.sample.tar / 1e6 / min(walls):.0f}",
                f"{median(run.cost.cpu for run in runs):.1f}",
                _mega(size),
                f"{size / results.sample.tar:.3f}",
            ]
        )
    return _table(["level", "wall s, min / median", "MB/s, best", "CPU s", "MB", "of the tar"], rows)


def _wall(costs: Sequence[Cost]) -> str:
    walls = [cost.wall for cost in costs]
    return f"{min(walls):.1f} / {median(walls):.1f}"


def _middle(costs: Sequence[Cost], of: Callable[[Cost], int]) -> str:
    return _mega(median(of(cost) for cost in costs))


def _mega(size: float) -> str:
    """Return bytes in units of 10⁶."""
    return f"{size / 1e6:,.0f}" if size >= 1e7 else f"{size / 1e6:.1f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; all but the first column are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
