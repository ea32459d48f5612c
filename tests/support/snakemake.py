"""A call of Snakemake on our workflow, in an environment that no setting of the caller leaks into."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
WORKFLOW = REPOSITORY / "workflow"
NOTHING = "Nothing to be done"
_SETTING = re.compile(r"(SREGISTRY|SINGULARITY|APPTAINER|SNAKEMAKE)_|MESSAGELEVEL$")
#: The rules of the jobs of one image.
ALL = ["manifest", "manifests", "metadata", "layer", "explode", "sandbox", "image", "catalog"]


def inherited() -> dict[str, str]:
    """Return the environment without any setting of ours, of Singularity, Apptainer or Snakemake."""
    return {name: value for name, value in os.environ.items() if not _SETTING.match(name)}


def settings(root: Path, host: str, **more: str) -> dict[str, str]:
    """Return the variables of one who pulls from HOST:PORT by NVIDIA's client, over HTTP, and keeps all below *root*."""
    return {
        "SREGISTRY_NVIDIA_BASE": host,
        "SREGISTRY_NVIDIA_NOHTTPS": "yes",
        "SREGISTRY_STORAGE": str(root / "images"),
        "SREGISTRY_DATABASE": str(root / "database"),
        "SINGULARITY_CACHEDIR": str(root / "cache"),
        **more,
    }


def command(*flags: str | Path, config: Sequence[str] = (), snakefile: Path | None = WORKFLOW / "Snakefile") -> list[str]:
    """Return the words of a call; without *snakefile*, Snakemake looks for one in the working folder."""
    words = [sys.executable, "-m", "snakemake", *map(str, flags)]
    if snakefile is not None:
        words += ["--snakefile", str(snakefile)]
    return words + (["--config", *config] if config else [])


@dataclass
class Run:
    """What one run of Snakemake said."""

    code: int
    text: str

    @property
    def rules(self) -> list[str]:
        """The jobs' rules, in the order of their start, without `all`."""
        return [rule for rule in re.findall(r"^Job \d+: (\w+)", self.text, re.MULTILINE) if rule != "all"]

    @property
    def errors(self) -> list[str]:
        """The lines that a person is left with: behind all that Snakemake has to say of a failed job."""
        return re.findall(r"^error: (.*)", self.text.rpartition("Exiting because a job execution failed")[2], re.MULTILINE)


def snakemake(words: Sequence[str], folder: Path, environ: Mapping[str, str]) -> Run:
    """Run a `command` in *folder*, with *environ* on top of what is `inherited`; no traceback may show."""
    done = subprocess.run(
        words, cwd=folder, env={**inherited(), **environ}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=600
    )
    text = done.stdout.decode()
    assert "Traceback" not in text, text
    return Run(done.returncode, text)
