"""How far a run is, and how that is shown: live bars on a terminal, plain lines in a log.

```
manifest.json ─ layers, sizes ┐
<store>/ingest/….partial      ├─▶ Tracker.look() ─▶ View ─▶ Bars │ Lines │ Silent
receipts, pulse ──────────────┘
```

Nothing is asked of the jobs but the positions of `pulse`: a download is as far as its partial file is long.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

from sregistry.errors import SregistryError
from sregistry.oci.documents import Digest
from sregistry.store.store import Store
from sregistry.system import heartbeat
from sregistry.terminal import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Seconds between two looks, between two lines of a log, and that a rate is a mean of.
LOOK, LINE, WINDOW = 0.25, 10.0, 10.0

Clock = Callable[[], float]


class Step(IntEnum):
    """Where a layer is, in order."""

    WAITING = 0
    FETCHING = 1
    FETCHED = 2
    EXPLODING = 3
    DONE = 4


class Rate:
    """A mean over the last WINDOW seconds."""

    def __init__(self) -> None:
        self._points: deque[tuple[float, float]] = deque()

    def add(self, now: float, value: float) -> float:
        """Take a value that grows, and return by how much it does a second."""
        if self._points and value < self._points[-1][1]:
            self._points.clear()  # it was begun anew
        self._points.append((now, value))
        while now - self._points[0][0] > WINDOW and len(self._points) > 2:
            self._points.popleft()
        seconds = now - self._points[0][0]
        return (value - self._points[0][1]) / seconds if seconds > 0 else 0.0


@dataclass(slots=True)
class LayerView:
    """A layer: `size` is None where a manifest of schema 1 does not say it; both counts are of compressed bytes."""

    digest: Digest
    size: int | None
    step: Step = Step.WAITING
    fetched: int = 0
    exploded: int = 0
    whole: bool = False  # a SIF: there is nothing to explode
    announced: bool = False
    speed: float = 0.0
    rate: Rate = field(default_factory=Rate)

    @property
    def known(self) -> int:
        """Its size, as far as it is known."""
        return self.fetched if self.size is None else self.size


@dataclass(slots=True)
class View:
    """What is to be shown: the layers, lines that are new, and rates in bytes a second; `work` counts both steps."""

    layers: Sequence[LayerView] = ()
    lines: Sequence[str] = ()
    fetching: float = 0.0
    exploding: float = 0.0
    working: float = 0.0

    @property
    def done(self) -> int:
        """How many layers are ready."""
        return sum(layer.step is Step.DONE for layer in self.layers)

    @property
    def whole(self) -> bool:
        """Whether there were layers, and all are ready."""
        return 0 < len(self.layers) == self.done

    @property
    def total(self) -> int:
        """Bytes of all layers."""
        return sum(layer.known for layer in self.layers)

    @property
    def fetched(self) -> int:
        """Bytes that are there."""
        return sum(layer.fetched for layer in self.layers)

    @property
    def exploded(self) -> int:
        """Bytes that have been exploded."""
        return sum(layer.known if layer.whole and layer.step is Step.DONE else layer.exploded for layer in self.layers)

    @property
    def left(self) -> float | None:
        """Seconds left, None as long as nobody can tell."""
        rest = 2 * self.total - self.fetched - self.exploded
        return rest / self.working if self.working > 0 else None


class Tracker:
    """Looks at what a run has done so far.

    Args:
        results: folder of the receipts.
        keys: the images' folders in it.
        variant: the compression's.
        store: where layers go.
        folder: where jobs publish their pulse.
        clock: seconds.
    """

    def __init__(self, results: Path, keys: Iterable[str], variant: str, store: Store, folder: Path, clock: Clock = time.monotonic) -> None:
        self._results, self._variant, self._store, self._folder, self._clock = results, variant, store, folder, clock
        self._keys = tuple(keys)
        self._seen: dict[str, tuple[int, bytes]] = {}
        self._read: dict[str, bytes] = {}
        # As long as it means the same, there is nothing to be done for an image that is made.
        self._made = {key: self._manifest(key) for key in self._keys if (results / key / "image.json").exists()}
        self._layers: dict[str, LayerView] = {}
        self._said = 0
        self._fetching, self._exploding, self._working = Rate(), Rate(), Rate()

    def look(self) -> View:
        """Return how things are now."""
        now = self._clock()
        said, lines = self._heard(), []
        for key in self._keys:
            self._resolve(key)
        for layer in self._layers.values():
            if layer.step is not Step.DONE:
                lines += self._step(layer)
                layer.speed = layer.rate.add(now, layer.exploded if layer.step is Step.EXPLODING else layer.fetched)
        view = View(layers=tuple(self._layers.values()), lines=[*lines, *said])
        view.fetching = self._fetching.add(now, view.fetched)
        view.exploding = self._exploding.add(now, view.exploded)
        view.working = self._working.add(now, view.fetched + view.exploded)
        return view

    def _manifest(self, key: str) -> bytes:
        """Return manifest.json, read once for each time that it was written; empty if there is none."""
        path = self._results / key / "manifest.json"
        try:
            time = path.stat().st_mtime_ns
            if self._seen.get(key, (0, b""))[0] != time:
                self._seen[key] = time, path.read_bytes()
        except OSError:
            return b""
        return self._seen[key][1]

    def _resolve(self, key: str) -> None:
        """Note an image's layers, unless the image is made already and means the same."""
        data = self._manifest(key)
        if data in (b"", self._made.get(key), self._read.get(key)):
            return
        self._read[key] = data
        try:
            value = json.loads(data)
            for item in value.get("layers", ()):
                layer = self._layers.setdefault(item["digest"], LayerView(Digest(item["digest"]), item["size"]))
                layer.size = item["size"] if layer.size is None else layer.size
                layer.whole = value.get("kind") == "sif"
        except (ValueError, KeyError, TypeError, SregistryError):
            return  # the job says so

    def _step(self, layer: LayerView) -> list[str]:
        """Bring a layer up to date; return what is to be told of it."""
        digest, name = layer.digest, f"{layer.digest.algorithm}-{layer.digest.hex}"
        position = heartbeat.position(self._folder, f"explode-{name}")
        if (self._results / "explode" / f"{digest}.{self._variant}.json").exists():
            layer.step, layer.fetched, layer.exploded = Step.DONE, layer.known, layer.known
        elif position is not None:
            layer.step, layer.fetched, layer.exploded = Step.EXPLODING, layer.known, position
        elif (self._results / "layer" / f"{digest}.json").exists():
            layer.step, layer.fetched = Step.DONE if layer.whole else Step.FETCHED, layer.known
        else:
            size = self._store.received(digest)
            if size is not None:
                layer.step, layer.fetched = Step.FETCHING, size
            elif self._store.has(digest, layer.size):
                layer.step, layer.fetched = Step.FETCHED, _size(self._store.blob(digest)) or 0
        if position is None or layer.announced:
            return []
        layer.announced = True
        return [f"Exploding {self._place(digest)}"]

    def _place(self, digest: Digest) -> str:
        try:
            held: list[dict[str, Any]] = json.loads((self._results / "layer" / f"{digest}.json").read_bytes())["holds"]
            return str(held[0]["path"])
        except (OSError, ValueError, KeyError, IndexError, TypeError):
            return str(self._store.blob(digest))

    def _heard(self) -> list[str]:
        """Return the lines that jobs have said since, but for what the verb says itself."""
        try:
            with (self._folder / heartbeat.SAID).open("rb") as file:
                file.seek(self._said)
                data = file.read()
        except OSError:
            return []
        data = data[: data.rfind(b"\n") + 1]
        self._said += len(data)
        return [line for line in data.decode(errors="replace").splitlines() if not line.startswith(("[container]", "Success!"))]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


class Display(Protocol):
    """Shows views; a context."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def show(self, view: View) -> None:
        """Show how things are."""

    def say(self, line: str) -> None:
        """Show a line that stays."""


class Silent:
    """Shows nothing but warnings."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None: ...

    def show(self, view: View) -> None:
        """Pass warnings on."""
        for line in view.lines:
            if line.startswith("warning: "):
                print(printable(line), file=self.stream, flush=True)

    def say(self, line: str) -> None:
        """Keep it to oneself."""


class Lines(Silent):
    """Plain lines: when something ends, and every LINE seconds how far it all is."""

    def __init__(self, stream: TextIO, clock: Clock = time.monotonic) -> None:
        super().__init__(stream)
        self._clock = clock
        self._begun = self._last = clock()
        self._view = View()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self._view.whole:
            self.say(total(self._view, self._clock() - self._begun))

    def show(self, view: View) -> None:
        """Print what is new."""
        self._view = view
        for line in view.lines:
            self.say(line)
        now = self._clock()
        if view.layers and now - self._last >= LINE:
            self._last = now
            self.say(summary(view))

    def say(self, line: str) -> None:
        """Print a line."""
        print(printable(line), file=self.stream, flush=True)


def summary(view: View) -> str:
    """Say in one line how far it all is."""
    words = [f"[{view.done}/{len(view.layers)}] {view.fetched / 1e6:,.1f} of {view.total / 1e6:,.1f} MB fetched"]
    if view.fetched < view.total:
        words.append(f"{view.fetching / 1e6:,.1f} MB/s")
    words.append(f"{view.exploded / 1e6:,.1f} MB exploded")
    if view.done == len(view.layers):
        words.append("building")
    elif view.left is not None:
        words.append(f"{span(view.left)} left")
    return ", ".join(words)


def total(view: View, seconds: float) -> str:
    """Say what came of it all."""
    return f"[{view.done}/{len(view.layers)}] {view.total / 1e6:,.1f} MB of layers in {span(seconds)}"


def span(seconds: float) -> str:
    """Write a time as people do: 0:07, 12:34, 1:02:03."""
    minutes, rest = divmod(round(min(seconds, 359_999)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Bars:
    """A bar a layer that is being worked at, as many as the terminal has room for, and one for all."""

    #: Columns that a line needs beside its bar.
    _TEXT = 66

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._console = Console(file=stream, highlight=False, emoji=False)
        bar = max(8, min(40, self._console.width - self._TEXT))
        self._progress: Progress = Progress(
            TextColumn("{task.description:<23}", markup=False),
            BarColumn(bar),
            TextColumn("{task.fields[part]:>4}", markup=False),
            TextColumn("{task.fields[size]:>18}", markup=False),
            TextColumn("{task.fields[rate]:>10}", markup=False),
            TextColumn("{task.fields[left]:>7}", markup=False),
            console=self._console,
            auto_refresh=False,
            transient=True,
        )
        self._begun = time.monotonic()
        self._view = View()
        self._all: TaskID | None = None
        self._tasks: dict[Digest, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._progress.stop()
        if kind is None and self._view.whole:
            self.say(total(self._view, time.monotonic() - self._begun))

    def show(self, view: View) -> None:
        """Draw it all anew."""
        for line in view.lines:
            if not line.startswith(("layer ", "explode ", "image ")):  # the bars have said so
                self.say(line)
        self._view = view
        if view.layers:
            self._show_all(view)
        active = [layer for layer in view.layers if layer.step in (Step.FETCHING, Step.EXPLODING)]
        shown = active[: max(1, self._console.height - 3)]
        for digest in [digest for digest in self._tasks if digest not in [layer.digest for layer in shown]]:
            self._progress.remove_task(self._tasks.pop(digest))
        for layer in shown:
            exploding = layer.step is Step.EXPLODING
            at, verb = (layer.exploded, "explode") if exploding else (layer.fetched, "fetch")
            left = (layer.known - at) / layer.speed if layer.speed > 0 and layer.size is not None else None
            bar = {"description": f"{layer.digest.hex[:12]} {verb}", "completed": at, "total": layer.size}
            self._tasks[layer.digest] = self._draw(self._tasks.get(layer.digest), bar | _fields(at, layer.size, layer.speed, left))
        self._progress.refresh()

    def _show_all(self, view: View) -> None:
        fetching = view.fetched < view.total
        at, speed = (view.fetched, view.fetching) if fetching else (view.exploded, view.exploding)
        verb = "fetching" if fetching else "exploding" if view.done < len(view.layers) else "building"
        shown = _fields(at, view.total, speed, view.left)
        work, most = view.fetched + view.exploded, 2 * view.total
        shown["part"] = f"{100 * work // most if most else 0}%"
        bar = {"description": f"[{view.done}/{len(view.layers)}] {verb}", "completed": work, "total": most}
        self._all = self._draw(self._all, bar | shown)

    def _draw(self, task: TaskID | None, bar: dict[str, Any]) -> TaskID:
        """Change a bar, or add one: whole, as it is drawn at once."""
        if task is None:
            return self._progress.add_task(**bar)
        self._progress.update(task, **bar)
        return task

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._console.print(printable(line), markup=False, soft_wrap=True)


def _fields(at: int, size: int | None, speed: float, left: float | None) -> dict[str, Any]:
    whole = "" if size is None else f"/{size / 1e6:,.1f}"
    return {
        "part": "" if not size else f"{100 * at // size}%",
        "size": f"{at / 1e6:,.1f}{whole} MB",
        "rate": f"{speed / 1e6:,.1f} MB/s" if speed > 0 else "",
        "left": "" if left is None else span(left),
    }


def display(stream: TextIO | None = None, *, quiet: bool = False, environ: Mapping[str, str] = os.environ) -> Display:
    """Return the display that suits *stream*, stderr by default: bars on a terminal that can do them, else lines."""
    stream = stream or sys.stderr
    if quiet:
        return Silent(stream)
    if stream.isatty() and environ.get("TERM", "dumb") not in ("dumb", "unknown"):
        return Bars(stream)
    return Lines(stream)
