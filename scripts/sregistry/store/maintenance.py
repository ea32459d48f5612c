"""Upkeep of a store: is everything what its name says, and what may go.

```
check   blobs ─ re-hashed          exploded layers ─ index, size, digests of the data          index.json ─ its blobs
        └─ what is wrong is removed, under its lock; the next run makes it anew
clean   objects ─▶ unreachable? · last used before …? · beyond a size? ─▶ removed, but for what a workflow may use
```

The time of an object is that of its last use: each stage marks what it relies on, under the object's lock,
and a running workflow holds a lease, whose name tells when it began. What was used since the oldest lease
began stays; so does what somebody has locked. All times are the file system's own, never a node's.

Reachable is what index.json names: manifests, configs, layers, and the exploded layers of their diff_ids.

In a store that several users write, anything may stand anywhere. Nothing is followed, and only what has the name
and the kind of what the store makes itself is ever removed: all else is told, and left where it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sregistry.errors import SregistryError, StoreError
from sregistry.oci.documents import Descriptor, Digest
from sregistry.oci.json_fields import MAX_DOCUMENT
from sregistry.store import exploded
from sregistry.store.beneath import Foreign, kind
from sregistry.store.store import WORKSPACE, Store
from sregistry.store.survey import Object, members, objects, survey
from sregistry.system import limits
from sregistry.system.locks import abandoned

#: Seconds after which what is left of a transfer or a job counts as forgotten.
FORGOTTEN = 86_400
_THREADS = 4
_SINCE = re.compile(r"([0-9]+)-.*")
#: What the store makes in ingest/: workspaces, incomplete blobs, new documents, marks of the time.
_WORK = re.compile(r"work-[0-9a-z_]+")
_INGEST = re.compile(r"(?:sha256|sha512)-[0-9a-f]+(?:\.u[0-9]+(?:\.[0-9a-f]+)?)?\.partial|\.[^/]+\.[0-9a-z_]{8,16}|\.now-[0-9a-f]+")

Say = Callable[[str], None]
#: What is wrong with the exploded layer in a folder.
WrongLayer = Callable[[Path], str | None]


# -- leases


@contextlib.contextmanager
def session(store: Store) -> Iterator[None]:
    """Keep all that is used from now on from being cleaned away; a store that can't be written can't be cleaned from here."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(StoreError, OSError), store.lock("clean"):
            since = int(_now(store) * 1e9)
            stack.enter_context(store.lease("leases", f"{since}-{os.getpid()}-{secrets.token_hex(4)}"))
        yield


def _now(store: Store) -> float:
    """Return the time of the store's file system. Raises OSError."""
    store.folder(store.root / "ingest")
    name = f"ingest/.now-{secrets.token_hex(8)}"
    store.files.create(name).close()
    try:
        return store.files.stat(name).st_mtime
    finally:
        store.files.unlink(name)


def _oldest_lease(store: Store, now: float) -> float:
    """Return when the oldest workflow that lives began, *now* if none does; leases of the dead are removed."""
    oldest = now
    for path in _locks(store, "leases"):
        found = _SINCE.fullmatch(path.name)
        if found is None:
            continue
        if _abandoned(store, path, now):
            with contextlib.suppress(OSError):
                store.files.unlink(store.files.name(path))
        else:
            oldest = min(oldest, int(found[1][:30]) / 1e9)
    return oldest


def _locks(store: Store, name: str) -> list[Path]:
    """Return the regular files of a folder of locks."""
    with contextlib.suppress(Foreign):
        return [store.root / name / entry for entry, found in store.files.entries(name) if stat.S_ISREG(found.st_mode)]
    return []


def _abandoned(store: Store, path: Path, now: float) -> bool:
    with store.files.listed(path.parent.name) as folder:
        return abandoned(path, now, folder=folder)


# -- objects


def _remove(store: Store, item: Object) -> bool:
    """Remove an object unless somebody holds it or has used it meanwhile; tell whether it is gone."""
    name = store.files.name(item.path)
    with store.lock(item.lock, wait=False) as held:
        if not held:
            return False
        try:
            found = store.files.stat(name)
            if found.st_mtime != item.used or stat.S_ISDIR(found.st_mode) != item.folder:
                return False
            if item.folder:
                return exploded.discard(store, item.path)
            store.files.unlink(name)
        except (FileNotFoundError, Foreign):
            return False
        except OSError as error:
            raise store.failed(error) from error
    return True


# -- check


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Something that is wrong, and whether it was repaired."""

    what: str
    path: Path
    repaired: bool

    def json(self) -> dict[str, object]:
        """Return it as JSON has it."""
        return {"what": self.what, "path": str(self.path), "repaired": self.repaired}


def check(store: Store, *, wrong_layer: WrongLayer, dry_run: bool = False, say: Say = lambda _: None) -> list[Finding]:
    """Check all objects of the store, and remove what is not what it should be.

    Args:
        wrong_layer: says what is wrong with an exploded layer in a folder, None for a sound one (`layers.verify.wrong`).
        dry_run: only tell.
        say: is given a line for every object, when it is done.

    Raises:
        StoreError: the store can't be written.
    """
    findings: list[Finding] = []
    every, foreign = survey(store)
    # Without locks nothing may be removed, but all can be told.
    dry_run = dry_run or not (store.files.is_folder("locks") or _missing(store, "locks"))

    def judge(item: Object) -> tuple[Object, str | None]:
        return item, _wrong(store, item, wrong_layer)

    with ThreadPoolExecutor(_THREADS) as pool:
        for item, wrong in pool.map(judge, every):
            say(item.name)
            if wrong:
                findings.append(Finding(what=f"{item.name}: {wrong}", path=item.path, repaired=not dry_run and _removed(store, item)))
    findings += [_foreign(store, path, what) for path, what in foreign.items()]
    findings += _check_names(store, dry_run=dry_run)
    findings += _check_left_overs(store, dry_run=dry_run)
    return findings


def _missing(store: Store, name: str) -> bool:
    try:
        store.files.stat(name)
    except FileNotFoundError:
        return True
    except OSError:
        pass
    return False


def _removed(store: Store, item: Object) -> bool:
    """Remove a damaged object; one that this user may not remove is told, and no reason to stop."""
    try:
        return _remove(store, item)
    except StoreError as error:
        if isinstance(error.__cause__, PermissionError):
            return False
        raise


def _foreign(store: Store, path: Path, what: str) -> Finding:
    return Finding(what=f"{store.files.name(path)}: {what}: none of the store's", path=path, repaired=False)


def _wrong(store: Store, item: Object, wrong_layer: WrongLayer) -> str | None:
    if not item.folder:
        return _wrong_blob(store, item)
    # Those of earlier versions have no digests, and are used by nobody.
    return wrong_layer(item.path) if exploded.current(item.path.parent.name) else None


def _wrong_blob(store: Store, item: Object) -> str | None:
    algorithm, _, digits = item.name.partition(":")
    try:
        with store.files.open(store.files.name(item.path)) as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        return f"can't be read ({error.strerror or error})"
    return None if found == digits else "its bytes are others"


def _check_names(store: Store, *, dry_run: bool) -> Iterator[Finding]:
    """Names of index.json that no manifest stands for; other tools' entries count like ours."""
    path = store.root / "index.json"
    try:
        found = store.files.stat("index.json")
    except FileNotFoundError:
        return
    except OSError as error:
        raise store.failed(error) from error
    if stat.S_ISDIR(found.st_mode):
        yield _foreign(store, path, kind(found))
        return
    with contextlib.ExitStack() as stack:
        if not dry_run:
            stack.enter_context(store.lock("index.json"))
        try:
            broken = not isinstance(json.loads(store.files.read("index.json", limits.STORE_DOCUMENT)).get("manifests"), list)
        except (ValueError, AttributeError, RecursionError, Foreign):
            broken = True
        except OSError as error:
            raise store.failed(error) from error
        if broken:
            yield Finding(what="index.json: is no index", path=path, repaired=not dry_run)
        entries = store.entries()
        kept = [entry for entry in entries if _there(store, entry)]
        if len(kept) != len(entries):
            yield Finding(what=f"index.json: {len(entries) - len(kept)} names of manifests that are gone", path=path, repaired=not dry_run)
        if not dry_run and (broken or len(kept) != len(entries)):
            try:
                store.write_entries(kept)
            except OSError as error:
                raise store.failed(error) from error


def _there(store: Store, entry: object) -> bool:
    with contextlib.suppress(SregistryError):
        return store.has(Descriptor.parse(entry).digest)
    return False


def _check_left_overs(store: Store, *, dry_run: bool) -> Iterator[Finding]:
    """What dead processes left and nobody will go on with: workspaces, old partial blobs, locks, leases."""
    foreign: dict[Path, str] = {}
    if not store.files.is_folder("ingest"):
        if members(store, "ingest", foreign) or foreign:
            yield from (_foreign(store, path, what) for path, what in foreign.items())
        return
    try:
        now = time.time() if dry_run else _now(store)
    except OSError as error:
        raise store.failed(error) from error
    for name, found in members(store, "ingest", foreign):
        path, work = store.root / "ingest" / name, _WORK.fullmatch(name) is not None
        ours = stat.S_ISDIR(found.st_mode) if work else stat.S_ISREG(found.st_mode) and _INGEST.fullmatch(name)
        if not ours:
            foreign[path] = kind(found)
        elif now - found.st_mtime > FORGOTTEN:
            gone = not dry_run and store.files.remove(f"ingest/{name}", WORKSPACE)
            yield Finding(what=f"ingest/{name}: forgotten", path=path, repaired=gone)
    for folder in ("locks", "leases"):
        for name, found in members(store, folder, foreign):
            path = store.root / folder / name
            if not stat.S_ISREG(found.st_mode):
                foreign[path] = kind(found)
            elif _abandoned(store, path, now):
                gone = not dry_run and store.files.remove(f"{folder}/{name}")
                yield Finding(what=f"{folder}/{name}: of a dead process", path=path, repaired=gone)
    for name, found in members(store, "pace", foreign):
        if not stat.S_ISREG(found.st_mode):
            foreign[store.root / "pace" / name] = kind(found)
    yield from (_foreign(store, path, what) for path, what in foreign.items())


# -- clean


def clean(
    store: Store,
    *,
    unreachable: bool = False,
    older_than: float | None = None,
    keep: int | None = None,
    dry_run: bool = False,
) -> list[Object]:
    """Remove objects, and return those that were removed, or would be.

    Args:
        unreachable: what index.json does not lead to.
        older_than: what was not used for so many seconds.
        keep: what was used longest ago, until all objects are of no more than so many bytes.
        dry_run: only tell.

    Raises:
        StoreError: the store can't be written.
    """
    if not store.root.is_dir():
        return []
    with store.lock("clean"):
        try:
            now = _now(store)
        except OSError as error:
            raise store.failed(error) from error
        protected = _oldest_lease(store, now)
        every = objects(store)
        reachable = _reachable(store) if unreachable else set()
        chosen: dict[Path, Object] = {}
        for item in every:
            old = older_than is not None and item.used < now - older_than
            if old or (unreachable and item.path not in reachable):
                chosen[item.path] = item
        total = sum(item.size for item in every if item.path not in chosen)
        for item in sorted(every, key=lambda item: item.used):
            if keep is not None and total > keep and item.path not in chosen:
                chosen[item.path] = item
                total -= item.size
        free = [item for item in chosen.values() if item.used < protected]
        removed = free if dry_run else [item for item in free if _removed(store, item)]
        if removed and not dry_run:
            list(_check_names(store, dry_run=False))
    return removed


def _reachable(store: Store) -> set[Path]:
    """Return the places of all that index.json leads to."""
    found: set[Path] = set()
    diff_ids: set[str] = set()
    waiting = [_digest(entry) for entry in store.entries()]
    while waiting:
        digest = waiting.pop()
        if digest is None or store.blob(digest) in found:
            continue
        found.add(store.blob(digest))
        document = _document(store, digest)
        waiting += [_digest(item) for key in ("manifests", "layers") for item in _list(document.get(key))]
        waiting += [_digest({"digest": item.get("blobSum")}) for item in _list(document.get("fsLayers")) if isinstance(item, dict)]
        waiting.append(_digest(document.get("config")))
        rootfs = document.get("rootfs")
        diff_ids |= {str(item).partition(":")[2] for item in _list(rootfs.get("diff_ids") if isinstance(rootfs, dict) else None)}
    for item in objects(store):
        # Those of an earlier version's format are used by nobody.
        if item.folder and item.path.name in diff_ids and exploded.current(item.path.parent.name):
            found.add(item.path)
    return found


def _digest(entry: object) -> Digest | None:
    with contextlib.suppress(SregistryError):
        if isinstance(entry, dict):
            return Digest(str(entry.get("digest")))
    return None


def _document(store: Store, digest: Digest) -> dict[str, object]:
    """Return a manifest, an index or a config; what is none of them, such as a layer, is empty."""
    with contextlib.suppress(OSError, ValueError, RecursionError), store.open(digest) as file:
        data = file.read(MAX_DOCUMENT + 1)
        value = json.loads(data) if len(data) <= MAX_DOCUMENT else None
        return value if isinstance(value, dict) else {}
    return {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
