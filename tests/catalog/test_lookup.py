"""Which image on record a name means, for verbs that look and for those that change."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from sregistry.catalog.catalog import Catalog
from sregistry.catalog.lookup import Lookup
from sregistry.catalog.record import Record
from sregistry.config.settings import Settings
from sregistry.errors import CatalogError, ConfigError, InvalidReference
from sregistry.oci.documents import Digest
from sregistry.system import logs
from tests.support.records import made

V1, V2 = "1" * 64, "2" * 64
TINY = "demo/tiny:1"


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "database")


def lookup(catalog: Catalog, environ: Mapping[str, str] | None = None, **keys: object) -> Lookup:
    given = {"platform": "linux/amd64", "storage": "/images", **keys}
    return Lookup.of(catalog, Settings.load(given=given, environ={}), environ or {})


def quay(uri: str = TINY, **fields: object) -> Record:
    repository, _, tag = uri.rpartition(":")
    url = f"https://quay.io/v2/{repository}/manifests/{tag}"
    return made(uri, **{"client": "quay", "registry": "quay.io", "url": url, "image": "/quay.sif", "version": V2, **fields})


def ours(uri: str = TINY, **fields: object) -> Record:
    return made(uri, **{"image": "/ours.sif", "version": V1, **fields})


@pytest.mark.parametrize("change", [False, True], ids=["look", "change"])
@pytest.mark.parametrize("order", [(ours, quay), (quay, ours)], ids=["ours first", "quay first"])
@pytest.mark.parametrize(
    ("text", "client", "place"),
    [
        (TINY, "nvidia", "/ours.sif"),
        (TINY, "quay", "/quay.sif"),
        (f"nvidia://{TINY}", "quay", "/ours.sif"),
        (f"quay://{TINY}", "nvidia", "/quay.sif"),
        (f"quay.io/{TINY}", "nvidia", "/quay.sif"),
        (f"nvcr.io/{TINY}", "docker", "/ours.sif"),
        (f"{TINY}@{V2}", "nvidia", "/quay.sif"),
        (f"{TINY}@{V1[:32]}", "quay", "/ours.sif"),
        ("/quay.sif", "nvidia", "/quay.sif"),
        (f"demo/tiny@{Digest.of(TINY.encode())}", "nvidia", "/ours.sif"),
    ],
)
def test_a_name_means_what_it_means_to_pull(catalog: Catalog, text: str, client: str, place: str, order: tuple, change: bool) -> None:  # type: ignore[type-arg]
    catalog.add_all(make() for make in order)
    assert lookup(catalog, client=client).find(text, change=change).image == place


def test_a_registry_that_moved(catalog: Catalog) -> None:
    catalog.add_all([ours(), ours(registry="mirror.example", image="/mirror.sif", url="https://mirror.example/v2/demo/tiny/manifests/1")])
    moved = {"SREGISTRY_NVIDIA_BASE": "mirror.example"}
    assert lookup(catalog, moved).find(TINY, change=True).image == "/mirror.sif"
    assert lookup(catalog, moved).find(f"nvcr.io/{TINY}", change=True).image == "/ours.sif"


@pytest.mark.parametrize(
    "name", ["docker.io/library/busybox:1", "index.docker.io/library/busybox:1", "docker://busybox:1", "docker.io/busybox:1"]
)
@pytest.mark.parametrize("registry", ["registry-1.docker.io", "index.docker.io"])
def test_a_registry_s_other_names(catalog: Catalog, name: str, registry: str) -> None:
    catalog.add(made("library/busybox:1", client="docker", registry=registry, url=""))
    assert lookup(catalog).find(name, change=True).uri == "library/busybox:1"


def test_one_elsewhere_may_be_looked_at_but_not_changed(catalog: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    catalog.add(quay())
    logs.set_up({})
    assert lookup(catalog).find(TINY).image == "/quay.sif"
    assert f"{TINY}: nothing of nvcr.io is on record; this is quay.io/{TINY}" in capsys.readouterr().err
    with pytest.raises(CatalogError, match=rf"no such image of nvcr\.io in .*; there is quay\.io/{TINY} linux/amd64 sif "):
        lookup(catalog).find(TINY, change=True)
    for explicit in (f"nvcr.io/{TINY}", f"nvidia://{TINY}", f"nvcr.io/{TINY}@{V2}"):
        with pytest.raises(CatalogError, match="no such image"):
            lookup(catalog).find(explicit)


@pytest.mark.parametrize("change", [False, True])
def test_several_elsewhere_are_listed(catalog: Catalog, change: bool) -> None:
    catalog.add_all(
        [quay(), quay(client="oci", registry="h.example:5000", image="/h.sif", url="https://h.example:5000/v2/demo/tiny/manifests/1")]
    )
    with pytest.raises(CatalogError) as caught:
        lookup(catalog).find(TINY, change=change)
    said, digest = str(caught.value), Digest.of(TINY.encode()).hex[:12]
    assert f"quay.io/{TINY} linux/amd64 sif {digest} at /quay.sif" in said and f"h.example:5000/{TINY} linux/amd64 sif {digest}" in said


KINDS = [
    ours(image="/amd.sif"),
    ours(image="/arm.sif", platform="linux/arm64/v8"),
    ours(image="/amd", format="sandbox", version=""),
    ours(image="/arm.simg", platform="linux/arm64", format="simg"),
]


@pytest.mark.parametrize("change", [False, True])
@pytest.mark.parametrize(
    ("keys", "platform", "format", "place"),
    [
        ({}, None, None, "/amd.sif"),
        ({"format": "sandbox"}, None, None, "/amd"),
        ({"platform": "linux/arm64"}, None, None, "/arm.sif"),
        ({}, "linux/arm64", None, "/arm.sif"),
        ({}, "arm64", "simg", "/arm.simg"),
        ({}, None, "sandbox", "/amd"),
        ({}, None, "simg", "/arm.simg"),
    ],
)
def test_platforms_and_formats(
    catalog: Catalog, keys: dict[str, str], platform: str | None, format: str | None, place: str, change: bool
) -> None:
    """Those of the settings are what `pull` would make; others are asked for."""
    catalog.add_all(KINDS)
    settings = Settings.load(given={"platform": "linux/amd64", **keys}, environ={})
    assert Lookup.of(catalog, settings, {}, platform_=platform, format_=format).find(TINY, change=change).image == place


@pytest.mark.parametrize("change", [False, True])
def test_platforms_that_pull_would_not_choose(catalog: Catalog, change: bool) -> None:
    catalog.add_all(KINDS[1:])
    says = r"means several images: .*arm64/v8 sif .* at /arm.sif, .*linux/arm64 simg .*--platform or --format"
    with pytest.raises(CatalogError, match=says):
        lookup(catalog, platform="linux/s390x").find(TINY, change=change)
    assert lookup(catalog).find("/arm.sif", change=change).image == "/arm.sif"


def test_what_is_asked_for_is_there_or_told(catalog: Catalog) -> None:
    catalog.add(ours())
    settings = Settings.load(given={}, environ={})
    with pytest.raises(CatalogError, match=rf"no such image for linux/riscv64, simg in .*; there is nvcr\.io/{TINY} linux/amd64 sif"):
        Lookup.of(catalog, settings, {}, platform_="riscv64", format_="simg").find(TINY)
    for bad in ({"platform_": "a/b/c/d"}, {"format_": "ova"}):
        with pytest.raises(ConfigError):
            Lookup.of(catalog, settings, {}, **bad)


def test_one_image_in_two_places(catalog: Catalog, tmp_path: Path) -> None:
    """To look at, one that is there goes before the newest; to be changed, it is the file that `pull` would write."""
    there = tmp_path / "there.sif"
    there.touch()
    catalog.add_all([ours(image=str(there)), ours(image="/gone.sif", created_at="2020-01-01 00:00:00")])
    assert lookup(catalog).find(TINY).image == str(there)
    with pytest.raises(CatalogError, match="means several images"):
        lookup(catalog).find(TINY, change=True)
    catalog.add(ours(image="/images/demo-tiny:1.sif"))
    assert lookup(catalog).find(TINY, change=True).image == "/images/demo-tiny:1.sif"
    assert lookup(catalog).find("/gone.sif", change=True).image == "/gone.sif"


@pytest.mark.parametrize("change", [False, True])
def test_a_local_file_goes_before_an_address(catalog: Catalog, change: bool) -> None:
    catalog.add_all([ours(), ours(image=None, version="", created_at="2020-01-01 00:00:00")])
    assert lookup(catalog).find(TINY, change=change).image == "/ours.sif"


def test_names_that_were_given_here(catalog: Catalog) -> None:
    """`lab/mine` is no repository of quay.io: whoever's default registry asks, means it."""
    url = quay().url
    catalog.add_all([quay("lab/mine:1", url=url), quay("lab/added:1", registry="", url="", image="/added.sif")])
    assert lookup(catalog).find("lab/mine:1", change=True).image == "/quay.sif"
    assert lookup(catalog).find("quay.io/lab/mine:1", change=True).image == "/quay.sif"
    assert lookup(catalog).find("quay://lab/added:1", change=True).image == "/added.sif"
    for foreign in ("nvcr.io/lab/mine:1", "nvidia://lab/added:1"):
        with pytest.raises(CatalogError, match="no such image"):
            lookup(catalog).find(foreign)
    catalog.add(ours("lab/mine:1"))
    with pytest.raises(CatalogError, match="means several images"):
        lookup(catalog).find("lab/mine:1", change=True)


def test_clients_that_only_records_have(catalog: Catalog) -> None:
    catalog.add(made("vsoch/hello:1", client="hub", registry="", url=""))
    assert lookup(catalog).find("hub://vsoch/hello:1").client == "hub"
    with pytest.raises(ConfigError, match="hup:// is unknown"):
        lookup(catalog).find("hup://vsoch/hello:1")


def test_a_repository_of_one_part(catalog: Catalog) -> None:
    catalog.add(
        made(
            "tiny:1", client="oci", registry="h.example:5000", collection="tiny", name="", url="https://h.example:5000/v2/tiny/manifests/1"
        )
    )
    assert lookup(catalog).find("tiny:1").registry == "h.example:5000"
    assert lookup(catalog).find("h.example:5000/tiny:1", change=True).registry == "h.example:5000"


@pytest.mark.parametrize("text", ["", "UPPER/x:1", "a/b@sha256:12", "docker://", "a b", "a//b"])
def test_what_is_no_name(catalog: Catalog, text: str) -> None:
    with pytest.raises(InvalidReference):
        lookup(catalog).find(text)


def test_long_lists_are_cut(catalog: Catalog) -> None:
    catalog.add_all(
        quay(registry=f"h{n}.example", image=f"/{n}.sif", url=f"https://h{n}.example/v2/demo/tiny/manifests/1") for n in range(20)
    )
    with pytest.raises(CatalogError, match=" and 12 more; "):
        lookup(catalog).find(TINY)
