"""`sregistry get URI`: the path of a local image, the address of a remote one."""

from __future__ import annotations

import argparse

from sregistry.cli.arguments import add_uri, open_client, selection
from sregistry.terminal import result


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.description = "Print the path of an image."
    add_uri(command)


def run(options: argparse.Namespace) -> None:
    """Print where an image is, alone on stdout."""
    print(result(open_client(options).get(options.uri, **selection(options)).location))
