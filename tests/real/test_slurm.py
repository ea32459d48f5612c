"""Batches through a real Slurm: what comes of them, of jobs that are killed, and of nodes without a network."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.real import slurm as machine
from tests.real.conftest import Pipeline, extracted, partition
from tests.real.slurm import Slurm

pytestmark = pytest.mark.needs("root", "docker-registry", "ip", "munged", "nsenter", "siftool", "slurmctld", "slurmd", "unsquashfs")

BATCH = ('demo/tiny:1', 'demo/sizes:1')
#: A machine of one person answers sooner than a cluster.
SOON = ("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "20")


@pytest.fixture(scope="module")
def slurm(open_folder: Path) -> Iterator[Slurm]:
    folder = open_folder / "slurm"
    folder.mkdir()
    with machine.running(folder) as running:
        yield running


@dataclass
class Cluster(Pipeline):
    """The pipeline with its profile of Slurm: `snakemake --profile workflow/profiles/slurm --configfile batch.yaml`."""

    profile: Path = REPOSITORY / "workflow/profiles/slurm"
    options: list[str] = field(default_factory=list)

    def command(self, *options: str) -> list[str]:
        return [
            *(sys.executable, "-m", "snakemake", "--profile", str(self.profile), "--configfile", str(self.folder / "batch.yaml")),
            *("--directory", str(self.folder), *SOON, *self.options, *options),
        ]

    def batch(self, *uris: str, more: str = "") -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "batch.yaml").write_text(f"uri: [{', '.join(map(repr, uris))}]\n{more}")

    def start(self, *options: str) -> subprocess.Popen[str]:
        log = (self.folder / "log").open("w")
        with log:
            return subprocess.Popen(
                self.command(*options), cwd=REPOSITORY, env=self.environment(), stdout=log, stderr=subprocess.STDOUT, text=True
            )

    def wait(self, run: subprocess.Popen[str]) -> tuple[int, str]:
        try:
            code = run.wait(300)
        finally:
            run.kill()
        return code, (self.folder / "log").read_text()

    def go(self, *options: str) -> tuple[int, str]:
        """Run the command to its end; return its exit code and all it says."""
        return self.wait(self.start(*options))


@pytest.fixture
def cluster(registry: str, slurm: Slurm, tmp_path: Path) -> Cluster:
    return Cluster(tmp_path / "work", registry, slurm.environment)


def test_a_batch_is_what_a_local_run_makes(cluster: Cluster, registry: str, tmp_path: Path) -> None:
    cluster.batch(*BATCH)
    code, said = cluster.go()
    assert code == 0, said
    local = Pipeline(tmp_path / "local", registry)
    result = local.run(f"uri=[{','.join(BATCH)}]")
    assert result.returncode == 0, result.stderr
    for uri in BATCH:
        made = cluster.image(uri)
        assert made.read_bytes() == local.image(uri).read_bytes()
        extracted(made, partition(made), tmp_path / made.name)
