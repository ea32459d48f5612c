"""`sregistry images [QUERY …] [--where EXPR …] [--json]`: the records, oldest first.

`sregistry images --check [--deep]` looks after their files.
"""

from __future__ import annotations

import argparse
import sys

from sregistry.cli.arguments import add_json, open_client, print_json
from sregistry.terminal import printable


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.description = "List the images on record, oldest first."
    command.add_argument("query", nargs="*", metavar="QUERY", help="words that client or uri must hold")
    command.add_argument(
        "--where",
        action="append",
        metavar="EXPR",
        help="comparisons, such as 'cuda>=12.4 and size<10G', without parentheses; of several EXPR all must hold",
    )
    add_json(command, "all that is known, as JSON")
    command.add_argument("--check", action="store_true", help="list those whose files are gone or changed; then the exit code is 1")
    command.add_argument("--deep", action="store_true", help="with --check: compare SHA-256, not only sizes")


def run(options: argparse.Namespace) -> int | None:
    """List the records in whose client and uri all QUERY words occur, and which satisfy EXPR."""
    if options.check:
        return _check(options)
    found = open_client(options).images(options.query, where=options.where)
    if options.json:
        print_json([container.json() for container in found], sort_keys=True)
    elif not found:
        print("No image matches." if options.query or options.where is not None else "No images yet.", file=sys.stderr)
    else:
        print("Containers:   [date]    [client]\t[uri]")
        for number, container in enumerate(found, 1):
            print(f"{number}  {container.created:%B %d, %Y}\t[{printable(container.client)}]\t{printable(container.label)}")
    return None


def _check(options: argparse.Namespace) -> int:
    """List what is wrong, a line an image."""
    found = open_client(options).check(deep=options.deep)
    if options.json:
        print_json([{"uri": container.uri, "image": container.image, "wrong": what} for container, what in found])
    else:
        for container, what in found:
            print(printable(f"{container.uri}: {container.image} {what}"))
    return int(bool(found))
