"""Where a key of the configuration stands: the file and the line.

```
("images", 3, "format") ─▶ the file that says so ─▶ batch.yaml:12
```

Snakemake loads and merges the files itself; here they are read again, for their marks.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sregistry.errors import ConfigError

if TYPE_CHECKING:
    from yaml.nodes import MappingNode, Node

Key = tuple[str | int, ...]

#: Keys of the mapping that it names are keys of the mapping it stands in (YAML 1.1, "Merge Key").
_MERGE = "<<"


class Line(NamedTuple):
    """A line of a file."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Marks:
    """The configuration files, those that weigh most first, and what they hold together: *config*, as Snakemake merged them."""

    def __init__(self, files: Sequence[Path], config: Any) -> None:
        self._files = [path for path in files if path.is_file()]
        self._config = config

    def find(self, key: Key) -> Line | None:
        """Return file and line of *key*, None if no file says what the configuration has there."""
        found, wanted = _value(self._config, key)
        if not found:
            return None
        for path, tree in self._trees.items():
            there = _locate(tree, key)
            if there is not None and _construct(there[1]) == wanted:
                return Line(shown(path), there[0].start_mark.line + 1)
        return None

    def repeated(self) -> Iterator[ConfigError]:
        """Yield an error for each key that stands twice in one table, where YAML lets the last one win."""
        for path, tree in self._trees.items():
            yield from _repeated(tree, (), shown(path), set())

    @functools.cached_property
    def _trees(self) -> dict[Path, Node]:
        return {path: tree for path in self._files if (tree := _compose(path)) is not None}


def blamed(error: ConfigError, lines: Marks) -> ConfigError:
    """Return an error, whose message begins with its key and a colon, with the line where that stands, if a file has it."""
    line = lines.find(tuple(error.message.partition(":")[0].split(".")))
    return error if line is None else ConfigError(f"{line}: {error.message}", hint=error.hint)


def read_yaml(data: bytes, path: Path) -> Any:
    """Return what a file holds. Raises ConfigError: no YAML, with file and line."""
    import yaml

    try:
        return yaml.load(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 -- a safe one
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: of a date that is none
        mark = getattr(error, "problem_mark", None)
        why = getattr(error, "problem", None) or "characters that are no text"
        raise ConfigError(f"{shown(path)}{f':{mark.line + 1}' if mark else ''}: this is no YAML: {why}") from None


def written(key: Key) -> str:
    """Return a key as people write it: ``groups.cuda.images[3].format``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).lstrip(".")


def shown(path: Path) -> str:
    """Return a file's name, relative to the working folder if it is in there."""
    path = path.absolute()
    return os.path.relpath(path) if Path.cwd() in path.parents else str(path)


def _value(config: Any, key: Key) -> tuple[bool, Any]:
    """Return whether the configuration has a key, and its value."""
    for part in key:
        try:
            config = config[part]
        except (KeyError, IndexError, TypeError):
            return False, None
    return True, config


def _compose(path: Path) -> Node | None:
    """Return the tree of a file, None of one that Snakemake reads in another way."""
    import yaml

    try:
        return yaml.compose(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, yaml.YAMLError):
        return None


def _construct(node: Node) -> Any:
    """Return the value of a node; of what can't be, or is in itself, one that equals no other."""
    import yaml

    try:
        return yaml.SafeLoader("").construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError):
        return object()


def _locate(node: Node | None, key: Key) -> tuple[Node, Node] | None:
    """Return the node of a key (of an item in a list: its value) and that of its value."""
    import yaml

    at = node
    for part in key:
        if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            at = node = node.value[part]
        elif isinstance(node, yaml.MappingNode):
            pair = next(((name, value) for name, value in _pairs(node) if _construct(name) == part), None)
            if pair is None:
                return None
            at, node = pair
        else:
            return None
    return None if at is None or node is None else (at, node)


def _pairs(node: MappingNode) -> Iterator[tuple[Node, Node]]:
    """Yield the keys and values of a table, then those that are merged into it."""
    import yaml

    merged: list[Node] = []
    for name, value in node.value:
        if name.value == _MERGE:
            merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
        else:
            yield name, value
    for table in merged:
        if isinstance(table, yaml.MappingNode):
            yield from _pairs(table)


def _repeated(node: Node, key: Key, file: str, seen: set[int]) -> Iterator[ConfigError]:
    """Look into a node, once: an alias may lead back to where it stands."""
    import yaml

    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield from _repeated(item, (*key, i), file, seen)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for name, value in node.value:
        line = name.start_mark.line + 1
        word = str(name.value)
        if word in lines and word != _MERGE:
            text = written((*key, word))
            yield ConfigError(f"{file}:{line}: {text} stands in line {lines[word]} already", hint="only one of them would count")
        lines[word] = line
        yield from _repeated(value, (*key, word), file, seen)
