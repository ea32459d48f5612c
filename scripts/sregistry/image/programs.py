"""Other people's programs: found, asked for their version, run with their failure in one line.

A program gets a session of its own, so that it and all it started can be ended when the job is.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sregistry.config import temporary
from sregistry.config.registries import without_secrets
from sregistry.errors import ImageError
from sregistry.system import signals
from sregistry.terminal import printable

#: Builder → the names its program goes by, the first that is there is taken, and how to get one.
_PROGRAMS = {
    "mksquashfs": (("mksquashfs",), "install squashfs-tools"),
    "singularity": (("apptainer", "singularity"), "install Apptainer or load its module"),
}
#: Where system programs are that an ordinary user's PATH may leave out.
_MORE = ("/usr/local/sbin", "/usr/sbin", "/sbin")
#: Takes bytes.
Sink = Callable[[bytes], object]
#: Characters of a program's last words that are shown.
_SHOWN = 400


def find(builder: str) -> Path | None:
    """Return the program of *builder*; None for one that needs none. Raises ImageError: there is none."""
    if builder not in _PROGRAMS:
        return None
    names, advice = _PROGRAMS[builder]
    # The interpreter's own folder as well: the rules put it on PATH, the main process need not have it there.
    folders = [os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent), *_MORE]
    for name in names:
        found = shutil.which(name, path=os.pathsep.join(folders))
        if found:
            return Path(found)
    raise ImageError(
        f"builder: {builder}: no program {' or '.join(names)} on PATH or in {', '.join(_MORE)} of {os.uname().nodename}",
        hint=f"{advice}, or choose builder: native",
    )


def output(command: Sequence[str | Path]) -> str:
    """Return what a program prints of itself, such as its version or help. Raises ImageError: it can't be started."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env=_environment())
    except OSError as error:
        raise _unstarted(command, error) from error
    return (done.stdout + done.stderr).decode(errors="replace")


def version(program: Path, option: str = "-version") -> tuple[int, int]:
    """Return a program's version as (major, minor); (0, 0) if it doesn't say."""
    found = re.search(r"version\s+(\d+)\.(\d+)", output([program, option]))
    return (int(found[1]), int(found[2])) if found else (0, 0)


def run(
    command: Sequence[str | Path],
    *,
    feed: Callable[[Sink], None] | None = None,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """Run a program to its end; return the lines that it wrote to stderr.

    Args:
        command: the program and its arguments.
        feed: gives the program's standard input to the function that it gets; it is over when the
            program stops to read.
        folder: where the program works.
        environment: variables on top of this process's. What is sregistry's own is left out.

    Raises:
        ImageError: it can't be started, or it failed; the message has its last words.
    """
    with tempfile.TemporaryFile(dir=temporary.working(os.environ)) as errors, contextlib.ExitStack() as running:
        try:
            # A program that has started and isn't noted yet would go on when the job is cancelled.
            with signals.held_back():
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    cwd=folder,
                    env={**_environment(), **(environment or {})},
                    start_new_session=True,
                )
                running.callback(_end, process)
        except OSError as error:
            raise _unstarted(command, error) from error
        if feed and process.stdin:
            # A program that gave up says itself why.
            with contextlib.suppress(BrokenPipeError), process.stdin:
                feed(process.stdin.write)
        code = process.wait()
        running.pop_all()
        errors.seek(0)
        text = errors.read().decode(errors="backslashreplace").strip()
    if code:
        name = Path(command[0]).name
        how = f"was ended by signal {-code}" if code < 0 else f"failed ({code})"
        raise ImageError(f"{name} {how}: {_last_words(text)}", hint="builder: native needs no other program")
    return text.splitlines()


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _last_words(text: str) -> str:
    """Return the last complaint: from the last line that begins like one, with the reason before it, or else the last line."""
    lines = [line for line in text.splitlines() if line.strip()] or ["it says nothing"]
    start = max((n for n, line in enumerate(lines) if re.match(r"fatal|error", line, re.IGNORECASE)), default=len(lines) - 1)
    # mksquashfs: "Write failed because No space left on device", then "FATAL ERROR: Failed to write …".
    if start and re.match(r"fatal error", lines[start], re.IGNORECASE):
        start -= 1
    words = printable(" ".join(" ".join(lines[start:]).split()))
    return words if len(words) <= _SHOWN else words[:_SHOWN] + "…"


def _environment() -> dict[str, str]:
    """The environment but for sregistry's own variables, tokens and passwords, and what sets times in images."""
    return {name: value for name, value in without_secrets(os.environ).items() if name != "SOURCE_DATE_EPOCH"}


def _unstarted(command: Sequence[str | Path], error: OSError) -> ImageError:
    return ImageError(f"can't start {command[0]}: {error.strerror}", hint="or choose builder: native")
