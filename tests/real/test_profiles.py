"""Every profile is read by Snakemake; those of PBS and Grid Engine run batches through a small queue that stands in for them."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.real.conftest import Pipeline
from tests.support import snakemake

PROFILES = sorted(path.parent.name for path in (REPOSITORY / "workflow/profiles").glob("*/config.yaml"))
BATCH = ("demo/tiny:1", "demo/sizes:1")


def command(pipeline: Pipeline, profile: str, *options: str) -> list[str]:
    pipeline.folder.mkdir(parents=True, exist_ok=True)
    (pipeline.folder / "batch.yaml").write_text(f"uri: [{', '.join(BATCH)}]\n")
    what: list[str | Path] = [
        "--workflow-profile",
        REPOSITORY / "workflow/profiles" / profile,
        "--configfile",
        pipeline.folder / "batch.yaml",
    ]
    return snakemake.command(*what, "--directory", pipeline.folder, *options, snakefile=None)


def run(pipeline: Pipeline, profile: str, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(pipeline, profile, *options),
        cwd=REPOSITORY,
        env=pipeline.environment(),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def summary(pipeline: Pipeline) -> Any:
    return json.loads((pipeline.folder / "results/summary.json").read_text())


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.1)


@pytest.mark.parametrize("name", PROFILES)
def test_snakemake_reads_the_profile(name: str, tmp_path: Path) -> None:
    done = run(Pipeline(tmp_path / "work", "127.0.0.1:9"), name, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^Job \d+: manifest ", done.stdout + done.stderr, re.MULTILINE)) == len(BATCH), done.stdout + done.stderr


@pytest.mark.parametrize("name", PROFILES)
def test_each_line_of_a_profile_has_a_comment(name: str) -> None:
    lines = (REPOSITORY / "workflow/profiles" / name / "config.yaml").read_text().splitlines()
    for before, line in itertools.pairwise(lines):
        assert line.startswith("#") or not line or before.startswith("#"), line
    assert yaml.safe_load("\n".join(lines))


@pytest.mark.parametrize("name", ["pbs", "sge"])
def test_a_relative_profile_with_another_folder_is_refused(name: str, tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "work", "127.0.0.1:9")
    words = command(pipeline, name)
    words[words.index("--workflow-profile") + 1] = f"workflow/profiles/{name}"
    done = subprocess.run(words, cwd=REPOSITORY, env=pipeline.environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    where = f"workflow/profiles/{name}/submit is not found from {pipeline.folder}"
    assert errors == [f"error: the profile's program {where}; say --workflow-profile with the full path of its folder"]


SOON = ("--latency-wait", "20", "--seconds-between-status-checks", "1")


@pytest.fixture(params=["pbs", "sge"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def queue(kind: str, pipeline: Pipeline, tmp_path: Path) -> Path:
    """The stand-in's commands, first on the pipeline's PATH."""
    commands = tmp_path / "queue"
    commands.mkdir()
    (commands / "kind").write_text(kind)
    for name in ("qsub", "qstat", "qacct", "qdel"):
        (commands / name).write_text((REPOSITORY / "tests/support/queue.py").read_text())
        (commands / name).chmod(0o755)
    pipeline.more["PATH"] = f"{commands}:{pipeline.environment()['PATH']}"
    return commands


@pytest.mark.needs("amd64", "docker-registry")
def test_a_batch_through_a_queue(kind: str, queue: Path, pipeline: Pipeline, registry: str, tmp_path: Path) -> None:
    secret = "sec" + "ret-of-the-queue"
    pipeline.more["SREGISTRY_NVIDIA_TOKEN"] = secret
    done = run(pipeline, kind, *SOON)
    assert done.returncode == 0, done.stderr
    local = Pipeline(tmp_path / "local", registry)
    assert local.run(f"uri=[{','.join(BATCH)}]").returncode == 0
    for uri in BATCH:
        assert pipeline.image(uri).read_bytes() == local.image(uri).read_bytes()
    assert len((queue / "calls").read_text().splitlines()) == len(BATCH)
    for path in [*pipeline.folder.rglob("*"), *queue.iterdir()]:
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path


@pytest.mark.needs("amd64", "docker-registry")
def test_a_job_that_fails_in_a_queue(kind: str, queue: Path, pipeline: Pipeline, tmp_path: Path) -> None:
    (hook := tmp_path / "hook").mkdir()
    (hook / "sitecustomize.py").write_text(
        "import os, sys\nif 'explode' in sys.orig_argv[3:5]:\n    os.write(2, b'error: the node is out of order\\n')\n    os._exit(1)\n"
    )
    path = os.environ.get("PYTHONPATH", "")
    pipeline.more["PYTHONPATH"] = f"{hook}:{path}"
    done = run(pipeline, kind, *SOON)
    assert done.returncode == 1
    assert re.search(r"^error: the node is out of order$", done.stderr, re.MULTILINE), done.stderr
    statuses = {image["uri"].rpartition("/")[2]: image["status"] for image in summary(pipeline)["images"]}
    assert statuses == {"tiny:1": "failed", "sizes:1": "failed"}
    del pipeline.more["PYTHONPATH"]
    done = run(pipeline, kind, *SOON)
    assert done.returncode == 0, done.stderr
    assert all(pipeline.image(uri).is_file() for uri in BATCH)


@pytest.mark.needs("amd64", "docker-registry")
def test_an_interrupted_run_goes_on(kind: str, queue: Path, pipeline: Pipeline, tmp_path: Path) -> None:
    (hook := tmp_path / "hook").mkdir()
    (hook / "sitecustomize.py").write_text(
        "import os, sys, time\n"
        "if 'explode' in sys.orig_argv[3:5]:\n"
        f"    open({str(hook)!r} + '/job-' + str(os.getsid(0)), 'w').close()\n"
        "    time.sleep(200)\n"
    )
    path = os.environ.get("PYTHONPATH", "")
    pipeline.more["PYTHONPATH"] = f"{hook}:{path}"
    # A round of questions is best not to come between: Snakemake forgets the jobs for as long as it lasts.
    seldom = ("--latency-wait", "20", "--seconds-between-status-checks", "20")
    started = subprocess.Popen(
        command(pipeline, kind, *seldom), cwd=REPOSITORY, env=pipeline.environment(), stderr=subprocess.PIPE, text=True
    )
    try:
        # Snakemake knows the numbers of both by then.
        wait_for(lambda: len(list(hook.glob("job-*"))) == len(BATCH))
        started.send_signal(signal.SIGINT)
        _, said = started.communicate(timeout=200)
    finally:
        started.kill()
    assert started.returncode != 0
    # Snakemake gives qdel two seconds, and passes over one that takes longer.
    waits = [path.stem for path in queue.glob("*.pid") if not path.with_suffix(".code").exists()]
    subprocess.run([queue / "qdel", *waits], check=True)
    assert [path.read_text() for path in queue.glob("*.code")] == ["271\n"] * len(BATCH), said
    pipeline.more["PYTHONPATH"] = path
    done = run(pipeline, kind, *SOON)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"^Job \d+: (manifest|layer) ", done.stderr, re.MULTILINE)
