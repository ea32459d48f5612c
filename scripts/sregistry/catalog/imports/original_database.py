"""The database of the original sregistry, read: its containers as records.

```
collection  id  name  token  created_at
container   id  created_at  metrics (JSON)  name  tag  image  url  uri  client  version  collection_id
```

SQLite, by default ``~/.singularity/sregistry.db``. It is copied and the copy opened, with the journal that a program
may have left beside it, so that nothing of it changes, whatever SQLite does to bring it in order. Tokens of collections are
never asked for. Manifests that the original recorded tell what `facts` tells of an image of today.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sregistry.catalog.image_facts import facts
from sregistry.catalog.imports.records import Skipped
from sregistry.catalog.record import TIME, Record
from sregistry.errors import DocumentError, ImageError, InvalidReference, SregistryError, UsageError, os_errors_as
from sregistry.oci.json_fields import load_json
from sregistry.oci.reference import DEFAULT_TAG, Reference
from sregistry.terminal import printable

_MAGIC = b"SQLite format 3\0"
#: What SQLite may leave beside a database, which belongs to it.
_BESIDE = ("-wal", "-journal")
_TABLES = {
    "collection": ("id", "name"),
    "container": ("id", "created_at", "metrics", "name", "tag", "image", "url", "client", "version", "collection_id"),
}
_ROWS = """
    SELECT container.id, container.created_at, metrics, container.name, tag, image, url, client, version, collection.name AS collection,
           collection_id
    FROM container LEFT JOIN collection ON collection.id = container.collection_id ORDER BY container.created_at, container.id
"""


def is_database(file: Path) -> bool:
    """Tell whether a file is one of SQLite. Raises SregistryError: it can't be read."""
    with os_errors_as(SregistryError, "can't read"), file.open("rb") as opened:
        return opened.read(len(_MAGIC)) == _MAGIC


def read(file: Path, *, working: Path | None = None) -> list[Record | Skipped]:
    """Return a record, or why there is none, for each container in the database *file*, oldest first.

    Args:
        file: is not changed.
        working: folder for the copy; the system's for temporary files without.

    Raises:
        UsageError: the file is no database, or not the original's.
        SregistryError: it can't be read.
    """
    if not is_database(file):
        raise UsageError(f"{file} is no SQLite database", hint="name the original's sregistry.db, or a folder of images")
    with tempfile.TemporaryDirectory(prefix="sregistry-", dir=working) as folder, _reading(file):
        copy = Path(folder, "copy.db")
        shutil.copyfile(file, copy)
        for ending in _BESIDE:
            with contextlib.suppress(FileNotFoundError):
                shutil.copyfile(f"{file}{ending}", f"{copy}{ending}")
        with contextlib.closing(sqlite3.connect(copy)) as database:
            database.row_factory = sqlite3.Row
            # A text that is no UTF-8 spoils its row, not the others.
            database.text_factory = lambda data: data.decode(errors="surrogateescape")
            _check(database, file)
            return [_record(dict(row)) for row in database.execute(_ROWS)]


def _check(database: sqlite3.Connection, file: Path) -> None:
    for table, columns in _TABLES.items():
        there = {row["name"] for row in database.execute(f"PRAGMA table_info({table})")}
        if lacks := [column for column in columns if column not in there]:
            what = f"its table {table} has no {', '.join(lacks)}" if there else f"it has no table {table}"
            raise UsageError(f"{file} is no database of sregistry: {what}")


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    with os_errors_as(SregistryError, "can't read"):
        try:
            yield
        except sqlite3.Error as error:
            raise SregistryError(f"can't read {file}: {error}", hint="`sqlite3 FILE .recover` may save what is in it") from error


def _record(row: Mapping[str, Any]) -> Record | Skipped:
    what = f"container {row['id']}"
    try:
        return _parse(row)
    except _Bad as error:
        why = str(error)
    except (InvalidReference, ImageError) as error:
        why = error.message
    except OSError as error:  # of its image: a folder that is closed to us, a name that is too long
        why = f"its image can't be read: {error.strerror}"
    if isinstance(row["name"], str):
        what += f" ({row['name']})"
    return Skipped(what=printable(what), why=printable(why))


class _Bad(Exception):
    """A row that is no container."""


def _parse(row: Mapping[str, Any]) -> Record:
    """Return the record of a row. Raises _Bad, InvalidReference, ImageError."""
    from sregistry.image import provenance

    if row["collection"] is None:
        raise _Bad(f"its collection {row['collection_id']} is not there")
    collection, name = _text(row, "collection"), _text(row, "name")
    if not collection or not name:
        raise _Bad("it has no name")
    tag = _text(row, "tag") or DEFAULT_TAG
    # The grammar that `find` reads names by: what it refuses could never be found again.
    reference = Reference.parse(f"{collection}/{name}:{tag}", registry="", collection="")
    if reference.registry or (reference.repository, reference.tag) != (f"{collection}/{name}", tag):
        raise _Bad(f"{collection}/{name}:{tag} is no name of an image")
    metrics = _metrics(row)
    url, image = _text(row, "url"), _text(row, "image")
    form, platform, size = "", _platform(metrics), 0
    if image:
        path = Path(image)
        if not path.is_absolute():
            raise _Bad(f"its image is at {image!r}, which is no whole path")
        if not path.exists():
            raise _Bad(f"its image {image} is gone")
        if not (path.is_file() or path.is_dir()):  # to open a pipe would wait for its writer
            raise _Bad(f"its image {image} is neither a file nor a sandbox")
        form, architecture = provenance.recognize(path)
        platform = f"linux/{architecture}" if architecture else platform
        size = 0 if form == "sandbox" else path.stat().st_size
    elif not url:
        raise _Bad("it has neither an image nor an address")
    return Record(
        client=_text(row, "client") or "nvidia",
        collection=collection,
        name=name,
        tag=tag,
        uri=reference.uri,
        url=url,
        registry=_registry(url),
        digest="",
        version=_text(row, "version") if image else "",
        image=image or None,
        size=size,
        compressed_size=_compressed(metrics),
        created_at=_time(row),
        format=form,
        platform=platform,
        metrics=metrics,
        facts=facts(_config(metrics), platform),
    )


def _text(row: Mapping[str, Any], column: str) -> str:
    value = row[column]
    if value is None:
        return ""
    if not isinstance(value, str) or not value.isprintable():  # what is no UTF-8 is not printable
        raise _Bad(f"its {column} is no text")
    return value


def _registry(url: str) -> str:
    """Return the host that an address names, if any."""
    try:
        return urlsplit(url).netloc if url.startswith(("http://", "https://")) else ""
    except ValueError:
        raise _Bad(f"its url {url} is no address") from None


def _time(row: Mapping[str, Any]) -> str:
    try:
        return datetime.fromisoformat(_text(row, "created_at")).strftime(TIME)
    except ValueError:
        raise _Bad(f"its created_at is {row['created_at']!r}, which is no time") from None


def _metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    text = row["metrics"]
    try:
        value = json.loads(text) if text else None
    except (ValueError, TypeError, RecursionError):
        raise _Bad("its metrics are no JSON") from None
    if isinstance(value, str):  # some versions wrote it as JSON in JSON
        text = value
    try:
        return {} if value is None else load_json(text.encode(errors="surrogateescape"), "its metrics")
    except DocumentError as error:
        raise _Bad(error.message) from None


def _table(value: Any, *keys: str) -> dict[str, Any]:
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _platform(metrics: Mapping[str, Any]) -> str:
    architecture = _table(metrics, "1").get("architecture")
    return f"linux/{architecture}" if isinstance(architecture, str) and architecture else ""


def _compressed(metrics: Mapping[str, Any]) -> int:
    layers = _table(metrics, "2").get("layers")
    sizes: list[Any] = [layer.get("size") for layer in layers if isinstance(layer, dict)] if isinstance(layers, list) else []
    return sum(sizes) if all(type(size) is int for size in sizes) else 0


def _config(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the image's config as far as a manifest of schema 1 holds it."""
    history = _table(metrics, "1").get("history")
    first = history[0] if isinstance(history, list) and history else None
    text = first.get("v1Compatibility") if isinstance(first, dict) else None
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(text) if isinstance(text, str) else {}
        return found if isinstance(found, dict) else {}
    return {}
