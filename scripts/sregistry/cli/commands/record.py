"""`sregistry record URI …`: records of images that stay in their registry."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sregistry.cli.commands import open_client
from sregistry.terminal import printable

if TYPE_CHECKING:
    from sregistry.cli.commands import Commands


def register(commands: Commands) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "record",
        help="record images without pulling them",
        description="Fetch the manifests of images and record them; `get` says where in the registry they are.",
    )
    command.add_argument("uri", nargs="+", metavar="URI", help="an image in a registry, such as nvidia/caffe2:17.10")
    command.add_argument(
        "--platform", metavar="OS/ARCHITECTURE", help="which one, where an image is for several; this machine's by default"
    )
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Record each image; one that fails is reported, and the others go on."""
    from sregistry.errors import SregistryError, report

    client = open_client(options)
    code = 0
    for uri in options.uri:
        try:
            container, new = client.add_remote(uri, platform=options.platform)
        except SregistryError as error:
            code = max(code, report(error))
        else:
            print(printable(f"[container][{'new' if new else 'update'}] {container.uri}"))
            print(printable(f"Success! {container.url}"), flush=True)
    return code
