"""What images say of a layer that they share, and registries that do not give it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from sregistry.errors import DocumentError, RegistryError, StoreError
from sregistry.oci.documents import Descriptor, Digest, MediaType, Platform
from sregistry.registry import claims
from sregistry.registry.claims import Claim
from sregistry.registry.client import RegistryClient
from sregistry.results.resolved import Layer, Resolved
from sregistry.store.store import Store
from tests.support.scripted import Reply, Scripted, client, json_errors

DATA = b"a layer" * 1000
DIGEST, DIFF, OTHER = Digest.of(DATA), Digest.of(b"tar"), Digest.of(b"other")
BLOB = f"/v2/demo/tiny/blobs/{DIGEST}"


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted({BLOB: Reply(200, DATA)}) as script:
        yield script


def claim(registry: str, *, size: int | None = len(DATA), diff_id: Digest | None = DIFF) -> Claim:
    layer = Layer(blob=Descriptor(media_type=MediaType.OCI_LAYER, digest=DIGEST, size=size), diff_id=diff_id)
    resolved = Resolved(
        uri="demo/tiny:1",
        client="nvidia",
        registry=registry,
        repository="demo/tiny",
        tag="1",
        url="",
        digest=OTHER,
        size=1,
        platform=Platform(architecture="amd64"),
        config=None,
        layers=(layer,),
        documents=(),
        image_config="",
    )
    return Claim(resolved, layer)


def connect(resolved: Resolved) -> RegistryClient:
    return client(resolved.registry)


#: Registries that do not give the layer, for whatever reason.
REFUSALS = {
    "unknown": Reply(404, json_errors("BLOB_UNKNOWN")),
    "denied": Reply(403, json_errors("DENIED")),
    "trouble": Reply(503, b""),
    "other-bytes": Reply(200, b"?" * len(DATA)),
    "cut": Reply(200, DATA[:10], length=len(DATA)),
    "no-registry": Reply(200, b"<html>"),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
def test_the_second_registry_serves_what_the_first_does_not(server: Scripted, tmp_path: Path, refusal: Reply) -> None:
    with Scripted({BLOB: refusal}) as bad:
        receipt = claims.fetch([claim(bad.host), claim(server.host)], Store(tmp_path), connect)
    assert (receipt.size, Store(tmp_path).blob(DIGEST).read_bytes()) == (len(DATA), DATA)


def test_a_registry_that_is_down(server: Scripted, tmp_path: Path) -> None:
    assert claims.fetch([claim("127.0.0.1:1"), claim(server.host)], Store(tmp_path), connect).digest == str(DIGEST)


@pytest.mark.parametrize("size", [0, 1, len(DATA) - 1, len(DATA) + 1, 2**63 - 1])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("there", [True, False])
def test_a_wrong_size_is_not_believed(server: Scripted, tmp_path: Path, size: int, first: bool, there: bool) -> None:
    store = Store(tmp_path)
    if there:
        store.add(DATA)
    both = [claim(server.host, size=size), claim(server.host)]
    assert claims.fetch(both if first else both[::-1], store, connect).size == len(DATA)
    assert len(server.asked) == 0 or not there


def test_when_all_fail_the_first_says_why(tmp_path: Path) -> None:
    with (
        Scripted({BLOB: REFUSALS["denied"]}) as one,
        Scripted({BLOB: REFUSALS["unknown"]}) as two,
        pytest.raises(RegistryError, match=f"{one.host}.*403"),
    ):
        claims.fetch([claim(one.host), claim(two.host)], Store(tmp_path), connect)


def test_a_store_that_can_t_be_written_is_told_at_once(server: Scripted, tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("")
    with pytest.raises(StoreError):
        claims.fetch([claim(server.host), claim(server.host)], Store(tmp_path), connect)
    assert len(server.asked) <= 1


def test_the_diff_id_that_all_say() -> None:
    assert claims.agreed([claim("a"), claim("b")]) == DIFF
    assert claims.agreed([claim("a"), claim("b", diff_id=OTHER)]) is None
    assert claims.agreed([claim("a"), claim("b", diff_id=None)]) is None


def test_manifests_that_can_t_be_read_harm_no_other(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("none", "damaged", "error", "another", "good")]
    paths[1].write_text("{")
    paths[2].write_text('{"error": "why"}')
    dataclasses.replace(claim("a").resolved, layers=()).write(paths[3])
    claim("a").resolved.write(paths[4])
    assert claims.read(paths, DIGEST) == [claim("a")]
    with pytest.raises(StoreError, match="none: No such file"):
        claims.read(paths[:4], DIGEST)
    with pytest.raises(DocumentError, match="no manifest names"):
        claims.read([], DIGEST)
