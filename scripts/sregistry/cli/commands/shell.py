"""`sregistry shell [URI]`: IPython, or Python where it is not installed, with `client` and `Container`."""

from __future__ import annotations

import argparse

from sregistry.cli.arguments import add_uri, open_client, selection


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.description = "Start IPython, else Python, with `client` and `Container`."
    add_uri(command, nargs="?", help="an image on record, to be there as `container`")


def run(options: argparse.Namespace) -> None:
    """Start an interactive interpreter; it takes its commands from a pipe, too."""
    from sregistry.client import Container

    client = open_client(options)
    client.interactive = True
    names = {"client": client, "Container": Container}
    if options.uri:
        names["container"] = client.find(options.uri, **selection(options))
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
