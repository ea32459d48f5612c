"""What happens once a run, around its jobs: receipts are swept before, the store is held, the summary is told at the end.

```
graph is built ─▶ sweep ─▶ begin ─▶ started ─▶ jobs ─▶ ended     a run
               ─▶ remade                                         a dry run, a summary, a report: nothing on disk changes
```
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from sregistry import errors
from sregistry.config import temporary
from sregistry.errors import ImageError, SregistryError, UsageError
from sregistry.image import programs
from sregistry.pipeline.host import Host, in_one_line
from sregistry.pipeline.images import Images
from sregistry.pipeline.summary import Summary
from sregistry.results import paths, receipts, sweep
from sregistry.store import maintenance
from sregistry.store.store import Store
from sregistry.system import heartbeat


class Run:
    """The run that this process is, if it is one."""

    def __init__(self, host: Host, images: Images) -> None:
        self._host, self._images, self._settings = host, images, images.settings
        self._summary = Summary(images.results)
        self._swept = self._held = self._started = False
        self._expected: Sequence[str] = ()
        #: Whether all jobs ended well: a report that is asked for with the run comes then.
        self.ended_well = False

    def refuse(self) -> None:
        """Raise what makes the whole run pointless, before anything is asked.

        Raises:
            UsageError: no image is asked for, or a program of the profile is lost.
            ImageError: no image may take its name, or the builder's program is missing.
        """
        images = self._images
        images.require("snakemake")
        if images.refused and not images.patterns and len(images.refused) == len(images.targets):
            raise ImageError("\nerror: ".join(dict.fromkeys(map(str, images.refused.values()))))
        if self._host.executes and self._host.local:
            programs.find(self._settings.builder)

    def begin(self) -> None:
        """Note what is there before a run; `sregistry pull` tells by itself what it did."""
        if not self._host.runs or os.environ.get(heartbeat.VARIABLE) or not self._host.own:
            return
        if not self._summary.begun:
            self._summary.begin(self._images.plan)
            # Where nothing is to be done, Snakemake calls no handler: then it is told on the way out.
            atexit.register(self._end_idle)
        self._summary.expect(list(self._images.targets.values()))

    def expect(self, outputs: Sequence[str]) -> None:
        """Note what is there when nothing is left to do."""
        self._expected = outputs

    @in_one_line
    def sweep(self) -> None:
        """Before a run looks for what is there, discard receipts that no longer count and stamp what is asked again."""
        if self._swept or not self._host.runs:
            return
        self._swept = True
        if (lost := self._host.lost_program) is not None:
            raise UsageError(
                f"the profile's program {lost} is not found from {os.getcwd()}; say --workflow-profile with the full path of its folder"
            )
        images, settings, top = self._images, self._settings, self._host.top
        # A cache for one run is made by who runs: another one, that is refused now, must not remove it.
        asked = (images.targets or images.patterns) and not settings.disable_cache and settings.store.is_dir()
        if asked or not self._host.own:  # Snakemake does not run `onstart` of a module
            self.hold_store()
        sweep.sweep_tags(images.results, images.patterns, settings.store, top / images.choice)
        sweep.sweep(images.results, images.variants, settings.store, top / images.gathering)
        if settings.refresh or images.outdated:
            # A new text each time: what has the same bytes as before triggers nothing.
            receipts.publish(top / paths.STAMP, str(time.time_ns()).encode())

    @functools.cached_property
    def remade(self) -> frozenset[Path]:
        """Outputs that a run makes anew because it sweeps first, in a process that only asks."""
        if self._host.runs or not self._host.first:
            return frozenset()
        images, gathering = self._images, self._host.top / self._images.gathering
        return frozenset(sweep.remade(images.results, images.variants, images.patterns, self._settings.store, gathering))

    @in_one_line
    def hold_store(self) -> None:
        """Protect the layers of this run from `store clean` until the process exits; delete a per-run cache at exit.

        `sregistry pull` does both itself. There may be no store before the first job, and a dry run makes none.
        """
        if self._held or os.environ.get(heartbeat.VARIABLE):
            return
        self._held = True
        held = contextlib.ExitStack()
        if self._settings.disable_cache and self._host.first:
            held.enter_context(temporary.temporary(self._settings.cache))
        held.enter_context(maintenance.session(Store(self._settings.store)))
        atexit.register(held.close)

    def started(self) -> None:
        """There are jobs to run."""
        self._started = True
        self.hold_store()

    def gathered(self) -> None:
        """All manifests are there: after a refresh, what has changed is told."""
        if self._host.first:
            self._summary.gathered()

    def ended(self, *, failed: bool = False) -> None:
        """Tell what became of the images."""
        self.ended_well = not failed
        try:
            self._summary.close(failed=failed, patterns=self._images.lists.failed if self._summary.begun else None)
        except SregistryError as error:
            code = errors.report(error)
            if not failed:
                sys.exit(code)

    @functools.cached_property
    def pages(self) -> Path:
        """The folder of a report's pages: in the results of a run; else, as nothing may change there, one that goes with the process."""
        if self.ended_well:
            return self._images.results.at(paths.PAGES, batch=self._images.batch)
        folder = temporary.without_braces()
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder

    def _end_idle(self) -> None:
        """Tell of a run that had nothing to do; one that was refused, or ended before its first job, said so itself."""
        if not self._started and self._expected and all((self._host.top / path).exists() for path in self._expected):
            self.ended()
