"""Schema 1 manifests: history newest first, steps that hold nothing, and the digest of what was signed."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sregistry.catalog.record import record
from sregistry.errors import DigestMismatch, DocumentError
from sregistry.oci.documents import Descriptor, Digest, ImageConfig, MediaType, Platform
from sregistry.oci.json_fields import MAX_DOCUMENT
from sregistry.oci.parse import parse_manifest
from sregistry.oci.reference import Reference
from sregistry.oci.schema1 import EMPTY, Schema1, payload
from sregistry.registry.client import RegistryClient
from sregistry.registry.credentials import Keyring
from sregistry.registry.rate_limit import Pace
from sregistry.registry.resolve import resolve
from sregistry.results.resolved import Resolved
from sregistry.store.store import Store
from tests.oci.test_documents import JSON, paths
from tests.registry.test_resolve import Repository, find, repository, store
from tests.support.images import sign
from tests.support.scripted import HASTY, Answer, Asked, Reply, bearer, client, json_errors, settings

__all__ = ["repository", "store"]

BLOBS = [str(Digest.of(b"%d" % number)) for number in range(5)]
CONFIG = {"Env": ["A=1"], "Cmd": ["/x"], "Entrypoint": None, "Labels": {"l": "1"}}


def step(number: int, **more: Any) -> dict[str, Any]:
    """Return an entry of the history."""
    return {"id": f"{number:064x}", "parent": f"{number - 1:064x}", "created": f"2016-01-0{number + 1}T00:00:00Z", **more}


def manifest(steps: list[tuple[str, dict[str, Any]]], **more: Any) -> dict[str, Any]:
    """Return a manifest of (blob, entry) pairs, from the lowest."""
    return {
        "schemaVersion": 1,
        "name": "demo/tiny",
        "tag": "1",
        "architecture": "amd64",
        "fsLayers": [{"blobSum": blob} for blob, _ in reversed(steps)],
        "history": [{"v1Compatibility": json.dumps(entry)} for _, entry in reversed(steps)],
        **more,
    }


OLD = manifest([(BLOBS[0], step(0)), (BLOBS[1], step(1)), (BLOBS[2], step(2, os="linux", config=CONFIG, Size=5))])


def encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=3).encode()


def read(document: dict[str, Any]) -> Schema1:
    found = parse_manifest(encode(document))
    assert isinstance(found, Schema1)
    return found


def test_layers_come_from_the_lowest_and_the_config_from_the_newest() -> None:
    found = read(OLD)
    assert [(str(layer.digest), layer.size, layer.media_type) for layer in found.layers] == [
        (blob, None, MediaType.DOCKER_LAYER) for blob in BLOBS[:3]
    ]
    config = ImageConfig.parse(found.config)
    assert config.platform == Platform(architecture="amd64")
    assert (config.env, config.cmd, config.entrypoint, config.labels) == (("A=1",), ("/x",), None, {"l": "1"})
    assert (config.created, config.diff_ids) == ("2016-01-03T00:00:00Z", ())
    assert not {"id", "parent", "Size"} & set(json.loads(found.config))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param([(BLOBS[0], step(0)), (str(EMPTY), step(1))], [0], id="the empty layer"),
        pytest.param([(BLOBS[0], step(0)), (BLOBS[1], step(1, throwaway=True)), (BLOBS[2], step(2))], [0, 2], id="throwaway"),
        pytest.param([(BLOBS[0], step(0)), (BLOBS[1], step(1, throwaway=False))], [0, 1], id="not throwaway"),
        pytest.param([(BLOBS[0], step(0)), (BLOBS[1], step(1)), (BLOBS[1], step(1)), (BLOBS[1], step(1))], [0, 1], id="one id again"),
        pytest.param([(BLOBS[0], step(0)), (BLOBS[1], step(1)), (BLOBS[0], step(2))], [0, 1, 0], id="one blob again"),
        pytest.param([(BLOBS[0], {}), (BLOBS[1], {})], [0, 1], id="no ids"),
        pytest.param([(str(EMPTY), step(0))], [], id="nothing else"),
    ],
)
def test_steps_that_hold_nothing(steps: list[tuple[str, dict[str, Any]]], expected: list[int]) -> None:
    assert [str(layer.digest) for layer in read(manifest(steps)).layers] == [BLOBS[number] for number in expected]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fsLayers": []}, "history: expected an entry a layer"),
        ({"history": []}, "history: expected an entry a layer"),
        ({"fsLayers": [{}] * 1001, "history": [{}] * 1001}, "fsLayers: 1001 items, over the limit IMAGE_LAYERS of 1000"),
        ({"fsLayers": None}, "fsLayers: missing"),
        ({"fsLayers": [5, 5, 5]}, r"fsLayers\[0\]: expected an object"),
        ({"fsLayers": [{"blobSum": "x"}] * 3}, r"fsLayers\[0\]\.blobSum: expected a sha256"),
        ({"history": [{}] * 3}, r"history\[0\]\.v1Compatibility: missing"),
        ({"history": [{"v1Compatibility": "["}] * 3}, r"history\[0\]\.v1Compatibility: no JSON"),
    ],
)
def test_malformed_manifests_name_the_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        read({**OLD, **change})


def test_the_payload_is_what_was_signed() -> None:
    data = encode(OLD)
    assert payload(data) == data
    signed = sign(data)
    assert signed != data and payload(signed) == data
    # What is smuggled in around the signature is not read.
    assert payload(signed.replace(b'"signatures"', b'"fsLayers": [], "signatures"')) == data
    assert payload(b'{"signatures": 1}') == b'{"signatures": 1}', "no schema 1"


def signed_by(*protected: object) -> bytes:
    """Return a manifest with these words of its signatures."""
    words = [
        item if isinstance(item, str) else base64.urlsafe_b64encode(json.dumps(item).encode()).rstrip(b"=").decode() for item in protected
    ]
    return encode({**OLD, "signatures": [{"protected": word} for word in words]})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (signed_by(), "signatures: expected signatures of one payload, got '0 payloads'"),
        (signed_by({"formatLength": 5, "formatTail": "fQ"}, {"formatLength": 6, "formatTail": "fQ"}), "got '2 payloads'"),
        (signed_by("%"), r"signatures\[0\]\.protected: expected base64url"),
        (signed_by("bm8"), r"signatures\[0\]\.protected: no JSON"),
        (signed_by({"formatLength": -1, "formatTail": ""}), "formatLength: expected a number of bytes"),
        (signed_by({"formatLength": 1 << 40, "formatTail": ""}), "formatLength: expected a number of bytes"),
        (signed_by({"formatLength": 5}), r"signatures\[0\]\.protected\.formatTail: missing"),
        (encode({**OLD, "signatures": [5]}), r"signatures\[0\]: expected an object"),
    ],
)
def test_a_signature_without_a_payload(data: bytes, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        payload(data)


def publish(repository: Repository, data: bytes, sent: bytes, tag: str = "1") -> Digest:
    """Publish what has the digest of *data* and is sent as *sent*."""
    digest = Digest.of(data)
    for name in (str(digest), tag):
        repository.routes[f"/v2/demo/tiny/manifests/{name}"] = Reply(200, sent, [("Content-Type", "application/json")])
    return digest


@pytest.mark.parametrize("signed", [False, True])
def test_an_old_image(repository: Repository, store: Store, tmp_path: Path, signed: bool) -> None:
    data = encode(OLD)
    digest = publish(repository, data, sign(data) if signed else data)
    for text in ("demo/tiny:1", f"demo/tiny@{digest}", f"demo/tiny@{digest}"):
        found = find(repository, store, text)
        assert (found.digest, found.size, found.config, str(found.platform)) == (digest, len(data), None, "linux/amd64")
        assert [(str(layer.blob.digest), layer.blob.size, layer.diff_id) for layer in found.layers] == [(b, None, None) for b in BLOBS[:3]]
        assert found.parsed_config().cmd == ("/x",)
    assert len(repository.asked) == 1, "what a digest names is in the store"
    assert store.read(digest) == data
    assert MediaType.ACCEPT.endswith("manifest.v1+json") and repository.asked[0].headers["Accept"] == MediaType.ACCEPT
    found.write(tmp_path / "manifest.json")
    assert Resolved.read(tmp_path / "manifest.json") == found


# -- beside schema 2

IMAGE = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [f"sha256:{n:064x}" for n in range(3)]}}).encode()
BESIDE = encode(
    manifest(
        [
            (BLOBS[0], step(0)),
            (str(EMPTY), step(1, throwaway=True)),
            (BLOBS[1], step(2)),
            (BLOBS[2], step(3, architecture="amd64", os="linux", config=CONFIG)),
        ]
    )
)
ASKED = f"{MediaType.SCHEMA1_SIGNED}, {MediaType.SCHEMA1}"


def schema2(repository: Repository, kind: str = MediaType.DOCKER_MANIFEST) -> bytes:
    """Publish the config of a manifest of OLD's layers, and return that manifest."""
    layers = [Descriptor(media_type=MediaType.DOCKER_LAYER, digest=Digest(blob), size=1).json() for blob in BLOBS[:3]]
    config = repository.blob(IMAGE, MediaType.DOCKER_CONFIG)
    return json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": layers}).encode()


def both(repository: Repository, beside: Answer, document: bytes | None = None, tag: str = "1") -> bytes:
    """Publish an image that is *beside* for who wants nothing but schema 1; return its manifest."""
    main = document or schema2(repository)

    def reply(asked: Asked) -> Reply:
        if asked.headers["Accept"] != ASKED:
            return Reply(200, main)
        return beside if isinstance(beside, Reply) else beside(asked)

    repository.routes[f"/v2/demo/tiny/manifests/{tag}"] = reply
    return main


def asked_for_schema1(repository: Repository) -> int:
    return sum(asked.headers["Accept"] == ASKED for asked in repository.asked)


@pytest.mark.parametrize("signed", [False, True])
def test_schema_1_beside_schema_2_is_kept(repository: Repository, store: Store, tmp_path: Path, signed: bool) -> None:
    main = both(repository, Reply(200, sign(BESIDE) if signed else BESIDE))
    found = find(repository, store)
    assert found.digest == Digest.of(main) and found.image_config == IMAGE.decode()
    assert [document.text.encode() for document in found.documents] == [BESIDE, main]
    assert found.documents[0].descriptor == Descriptor(media_type=MediaType.SCHEMA1, digest=Digest.of(BESIDE), size=len(BESIDE))
    assert len(repository.asked) == 3
    found.write(tmp_path / "manifest.json")
    assert Resolved.read(tmp_path / "manifest.json") == found
    kept = record(found, None, now=datetime.now(UTC))
    url = f"{repository.url}/v2/demo/tiny/manifests"
    assert kept.metrics == {
        "1": {**json.loads(BESIDE), "selfLink": f"{url}/1"},
        "2": {**json.loads(main), "selfLink": f"{url}/1"},
        "selfLink": url,
    }


def test_schema_1_beside_a_list_is_kept(repository: Repository, store: Store) -> None:
    main = schema2(repository)
    repository.document(main)
    entry = Descriptor(media_type=MediaType.DOCKER_MANIFEST, digest=Digest.of(main), size=len(main)).json()
    entries = [{**entry, "platform": {"os": "linux", "architecture": "amd64"}}]
    fat = json.dumps({"schemaVersion": 2, "mediaType": MediaType.DOCKER_LIST, "manifests": entries}).encode()
    both(repository, Reply(200, BESIDE), fat)
    found = find(repository, store)
    assert [document.text.encode() for document in found.documents] == [BESIDE, fat, main]
    url = f"{repository.url}/v2/demo/tiny/manifests"
    metrics = record(found, None, now=datetime.now(UTC)).metrics
    links = {key: value if key == "selfLink" else value["selfLink"] for key, value in metrics.items()}
    assert links == {"1": f"{url}/1", "index": f"{url}/1", "2": f"{url}/{Digest.of(main)}", "selfLink": url}


@pytest.mark.parametrize(
    "beside",
    [
        pytest.param(Reply(404, json_errors("MANIFEST_UNKNOWN")), id="404"),
        pytest.param(Reply(406), id="406"),
        pytest.param(Reply(401, b"", [("WWW-Authenticate", 'Bearer realm="http://127.0.0.1:9/"')]), id="401"),
        pytest.param(Reply(500), id="500"),
        pytest.param(Reply(429, b"", [("Retry-After", "60")]), id="rate-limit"),
        pytest.param(Reply(307, b"", [("Location", "http://127.0.0.1:9/")]), id="redirect"),
        pytest.param(Reply(200, json.dumps({"schemaVersion": 2, "manifests": []}).encode()), id="another-schema"),
        pytest.param(Reply(200, encode({**OLD, "fsLayers": OLD["fsLayers"][:2], "history": OLD["history"][:2]})), id="another-image"),
        pytest.param(Reply(200, encode({**OLD, "history": []})), id="malformed"),
        pytest.param(Reply(200, sign(BESIDE).replace(b"protected", b"protect")), id="malformed-signature"),
        pytest.param(Reply(200, b"<html>"), id="no-json"),
        pytest.param(Reply(200, b"\xff{"), id="no-text"),
        pytest.param(Reply(200, b" " * (MAX_DOCUMENT + 1)), id="giant"),
        pytest.param(Reply(200, BESIDE[:99], length=len(BESIDE)), id="breaks-off"),
        pytest.param(Reply(200, BESIDE, delay=1), id="silent"),
        pytest.param(Reply(200, BESIDE[:99], length=len(BESIDE), silence=1), id="silent-in-the-middle"),
        pytest.param(Reply(raw=b""), id="hangs-up"),
        pytest.param(Reply(raw=b"SSH-2.0-x\r\n"), id="no-http"),
    ],
)
def test_whatever_comes_in_place_of_schema_1_is_left_out(repository: Repository, store: Store, beside: Reply) -> None:
    main = both(repository, beside)
    found = find(repository, store)
    assert [document.text.encode() for document in found.documents] == [main]
    assert asked_for_schema1(repository) == 1 and len(repository.asked) == 3, "one try"
    assert store.tags() == {f"{repository.host}/demo/tiny:1": found.documents[0].descriptor}


def test_schema_1_is_asked_for_only_where_it_may_be(repository: Repository, store: Store) -> None:
    main = both(repository, Reply(200, BESIDE))
    digest = repository.document(main)["digest"]
    find(repository, store, f"demo/tiny@{digest}")
    find(repository, store, f"demo/tiny:1@{digest}")
    both(repository, Reply(200, BESIDE), schema2(repository, MediaType.OCI_MANIFEST), "oci")
    find(repository, store, "demo/tiny:oci")
    reference = Reference.parse("demo/tiny:1", registry=repository.host, collection="")
    with client(repository.host, client="docker") as hub:
        resolve(hub, reference, Platform(architecture="amd64"), store)
    scarce = Pace(store, repository.host, 1000.0)
    with RegistryClient(settings(repository.host), patience=HASTY, pace=scarce, keyring=Keyring(settings(repository.host), {})) as slow:
        resolve(slow, reference, Platform(architecture="amd64"), store)
    assert asked_for_schema1(repository) == 0
    find(repository, store)
    assert asked_for_schema1(repository) == 1


def test_schema_1_is_asked_for_with_the_token_that_is_there(repository: Repository, store: Store) -> None:
    main = both(repository, Reply(200, BESIDE))
    open_ = dict(repository.routes)
    challenge = list(bearer(f"{repository.url}/token").items())

    def reply(asked: Asked) -> Reply:
        if asked.authorization != "Bearer t":
            return Reply(401, b"", challenge)
        answer = open_[asked.path]
        assert not isinstance(answer, list)
        return answer if isinstance(answer, Reply) else answer(asked)

    repository.routes = {**dict.fromkeys(open_, reply), "/token": Reply(200, b'{"token": "t"}')}
    assert [document.text.encode() for document in find(repository, store).documents] == [BESIDE, main]
    assert sum(path.startswith("/token") for path in repository.paths()) == 1


@hypothesis_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_odd_documents_beside_never_fail_a_pull(repository: Repository, store: Store, data: st.DataObject) -> None:
    document = json.loads(BESIDE)
    path = data.draw(st.sampled_from(paths(document)[1:]))
    target: Any = document
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = data.draw(JSON)
    main = both(repository, Reply(200, encode(document)))
    found = find(repository, store)
    assert found.documents[-1].text.encode() == main and len(found.documents) <= 2
    assert record(found, None, now=datetime.now(UTC)).metrics["2"]["schemaVersion"] == 2


def test_other_bytes_than_the_digest_says(repository: Repository, store: Store) -> None:
    data = encode(OLD)
    other = encode({**OLD, "tag": "2"})
    digest = publish(repository, data, sign(other))
    with pytest.raises(DigestMismatch, match="sends another manifest"):
        find(repository, store, f"demo/tiny@{digest}")


def test_an_old_image_of_another_platform(repository: Repository, store: Store) -> None:
    data = encode({**OLD, "architecture": "arm"})
    publish(repository, data, data)
    with pytest.raises(DocumentError, match="the image is for linux/arm, not for linux/amd64"):
        find(repository, store)


@given(st.data())
def test_one_value_replaced_never_escapes_as_a_traceback(data: st.DataObject) -> None:
    document = copy.deepcopy({**OLD, "signatures": json.loads(sign(encode(OLD)))["signatures"]})
    path = data.draw(st.sampled_from(paths(document)[1:]))
    target: Any = document
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = data.draw(JSON)
    with contextlib.suppress(DocumentError):
        found = parse_manifest(payload(encode(document)))
        assert isinstance(found, Schema1)
        ImageConfig.parse(found.config)


@given(st.dictionaries(st.sampled_from(["id", "config", "os", "architecture", "throwaway", "rootfs", "created"]), JSON))
def test_any_history_never_escapes_as_a_traceback(entry: dict[str, Any]) -> None:
    with contextlib.suppress(DocumentError):
        ImageConfig.parse(read(manifest([(BLOBS[0], entry), (BLOBS[1], entry)])).config)
