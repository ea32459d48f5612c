"""What the rules read of a running Snakemake, on a small workflow and in the version that is installed.

CI runs this with the newest Snakemake and with the lower bound of pyproject.toml (.ci/lowest).
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sregistry.pipeline import engine
from sregistry.pipeline.host import ALL_CONNECTIONS
from sregistry.system.cores import usable
from tests.conftest import REPOSITORY
from tests.support import forked

COMMON = """\
import json, sys
from sregistry.pipeline.engine import Host

HOST = Host(workflow, checkpoints)


def note(when):
    names = ("own", "first", "executes", "runs", "local", "cores", "network", "top", "lost_program", "files")
    print("NOTE", json.dumps({"when": when, **{name: getattr(HOST, name) for name in names}}, default=str), file=sys.stderr)


def layers(wildcards):
    note("graph")
    return [f"results/{line}" for line in HOST.checkpoint("manifests").read_text().split()]


note("parse")
"""

SNAKEFILE = """\
include: "rules/common.smk"


rule all:
    default_target: True
    input:
        layers,


checkpoint manifests:
    output:
        "results/gathered",
    shell:
        "echo a b > {output}"


rule layer:
    output:
        "results/{layer,[ab]}",
    shell:
        "touch {output}"
"""

MODULE = """\
module ours:
    snakefile:
        "{snakefile}"
    config:
        config
    prefix:
        "inside"


use rule * from ours as ours_*


rule all:
    default_target: True
    input:
        rules.ours_all.input,
"""

DRY = {"executes": True, "runs": False, "local": True}
NONE = {"executes": False, "runs": False, "local": False}
CASES: dict[str, tuple[Sequence[str], dict[str, Any]]] = {
    "run": (["--cores", "2"], {"executes": True, "runs": True, "local": True, "cores": 2}),
    "dry run": (["--cores", "2", "-n"], {**DRY, "cores": 2}),
    "touch": (["--cores", "2", "--touch"], DRY),
    "summary": (["--summary"], NONE),
    "graph": (["--dag"], NONE),
    "report": (["--report", "report.html"], NONE),
    "a limit": (["-n", "--resources", "network=3"], {**DRY, "network": 3}),
    "files": (["-n", "--configfile", "one.yaml", "two.yaml"], {**DRY, "files": ["two.yaml", "one.yaml"]}),
    "module": (["-n", "--snakefile", "other/Snakefile"], {**DRY, "own": False, "top": "inside"}),
    "profile": (
        ["-n", "--workflow-profile", str(REPOSITORY / "workflow/profiles/default")],
        {**DRY, "cores": usable(), "network": ALL_CONNECTIONS},
    ),
}


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, list[dict[str, Any]]]]:
    """Run all cases, the run first; return what each printed, and its notes."""
    folder = tmp_path_factory.mktemp("workflow")
    files = {
        "workflow/rules/common.smk": COMMON,
        "workflow/Snakefile": SNAKEFILE,
        "other/Snakefile": MODULE.format(snakefile=folder / "workflow/Snakefile"),
        "one.yaml": "one: 1\n",
        "two.yaml": "two: 2\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    environ = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    done = forked.each([arguments for arguments, _ in CASES.values()], folder, environ)
    found = {}
    for name, (code, text) in zip(CASES, done, strict=True):
        assert code == 0 and "Traceback" not in text, text
        found[name] = (text, [json.loads(line[5:]) for line in text.splitlines() if line.startswith("NOTE ")])
    return found


@pytest.mark.parametrize("name", CASES)
def test_what_the_rules_see(notes: dict[str, tuple[str, list[dict[str, Any]]]], name: str) -> None:
    _, found = notes[name]
    _, expected = CASES[name]
    wanted = {"own": True, "first": True, "top": ".", "lost_program": None, "network": None, "files": [], **expected}
    assert {note["when"] for note in found} == {"parse", "graph"}
    for note in found:
        # How the graph is worked through is not known while the rules are read.
        known = wanted if note["when"] == "graph" else {**wanted, **NONE}
        assert {**{key: note[key] for key in known}, "files": [Path(file).name for file in note["files"]]} == known
        assert note["cores"] >= 1


def test_a_checkpoint_that_is_not_there_holds_the_graph_up(notes: dict[str, tuple[str, list[dict[str, Any]]]]) -> None:
    said, found = notes["run"]
    assert [note["when"] for note in found].count("graph") >= 2  # before the checkpoint, and after it
    assert said.count("rule layer:") == 2


def test_a_lost_program_and_a_queue(tmp_path: Path) -> None:
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    (tmp_path / "workflow/rules").mkdir(parents=True)
    (tmp_path / "workflow/rules/common.smk").write_text(COMMON)
    (tmp_path / "workflow/Snakefile").write_text(SNAKEFILE)
    (tmp_path / "submit").write_text('#!/bin/sh\nsh "$1" >&2\necho 1\n')
    (tmp_path / "submit").chmod(0o755)
    queue = ["--executor", "cluster-generic", "--jobs", "1", "--cores", "3", "--seconds-between-status-checks", "1"]
    commands = [
        [*queue, "--cluster-generic-submit-cmd", "nowhere/submit --quietly", "--until", "nothing"],
        [*queue, "--cluster-generic-submit-cmd", "./submit", "--until", "manifests"],
    ]
    (_, lost), (code, ran) = forked.each(commands, tmp_path, dict(os.environ))
    notes = [json.loads(line[5:]) for line in lost.splitlines() if line.startswith("NOTE ")]
    assert notes[-1]["lost_program"] == "nowhere/submit --quietly"
    assert code == 0, ran
    notes = [json.loads(line[5:]) for line in ran.splitlines() if line.startswith("NOTE ")]
    first = [note for note in notes if note["first"] and note["when"] == "graph"]
    assert all(note["runs"] and not note["local"] and note["cores"] == 3 and not note["lost_program"] for note in first)
    jobs = [note for note in notes if not note["first"]]
    assert jobs and not any(note["runs"] for note in jobs)


def test_undocumented_attributes_are_few_and_only_read() -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(engine.Host)))
    written = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)]
    assert all(isinstance(node.value, ast.Name) and node.value.id == "self" for node in written)
    read = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("workflow", "self._workflow") and isinstance(node.ctx, ast.Load)
    }
    documented = {"cores", "main_snakefile", "executor_plugin"}
    assert read - documented == {
        *("is_main_process", "modifier", "config_settings", "global_resources", "executor_settings", "current_basedir"),
    }
    rules = "".join(path.read_text() for path in (REPOSITORY / "workflow").glob("**/*.smk"))
    assert "workflow." not in rules.replace("workflow.source_path(", "")
