"""Records of images that others made: read, compared with the catalog, and kept together.

```
the original's database (catalog/imports/original_database.py) ─┐
image files in a folder (catalog/imports/folder.py) ┴─▶ Record | Skipped ─▶ Imported: new, there already, skipped
```

No file is touched. What is on record already stays as it is, so that the same import again adds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sregistry.catalog.catalog import Catalog
from sregistry.catalog.record import Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """What gets no record: the row or the file, and why."""

    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """What became of an import; `new` are records of the catalog, or what they would be."""

    new: tuple[Record, ...]
    there: tuple[Record, ...]
    skipped: tuple[Skipped, ...]


def import_records(catalog: Catalog, found: Iterable[Record | Skipped], *, dry_run: bool = False) -> Imported:
    """Keep the records that are new, in one change.

    Args:
        found: in the order of their ids.
        dry_run: only say what would be kept.

    Raises:
        CatalogError: the catalog can't be read or written; then nothing of it is kept.
    """
    names: dict[tuple[str | None, ...], Record] = {}
    files: dict[str, Record] = {}
    for record in catalog.records():
        names[_name(record)] = record
        files.setdefault(record.image or "", record)
    new: list[Record] = []
    there: list[Record] = []
    skipped: list[Skipped] = []
    for item in found:
        if isinstance(item, Skipped):
            skipped.append(item)
            continue
        other = files.get(item.image) if item.image else None
        if _name(item) in names:
            there.append(names[_name(item)])
        elif other is not None:
            skipped.append(Skipped(what=item.image or "", why=f"is on record as {other.uri}; `sregistry tag` gives it more names"))
        else:
            new.append(item)
            names[_name(item)] = item
            if item.image:
                files[item.image] = item
    if not dry_run:
        new = [record for record, _ in catalog.add_all(new)]
    return Imported(new=tuple(new), there=tuple(there), skipped=tuple(skipped))


def _name(record: Record) -> tuple[str | None, ...]:
    return record.client, record.registry, record.uri, record.image
