"""Completion by the Tab key, in the real shells."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pexpect
import pytest

from sregistry.catalog.catalog import Catalog
from tests.support.records import made

pytestmark = pytest.mark.slow("shells are started", once=True)

#: Where the command `sregistry` is.
SCRIPTS = str(Path(sys.executable).parent)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment whose catalog has two images; a folder without configuration."""
    catalog = Catalog(tmp_path / "database")
    for uri in ("nvidia/tensorflow:17.11", "nvidia/caffe2:17.10"):
        catalog.add(made(uri, image=None, version=""))
    path = f"{SCRIPTS}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(tmp_path), "SREGISTRY_DATABASE": str(tmp_path / "database"), "TERM": "dumb", "LC_ALL": "C.UTF-8"}


LINES = [
    pytest.param("sregistry insp", ["inspect"], id="verb"),
    pytest.param("sregistry store ch", ["check"], id="verb of a verb"),
    pytest.param("sregistry images --js", ["--json"], id="option"),
    pytest.param("sregistry get nvidia/te", ["nvidia/tensorflow:17.11"], id="image"),
    pytest.param("sregistry completion z", ["zsh"], id="choice"),
]


@pytest.mark.parametrize(("line", "words"), LINES)
def test_bash(line: str, words: list[str], environ: dict[str, str], tmp_path: Path) -> None:
    script = """
        eval "$(sregistry completion bash)"
        COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9 COMP_WORDBREAKS=$' \\t\\n'
        _python_argcomplete sregistry
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    run = subprocess.run(["bash", "-c", script, "bash", line], env=environ, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert sorted(word.strip() for word in run.stdout.splitlines()) == words


@pytest.mark.needs("fish")
@pytest.mark.parametrize(("line", "words"), LINES)
def test_fish(line: str, words: list[str], environ: dict[str, str], tmp_path: Path) -> None:
    script = "sregistry completion fish | source; complete -C $argv[1]"
    run = subprocess.run(["fish", "-c", script, line], env=environ, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert sorted(word.split("\t")[0] for word in run.stdout.splitlines()) == words


@pytest.mark.needs("zsh")
@pytest.mark.parametrize(("line", "words"), LINES)
def test_zsh(line: str, words: list[str], environ: dict[str, str], tmp_path: Path) -> None:
    shell = pexpect.spawn("zsh", ["-f", "-i"], env=environ, cwd=str(tmp_path), encoding="utf-8", timeout=60, dimensions=(24, 200))
    try:
        shell.sendline("PROMPT='ready> '; autoload -U compinit; compinit -u; eval \"$(sregistry completion zsh)\"; echo $((6*7))")
        shell.expect("42\r\n")
        shell.expect("ready> ")
        shell.send(f"{line}\t")
        shell.expect_exact(words[0])
    finally:
        shell.close(force=True)
