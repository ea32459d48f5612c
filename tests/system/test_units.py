"""Sizes, days and counts as people write them, wherever they are read."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sregistry.errors import UsageError
from sregistry.system import units
from tests.support.sizes import BAD, SIZES


@pytest.mark.parametrize(("text", "count"), SIZES.items(), ids=SIZES)
def test_a_size(text: str, count: int) -> None:
    assert units.size(text) == count


@given(st.integers(0, 10**18 - 1))
def test_a_whole_number_is_bytes(number: int) -> None:
    assert units.size(number) == units.size(f"{number:020}"[2:]) == number


@pytest.mark.parametrize("text", BAD)
def test_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="is no size"):
        units.size(text)


READERS: list[tuple[Callable[[str], float], list[str], list[str]]] = [
    (units.days, ["0", "30", "0.5"], ["-1", "nan", "inf", "1e3", "x", "", "9" * 400]),
    (units.count, ["1", "007"], ["0", "-1", "1.5", "x", "", "9" * 5000]),
    (units.port, ["0", "65535"], ["65536", "-1", "x", "", "9" * 5000]),
]


@pytest.mark.parametrize(("reader", "good", "bad"), READERS, ids=["days", "count", "port"])
def test_other_numbers(reader: Callable[[str], float], good: list[str], bad: list[str]) -> None:
    assert [reader(text) for text in good] == [float(text) for text in good]
    for text in bad:
        with pytest.raises(UsageError, match="is no "):
            reader(text)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (754, "12:34"), (3723, "1:02:03"), (1e12, "99:59:59")], ids=str)
def test_span(seconds: float, text: str) -> None:
    assert units.span(seconds) == text


@pytest.mark.parametrize(("count", "text"), [(None, ""), (0, "0.0 kB"), (99_999, "100.0 kB"), (100_000, "0.1 MB"), (10**9, "1.00 GB")])
def test_an_amount(count: int | None, text: str) -> None:
    assert units.amount(count) == text


def test_a_table_has_aligned_columns_and_no_empty_ones() -> None:
    assert units.table([["a", "", "1"], ["bbb", "", ""]]) == ["a    1", "bbb"]
    assert units.table([]) == []
