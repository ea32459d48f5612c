"""`sregistry rm URI …`: images go, records and files."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sregistry.commands import open_client
from sregistry.commands.completion import add_uri
from sregistry.terminal import printable

if TYPE_CHECKING:
    from sregistry.commands import Commands


def register(commands: Commands) -> None:
    """Add the parser."""
    command = commands.add_parser("rm", help="remove images", description="Remove images: records, and files that no other record needs.")
    add_uri(command, nargs="+")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Remove them; one that is not there ends it."""
    client = open_client(options)
    for uri in options.uri:
        name = client.find(uri).uri
        client.rm(uri)
        print(printable(f"[rm] {name}"))
