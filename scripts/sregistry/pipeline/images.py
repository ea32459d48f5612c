"""Which images a run is about, and which of their tags are asked for again.

```
config ─▶ Plan ─┬─▶ images that are named ─────────────────────────────┐
                └─▶ patterns ─▶ lists of tags, once they are gathered ─┴─▶ targets
```
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sregistry.catalog.occupant import refusals
from sregistry.config import options, own_config, secrets_file, settings, temporary
from sregistry.config import plan as planning
from sregistry.config.plan import Plan
from sregistry.config.targets import Target, locate
from sregistry.errors import ConfigError, ImageError, SregistryError, UsageError
from sregistry.pipeline import pinned
from sregistry.pipeline.host import Host, in_one_line
from sregistry.results import paths, receipts
from sregistry.results.paths import Results
from sregistry.system import logs


@in_one_line
def plan(host: Host, config: Mapping[str, Any], *, given: Mapping[str, Any], schema: str, files: Iterable[str] = ()) -> Plan:
    """Return what the configuration asks for, and warn of what may not be meant.

    Args:
        config: all keys, as Snakemake merged them.
        given: those of the command line and its files.
        schema: the file of what is allowed, a JSON schema in YAML.
        files: where the keys were read, those that weigh most first.
    """
    logs.set_up(os.environ)
    options.folder(Path.cwd(), "the working folder")
    asked = planning.plan(
        config,
        overrides=given if host.own else {},
        schema=Path(schema),
        environ=secrets_file.overlay(os.environ),
        files=[*map(Path, files), settings.CONFIG] if host.own else [],
    )
    if host.first and logs.shown(logs.Level.WARNING):
        foreign = own_config.foreign() if host.own else None
        for line in filter(None, [foreign, *planning.warnings(asked, os.environ)]):
            print(f"warning: {line}", file=sys.stderr)
    return asked


class Images:
    """The images of a plan, those of patterns as far as their lists of tags are there.

    `targets` are by their keys, `refused` says why an image must not take its name. `batch` names the set of images:
    different sets have different gathering files, and can be made side by side in one folder.
    """

    @in_one_line
    def __init__(self, host: Host, plan: Plan) -> None:
        self._host = host
        self.environ = secrets_file.overlay(os.environ)
        self.patterns = {pattern.key: pattern for pattern in plan.open}
        keys = [*sorted(target.key for target in plan.targets), *sorted(self.patterns)]
        self.batch = hashlib.sha256(json.dumps(keys).encode()).hexdigest()[:16]
        self.results = Results(host.top)
        self.gathering = paths.GATHERED.format(batch=self.batch)
        self.choice = paths.TARGETS.format(batch=self.batch)
        if plan.settings.disable_cache:
            cache = temporary.cache(plan.settings, self.results.folder, self.batch)
            plan = replace(plan, settings=replace(plan.settings, cache=cache))
        self.plan, self.settings = plan, plan.settings
        self.outdated: set[str] = set()
        self.targets: dict[str, Target] = {}
        self.refused: dict[str, ImageError] = {}
        self._take(pinned.tags(plan, self.results), again=host.first)
        self._taken: int | None = None

    @in_one_line
    def take_patterns(self, time: int) -> None:
        """Take up the images of the patterns; *time* is that of the gathered lists, which are read once."""
        if self._taken != time:
            self._take(self.lists.tags, again=False)
            self._taken = time

    def require(self, command: str) -> None:
        """Raise UsageError if no image is asked for, with the command that asks for one."""
        if not self.targets and not self.plan.patterns:
            raise UsageError(f"no image is asked for; name one: {command} --config uri=nvidia/caffe2:17.10")

    @property
    def lists(self) -> receipts.TagLists:
        """The tags of all patterns, and why lists could not be had; nothing before they are gathered."""
        path = self._host.top / self.choice
        return receipts.TagLists.read(path) if self.patterns and path.exists() else receipts.TagLists(tags={}, failed={})

    def find(self, text: str) -> Target:
        """Return the image that a text means, by reference or by file name. Raises ConfigError: none, or several."""
        try:
            _, wanted = locate(text, self.settings.client, self.environ)
        except SregistryError:
            wanted = None
        found = [target for target in self.targets.values() if target.path.name == text or target.reference == wanted]
        if len(found) != 1:
            names = ", ".join(sorted(target.path.name for target in found or self.targets.values())) or "none"
            raise ConfigError(f"{text!r} means {'several images' if found else 'no image'} of the config; name a file: {names}")
        return found[0]

    @property
    def variants(self) -> dict[str, str]:
        """The images' keys, with the names of their compressions."""
        return {key: target.compression.variant for key, target in self.targets.items()}

    def questions(self) -> dict[str, Any]:
        """Return what a refresh asks: of each image and each pattern, and what they meant before."""
        known = pinned.tags(self.plan, self.results)
        images = [
            {
                "uri": target.uri,
                "client": target.client,
                "platform": str(target.platform),
                "locked": None if target.locked is None else str(target.locked),
                "pinned": str(self.results.at(paths.MANIFEST, image=key)),
            }
            for key, target in self.targets.items()
        ]
        patterns = [
            {
                "uri": pattern.repository,
                "client": pattern.client,
                "tags": pattern.tags,
                "newest": pattern.newest,
                "before": known.get(pattern.key),
            }
            for pattern in self.plan.patterns
        ]
        return {"images": images, "patterns": patterns}

    def _take(self, tags: Mapping[str, Sequence[str]], *, again: bool) -> None:
        self.targets = {target.key: target for target in self.plan.images(tags)}
        found = list(self.targets.values())
        self.outdated |= pinned.outdated(found, self.results, refresh=self.settings.refresh, again=again)
        if self._host.first:
            self.refused = refusals(found, self.settings, self.environ, self.results)
            self.outdated |= set(self.refused)  # their manifests are asked for again, which tells
