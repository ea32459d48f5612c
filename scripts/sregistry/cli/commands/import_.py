"""`sregistry import FILE|FOLDER`: records of images that others made, which stay where they are."""

from __future__ import annotations

import argparse
import sys

from sregistry.cli.arguments import add_dry_run, open_client
from sregistry.terminal import printable


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.description = (
        "Record the containers of the original sregistry's database, or the image files in a folder and beneath it."
        " No file is moved or changed; what is on record already stays as it is. The exit code is 1 if something was skipped."
    )
    command.add_argument("source", metavar="FILE|FOLDER", help="such as ~/.singularity/sregistry.db, or ~/containers")
    command.add_argument("--collection", metavar="NAME", help="collection for images whose name can't be determined: NAME/file:tag")
    add_dry_run(command, "record nothing, say what would be")


def run(options: argparse.Namespace) -> int:
    """Import; new records go to stdout, what was skipped to stderr."""

    def say(line: str) -> None:
        if not options.quiet:
            print(printable(line), file=sys.stderr, flush=True)

    client = open_client(options)
    done = client.import_(options.source, collection=options.collection, dry_run=options.dry_run, say=say)
    for record in done.new:
        print(printable(f"[import] {record.label} {record.location}"))
    sys.stdout.flush()
    for skipped in done.skipped:
        print(printable(f"skipped: {skipped}"), file=sys.stderr)
    verb = "would be recorded" if options.dry_run else "recorded"
    say(f"{len(done.new)} {verb}, {len(done.there)} on record already, {len(done.skipped)} skipped")
    return int(bool(done.skipped))
