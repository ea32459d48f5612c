"""A store with layers that are fetched and exploded, what it holds, and how to damage it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from sregistry.layers import verify
from sregistry.layers.explode import explode
from sregistry.oci.documents import Digest
from sregistry.store.maintenance import Finding, check
from sregistry.store.store import Store
from sregistry.store.survey import objects
from tests.support.engine import DEFAULT
from tests.support.images import Layout, layer
from tests.support.tarball import directory, file


def _text(size: int) -> bytes:
    """Return bytes of no other file that compress."""
    return os.urandom(size // 2).hex().encode()


def two_images(root: Path) -> Store:
    """Make a store at *root* with two images that share a layer; one of them has a name."""
    layout = Layout(root)
    layers = [layer([directory(b"d"), file(b"d/f", _text(300_000) + bytes(200_000)), file(b"d/s", b"small")]) for _ in range(3)]
    layout.tag("h/demo/named:1", layout.image(layers[:2], {}))
    layout.image(layers[1:], {})
    made = Store(layout.root)
    for one in layers:
        explode(made, Digest.of(one.blob), Digest(one.diff_id), DEFAULT, threads=1)
    return made


def checked(store: Store, *, dry_run: bool = False, say: Callable[[str], None] = lambda _: None) -> list[Finding]:
    """Check a store, exploded layers included."""
    return check(store, wrong_layer=verify.wrong, dry_run=dry_run, say=say)


def names(store: Store) -> set[str]:
    return {item.name for item in objects(store)}


def exploded(store: Store) -> list[Path]:
    """Return the folders of the exploded layers, in order."""
    return sorted((store.root / "exploded").glob("*/*"))


def flip(path: Path, at: int) -> None:
    """Flip a bit of the byte at *at*."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
