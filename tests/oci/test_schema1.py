"""Schema 1 manifests: history newest first, steps that hold nothing, and the digest of what was signed."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sregistry.errors import DocumentError
from sregistry.oci.documents import ImageConfig, MediaType, Platform
from sregistry.oci.parse import parse_manifest
from sregistry.oci.schema1 import EMPTY, Schema1, payload
from tests.support.images import sign
from tests.support.odd_documents import JSON, paths
from tests.support.schema1 import BLOBS, OLD, encode, manifest, step


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
