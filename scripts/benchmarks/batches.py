"""Batches of any number of images: what planning and scheduling cost must grow with the jobs, no faster.

```
images of tiny layers ─▶ sregistry serve ─▶ snakemake   whole: the stages themselves
                                    results ─▶ snakemake   again: nothing is left to do
                                  manifests ─▶ snakemake   plan: a dry run of all other jobs
                                    results ─▶ snakemake   empty: a copy of what a stage made is its whole work
```

The Snakefile, the rules and Snakemake are the real ones in all four; each layer is one file of a few bytes.
`python -m benchmarks.batches ARGUMENT…` is one `snakemake ARGUMENT…` that tells at its end what it took.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.images import Layer, Layout
from benchmarks.packages import BenchmarkError
from benchmarks.peers import REPOSITORY, inherited

#: The part of an image's layers that all images of a batch have.
SHARED = 0.7
_USAGE = "usage "


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A batch: its images, and the layers of each."""

    images: int
    layers: int

    @property
    def common(self) -> int:
        """Return how many layers all images have."""
        return round(self.layers * SHARED)

    @property
    def distinct(self) -> int:
        """Return how many layers there are in all."""
        return self.common + self.images * (self.layers - self.common)


def cases(*, quick: bool) -> list[Case]:
    """Return what is measured."""
    return [Case(images=images, layers=layers) for layers in ((10,) if quick else (10, 60)) for images in (1, 10, 50, 200)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """What a run of Snakemake took: seconds on the clock, seconds of CPU of its own and of its jobs, its largest resident set."""

    wall: float
    own: float
    jobs: float
    memory: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What a batch took, by the ways to run it that this module's head tells; `jobs` is their number from nothing."""

    images: int
    layers: int
    distinct: int
    jobs: int
    plan: Usage
    empty: Usage
    whole: Usage
    again: Usage


#: A stage's place is taken by what it made before. `python3` in the rules is beside the interpreter that runs Snakemake.
_EMPTY = """\
#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in --output | --tar) cp "$BENCHMARK_MADE/$2" "$2"; shift ;; esac
    shift
done
"""


def measure(case: Case, folder: Path) -> Batch:
    """Measure a batch in an empty *folder*. Raises BenchmarkError: a run failed."""
    uris = publish(case, folder / "registry")
    interpreters = folder / "bin"
    interpreters.mkdir()
    (interpreters / "python").symlink_to(sys.executable)
    (interpreters / "python3").write_text(_EMPTY)
    (interpreters / "python3").chmod(0o755)
    whole, empty = folder / "whole", folder / "empty"
    for work in (whole, empty):
        work.mkdir()
        (work / "batch.json").write_text(json.dumps({"uri": uris}))
    with _served(folder / "registry", folder / "registry.log") as address:
        variables = {
            **inherited(),
            "SREGISTRY_NVIDIA_BASE": address,
            "SREGISTRY_NVIDIA_NOHTTPS": "yes",
            "SREGISTRY_STORAGE": str(folder / "storage"),
            "SREGISTRY_DATABASE": str(folder / "database"),
            "SINGULARITY_CACHEDIR": str(folder / "cache"),
            "BENCHMARK_MADE": str(folder / "made"),
            # Of an interpreter that is named by a link, too.
            "PYTHONPATH": os.pathsep.join((str(REPOSITORY / "scripts"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))),
        }
        run = _snakemake(whole, variables, folder / "whole.log")
        made = len(list((folder / "storage").iterdir()))
        if made != case.images:
            raise BenchmarkError(f"{made} images were made of {case.images}; see {folder / 'whole.log'}")
        jobs = _jobs(whole)
        again = _snakemake(whole, variables, folder / "again.log")
    # Nobody answers from here on.
    shutil.copytree(whole / "results", folder / "made/results")
    bare = _snakemake(empty, variables, folder / "empty.log", python=interpreters / "python")
    if _jobs(empty) != jobs:
        raise BenchmarkError(f"{_jobs(empty)} jobs of {jobs} were run; see {folder / 'empty.log'}")
    _forget(empty / "results")
    plan = _snakemake(empty, variables, folder / "plan.log", "--dry-run")
    sizes = {"images": case.images, "layers": case.layers, "distinct": case.distinct, "jobs": jobs}
    return Batch(**sizes, plan=plan, empty=bare, whole=run, again=again)


def _jobs(work: Path) -> int:
    """Return how many jobs have ended in a working folder: each has its measurement."""
    return len(list((work / "benchmarks").glob("*/*")))


def publish(case: Case, root: Path) -> list[str]:
    """Make an OCI image layout with the images of a batch; return their names."""
    layout = Layout(root)
    common = [_layer(layout, f"common-{number}") for number in range(case.common)]
    manifests = []
    for image in range(case.images):
        own = [_layer(layout, f"own-{image}-{number}") for number in range(case.layers - case.common)]
        name = f"benchmark/image-{image}:1"
        annotations = {"org.opencontainers.image.ref.name": name}
        manifests.append({**layout.image([*common, *own], name), "annotations": annotations})
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    return [manifest["annotations"]["org.opencontainers.image.ref.name"] for manifest in manifests]


def _layer(layout: Layout, text: str) -> Layer:
    """Keep a layer of one file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        item = tarfile.TarInfo(text)
        item.size = len(text)
        tar.addfile(item, io.BytesIO(text.encode()))
    stream = buffer.getvalue()
    blob = gzip.compress(stream, mtime=0)
    digest = layout.add(blob, "")["digest"]
    diff_id = f"sha256:{hashlib.sha256(stream).hexdigest()}"
    return Layer(name=text, digest=digest, size=len(blob), diff_id=diff_id, tar=len(stream), entries=1)


def _forget(results: Path) -> None:
    """Remove what a run has noted down, but what the images' manifests say."""
    for path in results.rglob("*"):
        if path.is_file() and path.name != "manifest.json" and path.parent.name != "batch":
            path.unlink()


@contextlib.contextmanager
def _served(root: Path, log: Path) -> Iterator[str]:
    """Serve a layout; give its host:port."""
    with log.open("w") as file:
        command = [sys.executable, "-m", "sregistry.cli", "serve", str(root), "--port", "0"]
        server = subprocess.Popen(command, stderr=file, env={**os.environ, "PYTHONPATH": str(REPOSITORY / "scripts")})
    try:
        for _ in range(200):
            found = re.search(r"on http://(\S+)", log.read_text())
            if found:
                yield found[1]
                return
            time.sleep(0.05)
        raise BenchmarkError(f"sregistry serve does not answer; see {log}")
    finally:
        server.terminate()
        server.wait()


def _snakemake(work: Path, environ: Mapping[str, str], log: Path, *options: str, python: Path = Path(sys.executable)) -> Usage:
    """Run Snakemake on the batch of *work* by an interpreter. Raises BenchmarkError."""
    config = ["--snakefile", str(REPOSITORY / "workflow/Snakefile"), "--configfile", "batch.json"]
    start = time.monotonic()
    with log.open("wb") as file:
        command = [str(python), "-m", "benchmarks.batches", *config, *options]
        code = subprocess.run(command, cwd=work, env=environ, stdout=file, stderr=file, check=False).returncode
    wall = time.monotonic() - start
    lines = log.read_text().splitlines()
    # A run that had nothing to do tells of its images on the way out, after this.
    said = [line.removeprefix(_USAGE) for line in lines if line.startswith(_USAGE)]
    if code or not said:
        raise BenchmarkError(f"snakemake failed with {code}: {lines[-1] if lines else 'it said nothing'}; see {log}")
    return Usage(wall=wall, **json.loads(said[-1]))


def main(arguments: Sequence[str]) -> int:
    """Run Snakemake in this process, say what it took as JSON on stderr, and return its exit code."""
    from snakemake.cli import main as snakemake

    code: Any = 0
    try:
        snakemake(arguments)
    except SystemExit as end:
        code = end.code
    own, jobs = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    # Not ru_maxrss: it begins with the memory of the process that started this one.
    highest = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    found = {"own": own.ru_utime + own.ru_stime, "jobs": jobs.ru_utime + jobs.ru_stime, "memory": int(highest.split()[1]) * 1024}
    print(_USAGE + json.dumps(found), file=sys.stderr)
    return code if isinstance(code, int) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
