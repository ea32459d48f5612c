"""How the result of a stage is said: digests, amounts and rates."""

from __future__ import annotations

import time


def short_digest(digest: str) -> str:
    """Cut a digest to its first twelve digits."""
    algorithm, _, digits = digest.partition(":")
    return f"{algorithm}:{digits[:12]}"


def amount(size: float) -> str:
    """Say a number of bytes in units of 1000."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def rated(size: int, start: float) -> str:
    """Say a size in bytes, the seconds since *start* (a `time.monotonic` value), and the rate that both make."""
    seconds = max(time.monotonic() - start, 1e-3)
    return f"{amount(size)} in {seconds:.1f} s, {amount(size / seconds)}/s"
