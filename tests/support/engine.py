"""The engine without a registry and without Snakemake: tar streams in, an image out."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sregistry.image import assemble, merge, tree
from sregistry.image.metadata import environment_tar
from sregistry.layers.compression import LEVELS, Codec, Compression
from sregistry.layers.explode import explode_tar
from sregistry.layers.index import Index
from sregistry.store.store import Store
from tests.support.tarball import Member, tar

#: How layers are compressed if nobody says how.
DEFAULT = Compression()
#: What every codec, level and block size is tested with: each of them once, by variant.
COMPRESSIONS = {
    compression.variant: compression
    for compression in [
        *(Compression(codec=codec, level=level) for codec in Codec for level in LEVELS),
        *(Compression(codec=codec, block_size=size) for codec in Codec for size in (64 << 10, 1 << 20)),
    ]
}

Tars = Sequence[bytes | Sequence[Member]]


def folders(root: Path, tars: Tars, compression: Compression | None = None) -> list[Path]:
    """Explode tars in a store at *root*; return the folders of the exploded layers."""
    store = Store(root)
    data = [item if isinstance(item, bytes) else tar(item) for item in tars]
    return [explode_tar(store, item, compression or Compression()).folder for item in data]


def merged(root: Path, layers: Tars, compression: Compression | None = None) -> tree.Sandbox:
    """Merge *layers* between an empty base environment and empty metadata."""
    return merge.merge(folders(root, [[], *layers, []], compression))


def paths(packed: tree.Sandbox) -> dict[bytes, tuple[int, int]]:
    """Return layer number and row of each path, (-1, -1) for what no layer describes."""
    found: dict[bytes, tuple[int, int]] = {}
    names = {0: b""}
    for row in range(len(packed)):
        source = packed.source[row]
        found[names[row]] = (-1, -1) if source == tree.IMPLIED else (source >> 32, source & 0xFFFFFFFF)
        for child in packed.children(row):
            names[child] = names[row] + b"/" + packed.name(child) if row else packed.name(child)
    return found


def index_of(root: Path, content: bytes | Sequence[Member]) -> Index:
    """Explode one tar and read its index."""
    return Index.read(folders(root, [content])[0] / "index")


def build(root: Path, target: Path, layers: Tars, compression: Compression | None = None, **more: Any) -> dict[str, Any]:
    """Build an image of *layers* over the real base environment."""
    packed = merge.merge(folders(root, [environment_tar(), *layers, []], compression))
    settings: dict[str, Any] = {"format": "simg", "created": 1_500_000_000, "deffile": b"", "documents": {}, "architecture": "amd64"}
    return assemble.build(packed, target=target, **{**settings, **more}).json()


def unsquashed(picture: Path, target: Path, offset: int = 31) -> None:
    """Extract an image with unsquashfs, which fails on anything it finds wrong."""
    command = ["unsquashfs", "-quiet", "-no-progress", "-o", str(offset), "-d", str(target), str(picture)]
    subprocess.run(command, check=True, capture_output=True, umask=0)  # for an ordinary user it applies the umask
