"""The operators' page, config/README.md, and a site that follows it: folders, a clone and a registry of our own.

A section is tried in a folder of its own; `/shared` and `/media` are folders in it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sregistry.registry.server import Server
from tests.support.images import Layout, layer
from tests.support.registry import serving
from tests.support.tarball import directory, file

TOP = Path(__file__).resolve().parents[2]
PAGE = (TOP / "config/README.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTIONS = {
    text.partition("\n")[0]: [(found[1], found[2]) for found in BLOCK.finditer(text)]
    for text in re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
}
#: What is to be run.
COMMANDS = {name: [(kind, text) for kind, text in blocks if kind in ("bash", "crontab")] for name, blocks in SECTIONS.items()}
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


@contextlib.contextmanager
def running(root: Path) -> Iterator[Site]:
    """Build a site in *root*."""
    layout = Layout(root / "layout")
    shared = layer([directory(b"etc"), file(b"etc/name", b"shared")])
    for name in (*IMAGES, "nvidia/pytorch:24.04-py3"):  # of which a pattern takes the newest
        layout.tag(name, layout.image([shared, layer([file(b"name", name.encode())])], {"Cmd": ["/bin/true"]}))
    with serving(layout) as server:
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("SREGISTRY_", "SINGULARITY_", "MESSAGELEVEL"))
        }
        environ = {
            **inherited,
            "HOME": str(root / "home"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "SREGISTRY_NVIDIA_BASE": server.address,
            "SREGISTRY_NVIDIA_NOHTTPS": "yes",
        }
        (root / "home").mkdir()
        site = Site(root, server, environ)
        site.make()
        yield site
