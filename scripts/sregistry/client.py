"""The Python client: what the commands do, for programs.

>>> from sregistry import get_client
>>> client = get_client()
>>> client.images()
[]
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sregistry.catalog import Catalog, Record
from sregistry.catalog import record as new_record
from sregistry.errors import CatalogError, ConfigError, InvalidReference
from sregistry.settings import RegistrySettings, Settings, from_file, registry
from sregistry.settings import platform as parse_platform
from sregistry.store import Store

if TYPE_CHECKING:
    from sregistry.registry import RegistryClient


class Container(Record):
    """An image on record, with its catalog at hand."""

    __slots__ = ("_catalog",)

    _catalog: Catalog

    @classmethod
    def of(cls, record: Record, catalog: Catalog) -> Container:
        """Return *record* as a Container of *catalog*."""
        made = cls(**{f.name: getattr(record, f.name) for f in fields(record)})
        object.__setattr__(made, "_catalog", catalog)
        return made

    def __repr__(self) -> str:
        return f"<Container {self.uri!r}>"

    def inspect(self) -> dict[str, Any]:
        """Return all that is known of it, all manifests included, as JSON has it."""
        return self.json()


class Client:
    """One user's view: the settings, the catalog, and what can be done with both."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self.settings = settings
        self.catalog = Catalog(settings.database)
        self._environ = environ

    def announce(self) -> None:
        """Say on stderr which client and catalog are used."""
        print(f"[client|{self.settings.client}] [database|{self.catalog.path}]", file=sys.stderr)

    def images(self, query: Iterable[str] = ()) -> list[Container]:
        """Return the records in whose client and uri all words of *query* occur, oldest first. Raises CatalogError."""
        words = [word.lower() for word in query]
        found = (r for r in self.catalog.records() if all(word in f"{r.client}://{r.label}".lower() for word in words))
        return [Container.of(record, self.catalog) for record in found]

    def find(self, uri: str) -> Container:
        """Return the newest record that *uri* means. Raises CatalogError: there is none; InvalidReference."""
        meant = registry(self.settings.client, self._environ)
        return Container.of(self.catalog.find(uri, registry=meant.base, collection=meant.collection), self.catalog)

    def search(self, query: str) -> list[str]:
        """Return what the registry has, named so that `pull` takes it, the newest version last.

        Args:
            query: ``nvidia/pytorch`` or ``nvidia/pytorch:24.*-py3``: tags; a pattern such as ``nvidia/*torch*``, or a word:
                repositories, where the registry lists them.

        Raises:
            RegistryError: unreachable; no such repository; no list of repositories. AuthenticationError: refused.
            DocumentError: what the registry sends is malformed.
            UsageError: what can't be looked for.
        """
        from sregistry.search import Search

        meant = Search.parse(query, self.settings.client, self._environ)
        with self._connect(meant.settings) as connection:
            return meant.run(connection)

    def record(self, uri: str, *, platform: str | None = None) -> Container:
        """Record an image without pulling it: its manifests are fetched, and `locate` says where it is.

        Args:
            uri: as `pull` takes it.
            platform: which one, where the image is for several; that of the settings without.

        Raises:
            RegistryError, AuthenticationError, DigestMismatch, DocumentError: it can't be had.
            InvalidReference, ConfigError: the text names no image or no platform; the catalog is turned off.
            CatalogError: it can't be written.
        """
        return self.add_remote(uri, platform=platform)[0]

    def add_remote(self, uri: str, *, platform: str | None = None) -> tuple[Container, bool]:
        """As `record`; and say whether it is new."""
        from sregistry.manifest import resolve
        from sregistry.target import locate

        if self.settings.disable:
            raise ConfigError("SREGISTRY_DISABLE is set: nothing is recorded", hint="unset it")
        wanted = parse_platform(platform, "platform") if platform else self.settings.platform
        settings, reference = locate(uri, self.settings.client, self._environ)
        if reference.version:
            raise InvalidReference(f"{uri!r} names one build of an image, which no registry has", hint="leave out what follows '@'")
        with self._connect(settings) as connection, self._store() as store:
            resolved = resolve(connection, reference, wanted, store)
        kept, new = self.catalog.add(new_record(resolved, None, now=datetime.now(UTC)))
        return Container.of(kept, self.catalog), new

    def _connect(self, settings: RegistrySettings) -> RegistryClient:
        """Return a client of a registry, for somebody who waits."""
        from sregistry.credentials import Keyring
        from sregistry.login import PATIENCE
        from sregistry.pace import Pace
        from sregistry.registry import RegistryClient

        pace = Pace(Store(self.settings.store), settings.base, settings.rate)
        return RegistryClient(settings, patience=PATIENCE, pace=pace, keyring=Keyring(settings, self._environ))

    @contextlib.contextmanager
    def _store(self) -> Iterator[Store]:
        """Give the store, or, where it can't be written, one that is thrown away and reads it."""
        mine = Store(self.settings.store, self.settings.cache_from)
        try:
            writable = os.access(mine.folder(mine.root / "ingest"), os.W_OK)
        except OSError:
            writable = False
        if writable:
            yield mine
            return
        scratch = self._environ.get("SREGISTRY_TMPDIR") or None
        with tempfile.TemporaryDirectory(prefix="sregistry-", dir=scratch and os.path.expanduser(scratch)) as folder:
            yield Store(Path(folder), (self.settings.cache, *self.settings.cache_from))

    def locate(self, uri: str) -> str:
        """Return the path of a local image, the address of a remote one. Raises CatalogError: none, or its file is gone."""
        container = self.find(uri)
        if container.image is not None and not os.path.lexists(container.image):
            raise CatalogError(f"{container.uri} was at {container.image}, but is gone", hint="pull it again")
        return container.location


def get_client(environ: Mapping[str, str] = os.environ) -> Client:
    """Return the client that *environ* and config/config.yaml describe. Raises ConfigError."""
    return Client(Settings.load(file=from_file(), environ=environ), environ)
