"""Filters of records: `cuda>=12.4 and size<10G`.

```
filter     = comparisons with "and" and "or" between them; `and` binds closer
comparison = ["not"] FIELD OP VALUE
OP         = "=" | "!=" | "<" | "<=" | ">" | ">=" | "~"
FIELD      = a name of FIELDS | "version." NAME | "label." KEY
VALUE      = characters other than blanks, quotes, parentheses and < > = ! ~
           | '"' … '"' | "'" … "'"      in quotes, a backslash takes the next character as it is
```

`and`, `or` and `not` count in any case. Of several filters all must hold, so parentheses are not needed: `(a or b) and c` is `a or b`
and `c`. `~` holds when the value occurs in the field, in any case. What is compared depends on the field:

* text: `=` and `!=` compare all of it; < and > the versions that it begins with, so `tag>=17.10` is one.
* versions and dates: by their numbers, and as far as VALUE goes. `cuda=12.4` holds for 12.4.1, as
  `created=2026-01` does for a day of that month; `cuda>12.4` begins with 12.5. What follows the numbers
  (`a0`, `+cuda12.2`) is not looked at: by the order of PEP 440, 2.3.0a0 would not satisfy `pytorch>=2.3`.
* sizes: bytes, or with K, M, G and T for powers of 1000, KiB, MiB, GiB and TiB for powers of 1024.
* lists (capabilities): one of its words must satisfy `=`, `~`; none may equal VALUE for `!=`.

A record without the field never satisfies a comparison, `!=` included; `not cuda=12.4` holds for it.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from sregistry.catalog.image_facts import VERSIONS
from sregistry.errors import UsageError
from sregistry.oci.versions import numbers
from sregistry.system import units

if TYPE_CHECKING:
    from sregistry.catalog.record import Record


class Kind(Enum):
    """How the values of a field compare."""

    TEXT = "text"
    VERSION = "a version such as 12.4"
    DATE = "a date such as 2026-01-31"
    SIZE = units.SIZE
    LIST = "words"


@dataclass(frozen=True, slots=True)
class Field:
    """Where a field stands in a record, as its JSON has it, and how it compares."""

    kind: Kind
    path: tuple[str, ...]


FIELDS: dict[str, Field] = {
    **{
        name: Field(Kind.TEXT, (name,)) for name in ("client", "registry", "collection", "name", "tag", "uri", "digest", "version", "image")
    },
    **{name: Field(Kind.TEXT, (name,)) for name in ("format", "platform")},
    "size": Field(Kind.SIZE, ("size",)),
    "compressed": Field(Kind.SIZE, ("compressed_size",)),
    "created": Field(Kind.DATE, ("created_at",)),
    "built": Field(Kind.DATE, ("facts", "created")),
    "os": Field(Kind.TEXT, ("facts", "os")),
    "architecture": Field(Kind.TEXT, ("facts", "architecture")),
    "title": Field(Kind.TEXT, ("facts", "title")),
    "image_version": Field(Kind.TEXT, ("facts", "image_version")),
    "capabilities": Field(Kind.LIST, ("facts", "capabilities")),
    "cuda_required": Field(Kind.VERSION, ("facts", "cuda_required")),
    "driver": Field(Kind.VERSION, ("facts", "driver")),
    "driver_for_cuda": Field(Kind.VERSION, ("facts", "driver_for_cuda")),
    **{name: Field(Kind.VERSION, ("facts", "versions", name)) for name in VERSIONS},
}
#: Prefix of a name → what it is looked up in.
_OPEN = {"version.": (Kind.VERSION, "versions"), "label.": (Kind.TEXT, "labels")}

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_ORDER = ("<", "<=", ">", ">=")
_TOKEN = re.compile(
    r"""\s*(?:(?P<op><=|>=|!=|[<>=~])|(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<word>[^\s()"'<>=!~]+))""",
    re.DOTALL,
)
_DATE = re.compile(
    r"(\d{4})(?:-(0[1-9]|1[0-2])(?:-(0[1-9]|[12]\d|3[01])(?:[T ]([01]\d|2[0-3])(?::([0-5]\d)(?::([0-5]\d))?)?)?)?)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison; called with a record, it tells whether that satisfies it, or with `negated` whether it does not."""

    field: str
    op: str
    value: str
    negated: bool = False

    def __call__(self, record: Record) -> bool:
        return self._satisfied(record) is not self.negated

    def _satisfied(self, record: Record) -> bool:
        field = _field(self.field)
        assert field is not None, "parsed"
        found = _lookup(record, field.path)
        if found in ("", None, []):
            return False
        if field.kind is Kind.LIST:
            words = [str(word) for word in found] if isinstance(found, list) else [str(found)]
            holds = any(_holds(word, self.op.replace("!=", "="), self.value, Kind.TEXT) for word in words)
            return not holds if self.op == "!=" else holds
        return _holds(str(found), self.op, self.value, field.kind)


@dataclass(frozen=True, slots=True)
class Filter:
    """What satisfies all comparisons of one of the `alternatives`."""

    alternatives: tuple[tuple[Comparison, ...], ...]

    def __call__(self, record: Record) -> bool:
        return any(all(comparison(record) for comparison in part) for part in self.alternatives)


def parse(text: str) -> Filter:
    """Read a filter, which tells of a record whether it is satisfied. Raises UsageError that names the place."""
    tokens = _Tokens(text)
    alternatives: list[list[Comparison]] = [[]]
    while True:
        alternatives[-1].append(_comparison(tokens))
        following = tokens.take("expected `and`, `or` or the end", "and", "or", "end").kind
        if following == "end":
            return Filter(tuple(map(tuple, alternatives)))
        if following == "or":
            alternatives.append([])


def _comparison(tokens: _Tokens) -> Comparison:
    negated = False
    while (name := tokens.take("expected a field", "word", "not")).kind == "not":
        negated = not negated
    field = _field(name.text)
    if field is None:
        close = difflib.get_close_matches(name.text, FIELDS, n=1)
        known = f"one of {', '.join(FIELDS)}, version.NAME, label.KEY"
        tokens.fail("unknown field", name, hint=f"did you mean {close[0]}?" if close else known)
    op = tokens.take("expected one of = != < <= > >= ~", "op")
    value = tokens.take("expected a value", "word", hint="quote one with blanks or signs")
    if op.text in _ORDER and field.kind is Kind.LIST:
        tokens.fail("words have no order: expected = != or ~", op)
    kind = Kind.VERSION if op.text in _ORDER and field.kind is Kind.TEXT else field.kind
    if op.text != "~" and _READERS[kind](value.text) is None:
        tokens.fail(f"expected {kind.value}", value)
    return Comparison(name.text, op.text, value.text, negated)


class _Token(NamedTuple):
    kind: str
    text: str
    place: int


class _Tokens:
    """The words and signs of a filter, from left to right; the last is the end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._left = list(self._split())

    def take(self, what: str, *kinds: str, hint: str | None = None) -> _Token:
        """Return the next one, which is of one of *kinds*. Raises UsageError that says *what* was expected."""
        token = self._left.pop(0)
        if token.kind not in kinds:
            self.fail(what, token, hint)
        return token

    def fail(self, what: str, token: _Token, hint: str | None = None) -> NoReturn:
        """Raise the UsageError that names the place of *token*."""
        got = f"got {token.text[:40]!r} at character {token.place + 1}" if token.kind != "end" else "got the end"
        raise UsageError(f"--where {self._text[:200]!r}: {what}, {got}", hint=hint)

    def _split(self) -> Iterator[_Token]:
        at, end = 0, len(self._text.rstrip())
        while at < end:
            match = _TOKEN.match(self._text, at)
            if match is None:
                at = end - len(self._text[at:end].lstrip())
                token = _Token("", self._text[at:], at)
                if token.text[0] in "()":
                    self.fail("parentheses are not read", token, hint="give --where once for each part that must hold")
                self.fail("a quote that does not end" if token.text[0] in "\"'" else "unexpected sign", token)
            kind = str(match.lastgroup)
            found, place, at = match[kind], match.start(kind), match.end()
            if kind == "quoted":
                yield _Token("word", re.sub(r"\\(.)", r"\1", found[1:-1], flags=re.DOTALL), place)
            else:
                yield _Token(found.lower() if found.lower() in ("and", "or", "not") else kind, found, place)
        yield _Token("end", "", end)


def _field(name: str) -> Field | None:
    for prefix, (kind, table) in _OPEN.items():
        if name.startswith(prefix) and len(name) > len(prefix):
            return Field(kind, ("facts", table, name[len(prefix) :]))
    return FIELDS.get(name)


def _lookup(record: Record, path: tuple[str, ...]) -> Any:
    value: Any = getattr(record, path[0], None)
    for key in path[1:]:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _holds(found: str, op: str, value: str, kind: Kind) -> bool:
    if op == "~":
        return value.casefold() in found.casefold()
    kind = Kind.VERSION if op in _ORDER and kind is Kind.TEXT else kind
    if kind is Kind.DATE:
        found = found[:19]  # without fractions of a second and zone
    left, right = _READERS[kind](found), _READERS[kind](value)
    if left is None or right is None:
        return False
    if isinstance(left, tuple):  # as far as the value goes
        left = (*left, *(0,) * len(right))[: len(right)]
    return _OPERATORS[op](left, right)


def _date(text: str) -> tuple[int, ...] | None:
    match = _DATE.fullmatch(text)
    return tuple(int(part) for part in match.groups() if part) if match else None


def _size(text: str) -> int | None:
    try:
        return units.size(text)
    except UsageError:
        return None


_READERS: dict[Kind, Callable[[str], Any]] = {
    Kind.TEXT: str,
    Kind.LIST: str,
    Kind.VERSION: lambda text: numbers(text) or None,
    Kind.DATE: _date,
    Kind.SIZE: _size,
}
