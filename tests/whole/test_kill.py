"""SIGKILL at random instants: four processes pull one image into one store, and are killed and started again.

Whenever it happens, no name in the store ever stands for wrong bytes, the next process goes on without help,
and the image is the undisturbed one, byte for byte.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from sregistry.layers.index import Index
from sregistry.oci.documents import Digest
from sregistry.store.store import Store
from tests.support.images import Layout, layer
from tests.support.registry import serving
from tests.support.tarball import directory, file

pytestmark = pytest.mark.slow("many kills", once=True)

ROUNDS, KILLS, PROCESSES = 10, 20, 4

#: All stages of one image, as the rules call them.
_PULL = """
import json, sys
from pathlib import Path
from sregistry.stages.__main__ import main

def stage(*arguments):
    code = main([str(a) for a in arguments])
    if code:
        sys.exit(code)

store, work = map(Path, sys.argv[1:])
keep = ["--cache", store]
compression = ["--codec", "gzip", "--level", "default", "--block-size", 131072]
manifest = work / "manifest.json"
stage("manifest", "--uri", "demo/killed:1", "--client", "nvidia", "--platform", "linux/amd64", *keep, "--output", manifest)
exploded = []
for number, item in enumerate(json.loads(manifest.read_text())["layers"]):
    blob, made = work / f"{number}.blob", work / f"{number}.exploded"
    stage("layer", "--manifest", manifest, "--digest", item["digest"], *keep, "--output", blob)
    stage("explode", "--layer", blob, *keep, *compression, "--threads", 2, "--output", made)
    exploded.append(made)
metadata = work / "metadata.json"
stage("metadata", "--manifest", manifest, *keep, *compression, "--tar", work / "metadata.tar", "--output", metadata)
stage("sandbox", "--manifest", manifest, "--metadata", metadata, "--output", work / "sandbox.index", *exploded)
stage("image", "--manifest", manifest, "--metadata", metadata, "--sandbox", work / "sandbox.index", "--format", "sif",
      "--target", work / "image.sif", "--output", work / "image.json")
"""


@dataclass
class Crowd:
    """Processes that pull the image of *host* into the store of *root*."""

    root: Path
    host: str
    forgotten: list[str] = field(default_factory=list)

    @property
    def store(self) -> Store:
        return Store(self.root / "cache" / "docker")

    def start(self, number: int) -> subprocess.Popen[str]:
        work = self.root / f"work-{number}"
        work.mkdir(exist_ok=True)
        environ = {"PATH": "/usr/bin:/bin", "SREGISTRY_NVIDIA_BASE": self.host, "SREGISTRY_NVIDIA_NOHTTPS": "yes"}
        command = [sys.executable, "-c", _PULL, str(self.root / "cache"), str(work)]
        return subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2] / "scripts")

    def finish(self, number: int, job: subprocess.Popen[str]) -> bytes:
        said = job.communicate(timeout=120)[1]
        if self.robbed(job, said):
            job = self.start(number)
            said = job.communicate(timeout=120)[1]
        assert job.returncode == 0, said
        return (self.root / f"work-{number}" / "image.sif").read_bytes()

    def robbed(self, job: subprocess.Popen[str], said: str) -> bool:
        """Tell whether a job failed because a blob that it needed was taken away by hand: in one line that says so."""
        lines = [line for line in said.splitlines() if line.startswith("error: ")]
        return job.returncode == 1 and len(lines) == 1 and lines[0].endswith("; run again to fetch it anew") and bool(self.forgotten)

    def files(self) -> dict[str, bytes]:
        """Return all that has a final name."""
        root = self.store.root
        return {
            str(path.relative_to(root)): path.read_bytes()
            for name in ("blobs", "exploded")
            for path in (root / name).rglob("*")
            if path.is_file()
        }


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    draw = random.Random(7)
    layout = Layout(tmp_path_factory.mktemp("layout"))
    layers = []
    for number in range(6):
        words = [draw.randbytes(12) for _ in range(400)]
        files = [file(b"d%d/f%d" % (number, n), b"".join(draw.choices(words, k=draw.randrange(1, 30_000)))) for n in range(12)]
        layers.append(layer([directory(b"d%d" % number), *files]))
    layout.tag("demo/killed:1", layout.image(layers, {"Cmd": ["/bin/true"]}))
    with serving(layout) as server:
        yield server.address


def _end(jobs: list[subprocess.Popen[str]]) -> None:
    for job in jobs:
        job.kill()
        job.communicate()


def test_no_kill_leaves_a_wrong_byte(host: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    calm = Crowd(tmp_path / "calm", host)
    calm.root.mkdir()
    image = calm.finish(0, calm.start(0))
    right = calm.files()
    killed = 0
    for number in range(ROUNDS):
        draw = random.Random(number)
        crowd = Crowd(tmp_path / f"round-{number}", host)
        crowd.root.mkdir()
        jobs = [crowd.start(n) for n in range(PROCESSES)]
        request.addfinalizer(partial(_end, jobs))
        struck = 0
        while struck < KILLS:
            time.sleep(draw.uniform(0, 0.25))
            who = draw.randrange(PROCESSES)
            running = jobs[who].poll() is None
            jobs[who].kill()
            said = jobs[who].communicate()[1]
            assert jobs[who].returncode in (0, -signal.SIGKILL) or crowd.robbed(jobs[who], said), said
            struck += running
            if not running:  # it had ended: what it made is taken away, so that there is work again
                _forget(crowd, draw)
            _check_names(crowd, right)
            jobs[who] = crowd.start(who)
        killed += struck
        assert [crowd.finish(n, job) for n, job in enumerate(jobs)] == [image] * PROCESSES
        assert crowd.files() == right
        assert not list((crowd.store.root / "ingest").glob("*.partial"))
    assert killed >= 200


def _forget(crowd: Crowd, draw: random.Random) -> None:
    """Remove a blob, as somebody who cleans up by hand might."""
    blobs = [path for path in (crowd.store.root / "blobs").rglob("*") if path.is_file() and path.stat().st_size > 10_000]
    if blobs:
        chosen = draw.choice(blobs)
        chosen.unlink(missing_ok=True)
        crowd.forgotten.append(chosen.name)


def _check_names(crowd: Crowd, right: dict[str, bytes]) -> None:
    """Whatever has a final name is what it should be, also while others are at work."""
    for name, data in crowd.files().items():
        assert data == right[name], name
        if name.startswith("blobs/"):
            assert Digest.of(data).hex == Path(name).name
    for folder in (crowd.store.root / "exploded").glob("*/*"):
        Index.read(folder / "index")
