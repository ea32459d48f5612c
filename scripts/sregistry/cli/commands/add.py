"""`sregistry add FILE --name URI [--copy] [--force]`: an image file that is there already becomes one of the storage folder."""

from __future__ import annotations

import argparse

from sregistry.cli.arguments import open_client
from sregistry.terminal import printable


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.description = "Move an image file, or a sandbox, into the storage folder, and record it."
    command.add_argument("file", metavar="FILE", help="a SIF or squashfs file, or a sandbox directory")
    command.add_argument("--name", metavar="URI", required=True, help="what it is called, such as nvidia/caffe2:17.10")
    command.add_argument("--copy", action="store_true", help="leave the file where it is, too")
    command.add_argument("--force", action="store_true", help="overwrite an existing file of that name")


def run(options: argparse.Namespace) -> None:
    """Take it in; print its name and its place."""
    container = open_client(options).add(options.file, options.name, copy=options.copy, force=options.force)
    print(f"{printable(f'[container][new] {container.uri}')}\n{printable(container.location)}")
