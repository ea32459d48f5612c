"""A pull that is killed, or fails, at one system call: each call in turn, each in a child of one process.

```
this process: imports everything, pulls undisturbed ─▶ what has a name then, and what each call of a pull does
  child: arms faults.c for call n, pulls ─▶ dies, or ends with an error, or well ─▶ what has a name is right
  child: pulls again                                                          ─▶ all of it is there, and right
```

    LD_PRELOAD=LIBRARY python -m tests.support.faulting LIBRARY FOLDER HOST     then a line on stdin each: [method, {arguments}]

It answers a line of JSON each. Its tests start it by `asking`; `crowding` does more with the same children.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sregistry.catalog.catalog import Catalog
from sregistry.errors import SregistryError, report
from sregistry.layers.index import Index
from sregistry.results import receipts
from sregistry.stages.__main__ import main
from tests.support.images import Layout, layer
from tests.support.registry import serving
from tests.support.snakemake import REPOSITORY
from tests.support.tarball import directory, file, symlink

#: What faults.c calls them; else a value of errno.
_KILL, _HALF = -1, -2
#: What a call does to the folder, as faults.c says it: nothing, something, something that takes space.
_ASKS, _CHANGES, _TAKES = "012"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What a call meets, whether all later calls that take space meet it, too, and at which calls that makes a difference."""

    code: int
    lasting: bool = False
    at: str = _ASKS + _CHANGES + _TAKES


FAULTS = {
    "kill": Fault(code=_KILL, at=_CHANGES + _TAKES),  # before a call that changes nothing is before the next one that does
    "EIO": Fault(code=errno.EIO),
    "ENOSPC": Fault(code=errno.ENOSPC, lasting=True, at=_TAKES),
    "parts": Fault(code=_HALF, at=""),  # the disk takes a part of each write
}

#: What is done with an image, as methods of Place.
Steps = tuple[tuple[str, str], ...]
#: Name → what is done before, and what is disturbed: the first image of all, and one that comes beside another.
SCENES: dict[str, tuple[Steps, Steps]] = {
    "first": ((), (("gather", "demo/one:1"), ("sif", "demo/one:1"))),
    "second": ((("gather", "demo/one:1"), ("sif", "demo/one:1"), ("gather", "demo/two:1")), (("sandbox", "demo/two:1"),)),
}
#: How deep the folders are that are published whole: docker/exploded/<variant>/<digest>, and a sandbox in storage.
_DEPTH = {"docker": 4, "storage": 2}
_COMPRESSION = ("--codec", "gzip", "--level", "default", "--block-size", 131072)
#: Exit codes of a stage that failed in one line; of a traceback it is another.
_FAILED = (1, 2)
_TRACEBACK = 70

#: A process, and the file of what it says.
Child = tuple[int, Path]
#: Name → mode and content.
Named = dict[str, tuple[int, bytes]]


class _Stopped(Exception):
    """A stage failed with this exit code."""


@dataclass(frozen=True)
class Place:
    """The folders of a pull; the cache may be one that others have, too."""

    root: Path
    shared: Path | None = None

    @property
    def cache(self) -> Path:
        return self.shared or self.root / "cache"

    def run(self, steps: Steps) -> None:
        """Run the stages of *steps*, as the rules do. Raises _Stopped."""
        for name, uri in steps:
            getattr(self, name)(uri)

    def gather(self, uri: str) -> None:
        """Run the stages of an image that fill the store."""
        work = self.work(uri)
        manifest, cache = work / "manifest.json", ["--cache", self.cache]
        _stage("manifest", "--uri", uri, "--client", "nvidia", "--platform", "linux/amd64", *cache, "--output", manifest)
        exploded = []
        for number, item in enumerate(receipts.read(manifest).get("layers", ())):  # none: metadata says why
            blob, made = work / f"{number}.blob", work / f"{number}.exploded"
            _stage("layer", "--manifest", manifest, "--digest", item["digest"], *cache, "--output", blob)
            _stage("explode", "--layer", blob, *cache, *_COMPRESSION, "--output", made)
            exploded.append(made)
        metadata = ["--tar", work / "metadata.tar", "--output", work / "metadata.json"]
        _stage("metadata", "--manifest", manifest, *cache, *_COMPRESSION, *metadata)
        merged = ["--metadata", work / "metadata.json", "--output", work / "sandbox.index"]
        _stage("sandbox", "--manifest", manifest, *merged, *exploded)

    def sif(self, uri: str) -> None:
        """Run the stages that make and record a SIF."""
        self._image(uri, "sif", self.root / "storage" / f"{uri.replace('/', '-')}.sif")

    def sandbox(self, uri: str) -> None:
        """Run the stages that make and record a sandbox."""
        self._image(uri, "sandbox", self.root / "storage" / uri.replace("/", "-"))

    def _image(self, uri: str, kind: str, target: Path) -> None:
        work = self.work(uri)
        manifest, image = ["--manifest", work / "manifest.json"], work / "image.json"
        sources = ["--metadata", work / "metadata.json", "--sandbox", work / "sandbox.index"]
        _stage("image", *manifest, *sources, "--format", kind, "--target", target, "--output", image)
        database = ["--database", self.root / "database", "--output", work / "record.json"]
        _stage("catalog", *manifest, "--image", image, *_COMPRESSION, *database)

    def work(self, uri: str) -> Path:
        """Return the folder of an image's receipts, which Snakemake makes."""
        folder = self.root / "work" / uri.replace("/", "-")
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def named(self) -> Named:
        """Return all that has a final name, but for the catalog's files."""
        found = {}
        for top, name in ((self.cache, "docker/blobs"), (self.cache, "docker/exploded"), (self.root, "storage")):
            for path in _walk(top / name):
                found[str(path.relative_to(top))] = path.lstat().st_mode, _content(path)
        return found

    def recorded(self) -> dict[str, str]:
        """Return name → version of the images on record, whose manifests are there. Raises SregistryError."""
        catalog = Catalog(self.root / "database")
        records = catalog.records()
        for record in records:
            catalog.metrics(record)
        return {record.uri: record.version for record in records}

    def wrong(self, named: Named, recorded: dict[str, str]) -> Iterator[str]:
        """Say what has a name and is not what the undisturbed pull has under it, *named* and *recorded*."""
        try:
            there = self.named()
            for name, found in there.items():
                if found != named.get(name):
                    yield f"{name} has another mode or other bytes than it should have, or should not be there"
            for name in named:  # what consists of several files is there whole or not at all
                parts = Path(name).parts
                whole = str(Path(*parts[: _DEPTH[parts[0]]]))
                if whole in there and name not in there:
                    yield f"{whole} is there without {name}"
            for folder in self.cache.glob("docker/exploded/*/*"):
                Index.read(folder / "index")
            for path in (*self.root.glob("work/*/*.json"), *self.cache.glob("docker/*.json")):
                json.loads(path.read_bytes())
            for uri, version in self.recorded().items():
                if version != recorded.get(uri):
                    yield f"{uri} is on record with another version"
        except (OSError, ValueError, SregistryError) as error:
            yield f"{type(error).__name__}: {error}"


def _walk(folder: Path) -> Iterator[Path]:
    """Yield all below *folder* but what is temporary there: at the top, with a name that begins with a dot."""
    for path in sorted(folder.glob("[!.]*")):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from sorted(path.rglob("*"))


def _content(path: Path) -> bytes:
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        return os.fsencode(path.readlink())
    return path.read_bytes() if stat.S_ISREG(mode) else b""


def _stage(*arguments: object) -> None:
    code = main([str(argument) for argument in arguments])
    if code:
        raise _Stopped(code)


@dataclass(frozen=True)
class Golden:
    """An undisturbed pull: what was there before, what it left, and what each of its calls did."""

    before: Place
    named: Named
    recorded: dict[str, str]
    calls: str


class Trials:
    """Pulls from *host* in folders of *top*, disturbed through *library*."""

    def __init__(self, library: Path, top: Path, host: str) -> None:
        self._library = ctypes.CDLL(str(library))
        self._library.faults_seen.restype = ctypes.c_char_p
        self._top = top
        os.environ.update(SREGISTRY_NVIDIA_BASE=host, SREGISTRY_NVIDIA_NOHTTPS="yes")
        self._golden: dict[str, Golden] = {}
        self._started = 0

    def faults(self, scene: str, fault: str, most: int | None) -> dict[str, Any]:
        """Disturb *most* calls, spread evenly over a pull, or all.

        Returns:
            points: how many calls there are at which the fault makes a difference. tried: how many were. wrong: what
            was, in words.
        """
        points, chosen = self._points(scene, FAULTS[fault], most)
        wrong = [f"{scene}, {fault} at call {point}: {text}" for point in chosen for text in self._try(scene, FAULTS[fault], point)]
        return {"points": points, "tried": len(chosen), "wrong": wrong}

    def _points(self, scene: str, fault: Fault, most: int | None) -> tuple[int, list[int]]:
        points = [number for number, does in enumerate(self.golden(scene).calls, 1) if does in fault.at] or [0]
        return len(points), points if most is None else points[:: -(-len(points) // most)]

    def golden(self, scene: str) -> Golden:
        """Return what an undisturbed pull does."""
        if scene not in self._golden:
            self._golden[scene] = self._prepare(scene)
        return self._golden[scene]

    def _prepare(self, scene: str) -> Golden:
        earlier, disturbed = SCENES[scene]
        before, place = Place(self._top / f"{scene}-before"), Place(self._top / f"{scene}-golden")
        before.root.mkdir()
        before.run(earlier)
        for _, uri in disturbed:
            before.work(uri)
        shutil.copytree(before.root, place.root, symlinks=True)
        place.run(disturbed)  # in this process, so that children find everything imported
        gc.freeze()
        return Golden(before, place.named(), place.recorded(), self._calls(scene, before))

    def _calls(self, scene: str, before: Place) -> str:
        """Return what each call of an undisturbed pull does."""
        read, write = os.pipe()
        with self._copy(before) as place:
            steps = SCENES[scene][1]
            code, said = self.end(self.start(place, steps, Fault(code=0), then=lambda: os.write(write, self._library.faults_seen())))
            assert code == 0, said
        os.close(write)
        with open(read, "rb") as file:
            return file.read().decode()

    @contextlib.contextmanager
    def _copy(self, before: Place) -> Iterator[Place]:
        place = Place(self._top / "place")
        shutil.copytree(before.root, place.root, symlinks=True)
        try:
            yield place
        finally:
            shutil.rmtree(place.root)

    def start(
        self,
        place: Place,
        steps: Steps,
        fault: Fault | None = None,
        point: int = 0,
        before: Callable[[], object] = int,
        then: Callable[[], object] = int,
    ) -> Child:
        """Run *steps* in a child, in which call number *point* below the place's folders meets *fault*."""
        self._started += 1
        log = self._top / f"said-{self._started % 10}"
        child = os.fork()
        if not child:
            code = _TRACEBACK
            try:
                os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 2)
                os.dup2(2, 1)
                before()
                if fault:
                    self._library.faults_arm(os.path.commonpath((place.root, place.cache)).encode(), point, fault.code, fault.lasting)
                place.run(steps)
                then()
                code = 0
            except _Stopped as error:
                code = error.args[0]
            except SregistryError as error:
                code = report(error)
            except BaseException:  # noqa: BLE001 - the parent tells
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        return child, log

    @staticmethod
    def end(child: Child) -> tuple[int, str]:
        """Wait for a child; return its exit code, negative for a signal, and what it said."""
        return os.waitstatus_to_exitcode(os.waitpid(child[0], 0)[1]), child[1].read_text()

    def _try(self, scene: str, fault: Fault, point: int) -> Iterator[str]:
        golden, steps = self.golden(scene), SCENES[scene][1]
        with self._copy(golden.before) as place:
            code, said = self.end(self.start(place, steps, fault, point))
            if code > 0 and not (code in _FAILED and said.rpartition("error: ")[2].count("\n") == 1):
                yield f"exit code {code} without an error in one line:\n{said}"
            if code == 0 and (place.named(), place.recorded()) != (golden.named, golden.recorded):
                yield "says that all is well, which it is not"
            yield from place.wrong(golden.named, golden.recorded)
            code, said = self.end(self.start(place, steps))
            if code:
                yield f"the next run fails:\n{said}"
            elif (place.named(), place.recorded()) != (golden.named, golden.recorded):
                yield "the next run leaves something else"
            yield from place.wrong(golden.named, golden.recorded)


def answer(kind: type[Trials]) -> None:
    """Answer the questions on stdin."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # stages print
    trials = kind(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    for line in sys.stdin:
        method, arguments = json.loads(line)
        print(json.dumps(getattr(trials, method)(**arguments)), file=answers)


@contextlib.contextmanager
def asking(module: str, folder: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """Start *module*, and a registry for it; yield a function that has a method of its trials called, by name.

    *folder* is for all that they do: one that every user may enter.
    """
    library = folder / "faults.so"
    source = Path(__file__).with_name("faults.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    layout = Layout(folder / "layout")
    base = layer([directory(b"bin"), file(b"bin/sh", b"shell" * 600), symlink(b"bin/bash", b"sh")])
    layout.tag("demo/one:1", layout.image([base], {"Cmd": ["/bin/sh"]}))
    noise = random.Random(1).randbytes(2_000)
    layout.tag("demo/two:1", layout.image([base, layer([file(b"two", noise)])], {"Cmd": ["/bin/sh"]}))
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(layout))
        environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "LD_PRELOAD": str(library)}
        command = [sys.executable, "-m", module, str(library), str(folder), server.address]
        log = folder / "log"
        with log.open("wb") as said:
            job = subprocess.Popen(
                command, cwd=REPOSITORY, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
            )
        stack.callback(job.communicate)
        assert job.stdin is not None and job.stdout is not None
        ask, answers = job.stdin, job.stdout

        def question(method: str, **arguments: object) -> dict[str, Any]:
            assert job.poll() is None, log.read_text()
            print(json.dumps([method, arguments]), file=ask, flush=True)
            line = answers.readline()
            assert line, log.read_text()
            found: dict[str, Any] = json.loads(line)
            return found

        yield question


@contextlib.contextmanager
def in_memory() -> Iterator[Path]:
    """Make a folder that every user may enter, where fsync is fast: a disk shows nothing more."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="sregistry-", dir=memory if os.access(memory, os.W_OK) else None) as name:
        os.chmod(name, 0o755)
        yield Path(name)


if __name__ == "__main__":
    answer(Trials)
