"""A record with its catalog at hand, as the Python client gives it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from sregistry.catalog.catalog import Catalog
from sregistry.catalog.record import Record
from sregistry.errors import SregistryError

if TYPE_CHECKING:
    from sregistry.catalog.sharing import Sharing


class Container(Record):
    """An image on record, with its catalog at hand; its fields are those of `Record`.

    >>> container = client.get("nvidia/caffe2:17.10")
    >>> container.client, container.collection, container.name, container.tag
    ('nvidia', 'nvidia', 'caffe2', '17.10')
    """

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

        >>> found = client.get("nvidia/caffe2:17.10").inspect()
        >>> sorted(found["metrics"])
        ['2', 'selfLink']
        >>> found["facts"]["versions"]
        {'cuda': '9.0.176'}
        """
        from sregistry.catalog.rebuild import rebuild

        try:
            command = rebuild(self).json()
        except SregistryError:
            command = None
        found = {**self.json(), "metrics": self._catalog.metrics(self), "sharing": self.sharing().json(), "rebuild": command}
        del found["manifests"]  # how the catalog keeps them
        return found

    def sharing(self) -> Sharing:
        """Return its sizes and the layers that it shares with other images. Raises CatalogError.

        >>> client.get("nvidia/caffe2:17.10").sharing().layers
        2
        """
        from sregistry.catalog.sharing import sharing

        return sharing(self, self._catalog.records(), self._catalog.metrics)


def labelled(containers: Iterable[Container], key: str | None, value: str | None) -> list[tuple[str, str, Container]]:
    """Return the labels of images as key, value and image, sorted; those of a key, or of a key and a value."""
    found = [
        (name, text, container)
        for container in containers
        for name, text in container.facts.get("labels", {}).items()
        if key in (None, name) and value in (None, text)
    ]
    return sorted(found, key=lambda item: (item[0], item[1], item[2].label))
