"""The operators' page, config/README.md: its commands are run, its files are read, its messages are ours.

A section is tried in a folder of its own, against our registry; `/shared` and `/media` are folders in it. A block
that begins with `# without a network` runs after the registry has gone.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sregistry.catalog import Catalog
from sregistry.serve import Server, serve
from sregistry.store import Store
from tests.images import Layout, layer
from tests.tarball import directory, file

TOP = Path(__file__).resolve().parent.parent
PAGE = (TOP / "config/README.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTIONS = {
    text.partition("\n")[0]: [(found[1], found[2]) for found in BLOCK.finditer(text)]
    for text in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
}
#: What is run; that this is all of the page is checked below.
COMMANDS = {name: [(kind, text) for kind, text in blocks if kind in ("bash", "crontab")] for name, blocks in SECTIONS.items()}
#: Sections that speak of images that are there.
LATER = ("A monthly mirror", "Sizing", "When something fails")
IMAGES = ("nvidia/cuda:12.4.1-base-ubuntu22.04", "nvidia/pytorch:24.05-py3")


@dataclass
class Site:
    """A clone in /shared/mirror, and a registry that knows the page's images."""

    root: Path
    server: Server
    environ: dict[str, str]

    @property
    def clone(self) -> Path:
        return self.root / "shared/mirror"

    def place(self, text: str) -> str:
        """Put the page's folders into this one."""
        return re.sub(r"(?<![\w.])/(shared|media)\b", rf"{self.root}/\1", text)

    def write(self, name: str) -> None:
        """Write the files of a section: those whose first line is a comment with their name."""
        for kind, text in SECTIONS[name]:
            found = re.match(r"# ([\w./]+)\n", text)
            if kind in ("yaml", "python") and found:
                path = self.clone / found[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(self.place(text))

    def move(self) -> None:
        """Go to another machine: of this one, /media alone comes along."""
        mirror = self.root / "gone"
        (self.root / "shared").rename(mirror)
        self.make()

    def make(self) -> None:
        self.clone.mkdir(parents=True)
        for name in ("workflow", "config"):
            shutil.copytree(TOP / name, self.clone / name, ignore=shutil.ignore_patterns(".snakemake", "__pycache__"))
        self.write("Batches")
        (self.root / "media/disk").mkdir(parents=True, exist_ok=True)

    def run(self, text: str, *, shell: tuple[str, ...] = ("bash", "-euo", "pipefail")) -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        text = self.place(text).replace("--port 5000", f"--port {port}").replace("127.0.0.1:5000", f"127.0.0.1:{port}")
        done = subprocess.run([*shell, "-c", text], cwd=self.clone, env=self.environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def images(self) -> list[str]:
        return sorted(path.name for path in (self.root / "shared/images").glob("*.sif"))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    layout = Layout(tmp_path / "layout")
    shared = layer([directory(b"etc"), file(b"etc/name", b"shared")])
    for name in (*IMAGES, "nvidia/pytorch:24.04-py3"):  # of which a pattern takes the newest
        layout.tag(name, layout.image([shared, layer([file(b"name", name.encode())])], {"Cmd": ["/bin/true"]}))
    with serve(Store(layout.root)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("SREGISTRY_", "SINGULARITY_", "MESSAGELEVEL"))
        }
        environ = {
            **inherited,
            "HOME": str(tmp_path / "home"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SREGISTRY_NVIDIA_BASE": server.address,
            "SREGISTRY_NVIDIA_NOHTTPS": "yes",
        }
        (tmp_path / "home").mkdir()
        site = Site(tmp_path, server, environ)
        site.make()
        yield site
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", [name for name, blocks in COMMANDS.items() if blocks and name != "In another workflow"])
def test_commands(site: Site, name: str) -> None:
    if name in LATER:
        for _, text in COMMANDS["Batches"]:
            site.run(text)
    for kind, text in COMMANDS[name]:
        if text.startswith("# without a network\n"):
            site.server.shutdown()
            site.server.server_close()
            if "/media/" in text:
                site.move()
            assert site.images() == []
            site.run(text)
        elif kind == "crontab":
            site.run(text.split(None, 5)[5], shell=("sh",))
        else:
            site.run(text)
    assert site.images() == ["nvidia-cuda:12.4.1-base-ubuntu22.04.sif", "nvidia-pytorch:24.05-py3.sif"]
    assert sorted(record.uri for record in Catalog(site.root / "shared/images").records()) == sorted(IMAGES)


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
    others = ("429 Too Many Requests", "Directory cannot be locked", "SIGKILL", "Traceback", os.strerror(28), os.strerror(122))
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
