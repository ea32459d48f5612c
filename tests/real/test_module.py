"""A workflow that has our rules as a module runs its own rule in an image that they make, by Apptainer and `container:`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support.snakemake import command, inherited, settings

pytestmark = pytest.mark.needs("docker-registry", "apptainer")

SNAKEFILE = f"""\
# The image has no other shell.
shell.executable("/bin/sh")


module sregistry:
    snakefile:
        "{REPOSITORY}/workflow/Snakefile"
    config:
        {{"uri": "demo/run:shell-form"}}
    prefix:
        "containers"


use rule * from sregistry as sregistry_*


rule show:
    default_target: True
    input:
        image=sregistry.receipt_of("demo/run:shell-form"),
    output:
        "shown",
    container:
        sregistry.file_of("demo/run:shell-form")
    shell:
        "/bin/show inside $APPTAINER_NAME > {{output}}"
"""


def test_a_rule_runs_in_the_image(registry: str, tmp_path: Path) -> None:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    # Snakemake looks for this name on PATH.
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/apptainer").symlink_to(REPOSITORY / "tests/real/apptainer")
    environ = {
        **inherited(),
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        **settings(tmp_path, registry),
        # What Snakemake binds into the container is to be in a folder that the wrapper of these tests shows.
        "XDG_CACHE_HOME": str(tmp_path / "sources"),
    }
    words = command("--cores", "2", "--sdm", "apptainer", snakefile=None)
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "shown").read_text() == "".join(f"<{word}>\n" for word in ("inside", "demo-run:shell-form.sif"))
    assert "Activating singularity image" in done.stderr.replace("apptainer", "singularity")
