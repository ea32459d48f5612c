"""What is in a store: its objects, and what stands among them that is none.

```
blobs/<algorithm>/<hex>  exploded/<variant>/<hex>/{data,index} ─▶ Object        all else ─▶ foreign: told, never touched
```

A folder is listed by its descriptor, a name counts by its pattern, and a thing by what it is itself: no link is followed.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from sregistry.store import exploded
from sregistry.store.beneath import Foreign, kind
from sregistry.store.store import Store

_DIGEST = re.compile(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")
#: What NFS leaves in place of a file that is removed while it is open.
_SILLY = re.compile(r"\.nfs[0-9a-f]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Object:
    """A blob or an exploded layer: *size* in bytes, *used* in seconds since 1970, as the file system has it."""

    name: str
    path: Path
    lock: str
    size: int
    used: float
    folder: bool


def objects(store: Store) -> list[Object]:
    """Return all that has a name in the store. Raises StoreError: its folders can't be read."""
    return survey(store)[0]


def survey(store: Store) -> tuple[list[Object], dict[Path, str]]:
    """Return the objects, and what stands among them that is none, in words. Raises StoreError."""
    found: list[Object] = []
    foreign: dict[Path, str] = {}
    for name, take in (("blobs", _blob), ("exploded", _exploded)):
        for folder, status in members(store, name, foreign):
            for entry, below in members(store, f"{name}/{folder}", foreign, status):
                item = take(store, f"{name}/{folder}/{entry}", below, foreign)
                if item is not None:
                    found.append(item)
    return found, foreign


def members(store: Store, name: str, foreign: dict[Path, str], found: os.stat_result | None = None) -> list[tuple[str, os.stat_result]]:
    """Return what is in a folder of the store; what is no folder is foreign."""
    if found is not None and not stat.S_ISDIR(found.st_mode):
        if not _SILLY.fullmatch(name.rpartition("/")[2]):
            foreign[store.root / name] = kind(found)
        return []
    try:
        return store.files.entries(name)
    except Foreign:
        with contextlib.suppress(OSError):
            foreign[store.root / name] = kind(store.files.stat(name))
    except PermissionError as error:
        foreign[store.root / name] = f"can't be read ({error.strerror})"
    except OSError as error:
        raise store.failed(error) from error
    return []


def _blob(store: Store, place: str, found: os.stat_result, foreign: dict[Path, str]) -> Object | None:
    _, algorithm, digits = place.split("/")
    name, path = f"{algorithm}:{digits}", store.root / place
    if not stat.S_ISREG(found.st_mode):
        foreign[path] = kind(found)
    elif _DIGEST.fullmatch(name):
        return Object(name=name, path=path, lock=f"{algorithm}-{digits}", size=found.st_size, used=found.st_mtime, folder=False)
    elif not _SILLY.fullmatch(digits):
        foreign[path] = "no digest"
    return None


def _exploded(store: Store, place: str, found: os.stat_result, foreign: dict[Path, str]) -> Object | None:
    _, variant, digits = place.split("/")
    path = store.root / place
    said = exploded.named(path)
    if not stat.S_ISDIR(found.st_mode):
        if not _SILLY.fullmatch(digits):
            foreign[path] = kind(found)
        return None
    if said is None:
        foreign[path] = "no name of an exploded layer"
        return None
    size = 0
    for part, below in members(store, place, foreign):
        if part in exploded.PARTS and stat.S_ISREG(below.st_mode):
            size += below.st_size
        elif not _SILLY.fullmatch(part):
            foreign[path / part] = kind(below)
    if any(other.parent == path for other in foreign):
        return None
    return Object(name=f"exploded {variant} {digits}", path=path, lock=exploded.lock(*said), size=size, used=found.st_mtime, folder=True)
