"""Parameters of the rules' commands: words that a job's image, layer or pattern decides."""

from __future__ import annotations

import shlex
import string
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sregistry._version import __version__
from sregistry.config.tag_patterns import Pattern
from sregistry.layers.compression import Compression
from sregistry.pipeline.graph import Graph
from sregistry.results import paths
from sregistry.store import trust

Function = Callable[[Any], object]


class NotARerunTrigger:
    """A value among params whose change is no reason to run a job again: Snakemake compares texts and numbers alone."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __str__(self) -> str:
        return str(self.value)


class Parameters:
    """Params functions, and values that are the same for all jobs of a rule."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        settings = graph.settings
        # The interpreter that runs Snakemake: no activation is needed, and no shim, which can cost more than the job.
        # Not by shell.prefix, which would be that of all rules of a workflow that has these as a module.
        # -P: what lies in the working folder under a module's name is not imported.
        self.python = NotARerunTrigger(f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH python3 -P")
        # Another store is no reason to fetch layers that no image waits for; the sweep discards receipts of those that one does.
        stores = [f"--cache {shlex.quote(str(settings.cache))}"]
        stores += [f"--cache-from {shlex.quote(str(folder))}" for folder in settings.cache_from]
        if settings.trust != frozenset():
            stores.append(f"--trust {shlex.quote(':'.join(trust.words(settings.trust)))}")
        self.store = NotARerunTrigger(" ".join(stores))
        self.layer_limit = NotARerunTrigger(settings.layer_limit)
        self.builder = settings.builder
        self.docker_cmd = "--docker-cmd" if settings.docker_cmd else ""
        catalog = "" if settings.disable else f"--database {shlex.quote(str(settings.database))}"
        # Which image a file is that the stage is to replace.
        self.replacing = NotARerunTrigger(f"{catalog} {'--force' if settings.force else ''}".strip())
        self.version = __version__

    def version_of(self, output: str, again: Callable[[Any], bool] | None = None) -> Function:
        """Return a params function: the version of the package, whose change makes *output* anew.

        In a process that only asks it is another text where a run would sweep *output* away or ask *again* for it. So the job
        is shown, and nothing on disk is changed.
        """
        graph = self._graph
        names = [name for _, name, *_ in string.Formatter().parse(output) if name]

        def version(wildcards: Any) -> str:
            if graph.host.runs or not graph.host.first:
                return self.version
            made = graph.host.top / output.format(**{name: getattr(wildcards, name) for name in names})
            anew = made in graph.run.remade or (again is not None and again(wildcards))
            return f"{self.version}, made anew" if anew else self.version

        return version

    def target_field(self, field: str, *, watched: bool = True) -> Function:
        """Return a params function: a field of the image's target as text; *watched* if its change is a reason to run again."""

        def text(wildcards: Any) -> object:
            value = str(getattr(self._graph.images.targets[wildcards.image], field))
            return value if watched else NotARerunTrigger(value)

        return text

    def pattern_field(self, field: str) -> Function:
        """Return a params function: a field of the pattern as text."""
        return lambda wildcards: str(getattr(self._pattern(wildcards), field))

    def newest(self, wildcards: Any) -> str:
        """The option that says how many of the tags that match."""
        number = self._pattern(wildcards).newest
        return "" if number is None else f"--newest {number}"

    def compression(self, word: str) -> Function:
        """Return a params function: a word of how the layer, or the image, is compressed."""

        def text(wildcards: Any) -> object:
            if hasattr(wildcards, "variant"):
                return Compression.named(wildcards.variant).words()[word]
            return self._graph.images.targets[wildcards.image].compression.words()[word]

        return text

    @staticmethod
    def unwatched(function: Function) -> Function:
        """Return a params function: what *function* returns, whose change is no reason to run again."""
        return lambda wildcards: NotARerunTrigger(function(wildcards))

    def locked(self, wildcards: Any) -> NotARerunTrigger:
        """The digest that a lock file pins the tag to. Not a rerun trigger: `outdated` compares it with the receipt."""
        digest = self._graph.images.targets[wildcards.image].locked
        return NotARerunTrigger("" if digest is None else f"--locked {digest}")

    def database(self, wildcards: object) -> str:
        """The folder of the catalog. From a function: Snakemake takes braces in a text for a wildcard."""
        return str(self._graph.settings.database)

    def changes(self, wildcards: object) -> str:
        """The file that a refresh writes. It is no output: nothing may be there but what the last refresh said."""
        return str(self._graph.images.results.at(paths.CHANGES))

    @staticmethod
    def as_options(wildcards: object, input: Mapping[str, object]) -> str:
        """Each named input as the option of its name."""
        return " ".join(f"--{name} {shlex.quote(str(path))}" for name, path in input.items())

    def _pattern(self, wildcards: Any) -> Pattern:
        """Return the pattern, one that a lock file settles included."""
        return next(pattern for pattern in self._graph.images.plan.patterns if pattern.key == wildcards.pattern)
