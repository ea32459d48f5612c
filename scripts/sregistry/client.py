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
from typing import TYPE_CHECKING, Any

from sregistry.catalog import Catalog, Record
from sregistry.errors import CatalogError, SregistryError
from sregistry.settings import Settings, from_file, registry

if TYPE_CHECKING:
    from sregistry.rebuild import Rebuild
    from sregistry.sharing import Sharing


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
        """Return all that is known of it, all manifests included, as JSON has it.

        `sharing` is what it has in common with other images, `rebuild` the command that makes it again, null
        where the record does not say how it was made. Raises CatalogError.
        """
        from sregistry.rebuild import rebuild

        try:
            command = rebuild(self).json()
        except SregistryError:
            command = None
        return {**self.json(), "metrics": self._catalog.metrics(self), "sharing": self.sharing().json(), "rebuild": command}

    def sharing(self) -> Sharing:
        """Return its sizes and the layers that it shares with other images. Raises CatalogError."""
        from sregistry.sharing import sharing

        return sharing(self, self._catalog.records(), self._catalog.metrics)


class Client:
    """One user's view: the settings, the catalog, and what can be done with both."""

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self.settings = settings
        self.catalog = Catalog(settings.database)
        self._environ = environ

    def announce(self) -> None:
        """Say on stderr which client and catalog are used."""
        print(f"[client|{self.settings.client}] [database|{self.catalog.path}]", file=sys.stderr)

    def images(self, query: Iterable[str] = (), *, where: str | None = None) -> list[Container]:
        """Return the records in whose client and uri all words of *query* occur, oldest first.

        Args:
            query: words, in any case.
            where: a filter that they must satisfy too, such as ``cuda>=12.4`` (where.py).

        Raises:
            CatalogError: the catalog can't be read.
            UsageError: the filter is malformed.
        """
        from sregistry.where import parse

        words = [word.lower() for word in query]
        satisfies = parse(where) if where is not None else lambda record: True
        found = (r for r in self.catalog.records() if all(word in f"{r.client}://{r.label}".lower() for word in words) and satisfies(r))
        return [Container.of(record, self.catalog) for record in found]

    def find(self, uri: str) -> Container:
        """Return the newest record that *uri* means. Raises CatalogError: there is none; InvalidReference."""
        meant = registry(self.settings.client, self._environ)
        return Container.of(self.catalog.find(uri, registry=meant.base, collection=meant.collection), self.catalog)

    def labels(self, key: str | None = None, value: str | None = None) -> list[tuple[str, str, Container]]:
        """Return the labels of images as key, value and image, sorted; those of a key, or of a key and a value. Raises CatalogError."""
        found = [
            (name, text, container)
            for container in self.images()
            for name, text in container.facts.get("labels", {}).items()
            if key in (None, name) and value in (None, text)
        ]
        return sorted(found, key=lambda item: (item[0], item[1], item[2].label))

    def sharing(self, uri: str) -> Sharing:
        """Return the sizes of an image, and the layers that it shares with others. Raises as `find`."""
        return self.find(uri).sharing()

    def rebuild(self, uri: str) -> Rebuild:
        """Return the command that makes an image again. Raises as `find`; CatalogError: the record does not say how it was made."""
        from sregistry.rebuild import rebuild

        return rebuild(self.find(uri))

    def locate(self, uri: str) -> str:
        """Return the path of a local image, the address of a remote one. Raises CatalogError: none, or its file is gone."""
        container = self.find(uri)
        if container.image is not None and not os.path.lexists(container.image):
            raise CatalogError(f"{container.uri} was at {container.image}, but is gone", hint="pull it again")
        return container.location


def get_client(environ: Mapping[str, str] = os.environ) -> Client:
    """Return the client that *environ* and config/config.yaml describe. Raises ConfigError."""
    return Client(Settings.load(file=from_file(), environ=environ), environ)
