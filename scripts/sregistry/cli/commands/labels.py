"""`sregistry labels [KEY[=VALUE]] [--json]`: the labels that images on record carry."""

from __future__ import annotations

import argparse
import sys

from sregistry.cli.arguments import add_json, open_client, print_json
from sregistry.terminal import printable


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.description = "List the labels that images on record carry: all keys, or a key's values and their images."
    command.add_argument("label", nargs="?", metavar="KEY[=VALUE]", help="a key, or a key and its value")
    add_json(command, "key, value and image, as JSON")


def run(options: argparse.Namespace) -> None:
    """Print keys with the number of images, or the values of a key with the images."""
    key, equals, value = (options.label or "").partition("=")
    found = open_client(options).labels(key or None, value if equals else None)
    if options.json:
        print_json([{"key": k, "value": v, "image": c.label} for k, v, c in found], sort_keys=True)
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
