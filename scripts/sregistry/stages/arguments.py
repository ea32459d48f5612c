"""Arguments that several stages share, and what is made of them: the store, the compression, a guard."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from sregistry.catalog.occupant import Identity
    from sregistry.layers.compression import Compression
    from sregistry.store.store import Store

#: Where a stage registers its command.
Stages: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

_FILE: Mapping[str, Any] = {"type": Path, "required": True, "metavar": "FILE"}
_FOLDER: Mapping[str, Any] = {"type": Path, "metavar": "DIR"}
#: What several stages are told, by the function below that reads it, if there is one.
_SHARED: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "output": {"--output": _FILE},
    "manifest": {"--manifest": {**_FILE, "help": "manifest.json"}},
    "store": {
        "--cache": {**_FOLDER, "required": True, "help": "the store is in its folder docker"},
        "--cache-from": {**_FOLDER, "action": "append", "default": [], "help": "a further store, to read"},
        "--trust": {"default": "", "metavar": "USER:…", "help": "whose exploded layers are used, as SREGISTRY_TRUST has it"},
    },
    "pattern": {
        "--uri": {"required": True, "help": "the repository"},
        "--client": {"required": True},
        "--tags": {"required": True, "metavar": "GLOB"},
        "--newest": {"type": int, "metavar": "N", "help": "the last N in the order of versions"},
    },
    "guard": {
        "--database": {**_FOLDER, "help": "the catalog, which knows what image a file is"},
        "--force": {"action": "store_true", "help": "take the place of another image"},
    },
    "compression": {
        "--codec": {"required": True},
        "--level": {"required": True},
        "--block-size": {"type": int, "required": True, "metavar": "BYTES"},
    },
    "builder": {"--builder": {"choices": ("native", "mksquashfs", "singularity"), "default": "native"}},
}


def command(stages: Stages, name: str, run: Callable[[argparse.Namespace], None], help: str, *shared: str) -> argparse.ArgumentParser:
    """Add the command *name* with arguments that it shares with others, and return it for its own ones."""
    stage = stages.add_parser(name, help=help)
    for group in shared:
        for option, how in _SHARED[group].items():
            stage.add_argument(option, **how)
    stage.set_defaults(run=run)
    return stage


def store(options: argparse.Namespace) -> Store:
    """Return the store and those that it may read."""
    from sregistry.config.settings import store_root
    from sregistry.store import trust
    from sregistry.store.store import Store

    return Store(store_root(options.cache), options.cache_from, trust.users(options.trust))


def compression(options: argparse.Namespace) -> Compression:
    """Return how blocks are compressed."""
    from sregistry.layers.compression import Compression

    return Compression.parse(codec=options.codec, level=options.level, block_size=options.block_size)


def guard(options: argparse.Namespace, wanted: Identity) -> Callable[[], None]:
    """Return a check that raises ImageError where the target holds another image, or a file that is no image."""
    from sregistry.catalog.catalog import Catalog
    from sregistry.catalog.occupant import refusal
    from sregistry.config.secrets_file import overlay

    def check() -> None:
        records = Catalog(options.database).records if options.database is not None else list
        error = refusal(options.target, wanted, records, overlay(os.environ), force=options.force)
        if error is not None:
            raise error

    return check
