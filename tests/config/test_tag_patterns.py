"""Patterns of tags: which tags they mean, and in which order tags are versions."""

from __future__ import annotations

from fnmatch import fnmatchcase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sregistry.config.requested import Entry
from sregistry.config.settings import Settings
from sregistry.config.tag_patterns import Pattern, choose
from sregistry.errors import RegistryError
from sregistry.oci.versions import version

PYTORCH = ["24.09-py3", "24.10-py3", "24.10-py3-igpu", "24.12-py3", "24.9-py3", "23.12-py3", "24.11-py2", "latest"]


@pytest.mark.parametrize(
    ("offered", "tags", "newest", "meant"),
    [
        (PYTORCH, "24.*-py3", 3, ["24.12-py3", "24.10-py3", "24.9-py3"]),
        (PYTORCH, "24.*-py3", None, ["24.12-py3", "24.10-py3", "24.9-py3", "24.09-py3"]),
        (PYTORCH, "24.*", 1, ["24.12-py3"]),
        (PYTORCH, "*", 1, ["24.12-py3"]),
        (PYTORCH, "latest", 3, ["latest"]),
        (PYTORCH, "2[34].12-py?", None, ["24.12-py3", "23.12-py3"]),
        (["1.0", "1.1-rc1", "1.1-RC2"], "1.*", 1, ["1.0"]),
        (["1.0", "1.1-rc1", "1.1-RC2"], "1.*", None, ["1.1-RC2", "1.1-rc1", "1.0"]),
        (["1.0", "1.1-rc1", "1.1-rc2"], "1.*-rc*", 1, ["1.1-rc2"]),
        (["3.13.0", "3.14.0a1", "3.14.0b2"], "3*", 1, ["3.13.0"]),
        (["3.13.0", "3.14.0a1", "3.14.0b2"], "3*", None, ["3.14.0b2", "3.14.0a1", "3.13.0"]),
        (["v1.9", "1.10", "v1.11"], "*", None, ["v1.11", "1.10", "v1.9"]),
        (["R32.1", "r32.2"], "R*", None, ["R32.1"]),  # case counts
    ],
)
def test_which_tags_are_meant(offered: list[str], tags: str, newest: int | None, meant: list[str]) -> None:
    assert choose(offered, tags, newest) == meant
    assert choose(offered[::-1], tags, newest) == meant


@pytest.mark.parametrize(
    ("offered", "tags", "newest", "line"),
    [
        ([], "*", None, "no tag matches '*'; it has no tags at all"),
        (["2", "1"], "3*", None, "no tag matches '3*'; it has 2 tags: 2, 1"),
        ([str(number) for number in range(9)], "x", None, "no tag matches 'x'; it has 9 tags: 8, 7, 6, 5, 4, …"),
        (["1-rc1"], "1*", 2, "no tag matches '1*' but pre-releases; it has 1 tags: 1-rc1"),
    ],
)
def test_no_tag_is_meant(offered: list[str], tags: str, newest: int | None, line: str) -> None:
    with pytest.raises(RegistryError) as caught:
        choose(offered, tags, newest)
    assert str(caught.value) == line


_numbers = st.lists(st.integers(0, 30), min_size=3, max_size=3)
_versions = st.builds(
    lambda numbers, early: ".".join(map(str, numbers)) + early,
    _numbers,
    st.sampled_from(["", "a1", "a2", "b1", "rc1", "rc2", "rc10"]),
)
_tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,12}", fullmatch=True) | _versions


@given(st.lists(_tags, unique=True, min_size=1), st.sampled_from(["*", "*1*", "[0-9]*", "?.*"]), st.integers(1, 5))
def test_newest_is_the_head_of_all(offered: list[str], tags: str, newest: int) -> None:
    matching = {tag for tag in offered if fnmatchcase(tag, tags)}
    try:
        some = choose(offered, tags, newest)
    except RegistryError:
        some = []
    assert len(some) <= newest
    if not matching:
        assert some == []
        return
    every = choose(offered, tags, None)
    assert set(every) == matching
    assert every == sorted(matching, key=version, reverse=True)
    assert some == [tag for tag in every if tag in some]  # in their order
    more = choose(offered, tags, len(offered)) if some else []
    assert more[: len(some)] == some


def test_the_key_follows_what_is_asked_for_and_how_much_of_it() -> None:
    settings = Settings.load(environ={})

    def key(**options: object) -> str:
        return Pattern.of(Entry(options=options), settings, {}).key

    same = {
        key(uri="nvidia/pytorch", tags="24.*"),
        key(uri="nvcr.io/nvidia/pytorch", tags="24.*"),
        key(uri="pytorch", tags="24.*", format="simg"),
    }
    assert len(same) == 1
    others = {
        key(uri="nvidia/pytorch", tags="24.*", newest=1),
        key(uri="nvidia/pytorch", tags="25.*"),
        key(uri="docker://nvidia/pytorch", tags="24.*"),
    }
    assert len(same | others) == 4
