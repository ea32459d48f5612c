"""The stages as commands: one module a rule, each of them can be run by hand.

```
python -m sregistry.stages NAME ─▶ the module of NAME: register(its command), run(its options) ─▶ a receipt, written whole at the end
```

An error is one line on stderr, and its exit code.
A job starts in some 20 ms: only the module of the chosen stage is imported, and whatever it needs inside its `run`.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cache

from sregistry.errors import SregistryError, StoreError, from_oserror, report
from sregistry.system import logs

#: Command → its module.
_MODULES = {
    "tags": "tags",
    "gather-tags": "gather",
    "report-tags": "tags",
    "manifest": "manifest",
    "gather-layers": "gather",
    "layer": "layer",
    "explode": "explode",
    "metadata": "metadata",
    "sandbox": "sandbox",
    "image": "image",
    "catalog": "catalog",
    "refresh": "refresh",
}
#: Former name of a command → its name.
_FORMER = {"targets": "gather-tags", "pattern": "report-tags", "manifests": "gather-layers"}

_INTERRUPTED = 130  # as a shell has it: 128 + SIGINT
#: The stages whose failures are read. Why tags could not be listed stands in their receipts.
_EXPLAINED = ("manifest", "gather-layers", "layer", "explode", "metadata", "sandbox", "image", "catalog")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    words[:1] = [_FORMER.get(word, word) for word in words[:1]]
    options = _parser(words[0] if words and words[0] in _MODULES else None).parse_args(words)
    try:
        with _explained(options):
            logs.set_up(os.environ)
            options.run(options)
    except SregistryError as error:
        return report(error)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


@contextlib.contextmanager
def _explained(options: argparse.Namespace) -> Iterator[None]:
    """Write down why the block fails; an OSError becomes a StoreError."""
    from sregistry.results import failures

    outputs = [options.output] if options.stage in _EXPLAINED else []
    failures.forget(outputs)
    try:
        try:
            yield
        except OSError as error:
            raise from_oserror(error, StoreError, options.stage) from error
    except Exception as error:
        for output in outputs:
            failures.note(output, failures.Failure.of(error, options.stage))
        raise


@cache
def _parser(stage: str | None) -> argparse.ArgumentParser:
    """Return the parser of one stage, of all without one."""
    parser = argparse.ArgumentParser(prog="python -m sregistry.stages", description="One stage of the pipeline.")
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for module in dict.fromkeys([_MODULES[stage]] if stage else _MODULES.values()):
        importlib.import_module(f"sregistry.stages.{module}").register(stages)
    return parser


def program() -> int:
    """Run as a process of its own, and return its exit code."""
    import gc
    import signal

    # So that what a cancelled job has begun is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # What a stage imports is no garbage: looking for some in it, at the start and at the end, took a sixth of a small job's time.
    gc.set_threshold(100_000)
    code = main()
    gc.freeze()
    return code


if __name__ == "__main__":
    sys.exit(program())
