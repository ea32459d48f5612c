"""`sregistry images [QUERY …] [--where EXPR] [--json]`: the records, oldest first."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from sregistry.commands import open_client

if TYPE_CHECKING:
    from sregistry.commands import Commands


def register(commands: Commands) -> None:
    """Add the parser."""
    command = commands.add_parser("images", help="list images", description="List the images on record, oldest first.")
    command.add_argument("query", nargs="*", metavar="QUERY", help="words that client or uri must hold")
    command.add_argument("--where", metavar="EXPR", help="a filter, such as 'cuda>=12.4 and size<10G'")
    command.add_argument("--json", action="store_true", help="all that is known, as JSON")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """List the records in whose client and uri all QUERY words occur, and which satisfy EXPR."""
    found = open_client(options).images(options.query, where=options.where)
    if options.json:
        print(json.dumps([container.json() for container in found], indent=4, sort_keys=True))
    elif not found:
        print("No image matches." if options.query or options.where is not None else "No images yet.", file=sys.stderr)
    else:
        print("Containers:   [date]    [client]\t[uri]")
        for number, container in enumerate(found, 1):
            print(f"{number}  {container.created:%B %d, %Y}\t[{container.client}]\t{container.label}")
