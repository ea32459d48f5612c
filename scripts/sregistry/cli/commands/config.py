"""`sregistry config [--json]`: each setting that is in effect, and where it comes from."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING

from sregistry.terminal import printable

if TYPE_CHECKING:
    from sregistry.cli.commands import Commands


def register(commands: Commands) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "config",
        help="show the settings in effect",
        description="Print each setting, its value, and where it comes from. Secrets are not shown.",
        epilog="What sets more goes first: environment, secrets file, config/config.yaml of this folder, default.",
    )
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print all settings."""
    from sregistry.config.explain import effective
    from sregistry.config.settings import from_file

    found = effective(from_file(), os.environ)
    if options.json:
        print(json.dumps([{"name": item.name, "value": item.value, "origin": item.origin} for item in found], indent=4))
        return
    rows = [(item.name, item.text(), item.origin) for item in found]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, value, origin in rows:
        print(printable(f"{name:{widths[0]}}  {value:{widths[1]}}  {origin}"))
