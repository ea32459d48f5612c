"""`sregistry shell [URI]`: IPython, or Python where it is not installed, with `client` and `Container`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sregistry.cli.commands import open_client
from sregistry.cli.commands.completion import add_uri

if TYPE_CHECKING:
    from sregistry.cli.commands import Commands


def register(commands: Commands) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "shell", help="work with the client in Python", description="Start IPython, else Python, with `client` and `Container`."
    )
    add_uri(command, nargs="?", help="an image on record, to be there as `container`")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Start an interactive interpreter; it takes its commands from a pipe, too."""
    from sregistry.client import Container

    client = open_client(options)
    client.interactive = True
    names = {"client": client, "Container": Container}
    if options.uri:
        names["container"] = client.find(options.uri, platform=options.platform, format=options.format)
    try:
        from IPython import start_ipython
    except ImportError:
        import code

        code.interact(banner="", local=names, exitmsg="")
    else:
        start_ipython(argv=["--no-confirm-exit", "--no-tip"] if _has_tips() else ["--no-confirm-exit"], user_ns=names)


def _has_tips() -> bool:
    """Tell whether IPython greets with a tip of the day, which from 9.0 on it does."""
    from IPython import version_info

    return version_info[0] >= 9
