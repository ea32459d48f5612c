"""`sregistry serve DIR`: an OCI image layout as a registry."""

from __future__ import annotations

import argparse
from pathlib import Path

from sregistry.cli.arguments import port


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.description = "Serve an OCI image layout as a read-only registry."
    command.add_argument("directory", type=Path, metavar="DIR")
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    command.add_argument("--port", type=port, default=5000, help="0 takes a free one (%(default)s)")


def run(options: argparse.Namespace) -> None:
    """Serve a layout until Ctrl-C."""
    from sregistry.registry import server

    server.run(options.directory, options.host, options.port)
