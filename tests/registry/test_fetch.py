"""Blobs into the store: once however many ask, whole or not at all, tried again when they break off."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sregistry.errors import AuthenticationError, DigestMismatch, LayerError, RegistryError, StoreError, TransferError
from sregistry.oci.documents import Descriptor, Digest, MediaType
from sregistry.oci.reference import Reference
from sregistry.registry.fetch import Room, fetch
from sregistry.results.receipts import Blob
from sregistry.results.resolved import Layer
from sregistry.store.store import Store
from sregistry.system import limits
from tests.support.scripted import HASTY, TOKEN, Reply, Scripted, bearer, client, json_errors

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


def get(server: Scripted, store: Store, wanted: Layer | None = None, token: str | None = None, **options: Any) -> tuple[Blob, str]:
    log = io.StringIO()
    reference = Reference.parse("demo/tiny:1", registry=server.host, collection="")
    with client(server.host, token=token) as it:
        return fetch(it, reference, wanted or layer(), store, log=log, **options), log.getvalue()


def blobs(store: Store) -> list[str]:
    return sorted(path.name for folder in ("blobs", "ingest") for path in (store.root / folder).rglob("*") if path.is_file())


def test_a_layer_is_fetched_once(server: Scripted, store: Store) -> None:
    receipt, log = get(server, store)
    assert receipt.json() == {
        "digest": str(DIGEST),
        "size": len(DATA),
        "diff_id": str(DIFF),
        "media_type": MediaType.OCI_LAYER,
        "estargz": False,
        "store": str(store.root),
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


# -- room


def unknown(data: bytes = DATA) -> Layer:
    """A layer whose size nobody says."""
    return Layer(blob=Descriptor(media_type=MediaType.OCI_LAYER, digest=Digest.of(data), size=None, urls=()), diff_id=DIFF)


def chunked(data: bytes) -> Reply:
    return Reply(200, b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data), [("Transfer-Encoding", "chunked")])


@pytest.mark.parametrize("size", [10**15, 2**63])
def test_a_blob_that_can_not_fit_is_not_begun(server: Scripted, store: Store, size: int) -> None:
    with pytest.raises(
        LayerError, match=rf"^layer {DIGEST}: {size} bytes, more than the layer_limit of 1099511627776; raise layer_limit if"
    ):
        get(server, store, layer(size=size))
    with pytest.raises(StoreError, match=rf"{DIGEST} needs {size} bytes in .*, which has [0-9]+; free some space"):
        get(server, store, layer(size=size), limit=2**64)
    assert server.asked == [] and blobs(store) == []


@pytest.mark.parametrize("answer", [Reply(200, DATA), chunked(DATA)], ids=["announced", "chunked"])
def test_a_blob_of_unknown_size_has_the_layer_s_limit(server: Scripted, store: Store, answer: Reply) -> None:
    server.routes[PATH] = answer
    with pytest.raises(LayerError, match="layer_limit of 1000; raise layer_limit"):
        get(server, store, unknown(), limit=1000)
    assert blobs(store) == []
    assert get(server, store, unknown(), limit=len(DATA))[0].size == len(DATA)


def test_a_blob_that_nobody_could_compress_fits_its_layer_s_limit(server: Scripted, store: Store) -> None:
    packed = gzip.compress(DATA, 0)
    server.routes[f"/v2/demo/tiny/blobs/{Digest.of(packed)}"] = Reply(200, packed)
    assert len(packed) > len(DATA)
    assert get(server, store, layer(packed), limit=len(DATA))[0].size == len(packed)


def test_the_room_that_is_left(tmp_path: Path) -> None:
    free = {"left": 1000}
    looks: list[Path] = []

    def left(folder: Path) -> int:
        looks.append(folder)
        return free["left"]

    room = Room(tmp_path, layer(size=900).blob, 1 << 40, left)
    room.check(0, 900)
    with pytest.raises(StoreError, match="needs 1001 bytes"):
        room.check(99, 1100)
    room.check(100, 1100)
    room = Room(tmp_path, unknown().blob, 1 << 40, left)
    with pytest.raises(StoreError, match="has 1000 bytes left, and nobody says how many more it needs"):
        room.take(0, 1)
    free["left"] = limits.FREE_BYTES
    looks.clear()
    for position in range(0, 1 << 30, 1 << 20):
        room.take(position, 1 << 20)
    assert len(looks) == 63  # the first look was before
    free["left"] -= 1
    with pytest.raises(StoreError):
        room.take(1 << 30, 1)


# -- content codings


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
@pytest.mark.parametrize("framed", ["length", "chunks"])
@pytest.mark.parametrize("size", [len(DATA), None])
def test_a_blob_that_a_proxy_compressed(server: Scripted, store: Store, pack: Any, framed: str, size: int | None) -> None:
    packed = pack(DATA)
    reply = Reply(200, packed) if framed == "length" else chunked(packed)
    coding = "gzip" if pack is gzip.compress else "deflate"
    server.routes[PATH] = Reply(200, reply.body, [*reply.headers, ("Content-Encoding", coding)])
    get(server, store, layer() if size else unknown())
    assert store.read(DIGEST) == DATA


@pytest.mark.parametrize("framed", ["length", "chunks"])
@pytest.mark.parametrize("coding", ["gzip", "br", "aws-chunked"])
def test_a_blob_whose_own_compression_is_called_a_coding(server: Scripted, store: Store, framed: str, coding: str) -> None:
    packed = gzip.compress(DATA)
    reply = Reply(200, packed) if framed == "length" else chunked(packed)
    server.routes[f"/v2/demo/tiny/blobs/{Digest.of(packed)}"] = Reply(200, reply.body, [*reply.headers, ("Content-Encoding", coding)])
    get(server, store, layer(packed))
    assert store.read(Digest.of(packed)) == packed
    assert len(server.asked) == 1


def test_a_blob_that_is_neither_what_came_nor_what_is_in_it(server: Scripted, store: Store) -> None:
    server.routes[PATH] = Reply(200, gzip.compress(DATA[:-1] + b"x"), [("Content-Encoding", "gzip")])
    with pytest.raises(DigestMismatch, match="sent other bytes"):
        get(server, store)
    server.routes[PATH] = Reply(200, b"x" * 99, [("Content-Encoding", "br")])
    with pytest.raises(RegistryError, match="in the content coding 'br', which was not asked for; the registry or a proxy is broken"):
        get(server, store)
    bomb = zlib.compressobj(9)
    packed = bomb.compress(bytes(64 << 20)) + bomb.flush()
    server.routes[PATH] = Reply(200, packed, [("Content-Encoding", "deflate")])
    with pytest.raises(DigestMismatch, match="sends more than"):
        get(server, store)
    with pytest.raises(LayerError, match="layer_limit"):
        get(server, store, unknown(), limit=len(DATA))
    assert blobs(store) == []


def test_foreign_addresses_are_tried_as_far_as_their_limit(server: Scripted, store: Store) -> None:
    server.routes[PATH] = Reply(404)
    with Scripted({"/layer": Reply(200, DATA)}) as other:
        wrong = tuple(f"{other.url}/{number}" for number in range(limits.FOREIGN_ADDRESSES))
        with pytest.raises(
            RegistryError, match=rf"the first {limits.FOREIGN_ADDRESSES} of {limits.FOREIGN_ADDRESSES + 1} addresses were tried"
        ):
            get(server, store, layer(urls=(*wrong, f"{other.url}/layer")))
        assert len(other.asked) == limits.FOREIGN_ADDRESSES
        get(server, store, layer(urls=(*wrong[1:], "ftp://x/", wrong[1], f"{other.url}/layer")))
    assert store.read(DIGEST) == DATA


def test_processes_share_one_download(server: Scripted, store: Store) -> None:
    server.routes[PATH] = Reply(200, DATA, delay=0.3)
    code = """
import sys
from pathlib import Path
from sregistry.registry.fetch import Room, fetch
from sregistry.oci.documents import Descriptor, Digest
from sregistry.oci.reference import Reference
from sregistry.results.resolved import Layer
from sregistry.store.store import Store
from tests.support.scripted import client
host, root, digest, size, media_type = sys.argv[1:]
layer = Layer(blob=Descriptor(media_type=media_type, digest=Digest(digest), size=int(size)), diff_id=None)
with client(host) as it:
    fetch(it, Reference.parse("demo/tiny:1", registry=host, collection=""), layer, Store(Path(root)))
"""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, server.host, str(store.root), str(DIGEST), str(len(DATA)), MediaType.OCI_LAYER]
    jobs = [subprocess.Popen(command, cwd=root, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [job.communicate()[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 4, said
    assert len(server.asked) == 1
    assert sorted(text.count("fetched") for text in said) == [0, 0, 0, 1]
