"""Filters of records: what holds, how they are read, and that nonsense is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sregistry.catalog.filters import FIELDS, Comparison, Filter, Kind, parse
from sregistry.catalog.record import Record
from sregistry.errors import UsageError
from tests.support.records import made

FACTS: dict[str, Any] = {
    "os": "linux",
    "architecture": "arm64",
    "created": "2024-01-24T03:01:00.123456789Z",
    "versions": {"cuda": "12.4.1.003", "pytorch": "2.3.0a0+ebedce2", "nccl": "2.29.stable.20260109", "cusparse": "12.2.0.103"},
    "driver": "470",
    "capabilities": ["compute", "utility"],
    "labels": {"maintainer": "A Person <a@example.org>", "release": "r7", "build": "7.10"},
}
RECORD = made(size=3 << 30, compressed_size=1500, created_at="2026-01-31 15:33:30", facts=FACTS)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("cuda>=12.4", True),
        ("cuda >= 12.4.1", True),
        ("cuda>=12.4.1.4", False),
        ("cuda=12.4", True),
        ("cuda>12.4", False),
        ("cuda>12.3", True),
        ("cuda<=12", True),
        ("cuda<12", False),
        ("cuda!=12.4", False),
        ("cuda!=12.10", True),
        ("cuda<12.10", True),
        ("cuda~4.1.0", True),
        ("pytorch>=2.3", True),
        ("pytorch>=2.3.1", False),
        ("pytorch<2.10", True),
        ("nccl=2.29", True),
        ("driver<=535", True),
        ("driver>470", False),
        ("driver=470.0", True),
        ("version.cusparse>12.1", True),
        ("tag=17.11", True),
        ("tag=17", False),
        ("tag>=17.2", True),
        ("tag<17.2", False),
        ("client=nvidia", True),
        ("client=NVIDIA", False),
        ("name~FLOW", True),
        ("name~flux", False),
        ("uri='nvidia/tensorflow:17.11'", True),
        ("platform=linux/amd64", True),
        ("architecture=arm64", True),
        ("size>2G", True),
        ("size>=3g", True),
        ("size<=3072MiB", True),
        ("size<2.5G", False),
        ("size='3 GiB'", True),
        ("compressed=1500", True),
        ("compressed~5", True),
        ("compressed>1K", True),
        ("created=2026-01-31", True),
        ("created=2026-01", True),
        ("created>2026-01", False),
        ("created>=2026", True),
        ("created<2026-02-01", True),
        ("created>'2026-01-31 15:33'", False),
        ("created='2026-01-31T15:33:30'", True),
        ("built<2024-02", True),
        ("capabilities=utility", True),
        ("capabilities=video", False),
        ("capabilities!=video", True),
        ("capabilities!=utility", False),
        ("capabilities~UTIL", True),
        ('label.maintainer~"a person"', True),
        ("label.release=r7", True),
        ("label.release>1", False),  # begins with no number
        ("label.build>7.9", True),
        # a field that is not there
        ("tensorrt>1", False),
        ("tensorrt!=1", False),
        ("not tensorrt=1", True),
        ("label.none!=x", False),
        ("title~a", False),
        # words
        ("cuda>=12 and size>2G", True),
        ("cuda>=13 and size>2G", False),
        ("cuda>=13 OR size>2G", True),
        ("size>2G or cuda>=13 and cuda<1", True),
        ("not cuda>=13 and size>2G", True),
        ("not cuda>=12 or not size>2G", False),
        ("cuda>=13 and size>2G or not tensorrt=1 and tag=17.11", True),
        ("not not cuda=12", True),
        ('name!="and"', True),
    ],
)
def test_what_holds(text: str, wanted: bool) -> None:
    assert parse(text)(RECORD) is wanted


@pytest.mark.parametrize("field", [*FIELDS, "version.x", "label.x"])
def test_an_empty_record_satisfies_nothing(field: str) -> None:
    empty = Record.parse({"uri": "a/b:1"})
    given = {"uri", "size", "compressed"}
    value = "2026" if field in ("created", "built") else "1"
    assert field in given or not parse(f"{field}={value} or {field}!={value} or {field}~{value}")(empty)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a field, got the end"),
        ("cuda", "expected one of = != < <= > >= ~, got the end"),
        ("cuda>=", "expected a value, got the end; quote one with blanks or signs"),
        ("cuda>=new", "expected a version such as 12.4, got 'new' at character 7"),
        ("tag>=latest", "expected a version such as 12.4, got 'latest' at character 6"),
        ("size>2X", "expected a size such as 500M, 50G or 2GiB, got '2X' at character 6"),
        ("created>2026-13", "expected a date such as 2026-01-31, got '2026-13' at character 9"),
        ("capabilities>x", "words have no order: expected = != or ~, got '>' at character 13"),
        ("cdua>=12", "unknown field, got 'cdua' at character 1; did you mean cuda?"),
        ("xyzzy>=12", "unknown field, got 'xyzzy' at character 1; one of client, "),
        ("label.>=12", "unknown field, got 'label.' at character 1"),
        ("cuda>=12 size>1", "expected `and`, `or` or the end, got 'size' at character 10"),
        ("(cuda>=12", "parentheses are not read, got '(cuda>=12' at character 1; give --where once for each part that must hold"),
        ("cuda>=12)", "parentheses are not read, got ')' at character 9"),
        ("cuda=and", "expected a value, got 'and' at character 6"),
        ("and", "expected a field, got 'and' at character 1"),
        ("not", "expected a field, got the end"),
        ("name='x", 'a quote that does not end, got "\'x" at character 6'),
        ("name  !  x", "unexpected sign, got '!  x' at character 7"),
        ("(" * 9999, "parentheses are not read"),
        ("not " * 9999, "expected a field, got the end"),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert message in f"{caught.value.message}; {caught.value.hint}"
    assert "\n" not in str(caught.value)


VALUES = {
    Kind.TEXT: st.text(max_size=12),
    Kind.LIST: st.text(max_size=12),
    Kind.VERSION: st.sampled_from(["12", "12.4", "2.3.0a0+x"]),
    Kind.DATE: st.sampled_from(["2026", "2026-01-31", "2026-01-31 12:00"]),
    Kind.SIZE: st.sampled_from(["1", "2.5G", "7k"]),
}


@st.composite
def comparisons(draw: st.DrawFn) -> Comparison:
    name = draw(st.sampled_from(sorted(FIELDS)) | st.text(min_size=1, max_size=6).map("label.{}".format))
    kind = FIELDS[name].kind if name in FIELDS else Kind.TEXT
    op = draw(st.sampled_from(["=", "!=", "~"] + ["<", "<=", ">", ">="] * (kind is not Kind.LIST)))
    ordered = Kind.VERSION if kind is Kind.TEXT and op[0] in "<>" else kind
    return Comparison(name, op, draw(VALUES[ordered]), draw(st.booleans()))


def quoted(text: str) -> str:
    """A field or a value that no blank, sign or word of the filter ends."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.lists(st.lists(comparisons(), min_size=1, max_size=3), min_size=1, max_size=3))
def test_what_is_written_is_read(wanted: list[list[Comparison]]) -> None:
    """`and` binds closer than `or`, and whatever stands in quotes is none of both."""
    parts = [
        " and ".join(f"{'NOT ' * it.negated}{quoted(it.field)}{it.op} {quoted(it.value)}" for it in alternative) for alternative in wanted
    ]
    found = parse(" or ".join(parts))
    assert found == Filter(tuple(map(tuple, wanted)))
    assert found(RECORD) is any(all(it(RECORD) for it in alternative) for alternative in wanted)


PIECES = st.sampled_from(
    ["cuda", "size", "label.a", "(", ")", "and", "or", "not", "=", "!=", "<=", "~", "12", "2G", "'", '"', "\\", " ", "\0"]
)


@given(st.text(max_size=40) | st.lists(PIECES, max_size=12).map(" ".join))
@example("'\\")
@example("size=" + "9" * 9999)
@example("cuda=" + "9" * 9999)
def test_nonsense_is_refused(text: str) -> None:
    try:
        found = parse(text)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert found(RECORD) in (True, False)
