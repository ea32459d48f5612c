"""Filters of records: `cuda>=12.4 and not (size > 10G or name ~ test)`.

```
any        = all { "or" all }
all        = one { "and" one }
one        = "not" one | "(" any ")" | comparison
comparison = FIELD OP VALUE
OP         = "=" | "!=" | "<" | "<=" | ">" | ">=" | "~"
FIELD      = a name of FIELDS | "version." NAME | "label." KEY
VALUE      = characters other than blanks, quotes, parentheses and < > = ! ~
           | '"' … '"' | "'" … "'"      in quotes, a backslash takes the next character as it is
```

`and` binds closer than `or`, `not` closer than both; these words count in any case. `~` holds when the
value occurs in the field, in any case. What is compared depends on the field:

* text: `=` and `!=` compare all of it; < and > the versions that it begins with, so `tag>=17.10` is one.
* versions and dates: by their numbers, and as far as VALUE goes. `cuda=12.4` holds for 12.4.1, as
  `created=2026-01` does for a day of that month; `cuda>12.4` begins with 12.5. What follows the numbers
  (`a0`, `+cuda12.2`) is not looked at.
* sizes: bytes, or with K, M, G and T for powers of 1000, KiB, MiB, GiB and TiB for powers of 1024.
* lists (capabilities): one of its words must satisfy `=`, `~`; none may equal VALUE for `!=`.

A record without the field never satisfies a comparison, `!=` included; `not cuda=12.4` holds for it.

The parser is written out, a function a line of the grammar: a parser library would be a dependency for
forty lines, and its messages would have to be made ours. Versions are not read by `packaging`: NVIDIA's
(2.29.stable.20260109) are none of PEP 440, by which also 2.3.0a0 would not satisfy `pytorch>=2.3`.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn

from sregistry.catalog.image_facts import VERSIONS, numbers
from sregistry.errors import UsageError
from sregistry.system import limits, units

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
_WORDS = ("and", "or", "not")
_TOKEN = re.compile(
    r"""\s*(?:(?P<mark>[()])|(?P<op><=|>=|!=|[<>=~])|(?P<quoted>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<word>[^\s()"'<>=!~]+))""",
    re.DOTALL,
)
_DATE = re.compile(
    r"(\d{4})(?:-(0[1-9]|1[0-2])(?:-(0[1-9]|[12]\d|3[01])(?:[T ]([01]\d|2[0-3])(?::([0-5]\d)(?::([0-5]\d))?)?)?)?)?", re.ASCII
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One comparison; called with a record, it tells whether that satisfies it."""

    field: str
    op: str
    value: str

    def __call__(self, record: Record) -> bool:
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

    def __str__(self) -> str:
        """The comparison as `parse` reads it."""
        return f"{_quote(self.field)} {self.op} {_quote(self.value)}"


@dataclass(frozen=True, slots=True)
class Not:
    """What does not satisfy *part*."""

    part: Filter

    def __call__(self, record: Record) -> bool:
        return not self.part(record)

    def __str__(self) -> str:
        return f"not {_inner(self.part)}"


@dataclass(frozen=True, slots=True)
class All:
    """What satisfies all *parts*."""

    parts: tuple[Filter, ...]

    def __call__(self, record: Record) -> bool:
        return all(part(record) for part in self.parts)

    def __str__(self) -> str:
        return " and ".join(map(_inner, self.parts))


@dataclass(frozen=True, slots=True)
class Either:
    """What satisfies one of *parts*."""

    parts: tuple[Filter, ...]

    def __call__(self, record: Record) -> bool:
        return any(part(record) for part in self.parts)

    def __str__(self) -> str:
        return " or ".join(map(_inner, self.parts))


Filter = Comparison | Not | All | Either


def parse(text: str) -> Filter:
    """Read a filter, which tells of a record whether it is satisfied. Raises UsageError that names the place."""
    return _Parser(text).whole()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    place: int


class _Parser:
    """The tokens of a text, read once from left to right; a method a rule of the grammar."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split(text)
        self._at = self._depth = 0

    def whole(self) -> Filter:
        found = self._any()
        if self._next.kind != "end":
            self._fail("expected `and`, `or` or the end", self._next)
        return found

    def _any(self) -> Filter:
        parts = [self._all()]
        while self._word("or"):
            parts.append(self._all())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _all(self) -> Filter:
        parts = [self._one()]
        while self._word("and"):
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _one(self) -> Filter:
        self._depth += 1
        if self._depth > limits.FILTER_DEPTH:
            self._fail(f"more parentheses and `not` inside each other than the limit FILTER_DEPTH of {limits.FILTER_DEPTH}", self._next)
        found: Filter
        if self._word("not"):
            found = Not(self._one())
        elif (self._next.kind, self._next.text) == ("mark", "("):
            self._take()
            found = self._any()
            if (self._next.kind, self._next.text) != ("mark", ")"):
                self._fail("expected `)`", self._next)
            self._take()
        else:
            found = self._comparison()
        self._depth -= 1
        return found

    def _comparison(self) -> Comparison:
        name = self._next
        if name.kind not in ("word", "quoted") or self._reserved(name):
            self._fail("expected a field", name)
        self._take()
        field = _field(name.text)
        if field is None:
            close = difflib.get_close_matches(name.text, FIELDS, n=1)
            known = f"one of {', '.join(FIELDS)}, version.NAME, label.KEY"
            self._fail("unknown field", name, hint=f"did you mean {close[0]}?" if close else known)
        op = self._next
        if op.kind != "op":
            self._fail("expected one of = != < <= > >= ~", op)
        self._take()
        value = self._next
        if value.kind not in ("word", "quoted") or self._reserved(value):
            self._fail("expected a value", value, hint="quote one with blanks or signs")
        self._take()
        if op.text in _ORDER and field.kind is Kind.LIST:
            self._fail("words have no order: expected = != or ~", op)
        kind = Kind.VERSION if op.text in _ORDER and field.kind is Kind.TEXT else field.kind
        if op.text != "~" and _READERS[kind](value.text) is None:
            self._fail(f"expected {kind.value}", value)
        return Comparison(name.text, op.text, value.text)

    @property
    def _next(self) -> _Token:
        return self._tokens[self._at]

    def _take(self) -> None:
        self._at += 1

    def _word(self, word: str) -> bool:
        """Take *word* if it is next, and tell whether it was."""
        if self._next.kind != "word" or self._next.text.lower() != word:
            return False
        self._take()
        return True

    @staticmethod
    def _reserved(token: _Token) -> bool:
        return token.kind == "word" and token.text.lower() in _WORDS

    def _split(self, text: str) -> list[_Token]:
        tokens, at = [], 0
        end = len(text.rstrip())
        while at < end:
            match = _TOKEN.match(text, at)
            if match is None:
                place = at + len(text[at:]) - len(text[at:].lstrip())
                self._fail("a quote that does not end" if text[place] in "\"'" else "unexpected sign", _Token("", text[place:], place))
            kind = str(match.lastgroup)
            found = match[kind]
            if kind == "quoted":
                found = re.sub(r"\\(.)", r"\1", found[1:-1], flags=re.DOTALL)
            tokens.append(_Token(kind, found, match.start(kind)))
            at = match.end()
        return [*tokens, _Token("end", "", end)]

    def _fail(self, what: str, token: _Token, hint: str | None = None) -> NoReturn:
        got = f"got {token.text[:40]!r} at character {token.place + 1}" if token.kind != "end" else "got the end"
        raise UsageError(f"--where {self._text[:200]!r}: {what}, {got}", hint=hint)


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


def _version(text: str) -> tuple[int, ...] | None:
    return numbers(text) or None


def _date(text: str) -> tuple[int, ...] | None:
    match = _DATE.fullmatch(text)
    return tuple(int(part) for part in match.groups() if part) if match else None


def _size(text: str) -> int | None:
    try:
        return units.size(text)
    except UsageError:
        return None


_READERS: dict[Kind, Callable[[str], Any]] = {Kind.TEXT: str, Kind.LIST: str, Kind.VERSION: _version, Kind.DATE: _date, Kind.SIZE: _size}


def _inner(part: Filter) -> str:
    return str(part) if isinstance(part, (Comparison, Not)) else f"({part})"


def _quote(text: str) -> str:
    if re.fullmatch(r"""[^\s()"'<>=!~]+""", text) and text.lower() not in _WORDS:
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
