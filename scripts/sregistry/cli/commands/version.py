"""`sregistry version`: the version, bare."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sregistry.cli.commands import Commands


def register(commands: Commands) -> None:
    """Add the parser."""
    commands.add_parser("version", help="print the version").set_defaults(run=run)


def run(_: argparse.Namespace) -> None:
    """Print the version."""
    from sregistry import __version__

    print(__version__)
