"""The verbs of the command `sregistry`, one module each.

A module has `register(commands)`, which adds its parser and sets `run`, and `run(options)`, which prints
results on stdout, everything else on stderr, and returns an exit code or nothing. What a verb needs is
imported when it runs: a shell waits for `sregistry get`, and for every press of the Tab key.
"""

from __future__ import annotations

import argparse
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sregistry.client import Client

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

#: In the order of the help.
VERBS = (
    "pull",
    "search",
    "record",
    "images",
    "inspect",
    "get",
    "add",
    "import_",
    "mv",
    "rename",
    "tag",
    "rm",
    "link",
    "labels",
    "shell",
    "login_check",
    "backend",
    "config",
    "store",
    "serve",
    "completion",
    "version",
    "refused",
)


def register(commands: Commands) -> None:
    """Add the parsers of all verbs."""
    for name in VERBS:
        importlib.import_module(f"{__name__}.{name}").register(commands)


def open_client(options: argparse.Namespace) -> Client:
    """Return the client that the environment and the configuration file describe, and announce it."""
    from sregistry.client import get_client

    client = get_client()
    if not options.quiet:
        client.announce()
    return client
