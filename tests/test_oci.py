"""Documents parsed by the specification; whatever else comes in is refused by name, never by a traceback."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sregistry import refusal
from sregistry.document import MAX_DOCUMENT, load_json
from sregistry.errors import ConfigError, DocumentError
from sregistry.oci import Descriptor, Digest, ImageConfig, Index, Manifest, MediaType, Platform, Sif, parse_manifest

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
STARGZ = "containerd.io/snapshot/stargz/toc.digest"
CONFIG = {"mediaType": MediaType.OCI_CONFIG, "digest": A, "size": 7}
LAYER = {"mediaType": MediaType.OCI_LAYER + "+gzip", "digest": B, "size": 8}
MANIFEST: dict[str, Any] = {"schemaVersion": 2, "mediaType": MediaType.OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}
ENTRY = {"mediaType": MediaType.OCI_MANIFEST, "digest": A, "size": 7, "platform": {"os": "linux", "architecture": "amd64"}}
INDEX: dict[str, Any] = {"schemaVersion": 2, "mediaType": MediaType.OCI_INDEX, "manifests": [ENTRY]}
#: What a layer may be in place of a tar stream, and what it is called.
REFUSED_LAYERS: list[tuple[dict[str, Any], str]] = [
    ({"mediaType": "application/vnd.in-toto+json"}, "an attestation"),
    ({"mediaType": "application/vnd.dev.cosign.simplesigning.v1+json"}, "a cosign signature"),
    ({"mediaType": MediaType.OCI_LAYER + "+gzip+encrypted"}, "encrypted"),
    ({"mediaType": MediaType.DOCKER_LAYER + "+encrypted"}, "encrypted"),
    ({"mediaType": "application/vnd.oci.image.layer.nydus.blob.v1"}, "a nydus"),
    ({"annotations": {"containerd.io/snapshot/nydus-bootstrap": "true"}}, "a nydus"),
    ({"mediaType": "application/vnd.wasm.content.layer.v1+wasm"}, "a WebAssembly module"),
    ({"mediaType": MediaType.SIF_LAYER}, "a SIF artifact of more or less than one SIF"),
]
IMAGE: dict[str, Any] = {
    "os": "linux",
    "architecture": "arm64",
    "variant": "v8",
    "created": "2020-01-01T00:00:00Z",
    "rootfs": {"type": "layers", "diff_ids": [A, B]},
    "config": {"Env": ["A=1", "B"], "Entrypoint": ["/x"], "Cmd": None, "Labels": {"a": "b", "n": 1}, "User": "me"},
}


def encode(value: object) -> bytes:
    return json.dumps(value).encode()


def test_a_manifest() -> None:
    assert parse_manifest(encode(MANIFEST)) == Manifest(
        media_type=MediaType.OCI_MANIFEST,
        config=Descriptor(media_type=MediaType.OCI_CONFIG, digest=Digest(A), size=7),
        layers=(Descriptor(media_type=MediaType.OCI_LAYER + "+gzip", digest=Digest(B), size=8),),
    )


def test_an_index() -> None:
    index = parse_manifest(encode(INDEX))
    assert isinstance(index, Index)
    assert index.manifests[0].platform == Platform(architecture="amd64")
    assert index.platforms() == ["linux/amd64"]


def test_content_decides_when_media_type_is_missing() -> None:
    assert isinstance(parse_manifest(encode({k: v for k, v in MANIFEST.items() if k != "mediaType"})), Manifest)
    assert isinstance(parse_manifest(encode({k: v for k, v in INDEX.items() if k != "mediaType"})), Index)


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "Application/Vnd.OCI.image.layer.v1.tar+gzip; x=y",
    ],
)
def test_layer_types(kind: str) -> None:
    assert parse_manifest(encode({**MANIFEST, "layers": [{**LAYER, "mediaType": kind}]}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            {"config": {**CONFIG, "mediaType": "application/vnd.oci.empty.v1+json"}},
            "artifact of type .*oci.empty.*; name an image",
            id="empty-config",
        ),
        pytest.param({"artifactType": "application/x"}, "an artifact of type application/x; name an image", id="artifact-type"),
        pytest.param({"layers": [{**LAYER, "mediaType": "application/octet-stream"}]}, "application/octet-stream is no layer", id="layer"),
        *(
            pytest.param({"config": {**CONFIG, "mediaType": kind}}, rf"not a container image but {what} \({re.escape(kind)}\); ", id=what)
            for kind, what in {
                "application/vnd.cncf.helm.config.v1+json": "a Helm chart",
                "application/vnd.docker.plugin.v1+json": "a Docker plugin",
                "application/vnd.wasm.config.v0+json": "a WebAssembly module",
                "application/vnd.amazon.soci.index.v1+json": "a SOCI index",
                "application/vnd.cncf.model.config.v1+json": "a model's weights",
            }.items()
        ),
        *(
            pytest.param({"artifactType": kind}, f"not a container image but {what}", id=kind)
            for kind, what in {
                "application/spdx+json": "an SBOM",
                "application/vnd.cyclonedx+json": "an SBOM",
                "application/vnd.syft+json": "an SBOM",
                "application/vnd.dev.sigstore.bundle.v0.3+json": "a cosign signature",
                "application/vnd.cncf.notary.signature": "an attestation",
                "application/vnd.in-toto+json": "an attestation",
            }.items()
        ),
        *(
            pytest.param({"layers": [LAYER, {**LAYER, **layer}]}, rf"layers\[1\] is {what}", id=f"layer {what}")
            for layer, what in REFUSED_LAYERS
        ),
    ],
)
def test_artifacts_are_no_images(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError, match=message) as caught:
        parse_manifest(encode({**MANIFEST, **change}))
    assert len(str(caught.value).splitlines()) == 1


def test_an_oci_1_0_artifact_is_none_either() -> None:
    kind = "application/vnd.oci.artifact.manifest.v1+json"
    with pytest.raises(DocumentError, match="an OCI artifact without an image"):
        parse_manifest(encode({"schemaVersion": 2, "mediaType": kind, "blobs": [LAYER]}))


@pytest.mark.parametrize("kind", [*MediaType.CONFIGS, MediaType.OCI_LAYER, MediaType.OCI_LAYER + "+zstd", MediaType.DOCKER_LAYER, STARGZ])
def test_what_an_image_has_is_not_refused(kind: str) -> None:
    assert refusal.find(kind) is None


@pytest.mark.parametrize(
    "kind",
    [
        "application/vnd.sylabs.sif.layer.v1.sif",
        "application/vnd.sylabs.sif.layer.v1+sif",
        "application/vnd.sylabs.sif.layer.tar",
        "appliciation/vnd.sylabs.sif.layer.tar",
    ],
)
@pytest.mark.parametrize("config", [MediaType.SIF_CONFIG, "application/vnd.oci.empty.v1+json", MediaType.OCI_CONFIG])
def test_one_layer_that_is_a_sif(kind: str, config: str) -> None:
    document = {**MANIFEST, "config": {**CONFIG, "mediaType": config}, "layers": [{**LAYER, "mediaType": kind}]}
    found = parse_manifest(encode(document))
    assert isinstance(found, Sif)
    assert found.layer.digest == Digest(B)


def test_embedded_content_is_checked() -> None:
    content = b"content"
    item = {**LAYER, "digest": str(Digest.of(content)), "size": len(content), "data": base64.b64encode(content).decode()}
    assert Descriptor.parse(item).data == content
    changes: list[tuple[dict[str, Any], str]] = [
        ({"data": "???"}, r"d\.data: expected base64"),
        ({"data": 5}, r"d\.data: expected a string"),
        ({"size": 8}, r"d\.data: expected the 8 bytes of sha256"),
        ({"digest": A}, r"d\.data: expected the 7 bytes of sha256:aaa"),
    ]
    for change, message in changes:
        with pytest.raises(DocumentError, match=message):
            Descriptor.parse({**item, **change}, "d")


def test_what_only_nydus_reads_is_passed_over() -> None:
    platform = {"os": "linux", "architecture": "amd64", "os.features": ["nydus.remoteimage.v1"]}
    nydus = {**entry(None, 0), "platform": platform}
    index = Index.parse({"manifests": [nydus, entry("linux/amd64", 1)]})
    assert [int(found.digest.hex, 16) for found in index.choose(Platform.parse("amd64"))] == [1]
    alone = Index.parse({"manifests": [nydus]})
    assert alone.choose(Platform.parse("amd64")) == []
    assert alone.platforms() == ["linux/amd64 for nydus alone"]


def test_an_artifact_type_that_says_image_is_one() -> None:
    assert parse_manifest(encode({**MANIFEST, "artifactType": MediaType.OCI_CONFIG}))
    assert parse_manifest(encode({**MANIFEST, "artifactType": ""}))


def changed(document: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> bytes:
    document = copy.deepcopy(document)
    change(document)
    return encode(document)


@pytest.mark.parametrize(
    ("document", "change", "message"),
    [
        (MANIFEST, lambda d: d["layers"][0].update(size="x"), r"layers\[0\]\.size: expected a size in bytes, got 'x'"),
        (MANIFEST, lambda d: d["layers"][0].update(size=True), r"layers\[0\]\.size"),
        (MANIFEST, lambda d: d["layers"][0].update(size=-1), r"layers\[0\]\.size"),
        (MANIFEST, lambda d: d["layers"][0].update(size=1.5), r"layers\[0\]\.size"),
        (MANIFEST, lambda d: d["layers"][0].pop("digest"), r"layers\[0\]\.digest: missing"),
        (MANIFEST, lambda d: d["layers"][0].update(digest="md5:" + "a" * 32), r"layers\[0\]\.digest"),
        (MANIFEST, lambda d: d["layers"][0].update(digest=A.upper()), r"layers\[0\]\.digest"),
        (MANIFEST, lambda d: d["layers"].append(5), r"layers\[1\]: expected an object"),
        (MANIFEST, lambda d: d.update(layers={}), "layers: expected a list"),
        (MANIFEST, lambda d: d.pop("config"), "config: missing"),
        (MANIFEST, lambda d: d.update(schemaVersion=3), "schemaVersion"),
        (MANIFEST, lambda d: d.update(schemaVersion=2.0), "schemaVersion"),
        (MANIFEST, lambda d: d.update(schemaVersion=1), "fsLayers: missing"),
        (MANIFEST, lambda d: d.update(mediaType=MediaType.OCI_INDEX), "mediaType"),
        (MANIFEST, lambda d: d.update(mediaType=5), "mediaType"),
        (MANIFEST, lambda d: d.update(manifests=[]), "both"),
        (MANIFEST, lambda d: d.pop("layers"), "neither"),
        (MANIFEST, lambda d: d.update(artifactType=5), "artifactType: expected a string"),
        (INDEX, lambda d: d.update(manifests=5), "manifests: expected a list"),
        (INDEX, lambda d: d["manifests"][0].update(platform=5), r"manifests\[0\]\.platform: expected an object"),
        (INDEX, lambda d: d["manifests"][0]["platform"].pop("os"), r"manifests\[0\]\.platform\.os: missing"),
    ],
)
def test_malformed_documents_name_the_key(document: dict[str, Any], change: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        parse_manifest(changed(document, change))


def test_an_image_config() -> None:
    config = ImageConfig.parse(encode(IMAGE))
    assert config.platform == Platform(architecture="arm64", variant="v8")
    assert config.diff_ids == (Digest(A), Digest(B))
    assert config.env == ("A=1", "B")
    assert (config.entrypoint, config.cmd) == (("/x",), None)
    assert config.labels == {"a": "b", "n": "1"}
    assert config.config["User"] == "me"


def test_a_bare_image_config() -> None:
    config = ImageConfig.parse(b'{"rootfs":{}}')
    assert (config.platform, config.diff_ids, config.env, config.entrypoint) == (None, (), (), None)
    assert ImageConfig.parse(b'{"rootfs":{},"config":{"Cmd":"old","Entrypoint":[]}}').cmd == ("old",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("rootfs"), "rootfs: missing"),
        (lambda d: d["rootfs"].update(diff_ids=[A, 5]), r"rootfs\.diff_ids\[1\]"),
        (lambda d: d["rootfs"].update(type="other"), r"rootfs\.type"),
        (lambda d: d["config"].update(Env=[1]), r"config\.Env\[0\]"),
        (lambda d: d["config"].update(Cmd=["a\0b"]), r"config\.Cmd\[0\]"),
        (lambda d: d.update(config=[1]), "config: expected an object"),
        (lambda d: d.update(architecture=5), "architecture"),
    ],
)
def test_malformed_configs_name_the_key(change: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        ImageConfig.parse(changed(IMAGE, change))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b"\xff\xfe", b"{", b"[" * 100_000, b'{"a":' + b"1" * 5000 + b"}", b" " * (MAX_DOCUMENT + 1)]
)
def test_no_json_object(data: bytes) -> None:
    with pytest.raises(DocumentError, match="manifest: "):
        load_json(data, "manifest")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("armhf", "linux/arm/v7"),
        ("linux/arm/5", "linux/arm/v5"),
        ("i686", "linux/386"),
        ("Linux/AMD64/V3", "linux/amd64/v3"),
        ("", None),
        ("a/b/c/d", None),
        ("linux/", None),
        ("a b", None),
    ],
)
def test_platforms(text: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(ConfigError, match="platform"):
            Platform.parse(text)
    else:
        assert str(Platform.parse(text)) == expected


def entry(platform: str | None, number: int, media_type: str = MediaType.OCI_MANIFEST) -> dict[str, Any]:
    found: dict[str, Any] = {"mediaType": media_type, "digest": f"sha256:{number:064x}", "size": 1}
    if platform:
        found["platform"] = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
    return found


@pytest.mark.parametrize(
    ("wanted", "offered", "expected"),
    [
        pytest.param("linux/amd64", ["linux/arm64", "linux/amd64", "linux/amd64"], [1, 2], id="list-order"),
        pytest.param("linux/amd64", ["linux/amd64/v3", "linux/amd64"], [1, 0], id="exact-first"),
        pytest.param("linux/arm64", ["linux/arm64/v8"], [0], id="arm64-variant"),
        pytest.param("linux/arm/v7", ["linux/arm/v5", "linux/arm/v8", "linux/arm/v6"], [2, 0], id="arm-highest-not-above"),
        pytest.param("linux/arm/v6", ["linux/arm"], [], id="arm-unnamed-is-v7"),
        pytest.param("linux/amd64", [None, "linux/amd64"], [0, 1], id="no-platform-is-amd64"),
        pytest.param("linux/arm64", [None], [], id="no-platform-is-not-arm64"),
        pytest.param("linux/amd64", ["unknown/unknown", "windows/amd64"], [], id="attestation"),
    ],
)
def test_choice(wanted: str, offered: list[str | None], expected: list[int]) -> None:
    index = Index.parse({"manifests": [entry(platform, i) for i, platform in enumerate(offered)]})
    assert [int(found.digest.hex, 16) for found in index.choose(Platform.parse(wanted))] == expected


def test_nested_indexes_come_last() -> None:
    index = Index.parse(
        {"manifests": [entry(None, 0, MediaType.OCI_INDEX), entry("linux/amd64", 1), entry("linux/amd64", 2, "application/x")]}
    )
    assert [int(found.digest.hex, 16) for found in index.choose(Platform.parse("amd64"))] == [1, 0]


#: A SIF as Apptainer pushes it; and an index with all that an entry may have.
ARTIFACT: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": MediaType.OCI_MANIFEST,
    "config": {"mediaType": MediaType.SIF_CONFIG, "digest": str(Digest.of(b"{}")), "size": 2, "data": "e30="},
    "layers": [{**LAYER, "mediaType": MediaType.SIF_LAYER, "annotations": {"org.opencontainers.image.title": "x.sif"}}],
}
EMBEDDED: dict[str, Any] = {
    **INDEX,
    "manifests": [
        {
            "mediaType": MediaType.OCI_MANIFEST,
            "digest": str(Digest.of(b"{}")),
            "size": 2,
            "data": "e30=",
            "artifactType": "application/x",
            "annotations": {STARGZ: "1"},
            "urls": ["https://h/x"],
            "platform": {"os": "linux", "architecture": "arm", "variant": "v7", "os.features": ["x"]},
        }
    ],
}

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([A, MediaType.OCI_CONFIG, MediaType.OCI_LAYER]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def paths(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += paths(inner, (*path, key))
    return found


@given(st.sampled_from([MANIFEST, INDEX, IMAGE, ARTIFACT, EMBEDDED]), st.data())
def test_one_value_replaced_never_escapes_as_a_traceback(document: dict[str, Any], data: st.DataObject) -> None:
    document = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(paths(document)[1:]))
        target: Any = document
        for key in path[:-1]:
            target = target[key]
        target[path[-1]] = data.draw(JSON)
    for parse in (parse_manifest, ImageConfig.parse):
        try:
            assert parse(encode(document))
        except DocumentError as error:
            assert "\n" not in str(error)


@given(st.binary(max_size=60) | JSON.map(encode))
def test_any_bytes_never_escape_as_a_traceback(data: bytes) -> None:
    for parse in (parse_manifest, ImageConfig.parse):
        with contextlib.suppress(DocumentError):
            parse(data)


@given(st.text(max_size=20) | st.text("/armv8linux_6", max_size=14))
def test_any_platform_text(text: str) -> None:
    try:
        platform = Platform.parse(text)
    except ConfigError:
        return
    assert Platform.parse(str(platform)) == platform
    assert platform.rank(platform) == 0
