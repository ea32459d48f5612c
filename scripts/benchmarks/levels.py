"""One layer at each level: our engine beside mksquashfs, both from the gzipped tar, with all cores.

`python -m benchmarks.levels BLOB DIFF_ID LEVEL FOLDER` is one run of ours, started for each measurement.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.images import Layer

OURS = ("fast", "default", "small")
THEIRS = (1, 6, 9)
_OPTIONS = ("-noappend", "-quiet", "-no-progress", "-comp", "gzip")


@dataclass(frozen=True, kw_only=True)
class Level:
    """A level and the command that packs a layer with it; `made` are the files to weigh."""

    title: str
    command: list[str]
    made: list[Path]


def levels(layer: Layer, blob: Path, folder: Path) -> Iterator[Level]:
    """Yield what to run, each in a folder that is empty."""
    for name in OURS:
        place = folder / name
        command = [sys.executable, "-m", "benchmarks.levels", str(blob), layer.diff_id, name, str(place)]
        yield Level(title=f"sregistry {name}", command=command, made=[place])
    if shutil.which("mksquashfs"):
        for level in THEIRS:
            image = folder / f"{level}.squashfs"
            packer = shlex.join(["mksquashfs", "-", str(image), "-tar", *_OPTIONS, "-Xcompression-level", str(level)])
            script = f"gzip -dc {shlex.quote(str(blob))} | {packer}"
            yield Level(title=f"mksquashfs gzip {level}", command=["bash", "-euc", script], made=[image])


def weigh(paths: list[Path]) -> int:
    """Return the bytes of files and of all files in folders."""
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _explode(blob: Path, diff_id: str, level: str, folder: Path) -> None:
    from sregistry.layers.compression import Compression
    from sregistry.layers.explode import explode
    from sregistry.oci.documents import Digest
    from sregistry.store.store import Store

    digest = Digest(f"sha256:{blob.name}")
    store = Store(folder.with_name(f"{folder.name}-store"))
    place = store.blob(digest)
    place.parent.mkdir(parents=True)
    place.symlink_to(blob)
    made = explode(store, digest, Digest(diff_id), Compression(level=level), len(os.sched_getaffinity(0)))
    made.folder.rename(folder)


if __name__ == "__main__":
    _explode(Path(sys.argv[1]), sys.argv[2], sys.argv[3], Path(sys.argv[4]))
