"""How fast a registry is asked: a token bucket that all processes of a store share, and what the registry says itself.

```
rate r a second, burst b = r ─▶ the generic cell rate algorithm, which needs one number: the time at which
                                the bucket is full again. It stands in <store>/pace/<host>.
```

GCRA: ITU-T I.371, annex A. Headers of limits: `RateLimit-*` (IETF draft-ietf-httpapi-ratelimit-headers-05 and
before, Docker Hub's `100;w=21600`), `X-RateLimit-*` (GitHub: a time since 1970).
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Callable, Mapping

from sregistry.errors import StoreError
from sregistry.store.beneath import Root
from sregistry.store.store import Store

#: Seconds that are waited at most, whatever a file or a registry says.
LONGEST = 60.0

_PREFIXES = ("ratelimit-", "x-ratelimit-")
_NUMBER = re.compile(r"\s*([0-9]{1,12})")
_WINDOW = re.compile(r"w=([0-9]{1,9})")
#: A reset above this is a time since 1970.
_EPOCH = 1_000_000_000
#: Bytes of a number in the file.
_LONGEST_NUMBER = 64


class Pace:
    """Keeps requests to *host* apart.

    Args:
        store: whose users share the bucket; one that can't be written limits this process alone.
        rate: requests a second; None is no limit but the registry's own.
        clock, sleep: seconds since 1970, and the wait.
    """

    def __init__(
        self,
        store: Store,
        host: str,
        rate: float | None,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store, self._name, self._rate = store, re.sub(r"[^A-Za-z0-9.-]", "-", host), rate
        self._clock, self._sleep = clock, sleep
        self._full = 0.0
        self._not_before = 0.0

    def wait(self) -> None:
        """Sleep until the next request may be sent."""
        now = self._clock()
        pause = self._not_before - now
        if self._rate:
            pause = max(pause, self._take(self._rate, now))
        if pause > 0:
            self._sleep(min(pause, LONGEST))

    @property
    def scarce(self) -> bool:
        """Whether requests are counted, so that one more makes others wait."""
        return bool(self._rate) or self._not_before > self._clock()

    def note_limits(self, headers: Mapping[str, str]) -> None:
        """Take note of an answer that says that no request is left for the moment."""
        if _number(headers, "remaining") == 0:
            seconds = reset_of(headers, self._clock)
            if seconds is not None:
                self._not_before = self._clock() + min(seconds, LONGEST)

    def _take(self, rate: float, now: float) -> float:
        """Take a token and return the seconds until it is there."""
        try:
            with self._store.lock(f"pace-{self._name}"):
                files, name = self._store.files, f"pace/{self._name}"
                self._store.folder(self._store.root / "pace")
                full = self._advance(_read(files, name), rate, now)
                files.write(name, repr(full).encode(), self._store.file_mode)
            self._full = full
        except (StoreError, OSError):
            self._full = self._advance(self._full, rate, now)
        return self._full - max(1.0, rate) / rate - now

    @staticmethod
    def _advance(full: float, rate: float, now: float) -> float:
        # A clock of another node may be ahead, a file may hold anything.
        if not now < full < now + LONGEST:
            full = now
        return full + 1 / rate


def reset_of(headers: Mapping[str, str], clock: Callable[[], float] = time.time) -> float | None:
    """Return in how many seconds a rate limit begins anew, None where the headers don't say."""
    value = _number(headers, "reset")
    if value is None:
        return None
    return max(0.0, value - clock()) if value > _EPOCH else float(value)


def limit_of(headers: Mapping[str, str]) -> str:
    """Return the limit that the headers name, such as ``: 100 in 6 h``, for a message."""
    number = _number(headers, "limit")
    window = _WINDOW.search(next((headers[p + "limit"] for p in _PREFIXES if p + "limit" in headers), ""))
    if number is None or window is None:
        return ""
    seconds = int(window[1])
    span = f"{seconds / 3600:g} h" if seconds >= 3600 else f"{math.ceil(seconds / 60)} min"
    return f": {number} in {span}"


def _number(headers: Mapping[str, str], name: str) -> int | None:
    for prefix in _PREFIXES:
        found = _NUMBER.match(headers.get(prefix + name, ""))
        if found:
            return int(found[1])
    return None


def _read(files: Root, name: str) -> float:
    with contextlib.suppress(OSError, ValueError):
        value = float(files.read(name, 100))
        return value if math.isfinite(value) else 0.0
    return 0.0
