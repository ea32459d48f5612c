"""Copying into an image: inside the kernel where it can, hashed and compared behind the copier, in threads of their own.

```
layers' data ─ Copier ─▶ image file ┬ Follower ─▶ sha256 of the image
                                    └ Checker  ─▶ sha256 of each stretch of the layers' data = what their indexes say?
```

What is compared is what has come into the image, while it is still in memory. Of a stretch that is in the image in
part, the rest is read from the layer.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import groupby
from types import TracebackType

from sregistry.errors import ImageError
from sregistry.image.squashfs.layout import Stretch
from sregistry.layers.contents import Contents
from sregistry.layers.index import STRETCH, Index

#: Bytes copied at a time, so that hashing follows closely, and read at a time.
_COPY, _READ = 16 << 20, 1 << 20


class _Behind(ABC):
    """A thread that goes over a file behind its writer; an error in it is raised by who waits for it."""

    def __init__(self) -> None:
        self._marks: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.finish(quiet=error is not None)

    def start(self) -> None:
        """Begin at the front, which must be written."""
        self._thread.start()

    def reached(self, end: int) -> None:
        """Say that all bytes before *end* are written, or will be when it starts."""
        self._marks.put(end)

    def finish(self, *, quiet: bool = False) -> None:
        """Wait until it has gone over all that was reached; an error is raised, unless *quiet*."""
        self._marks.put(None)
        if self._thread.is_alive():
            self._thread.join()
        if self._error and not quiet:
            raise self._error

    @abstractmethod
    def _until(self, end: int) -> None:
        """Go on to *end*."""

    def _run(self) -> None:
        try:
            while (end := self._marks.get()) is not None:
                self._until(end)
        except BaseException as error:  # noqa: BLE001 - raised by `finish`
            self._error = error


class Follower(_Behind):
    """Hashes a file, by sha256 and another algorithm if need be."""

    def __init__(self, handle: int, algorithm: str = "sha256") -> None:
        super().__init__()
        self.hashes = {name: hashlib.new(name) for name in ("sha256", algorithm)}
        self.hash = self.hashes["sha256"]
        self._handle, self._at = handle, 0

    def __enter__(self) -> Follower:
        return self

    def _until(self, end: int) -> None:
        while self._at < end:
            data = os.pread(self._handle, min(_READ, end - self._at), self._at)
            if not data:
                raise ImageError("the image got shorter while it was written", hint="run again")
            for hasher in self.hashes.values():
                hasher.update(data)
            self._at += len(data)


class Checker(_Behind):
    """Compares layers' data in an image with the layers' indexes.

    Args:
        handle: of the image.
        at: where the first of *stretches* is in it; the others follow.
        stretches: of each layer those in order of their offset, the layers one after the other.
    """

    def __init__(self, handle: int, at: int, stretches: Sequence[Stretch], layers: Sequence[Index], contents: Contents) -> None:
        super().__init__()
        self._handle, self._layers, self._contents = handle, layers, contents
        self._todo = self._checks(at, stretches)
        self._next = next(self._todo, None)

    def __enter__(self) -> Checker:
        self.start()
        return self

    def _until(self, end: int) -> None:
        while self._next is not None and self._next[0] <= end:
            _, layer, number, parts = self._next
            self._check(layer, number, parts)
            self._next = next(self._todo, None)

    def _checks(self, at: int, stretches: Sequence[Stretch]) -> Iterator[tuple[int, int, int, list[tuple[int, int, int]]]]:
        """Yield, for each of a layer's stretches with a digest: the image's byte it ends before, layer, number, and its parts in there."""
        for layer, every in groupby(stretches, key=lambda stretch: stretch.layer):
            number, parts, end = -1, list[tuple[int, int, int]](), at
            for stretch in every:
                offset, last = stretch.offset, stretch.offset + stretch.size
                while offset < last:
                    if offset // STRETCH != number:
                        if parts:
                            yield end, layer, number, parts
                        number, parts = offset // STRETCH, []
                    size = min(last, (number + 1) * STRETCH) - offset
                    parts.append((offset, size, at))
                    offset, at = offset + size, at + size
                    end = at
            if parts:
                yield end, layer, number, parts

    def _check(self, layer: int, number: int, parts: Sequence[tuple[int, int, int]]) -> None:
        start, end, digest = self._layers[layer].stretch(number)
        hasher = hashlib.sha256()
        at = start
        for offset, size, place in parts:
            hasher.update(os.pread(self._contents.handle(layer), offset - at, at))
            hasher.update(os.pread(self._handle, size, place))
            at = offset + size
        hasher.update(os.pread(self._contents.handle(layer), end - at, at))
        if hasher.digest() != digest:
            raise self._contents.damaged(layer, start)


class Copier:
    """Copies layers' data to its place in an image, in a thread, while the tables are made.

    Leaving the context waits until all is copied and compared, or for a stop if it is left by an error.
    """

    def __init__(
        self, target: int, at: int, stretches: Sequence[Stretch], layers: Sequence[Index], contents: Contents, follower: Follower
    ) -> None:
        self._target, self._at, self._stretches = target, at, stretches
        self._contents, self._follower = contents, follower
        for layer in {stretch.layer for stretch in stretches}:
            contents.handle(layer)  # opened here: two threads use it
        self._checker = Checker(target, at, stretches, layers, contents)
        self._stopped = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stopped = error is not None
        self._thread.join()
        if self._error and error is None:
            raise self._error

    def _run(self) -> None:
        at = self._at
        try:
            with self._checker as checker:
                for stretch in self._stretches:
                    for done in copy(self._contents.handle(stretch.layer), self._target, stretch, at):
                        self._follower.reached(done)
                        checker.reached(done)
                        if self._stopped:
                            return
                    at += stretch.size
        except BaseException as error:  # noqa: BLE001 - raised where the context is left
            self._error = error


def copy(source: int, target: int, stretch: Stretch, at: int) -> Iterator[int]:
    """Copy a stretch of bytes between files, inside the kernel (or by reflink) where both file systems can; yield how far it is."""
    offset, left = stretch.offset, stretch.size
    while left:
        try:
            done = os.copy_file_range(source, target, min(left, _COPY), offset, at)
        except OSError:  # other file systems, or a kernel or mount that can't
            done = os.pwrite(target, os.pread(source, min(left, _READ), offset), at)
        if not done:
            raise ImageError("an exploded layer ends too early", hint="remove the store's folder 'exploded' and run again")
        offset, at, left = offset + done, at + done, left - done
        yield at
