"""The order of tags as versions: one for `search`, lists and `newest`.

```
latest  <  24.9  <  24.12-beta1  <  24.12-rc1  <  24.12  <  24.12-devel  <  24.12-py3  <  24.12-ubuntu22.04  <  24.12.1
words      numbers  pre-releases, which lead to what follows them            what is beside a version in words      more numbers
```

No specification says what a tag means. Numbers count as numbers (24.9 before 24.10), and words as in a dictionary, whatever stands between
them; what semver.org (11) and PEP 440 call a pre-release comes before its release.
"""

from __future__ import annotations

import re

#: What marks a version that leads to one; a letter between digits does as well (3.14.0a1).
PRE_RELEASES = frozenset({"alpha", "beta", "dev", "ea", "nightly", "pre", "preview", "rc", "snapshot"})

_LETTER = re.compile(r"(?<=[0-9])[abc](?=[0-9])")
_PART = re.compile(rf"[0-9]+|{_LETTER.pattern}|[A-Za-z]+")


def version(name: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """Return what to sort tags, and names, by; equal for equal names only.

    The v of v1.2 does not count. Words come before numbers, so `latest` before all versions, and among each other as in a dictionary.
    """
    early = pre_releases(name)
    words = _PART.findall(re.sub(r"^v(?=[0-9])", "", name.lower()))
    parts = [(3, int(word), "") if word.isdecimal() else (0 if word in early else 2, 0, word) for word in words]
    return (*parts, (1, 0, "")), name


def numbers(text: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with: (8, 9, 7) of `v8.9.7+cuda12.2`; none if it begins otherwise.

    Filters compare these: what follows them (`a0`, `+cuda12.2`) has another order, or none, at each publisher.
    """
    match = re.match(r"v?(\d+(?:\.\d+)*)", text, re.ASCII)
    # The interpreter refuses to read longer numbers, and no version has them.
    return tuple(int(part) for part in match[1].split(".") if len(part) < 20) if match else ()


def pre_releases(tag: str) -> set[str]:
    """Return the words in a tag that mark a pre-release."""
    tag = tag.lower()
    return {part[0] for part in _PART.finditer(tag) if part[0] in PRE_RELEASES or _LETTER.match(tag, part.start())}


def words_of(pattern: str) -> set[str]:
    """Return the words that a pattern of tags spells out."""
    return set(_PART.findall(pattern.lower()))
