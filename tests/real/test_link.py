"""Real Snakemake runs a rule in an image that it finds by a link, and real Apptainer's own image is imported."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sregistry.client import Client
from sregistry.config.settings import Settings
from tests.conftest import REPOSITORY
from tests.real.conftest import Apptainer, Pulled
from tests.support.snakemake import command

pytestmark = pytest.mark.needs("amd64", "apptainer", "docker-registry", "busybox")


def client_of(pulled: Pulled) -> Client:
    environ = pulled.pipeline.environment()
    return Client(Settings.load(environ=environ), environ)


def test_snakemake_runs_a_rule_in_it(pulled: Pulled, registry: str, tmp_path: Path) -> None:
    pulled("demo/run:neither")
    url = f"docker://{registry}/demo/run:neither"
    client_of(pulled).link(url, tmp_path / "images", engine="snakemake")
    before = sorted((tmp_path / "images").iterdir())
    (tmp_path / "Snakefile").write_text(
        "shell.executable('/bin/sh')  # the image has no bash\n"
        f"rule all:\n    output: 'made'\n    container: '{url}'\n    shell: 'cat /.singularity.d/runscript > {{output}}'\n"
    )
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "apptainer").symlink_to(REPOSITORY / "tests/real/apptainer")
    words = command("--cores", "1", "--sdm", "apptainer", "--apptainer-prefix", tmp_path / "images", snakefile=None)
    environ = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "made").read_text().splitlines()[0] == "#!/bin/sh"
    assert "Pulling singularity image" not in done.stderr
    assert sorted((tmp_path / "images").iterdir()) == before


def test_an_image_of_apptainer_is_imported(apptainer: Apptainer, pulled: Pulled, registry: str, open_folder: Path, tmp_path: Path) -> None:
    folder = open_folder / f"pulled-{os.urandom(4).hex()}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    done = apptainer("pull", "--no-https", "--disable-cache", str(folder / "tiny_1.sif"), f"docker://{registry}/demo/tiny:1")
    assert done.returncode == 0, done.stderr
    environ = {**pulled.pipeline.environment(), "SREGISTRY_DATABASE": str(tmp_path)}
    client = Client(Settings.load(environ=environ), environ)
    (record,) = client.import_(folder).new
    assert (record.uri, record.registry, record.format, record.platform) == ("demo/tiny:1", registry, "sif", "linux/amd64")
    assert client.check(deep=True) == []
