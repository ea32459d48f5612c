"""`sregistry labels [KEY[=VALUE]] [--json]`: the labels that images on record carry."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from sregistry.cli.commands import open_client
from sregistry.terminal import printable

if TYPE_CHECKING:
    from sregistry.cli.commands import Commands


def register(commands: Commands) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "labels",
        help="list labels of images",
        description="List the labels that images on record carry: all keys, or a key's values and their images.",
    )
    command.add_argument("label", nargs="?", metavar="KEY[=VALUE]", help="a key, or a key and its value")
    command.add_argument("--json", action="store_true", help="key, value and image, as JSON")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print keys with the number of images, or the values of a key with the images."""
    key, equals, value = (options.label or "").partition("=")
    found = open_client(options).labels(key or None, value if equals else None)
    if options.json:
        print(json.dumps([{"key": k, "value": v, "image": c.label} for k, v, c in found], indent=4, sort_keys=True))
    elif not found:
        print("No image has such a label." if options.label else "No image has labels.", file=sys.stderr)
    elif key:
        for _, text, container in found:
            print(f"{printable(' '.join(text.split()))}\t{printable(container.label)}")
    else:
        counts: dict[str, int] = {}
        for name, _, _ in found:
            counts[name] = counts.get(name, 0) + 1
        for name in sorted(counts):
            print(f"{counts[name]}\t{printable(' '.join(name.split()))}")
