"""`sregistry rm URI … [--dry-run]`: images go, records and files."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sregistry.cli.commands import open_client
from sregistry.cli.commands.completion import add_uri
from sregistry.terminal import printable

if TYPE_CHECKING:
    from sregistry.cli.commands import Commands


def register(commands: Commands) -> None:
    """Add the parser."""
    command = commands.add_parser("rm", help="remove images", description="Remove images: records, and files that no other record needs.")
    add_uri(command, nargs="+")
    command.add_argument("--dry-run", action="store_true", help="remove nothing, say what would be")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Remove them. Nothing is, if one of them is not there or not the only one of its name."""
    client = open_client(options)
    for removal in client.removals(options.uri, dry_run=options.dry_run, platform=options.platform, format=options.format):
        file = f", {removal.file} ({removal.size:,} bytes)" if removal.file else ""
        what = f" would be removed: record {removal.record.id}{file}" if options.dry_run else ""
        print(printable(f"[rm] {removal.record.uri}{what}"))
