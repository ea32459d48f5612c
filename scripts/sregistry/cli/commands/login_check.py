"""`sregistry login-check [REGISTRY]`: what would be sent to a registry, and whether it accepts it."""

from __future__ import annotations

import argparse
import os
import sys

from sregistry.cli.arguments import add_json, print_json
from sregistry.terminal import printable


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.description = "Say which credentials a registry would get, by name, and whether it accepts them."
    command.add_argument(
        "registry", nargs="?", metavar="REGISTRY", help="a client, host[:port], or a reference such as nvcr.io/nvidia/cuda"
    )
    add_json(command, "the same as JSON")


def run(options: argparse.Namespace) -> None:
    """Print what would be sent, names only, and what the registry says to it; a refusal is an error."""
    from sregistry.config.own_config import load_local
    from sregistry.config.secrets_file import overlay
    from sregistry.registry.login_check import check

    environ = overlay(os.environ)
    client = load_local(environ)[0].client
    found = check(options.registry or client, client, environ)
    if options.json:
        print_json(found.json())
    else:
        print("\n".join(map(printable, found.lines())))
    if found.error:
        sys.stdout.flush()
        raise found.error
