"""Upkeep of a store: is everything what its name says, and what may go.

```
check   blobs ─ re-hashed          exploded layers ─ index, size, every block          index.json ─ its blobs
        └─ what is wrong is removed, under its lock; the next run makes it anew
clean   objects ─▶ unreachable? · last used before …? · beyond a size? ─▶ removed, but for what a workflow may use
```

The time of an object is that of its last use: each stage marks what it relies on, under the object's lock,
and a running workflow holds a lease, whose name tells when it began. What was used since the oldest lease
began stays; so does what somebody has locked. All times are the file system's own, never a node's.

Reachable is what index.json names: manifests, configs, layers, and the exploded layers of their diff_ids.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sregistry.compression import decoder
from sregistry.document import MAX_DOCUMENT
from sregistry.errors import SregistryError, StoreError
from sregistry.index import RAW, Index
from sregistry.lease import abandoned, lease
from sregistry.oci import Descriptor, Digest
from sregistry.store import Store

#: Seconds after which what is left of a transfer or a job counts as forgotten.
FORGOTTEN = 86_400
_THREADS = 4
_SINCE = re.compile(r"([0-9]+)-.*")
_DIGEST = re.compile(r"sha(?:256|512):[0-9a-f]+")

Say = Callable[[str], None]


# -- leases


@contextlib.contextmanager
def session(store: Store) -> Iterator[None]:
    """Keep all that is used from now on from being cleaned away; a store that can't be written can't be cleaned from here."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(StoreError, OSError), store.lock("clean"):
            since = int(_now(store) * 1e9)
            stack.enter_context(lease(store.folder(store.root / "leases") / f"{since}-{os.getpid()}-{secrets.token_hex(4)}"))
        yield


def _now(store: Store) -> float:
    """Return the time of the store's file system."""
    path = store.folder(store.root / "ingest") / f".now-{secrets.token_hex(8)}"
    try:
        path.touch()
        return path.stat().st_mtime
    finally:
        path.unlink(missing_ok=True)


def _oldest_lease(store: Store, now: float) -> float:
    """Return when the oldest workflow that lives began, *now* if none does; leases of the dead are removed."""
    oldest = now
    for path in _files(store.root / "leases"):
        found = _SINCE.fullmatch(path.name)
        if found is None:
            continue
        if abandoned(path, now):
            path.unlink(missing_ok=True)
        else:
            oldest = min(oldest, int(found[1]) / 1e9)
    return oldest


# -- objects


@dataclass(frozen=True, kw_only=True, slots=True)
class Object:
    """A blob or an exploded layer: *size* in bytes, *used* in seconds since 1970, as the file system has it."""

    name: str
    path: Path
    lock: str
    size: int
    used: float


def objects(store: Store) -> list[Object]:
    """Return all that has a name in the store."""
    return [*_blobs(store), *_exploded(store)]


def _blobs(store: Store) -> Iterator[Object]:
    for folder in sorted((store.root / "blobs").glob("*")):
        for path in _files(folder):
            name = f"{folder.name}:{path.name}"
            if _DIGEST.fullmatch(name):
                with contextlib.suppress(OSError):
                    found = path.stat()
                    yield Object(name=name, path=path, lock=f"{folder.name}-{path.name}", size=found.st_size, used=found.st_mtime)


def _exploded(store: Store) -> Iterator[Object]:
    for folder in sorted((store.root / "exploded").glob("*/*")):
        with contextlib.suppress(OSError):
            variant = folder.parent.name
            size = sum(path.stat().st_size for path in _files(folder))
            used = folder.stat().st_mtime
            yield Object(
                name=f"exploded {variant} {folder.name}", path=folder, lock=f"explode-{variant}-{folder.name}", size=size, used=used
            )


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and not path.is_symlink())
    except OSError:
        return []


def _remove(store: Store, item: Object) -> bool:
    """Remove an object unless somebody holds it or has used it meanwhile; tell whether it is gone."""
    with store.lock(item.lock, wait=False) as held:
        if not held:
            return False
        try:
            if item.path.stat().st_mtime != item.used:
                return False
            if item.path.is_dir():
                aside = store.folder(store.root / "ingest") / f"work-{secrets.token_hex(6)}"
                item.path.rename(aside)  # at once, so that nobody finds half of it
                shutil.rmtree(aside, ignore_errors=True)
            else:
                item.path.unlink()
        except FileNotFoundError:
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


def check(store: Store, *, dry_run: bool = False, say: Say = lambda _: None) -> list[Finding]:
    """Check all objects of the store, and remove what is not what it should be.

    Args:
        dry_run: only tell.
        say: is given a line for every object, when it is done.

    Raises:
        StoreError: the store can't be written.
    """
    findings: list[Finding] = []

    def judge(item: Object) -> tuple[Object, str | None]:
        return item, _wrong_layer(item.path) if item.path.is_dir() else _wrong_blob(item)

    with ThreadPoolExecutor(_THREADS) as pool:
        for item, wrong in pool.map(judge, objects(store)):
            say(item.name)
            if wrong:
                findings.append(Finding(what=f"{item.name}: {wrong}", path=item.path, repaired=not dry_run and _remove(store, item)))
    findings += _check_names(store, dry_run=dry_run)
    findings += _check_left_overs(store, dry_run=dry_run)
    return findings


def _wrong_blob(item: Object) -> str | None:
    algorithm, _, digits = item.name.partition(":")
    try:
        with item.path.open("rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        return f"can't be read ({error.strerror})"
    return None if found == digits else "its bytes are others"


def _wrong_layer(folder: Path) -> str | None:
    """Say what is wrong with an exploded layer; every block of it is expanded."""
    try:
        index = Index.read(folder / "index")
        with (folder / "data").open("rb") as data:
            if os.fstat(data.fileno()).st_size != index.data_size:
                return "its data has another size than its index says"
            for start, word, size in _stored(index):
                stored = os.pread(data.fileno(), word & (RAW - 1), start)
                if len(stored if word & RAW else _expand(decoder(index.codec), stored, size)) != size:
                    return f"its data is damaged at byte {start}"
    except SregistryError as error:
        return str(error.message)
    except OSError as error:
        return f"can't be read ({error.strerror})"
    return None


def _stored(index: Index) -> Iterator[tuple[int, int, int]]:
    """Yield place, word and expanded size of each block and fragment, once."""
    seen = set()
    for row, size in enumerate(index.size):
        if size >= index.block_size and index.start[row] not in seen:
            seen.add(index.start[row])
            at = index.start[row]
            for word in index.blocks(row):
                if word:
                    yield at, word, index.block_size
                at += word & (RAW - 1)
    yield from zip(index.fragment_start, index.fragment_word, index.fragment_length, strict=True)


def _expand(decode: Callable[[bytes, int], bytes], stored: bytes, size: int) -> bytes:
    try:
        return decode(stored, size)
    except Exception:  # noqa: BLE001 - each codec has its own; all mean the same
        return b""


def _check_names(store: Store, *, dry_run: bool) -> Iterator[Finding]:
    """Names of index.json that no manifest stands for; other tools' entries count like ours."""
    path = store.root / "index.json"
    if not path.exists():
        return
    with contextlib.ExitStack() as stack:
        if not dry_run:
            stack.enter_context(store.lock("index.json"))
        try:
            broken = not isinstance(json.loads(path.read_bytes()).get("manifests"), list)
        except (ValueError, AttributeError, RecursionError):
            broken = True
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
    folder = store.root / "ingest"
    if not folder.is_dir():
        return
    try:
        now = time.time() if dry_run else _now(store)
    except OSError as error:
        raise store.failed(error) from error
    for path in sorted(folder.iterdir()):
        with contextlib.suppress(FileNotFoundError):
            if now - path.stat().st_mtime > FORGOTTEN:
                yield Finding(what=f"ingest/{path.name}: forgotten", path=path, repaired=not dry_run and _discard(path))
    for name in ("locks", "leases"):
        for path in _files(store.root / name):
            if abandoned(path, now):
                yield Finding(what=f"{name}/{path.name}: of a dead process", path=path, repaired=not dry_run and _discard(path))


def _discard(path: Path) -> bool:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return not path.exists()


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
        now = _now(store)
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
        removed = free if dry_run else [item for item in free if _remove(store, item)]
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
    for item in _exploded(store):
        if item.path.name in diff_ids:
            found.add(item.path)
    return found


def _digest(entry: object) -> Digest | None:
    with contextlib.suppress(SregistryError):
        if isinstance(entry, dict):
            return Digest(str(entry.get("digest")))
    return None


def _document(store: Store, digest: Digest) -> dict[str, object]:
    """Return a manifest, an index or a config; what is none of them, such as a layer, is empty."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        path = store.blob(digest)
        if path.stat().st_size <= MAX_DOCUMENT:
            value = json.loads(path.read_bytes())
            return value if isinstance(value, dict) else {}
    return {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
