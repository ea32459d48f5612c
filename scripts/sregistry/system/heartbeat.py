"""What a running stage tells of itself, for who watches: how far it is, and what it has to tell_user.

```
<folder>/explode-<algorithm>-<hex>   the position in its input: bytes, as text, rewritten in place
<folder>/said                        lines, which go to stdout where nobody watches
```

The folder is named by SREGISTRY_PULSE, which `sregistry pull` sets for the jobs that it starts.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from sregistry.terminal import printable

#: The variable that names the folder.
VARIABLE = "SREGISTRY_PULSE"
#: The file of lines.
SAID = "said"

#: Seconds between two positions.
_INTERVAL = 0.2
#: Digits of a position: each is as long as the last, so that there is nothing to cut off.
_DIGITS = 20


def tell_user(line: str) -> None:
    """Print a line for the user, or hand it to who watches."""
    line = printable(line)
    folder = os.environ.get(VARIABLE)
    if not folder:
        print(line, flush=True)
        return
    with contextlib.suppress(OSError), open(os.path.join(folder, SAID), "ab", buffering=0) as file:
        file.write(f"{line}\n".encode(errors="surrogateescape"))  # at once: others write here, too


@contextlib.contextmanager
def publish_position(name: str, file: IO[bytes]) -> Iterator[None]:
    """Publish under *name* where *file* is being read, by a thread of its own: who reads it does not notice."""
    folder = os.environ.get(VARIABLE)
    stop = threading.Event()
    with contextlib.ExitStack() as stack:
        if folder:
            with contextlib.suppress(OSError):
                handle = os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT, 0o600)
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


def position(folder: Path, name: str) -> int | None:
    """Return what was published last under *name*; None: nothing yet."""
    try:
        return int((folder / name).read_bytes() or 0)
    except (OSError, ValueError):
        return None
