"""`sregistry record`: images that stay in their registry, on record beside those that were pulled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sregistry.catalog.catalog import Catalog
from sregistry.cli.__main__ import main
from sregistry.client import Client, Container
from sregistry.config.settings import Settings
from sregistry.errors import ConfigError, DocumentError, InvalidReference, RegistryError
from sregistry.oci.documents import MediaType
from sregistry.registry.server import Server
from tests.support.images import Layout, layer
from tests.support.records import VERSION
from tests.support.registry import serving
from tests.support.repository import Repository
from tests.support.schema1 import BESIDE, both, schema2
from tests.support.scripted import Reply, Scripted
from tests.support.tarball import file

KEYS = ["client", "collection", "collection_id", "created_at", "id", "image", "metrics", "name", "tag", "uri", "url", "version"]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path / "layout")
    images = {name: layout.image([layer([file(b"name", name.encode())])], platform=name) for name in ("linux/amd64", "linux/arm64")}
    layout.tag("nvidia/caffe2:17.10", layout.index(list(zip(images.values(), images, strict=True))))
    layout.tag("demo/arm:1", images["linux/arm64"])
    return layout


@pytest.fixture
def server(layout: Layout) -> Iterator[Server]:
    with serving(layout) as it:
        yield it


def environment(host: str, folder: Path, **more: str) -> dict[str, str]:
    return {
        "SREGISTRY_NVIDIA_BASE": host,
        "SREGISTRY_NVIDIA_NOHTTPS": "yes",
        "SREGISTRY_DATABASE": str(folder / "database"),
        "SINGULARITY_CACHEDIR": str(folder / "cache"),
        "SREGISTRY_DOCKER_ARCHITECTURE": "amd64",
        **more,
    }


def client_of(host: str, folder: Path, **more: str) -> Client:
    environ = environment(host, folder, **more)
    return Client(Settings.load(environ=environ), environ)


@pytest.fixture
def client(server: Server, tmp_path: Path) -> Client:
    return client_of(server.address, tmp_path)


def local(container: Container, image: Path) -> Container:
    """Return the same image as it is on record once it was pulled."""
    image.write_bytes(b"image")
    return replace(container, image=str(image), version=VERSION, format="sif", id=0)


def test_a_remote_record(client: Client, server: Server, layout: Layout) -> None:
    container = client.record("caffe2:17.10")
    url = f"http://{server.address}/v2/nvidia/caffe2/manifests"
    assert repr(container) == "<Container 'nvidia/caffe2:17.10'>"
    assert (container.image, container.version, container.url) == (None, "", f"{url}/17.10")
    assert (container.platform, container.registry, container.compressed_size > 0) == ("linux/amd64", server.address, True)
    assert client.get("nvidia/caffe2:17.10").location == f"{url}/17.10"
    assert client.images() == [container]
    found = container.inspect()
    assert set(KEYS) <= set(found)
    assert {key: value if key == "selfLink" else value["selfLink"] for key, value in found["metrics"].items()} == {
        "index": f"{url}/17.10",
        "2": f"{url}/{container.digest}",
        "selfLink": url,
    }
    assert found["metrics"]["index"]["mediaType"] == MediaType.OCI_INDEX
    assert not list((client.settings.store / "blobs").rglob("*-*")), "no layer is fetched"
    names = {name for name in layout.tags() if name != "nvidia/caffe2:17.10"}
    assert names == {"demo/arm:1"}


def test_what_its_config_says_can_be_asked_for(client: Client, layout: Layout) -> None:
    config = {"Env": ["CUDA_VERSION=12.4.1"], "Labels": {"maintainer": "me"}}
    layout.tag("nvidia/cuda:12", layout.image([layer([file(b"f")])], config))
    layout.tag("demo/sif:1", layout.sif(b"a SIF"))
    for uri in ("cuda:12", "caffe2:17.10", "demo/sif:1"):
        client.record(uri)
    assert [container.uri for container in client.images(where="cuda>=12.4")] == ["nvidia/cuda:12"]
    assert [(key, value) for key, value, _ in client.labels()] == [("maintainer", "me")]


def test_the_same_again_is_an_update(client: Client) -> None:
    first, new = client.add_remote("caffe2:17.10")
    again, newly = client.add_remote("nvidia://nvidia/caffe2:17.10")
    assert (new, newly, again.id, len(client.images())) == (True, False, first.id, 1)


def test_what_was_pulled_stays_and_is_what_get_finds(client: Client, tmp_path: Path) -> None:
    remote = client.record("caffe2:17.10")
    kept, _ = client.catalog.add(local(remote, tmp_path / "x.sif"))
    assert client.get("caffe2:17.10").location == str(tmp_path / "x.sif")
    again = client.record("caffe2:17.10")
    assert again.image is None and again.created_at >= kept.created_at
    assert client.get("caffe2:17.10").location == str(tmp_path / "x.sif")
    assert [(record.id, record.image) for record in client.catalog.records() if record.image] == [(kept.id, kept.image)]
    assert client.get(f"caffe2:17.10@{VERSION}").location == str(tmp_path / "x.sif")


def test_an_older_local_image_goes_before_a_newer_remote_one(client: Client, tmp_path: Path) -> None:
    container = client.record("caffe2:17.10")
    client.catalog.add(replace(local(container, tmp_path / "x.sif"), created_at="2018-01-15 15:33:30"))
    assert client.catalog.records()[-1].image is None
    assert client.get("caffe2:17.10").location == str(tmp_path / "x.sif")


def test_a_platform(client: Client) -> None:
    assert client.record("caffe2:17.10", platform="arm64").platform == "linux/arm64"
    assert client.record("caffe2:17.10").platform == "linux/amd64"
    with pytest.raises(DocumentError, match="no image for linux/s390x"):
        client.record("caffe2:17.10", platform="s390x")
    with pytest.raises(ConfigError, match="platform: 'a/b/c/d' is no platform"):
        client.record("caffe2:17.10", platform="a/b/c/d")


def test_what_is_no_image_leaves_no_record(client: Client) -> None:
    with pytest.raises(RegistryError, match="has no image nvidia/caffe2:none"):
        client.record("caffe2:none")
    with pytest.raises(InvalidReference, match="names one build"):
        client.record(f"caffe2:17.10@{VERSION}")
    assert client.images() == [] and not client.catalog.path.exists()


def test_a_digest(client: Client) -> None:
    digest = client.record("caffe2:17.10").digest
    container = client.record(f"caffe2@{digest}")
    assert (container.uri, container.tag, container.url.rpartition("/")[2]) == (f"nvidia/caffe2@{digest}", None, digest)
    assert client.get(f"nvidia/caffe2@{digest}").location.endswith(f"/manifests/{digest}")


def test_no_catalog_no_record(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="SREGISTRY_DISABLE is set: nothing is recorded; unset it"):
        client_of(server.address, tmp_path, SREGISTRY_DISABLE="yes").record("caffe2:17.10")


def test_a_store_that_can_not_be_written_is_read(server: Server, tmp_path: Path) -> None:
    client_of(server.address, tmp_path).record("caffe2:17.10")
    blocked, scratch = tmp_path / "blocked", tmp_path / "scratch"
    blocked.mkdir()
    scratch.mkdir()
    (blocked / "docker").write_text("a file where the store should be")
    more = {"SINGULARITY_CACHEDIR": str(blocked), "SREGISTRY_CACHE_FROM": str(tmp_path / "cache"), "SREGISTRY_TMPDIR": str(scratch)}
    assert client_of(server.address, tmp_path, **more).record("caffe2:17.10").image is None
    assert list(scratch.iterdir()) == [] and (blocked / "docker").is_file()


def test_both_versions_of_the_manifest(tmp_path: Path) -> None:
    with Repository() as repository:
        main_ = both(repository, Reply(200, BESIDE))
        assert main_ == schema2(repository)
        container = client_of(repository.host, tmp_path).record("demo/tiny:1")
        url = f"{repository.url}/v2/demo/tiny/manifests"
        assert container.inspect()["metrics"] == {
            "1": {**json.loads(BESIDE), "selfLink": f"{url}/1"},
            "2": {**json.loads(main_), "selfLink": f"{url}/1"},
            "selfLink": url,
        }


# -- the command


@pytest.fixture
def command(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.delenv("SREGISTRY_CLIENT", raising=False)
    monkeypatch.delenv("SREGISTRY_NVIDIA_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    for name, value in environment(server.address, tmp_path).items():
        monkeypatch.setenv(name, value)
    return server


def test_the_command(command: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://{command.address}/v2/nvidia/caffe2/manifests/17.10"
    assert main(["record", "nvidia/caffe2:17.10"]) == 0
    out, err = capsys.readouterr()
    assert out == f"[container][new] nvidia/caffe2:17.10\nSuccess! {url}\n"
    assert err == f"[client|nvidia] [database|{tmp_path}/database/sregistry.json]\n"
    assert main(["record", "--platform", "linux/arm64", "demo/arm:1", "caffe2:17.10"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")] == [
        "[container][new] demo/arm:1",
        "[container][update] nvidia/caffe2:17.10",
    ]
    assert main(["--quiet", "get", "caffe2:17.10"]) == 0
    assert capsys.readouterr() == (f"{url}\n", "")
    assert main(["inspect", "caffe2:17.10"]) == 0
    uri, place, document = capsys.readouterr().out.split("\n", 2)
    assert (uri, place, json.loads(document)["image"], json.loads(document)["version"]) == ("nvidia/caffe2:17.10", url, None, "")
    assert main(["images"]) == 0
    assert sorted(line.split("\t")[-1] for line in capsys.readouterr().out.splitlines()[1:]) == ["demo/arm:1", "nvidia/caffe2:17.10"]


def test_one_that_fails_does_not_stop_the_others(command: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--quiet", "record", "nvidia/none:1", "demo/arm:1", "nvidia/caffe2:17.10"]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("[container][new] nvidia/caffe2:17.10\n")
    none, arm = err.splitlines()
    assert none.startswith(f"error: {command.address} has no image nvidia/none:1")
    assert arm.startswith("error: ") and "the image is for linux/arm64, not for linux/amd64" in arm
    assert [record.uri for record in Catalog(tmp_path / "database").records()] == ["nvidia/caffe2:17.10"]
    assert main(["--quiet", "record", "UPPER/case:1"]) == 2


def test_nobody_there_is_one_line(command: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with Scripted() as gone:
        monkeypatch.setenv("SREGISTRY_NVIDIA_BASE", gone.host)
    assert main(["--quiet", "record", "demo/tiny:1"]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"error: can't reach {gone.host}: ") and err.count("\n") == 1
