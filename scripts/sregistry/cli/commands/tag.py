"""`sregistry tag URI NEWURI`: an image gets one more name."""

from __future__ import annotations

import argparse

from sregistry.cli.arguments import add_uri, open_client, selection
from sregistry.terminal import printable


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.description = "Give an image one more name. There is no second file: it goes with the last name."
    add_uri(command)
    command.add_argument("new", metavar="NEWURI", help="a name that no other image has, such as nvidia/caffe2:stable")


def run(options: argparse.Namespace) -> None:
    """Name it."""
    client = open_client(options)
    which = selection(options)
    old = client.find(options.uri, **which).uri
    print(printable(f"[tag] {old} => {client.tag(options.uri, options.new, **which).uri}"))
