"""`sregistry add FILE --name URI [--copy] [--force]`: an image file that is there already becomes one of the storage folder."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sregistry.cli.commands import open_client
from sregistry.terminal import printable

if TYPE_CHECKING:
    from sregistry.cli.commands import Commands


def register(commands: Commands) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "add", help="take in an image file", description="Move an image file, or a sandbox, into the storage folder, and record it."
    )
    command.add_argument("file", metavar="FILE", help="a SIF or squashfs file, or a sandbox directory")
    command.add_argument("--name", metavar="URI", required=True, help="what it is called, such as nvidia/caffe2:17.10")
    command.add_argument("--copy", action="store_true", help="leave the file where it is, too")
    command.add_argument("--force", action="store_true", help="replace a file that has its place")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Take it in; print its name and its place."""
    container = open_client(options).add(options.file, options.name, copy=options.copy, force=options.force)
    print(f"{printable(f'[container][new] {container.uri}')}\n{printable(container.location)}")
