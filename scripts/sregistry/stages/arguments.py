"""Arguments that several stages share, and what is made of them: the store, a registry client, the compression, a guard."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from sregistry.catalog.occupant import Identity
    from sregistry.config.settings import RegistrySettings
    from sregistry.layers.compression import Compression
    from sregistry.registry.client import RegistryClient
    from sregistry.store.store import Store

    #: Where a stage registers its command.
    Stages: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]


def add_output(stage: argparse.ArgumentParser) -> None:
    """Add the receipt that the stage writes."""
    stage.add_argument("--output", type=Path, required=True, metavar="FILE")


def add_manifest(stage: argparse.ArgumentParser) -> None:
    """Add the image's manifest.json."""
    stage.add_argument("--manifest", type=Path, required=True, metavar="FILE", help="manifest.json")


def add_store(stage: argparse.ArgumentParser) -> None:
    """Add what `store` reads."""
    stage.add_argument("--cache", type=Path, required=True, metavar="DIR", help="the store is in its folder docker")
    stage.add_argument("--cache-from", type=Path, action="append", default=[], metavar="DIR", help="a further store, to read")
    stage.add_argument("--trust", default="", metavar="USER:…", help="whose exploded layers are used, as SREGISTRY_TRUST has it")


def add_pattern(stage: argparse.ArgumentParser) -> None:
    """Add a repository and the pattern of its tags."""
    stage.add_argument("--uri", required=True, help="the repository")
    stage.add_argument("--client", required=True)
    stage.add_argument("--tags", required=True, metavar="GLOB")
    stage.add_argument("--newest", type=int, metavar="N", help="the last N in the order of versions")


def add_guard(stage: argparse.ArgumentParser) -> None:
    """Add what `guard` reads beside the stage's own --target."""
    stage.add_argument("--database", type=Path, metavar="DIR", help="the catalog, which knows what image a file is")
    stage.add_argument("--force", action="store_true", help="take the place of another image")


def add_compression(stage: argparse.ArgumentParser) -> None:
    """Add what `compression` reads."""
    stage.add_argument("--codec", required=True)
    stage.add_argument("--level", required=True)
    stage.add_argument("--block-size", type=int, required=True, metavar="BYTES")


def add_builder(stage: argparse.ArgumentParser) -> None:
    """Add the program that builds the image."""
    stage.add_argument("--builder", choices=("native", "mksquashfs", "singularity"), default="native")


def store(options: argparse.Namespace) -> Store:
    """Return the store and those that it may read."""
    from sregistry.config.settings import store_root
    from sregistry.store import trust
    from sregistry.store.store import Store

    return Store(store_root(options.cache), options.cache_from, trust.users(options.trust))


def registry_client(settings: RegistrySettings, store: Store, environ: Mapping[str, str]) -> RegistryClient:
    """Return a client that shares the rate limit of its registry with all users of *store*."""
    from sregistry.registry.client import RegistryClient
    from sregistry.registry.credentials import Keyring
    from sregistry.registry.rate_limit import Pace

    return RegistryClient(settings, pace=Pace(store, settings.base, settings.rate), keyring=Keyring(settings, environ))


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
