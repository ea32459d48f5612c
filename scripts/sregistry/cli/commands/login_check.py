"""`sregistry login-check [REGISTRY]`: what would be sent to a registry, and whether it accepts it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from sregistry.terminal import printable

if TYPE_CHECKING:
    from sregistry.cli.commands import Commands


def register(commands: Commands) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "login-check",
        help="try the login at a registry",
        description="Say which credentials a registry would get, by name, and whether it accepts them.",
    )
    command.add_argument(
        "registry", nargs="?", metavar="REGISTRY", help="a client, host[:port], or a reference such as nvcr.io/nvidia/cuda"
    )
    command.add_argument("--json", action="store_true", help="the same as JSON")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print what would be sent, names only, and what the registry says to it; a refusal is an error."""
    from sregistry.config.own_config import load_local
    from sregistry.config.secrets_file import overlay
    from sregistry.registry.login_check import check

    environ = overlay(os.environ)
    client = load_local(environ)[0].client
    found = check(options.registry or client, client, environ)
    print(json.dumps(found.json(), indent=4) if options.json else "\n".join(map(printable, found.lines())))
    if found.error:
        sys.stdout.flush()
        raise found.error
