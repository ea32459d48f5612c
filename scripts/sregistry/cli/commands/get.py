"""`sregistry get URI`: the path of a local image, the address of a remote one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sregistry.cli.commands import open_client
from sregistry.cli.commands.completion import add_uri
from sregistry.terminal import result

if TYPE_CHECKING:
    from sregistry.cli.commands import Commands


def register(commands: Commands) -> None:
    """Add the parser."""
    command = commands.add_parser("get", help="say where an image is", description="Print the path of an image.")
    add_uri(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print where an image is, alone on stdout."""
    print(result(open_client(options).get(options.uri, platform=options.platform, format=options.format).location))
