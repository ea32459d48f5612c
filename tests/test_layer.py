"""Blobs into the store: once however many ask, whole or not at all, tried again when they break off."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sregistry.errors import AuthenticationError, DigestMismatch, RegistryError, StoreError, TransferError
from sregistry.layer import fetch
from sregistry.manifest import Layer
from sregistry.oci import Descriptor, Digest, MediaType
from sregistry.reference import Reference
from sregistry.store import Store
from tests.scripted import HASTY, TOKEN, Reply, Scripted, bearer, client, json_errors

DATA = bytes(range(251)) * 5000
DIGEST = Digest.of(DATA)
PATH = f"/v2/demo/tiny/blobs/{DIGEST}"
DIFF = Digest("sha256:" + "d" * 64)


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted({PATH: Reply(200, DATA)}) as script:
        yield script


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def layer(data: bytes = DATA, urls: tuple[str, ...] = (), size: int | None = None) -> Layer:
    blob = Descriptor(media_type=MediaType.OCI_LAYER, digest=Digest.of(data), size=len(data) if size is None else size, urls=urls)
    return Layer(blob=blob, diff_id=DIFF)


def get(server: Scripted, store: Store, wanted: Layer | None = None, token: str | None = None) -> tuple[dict[str, object], str]:
    log = io.StringIO()
    reference = Reference.parse("demo/tiny:1", registry=server.host, collection="")
    with client(server.host, token=token) as it:
        return fetch(it, reference, wanted or layer(), store, log=log), log.getvalue()


def blobs(store: Store) -> list[str]:
    return sorted(path.name for folder in ("blobs", "ingest") for path in (store.root / folder).rglob("*") if path.is_file())


def test_a_layer_is_fetched_once(server: Scripted, store: Store) -> None:
    receipt, log = get(server, store)
    assert receipt == {
        "digest": str(DIGEST),
        "size": len(DATA),
        "diff_id": str(DIFF),
        "media_type": MediaType.OCI_LAYER,
        "holds": [{"path": str(store.blob(DIGEST)), "size": len(DATA)}],
    }
    assert store.read(DIGEST) == DATA
    assert f"{DIGEST} (1.3 MB) of {server.host}/demo/tiny" in log
    assert "MB/s" in log
    assert get(server, store) == (receipt, "")
    assert len(server.asked) == 1


def test_a_blob_of_another_size_is_replaced(server: Scripted, store: Store) -> None:
    store.blob(DIGEST).parent.mkdir(parents=True)
    store.blob(DIGEST).write_bytes(DATA[:-1])
    get(server, store)
    assert store.read(DIGEST) == DATA


def test_an_empty_blob(server: Scripted, store: Store) -> None:
    server.routes[f"/v2/demo/tiny/blobs/{Digest.of(b'')}"] = Reply(200, b"")
    get(server, store, layer(b""))
    assert store.read(Digest.of(b"")) == b""


def test_a_broken_transfer_is_begun_again(server: Scripted, store: Store) -> None:
    server.routes[PATH] = [Reply(200, DATA[:100], length=len(DATA)), Reply(200, DATA[:-1]), Reply(200, DATA)]
    _, log = get(server, store)
    assert store.read(DIGEST) == DATA
    assert log.count("again: ") == 2
    assert blobs(store) == [DIGEST.hex]


def test_a_transfer_that_always_breaks_is_given_up(server: Scripted, store: Store) -> None:
    server.routes[PATH] = Reply(200, DATA[:100], length=len(DATA))
    with pytest.raises(TransferError, match=rf"{server.host}/demo/tiny: gave up after 3 tries: .*after 100 bytes; try again later"):
        get(server, store)
    assert len(server.asked) == HASTY.retries + 1
    assert blobs(store) == [f"sha256-{DIGEST.hex}.partial"]  # for the next run


@pytest.mark.parametrize(
    ("body", "message"),
    [(DATA + b"x", "more than"), (DATA[:-1] + b"x", "sent other bytes")],
)
def test_wrong_bytes_are_no_layer(server: Scripted, store: Store, body: bytes, message: str) -> None:
    server.routes[PATH] = Reply(200, body)
    with pytest.raises(DigestMismatch, match=message):
        get(server, store)
    assert blobs(store) == []
    assert len(server.asked) == 1


def test_a_size_that_the_manifest_gets_wrong(server: Scripted, store: Store) -> None:
    with pytest.raises(DigestMismatch, match="more than the 7 bytes"):
        get(server, store, layer(size=7))
    with pytest.raises(TransferError, match="gave up"):
        get(server, store, layer(size=len(DATA) + 1))
    assert not store.has(DIGEST)


def test_a_missing_and_a_refused_layer(server: Scripted, store: Store) -> None:
    server.routes[PATH] = Reply(404, json_errors("BLOB_UNKNOWN"))
    with pytest.raises(RegistryError, match="the image is incomplete"):
        get(server, store)
    server.routes[PATH] = Reply(403, json_errors("DENIED"))
    with pytest.raises(AuthenticationError, match="export SREGISTRY_NVIDIA_TOKEN"):
        get(server, store)


def test_an_unwritable_store(server: Scripted, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="a file is where a folder should be"):
        get(server, Store(tmp_path / "file"))


def test_foreign_layers_come_from_the_registry_else_from_their_address(server: Scripted, store: Store, tmp_path: Path) -> None:
    with Scripted({"/layer": [Reply(200, DATA[:9], length=len(DATA)), Reply(200, DATA)]}) as other:
        foreign = layer(urls=(f"{other.url}/layer",))
        get(server, store, foreign)
        assert other.asked == []
        server.routes[PATH] = lambda asked: (
            Reply(404, json_errors("BLOB_UNKNOWN")) if asked.authorization else Reply(401, b"", list(bearer(f"{server.url}/token").items()))
        )
        server.routes["/token"] = Reply(200, b'{"token":"t"}')
        again = Store(tmp_path / "again")
        get(server, again, foreign, token=TOKEN)
        assert again.read(DIGEST) == DATA
        assert [asked.authorization for asked in other.asked] == [None, None]


def test_processes_share_one_download(server: Scripted, store: Store) -> None:
    server.routes[PATH] = Reply(200, DATA, delay=0.3)
    code = """
import sys
from pathlib import Path
from sregistry.layer import fetch
from sregistry.store import Store
from tests.scripted import client
from tests.test_layer import layer
from sregistry.reference import Reference
host, root = sys.argv[1:]
with client(host) as it:
    fetch(it, Reference.parse("demo/tiny:1", registry=host, collection=""), layer(), Store(Path(root)))
"""
    root = Path(__file__).parents[1]
    command = [sys.executable, "-c", code, server.host, str(store.root)]
    jobs = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [job.communicate()[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 4, said
    assert len(server.asked) == 1
    assert sorted(text.count("fetched") for text in said) == [0, 0, 0, 1]
