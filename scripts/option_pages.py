"""Write what the options say into the pages that are made of them: run it after a change of config/options.py.

```
config/options.py ─▶ workflow/schemas/config.schema.yaml   properties and definitions
                 └─▶ config/README.md                      the two tables of "Configuration"
```

Only what stands between `… made of scripts/sregistry/config/options.py` and `… end` is written; what asks for images is written by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sregistry.config.options import OPTIONS, Option

COMMAND = "python scripts/option_pages.py"
_TOP = Path(__file__).resolve().parents[1]
_MARK = "made of scripts/sregistry/config/options.py"


def pages() -> dict[Path, str]:
    """Return the pages as they should be."""
    schema, readme = _TOP / "workflow/schemas/config.schema.yaml", _TOP / "config/README.md"
    return {
        schema: _filled(schema.read_text(), {"properties": _properties("  "), "definitions": _definitions("  ")}),
        readme: _filled(readme.read_text(), {"keys": _keys(), "variables": _variables()}),
    }


def _filled(text: str, blocks: Mapping[str, Iterator[str]]) -> str:
    """Return *text* with each block of lines between its two marks."""
    for name, lines in blocks.items():
        pattern = re.compile(rf"(?<=\b{name} {_MARK})([^\n]*\n).*?\n(?=[^\n]*\b{name} end)", re.DOTALL)
        block = "".join(f"{line}\n" for line in lines)
        text, found = pattern.subn(lambda match, block=block: match[1] + block, text)  # type: ignore[misc]
        if found != 1:
            raise SystemExit(f"expected one block {name!r}, found {found}")
    return text


def _yaml(schema: Mapping[str, Any]) -> str:
    """Return a schema as YAML in one line."""
    return re.sub(r'"([a-z][a-z_]*)"', lambda match: match[0] if match[1] == "null" else match[1], json.dumps(schema))


def _tables() -> dict[str, dict[str, Option]]:
    """Return key → option, or key → the options of its table, in their order."""
    found: dict[str, dict[str, Option]] = {}
    for option in OPTIONS:
        if option.is_key:
            key, _, inner = option.name.partition(".")
            found.setdefault(key, {})[inner] = option
    return found


def _properties(indent: str) -> Iterator[str]:
    for key, options in _tables().items():
        shared = any(option.per_image for option in options.values())
        yield from _property(indent, key, {"": options[""]} if "" in options else options, reference=shared)


def _definitions(indent: str) -> Iterator[str]:
    for key, options in _tables().items():
        if any(option.per_image for option in options.values()):
            yield from _property(indent, key, options, reference=False)


def _property(indent: str, key: str, options: Mapping[str, Option], *, reference: bool) -> Iterator[str]:
    if reference:
        yield f'{indent}{key}: {{$ref: "#/$defs/{key}"}}'
    elif "" in options:
        yield f"{indent}{key}: {_yaml(options[''].schema or {})}"
    else:
        yield f"{indent}{key}:"
        yield f'{indent}  type: [object, "null"]'
        yield f"{indent}  additionalProperties: false"
        yield f"{indent}  properties:"
        for inner, option in options.items():
            yield f"{indent}    {inner}: {_yaml(option.schema or {})}"


def _keys() -> Iterator[str]:
    yield "| key | values | default | variable |"
    yield "|---|---|---|---|"
    yield "| `uri` | a reference or a list of references | | |"
    images = "a list of references or of `{uri, name, platform, format, compression, tags, newest}`; see [Batches](#batches)"
    yield f"| `images` | {images} | | |"
    yield "| `groups` | name → options that hold for all its `images` | | |"
    for option in OPTIONS:
        if option.is_key:
            variables = ", ".join(f"`{name}`" for name in option.variables) + (f", {option.separated}" if option.separated else "")
            words = (option.schema or {}).get("enum", ())
            values = [
                *([", ".join(f"`{word}`" for word in words)] if words else []),
                option.help,
                *([f"in {option.unit}"] if option.unit else []),
            ]
            yield f"| `{option.name}` | {'; '.join(values)} | {_default(option)} | {variables} |".replace("|  |", "| |").replace(
                "|  |", "| |"
            )


def _variables() -> Iterator[str]:
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    for option in OPTIONS:
        if not option.is_key:
            yield f"| `{option.variables[0]}` | {_default(option)} | {option.help} |"


def _default(option: Option) -> str:
    if option.otherwise or option.default in (None, []):
        return option.otherwise
    if isinstance(option.default, bool):
        return "yes" if option.default else "no"
    return f"`{option.default}`"


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
