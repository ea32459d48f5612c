"""`sregistry search QUERY`: the tags of a repository, or the repositories of a registry that lists them."""

from __future__ import annotations

import argparse
import sys

from sregistry.cli.arguments import add_json, count, open_client, print_json
from sregistry.terminal import printable


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.description = "List what a registry has, one name a line, the newest version last."
    command.epilog = (
        "nvidia/pytorch: its tags; 'nvidia/pytorch:24.*-py3': those that match; 'nvidia/*torch*', quay.io/, or a word: "
        "repositories, where the registry lists them"
    )
    command.add_argument("query", metavar="QUERY", help="a repository, or a pattern of repositories or of a repository's tags")
    command.add_argument("--limit", type=count, metavar="N", help="the last N only")
    add_json(command, "as a JSON list")


def run(options: argparse.Namespace) -> None:
    """Print what matches; nothing is an error. Raises RegistryError."""
    from sregistry.errors import RegistryError

    client = open_client(options)
    found = client.search(options.query)
    if not found:
        raise RegistryError(f"{options.query}: nothing matches", hint="a word, or a pattern with '*', matches more")
    shown = found[-options.limit :] if options.limit else found
    if options.json:
        print_json(shown)
    else:
        print("\n".join(map(printable, shown)))
    if len(shown) < len(found) and not options.quiet:
        print(f"The last {len(shown)} of {len(found)}.", file=sys.stderr)
