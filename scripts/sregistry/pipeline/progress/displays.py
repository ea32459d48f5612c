"""How a run is shown: live bars on a terminal, plain lines in a log, or warnings alone."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TextIO

from sregistry.oci.documents import Digest
from sregistry.pipeline.progress.tracker import Clock, Step, View
from sregistry.system.heartbeat import Kind
from sregistry.system.units import span
from sregistry.terminal import printable

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Seconds between two lines of a log.
LINE = 10.0


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
        for message in view.messages:
            if message.kind is Kind.WARNING:
                print(printable(str(message)), file=self.stream, flush=True)

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
        for message in view.messages:
            self.say(str(message))
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
        for message in view.messages:
            if message.kind is not Kind.RESULT:  # the bars have said so
                self.say(str(message))
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
