"""Whom one trusts is said by oneself: in a variable, by name or number."""

from __future__ import annotations

import pytest

from sregistry.errors import ConfigError
from sregistry.store.trust import users, words


@pytest.mark.parametrize(
    ("text", "found"),
    [("", set()), ("0", {0}), ("root", {0}), ("root:12", {0, 12}), (" root : 0::", {0}), ("4294967294", {4294967294})],
)
def test_users(text: str, found: set[int]) -> None:
    assert users(text) == frozenset(found)
    assert users(":".join(words(found))) == frozenset(found)


@pytest.mark.parametrize("text", ["*", "root:*"])
def test_everybody(text: str) -> None:
    assert users(text) is None
    assert words(users(text)) == ["*"]


@pytest.mark.parametrize("text", ["no-such-user", "-1", "4294967295", "1e3", "²", "root,root", "9" * 5000, "\0", "root\n0"])
def test_nobody_is_one_clear_line(text: str) -> None:
    with pytest.raises(ConfigError, match=r"SREGISTRY_TRUST: no user .*; name users"):
        users(text)
