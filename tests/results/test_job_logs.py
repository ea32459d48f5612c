"""What jobs leave: which of it is of this run, and what it tells."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sregistry.results import failures
from sregistry.results.failures import Failure
from sregistry.results.job_logs import Job, JobLogs, JobTrace
from sregistry.results.paths import Results

IMAGE = "demo-0123abcd"
DIGEST = "sha256:" + "01" * 32
BEGIN = 1_700_000_000


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A job that failed after 1.5 seconds."""
    job = next(job for job in JobLogs(Results(tmp_path)).jobs(IMAGE, "v", ()) if job.rule == "image")
    for path, text in ((tmp_path / f"logs/image/{IMAGE}.log", ""), (tmp_path / f"benchmarks/image/{IMAGE}.tsv", "s\tmax_rss\n1.5\t2\n")):
        path.parent.mkdir(parents=True)
        path.write_text(text)
        os.utime(path, (BEGIN, BEGIN))
    failures.note(job.output, Failure(error="no space", hint="free some"))
    return job


def test_the_jobs_of_an_image(tmp_path: Path) -> None:
    jobs = JobLogs(Results(tmp_path)).jobs(IMAGE, "v", [DIGEST])
    assert [(job.rule, job.name, str(job.output.relative_to(tmp_path / "results"))) for job in jobs] == [
        ("manifest", IMAGE, f"{IMAGE}/manifest.json"),
        ("metadata", IMAGE, f"{IMAGE}/metadata.json"),
        ("sandbox", IMAGE, f"{IMAGE}/sandbox.index"),
        ("image", IMAGE, f"{IMAGE}/image.json"),
        ("catalog", IMAGE, f"{IMAGE}/record.json"),
        ("layer", DIGEST, f"layer/{DIGEST}.json"),
        ("explode", f"{DIGEST}.v", f"explode/{DIGEST}.v.json"),
    ]


def test_a_job_of_this_run(tmp_path: Path, job: Job) -> None:
    trace = JobLogs(Results(tmp_path), begin=BEGIN * 10**9).trace(job)
    assert (trace.ran, trace.seconds, str(trace.failure)) == (True, 1.5, "no space; free some")


def test_what_an_earlier_run_left_does_not_count(tmp_path: Path, job: Job) -> None:
    logs = JobLogs(Results(tmp_path), begin=BEGIN * 10**9 + 1)
    assert logs.trace(job) == JobTrace(ran=False)
    assert list(logs.runs(["image"])) == []
    assert [(run.stage, run.seconds, run.memory) for run in JobLogs(Results(tmp_path)).runs(["image"])] == [("image", 1.5, 2 << 20)]


def test_a_job_without_a_log_did_not_run(tmp_path: Path, job: Job) -> None:
    (tmp_path / f"logs/image/{IMAGE}.log").unlink()
    assert JobLogs(Results(tmp_path)).trace(job) == JobTrace(ran=False)
