"""What surrounds the package: its dependencies twice over, its licence, its workflow in a wheel."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import yaml

from sregistry import __version__

TOP = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((TOP / "pyproject.toml").read_text())
ENVIRONMENT: dict[str, Any] = yaml.safe_load((TOP / "environment.yml").read_bytes())

#: Conda's names, where they differ.
CONDA = {"snakemake-minimal": "snakemake", "python-isal": "isal"}


def bounds(requirements: list[str]) -> dict[str, str]:
    """Return name → lower bound."""
    found = {}
    for requirement in requirements:
        match = re.fullmatch(r"([A-Za-z0-9_-]+) *>=([0-9.]+)", requirement)
        assert match, requirement
        found[CONDA.get(match[1], match[1])] = match[2]
    return found


def test_environment_and_project_agree() -> None:
    entries = ENVIRONMENT["dependencies"]
    plain = [entry for entry in entries if isinstance(entry, str) and entry != "pip"]
    (pip,) = [entry["pip"] for entry in entries if isinstance(entry, dict)]
    conda = bounds(plain)
    assert conda.pop("python") == PROJECT["project"]["requires-python"].removeprefix(">=")
    assert {**conda, **bounds(pip)} == bounds(PROJECT["project"]["dependencies"])
    assert ENVIRONMENT["channels"][:2] == ["conda-forge", "bioconda"]
    assert "pip" in entries


def test_the_rules_name_that_environment() -> None:
    """A link, so that the wheel carries the same file."""
    assert (TOP / "workflow/envs/sregistry.yml").resolve() == TOP / "environment.yml"
    rules = "".join(path.read_text() for path in (TOP / "workflow/rules").glob("*.smk"))
    assert rules.count('"../envs/sregistry.yml"') == len(re.findall(r"^(?:rule|checkpoint) ", rules, re.MULTILINE)) > 0


def test_licence_and_version() -> None:
    assert PROJECT["project"]["license"] == "MIT"
    assert (TOP / "LICENSE").read_text().startswith("MIT License")
    assert PROJECT["project"]["version"] == __version__
    assert PROJECT["project"]["scripts"] == {"sregistry": "sregistry.cli.__main__:main"}


def test_the_wheel_carries_the_workflow() -> None:
    tool = PROJECT["tool"]["setuptools"]
    folders = {path.parent.relative_to(TOP / "scripts") for path in (TOP / "scripts/sregistry").rglob("*.py")}
    assert {str(folder).replace("/", ".") for folder in folders} <= set(tool["packages"])
    carried = {
        path
        for package, patterns in tool["package-data"].items()
        for pattern in patterns
        for path in (TOP / tool["package-dir"].get(package, f"scripts/{package.replace('.', '/')}")).glob(pattern)
    }
    workflow = {path for path in (TOP / "workflow").rglob("*") if path.is_file() and not {".snakemake", "__pycache__"} & set(path.parts)}
    assert workflow <= carried
    assert {TOP / "config/registries.yaml", TOP / "scripts/sregistry/py.typed"} <= carried
    assert set((TOP / "scripts/sregistry/pipeline/report/templates").iterdir()) <= carried


def test_the_source_distribution_is_the_repository(tmp_path: Path) -> None:
    """Its tests come with what they need, and programs stay programs."""
    copy = tmp_path / "copy"
    for name in (".ci", "config", "scripts", "tests", "workflow"):
        ignored = shutil.ignore_patterns("__pycache__", ".snakemake", "*.egg-info")
        shutil.copytree(TOP / name, copy / name, symlinks=True, ignore=ignored)
    for name in ("LICENSE", "MANIFEST.in", "README.md", "environment.yml", "pyproject.toml", ".snakemake-workflow-catalog.yml"):
        shutil.copy(TOP / name, copy)
    wanted = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    build = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, tmp_path], cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / done.stdout.splitlines()[-1]) as archive:
        members = {member.name.partition("/")[2]: member for member in archive.getmembers()}
    assert wanted <= members.keys(), wanted - members.keys()
    assert members["tests/real/provision"].mode & stat.S_IXUSR
    assert not [name for name in members if name.endswith(".pyc")]


def test_scripts() -> None:
    for name in ("quickstart", "test"):
        path = TOP / "scripts" / name
        assert path.stat().st_mode & stat.S_IXUSR
        assert path.read_text().startswith("#!/usr/bin/env bash\n")
        subprocess.run(["bash", "-n", path], check=True)


def test_a_missing_python_is_one_line(tmp_path: Path) -> None:
    clone = tmp_path / "with blanks"
    (clone / "scripts").mkdir(parents=True)
    for name in ("quickstart", "setup"):
        (clone / "scripts" / name).write_bytes((TOP / "scripts" / name).read_bytes())
    (clone / "pyproject.toml").write_text("")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "readlink", "cksum", "cat"):
        (tools / name).symlink_to(Path("/usr/bin") / name if (Path("/usr/bin") / name).exists() else Path("/bin") / name)
    environ = {name: value for name, value in os.environ.items() if name not in ("CONDA_PREFIX", "PATH", "VIRTUAL_ENV")}
    old = tools / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["/bin/bash", "scripts/quickstart"], cwd=clone, env={**environ, "PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "error: Python 3.11 or newer is needed; install python3.11 or newer, or uv, or activate a conda environment\n"
    old.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1 ;; esac\n')
    done = subprocess.run(
        ["/bin/bash", "scripts/quickstart"], cwd=clone, env={**environ, "PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "error: python3 lacks venv and ensurepip; install the package python3-venv, or uv\n"


def test_the_workflow_catalog_takes_it() -> None:
    """What https://github.com/snakemake/snakemake-workflow-catalog asks for: names of files, words, and the keys that it reads."""
    usage = yaml.safe_load((TOP / ".snakemake-workflow-catalog.yml").read_bytes())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment"}
    assert set(usage["mandatory-flags"]) == {"desc", "flags"}
    assert set(usage["software-stack-deployment"]) == {"conda", "apptainer", "apptainer+conda", "report"}
    assert all(isinstance(value, bool) for value in usage["software-stack-deployment"].values())
    for name in ("workflow/Snakefile", "config/README.md", "config/config.yaml", "LICENSE"):
        assert (TOP / name).is_file()
    assert list((TOP / "workflow/rules").glob("*.smk"))
    text = (TOP / "README.md").read_text().lower()
    assert "snakemake" in text and "workflow" in text
