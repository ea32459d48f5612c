"""The configuration that Snakemake hands over: checked against the schema, then a plan.

```
--config, --configfile, config/config.yaml ─▶ check ─▶ Settings + [Entry] ─┬─▶ [Target]
                                                             lock file ────┴─▶ [Pattern] ─▶ tag lists ─▶ [Target]
```

What is wrong is said with the file, the line and the key, ``batch.yaml:12: images[3].format: …``, a line each.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sregistry.config import requested
from sregistry.config.lock_file import Lock
from sregistry.config.requested import Entry
from sregistry.config.schema_check import check
from sregistry.config.settings import UNVERIFIED, Settings, unverified
from sregistry.config.tag_patterns import Pattern
from sregistry.config.targets import Target, targets
from sregistry.config.yaml_lines import Marks, blamed, read_yaml, written
from sregistry.errors import ConfigError, UsageError, refuse
from sregistry.layers.compression import Codec
from sregistry.oci.reference import DEFAULT_TAG


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be made, and how.

    `targets` are the images that the configuration names, or the lock file; `patterns` stand for more, which
    are known when their tag lists are there, or `settled` by the lock file: then they are among the targets. Without
    both, no image is asked for.
    """

    settings: Settings
    targets: Sequence[Target]
    patterns: Sequence[Pattern]
    settled: Mapping[str, Sequence[str]]
    entries: Sequence[Entry]
    marks: Marks = field(repr=False)
    environ: Mapping[str, str] = field(repr=False)

    @property
    def open(self) -> Sequence[Pattern]:
        """The patterns whose lists are the registry's to tell."""
        return () if self.settled else self.patterns

    def images(self, tags: Mapping[str, Sequence[str]]) -> list[Target]:
        """Return all targets, with those of the patterns' *tags*, by the patterns' keys; a pattern without an item has none yet.

        Raises:
            ConfigError: two different images would become one file.
        """
        if not self.open:
            return list(self.targets)
        entries = [target.entry for target in self.targets]
        for pattern in self.open:
            entries += pattern.entries(tags.get(pattern.key, ()))
        return targets(entries, self.settings, self.environ, blame=_Blame(self.marks))


def plan(
    config: Mapping[str, Any],
    *,
    overrides: Mapping[str, Any],
    schema: Path,
    environ: Mapping[str, str],
    files: Sequence[Path] = (),
) -> Plan:
    """Return what is to be made, and how.

    Args:
        config: all keys, as Snakemake merged them.
        overrides: those of the command line, its files included; they go before the environment.
        schema: what is allowed, as a JSON schema in YAML.
        environ: the process's environment.
        files: where the keys were read, those that weigh most first.

    Raises:
        ConfigError: an unknown key or a bad value, named; an image that the lock file lacks.
        InvalidReference: a text that names no image.
        Mistakes: several of these.
    """
    marks = Marks(files, config)
    refuse([*marks.repeated(), *check(config, read_yaml(schema.read_bytes(), schema), marks)])
    blame = _Blame(marks)
    given = {key: value for key, value in config.items() if key in overrides and overrides[key] == value}
    file = {key: value for key, value in config.items() if key not in given}
    try:
        settings = Settings.load(given=given, file=file, environ=environ)
    except ConfigError as error:
        raise blamed(error, marks) from None
    # Images of the command line replace those of the file, as any other key does; only tables are merged by Snakemake.
    asked = {key: overrides[key] for key in requested.KEYS if overrides.get(key) and (key in given or key == "groups")}
    entries = requested.entries(asked or file)
    if settings.locked is not None and settings.refresh:
        raise ConfigError("locked, refresh: what tags meant, or what they mean now: not both", hint="leave one of them out")
    lock = Lock.read(settings.locked) if settings.locked is not None else None
    alone = lock.patterns if lock is not None and not entries else None
    if lock is not None and not entries:
        entries = lock.entries
    patterns = _patterns(entries if alone is None else alone, settings, environ, blame)
    named = [entry for entry in entries if "tags" not in entry.options]
    settled = {pattern.key: lock.find(pattern) for pattern in patterns} if lock is not None else {}
    if alone is None:  # else the lock file names the images of its patterns
        for pattern in patterns:
            named += pattern.entries(settled.get(pattern.key, ()))
    made = targets(named, settings, environ, blame=blame)
    return Plan(
        settings=settings,
        targets=made if lock is None else lock.pin(made),
        patterns=patterns,
        settled=settled,
        entries=entries,
        marks=marks,
        environ=environ,
    )


def _patterns(entries: Sequence[Entry], settings: Settings, environ: Mapping[str, str], blame: _Blame) -> list[Pattern]:
    """Return the patterns among *entries*. Raises as `plan`, for any of the entries."""
    found: list[Pattern] = []
    mistakes: list[UsageError] = []
    for entry in entries:
        try:
            if "tags" not in entry.options:
                targets([entry], settings, environ)
                continue
            pattern = Pattern.of(entry, settings, environ)
            _sample(pattern, settings, environ)
            found.append(pattern)
        except UsageError as error:
            mistakes.append(blame(error, entry))
    refuse(mistakes)
    return found


def warnings(plan: Plan, environ: Mapping[str, str]) -> list[str]:
    """Return what is possible but may not be meant, a line each."""
    settings, lines = plan.settings, []
    asked = bool(plan.targets or plan.patterns)
    if asked and unverified(environ):
        lines.append(UNVERIFIED)
    made = [*plan.targets, *(target for pattern in plan.open for target in _sample(pattern, plan.settings, environ))]
    if any(target.compression.codec is Codec.ZSTD and target.format != "sandbox" for target in made):
        # sif.md §10; squashfs.md §12.
        lines.append(
            "compression.codec: zstd: Singularity from 3.5, SingularityCE up to 4.5, Apptainer before 1.4 and Linux before 4.14"
            " refuse such images; gzip runs everywhere"
        )
    if settings.builder == "singularity" and asked and os.geteuid():
        lines.append(
            "builder: singularity: without root, a runtime makes all files root's, devices empty files, and drops capabilities;"
            " native and mksquashfs keep them"
        )
    return [*lines, *_repeated(plan)]


def _sample(pattern: Pattern, settings: Settings, environ: Mapping[str, str]) -> list[Target]:
    """Return what a pattern makes of a tag. Raises as `targets`, before any list is there."""
    return targets(pattern.entries([DEFAULT_TAG]), settings, environ)


def _repeated(plan: Plan) -> list[str]:
    """Return a line for each entry that asks for what an earlier one does."""
    lines = []
    first = {target.key: target.entry for target in plan.targets}
    kept = {id(target.entry) for target in plan.targets}
    for entry in plan.entries:
        if "tags" in entry.options or id(entry) in kept:
            continue
        (target,) = targets([entry], plan.settings, plan.environ)
        place = plan.marks.find(entry.key)
        lines.append(f"{f'{place}: ' if place else ''}{written(entry.key)}: {entry.uri} is {written(first[target.key].key)} again")
    return lines


class _Blame:
    """Says where the entry, or the setting, stands that an error is about."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks

    def __call__(self, error: UsageError, entry: Entry) -> UsageError:
        if entry.place:
            return type(error)(f"{entry.place}: {entry.uri}: {error.message}", hint=error.hint)
        option = error.message.partition(":")[0] if isinstance(error, ConfigError) else ""
        inner = tuple(option.split(".")) if option.partition(".")[0] in entry.options else ()
        # What a group says is blamed where the group says it.
        for key in ((*entry.key, *inner), (*entry.group, *inner), entry.key):
            place = self._marks.find(key) if key else None
            if place is not None:
                named = written(key) + (f": {error.message}" if not inner or key == entry.key else error.message[len(option) :])
                return type(error)(f"{place}: {named}", hint=error.hint)
        return error
