"""Progress of a running stage, published in files for `sregistry pull`: its position in its input, and messages for the user.

```
<folder>/explode-<algorithm>-<hex>   the position in its input: bytes, as text, rewritten in place
<folder>/messages                    {"kind": …, "text": …}, a line each; without a folder, the texts go to stdout
```

The folder is named by SREGISTRY_PULSE, which `sregistry pull` sets for the jobs that it starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import IO, NamedTuple

from sregistry.terminal import printable

#: The variable that names the folder.
VARIABLE = "SREGISTRY_PULSE"

_MESSAGES = "messages"
#: Seconds between two positions.
_INTERVAL = 0.2
#: Digits of a position: each is as long as the last, so that there is nothing to cut off.
_DIGITS = 20


class Kind(StrEnum):
    """What a message is about. `sregistry pull` tells itself what was RECORDED, and its bars show a RESULT."""

    NOTE = "note"
    RESULT = "result"
    RECORDED = "recorded"
    WARNING = "warning"


class Message(NamedTuple):
    """A line for the user."""

    kind: Kind
    text: str

    def __str__(self) -> str:
        return f"warning: {self.text}" if self.kind is Kind.WARNING else self.text


def tell_user(text: str, kind: Kind = Kind.RESULT) -> None:
    """Print a line for the user, or publish it if `sregistry pull` watches."""
    message = Message(kind, printable(text))
    folder = os.environ.get(VARIABLE)
    if not folder:
        print(message, flush=True)
        return
    with contextlib.suppress(OSError), open(os.path.join(folder, _MESSAGES), "ab", buffering=0) as file:
        file.write(f"{json.dumps(message._asdict())}\n".encode())  # at once: others write here, too


class Messages:
    """Reads the messages that jobs publish in *folder*."""

    def __init__(self, folder: Path) -> None:
        self._path, self._at = folder / _MESSAGES, 0

    def new(self) -> list[Message]:
        """Return those that came since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                data = file.read()
        except OSError:
            return []
        data = data[: data.rfind(b"\n") + 1]
        self._at += len(data)
        return [message for line in data.splitlines() if (message := _parse(line)) is not None]


def _parse(line: bytes) -> Message | None:
    """Read a line; None for one that a full disk has cut."""
    try:
        value = json.loads(line)
        return Message(Kind(value["kind"]), value["text"])
    except (ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def publish_position(digest: str, file: IO[bytes]) -> Iterator[None]:
    """Publish where *file*, the layer *digest*, is being read, by a thread of its own that does not slow the reading down."""
    folder = os.environ.get(VARIABLE)
    stop = threading.Event()
    with contextlib.ExitStack() as stack:
        if folder:
            with contextlib.suppress(OSError):
                handle = os.open(_position_file(folder, digest), os.O_WRONLY | os.O_CREAT, 0o600)
                stack.callback(os.close, handle)
                thread = threading.Thread(target=_beat, args=(handle, file.fileno(), stop), daemon=True)
                thread.start()
                stack.callback(thread.join)
                stack.callback(stop.set)
        yield


def _beat(handle: int, read: int, stop: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while True:
            last = stop.is_set()
            os.pwrite(handle, b"%*d" % (_DIGITS, os.lseek(read, 0, os.SEEK_CUR)), 0)
            if last:
                return
            stop.wait(_INTERVAL)


def position(folder: Path, digest: str) -> int | None:
    """Return the position that was published last for the layer *digest*; None: nothing yet."""
    try:
        return int(Path(_position_file(str(folder), digest)).read_bytes() or 0)
    except (OSError, ValueError):
        return None


def _position_file(folder: str, digest: str) -> str:
    return os.path.join(folder, f"explode-{digest.replace(':', '-')}")
