"""`sregistry inspect URI`: all that is known of an image."""

from __future__ import annotations

import argparse
import json

from sregistry.cli.arguments import add_uri, open_client, selection
from sregistry.terminal import printable


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.description = "Show all that is known of an image."
    add_uri(command)


def run(options: argparse.Namespace) -> None:
    """Print a record: uri, place, then all of it."""
    container = open_client(options).find(options.uri, **selection(options))
    print(f"{printable(container.uri)}\n{printable(container.location)}\n{json.dumps(container.inspect(), indent=4, sort_keys=True)}")
