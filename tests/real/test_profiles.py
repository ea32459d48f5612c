"""Every profile is read by Snakemake; those of PBS and Grid Engine run batches through a small queue that stands in for them."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.real.conftest import Pipeline

PROFILES = sorted(path.parent.name for path in (REPOSITORY / "workflow/profiles").glob("*/config.yaml"))
BATCH = ("demo/tiny:1", "demo/sizes:1")


def run(pipeline: Pipeline, profile: str, *options: str) -> subprocess.CompletedProcess[str]:
    pipeline.folder.mkdir(parents=True, exist_ok=True)
    (pipeline.folder / "batch.yaml").write_text(f"uri: [{', '.join(BATCH)}]\n")
    command = [sys.executable, "-m", "snakemake", "--profile", str(REPOSITORY / "workflow/profiles" / profile)]
    command += ["--configfile", str(pipeline.folder / "batch.yaml"), "--directory", str(pipeline.folder), *options]
    return subprocess.run(command, cwd=REPOSITORY, env=pipeline.environment(), capture_output=True, text=True, timeout=300, check=False)


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


@pytest.mark.needs("amd64", "docker-registry")
@pytest.mark.parametrize("kind", ["pbs", "sge"])
def test_a_batch_through_a_queue(kind: str, pipeline: Pipeline, registry: str, tmp_path: Path) -> None:
    commands = tmp_path / "queue"
    commands.mkdir()
    (commands / "kind").write_text(kind)
    for name in ("qsub", "qstat", "qacct", "qdel"):
        (commands / name).write_text((REPOSITORY / "tests/real/queue.py").read_text())
        (commands / name).chmod(0o755)
    secret = "sec" + "ret-of-the-queue"
    pipeline.more |= {"PATH": f"{commands}:{pipeline.environment()['PATH']}", "SREGISTRY_NVIDIA_TOKEN": secret}
    done = run(pipeline, kind, "--latency-wait", "20", "--seconds-between-status-checks", "1")
    assert done.returncode == 0, done.stderr
    local = Pipeline(tmp_path / "local", registry)
    assert local.run(f"uri=[{','.join(BATCH)}]").returncode == 0
    for uri in BATCH:
        assert pipeline.image(uri).read_bytes() == local.image(uri).read_bytes()
    assert len((commands / "calls").read_text().splitlines()) == 2 * len(BATCH)
    for path in [*pipeline.folder.rglob("*"), *commands.iterdir()]:
        assert not path.is_file() or secret.encode() not in path.read_bytes(), path
