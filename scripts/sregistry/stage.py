"""The former name of `sregistry.stages`: `python -m sregistry.stage NAME` goes on working."""

from __future__ import annotations

import sys

from sregistry.stages.__main__ import main, program

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(program())
