"""The demo image: made of this host's programs, unpacked and really run."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import demo_image as demo
from sregistry.errors import SregistryError
from sregistry.oci.documents import Digest, ImageConfig, Manifest, Platform
from sregistry.oci.parse import parse_manifest
from sregistry.store.store import Store

# The host's own programs in a folder without busybox, so that the two ways of making are both tested.
KINDS = ["busybox", "dynamic"]


@pytest.fixture(scope="module", params=KINDS)
def search(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "busybox":
        if shutil.which("busybox", path=demo.SEARCH) is None:
            pytest.skip("busybox is not installed")
        return demo.SEARCH
    folder = tmp_path_factory.mktemp("bin")
    for name in demo.PROGRAMS:
        if found := shutil.which(name, path=demo.SEARCH):
            (folder / name).symlink_to(found)
    return str(folder)


@pytest.fixture(scope="module")
def store(search: str, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("layout"))
    demo.demo(store, search)
    return store


@pytest.fixture(scope="module")
def manifest(store: Store) -> Manifest:
    found = parse_manifest(store.read(store.tags()[demo.NAME].digest))
    assert isinstance(found, Manifest)
    return found


@pytest.fixture(scope="module")
def root(store: Store, manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image, unpacked the simplest way."""
    root = tmp_path_factory.mktemp("root")
    for layer in manifest.layers:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(store.read(layer.digest)))) as tar:
            for item in tar:
                folder, _, name = item.name.rpartition("/")
                if name.startswith(".wh."):
                    (root / folder / name.removeprefix(".wh.")).unlink()
                else:
                    item.uid, item.gid = os.geteuid(), os.getegid()
                    tar.extract(item, root)
    return root


def run(root: Path, *command: str) -> str:
    """Run a command with *root* as /, with root's rights or without."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    enter = ["unshare", *user, "chroot", str(root)]
    if subprocess.run(["unshare", *user, "chroot", "/", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root or user namespaces")
    environment = {"PATH": os.environ["PATH"], "GREETING": "Hello"}
    return subprocess.run([*enter, *command], check=True, capture_output=True, text=True, env=environment).stdout


def test_config(store: Store, manifest: Manifest) -> None:
    config = ImageConfig.parse(store.read(manifest.config.digest))
    assert config.platform == Platform.host()
    assert config.entrypoint == ("/opt/hello/hello",)
    assert config.cmd == ("world",)
    assert config.env == ("PATH=/opt/hello:/bin", "GREETING=Hello")
    assert config.labels["org.opencontainers.image.title"] == "hello"
    assert config.created == "2026-01-01T00:00:00Z"
    assert list(config.diff_ids) == [Digest.of(gzip.decompress(store.read(layer.digest))) for layer in manifest.layers]


def test_layers(store: Store, manifest: Manifest) -> None:
    assert [layer.media_type for layer in manifest.layers] == ["application/vnd.oci.image.layer.v1.tar+gzip"] * 3
    assert sum(layer.size or 0 for layer in manifest.layers) < 20 << 20
    for layer in manifest.layers:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(store.read(layer.digest)))) as tar:
            names = tar.getnames()
            assert len(names) == len(set(names))
            assert {(item.uid, item.gid, item.uname, item.mtime) for item in tar} == {(0, 0, "", 1767225600)}


def test_files(root: Path) -> None:
    assert sorted(path.name for path in (root / "opt/hello").iterdir()) == ["hello", "notes.txt"]
    assert (root / "tmp").stat().st_mode & 0o7777 == 0o1777
    assert {"sh", "cat", "id", "ls"} <= {path.name for path in (root / "bin").iterdir()}


def test_it_runs(root: Path) -> None:
    greeting = "Hello from the sregistry demo image\n"
    assert run(root, "/opt/hello/hello", "world") == f"{greeting}argument 1: world\n"
    assert run(root, "/opt/hello/hello", "a b", "$HOME\\n", "") == f"{greeting}argument 1: a b\nargument 2: $HOME\\n\nargument 3: \n"
    assert run(root, "/bin/cat", "/opt/hello/notes.txt") == "This file is of the last layer.\n"
    assert "hello" in run(root, "/bin/ls", "/opt").split()
    assert run(root, "/bin/sh", "-c", "echo $((6 * 7)); head -n 1 /etc/os-release") == "42\nID=sregistry-demo\n"
    assert run(root, "/bin/id", "-u") == "0\n"
    assert "GREETING=Hello" in run(root, "/bin/env").splitlines()


def tree(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and "locks" not in path.parts]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_same_host_same_bytes(store: Store, search: str, tmp_path: Path) -> None:
    before = tree(store.root)
    demo.demo(Store(tmp_path), search)
    assert tree(tmp_path) == before
    demo.demo(store, search)
    assert tree(store.root) == before


def test_a_program_of_many_names_is_taken_once(tmp_path: Path) -> None:
    sh = Path(shutil.which("sh") or "/bin/sh").resolve()
    for name in ("sh", "cat", "ls"):
        (tmp_path / name).symlink_to(sh)
    found = {item.path: item.content for item in demo.programs(str(tmp_path)) if item.path.startswith("bin/")}
    assert found == {"bin/sh": sh.read_bytes(), "bin/cat": "sh", "bin/ls": "sh"}


def test_scripts_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "sh").symlink_to(Path(shutil.which("sh") or "/bin/sh").resolve())
    (tmp_path / "cat").write_text("#!/bin/sh\n")
    (tmp_path / "cat").chmod(0o755)
    assert "bin/cat" not in [item.path for item in demo.programs(str(tmp_path))]
    (tmp_path / "sh").unlink()
    (tmp_path / "sh").symlink_to("cat")
    with pytest.raises(SregistryError, match="no sh in"):
        demo.programs(str(tmp_path))


@pytest.mark.parametrize(
    ("output", "libraries"),
    [
        pytest.param(
            "\tlinux-vdso.so.1 (0x7ffc)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x7f)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n",
            ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"],
            id="glibc",
        ),
        pytest.param(
            "\t/lib/ld-musl-x86_64.so.1 (0x7f)\n\tlibc.musl-x86_64.so.1 => /lib/ld-musl-x86_64.so.1 (0x7f)\n",
            ["/lib/ld-musl-x86_64.so.1", "/lib/ld-musl-x86_64.so.1"],
            id="musl",
        ),
        pytest.param("\tnot a dynamic executable\n", [], id="static, glibc"),
        pytest.param("\tstatically linked\n", [], id="static-pie"),
        pytest.param("/lib/ld-musl-x86_64.so.1: x: Not a valid dynamic program\n", [], id="static, musl"),
        pytest.param("\tlibx.so => not found\n\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n", None, id="a library is missing"),
        pytest.param("ldd: exited with unknown exit code (139)\n", None, id="ldd fails"),
    ],
)
def test_libraries(output: str, libraries: list[str] | None) -> None:
    assert demo.read_ldd(output) == (None if libraries is None else [Path(path) for path in libraries])


def module(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, demo.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_command(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "layout"
    result = module(folder)
    assert (result.returncode, result.stderr) == (0, "")
    name, digest = result.stdout.split()
    assert name == "demo/hello:1"
    assert str(Store(folder).tags()[name].digest) == digest
    assert json.loads((folder / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    assert module(folder).stdout == result.stdout


def test_command_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = module(tmp_path / "file" / "layout")
    assert result.returncode == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert module().returncode == 2
