"""The Python client: what the commands do, for programs.

>>> from sregistry import get_client
>>> client = get_client()
>>> client.images()
[]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from sregistry import messages
from sregistry.catalog import Catalog, Record
from sregistry.errors import CatalogError
from sregistry.secrets import overlay
from sregistry.settings import Settings, from_file, registry


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
    """One user's view: the settings, the catalog, and what can be done with both.

    *environ* is what the jobs of a pull inherit; the secrets file is read where it counts.
    """

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
        meant = registry(self.settings.client, overlay(self._environ))
        return Container.of(self.catalog.find(uri, registry=meant.base, collection=meant.collection), self.catalog)

    def locate(self, uri: str) -> str:
        """Return the path of a local image, the address of a remote one. Raises CatalogError: none, or its file is gone."""
        container = self.find(uri)
        if container.image is not None and not os.path.lexists(container.image):
            raise CatalogError(f"{container.uri} was at {container.image}, but is gone", hint="pull it again")
        return container.location


def get_client(environ: Mapping[str, str] = os.environ) -> Client:
    """Return the client that *environ*, the secrets file and config/config.yaml describe. Raises ConfigError."""
    known = overlay(environ)
    client = Client(Settings.load(file=from_file(), environ=known), environ)
    if messages.shown(messages.Level.DEBUG):
        token = registry(client.settings.client, known).token
        messages.logger().debug("Headers found: %s", "Accept,Authorization" if token else "Accept")
        messages.logger().debug("Database located at %s", client.catalog.path)
    return client
