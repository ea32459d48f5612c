"""How far a run is: its layers, each with the step that it is at, and rates.

Nothing is asked of the jobs but what they publish themselves (system/heartbeat.py): a download is as far as its partial
file is long.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from sregistry.errors import SregistryError
from sregistry.oci.documents import Digest
from sregistry.results.paths import EXPLODED, IMAGE, LAYER, MANIFEST, Results
from sregistry.results.receipts import Blob
from sregistry.store.store import Store
from sregistry.system import heartbeat
from sregistry.system.heartbeat import Kind, Message

#: Seconds between two looks, and that a rate is a mean of.
LOOK, WINDOW = 0.25, 10.0

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
    """What is to be shown: the layers, messages that are new, and rates in bytes a second; `work` counts both steps."""

    layers: Sequence[LayerView] = ()
    messages: Sequence[Message] = ()
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
        place: the run's working folder.
        keys: of the images.
        variant: the compression's.
        store: where layers go.
        folder: where jobs publish their heartbeat.
        clock: seconds.
    """

    def __init__(
        self, place: Results, keys: Iterable[str], variant: str, store: Store, folder: Path, clock: Clock = time.monotonic
    ) -> None:
        self._place, self._variant, self._store, self._folder, self._clock = place, variant, store, folder, clock
        self._keys = tuple(keys)
        self._seen: dict[str, tuple[int, bytes]] = {}
        self._read: dict[str, bytes] = {}
        # As long as it means the same, there is nothing to be done for an image that is made.
        self._made = {key: self._manifest(key) for key in self._keys if place.at(IMAGE, image=key).exists()}
        self._layers: dict[str, LayerView] = {}
        self._messages = heartbeat.Messages(folder)
        self._fetching, self._exploding, self._working = Rate(), Rate(), Rate()

    def look(self) -> View:
        """Return how things are now."""
        now = self._clock()
        # The verb says itself what was recorded.
        told, messages = [message for message in self._messages.new() if message.kind is not Kind.RECORDED], []
        for key in self._keys:
            self._resolve(key)
        for layer in self._layers.values():
            if layer.step is not Step.DONE:
                messages += self._step(layer)
                layer.speed = layer.rate.add(now, layer.exploded if layer.step is Step.EXPLODING else layer.fetched)
        view = View(layers=tuple(self._layers.values()), messages=[*messages, *told])
        view.fetching = self._fetching.add(now, view.fetched)
        view.exploding = self._exploding.add(now, view.exploded)
        view.working = self._working.add(now, view.fetched + view.exploded)
        return view

    def _manifest(self, key: str) -> bytes:
        """Return manifest.json, read once for each time that it was written; empty if there is none."""
        path = self._place.at(MANIFEST, image=key)
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

    def _step(self, layer: LayerView) -> list[Message]:
        """Bring a layer up to date; return what is to be told of it."""
        digest = layer.digest
        position = heartbeat.position(self._folder, str(digest))
        if self._place.at(EXPLODED, digest=digest, variant=self._variant).exists():
            layer.step, layer.fetched, layer.exploded = Step.DONE, layer.known, layer.known
        elif position is not None:
            layer.step, layer.fetched, layer.exploded = Step.EXPLODING, layer.known, position
        elif self._place.at(LAYER, digest=digest).exists():
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
        return [Message(Kind.NOTE, f"Exploding {self._blob(digest)}")]

    def _blob(self, digest: Digest) -> Path:
        try:
            return Blob.read(self._place.at(LAYER, digest=digest)).path
        except SregistryError:
            return self._store.blob(digest)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None
