"""Exploded layers in stores: whose are used, where a new one goes, and whether one is sound.

```
exploded/<variant>/<hex>/{data,index}          the first that was made; shared by those who trust its owner
exploded/<variant>.u<uid>/<hex>/{data,index}   one user's, where the first is one of somebody whom he does not trust
```

An exploded layer goes into images under the digest of its blob, and nobody compares the two again. So one that
is found counts only if nobody could have written it who is not trusted: both files are regular, have one name and
one owner, who is this user, root or trusted by name, and nobody else may write them. Its index says which layer it
is, so that a folder that was renamed is found out; it has digests of the data, so that data of another layer is.
What another trusted user made is read in full before it counts: it could not be removed if it were damaged.

Trust is only asked for here. Whoever goes on with a layer knows the digest of its index from the receipt.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from sregistry.errors import StoreError
from sregistry.layers.index import DamagedLayer, Index
from sregistry.oci.documents import Digest
from sregistry.store.beneath import Root
from sregistry.store.exploded import discard, named
from sregistry.store.store import Store
from sregistry.store.trust import VARIABLE

#: Errors of a disk or a mount, which say nothing of whose a folder is.
_BROKEN = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """An exploded layer: its folder, what it was made of and how, the digest of its index, and the bytes of both files."""

    folder: Path
    diff_id: Digest
    variant: str
    digest: bytes
    data: int
    index: int


def identity(variant: str, diff_id: Digest) -> bytes:
    """Return what the index of a layer says that it is."""
    return f"{diff_id} {variant}".encode()


def find(store: Store, variant: str, diff_id: Digest, *, log: TextIO | None = None) -> Layer | None:
    """Return an exploded layer of this or a further store that may be used; None if there is none.

    Args:
        log: for a line about each that is passed over.
    """
    for files in (store.files, *store.further):
        for name in _names(variant, diff_id):
            if files.is_folder(name):
                layer, why = _judged(store, files, name, variant, diff_id)
                if layer is not None:
                    return layer
                if log is not None:
                    print(f"passed over: {files.path / name}: {why}", file=log, flush=True)
    return None


def publish(store: Store, folder: Path, variant: str, diff_id: Digest, index: Index) -> Layer:
    """Give the finished *folder* its name; for who holds the layer's lock. Raises StoreError: others' layers are in the way."""
    for name in reversed(_names(variant, diff_id)):
        if not _vacated(store, name):
            continue
        store.publish(folder, store.root / name)
        with contextlib.suppress(OSError), store.files.open(f"{name}/index") as file:
            made = Index.parse(file, merging=True)
            # Equal, or one that somebody else made at the same time, who took this process for dead.
            if made is not None and made.digest == index.digest:
                return _layer(store.root / name, variant, diff_id, made, os.fstat(file.fileno()).st_size)
        layer, _ = _judged(store, store.files, name, variant, diff_id)
        if layer is not None:
            return layer
    places = " and ".join(str(store.root / name) for name in _names(variant, diff_id))
    raise StoreError(
        f"{places} are others' and in the way", hint="set `cache` to a folder of your own, or trust their owner by SREGISTRY_TRUST"
    )


def wrong(folder: Path) -> str | None:
    """Say what is wrong with an exploded layer; all of it is read."""
    said = named(folder)
    try:
        index = Index.read(folder / "index")
        if said is None or index.identity != identity(*said):
            return f"it is {index.identity.decode(errors='replace')}"
        with Root(folder.parents[2]).open("/".join((*folder.parts[-3:], "data"))) as data:
            if os.fstat(data.fileno()).st_size != index.data_size:
                return "its data has another size than its index says"
            at = _mismatch(data.fileno(), index)
    except DamagedLayer as error:
        return error.message
    except OSError as error:
        return f"can't be read ({error.strerror or error})"
    return None if at is None else f"its data is damaged at byte {at}"


def owned(store: Store, folder: Path) -> bool:
    """Tell whether the folder of an exploded layer is this user's."""
    try:
        return store.files.stat(store.files.name(folder)).st_uid == os.geteuid()
    except OSError:
        return False


def _layer(folder: Path, variant: str, diff_id: Digest, index: Index, size: int) -> Layer:
    return Layer(folder=folder, diff_id=diff_id, variant=variant, digest=index.digest, data=index.data_size, index=size)


def _names(variant: str, diff_id: Digest) -> tuple[str, str]:
    return f"exploded/{variant}.u{os.geteuid()}/{diff_id.hex}", f"exploded/{variant}/{diff_id.hex}"


def _judged(store: Store, files: Root, name: str, variant: str, diff_id: Digest) -> tuple[Layer | None, str]:
    """Return the layer if it may be used, else why not."""
    try:
        with files.open(f"{name}/index") as file, files.open(f"{name}/data") as data:
            owners = {os.fstat(part.fileno()).st_uid for part in (file, data)}
            why = _doubtful(store, os.fstat(file.fileno())) or _doubtful(store, os.fstat(data.fileno()))
            if why:
                return None, why
            size = os.fstat(data.fileno()).st_size
            index = Index.parse(file, merging=True)
            if index is None or index.data_size != size:
                return None, "it is damaged"
            if index.identity != identity(variant, diff_id):
                return None, f"it is {index.identity.decode(errors='replace')}"
            if owners != {os.geteuid()} and _mismatch(data.fileno(), index) is not None:
                return None, "its data is damaged"
            return _layer(files.path / name, variant, diff_id, index, os.fstat(file.fileno()).st_size), ""
    except OSError as error:
        return None, error.strerror or str(error)


def _doubtful(store: Store, found: os.stat_result) -> str | None:
    """Say who else than a trusted user could have written a file."""
    if store.trusted is None:
        return None
    if found.st_uid not in store.trusted:
        try:
            who = pwd.getpwuid(found.st_uid).pw_name
        except KeyError:
            who = str(found.st_uid)
        return f"it is {who}'s; {VARIABLE}={who} uses it"
    if found.st_mode & 0o022:
        return "others than its owner may write it"
    if found.st_nlink != 1:
        return "its files have other names as well"
    return None


def _mismatch(data: int, index: Index) -> int | None:
    """Return where the data is not what the index says; None if all of it is."""
    for start, end, digest in index.summed():
        if hashlib.sha256(os.pread(data, end - start, start)).digest() != digest:
            return start
    return None


def _vacated(store: Store, name: str) -> bool:
    """Have nothing under the name of a layer; what is this user's and of no use is removed. Raises OSError: nobody can tell."""
    try:
        found = store.files.stat(name)
        if found.st_uid != os.geteuid() or not stat.S_ISDIR(found.st_mode):
            return False
        return discard(store, store.root / name)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in _BROKEN:
            raise
        return False
