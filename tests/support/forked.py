"""Snakemake many times for one start of Python: a child a command line. Run as a program, with commands on stdin.

```
[["-n", …], ["--summary", …]] ─▶ import once ─▶ fork, snakemake.cli.main ─▶ [[code, text], …]
```
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def each(commands: Sequence[Sequence[str]], folder: Path, environ: Mapping[str, str]) -> list[tuple[int, str]]:
    """Run Snakemake with each list of arguments in turn; return exit codes and outputs."""
    done = subprocess.run(
        [sys.executable, "-P", __file__], input=json.dumps(commands), cwd=folder, env=environ, stdout=subprocess.PIPE, text=True, check=True
    )
    return [(code, text) for code, text in json.loads(done.stdout)]


def _one(main: object, arguments: Sequence[str]) -> tuple[int, str]:
    with tempfile.TemporaryFile() as said:
        pid = os.fork()
        if pid == 0:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
            sys.argv = ["snakemake", *arguments]
            # As a program ends: exit handlers run, and the child never returns to the loop.
            sys.exit(main(list(arguments)))  # type: ignore[operator]
        status = os.waitpid(pid, 0)[1]
        said.seek(0)
        return os.waitstatus_to_exitcode(status), said.read().decode()


def _main() -> None:
    from snakemake.cli import main

    print(json.dumps([_one(main, arguments) for arguments in json.load(sys.stdin)]))


if __name__ == "__main__":
    _main()
