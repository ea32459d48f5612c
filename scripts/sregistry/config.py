"""The configuration that Snakemake hands over: checked against the schema, then settings and targets.

```
--config, config/config.yaml ─▶ check ─▶ Settings + [Target]
```
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sregistry.compression import Codec
from sregistry.errors import ConfigError
from sregistry.settings import UNVERIFIED, Settings, unverified
from sregistry.target import Target, targets

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

_TYPES = {"object": "a table", "array": "a list", "string": "text", "integer": "a whole number", "boolean": "yes or no"}


def plan(
    config: Mapping[str, Any], *, overrides: Mapping[str, Any], schema: Path, environ: Mapping[str, str]
) -> tuple[Settings, list[Target]]:
    """Return what is to be made, and how.

    Args:
        config: all keys, as Snakemake merged them.
        overrides: those of the command line; they go before the environment.
        schema: what is allowed, as a JSON schema in YAML.
        environ: the process's environment.

    Returns:
        The settings, and the targets; none if no image is asked for.

    Raises:
        ConfigError: an unknown key or a bad value, named.
        InvalidReference: a text that names no image.
    """
    check(config, schema)
    given = {key: value for key, value in config.items() if key in overrides and overrides[key] == value}
    file = {key: value for key, value in config.items() if key not in given}
    settings = Settings.load(given=given, file=file, environ=environ)
    # Images of the command line replace those of the file, as any other key does.
    source = given if given.get("uri") or given.get("images") else file
    uris = source.get("uri") or []
    entries = [*([uris] if isinstance(uris, str) else uris), *(source.get("images") or [])]
    return settings, targets(entries, settings, environ)


def warnings(settings: Settings, targets: Sequence[Target], environ: Mapping[str, str]) -> list[str]:
    """Return what is possible but may not be meant, a line each."""
    lines = []
    if targets and unverified(environ):
        lines.append(UNVERIFIED)
    if settings.compression.codec is Codec.ZSTD and any(target.format != "sandbox" for target in targets):
        # sif.md §10; squashfs.md §12.
        lines.append(
            "compression.codec: zstd: Singularity from 3.5, SingularityCE up to 4.5, Apptainer before 1.4 and Linux before 4.14"
            " refuse such images; gzip runs everywhere"
        )
    if settings.builder == "singularity" and targets and os.geteuid():
        lines.append(
            "builder: singularity: without root, a runtime makes all files root's, devices empty files, and drops capabilities;"
            " native and mksquashfs keep them"
        )
    return lines


def check(config: Mapping[str, Any], schema: Path) -> None:
    """Check the keys and types of *config*. Raises ConfigError that names the first bad key."""
    import yaml
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import relevance

    validator = Draft202012Validator(yaml.safe_load(schema.read_bytes()))
    error = max(validator.iter_errors(config), key=relevance, default=None)
    if error is not None:
        raise _explain(error)


def _explain(error: ValidationError) -> ConfigError:
    """Put a schema's complaint in one line."""
    shapes = []
    while error.validator == "anyOf" and error.context:
        shapes = [shape for e in error.context if e.validator == "type" and not e.path for shape in _listed(e.validator_value)]
        # Of several shapes, the one that the value comes closest to.
        error = max(error.context, key=lambda e: (len(e.absolute_path), e.validator != "type"))
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path).lstrip(".")
    value, schema, rule = error.instance, cast(dict[str, Any], error.schema), cast(Any, error.validator_value)
    if error.validator == "additionalProperties":
        known: dict[str, Any] = schema["properties"]
        unknown = next(name for name in cast(dict[str, Any], value) if name not in known)
        return ConfigError(f"config: unknown key {f'{key}.{unknown}'.lstrip('.')!r}", hint="known keys: " + ", ".join(known))
    if error.validator == "required":
        return ConfigError(f"config: {key}: {error.message}")
    if error.validator == "enum":
        return ConfigError(f"config: {key}: {value!r} is unknown", hint="one of " + ", ".join(map(str, rule)))
    if error.validator == "type":
        types = shapes or _listed(rule)
        expected = " or ".join(_TYPES[name] for name in types if name != "null")
        hint = None
        if "string" in types and isinstance(value, (int, float)):
            hint = f"""quote it: --config '{key}="…"', for 17.10 is read as the number 17.1"""
        return ConfigError(f"config: {key}: expected {expected}, got {_show(value)}", hint=hint)
    return ConfigError(f"config: {key}: {_show(value)} is not allowed: {schema.get('description', error.message)}")


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def _show(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"the number {value}"
    return f"{type(value).__name__} {value!r}"[:80] if not isinstance(value, (str, int)) else repr(value)[:80]
