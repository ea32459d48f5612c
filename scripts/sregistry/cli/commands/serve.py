"""`sregistry serve DIR`: an OCI image layout as a registry."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from sregistry.system import units

if TYPE_CHECKING:
    from sregistry.cli.commands import Commands


def register(commands: Commands) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "serve", help="serve an OCI image layout", description="Serve an OCI image layout as a read-only registry."
    )
    command.add_argument("directory", type=Path, metavar="DIR")
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    command.add_argument("--port", type=units.argument(units.port), default=5000, help="0 takes a free one (%(default)s)")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Serve a layout until Ctrl-C."""
    from sregistry.registry import server

    server.run(options.directory, options.host, options.port)
