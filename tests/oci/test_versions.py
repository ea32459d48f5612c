"""The order of tags as versions: one, total, and the one that versions are meant in."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from sregistry.oci.versions import numbers, version


@pytest.mark.parametrize(
    "ordered",
    [
        ["latest", "9", "10", "010a"],
        ["17.9", "17.10", "17.11", "24.01-py3", "24.02-py2", "24.02-py3", "24.2-py3-igpu"],
        ["12.4-base", "12.4-devel", "12.4.1-base", "12.10-base"],
        ["R32.1", "r32.2", "R32.10", "v1", "V2"],
        ["1", "1.0-rc1", "1.0", "1.0.1"],
    ],
)
def test_numbers_in_names_count_as_numbers(ordered: list[str]) -> None:
    shuffled = random.Random(1).sample(ordered, len(ordered))
    assert sorted(shuffled, key=version) == ordered


NAME = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,20}", fullmatch=True)


@given(st.lists(NAME, unique=True), st.randoms(use_true_random=False))
def test_the_order_is_one_whatever_the_order_before(names: list[str], source: random.Random) -> None:
    shuffled = list(names)
    source.shuffle(shuffled)
    assert sorted(shuffled, key=version) == sorted(names, key=version)


@given(st.text("ab.-", max_size=4), st.integers(0, 10**30), st.integers(0, 10**30))
def test_of_names_that_differ_in_a_number_the_larger_comes_last(prefix: str, one: int, other: int) -> None:
    assert (version(f"{prefix}{one}") < version(f"{prefix}{other}")) == (one < other)


@pytest.mark.parametrize(
    "tags",
    [
        ["latest", "24.9", "24.10-rc1", "24.10-rc2", "24.10", "24.10-py3", "24.10.1", "25"],
        ["1.0-alpha", "1.0-beta", "1.0-dev", "1.0-rc1", "1.0", "1.0-base", "1.0-devel", "1.0-runtime"],
        ["12.4.1-base-ubuntu20.04", "12.4.1-base-ubuntu22.04", "12.4.1-devel-ubuntu20.04", "12.6.0-base-ubuntu20.04"],
        ["r32.1", "r32.2", "r35.1"],
        ["24.12-rc1-py3", "24.12", "24.12-py3-rc1", "24.12-py3", "24.12-py3-igpu"],
        ["v2.0-RC.1", "2.0", "v2.0", "2.0-ubuntu20.04", "2.0-ubuntu22.04", "2.0.0"],
        ["latest", "3.14.0a1", "3.14.0b2", "3.14.0rc1", "3.14.0", "3.14.0-slim"],
        ["1.0-SNAPSHOT", "1.0", "1.0_base", "1.1-nightly", "1.1-preview2", "1.1"],
        ["20240101", "20240201", "20241231"],
    ],
)
def test_the_order_of_versions(tags: list[str]) -> None:
    assert all(version(one) < version(two) for one, two in itertools.pairwise(tags))


_numbers = st.lists(st.integers(0, 30), min_size=3, max_size=3)
_versions = st.builds(
    lambda numbers, early: ".".join(map(str, numbers)) + early,
    _numbers,
    st.sampled_from(["", "a1", "a2", "b1", "rc1", "rc2", "rc10"]),
)
_tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,12}", fullmatch=True) | _versions


@given(st.lists(_versions, unique=True))
def test_python_s_versions_are_in_python_s_order(tags: list[str]) -> None:
    assert sorted(tags, key=version) == sorted(tags, key=Version)


@given(_tags, _tags, _tags)
def test_the_order_is_total(one: str, two: str, three: str) -> None:
    assert (version(one) == version(two)) == (one == two)
    if version(one) < version(two) < version(three):
        assert version(one) < version(three)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("12.4.1", (12, 4, 1)),
        ("8.9.7.29+cuda12.2", (8, 9, 7, 29)),
        ("2.2.0a0+81ea7a4", (2, 2, 0)),
        ("2.29.stable.20260109", (2, 29)),
        ("v1.2", (1, 2)),
        ("24.01-py3", (24, 1)),
        ("r35.1", ()),
        ("", ()),
        ("1" * 5000, ()),
        ("²", ()),
    ],
)
def test_the_numbers_that_a_version_begins_with(text: str, wanted: tuple[int, ...]) -> None:
    assert numbers(text) == wanted
