"""`sregistry search QUERY`: the tags of a repository, or the repositories of a registry that lists them."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from sregistry.cli.commands import open_client
from sregistry.system import units
from sregistry.terminal import printable

if TYPE_CHECKING:
    from sregistry.cli.commands import Commands


def register(commands: Commands) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "search",
        help="list tags or repositories of a registry",
        description="List what a registry has, one name a line, the newest version last.",
        epilog="nvidia/pytorch: its tags; 'nvidia/pytorch:24.*-py3': those that match; 'nvidia/*torch*', quay.io/, or a word: "
        "repositories, where the registry lists them",
    )
    command.add_argument("query", metavar="QUERY", help="a repository, or a pattern of repositories or of a repository's tags")
    command.add_argument("--limit", type=units.argument(units.count), metavar="N", help="the last N only")
    command.add_argument("--json", action="store_true", help="as a JSON list")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print what matches; nothing is an error. Raises RegistryError."""
    from sregistry.errors import RegistryError

    client = open_client(options)
    found = client.search(options.query)
    if not found:
        raise RegistryError(f"{options.query}: nothing matches", hint="a word, or a pattern with '*', matches more")
    shown = found[-options.limit :] if options.limit else found
    print(json.dumps(shown, indent=4) if options.json else "\n".join(map(printable, shown)))
    if len(shown) < len(found) and not options.quiet:
        print(f"The last {len(shown)} of {len(found)}.", file=sys.stderr)
