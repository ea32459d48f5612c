"""The catalog: one record an image and name of it, in a database (catalog/database.py).

A record is told by client, registry and uri, and by the file. Several records may be of one file: they are its tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sregistry.catalog.database import Database, Documents
from sregistry.catalog.record import Record
from sregistry.errors import CatalogError


class Catalog:
    """The records in the folder *database*, which is made with the first record."""

    def __init__(self, database: Path) -> None:
        self._database = Database(database)
        self.path = self._database.path

    def records(self) -> list[Record]:
        """Return all records, oldest first. Raises CatalogError."""
        found = [_parse(number, document) for number, document in self._database.documents().items()]
        return sorted(found, key=lambda record: (record.created_at, record.id))

    def add(self, record: Record) -> tuple[Record, bool]:
        """Keep *record* and return it with its ids, and whether it is new; as `add_all`."""
        return self.add_all([record])[0]

    def add_all(self, records: Iterable[Record]) -> list[tuple[Record, bool]]:
        """Keep *records*, all of them or none, and return each with its ids, and whether it is new.

        The record of the same image (client, registry, uri and path) is updated and keeps its id. A record of what
        another file was at that path goes, whatever its name: the file was replaced. One of the same file stays.

        Raises:
            CatalogError: the database can't be read or written.
        """
        with self._database.change() as documents:
            kept = _Keeping(documents)
            added = [kept.add(record) for record in records]
        return [(_parse(number, documents[number]), new) for number, new in added]

    def replace(self, record: Record) -> Record:
        """Have *record* in the place of that with its id, and return it; if its file moved, it did for the other records of it.

        Raises:
            CatalogError: there is none any more; the database can't be read or written.
        """
        with self._database.change() as documents:
            if record.id not in documents:
                raise CatalogError(f"{record.uri} is off the record meanwhile", hint="`sregistry images` lists what is there")
            old = documents[record.id].get("image")
            for number, document in documents.items():
                if old and document.get("image") == old:
                    documents[number] = {**document, "image": record.image}
            collection = _Keeping(documents).collection(record.collection)
            documents[record.id] = _document(replace(record, collection_id=collection))
        return _parse(record.id, documents[record.id])

    def remove(self, record: Record) -> None:
        """Take *record* off; one that is gone already is no error. Raises CatalogError."""
        with self._database.change() as documents:
            documents.pop(record.id, None)

    def metrics(self, record: Record) -> dict[str, Any]:
        """Return all manifests fetched of *record*, by schema version. Raises CatalogError: they are gone."""
        return self._database.metrics(record.manifests) if record.manifests else record.metrics


class _Keeping:
    """Documents that records are added to, with what has to be looked up for each."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self._next = max(documents, default=0) + 1
        self._collections = {d.get("collection"): int(d.get("collection_id") or 0) for d in documents.values()}
        self._places: dict[object, list[int]] = {}
        for number, document in documents.items():
            self._places.setdefault(_place(document), []).append(number)

    def add(self, record: Record) -> tuple[int, bool]:
        """Add a record; return its id, and whether it is new."""
        identity, place = _identity(record.json()), _place(record.json())
        there = self._places.setdefault(place, [])
        known = next((number for number in there if _identity(self._documents[number]) == identity), None)
        number = self._next if known is None else known
        if known is None:
            self._next += 1
        elif (before := self._documents[known]).get("version") == record.version and before.get("created_at"):
            record = replace(record, created_at=before["created_at"])
        self._documents[number] = _document(replace(record, id=number, collection_id=self.collection(record.collection)))
        if record.image is not None:  # else all in that place are this one
            same = [other for other in there if other != number and _contents(self._documents[other]) == _contents(record.json())]
            for other in there:
                if other not in (number, *same):
                    del self._documents[other]
            there[:] = [*same, number]
        else:
            there[:] = [number]
        return number, known is None

    def collection(self, name: str) -> int:
        """Return the number of a collection, a new one for a new name."""
        return self._collections.get(name) or self._collections.setdefault(name, max(self._collections.values(), default=0) + 1)


def _parse(number: int, document: Mapping[str, Any]) -> Record:
    return Record.parse({**document, "id": number})


def _document(record: Record) -> dict[str, Any]:
    """Return a record as the database has it: its id is its key."""
    return {key: value for key, value in record.json().items() if value or key != "metrics"}


def _identity(document: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(document.get(key) for key in ("client", "registry", "uri"))


def _place(document: Mapping[str, Any]) -> object:
    """Return where an image is: its path, or what it is called in its registry."""
    return document.get("image") or _identity(document)


def _contents(document: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what tells a file from the one that had its place; a sandbox has no version."""
    return (document.get("version"), document.get("digest") if not document.get("version") else None)
