"""The catalog at 100, 1,000 and 10,000 records: what it costs to add one, to find one, to list all.

In this process each is the best of several; the commands are what a person waits for, Python's start included.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

NUMBERS = (100, 1_000, 10_000)
#: Layers of an image, as those of nvcr.io have them: what a manifest's size comes from.
_LAYERS = 50
_TIMES = 5
_HEAD = (
    "records",
    "database MB",
    "manifests MB",
    "add s",
    "find s",
    "list s",
    "`sregistry get` s",
    "`sregistry images` s",
    "`sregistry inspect` s",
)


def main() -> None:
    """Measure all numbers and print a table."""
    print(f"| {' | '.join(_HEAD)} |\n| {' | '.join(['---:'] * len(_HEAD))} |")
    for number in NUMBERS:
        with tempfile.TemporaryDirectory(prefix="sregistry-benchmark-") as folder:
            print(f"| {number:,} | {' | '.join(measure(number, Path(folder)))} |", flush=True)


def measure(number: int, folder: Path) -> list[str]:
    """Return the cells of a row, for that many records in *folder*."""
    from sregistry.catalog.catalog import Catalog
    from sregistry.catalog.lookup import Lookup
    from sregistry.catalog.record import Record
    from sregistry.config.settings import Settings

    catalog = Catalog(folder)
    lookup = Lookup.of(catalog, Settings.load(environ={}), {})
    catalog.add_all(Record.parse(document(n)) for n in range(number))
    last = f"nvidia/image-{number - 1}:24.01-py3"
    sizes = [catalog.path.stat().st_size, sum(path.stat().st_size for path in (folder / "manifests").iterdir())]
    fresh = iter(range(number, number + _TIMES))
    works: list[Callable[[], object]] = [
        lambda: catalog.add(Record.parse(document(next(fresh)))),
        lambda: lookup.find(last),
        catalog.records,
    ]
    commands = (["get", last], ["images"], ["inspect", last])
    return [
        *(f"{size / 1e6:,.1f}" for size in sizes),
        *(f"{best(work):.3f}" for work in works),
        *(f"{best(partial(_run, command, folder)):.2f}" for command in commands),
    ]


def document(number: int) -> dict[str, Any]:
    """Return a record as large as one of nvcr.io: each image has layers of its own, and some of all."""
    layers = [
        {
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "size": 1 << 20,
            "digest": _digest(f"layer {layer if layer < _LAYERS * 7 // 10 else (number, layer)}"),
        }
        for layer in range(_LAYERS)
    ]
    name = f"image-{number}"
    labels = {f"com.nvidia.component-{label}.version": f"{label}.4.1.3-1+cuda12.4" for label in range(12)}
    return {
        "client": "nvidia",
        "collection": "nvidia",
        "name": name,
        "tag": "24.01-py3",
        "uri": f"nvidia/{name}:24.01-py3",
        "url": f"https://nvcr.io/v2/nvidia/{name}/manifests/24.01-py3",
        "registry": "nvcr.io",
        "digest": _digest(name),
        "version": _digest(f"file of {name}")[7:],
        "image": f"/shared/images/nvidia-{name}:24.01-py3.sif",
        "size": 10 << 30,
        "compressed_size": 9 << 30,
        "created_at": datetime.fromtimestamp(1.7e9 + number, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        "format": "sif",
        "platform": "linux/amd64",
        "metrics": {"2": {"schemaVersion": 2, "layers": layers}, "selfLink": f"https://nvcr.io/v2/nvidia/{name}/manifests"},
        "facts": {"labels": labels, "versions": {"cuda": "12.4.1", "driver": "550.54"}},
    }


def best(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest of several runs."""
    times = []
    for _ in range(_TIMES):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def _run(arguments: list[str], database: Path) -> None:
    from os import environ

    settings: Mapping[str, str] = {**environ, "SREGISTRY_DATABASE": str(database)}
    command = [sys.executable, "-m", "sregistry.cli", "--quiet", *arguments]
    done = subprocess.run(command, check=False, env=settings, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    # The images are on no disk: `get` says so, in the end.
    if done.returncode and "but is gone" not in done.stderr:
        raise RuntimeError(done.stderr)


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
