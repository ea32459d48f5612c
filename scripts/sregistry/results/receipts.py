"""Receipts: small JSON files that the rules make; what they vouch for lies elsewhere.

```
layer ─▶ Blob    explode ─▶ Exploded    metadata ─▶ Metadata    image ─▶ Image    catalog ─▶ Recorded
tags ─▶ TagList ─▶ TagLists             manifest ─▶ Resolved (results/resolved.py) | Refused ─▶ Gathered

{"holds": [{"path": …, "size": …[, "mtime_ns": …][, "inode": …]}], … the other fields of the class …}
```
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Self

from sregistry.errors import SregistryError, StoreError, from_oserror
from sregistry.store.store import write_atomic

#: Annotation of a field → what JSON may have there. Any other annotation allows everything.
_TYPES: Mapping[Any, type | tuple[type, ...]] = {
    "str": str,
    "int": int,
    "bool": bool,
    "str | None": (str, type(None)),
    "tuple[str, ...]": list,
    "tuple[Held, ...]": list,
}


@dataclass(frozen=True, slots=True)
class Held:
    """A file or folder that a receipt vouches for. With `size` None only its existence is checked.

    An image's name may be taken by another image of the same size, because squashfs pads to 4 KiB. So the entry of an
    image holds the time of the file as well, that of a sandbox the number of its folder.
    """

    path: str
    size: int | None
    mtime_ns: int | None = None
    inode: int | None = None

    @classmethod
    def image(cls, path: Path) -> Held:
        """Return the entry of a published image. Raises OSError."""
        found = path.stat()
        if path.is_dir():
            return cls(str(path), None, inode=found.st_ino)
        return cls(str(path), found.st_size, mtime_ns=found.st_mtime_ns)

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Held:
        """Read what `json` returned. Raises KeyError, TypeError."""
        return cls(value["path"], value["size"], value.get("mtime_ns"), value.get("inode"))

    def json(self) -> dict[str, Any]:
        """Return the entry as it stands in a receipt."""
        more = {"mtime_ns": self.mtime_ns, "inode": self.inode}
        return {"path": self.path, "size": self.size, **{key: number for key, number in more.items() if number is not None}}

    def is_there(self) -> bool:
        """Tell whether it is still what the receipt vouches for."""
        try:
            found = Path(self.path).stat()
        except OSError:
            return False
        return self.size in (None, found.st_size) and self.mtime_ns in (None, found.st_mtime_ns) and self.inode in (None, found.st_ino)


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """The JSON object of a stage, a field a key. A field without a value is left out where None is its default."""

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Self:
        """Read what `json` returned; further keys are passed over. Raises ValueError that names the key."""
        found: dict[str, Any] = {}
        for field in fields(cls):
            if field.name not in value:
                if field.default is MISSING:
                    raise ValueError(f"{field.name}: missing")
                continue
            item = value[field.name]
            if not isinstance(item, _TYPES.get(field.type, object)):
                raise ValueError(f"{field.name}: expected {field.type}, got {item!r}")
            found[field.name] = tuple(item) if isinstance(item, list) else item
        try:
            if "holds" in found:
                found["holds"] = tuple(map(Held.parse, found["holds"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"holds: {type(error).__name__} {error}") from None
        return cls(**found)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a receipt. Raises StoreError: it can't be read, or is damaged."""
        try:
            return cls.parse(read(path))
        except ValueError as error:
            raise StoreError(f"{path} is damaged: {error}", hint="remove that file") from None

    def json(self) -> dict[str, Any]:
        """Return the object."""
        found: dict[str, Any] = {}
        for field in fields(self):
            item = getattr(self, field.name)
            if item is not None or field.default is not None:
                found[field.name] = [one.json() if isinstance(one, Held) else one for one in item] if isinstance(item, tuple) else item
        return found

    def write(self, path: Path) -> None:
        """Write the receipt whole; equal ones give equal bytes. Raises StoreError."""
        write(path, self.json())


@dataclass(frozen=True, kw_only=True, slots=True)
class Vouched(Receipt):
    """What all receipts have in common, as far as they have it: enough to tell whether one still counts."""

    holds: tuple[Held, ...] = ()
    store: str | None = None
    variant: str | None = None
    error: str | None = None
    pinned: str | None = None

    @classmethod
    def look(cls, path: Path) -> Vouched:
        """Read any receipt; one that can't be read is one of an error."""
        try:
            return cls.read(path)
        except SregistryError as error:
            return cls(error=str(error))

    def is_void(self, store: Path, variant: str | None = None) -> bool:
        """Tell whether it no longer counts: of a failure, another store or *variant*, or what it holds is gone."""
        another = variant is not None and self.variant != variant
        return self.error is not None or self.store not in (None, str(store)) or another or stale(self.holds)


@dataclass(frozen=True, kw_only=True, slots=True)
class Blob(Receipt):
    """A layer as published, in the store. `diff_id` is None if the images that name it do not say it, or disagree."""

    digest: str
    size: int
    diff_id: str | None
    media_type: str | None = None
    estargz: bool = False
    store: str
    holds: tuple[Held, ...]

    @property
    def path(self) -> Path:
        """The blob's file."""
        return Path(self.holds[0].path)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exploded(Receipt):
    """A layer as compressed blocks in the folder `path`; `index` is the digest of its index, `digest` and `size` are its blob's."""

    digest: str
    size: int
    diff_id: str
    variant: str
    path: str
    index: str
    estargz: bool = False
    store: str
    holds: tuple[Held, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Metadata(Receipt):
    """The folders of base `environment` and `metadata`, exploded, and the digests of both `indexes`; `created` is seconds since 1970."""

    environment: str
    metadata: str
    variant: str
    indexes: tuple[str, ...]
    docker_cmd: bool
    created: int
    store: str
    holds: tuple[Held, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Built(Receipt):
    """A published image as its builder describes it: `size` in bytes, `version` its SHA-256 (of a sandbox that of its layers).

    A SIF that is taken as it is has only those that must be there. `dead` are bytes of file tails that only share a block with
    the image's, as content (`size`) and in the file (`stored`); `lost` is what the format or the builder can't keep.
    """

    path: str
    format: str
    size: int
    version: str
    architecture: str | None
    inodes: int | None = None
    dropped_xattrs: tuple[str, ...] | None = None
    dead: Mapping[str, int] | None = None
    lost: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Image(Built):
    """A published image, and the digest of the `manifest` that it was made of."""

    manifest: str
    holds: tuple[Held, ...]

    @classmethod
    def of(cls, built: Built, manifest: str) -> Image:
        """Return the receipt of an image that has just been published. Raises OSError: it is gone."""
        return cls.parse({**built.json(), "manifest": manifest, "holds": [Held.image(Path(built.path)).json()]})


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded(Receipt):
    """An image's record in the catalog, by its number; `new` if it replaced none."""

    id: int
    uri: str
    new: bool
    version: str
    holds: tuple[Held, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused(Receipt):
    """Why a reference could not be resolved, in place of manifest.json; `pinned` is the text that was there before."""

    uri: str
    error: str
    pinned: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Gathered(Receipt):
    """What the images of a batch share: `layers` of each image; of each layer its size, and the images whose claims differ; the SIFs."""

    layers: Mapping[str, Sequence[str]]
    sizes: Mapping[str, int | None]
    sources: Mapping[str, Sequence[str]]
    sifs: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TagList(Receipt):
    """The tags that a pattern means; with an `error` those that it meant, and `pinned`, the text of that receipt."""

    uri: str
    tags: tuple[str, ...]
    error: str | None = None
    pinned: str | None = None

    def json(self) -> dict[str, Any]:
        """Return the object; a failed one always says what is pinned."""
        return {**Receipt.json(self), **({} if self.error is None else {"pinned": self.pinned})}


@dataclass(frozen=True, kw_only=True, slots=True)
class TagLists(Receipt):
    """The tags of all patterns of a batch, and why some of them `failed`, by their keys."""

    tags: Mapping[str, Sequence[str]]
    failed: Mapping[str, str]


def read(path: Path) -> dict[str, Any]:
    """Return a receipt. Raises StoreError: it can't be read."""
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise from_oserror(error, StoreError, "can't read") from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{path} is damaged: {error}", hint="remove that file") from error
    if not isinstance(value, dict):
        raise StoreError(f"{path} is damaged: no JSON object", hint="remove that file")
    return value


def write(path: Path, value: dict[str, Any]) -> None:
    """Write a receipt whole; equal values give equal bytes. Raises StoreError."""
    publish(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def publish(path: Path, data: bytes) -> None:
    """Write an output file whole; its folder is made. Raises StoreError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, data)
    except OSError as error:
        raise from_oserror(error, StoreError, "can't write") from error


def stale(holds: Iterable[Held]) -> bool:
    """Tell whether something that a receipt holds is gone or another."""
    return not all(item.is_there() for item in holds)


def vouches(receipt: Path, path: Path) -> bool:
    """Tell whether a receipt says that the file or folder *path* is what its stage made, and it still is."""
    held = Vouched.look(receipt).holds
    return any(item.path == str(path) for item in held) and not stale(held)


def pinned(path: Path) -> str | None:
    """Return the text that an earlier run wrote to *path*, even if a failed refresh came since; None: there is none."""
    try:
        value = read(path)
        return value.get("pinned") if "error" in value else path.read_text()
    except (SregistryError, OSError):
        return None


def discard(path: Path, value: Vouched) -> None:
    """Remove a receipt that no longer counts; a manifest that was pinned before a failed refresh comes back."""
    if value.pinned:
        publish(path, value.pinned.encode())
    else:
        path.unlink(missing_ok=True)


def layer_digests(manifest: Path) -> list[str]:
    """Return the digests of the image's layers, each once; none if there is no manifest."""
    try:
        return list(dict.fromkeys(str(layer["digest"]) for layer in read(manifest)["layers"]))
    except (SregistryError, KeyError, TypeError):
        return []
