"""What docker-registry lists, and the schema 1 that it makes of an image of schema 2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sregistry.client import Client
from sregistry.config.settings import Settings
from sregistry.errors import RegistryError
from sregistry.oci.documents import ImageConfig, MediaType, Platform
from sregistry.oci.parse import parse_manifest
from sregistry.oci.reference import Reference
from sregistry.oci.schema1 import Schema1
from sregistry.registry.client import PAGE
from sregistry.registry.resolve import resolve
from sregistry.registry.tokens import CATALOG
from sregistry.results.resolved import Resolved
from sregistry.store.store import Store
from tests.real.conftest import docker_registry
from tests.support import images
from tests.support.scripted import client
from tests.support.tarball import file

pytestmark = [pytest.mark.needs("docker-registry"), pytest.mark.slow("real tools", once=True)]


def searching(host: str, **more: str) -> Client:
    environ = {"SREGISTRY_NVIDIA_BASE": host, "SREGISTRY_NVIDIA_NOHTTPS": "yes", **more}
    return Client(Settings.load(environ=environ), environ)


def repositories(layout: images.Layout) -> set[str]:
    return {name.rpartition(":")[0] for name in layout.tags()}


def test_tags(registry: str, layout: images.Layout) -> None:
    found = searching(registry)
    for repository in repositories(layout):
        assert set(found.search(repository)) == {name for name in layout.tags() if name.startswith(f"{repository}:")}
    assert found.search("demo/tiny") == ["demo/tiny:Mixed.Case-2", "demo/tiny:1"]
    assert found.search("demo/run:*[hy]*") == [f"demo/run:{tag}" for tag in ("both", "entrypoint", "neither", "shell-form", "taken-away")]
    with pytest.raises(RegistryError, match=r"has no image demo/none \(404 Not Found: NAME_UNKNOWN"):
        found.search("demo/none:*")


def test_repositories(registry: str, layout: images.Layout) -> None:
    found = searching(registry)
    assert set(found.search("*")) == repositories(layout)
    assert found.search("demo/tricky*") == ["demo/tricky", "demo/tricky-mislabelled", "demo/tricky-packed"]
    assert set(found.search("tricky")) == {name for name in repositories(layout) if "tricky" in name}


def made(folder: Path, names: Sequence[str]) -> images.Layout:
    """Return a layout in which all *names* are the same small image."""
    layout = images.Layout(folder)
    image = layout.image([images.layer([file(b"f")])])
    for name in names:
        layout.tag(name, image)
    return layout


@pytest.fixture
def small(tmp_path: Path) -> Iterator[str]:
    """Start a registry that lists three repositories at a time, and refuses to be asked for more."""
    with docker_registry(tmp_path, more="catalog: {maxentries: 3}\n") as address:
        images.push(made(tmp_path / "layout", [f"demo/m{number}:1" for number in range(8)]), f"http://{address}")
        yield address


def test_repositories_in_pages(small: str) -> None:
    with client(small) as it:
        page = it.get_page(Reference(registry=small, repository=CATALOG, tag=None))
    assert len(page.document["repositories"]) == 3 and page.links, "it does page"
    assert searching(small).search("*") == [f"demo/m{number}" for number in range(8)]


# -- schema 1, which docker-registry makes of an image in Docker's types whose config has a history


def with_history(layout: images.Layout, *, docker: bool = True, platform: str = "linux/amd64") -> images.Json:
    """Keep an image of two layers, and of steps between them that made none; return the descriptor of its manifest."""
    layers = [images.layer([file(b"one", platform.encode())]), images.layer([file(b"two", b"2")])]
    history = [{"created": "2017-10-27T08:00:00Z", "created_by": f"step {number}", "empty_layer": number % 2 == 0} for number in range(5)]
    config = {"Entrypoint": ["/one"], "Env": ["A=1"], "Labels": {"l": "1"}}
    return layout.image(layers, config, docker=docker, platform=platform, history=history)


@pytest.fixture(scope="module")
def converting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("converting")
    layout = images.Layout(folder / "layout")
    amd64, arm64 = with_history(layout), with_history(layout, platform="linux/arm64")
    layout.tag("demo/old:1", amd64)
    layout.tag("demo/old:list", layout.index([(amd64, "linux/amd64"), (arm64, "linux/arm64")], images.LIST))
    layout.tag("demo/old:oci", with_history(layout, docker=False))
    layout.tag("demo/old:no-history", layout.image([images.layer([file(b"f")])], docker=True))
    with docker_registry(folder) as address:
        images.push(layout, f"http://{address}")
        yield address


def found(registry: str, folder: Path, tag: str, platform: str = "amd64") -> Resolved:
    with client(registry) as it:
        reference = Reference.parse(f"demo/old:{tag}", registry=registry, collection="")
        return resolve(it, reference, Platform.parse(platform), Store(folder))


@pytest.mark.parametrize(
    ("tag", "platform", "kinds"),
    [
        ("1", "amd64", [MediaType.SCHEMA1, MediaType.DOCKER_MANIFEST]),
        ("list", "amd64", [MediaType.SCHEMA1, MediaType.DOCKER_LIST, MediaType.DOCKER_MANIFEST]),
        # docker-registry makes it of the list's image for amd64, which tells nothing of this one
        ("list", "arm64", [MediaType.DOCKER_LIST, MediaType.DOCKER_MANIFEST]),
        ("oci", "amd64", [MediaType.OCI_MANIFEST]),
        ("no-history", "amd64", [MediaType.DOCKER_MANIFEST]),
    ],
)
def test_schema_1_is_kept_where_it_is_made(converting: str, tmp_path: Path, tag: str, platform: str, kinds: list[str]) -> None:
    resolved = found(converting, tmp_path, tag, platform)
    assert [document.descriptor.media_type for document in resolved.documents] == kinds
    assert resolved.digest == resolved.documents[-1].descriptor.digest and resolved.config is not None


def test_it_is_of_the_same_image(converting: str, tmp_path: Path) -> None:
    resolved = found(converting, tmp_path, "1")
    beside = parse_manifest(resolved.documents[0].text.encode())
    assert isinstance(beside, Schema1)
    assert [layer.digest for layer in beside.layers] == [layer.blob.digest for layer in resolved.layers]
    ours, theirs = resolved.parsed_config(), ImageConfig.parse(beside.config)
    assert (theirs.entrypoint, theirs.env, theirs.labels) == (ours.entrypoint, ours.env, ours.labels) == (("/one",), ("A=1",), {"l": "1"})


def test_it_is_the_same_every_time(converting: str, tmp_path: Path) -> None:
    """Its signature is another one each time, but is no part of what is kept."""
    assert found(converting, tmp_path / "1", "1") == found(converting, tmp_path / "2", "1")


def test_a_record_shows_both(converting: str, tmp_path: Path) -> None:
    """As the seed's `inspect` does."""
    environ = {"SREGISTRY_DATABASE": str(tmp_path), "SINGULARITY_CACHEDIR": str(tmp_path), "SREGISTRY_DOCKER_ARCHITECTURE": "amd64"}
    metrics = searching(converting, **environ).record("demo/old:1").inspect()["metrics"]
    url = f"http://{converting}/v2/demo/old/manifests"
    assert {key: value if key == "selfLink" else value["selfLink"] for key, value in metrics.items()} == {
        "1": f"{url}/1",
        "2": f"{url}/1",
        "selfLink": url,
    }
    assert (metrics["1"]["architecture"], metrics["1"]["schemaVersion"], len(metrics["1"]["fsLayers"])) == ("amd64", 1, 5)
    assert metrics["2"]["mediaType"] == MediaType.DOCKER_MANIFEST


def test_a_repository_of_more_tags_than_a_page_has(tmp_path: Path) -> None:
    """docker-registry sends all of them at once."""
    names = [f"demo/many:t{number:04}" for number in range(PAGE + 3)]
    with docker_registry(tmp_path) as address:
        images.push(made(tmp_path / "layout", names), f"http://{address}")
        assert searching(address).search("demo/many") == names
