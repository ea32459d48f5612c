"""The stages as commands: one module a rule, each of them can be run by hand.

```
python -m sregistry.stages NAME ─▶ the module of NAME: register(its command), run(its options) ─▶ a receipt, written whole at the end
```

An error is one line on stderr, and its exit code.
A job starts in some 20 ms: only the module of the chosen stage is imported, and whatever it needs inside its `run`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
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
#: The stages that may fail because of what was published, which is marked.
_OF_PUBLISHED = ("layer", "explode", "metadata", "sandbox", "image")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    words[:1] = [_FORMER.get(word, word) for word in words[:1]]
    options = _parser(words[0] if words and words[0] in _MODULES else None).parse_args(words)
    try:
        logs.set_up(os.environ)
        options.run(options)
        if options.stage in _OF_PUBLISHED:
            from sregistry.results import failures

            failures.forget([options.output])
    except SregistryError as error:
        if options.stage in _OF_PUBLISHED:
            from sregistry.results import failures
            from sregistry.results.resolved import Unresolved

            if not isinstance(error, Unresolved):  # the tag is asked again anyway, or was pinned before and is good
                failures.note(options.output, error)
        return report(error)
    except OSError as error:
        return report(from_oserror(error, StoreError, options.stage))
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


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
