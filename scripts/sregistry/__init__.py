"""Registry images to Singularity and Apptainer images.

`get_client`, `Client` and `Container` are the Python client (client.py); the stages that make images
are commands (stages/__main__.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sregistry._version import __version__

if TYPE_CHECKING:
    from sregistry.client import Client, Container, get_client

__all__ = ["Client", "Container", "__version__", "get_client"]


def __getattr__(name: str) -> Any:
    """Import the client when it is asked for: a stage of the pipeline starts without it."""
    if name in ("Client", "Container", "get_client"):
        from sregistry import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
