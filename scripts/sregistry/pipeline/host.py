"""What the graph asks of the workflow engine that runs it, and how it ends a run that can't be."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, ParamSpec, Protocol, TypeVar

from sregistry import errors
from sregistry.errors import SregistryError

#: The limit of `network` in the profiles, which stands for all connections: jobs ask for their share of it.
ALL_CONNECTIONS = 1_000_000

P = ParamSpec("P")
T = TypeVar("T")


class Host(Protocol):
    """A running Snakemake, or what stands for one in a test; `pipeline.engine.Host` has the real one."""

    @property
    def own(self) -> bool:
        """Whether our Snakefile is the workflow itself, and not a module of another one."""

    @property
    def first(self) -> bool:
        """Whether this process is the one that the user started; jobs of a cluster read the rules, too."""

    @property
    def executes(self) -> bool:
        """Whether this process works through the graph, if only as a dry run; not for a summary or a report.

        Known when the graph is built, which is after the Snakefile is read; False before. So are `runs` and `local`.
        """

    @property
    def runs(self) -> bool:
        """Whether this process makes what is missing. All others only ask, and change nothing on disk."""

    @property
    def local(self) -> bool:
        """Whether jobs are processes of this machine."""

    @property
    def cores(self) -> int:
        """The most cores of one job."""

    @property
    def network(self) -> int | None:
        """The limit of the resource `network`; None: there is none."""

    @property
    def top(self) -> Path:
        """The folder that paths of rules are relative to on disk: the `prefix` of a module."""

    @property
    def lost_program(self) -> str | None:
        """A program of the profile that is not found from the working folder."""

    def checkpoint(self, name: str) -> Path:
        """Return the output of a finished checkpoint; the engine's own exception of an unfinished one passes through."""


def in_one_line(function: Callable[P, T]) -> Callable[P, T]:
    """Have a SregistryError end the process with one line and its exit code: Snakemake would add a traceback of its own."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except SregistryError as error:
            end(error)

    return wrapped


def end(error: SregistryError) -> NoReturn:
    """End the process with what is wrong, a line each."""
    sys.exit(errors.report(error))
