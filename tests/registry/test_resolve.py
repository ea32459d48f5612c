"""References resolved against a server: indexes, platforms, digests and sizes, artifacts, the output file."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sregistry.errors import DigestMismatch, DocumentError, RegistryError, SregistryError, StoreError
from sregistry.oci.documents import Descriptor, Digest, MediaType, Platform
from sregistry.oci.json_fields import MAX_DOCUMENT
from sregistry.results.resolved import Resolved
from sregistry.store.store import Store
from sregistry.system import limits
from tests.support.repository import AMD64, DIFF, Repository, find
from tests.support.scripted import Reply, json_errors


@pytest.fixture
def repository() -> Iterator[Repository]:
    with Repository() as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_a_single_manifest(repository: Repository, store: Store) -> None:
    chosen = repository.manifest(tag="1")
    found = find(repository, store)
    assert (found.uri, found.client, found.registry, found.repository, found.tag) == (
        "demo/tiny:1",
        "nvidia",
        repository.host,
        "demo/tiny",
        "1",
    )
    assert found.url == f"{repository.url}/v2/demo/tiny/manifests/1"
    assert found.digest == Digest(chosen["digest"])
    assert found.size == chosen["size"]
    assert found.platform == AMD64
    assert [str(layer.diff_id) for layer in found.layers] == DIFF[:2]
    assert [layer.blob.json() for layer in found.layers] == repository.layers()
    assert [document.descriptor.json() for document in found.documents] == [chosen]
    assert json.loads(found.image_config)["architecture"] == "amd64"
    assert found.parsed_config().diff_ids == tuple(layer.diff_id for layer in found.layers)
    assert found.layer(Digest.of(b"1")).diff_id == Digest(DIFF[1])
    with pytest.raises(DocumentError, match="has no layer"):
        found.layer(Digest.of(b"none"))
    assert found.reference.target == chosen["digest"]


def test_everything_read_is_in_the_store_under_its_name(repository: Repository, store: Store) -> None:
    inner = repository.document({"manifests": [repository.entry("linux/arm64"), repository.entry("linux/amd64")]})
    outer = repository.document({"manifests": [inner]}, "1")
    found = find(repository, store)
    assert [document.descriptor.json() for document in found.documents][:2] == [outer, inner]
    for document in found.documents:
        assert store.read(document.descriptor.digest) == document.text.encode()
    assert found.config is not None
    assert store.read(found.config.digest) == found.image_config.encode()
    assert store.tags() == {f"{repository.host}/demo/tiny:1": found.documents[-1].descriptor}


@pytest.mark.parametrize(
    ("offered", "wanted", "expected"),
    [
        (["linux/arm64/v8", "linux/amd64"], "linux/arm64", "linux/arm64/v8"),
        (["linux/amd64/v3", "linux/amd64"], "linux/amd64", "linux/amd64"),
        (["linux/arm/v5", "linux/arm/v6", "linux/arm/v7"], "linux/arm/v6", "linux/arm/v6"),
        (["windows/amd64", "linux/amd64"], "amd64", "linux/amd64"),
    ],
)
def test_the_best_platform_is_chosen(repository: Repository, store: Store, offered: list[str], wanted: str, expected: str) -> None:
    attestation = {
        **repository.document({"config": repository.blob(b"{}"), "layers": []}),
        "platform": {"os": "unknown", "architecture": "unknown"},
    }
    repository.document({"manifests": [attestation, *(repository.entry(platform) for platform in offered)]}, "1")
    assert str(find(repository, store, platform=Platform.parse(wanted)).platform) == expected


def test_nested_indexes_without_a_platform_are_looked_into(repository: Repository, store: Store) -> None:
    arm = repository.document({"manifests": [repository.entry("linux/arm64")]})
    amd = repository.document({"manifests": [repository.entry("linux/amd64")]})
    repository.document({"manifests": [arm, amd]}, "1")
    assert find(repository, store).platform == AMD64
    with pytest.raises(DocumentError, match=r"no image for linux/s390x, the tag offers linux/amd64, linux/arm64; choose"):
        find(repository, store, platform=Platform.parse("s390x"))


def test_an_entry_that_is_an_artifact_is_passed_over(repository: Repository, store: Store) -> None:
    artifact = repository.document(
        {"config": repository.blob(b"{}", "application/vnd.oci.empty.v1+json"), "layers": [], "artifactType": "a/b"}
    )
    named = {**artifact, "artifactType": "a/b", "platform": {"os": "linux", "architecture": "amd64"}}
    repository.document({"manifests": [named, repository.entry("linux/amd64")]}, "1")
    assert find(repository, store).platform == AMD64


def artifact(repository: Repository, kind: str) -> dict[str, Any]:
    """Publish what is no image, and return its descriptor."""
    if kind == "chart":
        config = repository.blob(b'{"name": "chart"}', "application/vnd.cncf.helm.config.v1+json")
        return repository.document({"config": config, "layers": repository.layers(1)})
    layer = {
        "signature": "application/vnd.dev.cosign.simplesigning.v1+json",
        "attestation": "application/vnd.in-toto+json",
        "sbom": "text/spdx",
        "files": "application/octet-stream",
        "oras": MediaType.OCI_LAYER,
    }[kind]
    config = repository.blob(b"{}", "application/vnd.unknown.config.v1+json") if kind == "oras" else repository.config(layers=1)
    return repository.document({"config": config, "layers": [{**repository.layers(1)[0], "mediaType": layer}]})


ARTIFACTS = ["chart", "signature", "attestation", "sbom", "files", "oras"]


@pytest.mark.parametrize("kind", ARTIFACTS)
@pytest.mark.parametrize("named", [True, False], ids=["image-says-its-platform", "nobody-says-anything"])
@pytest.mark.parametrize("first", [True, False], ids=["artifact-first", "image-first"])
def test_what_is_no_image_is_passed_over(repository: Repository, store: Store, kind: str, named: bool, first: bool) -> None:
    image = repository.entry("linux/amd64") if named else repository.manifest("linux/amd64")
    entries = [artifact(repository, kind), image]
    repository.document({"manifests": entries if first else entries[::-1]}, "1")
    assert str(find(repository, store).digest) == image["digest"]


def test_an_artifact_that_claims_a_platform_is_passed_over(repository: Repository, store: Store) -> None:
    image = repository.entry("linux/amd64")
    repository.document({"manifests": [{**artifact(repository, "sbom"), "platform": image["platform"]}, image]}, "1")
    assert str(find(repository, store).digest) == image["digest"]


@pytest.mark.parametrize("named", [True, False])
def test_an_index_of_artifacts_alone_says_what_they_are(repository: Repository, store: Store, named: bool) -> None:
    platform = {"platform": {"os": "linux", "architecture": "amd64"}} if named else {}
    repository.document({"manifests": [{**artifact(repository, "chart"), **platform}, artifact(repository, "sbom")]}, "1")
    with pytest.raises(DocumentError, match="demo/tiny:1: not a container image but a Helm chart"):
        find(repository, store)


def test_configs_say_the_platforms_that_an_index_does_not(repository: Repository, store: Store) -> None:
    made = {name: repository.manifest(name) for name in ("linux/arm64", "linux/amd64/v3", "linux/amd64")}
    repository.document({"manifests": list(made.values())}, "1")
    for name in ("linux/amd64", "linux/arm64"):
        assert str(find(repository, store, platform=Platform.parse(name)).digest) == made[name]["digest"]
    with pytest.raises(DocumentError, match="no image for linux/s390x, the tag offers linux/amd64, linux/amd64/v3, linux/arm64; choose"):
        find(repository, store, platform=Platform.parse("s390x"))


def test_what_says_its_platform_goes_before_what_does_not(repository: Repository, store: Store) -> None:
    unnamed, named = repository.manifest("linux/amd64", layers=1), repository.entry("linux/amd64")
    repository.document({"manifests": [unnamed, named]}, "1")
    assert str(find(repository, store).digest) == named["digest"]
    assert f"/v2/demo/tiny/manifests/{unnamed['digest']}" not in repository.paths()


def test_the_platform_of_a_nested_index_is_that_of_its_entries(repository: Repository, store: Store) -> None:
    inner = repository.document({"manifests": [repository.manifest(None)]})
    repository.document({"manifests": [{**inner, "platform": {"os": "linux", "architecture": "arm64"}}]}, "1")
    assert str(find(repository, store, platform=Platform.parse("arm64")).platform) == "linux/arm64"
    with pytest.raises(DocumentError, match="no image for linux/amd64"):
        find(repository, store)


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param({}, id="nothing"),
        pytest.param(None, id="null"),
        pytest.param({"platform": {"os": "linux", "architecture": None}}, id="architecture-null"),
        pytest.param({"mediaType": MediaType.OCI_MANIFEST, "digest": f"sha256:{'0' * 64}", "size": 5}, id="manifest-that-is-not-there"),
        pytest.param({"mediaType": MediaType.OCI_INDEX, "digest": f"sha256:{'0' * 64}", "size": 5}, id="index-that-is-not-there"),
        pytest.param(
            {"mediaType": MediaType.OCI_MANIFEST, "digest": "x", "platform": {"os": "linux", "architecture": "arm64"}},
            id="another-platform",
        ),
        pytest.param(
            {"mediaType": MediaType.OCI_MANIFEST, "digest": "x", "platform": {"os": "linux", "architecture": "amd64"}},
            id="the-same-platform",
        ),
        pytest.param(
            {"mediaType": MediaType.OCI_MANIFEST, "digest": f"sha256:{'0' * 64}", "size": 2**22 + 1, "platform": {"architecture": "s390x"}},
            id="too-large",
        ),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_an_odd_entry_harms_no_other(repository: Repository, store: Store, odd: dict[str, Any] | None, first: bool) -> None:
    image = repository.entry("linux/amd64")
    repository.document({"manifests": [odd, image] if first else [image, odd]}, "1")
    assert str(find(repository, store).digest) == image["digest"]


def test_an_odd_entry_that_is_wanted_is_named(repository: Repository, store: Store) -> None:
    bad = {**repository.entry("linux/amd64"), "size": -1}
    repository.document({"manifests": [repository.entry("linux/arm64"), bad]}, "1")
    with pytest.raises(DocumentError, match=r"demo/tiny:1: manifests\[1\]\.size: expected a size in bytes, got '-1'"):
        find(repository, store)
    repository.document({"manifests": [{}, repository.entry("linux/arm64")]}, "1")
    with pytest.raises(DocumentError, match=r"the tag offers linux/arm64 \(passed over: manifests\[0\]\.digest: missing"):
        find(repository, store)
    better = {**repository.entry("linux/amd64"), "platform": {"os": "linux", "architecture": "amd64", "variant": "v3"}, "digest": "x"}
    repository.document({"manifests": [repository.entry("linux/amd64"), better]}, "1")
    with pytest.raises(DocumentError, match=r"manifests\[1\]\.digest"):  # what was asked for is not quietly another
        find(repository, store, platform=Platform.parse("linux/amd64/v3"))


def test_a_message_lists_so_many_platforms(repository: Repository, store: Store) -> None:
    entry = repository.entry("linux/amd64")
    many = [{**entry, "platform": {"os": "linux", "architecture": f"a{n:03}"}} for n in range(300)]
    repository.document({"manifests": many}, "1")
    with pytest.raises(DocumentError, match=r"offers linux/a000, .*linux/a019 and 280 more; choose"):
        find(repository, store)


@pytest.mark.parametrize("kind", ["application/octet-stream", "application/json", "text/html", "", None, "application/vnd.acme+json"])
def test_a_config_of_any_type_is_one_by_its_content(repository: Repository, store: Store, tmp_path: Path, kind: str | None) -> None:
    config = {**repository.config(), "mediaType": kind}
    image = repository.document({"config": config, "layers": repository.layers()}, "1")
    found = find(repository, store)
    assert len(found.layers) == 2
    found.write(tmp_path / "manifest.json")
    assert Resolved.read(tmp_path / "manifest.json").parsed_config().platform == AMD64
    repository.document({"manifests": [{**image, "mediaType": kind or ""}]}, "2")
    if kind != "application/vnd.acme+json":
        assert find(repository, store, "demo/tiny:2").digest == found.digest
    for data in (b"{}", b"no json", b'{"rootfs": null}'):
        config = repository.blob(data, "x")
        repository.document({"config": {**config, "mediaType": kind}, "layers": repository.layers()}, "1")
        with pytest.raises(
            DocumentError, match=f"demo/tiny:1: not a container image but an artifact of type {re.escape(kind or 'none')}; name an"
        ):
            find(repository, store)


@pytest.mark.parametrize("damage", [b"", b"x", None], ids=["empty", "shorter", "same-size"])
def test_documents_that_are_damaged_in_the_store_are_fetched_anew(repository: Repository, store: Store, damage: bytes | None) -> None:
    index = repository.document({"manifests": [repository.entry("linux/amd64")]}, "1")
    first = find(repository, store)
    assert first.config is not None
    for text in ("demo/tiny:1", f"demo/tiny@{index['digest']}"):
        for digest in (Digest(index["digest"]), first.digest, first.config.digest):
            path = store.blob(digest)
            whole = path.read_bytes()
            path.write_bytes(bytes(len(whole)) if damage is None else damage)
            assert find(repository, store, text).digest == first.digest
            assert path.read_bytes() == whole


def nydus(repository: Repository) -> dict[str, Any]:
    """An entry of an index as nydusify makes it."""
    entry = repository.entry("linux/amd64", layers=1)
    return {**entry, "platform": {**entry["platform"], "os.features": ["nydus.remoteimage.v1"]}}


def test_of_a_converted_image_the_ordinary_one_is_chosen(repository: Repository, store: Store) -> None:
    ordinary = repository.entry("linux/amd64")
    repository.document({"manifests": [nydus(repository), ordinary]}, "1")
    assert str(find(repository, store).digest) == ordinary["digest"]
    repository.document({"manifests": [nydus(repository)]}, "1")
    with pytest.raises(DocumentError, match="no image for linux/amd64, the tag offers linux/amd64 for nydus alone; choose"):
        find(repository, store)


def test_a_sif_is_taken_as_it_is(repository: Repository, store: Store, tmp_path: Path) -> None:
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": DIFF[0], "size": 2}  # never asked for
    layer = {**repository.layers(2)[1], "mediaType": MediaType.SIF_LAYER, "annotations": {"org.opencontainers.image.title": "x.sif"}}
    entry = repository.document({"config": config, "layers": [layer]}, "1")
    found = find(repository, store)
    assert (found.kind, found.platform, found.image_config, str(found.digest)) == ("sif", AMD64, "", entry["digest"])
    assert found.json()["layers"] == [{**layer, "diff_id": None}]
    with pytest.raises(DocumentError, match="demo/tiny:1 is a SIF already"):
        found.parsed_config()
    found.write(tmp_path / "manifest.json")
    assert Resolved.read(tmp_path / "manifest.json") == found
    assert repository.paths() == ["/v2/demo/tiny/manifests/1"]
    platform = {"os": "linux", "architecture": "arm64"}
    repository.document({"manifests": [{**entry, "platform": platform, "artifactType": MediaType.SIF_CONFIG}]}, "2")
    assert str(find(repository, store, "demo/tiny:2", Platform.parse("arm64")).platform) == "linux/arm64"


def test_embedded_content_is_not_asked_for(repository: Repository, store: Store) -> None:
    config = json.dumps({"rootfs": {"diff_ids": DIFF[:1]}}).encode()
    layer = b"a layer"

    def embedded(data: bytes, media_type: str) -> dict[str, Any]:
        item = Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data)).json()
        return {**item, "data": base64.b64encode(data).decode()}

    document: dict[str, Any] = {
        "schemaVersion": 2,
        "config": embedded(config, MediaType.OCI_CONFIG),
        "layers": [embedded(layer, MediaType.OCI_LAYER)],
    }
    entry = embedded(json.dumps(document).encode(), MediaType.OCI_MANIFEST)
    repository.document({"manifests": [entry]}, "1")
    found = find(repository, store)
    assert repository.paths() == ["/v2/demo/tiny/manifests/1"]
    assert store.read(found.layers[0].blob.digest) == layer
    assert found.image_config == config.decode()
    assert "data" not in found.json()["layers"][0]
    document["layers"][0]["data"] = base64.b64encode(b"another").decode()
    repository.document(document, "1")
    with pytest.raises(DocumentError, match=r"demo/tiny:1: layers\[0\]\.data: expected the 7 bytes of"):
        find(repository, store)


@pytest.mark.parametrize("count", [0, 1])
def test_an_index_without_the_platform(repository: Repository, store: Store, count: int) -> None:
    repository.document({"manifests": [repository.entry("linux/arm64")] * count}, "1")
    with pytest.raises(DocumentError, match=f"no image for linux/amd64, the tag offers {'linux/arm64' if count else 'no platform at all'}"):
        find(repository, store)


def test_a_single_manifest_of_another_platform_is_refused(repository: Repository, store: Store) -> None:
    repository.manifest("linux/arm64", tag="1")
    with pytest.raises(DocumentError, match=rf"{repository.host}/demo/tiny:1: the image is for linux/arm64, not for linux/amd64"):
        find(repository, store)
    repository.manifest("windows/amd64", tag="1")
    with pytest.raises(DocumentError, match="is for windows/amd64"):
        find(repository, store)
    assert store.tags() == {}


@pytest.mark.parametrize(
    ("listed", "own", "wanted", "platform", "warning"),
    [
        pytest.param("linux/amd64", "linux/arm64", "amd64", "linux/amd64", "the index says linux/amd64, the config of the image linux/arm"),
        pytest.param("linux/arm64", "linux/amd64", "arm64", "linux/arm64", "the index says linux/arm64, the config of the image linux/amd"),
        pytest.param("linux/amd64", "windows/amd64", "amd64", "linux/amd64", "the config of the image windows/amd64"),
        pytest.param("linux/arm/v6", "linux/arm/v7", "linux/arm/v6", "linux/arm/v6", "the index says linux/arm/v6"),
        pytest.param("linux/amd64", "linux/amd64/v3", "linux/amd64/v2", "linux/amd64/v3", "this is for linux/amd64/v3"),
        pytest.param("linux/amd64", "linux/amd64/v3", "linux/amd64/v3", "linux/amd64/v3", None),
        pytest.param("linux/amd64/v3", "linux/amd64/v3", "linux/amd64", "linux/amd64/v3", "nothing for every linux/amd64: this is for"),
        pytest.param("linux/arm64/v8", "linux/arm64", "arm64", "linux/arm64/v8", None),
        pytest.param("linux/arm64", "linux/arm64/v8", "arm64", "linux/arm64/v8", None),
        pytest.param("Linux/x86_64", "linux/amd64", "amd64", "linux/amd64", None),
        pytest.param("linux/amd64", "Linux/AMD64", "amd64", "linux/amd64", None),
        pytest.param("linux/arm/v7", "linux/arm", "arm", "linux/arm/v7", None),
    ],
)
def test_the_index_decides_about_the_platform(
    repository: Repository, store: Store, tmp_path: Path, listed: str, own: str, wanted: str, platform: str, warning: str | None
) -> None:
    names = dict(zip(("os", "architecture", "variant"), listed.split("/"), strict=False))
    repository.document({"manifests": [{**repository.manifest(own), "platform": names}]}, "1")
    found = find(repository, store, platform=Platform.parse(wanted))
    assert str(found.platform) == platform == str(found.parsed_config().platform)
    assert len(found.warnings) == (warning is not None)
    assert warning is None or warning in found.warnings[0]
    found.write(tmp_path / "manifest.json")
    assert Resolved.read(tmp_path / "manifest.json") == found


def test_a_single_manifest_says_itself_what_it_is_for(repository: Repository, store: Store) -> None:
    repository.manifest("Linux/x86_64", tag="1")
    assert (str(find(repository, store).platform), find(repository, store).warnings) == ("linux/amd64", ())
    repository.manifest("linux/amd64/v3", tag="1")
    assert "older processors do not run" in find(repository, store).warnings[0]
    with pytest.raises(DocumentError, match="the image is for linux/amd64/v3, not for linux/amd64/v2"):
        find(repository, store, platform=Platform.parse("linux/amd64/v2"))


def test_a_config_without_a_platform_is_taken(repository: Repository, store: Store) -> None:
    repository.manifest(None, tag="1")
    assert find(repository, store).platform == AMD64


def test_the_layers_and_the_config_must_agree(repository: Repository, store: Store) -> None:
    repository.document({"config": repository.config(layers=3), "layers": repository.layers(2)}, "1")
    with pytest.raises(DocumentError, match="the config lists 3 layers, the manifest 2"):
        find(repository, store)


def test_an_image_without_layers(repository: Repository, store: Store) -> None:
    repository.manifest(tag="1", layers=0)
    assert find(repository, store).layers == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param({"config": {"mediaType": "application/vnd.oci.empty.v1+json"}}, "an artifact of type .*; name an image", id="empty"),
        pytest.param({"config": {"mediaType": "application/vnd.cncf.helm.config.v1+json"}}, "a Helm chart .*; name one of", id="helm"),
        pytest.param({"artifactType": "application/spdx+json"}, r"an SBOM \(application/spdx\+json\); name the", id="artifact-type"),
    ],
)
def test_artifacts_are_refused(repository: Repository, store: Store, change: dict[str, Any], words: str) -> None:
    config = {**repository.config(), **change.pop("config", {})}
    repository.document({"config": config, "layers": repository.layers(), **change}, "1")
    with pytest.raises(DocumentError, match=f"demo/tiny:1: not a container image but {words}"):
        find(repository, store)


def test_sizes_and_digests_are_checked(repository: Repository, store: Store) -> None:
    entry = repository.entry("linux/amd64")
    repository.document({"manifests": [{**entry, "size": entry["size"] + 1}]}, "1")
    with pytest.raises(DigestMismatch, match="its index says"):
        find(repository, store)
    repository.document({"manifests": [entry]}, "1")
    repository.routes[f"/v2/demo/tiny/manifests/{entry['digest']}"] = Reply(200, b'{"schemaVersion":2}')
    with pytest.raises(DigestMismatch, match="sends another manifest"):
        find(repository, store)
    config = repository.config()
    repository.document({"config": {**config, "size": config["size"] - 1}, "layers": repository.layers()}, "1")
    with pytest.raises(DigestMismatch, match="more than"):
        find(repository, store)
    repository.document({"config": config, "layers": repository.layers()}, "1")
    repository.routes[f"/v2/demo/tiny/blobs/{config['digest']}"] = Reply(200, b"x" * config["size"])
    with pytest.raises(DigestMismatch, match="other bytes"):
        find(repository, store)
    assert store.tags() == {}


def test_huge_documents_are_refused_unread(repository: Repository, store: Store) -> None:
    repository.document({"config": {**repository.config(), "size": MAX_DOCUMENT + 1}, "layers": repository.layers()}, "1")
    with pytest.raises(DocumentError, match="over the limit"):
        find(repository, store)
    repository.document({"manifests": [{**repository.entry("linux/amd64"), "size": MAX_DOCUMENT + 1}]}, "1")
    with pytest.raises(DocumentError, match="over the limit"):
        find(repository, store)


def test_indexes_end(repository: Repository, store: Store) -> None:
    inner = repository.manifest()
    for _ in range(limits.INDEX_DEPTH):
        inner = repository.document({"manifests": [inner]})
    repository.document({"manifests": [inner]}, "1")
    with pytest.raises(DocumentError, match=f"more indexes inside each other than the limit INDEX_DEPTH of {limits.INDEX_DEPTH}"):
        find(repository, store)
    many = [repository.document({"manifests": [], "n": n}) for n in range(limits.INDEX_DOCUMENTS + 1)]
    repository.document({"manifests": many}, "1")
    with pytest.raises(
        DocumentError, match=f"more documents in search of a platform than the limit INDEX_DOCUMENTS of {limits.INDEX_DOCUMENTS}"
    ):
        find(repository, store)


def test_a_digest_in_the_store_needs_no_registry(repository: Repository, store: Store) -> None:
    chosen = repository.manifest(tag="1")
    first = find(repository, store)
    repository.asked.clear()
    second = find(repository, store, f"demo/tiny@{chosen['digest']}")
    assert repository.asked == []
    assert (second.digest, second.tag, second.url) == (first.digest, None, f"{repository.url}/v2/demo/tiny/manifests/{chosen['digest']}")
    assert f"{repository.host}/demo/tiny@{chosen['digest']}" in store.tags()
    find(repository, store)
    assert repository.paths() == ["/v2/demo/tiny/manifests/1"]


def test_a_layer_s_digest_is_no_image(repository: Repository, store: Store) -> None:
    digest = store.add(b"x" * (MAX_DOCUMENT + 1))
    repository.routes[f"/v2/demo/tiny/manifests/{digest}"] = Reply(404, json_errors("MANIFEST_UNKNOWN"))
    with pytest.raises(RegistryError, match="has no image"):
        find(repository, store, f"demo/tiny@{digest}")


def test_urls_of_foreign_layers_stay(repository: Repository, store: Store) -> None:
    layer = {**repository.layers(1)[0], "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "urls": ["https://h/x"]}
    repository.document({"config": repository.config(layers=1), "layers": [layer]}, "1")
    found = find(repository, store)
    assert found.layers[0].blob.urls == ("https://h/x",)
    assert found.json()["layers"] == [{**layer, "diff_id": DIFF[0]}]


def test_the_file_comes_back_and_is_equal_every_time(repository: Repository, store: Store, tmp_path: Path) -> None:
    repository.document({"manifests": [repository.entry("linux/arm64/v8")]}, "1")
    path = tmp_path / "results" / "x" / "manifest.json"
    written = []
    for _ in range(2):
        found = find(repository, store, platform=Platform.parse("arm64"))
        found.write(path)
        written.append(path.read_bytes())
    assert written[0] == written[1]
    assert Resolved.read(path) == found
    value = json.loads(written[0])
    assert list(value) == [
        *(
            "uri",
            "client",
            "registry",
            "repository",
            "tag",
            "url",
            "digest",
            "size",
            "platform",
            "kind",
            "config",
            "layers",
            "documents",
            "image_config",
        )
    ]
    assert value["platform"] == "linux/arm64/v8"
    assert set(value["documents"][0]) == {"mediaType", "digest", "size", "text"}


def test_files_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    with pytest.raises(StoreError, match="can't read"):
        Resolved.read(path)
    for text in ("", "[]", "{", "\xff"):
        path.write_text(text, encoding="latin-1")
        with pytest.raises(StoreError, match=r"is damaged.*remove that file"):
            Resolved.read(path)
    path.write_text('{"uri": "x"}')
    with pytest.raises(DocumentError, match="remove that file"):
        Resolved.read(path)
    path.write_text('{"uri": "x", "error": "h has no image x; check"}')
    with pytest.raises(DocumentError, match=r"^h has no image x; check$"):
        Resolved.read(path)


@hypothesis_settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_odd_documents_are_refused_in_one_line(repository: Repository, store: Store, data: st.DataObject) -> None:
    scalar: st.SearchStrategy[Any] = st.none() | st.integers() | st.text(max_size=4) | st.just([]) | st.just({})
    manifest: dict[str, Any] = {"config": repository.config(), "layers": repository.layers()}
    config: dict[str, Any] = {"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": DIFF[:2]}}
    where = data.draw(st.sampled_from(["manifest", "index", "config", "bytes"]))
    if where == "manifest":
        manifest[data.draw(st.sampled_from(["config", "layers", "mediaType", "schemaVersion", "manifests", "artifactType"]))] = data.draw(
            scalar
        )
        repository.document(manifest, "1")
    elif where == "config":
        config[data.draw(st.sampled_from(["os", "architecture", "rootfs", "config", "created"]))] = data.draw(scalar)
        repository.document({**manifest, "config": repository.blob(json.dumps(config).encode())}, "1")
    elif where == "index":
        entry = repository.entry("linux/amd64")
        entry[data.draw(st.sampled_from(sorted(entry)))] = data.draw(scalar)
        repository.document({"manifests": [entry]}, "1")
    else:
        repository.document(data.draw(st.binary(max_size=30)).replace(b"\0", b"{"), "1")
    try:
        found = find(repository, store)
        assert Resolved.parse(json.loads(json.dumps(found.json()))) == found
    except SregistryError as error:
        assert len(str(error).splitlines()) == 1
