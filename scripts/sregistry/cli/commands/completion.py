"""`sregistry completion bash|zsh|fish`: what a shell needs to complete verbs, options and images, by argcomplete."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sregistry.cli.commands import Commands

SHELLS = ("bash", "zsh", "fish")


def register(commands: Commands) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "completion",
        help="complete commands and images by the Tab key",
        description="Print what your shell needs to complete by the Tab key.",
        epilog='bash and zsh: eval "$(sregistry completion bash)" in ~/.bashrc, zsh in ~/.zshrc; '
        "fish: sregistry completion fish > ~/.config/fish/completions/sregistry.fish",
    )
    command.add_argument("shell", choices=SHELLS, metavar="SHELL", help="one of " + ", ".join(SHELLS))
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Print the shell's code."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["sregistry"], shell=options.shell))


def add_uri(
    command: argparse.ArgumentParser, *, nargs: str | None = None, help: str = "an image on record, as `sregistry images` lists it"
) -> None:
    """Add the argument `uri`, which the Tab key completes, and what tells one image of that name from others."""
    action = command.add_argument("uri", nargs=nargs, metavar="URI", help=help)
    action.completer = images  # type: ignore[attr-defined]  # argcomplete looks for it
    command.add_argument("--platform", metavar="OS/ARCH", help="which one, where images of that name are on record for several")
    command.add_argument("--format", choices=("sif", "simg", "sandbox"), help="which one, where that name has several")


def images(prefix: str, **_: object) -> list[str]:
    """Return the uris on record that begin with *prefix*: argcomplete's completer of URI."""
    from sregistry.client import get_client

    return [uri for uri in {container.uri: None for container in get_client().images()} if uri.startswith(prefix)]
