"""`sregistry mv URI PATH`: an image's file moves, and the catalog knows where to."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sregistry.cli.commands import open_client
from sregistry.cli.commands.completion import add_uri
from sregistry.terminal import printable

if TYPE_CHECKING:
    from sregistry.cli.commands import Commands


def register(commands: Commands) -> None:
    """Add the parser."""
    command = commands.add_parser("mv", help="move an image's file", description="Move an image's file; its record follows.")
    add_uri(command)
    command.add_argument("path", metavar="PATH", help="a folder, or a name that is free")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Move it."""
    container = open_client(options).mv(options.uri, options.path, platform=options.platform, format=options.format)
    print(printable(f"[move] {container.uri} => {container.location}"))
