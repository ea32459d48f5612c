"""Platforms: one spelling for what is asked and for what is published, and an order of those that serve a request.

```
"x86_64", "Linux/AMD64/V3", "armhf", {"os": …, "architecture": …, "variant": …} ─▶ Platform ─▶ rank(offered)
                                                    containerd's names and defaults      lower is better, None is no match
```

A variant is a level of the processor: a program of one level runs on that level and on all above it. A variant
that is missing is the baseline of its architecture (`_LEVELS`), in a request and in an index alike.
Sources: image-spec 1.1, image-index.md, "platform"; containerd/platforms; the names of levels in Go (GOAMD64, GOARM,
GOARM64, GOPPC64, GORISCV64).
"""

from __future__ import annotations

import platform as _platform
import re
from dataclasses import dataclass
from typing import NamedTuple

from sregistry.errors import ConfigError

_WORD = re.compile(r"[a-z0-9_.-]{1,64}")

_SYSTEMS = {"macos": "darwin"}

#: Names of machines (`uname -m`, Debian's, Docker Hub's) → Go's architecture, and the variant that the name implies.
_MACHINES: dict[str, tuple[str, str | None]] = {
    "x86_64": ("amd64", None),
    "x86-64": ("amd64", None),
    "x64": ("amd64", None),
    **{f"x86{dash}64{under}v{n}": ("amd64", f"v{n}") for dash in "_-" for under in "_-" for n in (1, 2, 3, 4)},
    **dict.fromkeys(("i386", "i486", "i586", "i686", "x86", "ia32"), ("386", None)),
    "aarch64": ("arm64", None),
    "arm64v8": ("arm64", None),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv8l": ("arm", "v8"),
    "armv7l": ("arm", "v7"),
    "armv7": ("arm", "v7"),
    "armv7hl": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv6": ("arm", "v6"),
    "armv6hl": ("arm", "v6"),
    "armv5l": ("arm", "v5"),
    "armv5tel": ("arm", "v5"),
    "arm32v5": ("arm", "v5"),
    "arm32v6": ("arm", "v6"),
    "arm32v7": ("arm", "v7"),
    "powerpc64le": ("ppc64le", None),
    "ppc64el": ("ppc64le", None),
    "mips64el": ("mips64le", None),
    "mipsel": ("mipsle", None),
    "riscv": ("riscv64", None),
    "loongarch64": ("loong64", None),
}


class _Levels(NamedTuple):
    """How an architecture's variants are written, how they are spelled here, and which one a missing variant is."""

    pattern: re.Pattern[str]
    spelled: str
    baseline: tuple[int, int]


_POWER = _Levels(re.compile(r"(?:power|p|v)?([0-9]{1,2})"), "power{}", (8, 0))
_LEVELS = {
    "amd64": _Levels(re.compile(r"v?([1-9])"), "v{}", (1, 0)),
    "arm": _Levels(re.compile(r"v?([5-9])[hl]?"), "v{}", (7, 0)),
    "arm64": _Levels(re.compile(r"v?([89])(?:\.([0-9]{1,2}))?"), "v{}", (8, 0)),
    "ppc64le": _POWER,
    "ppc64": _POWER,
    "riscv64": _Levels(re.compile(r"rva([0-9]{2})(?:u64|s64)?"), "rva{}u64", (20, 0)),
}

#: Ranks from here on are of platforms that need a newer processor than the request says.
BEYOND = 100_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Platform:
    """Operating system, architecture and variant, in Go's names (image-spec, image-index.md)."""

    os: str = "linux"
    architecture: str
    variant: str | None = None

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``architecture``, ``os/architecture``, ``architecture/variant`` or ``os/architecture/variant``.

        ``arm64/v8`` is plain arm64, as Docker writes it.

        Raises:
            ConfigError: the text has another shape.
        """
        parts = text.strip().lower().split("/")
        if len(parts) == 1 or (len(parts) == 2 and _is_architecture(parts[0])):
            parts = ["linux", *parts]
        if not 2 <= len(parts) <= 3 or not all(map(_WORD.fullmatch, parts)):
            raise ConfigError(f"platform {text[:80]!r}: expected os/architecture[/variant]", hint="such as linux/amd64 or linux/arm64")
        found = cls.of(*parts)
        return cls(os=found.os, architecture=found.architecture) if (found.architecture, found.variant) == ("arm64", "v8") else found

    @classmethod
    def of(cls, os: str | None, architecture: str, variant: str | None = None) -> Platform:
        """Return a platform in the one spelling; without an operating system, linux. Raises ValueError: a part is no plain word."""
        os = (os or "linux").strip().lower()
        architecture, _, further = architecture.strip().lower().partition("/")
        variant = (variant or further).strip().lower() or None
        architecture, implied = _MACHINES.get(architecture, (architecture, None))
        found = cls(os=_SYSTEMS.get(os, os), architecture=architecture, variant=_spelled(architecture, variant or implied))
        if not all(_WORD.fullmatch(part) for part in (found.os, found.architecture, found.variant or "none")):
            raise ValueError(f"{found} is no platform")
        return found

    @classmethod
    def host(cls) -> Platform:
        """Return the platform of this machine."""
        return cls.parse(_platform.machine() or "amd64")

    def rank(self, offered: Platform) -> int | None:
        """Say how well *offered* serves this request: lower is better, None is not at all.

        The highest level that is not above the requested one is best. A request without a variant is for the baseline;
        where a tag offers nothing for it, the lowest level above serves, by a rank from BEYOND on.
        """
        if (self.os, self.architecture) != (offered.os, offered.architecture):
            return None
        if self.variant == offered.variant:
            return 0
        wanted, given = _level(self), _level(offered)
        if wanted is None:  # a variant without an order: it, or what makes no demand
            return 1 if offered.variant is None else None
        if given is None:
            return 2 * BEYOND if self.variant is None else None
        distance = 100 * (wanted[0] - given[0]) + wanted[1] - given[1]
        if _runs(self.architecture, wanted, given):
            return distance
        return BEYOND - distance if self.variant is None else None


def _is_architecture(word: str) -> bool:
    return word in _MACHINES or word in _LEVELS or word in ("386", "s390x", "loong64")


def _spelled(architecture: str, variant: str | None) -> str | None:
    """Return a variant in the one spelling; one that has no order stays as it is."""
    if variant is None or architecture not in _LEVELS:
        return variant
    levels = _LEVELS[architecture]
    match = levels.pattern.fullmatch(variant)
    if match is None:
        return variant
    major, minor = _numbers(match)
    return levels.spelled.format(major) + (f".{minor}" if minor else "")


def _level(platform: Platform) -> tuple[int, int] | None:
    """Return a platform's level, (major, minor); None for a variant without an order."""
    levels = _LEVELS.get(platform.architecture)
    if platform.variant is None:
        return levels.baseline if levels else (0, 0)
    match = levels.pattern.fullmatch(platform.variant) if levels else None
    return None if match is None else _numbers(match)


def _numbers(match: re.Match[str]) -> tuple[int, int]:
    """Return what stands in a pattern's groups: the major number, and the minor one, 0 where there is none."""
    major, minor = (*match.groups("0"), "0")[:2]
    return int(major), int(minor)


def _runs(architecture: str, processor: tuple[int, int], program: tuple[int, int]) -> bool:
    """Tell whether a processor of one level runs a program of another."""
    if architecture == "arm64" and (processor[0], program[0]) == (9, 8):
        # Armv9.n has all of Armv8.(n + 5) (Arm Architecture Reference Manual, A2.2).
        return program[1] <= processor[1] + 5
    return program <= processor


def may_be_one(one: str, other: str) -> bool:
    """Tell whether two platforms may be one: what either does not say ("" says nothing) does not count."""
    try:
        first, second = (Platform.parse(text) if text else None for text in (one, other))
    except ConfigError:
        return one == other
    if first is None or second is None:
        return True
    variants = {first.variant, second.variant} - {None}
    return (first.os, first.architecture) == (second.os, second.architecture) and len(variants) < 2
