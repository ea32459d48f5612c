"""What is said on the way, on stderr: MESSAGELEVEL, --debug and --quiet.

```
--debug, --quiet  >  MESSAGELEVEL  >  INFO

ERROR     errors
WARNING   and warnings
INFO      and which client and catalog are used, and progress
DEBUG     and files of settings that are read, and requests: method, host, path, names of headers, status
```

Messages go through the logger `sregistry` of the standard library and are lines such as ``WARNING …``.
A program that uses the package, and sets nothing up here, has that logger to itself. `logging` is
imported with the first message: most stages have none to give, and start without it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from enum import IntEnum
from typing import TYPE_CHECKING

from sregistry.errors import ConfigError
from sregistry.terminal import printable

if TYPE_CHECKING:
    import logging

VARIABLE = "MESSAGELEVEL"


class Level(IntEnum):
    """How much is said; the numbers are those of `logging`."""

    DEBUG = 10
    VERBOSE = 15
    INFO = 20
    WARNING = 30
    ERROR = 40


#: Name → number in MESSAGELEVEL, as the seed's client and Singularity 2 count, and what is shown then.
NAMES: Mapping[str, tuple[int, Level]] = {
    "ABORT": (-5, Level.ERROR),
    "CRITICAL": (-4, Level.ERROR),
    "ERROR": (-3, Level.ERROR),
    "WARNING": (-2, Level.WARNING),
    "LOG": (-1, Level.WARNING),
    "QUIET": (0, Level.ERROR),
    "INFO": (1, Level.INFO),
    "VERBOSE": (2, Level.VERBOSE),
    "VERBOSE1": (2, Level.VERBOSE),
    "VERBOSE2": (3, Level.VERBOSE),
    "VERBOSE3": (4, Level.VERBOSE),
    "DEBUG": (5, Level.DEBUG),
}
_NUMBERS = dict(NAMES.values())

#: None: nobody has set it up.
_level: Level | None = None


def parse(text: str) -> Level:
    """Read a name or a number of MESSAGELEVEL; numbers beyond the ends mean the ends. Raises ConfigError."""
    word = text.strip().upper()
    if word in NAMES:
        return NAMES[word][1]
    if re.fullmatch(r"[+-]?[0-9]{1,3}", word):
        return _NUMBERS[max(min(_NUMBERS), min(max(_NUMBERS), int(word)))]
    raise ConfigError(f"{VARIABLE}: {text!r} is unknown", hint=f"a number from -5 to 5, or one of {', '.join(NAMES)}")


def level(environ: Mapping[str, str]) -> Level:
    """Return what MESSAGELEVEL says. Raises ConfigError."""
    return parse(environ.get(VARIABLE) or "INFO")


def set_up(environ: Mapping[str, str], *, debug: bool = False, quiet: bool = False) -> bool:
    """Choose what is shown from now on; tell whether that is less than who we are and how far we got.

    Args:
        environ: its MESSAGELEVEL counts where neither switch of the command line is given.

    Raises:
        ConfigError: MESSAGELEVEL is neither a name nor a number.
    """
    global _level  # noqa: PLW0603 - as stderr is, this is the process's
    _level = Level.DEBUG if debug else Level.ERROR if quiet else level(environ)
    return not shown(Level.INFO)


def shown(wanted: Level) -> bool:
    """Tell whether messages of this level are shown."""
    return wanted >= (Level.INFO if _level is None else _level)


def exported() -> dict[str, str]:
    """Return the variable that has the jobs of this process say as much as it does."""
    return {} if _level is None else {VARIABLE: _level.name}


def logger() -> logging.Logger:
    """Return the logger `sregistry`; once set up, it prints what is to be shown on stderr as that is then."""
    import logging

    found = logging.getLogger("sregistry")
    if _level is None:
        return found
    found.setLevel(_level)
    found.propagate = False  # Snakemake has handlers of its own
    if not found.handlers:
        handler = logging.Handler()
        handler.emit = _print  # type: ignore[method-assign]
        found.addHandler(handler)
    return found


_warned: set[str] = set()


def warn(line: str) -> None:
    """Warn, once a process."""
    if line not in _warned:
        _warned.add(line)
        logger().warning("%s", line)


def _print(record: logging.LogRecord) -> None:
    print(f"{record.levelname} {printable(' '.join(record.getMessage().split()))}", file=sys.stderr, flush=True)
