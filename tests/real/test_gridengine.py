"""The profile of Grid Engine against a real one: a batch, and what its scripts make of jobs that end otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.real.conftest import Pipeline
from tests.support import gridengine
from tests.support.gridengine import GridEngine, wait_until
from tests.support.snakemake import command

pytestmark = pytest.mark.needs("gridengine")

PROFILE = REPOSITORY / "workflow/profiles/sge"


@pytest.fixture(scope="module")
def grid() -> Iterator[GridEngine]:
    with gridengine.running() as grid:
        yield grid


class Jobs:
    """Jobs of the profile, submitted and asked for from *folder* as Snakemake does."""

    def __init__(self, grid: GridEngine, folder: Path) -> None:
        self.grid, self.folder = grid, folder
        self.environ = {**os.environ, **grid.environment, "PATH": f"{grid.commands}:{os.environ['PATH']}", "HOME": str(folder / "home")}

    def submit(self, body: str, *, threads: int = 1) -> subprocess.CompletedProcess[str]:
        properties = {"threads": threads, "resources": {"mem_mb": 500, "runtime": 5}}
        script = self.folder / "job.sh"
        script.write_text(f"#!/bin/sh\n# properties = {json.dumps(properties)}\n{body}\n")
        return subprocess.run([PROFILE / "submit", script], cwd=self.folder, env=self.environ, capture_output=True, text=True, check=False)

    def status(self, number: str) -> str:
        done = subprocess.run([PROFILE / "status", number], cwd=self.folder, env=self.environ, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def notes(self, number: str) -> Path:
        return self.folder / f".snakemake/scheduler/{number}"

    def gone(self, number: str) -> bool:
        return self.grid.run("qstat", "-j", number).returncode != 0

    def runs(self, number: str) -> bool:
        return any(
            line.split()[:1] == [number] and line.split()[4] == "r" for line in self.grid.run("qstat", "-u", "*").stdout.splitlines()
        )


@pytest.fixture
def jobs(grid: GridEngine, tmp_path: Path) -> Jobs:
    folder = tmp_path / "work, 'here' {x}: $y"
    folder.mkdir()
    return Jobs(grid, folder)


@pytest.mark.parametrize(("code", "state"), [(0, "success"), (3, "failed")])
@pytest.mark.parametrize("noted", [True, False], ids=["noted", "by the accounts"])
def test_a_job_that_ends(jobs: Jobs, code: int, state: str, noted: bool) -> None:
    number = jobs.submit(f"echo $XDG_CACHE_HOME; exit {code}").stdout.strip()
    wait_until(lambda: jobs.gone(number), "the job stays")
    exit_code = jobs.notes(f"{number}.exit")
    assert exit_code.read_text() == f"{code}\n"
    if not noted:
        exit_code.unlink()
    wait_until(lambda: jobs.status(number) != "running", "the job has no account")
    assert jobs.status(number) == state
    # The home of the job's user is the system's, whatever HOME is here.
    assert jobs.notes(f"sregistry.o{number}").read_text() == f"{jobs.folder / '.snakemake'}\n"


def test_a_waiting_job_that_is_deleted(jobs: Jobs) -> None:
    blocker = jobs.submit("sleep 100", threads=gridengine.SLOTS).stdout.strip()
    waiting = jobs.submit("true").stdout.strip()
    assert jobs.status(waiting) == "running"
    jobs.grid.must("qdel", waiting)
    wait_until(lambda: jobs.gone(waiting), "the job stays")
    assert jobs.status(waiting) == "running"  # its files may be late
    since = time.time() - 21
    os.utime(jobs.notes(f"{waiting}.gone"), (since, since))
    assert jobs.status(waiting) == "failed"
    jobs.grid.must("qdel", blocker)


def test_a_running_job_that_is_deleted(jobs: Jobs) -> None:
    number = jobs.submit("sleep 100").stdout.strip()
    wait_until(lambda: jobs.runs(number), "the job does not start")
    assert jobs.status(number) == "running"
    jobs.grid.must("qdel", number)
    wait_until(lambda: jobs.status(number) != "running", "the job has no account")
    assert jobs.status(number) == "failed"
    assert not jobs.notes(f"{number}.exit").exists()


@pytest.mark.parametrize(("code", "state"), [(0, "success"), (3, "failed")])
def test_a_job_that_runs_once_more(jobs: Jobs, code: int, state: str) -> None:
    number = jobs.submit(f"[ -e again ] && exit {code}; : >again; sleep 100").stdout.strip()
    wait_until(lambda: (jobs.folder / "again").exists() and jobs.runs(number), "the job does not start")
    jobs.grid.must("qmod", "-rj", number)
    wait_until(lambda: jobs.gone(number), "the job stays")
    jobs.notes(f"{number}.exit").unlink()
    wait_until(lambda: jobs.status(number) != "running", "the job has no account")
    assert jobs.grid.must("qacct", "-j", number).count("=====\n") == 2
    assert jobs.status(number) == state


def test_more_slots_than_there_are(jobs: Jobs) -> None:
    done = jobs.submit("true", threads=8)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: Grid Engine refuses a job of 8 slots and 500 MB: ")
    assert line.endswith("`cores` of the profile is the most slots of a job")
    assert jobs.grid.run("qstat", "-u", "*").stdout.strip() == ""


@pytest.mark.needs("amd64", "docker-registry")
@pytest.mark.parametrize("threads", [gridengine.SLOTS, 8], ids=["fits", "too large"])
def test_a_batch(grid: GridEngine, pipeline: Pipeline, threads: int) -> None:
    pipeline.more |= {**grid.environment, "PATH": f"{grid.commands}:{pipeline.environment()['PATH']}"}
    pipeline.folder.mkdir(parents=True)
    flags: list[str | Path] = ["--workflow-profile", PROFILE, "--directory", pipeline.folder, "--cores", str(threads)]
    flags += ["--latency-wait", "20", "--seconds-between-status-checks", "1"]
    words = command(*flags, config=["uri=demo/tiny:1"], snakefile=None)
    environ = pipeline.environment()
    done = subprocess.run(words, cwd=REPOSITORY, env=environ, capture_output=True, text=True, timeout=280, check=False)
    assert (done.returncode == 0) == pipeline.image("demo/tiny:1").is_file() == (threads == gridengine.SLOTS), done.stderr
    if threads > gridengine.SLOTS:
        errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert errors and errors[-1].startswith("error: Grid Engine refuses a job of 8 slots"), done.stderr
