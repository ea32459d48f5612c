"""The operators' page, config/README.md: its commands are run, its files are read, its messages are ours.

A block that begins with `# without a network` runs after the registry has gone. Those of Clusters are run by
tests/real/test_slurm.py.
"""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from sregistry.catalog.catalog import Catalog
from tests.support import operators
from tests.support.operators import BLOCK, COMMANDS, IMAGES, PAGE, SECTIONS, TOP, Site

pytestmark = pytest.mark.slow("whole runs of Snakemake", once=True)

#: Sections that speak of images that are there: those of `Batches`.
LATER = ("A monthly mirror", "Sizing", "When something fails")
ELSEWHERE = ("In another workflow", "Clusters")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with operators.running(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Build a site where the commands of `Batches` were run, once: each of them starts Snakemake."""
    with operators.running(tmp_path_factory.mktemp("mirror")) as running:
        for _, text in COMMANDS["Batches"]:
            running.run(text)
        yield running


def check(site: Site) -> None:
    assert site.images() == ["nvidia-cuda:12.4.1-base-ubuntu22.04.sif", "nvidia-pytorch:24.05-py3.sif"]
    assert sorted(record.uri for record in Catalog(site.root / "shared/images").records()) == sorted(IMAGES)


@pytest.mark.parametrize("name", ["Batches", *LATER])
def test_commands_of_a_mirror(mirror: Site, name: str) -> None:
    for kind, text in COMMANDS[name] if name in LATER else ():
        if kind == "crontab":
            mirror.run(text.split(None, 5)[5], shell=("sh",))
        else:
            mirror.run(text)
    check(mirror)


@pytest.mark.parametrize("name", [name for name, blocks in COMMANDS.items() if blocks and name not in ("Batches", *LATER, *ELSEWHERE)])
def test_commands(site: Site, name: str) -> None:
    for _, text in COMMANDS[name]:
        if text.startswith("# without a network\n"):
            site.server.shutdown()
            site.server.server_close()
            if "/media/" in text:
                site.move()
            assert site.images() == []
        site.run(text)
    check(site)


def test_another_workflow(site: Site) -> None:
    """All but its own rule, which wants a GPU; tests/real has one that runs in an image."""
    shutil.rmtree(site.clone)
    site.write("In another workflow")
    path = site.clone / "workflow/Snakefile"
    text, number = re.subn(r"github\(.*?\)  # or a path", f'"{TOP}/workflow/Snakefile"', path.read_text())
    assert number == 1
    path.write_text(text)
    plan = site.run("snakemake -n train")
    assert re.search(r"^train +1$", plan, re.MULTILINE), plan
    site.run("snakemake --cores 2 sregistry_fetch; snakemake --cores 2 sregistry_all")
    assert [path.name for path in (site.clone / "images").iterdir()] == ["nvidia-pytorch:24.05-py3.sif"]
    assert (site.clone / "containers/results").is_dir()


def test_all_commands_are_run() -> None:
    """Whatever else is in a fence is a file or a picture, and no fence is left without a kind."""
    assert {kind for blocks in SECTIONS.values() for kind, _ in blocks} <= {"bash", "crontab", "yaml", "python"}
    assert PAGE.count("\n```") == 2 * len(BLOCK.findall(PAGE))


def test_words_of_a_failure_are_ours_or_the_systems() -> None:
    source = "".join(path.read_text() for path in (TOP / "scripts/sregistry").rglob("*.py"))
    section = re.split(r"^## ", PAGE.partition("## When something fails\n")[2], flags=re.MULTILINE)[0]
    others = (
        "429 Too Many Requests",
        "Config file is not valid JSON or YAML",
        "Directory cannot be locked",
        "SIGKILL",
        "could not determine the home directory",
        "Traceback",
        os.strerror(28),
        os.strerror(122),
    )
    said = [
        part.strip(" ().")
        for row in re.findall(r"^\| (.*?) \|", section, re.MULTILINE)
        for words in re.findall(r"`(.*?)`", row)
        for part in re.split("…|HOST", words)
    ]
    assert len(said) > 10
    assert [part for part in said if part and part not in others and part not in source] == []


def test_links_lead_somewhere() -> None:
    heads = {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)}
    links = re.findall(r"\]\(#(.*?)\)", PAGE)
    assert len(links) > 10 and set(links) <= heads


def test_plugins_of_the_profiles_are_extras() -> None:
    extras = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert "\n| scheduler | profile | plugin | tried with |\n|---|---|---|---|\n" in PAGE
    rows = re.findall(r"^\| .* \| `(workflow/profiles/\w+)` \| `pip install '\.\[(\w+)\]'` \|", PAGE, re.MULTILINE)
    assert {profile for profile, _ in rows} == {f"workflow/profiles/{path.name}" for path in (TOP / "workflow/profiles").iterdir()} - {
        "workflow/profiles/default"
    }
    for profile, extra in rows:
        executor = re.findall(r"^executor: (.*)$", (TOP / profile / "config.yaml").read_text(), re.MULTILINE)
        assert any(line.startswith(f"snakemake-executor-plugin-{executor[0]}>=") for line in extras[extra]), profile
