"""`sregistry version`: the version, bare."""

from __future__ import annotations

import argparse

from sregistry._version import __version__


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Take none."""


def run(_: argparse.Namespace) -> None:
    """Print the version."""
    print(__version__)
