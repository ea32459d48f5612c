"""The Python client as its documentation shows it: every example runs, and a user's program is typed."""

from __future__ import annotations

import doctest
import inspect
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sregistry import client, errors, get_client
from sregistry.catalog import container, local_images
from sregistry.catalog.local_images import LocalImages
from sregistry.client import Client, Container
from tests.conftest import REPOSITORY
from tests.support.images import Layout, layer
from tests.support.registry import serving
from tests.support.tarball import file

pytestmark = pytest.mark.slow("whole pulls", once=True)

CONFIG = {"Env": ["CUDA_VERSION=9.0.176"], "Labels": {"maintainer": "NVIDIA"}}
FOUND = [test for module in (client, local_images, container) for test in doctest.DocTestFinder().find(module) if test.examples]
EXAMPLES = {test.name.removeprefix(str(test.globs["__name__"])): test for test in FOUND}
#: Results and errors are told; no other than these do without an example.
WITHOUT = {"Client", "Client.announce", "Client.pull_each", "Client.add_remote", "Container.of"}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    layout = Layout(tmp_path_factory.mktemp("client") / "layout")
    for name in ("caffe2:17.10", "caffe2:17.12", "tensorflow:17.11"):
        layout.tag(
            f"nvidia/{name}", layout.image([layer([file(f"opt/{name}-{i}".encode(), b"x" * 99)]) for i in range(2)], CONFIG, docker=True)
        )
    with serving(layout) as server:
        yield server.address


@pytest.fixture(scope="module")
def pulled(address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which one image was pulled, and what it was then, beside it."""
    home = tmp_path_factory.mktemp("client") / "home"
    home.mkdir()
    command = [sys.executable, "-m", "sregistry.cli", "pull", "nvidia/caffe2:17.10"]
    subprocess.run(command, env=environment(address, home), cwd=home, check=True, capture_output=True)
    shutil.copytree(home, home.with_name("then"), symlinks=True)
    return home


def environment(address: str, home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SREGISTRY_", "SINGULARITY_", "MESSAGELEVEL"))}
    return {**kept, "HOME": str(home), "SREGISTRY_NVIDIA_BASE": address, "SREGISTRY_NVIDIA_NOHTTPS": "yes"}


@pytest.fixture
def home(address: str, pulled: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.rmtree(pulled)
    shutil.copytree(pulled.with_name("then"), pulled, symlinks=True)
    for name in {*os.environ} - {*environment(address, pulled)}:
        monkeypatch.delenv(name)
    for name, value in environment(address, pulled).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(pulled)
    return pulled


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Snakemake leaves files open
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example(name: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    test = EXAMPLES[name]
    test.globs = {"client": get_client(), "get_client": get_client}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, clear_globs=False)
    assert not runner.summarize(verbose=False).failed, capsys.readouterr().out


def test_all_that_is_public_is_documented_and_typed() -> None:
    for public in (Client, Container):
        for name, member in inspect.getmembers(public, callable):
            owner = next(kind for kind in public.__mro__ if name in vars(kind))
            if name.startswith("_") or owner not in (Client, LocalImages, Container):
                continue
            where = f"{owner.__name__}.{name}"
            assert member.__doc__, where
            assert "return" in inspect.get_annotations(getattr(member, "__func__", member)), where
            assert f".{where}" in EXAMPLES or where in WITHOUT, f"{where} has no example"


def test_the_fields_of_the_seed(home: Path) -> None:
    container = get_client().get("nvidia/caffe2:17.10")
    names = ("client", "collection", "collection_id", "created_at", "id", "image", "metrics", "name", "tag", "uri", "url", "version")
    assert {*names} <= {*container.inspect()}
    assert all(hasattr(container, name) for name in names)
    assert repr(container) == "<Container 'nvidia/caffe2:17.10'>"


PROGRAM = """
from pathlib import Path

from sregistry import get_client
from sregistry.errors import PullError, SregistryError


def fetch(uris: list[str]) -> list[Path]:
    client = get_client()
    try:
        client.pull(uris)
    except PullError as error:
        print(error.errors)
    found: list[Path] = []
    for container in client.images(where="cuda>=9"):
        if container.image is not None:
            found.append(Path(container.image))
            print(container.uri, container.size, container.created.year, container.inspect()["metrics"])
    try:
        client.rm(client.tag(uris[0], "lab/mine:1").uri)
    except SregistryError as error:
        print(error.message, error.hint, error.exit_code)
    return found
"""


def test_a_program_is_typed(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--strict", "--follow-imports", "silent", "--config-file", os.devnull, "program.py"]
    environ = {**os.environ, "MYPYPATH": str(REPOSITORY / "scripts")}
    done = subprocess.run(command, cwd=tmp_path, env=environ, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_error_is_the_package_s() -> None:
    public = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    assert all(issubclass(value, errors.SregistryError) for value in public)
