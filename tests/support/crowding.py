"""Two who pull into one store: users with uids of their own, or nodes that see one folder with caches of their own.

`python -m tests.support.crowding` is a process as that of `faulting`, with the same children; see there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sregistry.cli import __main__ as cli
from sregistry.system import locks
from tests.support.faulting import FAULTS, Golden, Named, Place, Steps, Trials, answer

#: Users of a group that the machine need not know.
ONE, OTHER, GROUP = 20_001, 20_002, 20_000
_CLONE_NEWPID = 0x20000000  # sched.h
_ONE: Steps = (("gather", "demo/one:1"), ("sif", "demo/one:1"))
_TWO: Steps = (("gather", "demo/two:1"), ("sandbox", "demo/two:1"))


class Crowd(Trials):
    """Two at a time."""

    def same(self) -> dict[str, Any]:
        """Have both pull the same image at once."""
        with self._members() as (one, other):
            return {"wrong": list(self._both(one, _ONE, other, _ONE))}

    def different(self) -> dict[str, Any]:
        """Have both pull images at once that share a layer, and then each what the other has."""
        with self._members() as (one, other):
            return {"wrong": [*self._both(one, _ONE, other, _TWO), *self._both(one, _TWO, other, _ONE)]}

    def killed(self, most: int) -> dict[str, Any]:
        """Have one killed at *most* calls on the store, and the other one pull the same, check the store and clean it."""
        wrong: list[str] = []
        for point in self._points("first", FAULTS["kill"], most)[1]:
            with self._members() as (one, other):
                self.end(self.start(one, _ONE, FAULTS["kill"], point, before=_become(ONE)))
                found = [*self._pull(other, _ONE, OTHER), *self._pull(one, _ONE, ONE)]
                for arguments in (["check"], ["clean", "--keep", "0"]):
                    code, said = self.end(self.start(other, (), before=_become(OTHER), then=partial(_tend, other, arguments)))
                    found += [f"store {arguments[0]}: exit code {code}: {said}"] if code else []
                    found += self._missing(one)
                found += self._pull(one, _ONE, ONE)
                wrong += [f"one is killed at call {point}: {text}" for text in found]
        return {"wrong": wrong}

    def nodes(self, disk: str, folders: list[str], rounds: int) -> dict[str, Any]:
        """Have two nodes that see the folder *disk* as *folders* pull into its store and catalog at once, *rounds* times."""
        golden = self.golden("second")
        wrong: list[str] = []
        for number in range(rounds):
            here, there, there_is = (Place(Path(folder) / f"at-once-{number}") for folder in (*folders, disk))
            self._folders(here)
            jobs = [self.start(here, _ONE, before=_another_machine), self.start(there, _TWO)]
            ends = [self.end(job) for job in jobs]
            found = [said for code, said in ends if code]
            wrong += [f"round {number}: {text}" for text in (*found, *self._incomplete(there_is, golden))]
        return {"wrong": wrong}

    def taken_over(self, disk: str, folders: list[str], most: int) -> dict[str, Any]:
        """Have a node die at *most* calls; another one, which can't see that, goes on, and so does the first one, which has its caches."""
        locks.LEASE = 1.0  # a minute shows nothing more
        golden = self.golden("first")
        wrong: list[str] = []
        for point in self._points("first", FAULTS["kill"], most)[1]:
            here, there, there_is = (Place(Path(folder) / f"killed-{point}") for folder in (*folders, disk))
            self._folders(here)
            self.end(self.start(here, _ONE, FAULTS["kill"], point, before=_another_machine))
            for place in (there, here):
                code, said = self.end(self.start(place, _ONE))
                found = [said] if code else []
                wrong += [f"a node dies at call {point}, {place.root}: {text}" for text in (*found, *self._incomplete(there_is, golden))]
        return {"wrong": wrong}

    @staticmethod
    def _folders(place: Place) -> None:
        for _, uri in (*_ONE, *_TWO):
            place.work(uri)

    def _both(self, one: Place, first: Steps, other: Place, second: Steps) -> Iterator[str]:
        jobs = [self.start(one, first, before=_become(ONE)), self.start(other, second, before=_become(OTHER))]
        for job in jobs:
            code, said = self.end(job)
            if code:
                yield f"exit code {code}: {said}"
        yield from self._missing(one)
        yield from self._missing(other)

    def _pull(self, place: Place, steps: Steps, user: int) -> Iterator[str]:
        code, said = self.end(self.start(place, steps, before=_become(user)))
        if code:
            yield f"then {user} pulls: exit code {code}: {said}"
        yield from self._missing(place)

    def _missing(self, place: Place) -> Iterator[str]:
        """Say what is not as an undisturbed pull of both images has it, and what the group may not use."""
        golden = self.golden("second")
        right = _contents(golden.named)
        for name, (mode, data) in place.named().items():
            if right.get(_anyone_s(name), (stat.S_IFMT(mode), data)) != (stat.S_IFMT(mode), data):
                yield f"{name} of {place.root.name} has other bytes"
            if name.startswith("docker/blobs/") and mode & 0o060 != 0o060:
                yield f"{name} has mode {mode:o}"
        for uri, version in place.recorded().items():
            if version != golden.recorded[uri]:
                yield f"{uri} is on record with another version"

    @staticmethod
    def _incomplete(place: Place, golden: Golden) -> Iterator[str]:
        found, right = _contents(place.named()), _contents(golden.named)
        if found != right:
            names = [name for name in sorted(found.keys() | right.keys()) if found.get(name) != right.get(name)]
            yield f"missing or other: {names}"
        if place.recorded() != golden.recorded:
            yield f"on record: {place.recorded()}"

    @contextlib.contextmanager
    def _members(self) -> Iterator[tuple[Place, Place]]:
        """Make a store of the group, and a folder of each user's own."""
        self.golden("second")
        top = self._top / "lab"
        shared = top / "shared"
        (shared / "docker").mkdir(parents=True)
        os.chown(shared / "docker", 0, GROUP)
        (shared / "docker").chmod(0o2775)
        places = []
        for user in (ONE, OTHER):
            place = Place(top / str(user), shared)
            self._folders(place)
            for path in (place.root, *place.root.rglob("*")):
                os.chown(path, user, GROUP)
            places.append(place)
        try:
            yield places[0], places[1]
        finally:
            shutil.rmtree(top)


def _contents(named: Named) -> dict[str, tuple[int, bytes]]:
    """Return types and contents; modes depend on the store's folder."""
    return {_anyone_s(name): (stat.S_IFMT(mode), data) for name, (mode, data) in named.items()}


def _anyone_s(name: str) -> str:
    """Return the name that an exploded layer has for all: where users do not trust each other, each one has his own."""
    return re.sub(r"^(docker/exploded/[^/]*?)\.u\d+", r"\1", name)


def _become(user: int) -> Callable[[], None]:
    def become() -> None:
        os.setgroups([])
        os.setresgid(GROUP, GROUP, GROUP)
        os.setresuid(user, user, user)
        os.umask(0o022)

    return become


def _another_machine() -> None:
    """Go on in a process whose number means nothing to others, as on another machine; unshare(2), pid_namespaces(7)."""
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWPID):
        raise OSError(ctypes.get_errno(), "unshare")
    for _ in range(2):  # the first one is init there, which none of its signals kills
        child = os.fork()
        if child:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            os._exit(code if code >= 0 else 128 - code)


def _tend(place: Place, arguments: list[str]) -> None:
    os.environ.update(SINGULARITY_CACHEDIR=str(place.cache), HOME=str(place.root))
    os.chdir(place.root)
    code = cli.main(["store", *arguments])
    if code:
        raise SystemExit(code)


if __name__ == "__main__":
    answer(Crowd)
