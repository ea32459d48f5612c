"""`sregistry mv URI PATH`: an image's file moves, and the catalog knows where to."""

from __future__ import annotations

import argparse

from sregistry.cli.arguments import add_uri, open_client, selection
from sregistry.terminal import printable


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.description = "Move an image's file; its record follows."
    add_uri(command)
    command.add_argument("path", metavar="PATH", help="a folder, or a name that is free")


def run(options: argparse.Namespace) -> None:
    """Move it."""
    container = open_client(options).mv(options.uri, options.path, **selection(options))
    print(printable(f"[move] {container.uri} => {container.location}"))
