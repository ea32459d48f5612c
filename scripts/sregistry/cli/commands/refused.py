"""`push`, `delete`, `share` and `build`: verbs of the original that this client has no use for; each says what to use."""

from __future__ import annotations

import argparse

#: Verb → what does it instead.
_INSTEAD = {
    "push": "images go to a registry by `apptainer push FILE oras://…`",
    "delete": "tags are deleted at the registry's own page; `sregistry rm` removes an image of yours",
    "share": "give others the file that `sregistry get` names",
    "build": "images are made by `sregistry pull`; of a recipe, by `apptainer build`",
}


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Take any arguments, and read none."""
    command.description = f"Not implemented: {_INSTEAD[command.prog.rpartition(' ')[2]]}."
    command.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> None:
    """Refuse. Raises SregistryError."""
    from sregistry.client import get_client
    from sregistry.errors import SregistryError

    client = get_client().settings.client
    raise SregistryError(f"{options.command} is not implemented for {client}", hint=_INSTEAD[options.command])
