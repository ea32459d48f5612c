"""Folders that a pull writes to: where several can't be written, as with a read-only home, one line names them all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from sregistry.errors import StoreError


def refuse(places: Mapping[str, Path]) -> None:
    """Raise StoreError if folders can't be written, or made.

    Args:
        places: variable → the folder that it names.
    """
    closed = {name: path for name, path in places.items() if not _writable(path)}
    if closed:
        raise StoreError(
            f"can't write to {', '.join(map(str, dict.fromkeys(closed.values())))}",
            hint=f"set {', '.join(closed)} to folders that you can write",
        )


def _writable(path: Path) -> bool:
    """Tell whether a folder can be written, or, where there is none, whether the one that it would be made in can be."""
    there = next((folder for folder in (path, *path.parents) if os.path.lexists(folder)), path)
    return os.access(there, os.W_OK | os.X_OK)
