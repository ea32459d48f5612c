"""`sregistry rename URI NEWURI`: an image gets another name."""

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
    command = commands.add_parser("rename", help="give an image another name", description="Give an image, and its file, another name.")
    add_uri(command)
    command.add_argument("new", metavar="NEWURI", help="a name that no image has")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Rename it."""
    client = open_client(options)
    which = {"platform": options.platform, "format": options.format}
    old = client.find(options.uri, **which).uri
    print(printable(f"[rename] {old} => {client.rename(options.uri, options.new, **which).uri}"))
