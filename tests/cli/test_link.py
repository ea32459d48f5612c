"""`sregistry link`: names that workflow engines look for, and that their own files stay; `get` in a shell's script."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sregistry import get_client
from sregistry.catalog.catalog import Catalog
from sregistry.catalog.engine_links import nextflow, snakemake, urls
from sregistry.catalog.record import Record
from sregistry.cli.__main__ import main
from sregistry.client import Client
from sregistry.errors import UsageError
from tests.support.records import made

URI = "nvidia/caffe2:17.10"
#: As Nextflow's own tests and documentation have them.
NEXTFLOW = {
    "docker://pditommaso/foo:latest": "pditommaso-foo-latest.img",
    "docker://foo/bar": "foo-bar.img",
    "shub://busybox": "busybox.img",
    "foo:bar.sif": "foo-bar.sif",
    "docker://quay.io/biocontainers/bwa:0.7.17--h5bf99c6_8": "quay.io-biocontainers-bwa-0.7.17--h5bf99c6_8.img",
    "nvcr.io/nvidia/caffe2:17.10": "nvcr.io-nvidia-caffe2-17.10.img",
    "docker://x/y.sif:1": "x-y-1.sif",
    "library://a/b@sha256:0f": "a-b@sha256-0f.img",
}


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setenv("HOME", str(tmp_path / "home of mine"))
    monkeypatch.delenv("SREGISTRY_CLIENT", raising=False)
    monkeypatch.chdir(tmp_path)
    client = get_client()
    client.catalog.add(image(tmp_path, URI))
    return client


def image(folder: Path, uri: str, **fields: object) -> Record:
    path = folder / f"{uri.replace('/', '-')}.sif"
    path.write_text(uri)
    return made(uri, image=str(path), **fields)


def hub(uri: str, **fields: Any) -> Record:
    address = f"https://registry-1.docker.io/v2/{uri.replace(':', '/manifests/')}"
    return replace(made(uri), client="docker", registry="registry-1.docker.io", url=address, **fields)


@pytest.mark.parametrize(("url", "name"), NEXTFLOW.items())
def test_the_rule_of_nextflow(url: str, name: str) -> None:
    assert nextflow(url) == name


def test_the_ways_to_name_an_image() -> None:
    record = made(URI)
    assert urls(record) == ["docker://nvcr.io/nvidia/caffe2:17.10", f"docker://nvcr.io/nvidia/caffe2@{record.digest}"]
    renamed = replace(made(URI), uri="lab/mine:1", collection="lab", name="mine", tag="17.10")
    assert urls(renamed)[0] == "docker://nvcr.io/nvidia/caffe2:17.10"
    assert urls(made(URI, registry="")) == []
    ubuntu = hub("library/ubuntu:latest", digest="")
    assert urls(ubuntu) == [
        *("docker://ubuntu:latest", "docker://ubuntu", "docker://library/ubuntu:latest", "docker://library/ubuntu"),
        *("docker://docker.io/ubuntu:latest", "docker://docker.io/ubuntu"),
        *("docker://docker.io/library/ubuntu:latest", "docker://docker.io/library/ubuntu"),
        *("docker://index.docker.io/ubuntu:latest", "docker://index.docker.io/ubuntu"),
        *("docker://index.docker.io/library/ubuntu:latest", "docker://index.docker.io/library/ubuntu"),
    ]


def test_link(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / f"{URI.replace('/', '-')}.sif"
    for _ in range(2):
        assert main(["link", "--for", "nextflow", "new/folder", URI]) == 0
        first = capsys.readouterr().out.splitlines()[0]
        assert first == f"[link] {tmp_path}/new/folder/nvcr.io-nvidia-caffe2-17.10.img => {place}"
    link = tmp_path / "new/folder/nvcr.io-nvidia-caffe2-17.10.img"
    assert link.read_text() == URI
    assert main(["--quiet", "link", "--for", "snakemake", "images", "docker://nvcr.io/nvidia/caffe2:17.10"]) == 0
    name = hashlib.md5(b"docker://nvcr.io/nvidia/caffe2:17.10").hexdigest()
    assert capsys.readouterr().out.splitlines()[0] == f"{tmp_path}/images/{name}.simg"

    (tmp_path / "another.sif").write_text("new")
    client.catalog.add(made(URI, image=str(tmp_path / "another.sif"), version="0" * 64, created_at="2026-01-01 00:00:00"))
    client.link(URI, "new/folder", engine="nextflow")
    assert link.read_text() == "new"
    assert sorted(os.listdir(link.parent)) == sorted([link.name, nextflow(urls(made(URI))[1])])


def test_the_words_of_the_workflow(client: Client, tmp_path: Path) -> None:
    """What a record can't tell, such as where a file that was added is from."""
    client.catalog.add(image(tmp_path, "library/tool:1", client="docker", registry="", url=""))
    with pytest.raises(UsageError, match="nothing says what a workflow calls this image; write it as the workflow does"):
        client.link("library/tool:1", "x", engine="snakemake")
    assert client.link("docker://tool:1", "x", engine="snakemake") == [tmp_path / "x" / snakemake("docker://tool:1")]
    with pytest.raises(UsageError, match="engine 'cwl' is unknown; one of snakemake, nextflow"):
        client.link(URI, "x", engine="cwl")


def test_what_is_in_the_way(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Catalog(client.catalog.path.parent).add(made("nvidia/remote:1", image=None, version=""))
    taken = tmp_path / "links" / "nvcr.io-nvidia-caffe2-17.10.img"
    taken.parent.mkdir()
    taken.write_text("Nextflow's own")
    assert main(["link", "--for", "nextflow", "links", "nvidia/none:1", "nvidia/remote:1", URI]) == 1
    assert capsys.readouterr().err.splitlines()[1:] == [
        f"error: nvidia/none:1: no such image in {client.catalog.path}; `sregistry images` lists them",
        "error: nvidia/remote:1 is in the registry only; `sregistry pull nvidia/remote:1`",
        f"error: {taken} is there already, and is no link; remove it, or say --force",
    ]
    assert taken.read_text() == "Nextflow's own"
    assert main(["link", "--for", "nextflow", "--force", "links", URI]) == 0
    assert taken.read_text() == URI
    assert main(["link", "--for", "nextflow", str(taken), URI]) == 1
    assert "can't link" in capsys.readouterr().err


SCRIPT = """
set -euo pipefail
echo "<$(sregistry get {uri})>"
echo "<$(sregistry --quiet get {uri})>"
"""


def shell(client: Client, folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    program = folder / "bin" / "sregistry"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m sregistry.cli "$@"\n')
    program.chmod(0o755)
    environ = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}
    return subprocess.run(["bash", "-c", text], check=False, env=environ, capture_output=True, text=True)


def test_get_in_a_script(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "with a space"
    folder.mkdir()
    record = client.catalog.add(image(folder, "nvidia/tool:1"))[0]
    done = shell(client, tmp_path, SCRIPT.format(uri="nvidia/tool:1"))
    assert (done.returncode, done.stdout) == (0, f"<{record.image}>\n" * 2)
    assert done.stderr.splitlines() == [f"[client|nvidia] [database|{client.catalog.path}]"], "nothing with --quiet"


def test_get_of_nothing_ends_a_script(client: Client, tmp_path: Path) -> None:
    done = shell(client, tmp_path, 'set -euo pipefail\nimage=$(sregistry get nvidia/none:1)\necho "went on with <$image>"')
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("error: nvidia/none:1: no such image")


def test_what_pull_takes_is_found(client: Client, tmp_path: Path) -> None:
    """A scheme means that client's registry and collection, and a host its own client."""
    client.catalog.add(image(tmp_path, "library/ubuntu:22.04", client="docker", registry="registry-1.docker.io"))
    for uri in ("docker://ubuntu:22.04", "docker://library/ubuntu:22.04", "docker://docker.io/ubuntu:22.04"):
        assert client.get(uri).uri == "library/ubuntu:22.04", uri
    assert client.get("docker://nvcr.io/nvidia/caffe2:17.10").uri == URI
    assert client.get("nvidia://caffe2:17.10").uri == URI


def test_a_link_to_another_image_stays(client: Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nextflow writes `a/b-c` and `a-b/c` as one name."""
    for uri in ("a/b-c:1", "a-b/c:1"):
        client.catalog.add(made(uri, image=str(tmp_path / f"{uri[:3].replace('/', '+')}.sif")))
        (tmp_path / f"{uri[:3].replace('/', '+')}.sif").touch()
    client.link("a/b-c:1", "links", engine="nextflow")
    assert main(["link", "--for", "nextflow", "links", "a-b/c:1"]) == 1
    link = tmp_path / "links/nvcr.io-a-b-c-1.img"
    assert f"error: {link} is a link to nvcr.io/a/b-c:1, another image; " in capsys.readouterr().err
    assert link.readlink() == tmp_path / "a+b.sif"
    client.link("a-b/c:1", "links", engine="nextflow", force=True)
    assert link.readlink() == tmp_path / "a-b.sif"
