"""The configuration that Snakemake hands over: checked against the schema, then a plan.

```
--config, --configfile, config/config.yaml ─▶ check ─▶ Settings + [Entry] ─┬─▶ [Target]
                                                             lock file ────┴─▶ [Pattern] ─▶ tag lists ─▶ [Target]
```

What is wrong is said with the file, the line and the key, ``batch.yaml:12: images[3].format: …``, a line each.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sregistry.config import requested
from sregistry.config.lock_file import Lock
from sregistry.config.requested import Entry
from sregistry.config.settings import UNVERIFIED, Settings, unverified
from sregistry.config.tag_patterns import Pattern
from sregistry.config.targets import Target, targets
from sregistry.config.yaml_lines import Key, Marks, Place, written
from sregistry.errors import ConfigError, UsageError, refuse
from sregistry.layers.compression import Codec
from sregistry.oci.reference import DEFAULT_TAG

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

_TYPES = {"object": "a table", "array": "a list", "string": "text", "integer": "a whole number", "boolean": "yes or no"}
#: Of what no file says.
_NO_PLACE = "config"


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
    refuse([*marks.repeated(), *check(config, schema, marks)])
    blame = _Blame(marks)
    given = {key: value for key, value in config.items() if key in overrides and overrides[key] == value}
    file = {key: value for key, value in config.items() if key not in given}
    try:
        settings = Settings.load(given=given, file=file, environ=environ)
    except ConfigError as error:
        raise blame.setting(error) from None
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

    def setting(self, error: ConfigError) -> ConfigError:
        place = self._marks.find(tuple(error.message.partition(":")[0].split(".")))
        return error if place is None else ConfigError(f"{place}: {error.message}", hint=error.hint)


def check(config: Mapping[str, Any], schema: Path, marks: Marks) -> list[ConfigError]:
    """Check the keys and types of *config*; return what is wrong, in the order of the lines."""
    import yaml
    from jsonschema import Draft202012Validator

    errors = list(Draft202012Validator(yaml.safe_load(schema.read_bytes())).iter_errors(config))
    # That `uri` is missing is no news of who wrote `urii`.
    misspelt = {tuple(error.absolute_path) for error in errors if error.validator == "additionalProperties"}
    found: list[tuple[Place | None, ConfigError]] = []
    for error in errors:
        if error.validator != "required" or tuple(error.absolute_path) not in misspelt:
            found += _explain(error, marks)
    return [mistake for _, mistake in sorted(found, key=lambda pair: pair[0] or Place("", 0))]


def _explain(error: ValidationError, marks: Marks) -> Iterator[tuple[Place | None, ConfigError]]:
    """Put a schema's complaint in one line, of several unknown keys in a line each, with the place that it is about."""
    path = tuple(error.absolute_path)
    value, schema, rule = error.instance, cast(dict[str, Any], error.schema), cast(Any, error.validator_value)
    if error.validator == "additionalProperties":
        known: dict[str, Any] = schema["properties"]
        for unknown in cast(dict[str, Any], value):
            if unknown not in known:
                yield _mistake(marks, (*path, unknown), f"unknown key {written((*path, unknown))!r}", _guess(str(unknown), known))
        return
    hint = None
    if error.validator == "required":
        message = error.message
    elif error.validator == "enum":
        message, hint = f"{value!r} is unknown", _guess(str(value), rule, "one of")
    elif error.validator == "type":
        types = rule if isinstance(rule, list) else [rule]
        message = f"expected {' or '.join(_TYPES[name] for name in types if name != 'null')}, got {_show(value)}"
        if "string" in types and isinstance(value, (int, float)) and not isinstance(value, bool):
            quoted = f'"{value}"' if marks.find(path) else f"""--config '{written(path)}="…"'"""
            hint = f"quote it: {quoted}, for 17.10 is read as the number 17.1"
    else:
        message = f"{_show(value)} is not allowed: {schema.get('description', error.message)}"
    yield _mistake(marks, path, f"{written(path)}: {message}" if path else message, hint)


def _mistake(marks: Marks, key: Key, message: str, hint: str | None) -> tuple[Place | None, ConfigError]:
    place = marks.find(key)
    return place, ConfigError(f"{place or _NO_PLACE}: {message}", hint=hint)


def _guess(word: str, known: Collection[object], all_of_them: str = "known keys:") -> str:
    """Say what may be meant, else all that can be."""
    words = [str(name) for name in known]
    close = get_close_matches(word, words, n=1)
    return f"did you mean {close[0]}?" if close else f"{all_of_them} {', '.join(words)}"


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"the number {value}"
    if value is None:
        return "nothing"
    return f"{type(value).__name__} {value!r}"[:80] if not isinstance(value, (str, int)) else repr(value)[:80]
