"""Signals that cancel a job, held back while what they would leave half-done is finished."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Let SIGINT and SIGTERM arrive at the end of the block, and not within it."""
    came: list[int] = []
    # Handlers can only be set in the main thread, which alone runs them. Ignored signals stay ignored, in child processes too.
    main = threading.current_thread() is threading.main_thread()
    acts = {number: act for number in (signal.SIGINT, signal.SIGTERM) if main and callable(act := signal.getsignal(number))}
    try:
        for number in acts:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, act in acts.items():
            signal.signal(number, act)
    for late in came:
        signal.raise_signal(late)
