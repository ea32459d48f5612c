"""The command `sregistry`: images of registries, made, listed, moved and looked into.

```
sregistry [--debug | --quiet] VERB …        the table of sregistry.cli.verbs
```

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 bad usage.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from sregistry._version import __version__
from sregistry.cli.verbs import VerbParser, add_verbs
from sregistry.errors import SregistryError, from_oserror, report
from sregistry.system import logs

_INTERRUPTED = 130  # as a shell has it: 128 + SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks, on the Tab key: this ends here
        import argcomplete

        argcomplete.autocomplete(parser)
    options = parser.parse_args(arguments)
    if options.command in (None, "help"):
        if topic := getattr(options, "topic", []):
            parser.parse_args([*topic, "--help"])  # prints that and leaves: with 0, or with 2 where there is no such command
        parser.print_help()
        return 0
    try:
        options.quiet = logs.set_up(os.environ, debug=options.debug, quiet=options.quiet)
        code = int(options.run(options) or 0)
        sys.stdout.flush()
        return code
    except SregistryError as error:
        return report(error)
    except BrokenPipeError:
        # Who reads has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        return report(from_oserror(error, SregistryError, options.command))
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sregistry",
        description="Images of registries as Singularity and Apptainer images, and where they are.",
        epilog="sregistry help COMMAND: what a command does and takes. Start with `sregistry pull nvidia/cuda:12.6.0-base-ubuntu24.04`.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    levels = parser.add_mutually_exclusive_group()
    levels.add_argument("--debug", action="store_true", help="say what is done, step by step")
    levels.add_argument("--quiet", action="store_true", help="say nothing but results and errors")
    verbs = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=VerbParser)
    # argcomplete looks at arguments before anything is parsed.
    add_verbs(verbs, loaded=os.environ.get("COMP_LINE", "").split() if "_ARGCOMPLETE" in os.environ else ())
    topic = verbs.add_parser("help", help="print this help, or that of a command")
    topic.add_argument("topic", nargs="*", metavar="COMMAND", help="the command, and perhaps its own, as in `backend add`")
    return parser


if __name__ == "__main__":
    sys.exit(main())
