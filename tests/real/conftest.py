"""A real registry with all test images, the pipeline run against it, and other people's tools as judges.

```
images ──push──▶ docker-registry ──snakemake──▶ SIF ──kernel mount, unsquashfs──▶ tree ┐
                        └──skopeo copy, umoci raw unpack──▶ tree ──────────────────────┴─ compared
```
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.support import images, oracle
from tests.support.oracle import Tree
from tests.support.snakemake import command, inherited, settings

#: Judged by what another image unpacks to, because the tools can't read it: same content, other clothes.
TWINS = {
    "demo/tricky-packed:1": "demo/tricky:1",  # umoci 0.4.7 knows no zstd …
    "demo/tricky-mislabelled:1": "demo/tricky:1",  # … and believes the label
    "demo/nested:1": "demo/multi:1",  # skopeo 1.9 can't look into an index of indexes
}
_TIMEOUT = 120


@dataclass
class Pipeline:
    """`snakemake` in a working directory of its own, against one registry."""

    folder: Path
    base: str
    more: dict[str, str] = field(default_factory=dict)

    def run(self, *config: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run ``snakemake --config …`` and return what came of it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        words = command("--directory", self.folder, *options, config=config, snakefile=None)
        return subprocess.run(words, cwd=REPOSITORY, env=self.environment(), capture_output=True, text=True, timeout=600, check=False)

    def environment(self) -> dict[str, str]:
        """Return an environment that nothing of the caller's settings leaks into."""
        return {
            **inherited(),
            "HOME": str(self.folder),
            **settings(self.folder, self.base, SREGISTRY_STORAGE=str(self.storage)),
            **self.more,
        }

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    def image(self, uri: str, ending: str = ".sif") -> Path:
        """Return where the image of a reference without a registry belongs."""
        return self.storage / (uri.replace("/", "-") + ending)


@dataclass(frozen=True, kw_only=True)
class Pulled:
    """What one run made of many images."""

    pipeline: Pipeline
    result: subprocess.CompletedProcess[str]

    def __call__(self, uri: str) -> Path:
        path = self.pipeline.image(uri)
        assert path.is_file(), f"{path.name} was not made:\n{self.result.stderr[-5000:]}"
        return path


@pytest.fixture(scope="session")
def registry(layout: images.Layout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start Debian's docker-registry, push all images, and return HOST:PORT."""
    with docker_registry(tmp_path_factory.mktemp("registry")) as address:
        images.push(layout, f"http://{address}")
        yield address


@contextlib.contextmanager
def docker_registry(folder: Path, *, http: str = "", more: str = "") -> Iterator[str]:
    """Run docker-registry with its data in *folder*; yield HOST:PORT.

    Args:
        folder: what it holds stays for the next one.
        http: further keys of `http`, such as `tls: {…}`.
        more: further lines of its configuration.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    keys = f"addr: '{address}'" + (f", {http}" if http else "")
    (folder / "config.yml").write_text(
        "version: 0.1\n"
        "log: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder / 'data'}}}, maintenance: {{uploadpurging: {{enabled: false}}}}}}\n"
        f"http: {{{keys}}}\n{more}"
    )
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["docker-registry", "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        _wait(address, server, folder / "log")
        yield address
    finally:
        server.terminate()
        server.wait(10)


def _wait(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    host, _, port = address.partition(":")
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5):
            return
        assert server.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"{address} does not answer: {log.read_text()}")


@pytest.fixture
def pipeline(registry: str, tmp_path: Path) -> Pipeline:
    """Return a pipeline with nothing in its folders."""
    return Pipeline(tmp_path / "work", registry)


@pytest.fixture(scope="session")
def pulled(registry: str, layout: images.Layout, tmp_path_factory: pytest.TempPathFactory) -> Pulled:
    """Pull all images that are good, as SIF, in one run."""
    pipeline = Pipeline(tmp_path_factory.mktemp("pulled"), registry)
    uris = ",".join(name for name in layout.tags() if name.startswith("demo/"))
    return Pulled(pipeline=pipeline, result=pipeline.run(f"uri=[{uris}]"))


@pytest.fixture(scope="session")
def unpacked(registry: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Tree, int]]:
    """Return a function: what umoci unpacks of an image, and since when its folders' times are not the image's."""
    folder = tmp_path_factory.mktemp("unpacked")

    @cache
    def unpack(uri: str) -> tuple[Tree, int]:
        tag = re.sub(r"\W", "-", uri)
        tool("skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{registry}/{uri}", f"oci:{folder}/oci:{tag}")
        since = int(time.time())
        tool("umoci", "raw", "unpack", "--image", f"{folder}/oci:{tag}", folder / tag, umask=0o022)
        return oracle.tree(folder / tag), since

    return lambda uri: unpack(TWINS.get(uri, uri))


def tool(*command: str | Path, umask: int = -1) -> str:
    """Run a tool that must succeed and return what it prints."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, umask=umask, check=False)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def partition(image: Path) -> int:
    """Return where the root file system starts, as siftool has it."""
    rows = [line.split("|") for line in tool("siftool", "list", image).splitlines() if "FS (Squashfs/*System" in line]
    assert len(rows) == 1, rows
    return int(rows[0][3].partition("-")[0])


@contextlib.contextmanager
def mounted(image: Path, offset: int, where: Path) -> Iterator[Path]:
    """Let the kernel mount a squashfs."""
    where.mkdir()
    tool("mount", "-t", "squashfs", "-o", f"loop,ro,offset={offset}", image, where)
    try:
        yield where
    finally:
        if subprocess.run(["umount", where], capture_output=True, check=False).returncode:
            tool("umount", "--lazy", where)


def extracted(image: Path, offset: int, where: Path) -> Path:
    """Let unsquashfs extract a squashfs."""
    tool("unsquashfs", "-quiet", "-no-progress", "-o", str(offset), "-d", where, image)
    return where


@pytest.fixture(scope="session")
def open_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder that every user may enter: pytest's own are closed to others."""
    folder = Path(f"/tmp/sregistry-tests-{os.getpid()}")
    folder.mkdir(mode=0o755)
    yield folder
    shutil.rmtree(folder)


Apptainer = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(params=["root", "user"])
def apptainer(request: pytest.FixtureRequest) -> Apptainer:
    """Return a function that runs Apptainer, as root and as an ordinary user."""
    user = ["--user"] if request.param == "user" else []

    def run(*arguments: str | Path, environment: dict[str, str] | None = None, feed: str = "") -> subprocess.CompletedProcess[str]:
        wanted = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **(environment or {})}
        command = [REPOSITORY / "tests/real/apptainer", *user, *arguments]
        return subprocess.run(command, input=feed, capture_output=True, text=True, cwd="/", env=wanted, timeout=_TIMEOUT, check=False)

    return run
