"""Sizes, days and counts as people write them, wherever they are read."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sregistry.catalog import filters
from sregistry.cli.__main__ import main
from sregistry.config.settings import Settings
from sregistry.errors import UsageError
from sregistry.system import units

SIZES = {
    "0": 0,
    "7": 7,
    "7B": 7,
    "10k": 10_000,
    "10K": 10_000,
    "10G": 10_000_000_000,
    "10GB": 10_000_000_000,
    "10 gb": 10_000_000_000,
    "10GiB": 10 << 30,
    "10Gi": 10 << 30,
    "1.5M": 1_500_000,
    "0.1TiB": 109_951_162_777,
    "1T": 10**12,
}
BAD = ["", "G", "-1", "1e9", "ten", "1,5G", "10 X", "10iB", "١", "nan", "inf", "1" * 30, "1GG"]


@pytest.mark.parametrize(("text", "count"), SIZES.items(), ids=SIZES)
def test_a_size(text: str, count: int) -> None:
    assert units.size(text) == count


@pytest.mark.parametrize("text", [text for text in SIZES if not text.startswith("0")])
def test_a_size_means_the_same_everywhere(text: str) -> None:
    assert filters._READERS[filters.Kind.SIZE](text) == units.size(text)
    assert Settings.load(given={"layer_limit": text}, environ={"HOME": "/h"}).layer_limit == units.size(text)


@given(st.integers(0, 10**18 - 1))
def test_a_whole_number_is_bytes(number: int) -> None:
    assert units.size(number) == units.size(f"{number:020}"[2:]) == number


@pytest.mark.parametrize("text", BAD)
def test_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="is no size"):
        units.size(text)
    assert filters._READERS[filters.Kind.SIZE](text) is None


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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["store", "clean", "--keep", "10X"], "argument --keep: '10X' is no size; write such as 500M, 50G or 2GiB"),
        (["store", "clean", "--older-than", "soon"], "argument --older-than: 'soon' is no number of days; such as 30 or 0.5"),
        (["search", "x", "--limit", "0"], "argument --limit: '0' is no number from 1"),
        (["serve", ".", "--port", "99999"], "argument --port: '99999' is no port; a number from 0 to 65535"),
    ],
    ids=["size", "days", "count", "port"],
)
def test_the_command_line_says_it_in_words(arguments: list[str], words: str) -> None:
    said = io.StringIO()
    with contextlib.redirect_stderr(said), pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert said.getvalue().rstrip().endswith(f"error: {words}")
    assert "invalid" not in said.getvalue() and "_" not in said.getvalue().rpartition("error: ")[2]
