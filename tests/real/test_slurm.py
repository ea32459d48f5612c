"""Batches through a real Slurm: what comes of them, of jobs that are killed, and of nodes without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.real.conftest import Pipeline, extracted, partition
from tests.support import operators
from tests.support import slurm as machine
from tests.support.operators import COMMANDS, IMAGES
from tests.support.slurm import Slurm, wait_until
from tests.support.snakemake import command

pytestmark = pytest.mark.needs("root", "docker-registry", "ip", "munged", "nsenter", "siftool", "slurmctld", "slurmd", "unsquashfs")

BATCH = ("demo/tiny:1", "demo/sizes:1")
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
    """The pipeline with its profile of Slurm: `snakemake --workflow-profile workflow/profiles/slurm --configfile batch.yaml`."""

    profile: Path = REPOSITORY / "workflow/profiles/slurm"
    options: list[str] = field(default_factory=list)

    def command(self, *options: str) -> list[str]:
        what: list[str | Path] = [
            "--workflow-profile",
            self.profile,
            "--configfile",
            self.folder / "batch.yaml",
            "--directory",
            self.folder,
        ]
        return command(*what, *SOON, *self.options, *options, snakefile=None)

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


@pytest.fixture(scope="module")
def expected(registry: str, tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """Return what a run without a cluster made of the batch."""
    local = Pipeline(tmp_path_factory.mktemp("local"), registry)
    result = local.run(f"uri=[{','.join(BATCH)}]")
    assert result.returncode == 0, result.stderr
    return local


def test_a_batch_on_nodes_without_network(cluster: Cluster, slurm: Slurm, expected: Pipeline, tmp_path: Path) -> None:
    host, _, port = cluster.base.partition(":")
    connect = f"import socket; socket.create_connection(({host!r}, {port}), 5)"
    assert slurm.on_the_compute_node(sys.executable, "-c", connect).returncode != 0
    secret = "sec" + "ret-of-the-cluster"
    cluster.more["SREGISTRY_NVIDIA_TOKEN"] = secret
    cluster.batch(*BATCH)
    code, said = cluster.go()
    assert code == 0, said
    for uri in BATCH:
        made = cluster.image(uri)
        assert made.read_bytes() == expected.image(uri).read_bytes()
        extracted(made, partition(made), tmp_path / made.name)
    jobs = slurm.known()
    assert set(re.findall(r" Partition=(\S+)", jobs)) == {"cpu"}
    # An image's own layers, which are small, and its last steps are one job.
    assert len(re.findall(r"JobState=COMPLETED", jobs)) == len(BATCH), jobs
    # Slurm itself keeps the environment of a job, for nobody but itself. Nothing else has the token.
    assert secret not in jobs + said
    for number in re.findall(r"JobId=(\d+)", jobs):
        assert secret not in slurm.command("scontrol", "write", "batch_script", number, "-")
    for path in [*cluster.folder.rglob("*"), *slurm.folder.rglob("*")]:
        if path.is_file() and secret.encode() in path.read_bytes():
            assert path.is_relative_to(slurm.state) and path.name == "environment" and not path.stat().st_mode & 0o077, path


def test_commands_of_the_operators_page(slurm: Slurm, open_folder: Path) -> None:
    (folder := open_folder / "site").mkdir()
    with operators.running(folder) as site:
        site.environ |= slurm.environment
        site.environ["PATH"] = f"{Path(sys.executable).parent}:{site.environ['PATH']}"
        for _, text in COMMANDS["Clusters"]:
            site.run(text)
        assert len(site.images()) == len(IMAGES)


def test_downloads_in_the_transfer_partition(cluster: Cluster, slurm: Slurm, expected: Pipeline) -> None:
    cluster.batch("demo/tiny:1", more="transfer: transfer\n")
    code, said = cluster.go()
    assert code == 0, said
    assert cluster.image("demo/tiny:1").read_bytes() == expected.image("demo/tiny:1").read_bytes()
    found = {(comment, place) for place, comment in re.findall(r" Partition=(\S+).*? Comment=(\S+)", slurm.known())}
    assert {place for comment, place in found if re.match("rule_(manifest|layer)_", comment)} == {"transfer"}, found
    assert {place for comment, place in found if not re.match("rule_(manifest|layer)_", comment)} == {"cpu"}, found


def test_two_batches_on_one_store(cluster: Cluster, expected: Pipeline, tmp_path: Path) -> None:
    other = Cluster(tmp_path / "other", cluster.base, {**cluster.more, "SINGULARITY_CACHEDIR": str(cluster.folder / "cache")})
    runs = []
    for each in (cluster, other):
        each.batch(*BATCH)
        runs.append((each, each.start()))
    for each, run in runs:
        code, said = each.wait(run)
        assert code == 0, said
        for uri in BATCH:
            assert each.image(uri).read_bytes() == expected.image(uri).read_bytes()


def test_jobs_that_are_killed_go_on_at_the_next_run(cluster: Cluster, slurm: Slurm, expected: Pipeline, tmp_path: Path) -> None:
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "if 'explode' in sys.orig_argv[3:5]:\n"
        f"    open({str(hook)!r} + '/job-' + os.environ['SLURM_JOB_ID'], 'w').close()\n"
        "    time.sleep(200)\n"
    )
    path = os.environ.get("PYTHONPATH", "")
    cluster.more["PYTHONPATH"] = f"{hook}:{path}"
    cluster.batch(*BATCH)
    run = cluster.start()
    try:
        # Each has its step by then: one that is still to be made would fail, not run out of time.
        wait_until(lambda: len(list(hook.glob("job-*"))) == len(BATCH), "jobs do not start", slurm)
        (cancelled, *_), (late, *_) = slurm.jobs()
        slurm.command("scancel", cancelled)
        slurm.command("scontrol", "update", f"JobId={late}", "EndTime=now+1")
        code, said = cluster.wait(run)
    finally:
        run.kill()
    assert code == 1
    states = dict(re.findall(r"JobId=(\d+) .*?JobState=(\S+)", slurm.known()))
    assert (states[cancelled], states[late]) == ("CANCELLED", "TIMEOUT")
    blobs = {path: path.stat().st_ino for path in (cluster.folder / "cache/docker/blobs").rglob("*") if path.is_file()}
    cluster.more["PYTHONPATH"] = path
    code, said = cluster.go()
    assert code == 0, said
    assert not re.search(r"^Job \d+: (manifest|layer) ", said, re.MULTILINE)
    assert all(path.stat().st_ino == number for path, number in blobs.items())
    for uri in BATCH:
        assert cluster.image(uri).read_bytes() == expected.image(uri).read_bytes()
