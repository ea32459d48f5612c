"""One check of all that a user writes: the configuration, a registries.yaml, a lock file. A mistake is a line, with its place.

```
value, JSON schema ─▶ plainly right? ─ yes ─▶ []
                       └ no, or not known ─▶ jsonschema ─▶ [ConfigError: batch.yaml:12: images[3].format: 'x' is unknown; one of …, …]
```

What a schema says beside its rules: `title` is what a value that breaks one should have been; `writeOnly` marks a value that is not
repeated, for it may be a secret; `format` is one of `FORMATS`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from sregistry.config.yaml_lines import Key, Line, Marks, written
from sregistry.errors import ConfigError
from sregistry.oci.digest import is_digest
from sregistry.oci.reference import is_host

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

#: Format → whether a text, or a number, has it. Other types are for `type` to judge.
FORMATS: dict[str, Callable[[Any], bool]] = {
    "host": lambda value: not isinstance(value, str) or is_host(value),
    "digest": lambda value: not isinstance(value, str) or is_digest(value),
    "finite": lambda value: not isinstance(value, float) or math.isfinite(value),
}
_NAMES = {
    "object": "a table",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "yes or no",
}
#: Keyword → whether a value satisfies it, given the rule and the schema that it stands in; as jsonschema has it.
_RULES: dict[str, Callable[[Any, Any, Mapping[str, Any]], bool]] = {
    "type": lambda value, rule, _: any(_is(value, name) for name in ([rule] if isinstance(rule, str) else rule)),
    "enum": lambda value, rule, _: isinstance(value, str) and value in rule,
    "pattern": lambda value, rule, _: not isinstance(value, str) or bool(re.search(rule, value)),
    "format": lambda value, rule, _: FORMATS[rule](value),
    "minimum": lambda value, rule, _: not isinstance(value, (int, float)) or value >= rule,
    "maximum": lambda value, rule, _: not isinstance(value, (int, float)) or value <= rule,
    "exclusiveMinimum": lambda value, rule, _: not isinstance(value, (int, float)) or value > rule,
    "required": lambda value, rule, _: not isinstance(value, dict) or value.keys() >= set(rule),
    "items": lambda value, rule, _: not isinstance(value, list) or all(_plainly_right(item, rule) for item in value),
    "propertyNames": lambda value, rule, _: not isinstance(value, dict) or all(_plainly_right(name, rule) for name in value),
    "properties": lambda value, rule, _: (
        not isinstance(value, dict) or all(_plainly_right(value[name], inner) for name, inner in rule.items() if name in value)
    ),
    "additionalProperties": lambda value, rule, schema: (
        not isinstance(value, dict)
        or all(rule and _plainly_right(item, rule) for name, item in value.items() if name not in schema.get("properties", ()))
    ),
    **dict.fromkeys(("title", "description", "writeOnly"), lambda value, rule, schema: True),
}
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}


def check(value: Any, schema: Mapping[str, Any], lines: Marks, *, nowhere: str = "config", hint: str | None = None) -> list[ConfigError]:
    """Return what is wrong with *value*, in the order of the lines.

    Args:
        lines: where its keys stand.
        nowhere: what is named for a key that no file has.
        hint: for mistakes that have none of their own.
    """
    if _plainly_right(value, schema):
        return []
    from jsonschema import Draft202012Validator, FormatChecker

    formats = FormatChecker(())
    for name, holds in FORMATS.items():
        formats.checks(name)(holds)
    errors = list(Draft202012Validator(schema, format_checker=formats).iter_errors(value))
    # Don't report a missing `uri` beside a misspelt `urii`.
    misspelt = {tuple(error.absolute_path) for error in errors if error.validator == "additionalProperties"}
    found = [
        (lines.find(key), message, own)
        for error in errors
        if error.validator != "required" or tuple(error.absolute_path) not in misspelt
        for key, message, own in _explain(error, lines)
    ]
    found.sort(key=lambda item: item[0] or Line("", 0))
    # A value may break several rules, and have one description.
    return list({message: ConfigError(f"{line or nowhere}: {message}", hint=own or hint) for line, message, own in found}.values())


def _plainly_right(value: Any, schema: Mapping[str, Any]) -> bool:
    """Return whether *value* satisfies a schema of few keywords; False also for what only jsonschema can tell.

    That takes 0.1 s to import, and every job reads the registries.
    """
    return all(keyword in _RULES and _RULES[keyword](value, rule, schema) for keyword, rule in schema.items())


def _is(value: object, name: str) -> bool:
    """Return whether *value* is of a type of JSON; True is no number."""
    return name == "boolean" if isinstance(value, bool) else isinstance(value, _TYPES.get(name, ()))


def _explain(error: ValidationError, lines: Marks) -> Iterator[tuple[Key, str, str | None]]:
    """Put a schema's complaint as key, message and hint; of several unknown keys one each."""
    path = tuple(error.absolute_path)
    value, schema, rule = cast(Any, error.instance), cast(dict[str, Any], error.schema), cast(Any, error.validator_value)
    named = f"{written(path)}: " if path else ""
    if error.validator == "additionalProperties":
        known: dict[str, Any] = schema["properties"]
        for unknown in (name for name in value if name not in known):
            yield (*path, unknown), f"unknown key {written((*path, unknown))!r}", _guess(str(unknown), known)
    elif "propertyNames" in error.absolute_schema_path:
        yield (*path, value), f"{named}{str(value)[:40]!r}: expected {schema['title']}", None
    elif error.validator == "required":
        missing = [repr(name) for name in rule if name not in value]
        yield path, f"{named}{', '.join(missing)} {'is a required property' if len(missing) == 1 else 'are required properties'}", None
    elif "title" in schema:
        yield path, f"{named}expected {schema['title']}" + ("" if schema.get("writeOnly") else f", got {_show(value)}"), None
    elif error.validator == "enum":
        yield path, f"{named}{_show(value)} is unknown", _guess(str(value), rule, "one of")
    elif error.validator == "type":
        types, hint = [rule] if isinstance(rule, str) else rule, None
        if "string" in types and isinstance(value, (int, float)) and not isinstance(value, bool):
            quoted = f'"{value}"' if lines.find(path) else f"""--config '{written(path)}="…"'"""
            hint = f"quote it: {quoted}, for 17.10 is read as the number 17.1"
        yield path, f"{named}expected {' or '.join(_NAMES[name] for name in types if name != 'null')}, got {_show(value)}", hint
    else:
        yield path, f"{named}{_show(value)} is not allowed: {error.message}", None


def _guess(word: str, known: Collection[object], all_of_them: str = "known keys:") -> str:
    """Say what may be meant, else all that can be."""
    from difflib import get_close_matches

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
