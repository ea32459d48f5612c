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

from sregistry.errors import DocumentError
from sregistry.oci import artifacts
from sregistry.oci.documents import Descriptor, Digest, ImageConfig, Index, Manifest, MediaType, NoImage, Platform, Sif
from sregistry.oci.json_fields import MAX_DOCUMENT, load_json
from sregistry.oci.parse import parse_manifest
from tests.support.odd_documents import JSON, paths

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
        pytest.param({"layers": [{**LAYER, "mediaType": None}]}, r"layers\[0\]: type none is no layer", id="layer-without-type"),
        pytest.param({"layers": [LAYER, {**LAYER, "mediaType": "a/b"}]}, r"layers\[1\]: type a/b is no layer", id="one-odd-layer"),
        pytest.param({"layers": [LAYER] * 1001}, "layers: 1001 items, over the limit IMAGE_LAYERS of 1000", id="many-layers"),
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


@pytest.mark.parametrize(
    ("change", "image"),
    [
        ({"artifactType": "application/spdx+json"}, False),
        ({"config": {**CONFIG, "mediaType": "application/vnd.cncf.helm.config.v1+json"}}, False),
        ({"layers": [{**LAYER, "mediaType": "application/vnd.in-toto+json"}]}, False),
        ({"layers": [{**LAYER, "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json"}]}, False),
        ({"layers": [{**LAYER, "mediaType": "text/plain"}]}, False),
        ({"layers": [{**LAYER, "mediaType": MediaType.OCI_LAYER + "+encrypted"}]}, True),
        ({"layers": [LAYER, {**LAYER, "mediaType": "text/plain"}]}, True),
        ({"layers": [{**LAYER, "size": -1}]}, True),
    ],
)
def test_what_is_no_image_is_told_from_what_can_t_be_made(change: dict[str, Any], image: bool) -> None:
    with pytest.raises(DocumentError) as caught:
        parse_manifest(encode({**MANIFEST, **change}))
    assert isinstance(caught.value, NoImage) is not image


ODD_TYPES = ["application/octet-stream", "application/json", "text/html", "text/plain", "", None, "application/vnd.acme.config+json"]


@pytest.mark.parametrize("kind", ODD_TYPES)
def test_a_config_of_an_odd_type_is_told_by_its_content(kind: str | None) -> None:
    manifest = parse_manifest(encode({**MANIFEST, "config": {**CONFIG, "mediaType": kind}}))
    assert isinstance(manifest, Manifest)
    assert ImageConfig.parse(encode(IMAGE), manifest.config.media_type).env == ("A=1", "B")
    for data in (b"{}", b"", b"a: b", b"\x1f\x8b", b'{"rootfs": []}', b'{"rootfs": {}}', b'{"name": "chart"}'):
        with pytest.raises(NoImage, match="not a container image but an artifact of type"):
            ImageConfig.parse(data, manifest.config.media_type)


def test_null_is_an_empty_list() -> None:
    manifest = parse_manifest(encode({**MANIFEST, "layers": None}))
    assert isinstance(manifest, Manifest) and manifest.layers == ()
    index = parse_manifest(encode({**INDEX, "manifests": None}))
    assert isinstance(index, Index) and index.manifests == ()
    assert isinstance(parse_manifest(encode({**MANIFEST, "mediaType": ""})), Manifest)


@pytest.mark.parametrize("key", ["Layers", "LAYERS", "Manifests", "mediatype", "Config", "artifacttype"])
def test_keys_that_go_would_take_for_others_are_refused(key: str) -> None:
    with pytest.raises(DocumentError, match=f"manifest: expected keys spelled as the specification has them, got '{key}'"):
        parse_manifest(encode({**MANIFEST, key: []}))


def test_of_equal_keys_the_last_counts() -> None:
    manifest = parse_manifest(encode(MANIFEST)[:-1] + b', "layers": []}')
    assert isinstance(manifest, Manifest) and manifest.layers == ()


def test_an_oci_1_0_artifact_is_none_either() -> None:
    kind = "application/vnd.oci.artifact.manifest.v1+json"
    with pytest.raises(DocumentError, match="an OCI artifact without an image"):
        parse_manifest(encode({"schemaVersion": 2, "mediaType": kind, "blobs": [LAYER]}))


@pytest.mark.parametrize("kind", [*MediaType.CONFIGS, MediaType.OCI_LAYER, MediaType.OCI_LAYER + "+zstd", MediaType.DOCKER_LAYER, STARGZ])
def test_what_an_image_has_is_not_refused(kind: str) -> None:
    assert artifacts.find(kind) is None


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
        (MANIFEST, lambda d: d["layers"][0].update(size=2**63), r"layers\[0\]\.size: expected a size in bytes, got '9223372036854775808'"),
        (MANIFEST, lambda d: d["layers"][0].update(size=10**400), r"manifest: layers\[0\]\.size: expected a number, got '10000"),
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
    ("inner", "expected"),
    [
        pytest.param({"Entrypoint": [""]}, {"entrypoint": None}, id="entrypoint-taken-away"),
        pytest.param({"Entrypoint": ""}, {"entrypoint": None}, id="entrypoint-empty-text"),
        pytest.param({"Entrypoint": [None]}, {"entrypoint": None}, id="entrypoint-of-null"),
        pytest.param({"Entrypoint": None}, {"entrypoint": None}, id="entrypoint-null"),
        pytest.param({"Entrypoint": "/bin/sh -c x"}, {"entrypoint": ("/bin/sh -c x",)}, id="entrypoint-text"),
        pytest.param({"Entrypoint": ["", "x"]}, {"entrypoint": ("", "x")}, id="entrypoint-that-can-t-start"),
        pytest.param({"Entrypoint": ["x", ""]}, {"entrypoint": ("x", "")}, id="entrypoint-with-empty-argument"),
        pytest.param({"Cmd": [""]}, {"cmd": ("",)}, id="cmd-of-an-empty-argument"),
        pytest.param({"Cmd": ["a", None]}, {"cmd": ("a", "")}, id="cmd-with-null"),
        pytest.param({"Env": None}, {"env": ()}, id="env-null"),
        pytest.param({"Env": ["", "A", "=x", "B=", None]}, {"env": ("", "A", "=x", "B=", "")}, id="env-odd"),
        pytest.param({"Labels": None}, {"labels": {}}, id="labels-null"),
        pytest.param({"Labels": {"a": None, "b": 1, "c": ""}}, {"labels": {"a": "", "b": "1", "c": ""}}, id="label-null"),
        pytest.param(
            {"env": ["A=1"], "cmd": ["b"], "LABELS": {"a": "b"}}, {"env": ("A=1",), "cmd": ("b",), "labels": {"a": "b"}}, id="case"
        ),
        pytest.param({"Cmd": ["a"], "cmd": ["b"]}, {"cmd": ("b",)}, id="case-last"),
        pytest.param({"WorkingDir": None, "ExposedPorts": [], "Volumes": 5, "User": None, "Healthcheck": 1}, {"env": ()}, id="not-read"),
        pytest.param({"Env": ["A=\ud800"]}, {"env": ("A=\ufffd",)}, id="half-character"),
    ],
)
def test_configs_are_read_as_docker_reads_them(inner: dict[str, Any], expected: dict[str, Any]) -> None:
    config = ImageConfig.parse(encode({"rootfs": {"type": "layers", "diff_ids": []}, "config": inner}))
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize("whole", [{"config": None}, {"config": {}}, {"created": None}, {"created": 5}, {"os": None}, {"history": 5}])
def test_what_does_not_matter_may_be_odd(whole: dict[str, Any]) -> None:
    assert ImageConfig.parse(encode({"rootfs": {"type": "", "diff_ids": None}, "variant": None, **whole})).platform is None


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"os": "Linux", "architecture": "x86_64"}, "linux/amd64"),
        ({"architecture": "AMD64"}, "linux/amd64"),
        ({"os": "", "architecture": "aarch64", "variant": "V8"}, "linux/arm64/v8"),
        ({"os": None, "architecture": "armv7l"}, "linux/arm/v7"),
        ({"architecture": "arm64/v8", "variant": ""}, "linux/arm64/v8"),
        ({"architecture": ""}, None),
    ],
)
def test_platforms_of_configs_have_one_spelling(names: dict[str, Any], expected: str | None) -> None:
    platform = ImageConfig.parse(encode({"rootfs": {}, **names})).platform
    assert (platform and str(platform)) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("rootfs"), "rootfs: missing"),
        (lambda d: d["rootfs"].update(diff_ids=[A, 5]), r"rootfs\.diff_ids\[1\]"),
        (lambda d: d["rootfs"].update(type="other"), r"rootfs\.type"),
        (lambda d: d["config"].update(Env=[1]), r"config\.Env\[0\]"),
        (lambda d: d["config"].update(Cmd=["a\0b"]), r"config\.Cmd\[0\]"),
        (lambda d: d["config"].update(Env=["A=" + "\0"]), r"config\.Env\[0\]: expected a string without NUL"),
        (lambda d: d.update(variant="7" * 5000), "config: expected a platform, got 'linux/arm64/7{68}'"),
        (lambda d: d["config"].update(Entrypoint=[["a"]]), r"config\.Entrypoint\[0\]: expected a string"),
        (lambda d: d["config"].update(Labels=["a"]), r"config\.Labels: expected an object"),
        (lambda d: d.update(config=[1]), "config: expected an object"),
        (lambda d: d.update(architecture=5), "architecture"),
    ],
)
def test_malformed_configs_name_the_key(change: Callable[[dict[str, Any]], object], message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        ImageConfig.parse(changed(IMAGE, change))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "no JSON", id="empty"),
        pytest.param(b"[]", "expected an object", id="list"),
        pytest.param(b"null", "missing, expected an object", id="null"),
        pytest.param(b"\xff\xfe", "no JSON", id="no-text"),
        pytest.param(b"\xef\xbb\xbf{}", "no JSON", id="byte-order-mark"),
        pytest.param(b"{", "no JSON", id="cut"),
        pytest.param(b'{"a":"\n"}', "no JSON", id="control-character"),
        pytest.param(b"[" * 100_000, "nested deeper than the limit JSON_DEPTH of 100", id="too-deep-for-python"),
        pytest.param(b'{"a":' * 101 + b"1" + b"}" * 101, "nested deeper than the limit JSON_DEPTH of 100: a.a.a.a.", id="deep"),
        pytest.param(b'{"a":{"b":[0,' + b"1" * 5000 + b"]}}", r"a\.b\[1\]: expected a number, got '1{80}'$", id="long-number"),
        pytest.param(b'{"a":-' + b"9" * 400 + b"}", r"a: expected a number, got '-9{79}'$", id="number-out-of-range"),
        pytest.param(b'{"a":1e999}', "a: expected a number, got '1e999'", id="real-out-of-range"),
        pytest.param(b'{"a":[NaN]}', r"a\[0\]: expected a number, got 'NaN'", id="nan"),
        pytest.param(b'{"a":-Infinity}', "a: expected a number, got '-Infinity'", id="infinity"),
        pytest.param(b" " * (MAX_DOCUMENT + 1), "4194305 bytes, over the limit DOCUMENT of 4194304", id="large"),
    ],
)
def test_no_json_object(data: bytes, message: str) -> None:
    with pytest.raises(DocumentError, match=f"manifest: {message}") as caught:
        load_json(data, "manifest")
    assert len(str(caught.value)) < 250


def test_what_is_no_character_is_replaced() -> None:
    assert load_json(rb'{"\ud800": ["\udfff", "\ud83d\ude00"], "a": "\\ud800"}', "x") == {"\ufffd": ["\ufffd", "😀"], "a": "\\ud800"}
    assert load_json(b'{"a": "\xe9"}', "x") == {"a": "\ufffd"}


def test_depth_is_counted_only_where_it_may_be() -> None:
    deep = b'{"a":' * 100 + b"1" + b"}" * 100
    assert load_json(deep, "x")
    assert len(load_json(b'{"a":[' + b",".join([b"{}"] * 5000) + b"]}", "x")["a"]) == 5000


def entry(platform: str | None, number: int, media_type: str = MediaType.OCI_MANIFEST) -> dict[str, Any]:
    found: dict[str, Any] = {"mediaType": media_type, "digest": f"sha256:{number:064x}", "size": 1}
    if platform:
        found["platform"] = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
    return found


@pytest.mark.parametrize(
    ("wanted", "offered", "expected"),
    [
        pytest.param("linux/amd64", ["linux/arm64", "linux/amd64", "linux/amd64"], [1, 2], id="list-order"),
        pytest.param("linux/amd64", ["linux/amd64/v3", "linux/amd64"], [1, 0], id="lowest-first"),
        pytest.param("linux/arm64", ["linux/arm64/v8"], [0], id="arm64-variant"),
        pytest.param("linux/arm/v7", ["linux/arm/v5", "linux/arm/v8", "linux/arm/v6"], [2, 0], id="arm-highest-not-above"),
        pytest.param("linux/arm/v6", ["linux/arm"], [], id="arm-unnamed-is-v7"),
        pytest.param("linux/amd64", [None, "linux/amd64", None], [1, 0, 2], id="no-platform-goes-last"),
        pytest.param("linux/arm64", [None], [0], id="no-platform-is-to-be-looked-into"),
        pytest.param("linux/amd64", ["linux/amd64/v4", "linux/amd64/v2", "linux/amd64/v3"], [1, 2, 0], id="nothing-for-all-lowest-first"),
        pytest.param("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], [1, 0], id="highest-not-above"),
        pytest.param("linux/amd64/v1", ["linux/amd64/v3"], [], id="above"),
        pytest.param("linux/arm64", ["linux/arm64/v9", "linux/arm64/v8"], [1, 0], id="arm64-is-v8"),
        pytest.param("linux/ppc64le/power9", ["linux/ppc64le/power10", "linux/ppc64le", "linux/ppc64le/power9"], [2, 1], id="power"),
        pytest.param("linux/riscv64", ["linux/riscv64/rva23u64", "linux/riscv64/rva20u64"], [1, 0], id="riscv64"),
        pytest.param("linux/amd64", ["Linux/x86_64", "linux/AMD64"], [0, 1], id="one-spelling"),
        pytest.param("linux/amd64", ["unknown/unknown", "windows/amd64"], [], id="attestation"),
    ],
)
def test_choice(wanted: str, offered: list[str | None], expected: list[int]) -> None:
    index = Index.parse({"manifests": [entry(platform, i) for i, platform in enumerate(offered)]})
    assert [int(found.digest.hex, 16) for found in index.choose(Platform.parse(wanted))] == expected


@pytest.mark.parametrize(
    ("odd", "named"),
    [
        pytest.param({}, None, id="nothing"),
        pytest.param(None, None, id="null"),
        pytest.param(5, None, id="number"),
        pytest.param([ENTRY], None, id="list"),
        pytest.param({**ENTRY, "platform": 5}, None, id="platform"),
        pytest.param({**ENTRY, "platform": "linux/arm64"}, None, id="platform-text"),
        pytest.param({**ENTRY, "platform": {"os": "linux"}}, None, id="no-architecture"),
        pytest.param({**ENTRY, "platform": {"os": "linux", "architecture": None}}, None, id="architecture-null"),
        pytest.param({**ENTRY, "platform": {"os": None, "architecture": 5}}, None, id="architecture-number"),
        pytest.param({**ENTRY, "platform": {"os": 5, "architecture": "arm64"}}, None, id="os-number"),
        pytest.param({**ENTRY, "platform": {"os": "linux", "architecture": "a" * 65}}, None, id="architecture-long"),
        pytest.param({**ENTRY, "platform": {"os": "linux", "architecture": "arm", "variant": "7" * 5000}}, None, id="variant-long"),
        pytest.param({**ENTRY, "platform": {"os": "linux", "architecture": "\x1b[31m"}}, None, id="escape"),
        pytest.param({**ENTRY, "digest": None, "platform": {"architecture": "arm64"}}, "linux/arm64", id="digest"),
        pytest.param({**ENTRY, "size": 10**20, "platform": {"architecture": "ARM64", "os": ""}}, "linux/arm64", id="size"),
        pytest.param({**ENTRY, "annotations": 5}, "linux/amd64", id="annotations"),
    ],
)
def test_an_odd_entry_harms_no_other(odd: object, named: str | None) -> None:
    index = parse_manifest(encode({**INDEX, "manifests": [odd, ENTRY]}))
    assert isinstance(index, Index)
    assert [str(found.digest) for found in index.choose(Platform.parse("amd64"))] == [A]
    (unsound,) = index.unsound
    assert (unsound.platform and str(unsound.platform)) == named
    assert str(unsound.error).startswith("manifests[0]") and len(str(unsound.error)) < 200


def test_an_index_has_so_many_entries() -> None:
    with pytest.raises(DocumentError, match="manifests: 10001 items, over the limit INDEX_ENTRIES of 10000"):
        Index.parse({"manifests": [{}] * 10001})


@pytest.mark.parametrize("platform", [None, {}, {"os": "", "architecture": ""}, {"architecture": None}])
def test_an_entry_that_says_nothing_of_its_platform(platform: object) -> None:
    index = parse_manifest(encode({**INDEX, "manifests": [{**ENTRY, "platform": platform}]}))
    assert isinstance(index, Index)
    assert [entry.platform for entry in index.manifests] == [None]


def test_an_attestation_of_buildkit_is_passed_over() -> None:
    attestation = {**entry(None, 0), "annotations": {"vnd.docker.reference.type": "attestation-manifest"}}
    assert Index.parse({"manifests": [attestation]}).choose(Platform.parse("amd64")) == []


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
