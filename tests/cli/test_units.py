"""Sizes, days and counts: the same wherever they are written."""

from __future__ import annotations

import contextlib
import io

import pytest

from sregistry.catalog import filters
from sregistry.cli.__main__ import main
from sregistry.config.settings import Settings
from sregistry.system import units
from tests.support.sizes import BAD, SIZES


@pytest.mark.parametrize("text", [text for text in SIZES if not text.startswith("0")])
def test_a_size_means_the_same_everywhere(text: str) -> None:
    assert filters._READERS[filters.Kind.SIZE](text) == units.size(text)
    assert Settings.load(given={"layer_limit": text}, environ={"HOME": "/h"}).layer_limit == units.size(text)


@pytest.mark.parametrize("text", BAD)
def test_no_size_of_a_filter(text: str) -> None:
    assert filters._READERS[filters.Kind.SIZE](text) is None


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
