"""`sregistry rename URI NEWURI`: an image gets another name."""

from __future__ import annotations

import argparse

from sregistry.cli.arguments import add_uri, open_client, selection
from sregistry.terminal import printable


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.description = "Give an image, and its file, another name."
    add_uri(command)
    command.add_argument("new", metavar="NEWURI", help="a name that no image has")


def run(options: argparse.Namespace) -> None:
    """Rename it."""
    client = open_client(options)
    which = selection(options)
    old = client.find(options.uri, **which).uri
    print(printable(f"[rename] {old} => {client.rename(options.uri, options.new, **which).uri}"))
