"""A layout as a registry: what clients of the specification may ask, and what they must not get."""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sregistry.errors import RegistryError, StoreError
from sregistry.oci.documents import Descriptor, Digest, MediaType, Platform
from sregistry.oci.reference import Reference
from sregistry.registry.fetch import fetch
from sregistry.registry.resolve import resolve
from sregistry.registry.server import Server, _range, run, serve
from sregistry.store.store import Store
from tests.support.registry import get, running, serving
from tests.support.scripted import client

LAYER = bytes(range(256)) * 20000
CONFIG = json.dumps(
    {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(LAYER))]}, "config": {}}
).encode()


def descriptor(data: bytes, media_type: str) -> Descriptor:
    return Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))


MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST,
        "config": descriptor(CONFIG, MediaType.OCI_CONFIG).json(),
        "layers": [descriptor(LAYER, MediaType.OCI_LAYER).json()],
    }
).encode()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "layout")
    for data in (LAYER, CONFIG, MANIFEST):
        store.add(data)
    for name in ("demo/tiny:1", "nvcr.io/demo/tiny:R2", "127.0.0.1:5000/a/b/c:x", f"pinned/one@{Digest.of(MANIFEST)}", "No Name"):
        store.tag(name, descriptor(MANIFEST, MediaType.OCI_MANIFEST))
    return store


@pytest.fixture
def server(store: Store) -> Iterator[Server]:
    with serving(store) as it:
        yield it


def test_it_is_a_registry(server: Server) -> None:
    for path in ("/v2/", "/v2"):
        status, headers, body = get(server, path)
        assert (status, headers["Docker-Distribution-Api-Version"], body) == (200, "registry/2.0", b"{}")


@pytest.mark.parametrize("name", ["demo/tiny/manifests/1", "demo/tiny/manifests/R2", "a/b/c/manifests/x"])
def test_manifests_by_tag(server: Server, name: str) -> None:
    status, headers, body = get(server, f"/v2/{name}")
    assert (status, body) == (200, MANIFEST)
    assert headers["Content-Type"] == MediaType.OCI_MANIFEST
    assert headers["Docker-Content-Digest"] == str(Digest.of(MANIFEST))


@pytest.mark.parametrize("name", ["demo/tiny", "pinned/one"])
def test_manifests_by_digest(server: Server, name: str) -> None:
    status, headers, body = get(server, f"/v2/{name}/manifests/{Digest.of(MANIFEST)}")
    assert (status, headers["Content-Type"], body) == (200, MediaType.OCI_MANIFEST, MANIFEST)
    assert get(server, f"/v2/{name}/manifests/{str(Digest.of(MANIFEST)).replace(':', '%3A')}")[0] == 200


def test_blobs(server: Server) -> None:
    status, headers, body = get(server, f"/v2/demo/tiny/blobs/{Digest.of(LAYER)}")
    assert (status, body) == (200, LAYER)
    assert headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize(
    "path", [f"blobs/{Digest.of(LAYER)}", f"manifests/{Digest.of(MANIFEST)}", "manifests/1", "tags/list", "manifests/none"]
)
def test_head_says_what_get_says_without_a_body(server: Server, path: str) -> None:
    asked, told = get(server, f"/v2/demo/tiny/{path}"), get(server, f"/v2/demo/tiny/{path}", "HEAD")
    assert told[2] == b""
    assert told[0] == asked[0]
    assert {k: v for k, v in told[1].items() if k != "Date"} == {k: v for k, v in asked[1].items() if k != "Date"}


@pytest.mark.parametrize(
    ("asked", "status", "start", "end"),
    [
        ("bytes=0-9", 206, 0, 10),
        ("bytes=100-", 206, 100, len(LAYER)),
        ("bytes=-7", 206, len(LAYER) - 7, len(LAYER)),
        (f"bytes=-{len(LAYER) * 2}", 206, 0, len(LAYER)),
        (f"bytes=5-{len(LAYER) * 2}", 206, 5, len(LAYER)),
        ("bytes=9-5", 200, 0, len(LAYER)),
        ("bytes=0-1,5-6", 200, 0, len(LAYER)),
        ("items=0-1", 200, 0, len(LAYER)),
        ("bytes=-", 200, 0, len(LAYER)),
    ],
)
def test_ranges(server: Server, asked: str, status: int, start: int, end: int) -> None:
    found, headers, body = get(server, f"/v2/demo/tiny/blobs/{Digest.of(LAYER)}", Range=asked)
    assert (found, body) == (status, LAYER[start:end])
    assert headers.get("Content-Range") == (f"bytes {start}-{end - 1}/{len(LAYER)}" if status == 206 else None)


@pytest.mark.parametrize("asked", [f"bytes={len(LAYER)}-", "bytes=-0"])
def test_a_range_outside(server: Server, asked: str) -> None:
    status, headers, body = get(server, f"/v2/demo/tiny/blobs/{Digest.of(LAYER)}", Range=asked)
    assert (status, headers["Content-Range"], body) == (416, f"bytes */{len(LAYER)}", b"")


@given(
    st.text("bytes=-0123456789, ", max_size=20) | st.builds("bytes={}-{}".format, st.integers(0, 40), st.integers(0, 40)),
    st.integers(0, 30),
)
def test_any_range(text: str, size: int) -> None:
    found = _range(text, size)
    assert found is None or found == (0, 0) or 0 <= found[0] < found[1] <= size


def test_tags(server: Server) -> None:
    assert json.loads(get(server, "/v2/demo/tiny/tags/list")[2]) == {"name": "demo/tiny", "tags": ["1", "R2"]}
    assert json.loads(get(server, "/v2/demo/tiny/tags/list?n=1")[2])["tags"] == ["1"]
    assert json.loads(get(server, "/v2/demo/tiny/tags/list?n=1&last=1")[2])["tags"] == ["R2"]
    assert json.loads(get(server, "/v2/pinned/one/tags/list")[2])["tags"] == []
    assert get(server, "/v2/demo/tiny/tags/list?n=x")[0] == 400


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/none/manifests/1", 404, "NAME_UNKNOWN"),
        ("/v2/demo/tiny/manifests/none", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/demo/tiny/manifests/{Digest.of(b'none')}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/demo/tiny/manifests/{Digest.of(LAYER)}", 404, "MANIFEST_UNKNOWN"),
        (f"/v2/demo/tiny/manifests/{Digest.of(CONFIG)}", 404, "MANIFEST_UNKNOWN"),
        ("/v2/demo/tiny/manifests/sha256:zz", 400, "DIGEST_INVALID"),
        (f"/v2/demo/tiny/blobs/{Digest.of(b'none')}", 404, "BLOB_UNKNOWN"),
        ("/v2/demo/tiny/blobs/1", 400, "DIGEST_INVALID"),
        ("/v2/demo/tiny/tags/other", 404, "UNSUPPORTED"),
        ("/", 404, "UNSUPPORTED"),
        ("/v2/demo/tiny", 404, "UNSUPPORTED"),
        ("/v2/%ff/manifests/1", 400, "UNSUPPORTED"),
        ("/v2/demo/tiny/blobs/../../../index.json", 404, "UNSUPPORTED"),
        ("/v2/demo/tiny/blobs/..%2f..%2findex.json", 404, "UNSUPPORTED"),
        ("/v2/../../etc/manifests/passwd", 404, "NAME_UNKNOWN"),
        ("/v2/demo/tiny/manifests/%2e%2e", 404, "MANIFEST_UNKNOWN"),
        ("/v2/demo/tiny/blobs/sha256:../../index.json", 404, "UNSUPPORTED"),
        ("/../../../../etc/passwd", 404, "UNSUPPORTED"),
    ],
)
def test_errors_are_the_specification_s(server: Server, path: str, status: int, code: str) -> None:
    found, headers, body = get(server, path)
    assert headers["Content-Type"] == "application/json"
    told = json.loads(body)["errors"][0]["code"]
    assert (found, told) == (status, code)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_it_is_read_only(server: Server, store: Store, method: str) -> None:
    status, headers, body = get(server, f"/v2/demo/tiny/manifests/{Digest.of(MANIFEST)}", method)
    assert (status, json.loads(body)["errors"][0]["code"], headers["Connection"]) == (405, "UNSUPPORTED", "close")
    assert store.has(Digest.of(MANIFEST))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text("/v2demotiny.%0aef:?&sha256-_~", max_size=60).map(lambda text: "/" + text))
def test_any_path_gives_an_answer(server: Server, path: str) -> None:
    status, _, body = get(server, path)
    assert status in (200, 400, 404)
    json.loads(body)


def test_one_connection_serves_many_requests(server: Server) -> None:
    connection = http.client.HTTPConnection(server.address, timeout=5)
    connection.connect()
    first = connection.sock
    for path in ("/v2/", "/nothing", f"/v2/demo/tiny/blobs/{Digest.of(LAYER)}", "/v2/demo/tiny/tags/list"):
        connection.request("GET", path)
        connection.getresponse().read()
        connection.request("HEAD", path)
        connection.getresponse().read()
    assert connection.sock is first
    connection.close()


def test_a_client_that_goes_away_leaves_no_traceback(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        with socket.create_connection((server.server_name, server.server_port)) as connection:
            connection.sendall(f"GET /v2/demo/tiny/blobs/{Digest.of(LAYER)} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            connection.recv(10)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert get(server, "/v2/")[0] == 200
    assert capfd.readouterr().err == ""


def test_new_names_are_seen(server: Server, store: Store) -> None:
    assert get(server, "/v2/late/one/manifests/1")[0] == 404
    store.tag("late/one:1", descriptor(MANIFEST, MediaType.OCI_MANIFEST))
    assert get(server, "/v2/late/one/manifests/1")[0] == 200


PLANTED: dict[str, Callable[[Path, Path], object]] = {
    "nothing": lambda path, secret: None,
    "link": lambda path, secret: path.symlink_to(secret),
    "link-to-nothing": lambda path, secret: path.symlink_to("nothing"),
    "link-to-itself": lambda path, secret: path.symlink_to(path.name),
    "link-to-a-device": lambda path, secret: path.symlink_to("/dev/zero"),
    "pipe": lambda path, secret: os.mkfifo(path),
    "folder": lambda path, secret: path.mkdir(),
}


@pytest.mark.parametrize("what", PLANTED)
@pytest.mark.parametrize("data", [LAYER, MANIFEST], ids=["blob", "manifest"])
def test_only_files_of_the_layout_are_served(server: Server, store: Store, tmp_path: Path, what: str, data: bytes) -> None:
    secret = tmp_path / "shadow"
    secret.write_bytes(b"root:secret" if data is LAYER else data)
    path = store.blob(Digest.of(data))
    path.unlink()
    PLANTED[what](path, secret)
    for kind in ("blobs", "manifests"):
        status, _, body = get(server, f"/v2/demo/tiny/{kind}/{Digest.of(data)}")
        assert status == 404 and b"secret" not in body
    assert get(server, "/v2/demo/tiny/manifests/1")[0] == (404 if data is MANIFEST else 200)


@pytest.mark.parametrize("name", ["blobs", "blobs/sha256"])
def test_no_folder_that_is_a_link_is_entered(server: Server, store: Store, name: str) -> None:
    path = store.root / name
    path.rename(store.root / "aside")
    path.symlink_to(store.root / "aside")
    assert get(server, f"/v2/demo/tiny/blobs/{Digest.of(LAYER)}")[0] == 404


@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_a_layout_of_links_is_none(store: Store, tmp_path: Path, what: str) -> None:
    path = store.root / "oci-layout"
    path.rename(tmp_path / "oci-layout")
    PLANTED[what](path, tmp_path / "oci-layout")
    with pytest.raises(StoreError, match="no OCI image layout"):
        run(store.root, "127.0.0.1", 0)


def test_names_come_from_a_file_of_the_layout(server: Server, store: Store, tmp_path: Path) -> None:
    path = store.root / "index.json"
    path.rename(tmp_path / "index.json")
    path.symlink_to(tmp_path / "index.json")
    assert get(server, "/v2/demo/tiny/tags/list")[0] == 404
    path.unlink()
    os.mkfifo(path)
    assert get(server, "/v2/demo/tiny/tags/list")[0] == 404


def test_an_image_goes_round(server: Server, tmp_path: Path) -> None:
    mine = Store(tmp_path / "mine")
    reference = Reference.parse(f"{server.address}/demo/tiny:1", registry=server.address, collection="")
    with client(server.address) as it:
        found = resolve(it, reference, Platform(architecture="amd64"), mine)
        for layer in found.layers:
            fetch(it, found.reference, layer, mine, log=io.StringIO())
    assert mine.read(Digest.of(LAYER)) == LAYER
    assert list(mine.tags()) == [f"{server.address}/demo/tiny:1"]
    with serving(mine) as second:
        assert requests.get(f"http://{second.address}/v2/demo/tiny/manifests/1", timeout=5).content == MANIFEST


def test_the_log_shows_requests(store: Store) -> None:
    log = io.StringIO()
    with serving(store, log=log) as server:
        get(server, "/v2/x\x1b[31m".replace("\x1b", "%1b"))
        with socket.create_connection((server.server_name, server.server_port)) as connection:
            connection.sendall(b"GET /\x1b[31m HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            while connection.recv(4096):
                pass
    assert '"GET /v2/x%1b[31m HTTP/1.1" 404' in log.getvalue()
    assert "\x1b" not in log.getvalue()


def test_a_taken_port_and_a_bad_one(store: Store) -> None:
    with serving(store) as server:
        with pytest.raises(RegistryError, match=rf"can't listen on 127\.0\.0\.1:{server.server_port}: .*in use; choose another port"):
            serve(store, port=server.server_port)
        with pytest.raises(RegistryError, match="can't listen"):
            serve(store, port=99999)
        with pytest.raises(RegistryError, match="can't listen"):
            serve(store, host="no-such-host.invalid")


def test_ipv6(store: Store) -> None:
    if not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("this machine has no IPv6")
    with running(serve(store, "::1")) as server:
        assert server.address.startswith("[::1]:")
        assert requests.get(f"http://{server.address}/v2/", timeout=5).status_code == 200


def test_a_folder_that_is_no_layout(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no OCI image layout"):
        run(tmp_path, "127.0.0.1", 0)


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
def test_skopeo_copies_from_it(server: Server, tmp_path: Path) -> None:
    command = ["skopeo", "--insecure-policy", "copy", "--preserve-digests", "--src-tls-verify=false", "--override-arch=amd64"]
    subprocess.run([*command, f"docker://{server.address}/demo/tiny:1", f"oci:{tmp_path}/copy:x"], check=True, capture_output=True)
    assert Store(tmp_path / "copy").read(Digest.of(MANIFEST)) == MANIFEST


@pytest.mark.skipif(not shutil.which("skopeo"), reason="skopeo is not installed")
def test_skopeo_reads_the_store_itself(store: Store, tmp_path: Path) -> None:
    source = f"oci:{store.root}:127.0.0.1:5000/a/b/c:x"
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", "--preserve-digests", source, f"oci:{tmp_path}/copy:x"], check=True, capture_output=True
    )
    assert Store(tmp_path / "copy").read(Digest.of(LAYER)) == LAYER
