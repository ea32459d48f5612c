"""Whose exploded layers are used, besides one's own and root's: those of users whom SREGISTRY_TRUST names.

It is a variable and no key of the configuration: a file of the folder that one works in may be another user's, and
he must not be the one who says that he is trusted.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Collection

from sregistry.errors import ConfigError

VARIABLE = "SREGISTRY_TRUST"
#: Everybody: for file systems that keep neither owners nor permissions.
ANYBODY = "*"
#: Numbers of users end below this (uid_t; the last one stands for none).
_USERS = (1 << 32) - 1


def users(text: str) -> frozenset[int] | None:
    """Return the numbers of the users that are named, with `:` between them; None stands for everybody. Raises ConfigError."""
    words = [word.strip() for word in text.split(os.pathsep) if word.strip()]
    if ANYBODY in words:
        return None
    return frozenset(map(_number, words))


def words(trusted: Collection[int] | None) -> list[str]:
    """Return users as the variable has them, by number."""
    return [ANYBODY] if trusted is None else [str(number) for number in sorted(trusted)]


def _number(word: str) -> int:
    if word.isdecimal() and word.isascii() and len(word) <= 10 and int(word) < _USERS:
        return int(word)
    try:
        return pwd.getpwnam(word).pw_uid
    except (KeyError, ValueError):
        raise ConfigError(f"{VARIABLE}: no user {word!r}", hint="name users, or their numbers, with : between them") from None
