"""Platforms as people and registries write them, and which of several serves a request."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sregistry.errors import ConfigError
from sregistry.oci.platforms import BEYOND, Platform


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("x86-64", "linux/amd64"),
        ("x86-64-v3", "linux/amd64/v3"),
        ("linux/x86_64_v2", "linux/amd64/v2"),
        ("aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v8.0", "linux/arm64"),
        ("linux/arm64/V9.0", "linux/arm64/v9"),
        ("linux/arm64/8.2", "linux/arm64/v8.2"),
        ("arm64/v8", "linux/arm64"),
        ("aarch64/v9", "linux/arm64/v9"),
        ("arm/v6", "linux/arm/v6"),
        ("armhf", "linux/arm/v7"),
        ("armel", "linux/arm/v6"),
        ("armv7l", "linux/arm/v7"),
        ("linux/armv6l", "linux/arm/v6"),
        ("linux/arm/5", "linux/arm/v5"),
        ("arm32v7", "linux/arm/v7"),
        ("i686", "linux/386"),
        ("i386", "linux/386"),
        ("ppc64el", "linux/ppc64le"),
        ("ppc64le/9", "linux/ppc64le/power9"),
        ("linux/ppc64le/POWER10", "linux/ppc64le/power10"),
        ("riscv64/rva22", "linux/riscv64/rva22u64"),
        ("loongarch64", "linux/loong64"),
        ("Linux/AMD64/V3", "linux/amd64/v3"),
        (" linux/amd64 ", "linux/amd64"),
        ("macOS/arm64", "darwin/arm64"),
        ("windows/amd64", "windows/amd64"),
        ("", None),
        ("a/b/c/d", None),
        ("linux/", None),
        ("/amd64", None),
        ("a b", None),
        ("linux/am\x1bd64", None),
        ("linux/arm/" + "7" * 5000, None),
    ],
)
def test_one_spelling(text: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(ConfigError, match="platform") as caught:
            Platform.parse(text)
        assert len(str(caught.value)) < 250
    else:
        assert str(Platform.parse(text)) == expected


#: Of these, in whatever order they stand, the wanted one is the first.
CHOICES = [
    ("linux/amd64", ["linux/amd64/v1", "linux/amd64/v3"], "linux/amd64/v1"),
    ("linux/amd64", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v3"], "linux/amd64"),
    ("linux/amd64", ["linux/amd64/v4", "linux/amd64/v2", "linux/amd64/v3"], "linux/amd64/v2"),
    ("linux/amd64/v1", ["linux/amd64", "linux/amd64/v2"], "linux/amd64"),
    ("linux/amd64/v1", ["linux/amd64/v3"], None),
    ("linux/amd64/v2", ["linux/amd64", "linux/amd64/v3"], "linux/amd64"),
    ("linux/amd64/v3", ["linux/amd64/v1", "linux/amd64/v2"], "linux/amd64/v2"),
    ("linux/amd64/v4", ["linux/amd64/v3", "linux/amd64/v2", "linux/amd64"], "linux/amd64/v3"),
    ("linux/amd64", ["linux/amd64/haswell", "linux/amd64/v4"], "linux/amd64/v4"),
    ("linux/amd64/v4", ["linux/amd64/haswell"], None),
    ("linux/amd64/haswell", ["linux/amd64/haswell", "linux/amd64"], "linux/amd64/haswell"),
    ("linux/amd64/haswell", ["linux/amd64", "linux/amd64/v2"], "linux/amd64"),
    ("linux/arm64", ["linux/arm64/v8", "linux/arm64/v9"], "linux/arm64/v8"),
    ("linux/arm64", ["linux/arm64/v8.2", "linux/arm64/v9", "linux/arm64"], "linux/arm64"),
    ("linux/arm64/v9", ["linux/arm64/v8", "linux/arm64/v9"], "linux/arm64/v9"),
    ("linux/arm64/v9", ["linux/arm64", "linux/arm64/v8.2"], "linux/arm64/v8.2"),
    ("linux/arm64/v9", ["linux/arm64/v8.6", "linux/arm64/v8.5"], "linux/arm64/v8.5"),
    ("linux/arm64/v8.6", ["linux/arm64/v9", "linux/arm64/v8.5"], "linux/arm64/v8.5"),
    ("linux/arm", ["linux/arm/v5", "linux/arm/v7", "linux/arm/v6", "linux/arm/v8"], "linux/arm/v7"),
    ("linux/arm/v6", ["linux/arm/v5", "linux/arm/v6", "linux/arm"], "linux/arm/v6"),
    ("linux/arm/v6", ["linux/arm"], None),
    ("linux/arm/v7", ["linux/arm", "linux/arm/v6"], "linux/arm"),
    ("linux/arm/v8", ["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7"),
    ("linux/ppc64le", ["linux/ppc64le/power8", "linux/ppc64le/power9"], "linux/ppc64le/power8"),
    ("linux/ppc64le/power10", ["linux/ppc64le/power9", "linux/ppc64le/power8"], "linux/ppc64le/power9"),
    ("linux/ppc64le/power8", ["linux/ppc64le/power9"], None),
    ("linux/riscv64", ["linux/riscv64/rva20u64", "linux/riscv64/rva23u64"], "linux/riscv64/rva20u64"),
    ("linux/riscv64/rva23", ["linux/riscv64/rva22u64", "linux/riscv64"], "linux/riscv64/rva22u64"),
    ("linux/s390x", ["linux/s390x/z13", "linux/s390x"], "linux/s390x"),
    ("linux/s390x/z13", ["linux/s390x", "linux/s390x/z15"], "linux/s390x"),
    ("linux/amd64", ["linux/386", "linux/arm64", "windows/amd64", "darwin/amd64"], None),
]


@pytest.mark.parametrize(
    ("wanted", "offered", "expected"), CHOICES, ids=[f"{wanted} of {' '.join(offered)}" for wanted, offered, _ in CHOICES]
)
def test_the_order_of_a_list_decides_nothing(wanted: str, offered: list[str], expected: str | None) -> None:
    request = Platform.parse(wanted)
    for order in itertools.permutations(offered):
        ranked = [(rank, text) for text in order if (rank := request.rank(Platform.of(*text.split("/")))) is not None]
        assert min(ranked, default=(0, None))[1] == expected


def test_what_is_beyond_the_request_is_told() -> None:
    ranks = [Platform.parse("amd64").rank(Platform.of("linux", "amd64", variant)) for variant in (None, "v1", "v2", "x")]
    assert [rank is not None and rank >= BEYOND for rank in ranks] == [False, False, True, True]


@given(st.text(max_size=20) | st.text("/armv8linux_6.", max_size=14))
def test_any_text(text: str) -> None:
    try:
        platform = Platform.parse(text)
    except ConfigError:
        return
    assert Platform.parse(str(platform)) == platform
    assert platform.rank(platform) == 0
