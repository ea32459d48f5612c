"""Schema 1 manifests of a registry: old images, and what comes beside the schema 2 manifest of the same image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sregistry.errors import DigestMismatch, DocumentError
from sregistry.oci.documents import Descriptor, Digest, MediaType, Platform
from sregistry.oci.json_fields import MAX_DOCUMENT
from sregistry.oci.reference import Reference
from sregistry.registry.client import RegistryClient
from sregistry.registry.credentials import Keyring
from sregistry.registry.rate_limit import Pace
from sregistry.registry.resolve import resolve
from sregistry.results.resolved import Resolved
from sregistry.store.store import Store
from tests.support.images import sign
from tests.support.odd_documents import JSON, paths
from tests.support.records import metrics_of
from tests.support.repository import Repository, find
from tests.support.schema1 import ASKED, BESIDE, BLOBS, IMAGE, OLD, both, encode, schema2
from tests.support.scripted import HASTY, Asked, Reply, bearer, client, json_errors, settings


@pytest.fixture
def repository() -> Iterator[Repository]:
    with Repository() as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


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
    kept = metrics_of(found)
    url = f"{repository.url}/v2/demo/tiny/manifests"
    assert kept == {
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
    metrics = metrics_of(found)
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
    assert metrics_of(found)["2"]["schemaVersion"] == 2


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
