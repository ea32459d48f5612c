"""What docker-registry lists, and the schema 1 that it makes of an image of schema 2."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from sregistry.auth import CATALOG
from sregistry.client import Client
from sregistry.errors import RegistryError
from sregistry.manifest import Resolved, resolve
from sregistry.oci import Platform
from sregistry.reference import Reference
from sregistry.registry import PAGE
from sregistry.settings import Settings
from sregistry.store import Store
from tests import images
from tests.real.conftest import docker_registry
from tests.scripted import client
from tests.tarball import file

pytestmark = pytest.mark.needs("docker-registry")


def searching(host: str) -> Client:
    environ = {"SREGISTRY_NVIDIA_BASE": host, "SREGISTRY_NVIDIA_NOHTTPS": "yes"}
    return Client(Settings.load(environ=environ), environ)


def repositories(layout: images.Layout) -> set[str]:
    return {name.rpartition(":")[0] for name in layout.tags()}


def test_tags(registry: str, layout: images.Layout) -> None:
    found = searching(registry)
    for repository in repositories(layout):
        assert set(found.search(repository)) == {name for name in layout.tags() if name.startswith(f"{repository}:")}
    assert found.search("demo/tiny") == ["demo/tiny:1", "demo/tiny:Mixed.Case-2"]
    assert found.search("demo/run:*[hy]*") == [f"demo/run:{tag}" for tag in ("both", "entrypoint", "neither", "shell-form")]
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


def found(registry: str, store: Store, name: str, platform: str = "amd64") -> Resolved:
    with client(registry) as it:
        return resolve(it, Reference.parse(name, registry=registry, collection=""), Platform.parse(platform), store)


def test_none_is_made_of_oci_s_types(registry: str, tmp_path: Path) -> None:
    assert len(found(registry, Store(tmp_path), "demo/static:1").documents) == 1


def test_a_repository_of_more_tags_than_a_page_has(tmp_path: Path) -> None:
    """docker-registry sends all of them at once."""
    names = [f"demo/many:t{number:04}" for number in range(PAGE + 3)]
    with docker_registry(tmp_path) as address:
        images.push(made(tmp_path / "layout", names), f"http://{address}")
        assert searching(address).search("demo/many") == names
