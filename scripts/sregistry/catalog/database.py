"""The catalog's files: a TinyDB database that is replaced whole, and the manifests that its records name.

```
<database>/sregistry.json             {"images": {"<id>": {record}}}, a line a record
<database>/sregistry.json.lock        held while a record is written
<database>/.sregistry.json.<token>    the next state, or the backup, in the making; what the dead left is swept
<database>/sregistry.json.backup      the same before the last change
<database>/manifests/<sha256>.json    all manifests of a record, named by their own digest
```

Readers need no lock. A change is read, made and written under the lock, once: so two runs at once lose no record.
Manifests are many times larger than the record that names them, and few questions need them. They are there
before the record is, and go when neither the database nor its backup names them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shlex
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tinydb import TinyDB
from tinydb.middlewares import CachingMiddleware
from tinydb.storages import Storage
from tinydb.table import Document

from sregistry.errors import CatalogError, from_oserror, os_errors_as
from sregistry.store.beneath import Root
from sregistry.store.store import write_atomic
from sregistry.system import limits
from sregistry.system.locks import forsaken, lease

FILE = "sregistry.json"
#: Seconds after which a new state that has not got its name yet counts as left behind.
FORGOTTEN = 3600
#: Bytes of the database that are read: some 2 kB a record.
_LARGEST = 1 << 30
_MANIFESTS = re.compile(r"([0-9a-f]{64})\.json")
_LEFT = re.compile(rf"\.{re.escape(FILE)}\.([0-9]+|[0-9a-f]{{16}}|[0-9a-z_]{{8}})")
_TABLE = "images"
_WRITING = "can't write the catalog"

#: Id → document.
Documents = dict[int, Mapping[str, Any]]
_Tables = dict[str, dict[str, Mapping[str, Any]]]


class Database:
    """The documents in *folder*, which is made with the first one."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._files = Root(folder)

    def documents(self) -> Documents:
        """Return all documents. Raises CatalogError."""
        with TinyDB(self.path, storage=_File) as database:
            return {document.doc_id: document for document in database.table(_TABLE).all()}

    @contextlib.contextmanager
    def change(self) -> Iterator[Documents]:
        """Give all documents to the only one who changes them; what differs in the end is written, at once.

        What a document then holds as `metrics` is kept beside, and the document names it as `manifests`: a
        new one's, or one's of an earlier version.

        Raises:
            CatalogError: the files can't be read or written.
        """
        with self._lock(), TinyDB(self.path, storage=CachingMiddleware(_File)) as database:  # type: ignore[no-untyped-call]
            table = database.table(_TABLE)
            before = {document.doc_id: document for document in table.all()}
            documents: Documents = dict(before)
            yield documents
            if documents == before:
                return
            for number, document in documents.items():
                if "metrics" in document:
                    documents[number] = self._detach(document)
            table.truncate()
            table.insert_multiple(Document(document, doc_id=number) for number, document in documents.items())
            database.close()  # here it is written
            forgotten = set(_names(before)) - set(_names(documents))
            if forgotten:
                self._forget({*_names(before), *_names(documents)})

    def metrics(self, name: str) -> dict[str, Any]:
        """Return the manifests that a document names. Raises CatalogError: they are gone, or are others."""
        path = self._files.path / _manifests(name)
        try:
            text = self._files.read(_manifests(name), limits.STORE_DOCUMENT)
            if hashlib.sha256(text).hexdigest() == name:
                found: dict[str, Any] = json.loads(text)
                return found
            what = f"{path} is damaged"
        except OSError as error:
            what = from_oserror(error, CatalogError, "can't read").message
        raise CatalogError(f"manifests of the catalog: {what}", hint="pull the image again, with --force")

    def _detach(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a document's manifests in a file, and return the document with their name."""
        rest = {key: value for key, value in document.items() if key != "metrics"}
        if not document["metrics"]:
            return rest
        text = json.dumps(document["metrics"], sort_keys=True, separators=(",", ":")).encode()
        name = hashlib.sha256(text).hexdigest()
        with os_errors_as(CatalogError, _WRITING):
            if not self._files.is_file(_manifests(name)):
                self._files.make("manifests", stat.S_IMODE(self._files.path.stat().st_mode))
                self._files.write(_manifests(name), text, 0o644)
        return {**rest, "manifests": name}

    def _forget(self, named: set[str]) -> None:
        """Remove what neither this state nor the one before names, which is the backup; what a process left that died, too."""
        with os_errors_as(CatalogError, _WRITING):
            for name, found in self._files.entries("manifests"):
                ours = _MANIFESTS.fullmatch(name)
                if ours and ours[1] not in named and stat.S_ISREG(found.st_mode):
                    self._files.unlink(_manifests(ours[1]))

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            with os_errors_as(CatalogError, _WRITING):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                lock = Path(f"{self.path}.lock")
                stack.enter_context(lease(lock))
                self._sweep(lock)
            yield

    def _sweep(self, lock: Path) -> None:
        """Remove what processes left that died while they waited or wrote; who holds the lock is the only one who writes."""
        for name in forsaken(lock):
            self._files.unlink(name)
        now = self._files.stat(lock.name).st_mtime  # the file system's
        for name, found in self._files.entries():
            if _LEFT.fullmatch(name) and stat.S_ISREG(found.st_mode) and now - found.st_mtime > FORGOTTEN:
                self._files.unlink(name)


class _File(Storage):
    """A JSON file that is replaced whole."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> _Tables | None:
        try:
            data = json.loads(Root(self._path.parent).read(self._path.name, _LARGEST) or b"{}")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise from_oserror(error, CatalogError, "can't read the catalog") from error
        except (ValueError, RecursionError) as error:
            data = error
        valid = isinstance(data, dict) and all(
            isinstance(table, dict) and all(k.isdigit() and isinstance(d, dict) for k, d in table.items()) for table in data.values()
        )
        if not valid:
            raise CatalogError(f"the catalog {self._path} is damaged", hint=_way_back(self._path))
        return data or None

    def write(self, data: _Tables) -> None:
        with os_errors_as(CatalogError, _WRITING):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._back_up()
            write_atomic(self._path, _text(data))

    def _back_up(self) -> None:
        """Keep what is there: it was read before it is written, so it is good."""
        aside = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        with contextlib.suppress(FileNotFoundError):
            try:
                os.link(self._path, aside)
            except OSError:  # of another user, or on a file system without links
                if not _same(self._path, aside):  # NFS may have made the link and say that it is there (open(2))
                    shutil.copyfile(self._path, aside)
            os.replace(aside, _backup(self._path))
        aside.unlink(missing_ok=True)  # two names of one file: then a rename does nothing


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except FileNotFoundError:
        return False


def _text(data: _Tables) -> bytes:
    """A line a document: people can read it, and Python's fast encoder can write it."""
    tables = (
        json.dumps(name)
        + ": {\n"
        + ",\n".join(f'"{number}": {json.dumps(document, sort_keys=True)}' for number, document in table.items())
        + "\n}"
        for name, table in sorted(data.items())
    )
    return ("{" + ",\n".join(tables) + "}\n").encode()


def _manifests(name: str) -> str:
    return f"manifests/{name}.json"


def _names(documents: Documents) -> Iterable[str]:
    return (document["manifests"] for document in documents.values() if document.get("manifests"))


def _backup(path: Path) -> Path:
    return path.with_name(f"{path.name}.backup")


def _way_back(path: Path) -> str:
    """Return what to do about a damaged catalog."""
    backup = _backup(path)
    if backup.is_file():
        return f"its state before the last change is kept: cp {shlex.quote(str(backup))} {shlex.quote(str(path))}"
    return "move it away and pull again"
