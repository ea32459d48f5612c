"""`sregistry config [--json]`: each setting that is in effect, and where it comes from."""

from __future__ import annotations

import argparse
import os

from sregistry.cli.arguments import add_json, print_json
from sregistry.terminal import printable


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.description = "Print each setting, its value, and where it comes from. Secrets are not shown."
    command.epilog = "What sets more goes first: environment, secrets file, config/config.yaml of this folder, default."
    add_json(command)


def run(options: argparse.Namespace) -> None:
    """Print all settings."""
    from sregistry.config.explain import effective
    from sregistry.config.settings import from_file
    from sregistry.system import units

    found = effective(from_file(), os.environ)
    if options.json:
        print_json([{"name": item.name, "value": item.value, "origin": item.origin} for item in found])
        return
    for line in units.table([(item.name, item.text(), item.origin) for item in found]):
        print(printable(line))
