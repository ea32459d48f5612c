"""`sregistry rm URI … [--dry-run]`: images go, records and files."""

from __future__ import annotations

import argparse

from sregistry.cli.arguments import add_dry_run, add_uri, open_client, selection
from sregistry.terminal import printable


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.description = "Remove images: records, and files that no other record needs."
    add_uri(command, nargs="+")
    add_dry_run(command, "remove nothing, say what would be")


def run(options: argparse.Namespace) -> None:
    """Remove them. Nothing is, if one of them is not there or not the only one of its name."""
    client = open_client(options)
    for removal in client.removals(options.uri, dry_run=options.dry_run, **selection(options)):
        file = f", {removal.file} ({removal.size:,} bytes)" if removal.file else ""
        what = f" would be removed: record {removal.record.id}{file}" if options.dry_run else ""
        print(printable(f"[rm] {removal.record.uri}{what}"))
