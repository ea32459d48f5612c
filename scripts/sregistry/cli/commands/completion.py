"""`sregistry completion bash|zsh|fish`: what a shell needs to complete verbs, options and images, by argcomplete."""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh", "fish")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.description = "Print what your shell needs to complete by the Tab key."
    command.epilog = (
        'bash and zsh: eval "$(sregistry completion bash)" in ~/.bashrc, zsh in ~/.zshrc; '
        "fish: sregistry completion fish > ~/.config/fish/completions/sregistry.fish"
    )
    command.add_argument("shell", choices=SHELLS, metavar="SHELL", help="one of " + ", ".join(SHELLS))


def run(options: argparse.Namespace) -> None:
    """Print the shell's code."""
    from argcomplete.shell_integration import shellcode

    print(shellcode(["sregistry"], shell=options.shell))
