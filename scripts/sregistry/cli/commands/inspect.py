"""`sregistry inspect URI`: all that is known of an image."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from sregistry.cli.commands import open_client
from sregistry.cli.commands.completion import add_uri
from sregistry.terminal import printable

if TYPE_CHECKING:
    from sregistry.cli.commands import Commands


def register(commands: Commands) -> None:
    """Add the parser."""
    command = commands.add_parser("inspect", help="show an image's record", description="Show all that is known of an image.")
    add_uri(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print a record: uri, place, then all of it."""
    container = open_client(options).find(options.uri, platform=options.platform, format=options.format)
    print(f"{printable(container.uri)}\n{printable(container.location)}\n{json.dumps(container.inspect(), indent=4, sort_keys=True)}")
