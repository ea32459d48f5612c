"""`sregistry record URI …`: records of images that stay in their registry."""

from __future__ import annotations

import argparse

from sregistry.cli.arguments import each, open_client
from sregistry.terminal import printable


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.description = "Fetch the manifests of images and record them; `get` says where in the registry they are."
    command.add_argument("uri", nargs="+", metavar="URI", help="an image in a registry, such as nvidia/caffe2:17.10")
    command.add_argument("--platform", metavar="OS/ARCHITECTURE", help="platform of a multi-platform image (default: this machine's)")


def run(options: argparse.Namespace) -> int:
    """Record each image; one that fails is reported, and the others go on."""
    client = open_client(options)

    def record(uri: str) -> None:
        container, new = client.add_remote(uri, platform=options.platform)
        print(printable(f"[container][{'new' if new else 'update'}] {container.uri}"))
        print(printable(f"Success! {container.url}"), flush=True)

    return each(options.uri, record)
