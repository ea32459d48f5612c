"""`sregistry tag URI NEWURI`: an image gets one more name."""

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
    command = commands.add_parser(
        "tag",
        help="give an image one more name",
        description="Give an image one more name. There is no second file: it goes with the last name.",
    )
    add_uri(command)
    command.add_argument("new", metavar="NEWURI", help="a name that no other image has, such as nvidia/caffe2:stable")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Name it."""
    client = open_client(options)
    which = {"platform": options.platform, "format": options.format}
    old = client.find(options.uri, **which).uri
    print(printable(f"[tag] {old} => {client.tag(options.uri, options.new, **which).uri}"))
