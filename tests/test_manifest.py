"""References resolved against a server: indexes, platforms, digests and sizes, artifacts, the output file."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sregistry import limits
from sregistry.document import MAX_DOCUMENT
from sregistry.errors import DigestMismatch, DocumentError, RegistryError, SregistryError, StoreError
from sregistry.manifest import Resolved, resolve
from sregistry.oci import Descriptor, Digest, MediaType, Platform
from sregistry.reference import Reference
from sregistry.store import Store
from tests.scripted import Reply, Scripted, client, json_errors

AMD64 = Platform(architecture="amd64")
DIFF = [f"sha256:{n:064x}" for n in range(1, 9)]


class Repository(Scripted):
    """The repository demo/tiny, to be filled."""

    def blob(self, data: bytes, media_type: str = MediaType.OCI_CONFIG) -> dict[str, Any]:
        self.routes[f"/v2/demo/tiny/blobs/{Digest.of(data)}"] = Reply(200, data)
        return Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data)).json()

    def config(self, platform: str | None = "linux/amd64", layers: int = 2, **more: Any) -> dict[str, Any]:
        document: dict[str, Any] = {"rootfs": {"type": "layers", "diff_ids": DIFF[:layers]}, **more}
        if platform:
            document |= dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        return self.blob(json.dumps(document).encode())

    def layers(self, count: int = 2) -> list[dict[str, Any]]:
        return [Descriptor(media_type=MediaType.OCI_LAYER + "+gzip", digest=Digest.of(b"%d" % n), size=n).json() for n in range(count)]

    def document(self, value: dict[str, Any] | bytes, tag: str | None = None) -> dict[str, Any]:
        """Publish a manifest or index by digest, and by tag; return its descriptor."""
        data = value if isinstance(value, bytes) else json.dumps({"schemaVersion": 2, **value}, indent=1).encode()
        media_type = MediaType.OCI_INDEX if isinstance(value, dict) and "manifests" in value else MediaType.OCI_MANIFEST
        for name in (str(Digest.of(data)), tag):
            self.routes[f"/v2/demo/tiny/manifests/{name}"] = Reply(200, data, [("Content-Type", "text/html")])
        return Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data)).json()

    def manifest(self, platform: str | None = "linux/amd64", tag: str | None = None, layers: int = 2, **more: Any) -> dict[str, Any]:
        return self.document({"config": self.config(platform, layers), "layers": self.layers(layers), **more}, tag)

    def entry(self, platform: str, **more: Any) -> dict[str, Any]:
        os, architecture, *variant = platform.split("/")
        named = {"os": os, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
        return {**self.manifest(platform), "platform": named, **more}


@pytest.fixture
def repository() -> Iterator[Repository]:
    with Repository() as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def find(repository: Repository, store: Store, text: str = "demo/tiny:1", platform: Platform = AMD64) -> Resolved:
    with client(repository.host) as it:
        return resolve(it, Reference.parse(text, registry=repository.host, collection="nvidia"), platform, store)


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


def test_a_config_that_contradicts_its_index_is_refused(repository: Repository, store: Store) -> None:
    repository.document({"manifests": [{**repository.manifest("linux/arm64"), "platform": {"os": "linux", "architecture": "amd64"}}]}, "1")
    with pytest.raises(DocumentError, match="is for linux/arm64"):
        find(repository, store)


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
    with pytest.raises(DocumentError, match=f"more than {limits.INDEX_DEPTH} indexes inside each other"):
        find(repository, store)
    many = [repository.document({"manifests": [], "n": n}) for n in range(limits.INDEX_DOCUMENTS + 1)]
    repository.document({"manifests": many}, "1")
    with pytest.raises(DocumentError, match=f"more than {limits.INDEX_DOCUMENTS} documents"):
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
        with pytest.raises(DocumentError, match="is damaged"):
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
