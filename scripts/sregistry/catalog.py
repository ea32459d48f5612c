"""The catalog: one record an image, in a TinyDB database.

```
<database>/sregistry.json         {"images": {"<id>": {record}}}
<database>/sregistry.json.lock    held while a record is written
<database>/sregistry.json.backup  the same before the last change
```

Readers need no lock: the file is replaced whole. A change is read, made and written under the lock,
so two runs at once lose no record.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinydb import TinyDB
from tinydb.storages import Storage
from tinydb.table import Document, Table

from sregistry.errors import CatalogError, InvalidReference, from_oserror
from sregistry.lease import lease
from sregistry.reference import Reference, split_scheme
from sregistry.store import write_atomic

if TYPE_CHECKING:
    from sregistry.manifest import Resolved

FILE = "sregistry.json"
_TABLE = "images"
#: How a record writes a time, which is UTC.
TIME = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What is known of one image.

    `digest` is the manifest's, `version` the sha256 of the built file (empty for a sandbox), `image`
    its path; `size` is the file's, `compressed_size` that of the layers, both in bytes (0 where a
    manifest of schema 1 does not say it); `created_at` is UTC. `metrics` are all manifests fetched, by schema version.
    `facts` are what the config says (facts.py), `made` is what a rebuild needs (rebuild.py).
    """

    client: str
    collection: str
    name: str
    tag: str | None
    uri: str
    url: str
    registry: str
    digest: str
    version: str
    image: str | None
    size: int
    compressed_size: int
    created_at: str
    format: str
    platform: str
    metrics: dict[str, Any] = field(repr=False)
    id: int = 0
    collection_id: int = 0
    facts: dict[str, Any] = field(default_factory=dict, repr=False)
    made: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Record:
        """Read a record; a key that it lacks is empty. Raises CatalogError: no record at all."""
        if not isinstance(document.get("uri"), str):
            raise CatalogError("the catalog holds a record without uri")
        empty: dict[str, Any] = {"str": "", "int": 0, "dict[str, Any]": {}}
        return cls(**{f.name: document.get(f.name, empty.get(str(f.type))) for f in fields(cls)})

    def json(self) -> dict[str, Any]:
        """Return the record as JSON has it."""
        return asdict(self)

    @property
    def label(self) -> str:
        """The uri, with the version of a local image."""
        return f"{self.uri}@{self.version}" if self.version else self.uri

    @property
    def location(self) -> str:
        """Path of a local image, else the address of the manifest."""
        return self.image or self.url

    @property
    def created(self) -> datetime:
        """When the image was recorded."""
        try:
            return datetime.strptime(self.created_at, TIME).replace(tzinfo=UTC)
        except ValueError:
            return datetime.fromtimestamp(0, UTC)


def record(
    resolved: Resolved,
    image: Mapping[str, Any] | None,
    *,
    now: datetime,
    facts: Mapping[str, Any] | None = None,
    made: Mapping[str, Any] | None = None,
) -> Record:
    """Return the record of an image.

    Args:
        resolved: where it came from.
        image: receipt of the image stage; None for an image that is in the registry only.
        now: time of the record.
        facts: what the image's config says.
        made: what a rebuild needs.
    """
    image = image or {"version": "", "path": None, "size": 0, "format": ""}
    sizes = [layer.blob.size for layer in resolved.layers]
    return Record(
        client=resolved.client,
        collection=resolved.reference.collection,
        name=resolved.reference.name,
        tag=resolved.tag,
        uri=resolved.uri,
        url=resolved.url,
        registry=resolved.registry,
        digest=str(resolved.digest),
        version=image["version"],
        image=image["path"],
        size=image["size"],
        compressed_size=0 if None in sizes else sum(size or 0 for size in sizes),
        created_at=now.astimezone(UTC).strftime(TIME),
        format=image["format"],
        platform=str(resolved.platform),
        metrics=_metrics(resolved),
        facts=dict(facts or {}),
        made=dict(made or {}),
    )


def _metrics(resolved: Resolved) -> dict[str, Any]:
    """All manifests fetched, a manifest as its schema version, "1" or "2", an index as "index", then "index1" …"""
    folder = resolved.url.rpartition("/")[0]
    metrics: dict[str, Any] = {"selfLink": folder}
    depth = 0
    for document in resolved.documents:
        value = json.loads(document.text)
        version = str(value["schemaVersion"])
        key = version if version == "1" or document is resolved.documents[-1] else f"index{depth or ''}"
        metrics[key] = {**value, "selfLink": f"{folder}/{document.descriptor.digest}" if depth else resolved.url}
        depth += version != "1"
    return metrics


class Catalog:
    """The records in the folder *database*, which is made with the first record."""

    def __init__(self, database: Path) -> None:
        self.path = database / FILE

    def records(self) -> list[Record]:
        """Return all records, oldest first. Raises CatalogError."""
        with self._open() as table:
            found = [Record.parse({**document, "id": document.doc_id}) for document in table.all()]
        return sorted(found, key=lambda record: (record.created_at, record.id))

    def add(self, record: Record) -> tuple[Record, bool]:
        """Keep *record* and return it with its ids, and whether it is new.

        The record of the same image (client, registry, uri and path) is updated and keeps its id. A
        record of another image at that path goes: its file was replaced.

        Raises:
            CatalogError: the database can't be read or written.
        """
        identity = _identity(record.json())
        with self._lock(), self._open() as table:
            documents = table.all()
            there = [d for d in documents if d.get("image") == record.image and (record.image or _identity(d) == identity)]
            known = [d for d in there if _identity(d) == identity]
            collections = {d.get("collection"): int(d.get("collection_id") or 0) for d in documents}
            record = replace(
                record,
                id=known[0].doc_id if known else max((d.doc_id for d in documents), default=0) + 1,
                collection_id=collections.get(record.collection) or max(collections.values(), default=0) + 1,
            )
            if known and known[0].get("version") == record.version and known[0].get("created_at"):
                record = replace(record, created_at=known[0]["created_at"])
            table.upsert(Document(record.json(), doc_id=record.id))
            replaced = [d.doc_id for d in there if d.doc_id != record.id]
            if replaced:
                table.remove(doc_ids=replaced)
        return record, not known

    def replace(self, record: Record) -> Record:
        """Have *record* in the place of that with its id, and return it. Raises CatalogError: there is none any more."""
        with self._lock(), self._open() as table:
            collections = {d.get("collection"): int(d.get("collection_id") or 0) for d in table.all()}
            number = collections.get(record.collection) or max(collections.values(), default=0) + 1
            record = replace(record, collection_id=number)
            if not table.contains(doc_id=record.id):
                raise CatalogError(f"{record.uri} is off the record meanwhile", hint="`sregistry images` lists what is there")
            table.upsert(Document(record.json(), doc_id=record.id))
        return record

    def remove(self, record: Record) -> None:
        """Take *record* off; one that is gone already is no error. Raises CatalogError."""
        with self._lock(), self._open() as table:
            if table.contains(doc_id=record.id):
                table.remove(doc_ids=[record.id])

    def find(self, text: str, *, registry: str, collection: str) -> Record:
        """Return the newest record that *text* means, of a local image if there is one.

        Args:
            text: as `pull` takes it, a short name too; or as `images` prints it.
            registry, collection: what a name without them means.

        Raises:
            CatalogError: there is none.
            InvalidReference: the text names no image.
        """
        records = self.records()
        scheme, rest = split_scheme(text)
        if scheme:
            records = [record for record in records if record.client == scheme]
        found = [record for record in records if rest in (record.label, record.uri)]
        if not found:
            found = _matches(records, Reference.parse(rest, registry=registry, collection=collection), rest)
        if not found:
            raise CatalogError(f"{text}: no such image in {self.path}", hint="`sregistry images` lists them")
        return sorted(found, key=lambda record: record.image is not None)[-1]

    @staticmethod
    def metrics(record: Record) -> dict[str, Any]:
        """Return all manifests fetched of *record*, by schema version."""
        return record.metrics

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lease(Path(f"{self.path}.lock")))
            except OSError as error:
                raise from_oserror(error, CatalogError, "can't write the catalog") from error
            yield

    @contextlib.contextmanager
    def _open(self) -> Iterator[Table]:
        with TinyDB(self.path, storage=_File) as database:
            yield database.table(_TABLE)


class _File(Storage):
    """A JSON file that is replaced whole."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, dict[str, Any]] | None:
        try:
            data = json.loads(self._path.read_bytes() or b"{}")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise from_oserror(error, CatalogError, "can't read the catalog") from error
        except ValueError as error:
            data = error
        valid = isinstance(data, dict) and all(
            isinstance(table, dict) and all(k.isdigit() and isinstance(d, dict) for k, d in table.items()) for table in data.values()
        )
        if not valid:
            raise CatalogError(f"the catalog {self._path} is damaged", hint=_way_back(self._path))
        return data or None

    def write(self, data: dict[str, dict[str, Any]]) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._back_up()
            write_atomic(self._path, json.dumps(data, indent=1, sort_keys=True).encode())
        except OSError as error:
            raise from_oserror(error, CatalogError, "can't write the catalog") from error

    def _back_up(self) -> None:
        """Keep what is there: it was read before it is written, so it is good."""
        aside = _backup(self._path).with_name(f".{self._path.name}.{os.getpid()}")
        with contextlib.suppress(FileNotFoundError):
            try:
                os.link(self._path, aside)
            except PermissionError:  # of another user, or on a file system without links
                shutil.copyfile(self._path, aside)
            os.replace(aside, _backup(self._path))
        aside.unlink(missing_ok=True)  # two names of one file: then a rename does nothing


def _backup(path: Path) -> Path:
    return path.with_name(f"{path.name}.backup")


def _way_back(path: Path) -> str:
    """Return what to do about a damaged catalog."""
    backup = _backup(path)
    if backup.is_file():
        return f"its state before the last change is kept: cp {shlex.quote(str(backup))} {shlex.quote(str(path))}"
    return "move it away and pull again"


def _identity(document: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(document.get(key) for key in ("client", "registry", "uri"))


def _matches(records: Iterable[Record], wanted: Reference, text: str) -> list[Record]:
    try:
        named = Reference.parse(text, registry="", collection="").registry
    except InvalidReference:
        named = ""
    return [
        record
        for record in records
        if f"{record.collection}/{record.name}".rstrip("/") == wanted.repository
        and (not named or record.registry == named)
        and (not wanted.version or record.version.startswith(wanted.version))
        and (record.digest == str(wanted.digest) if wanted.digest else record.tag == wanted.tag)
    ]
