"""The client against real servers on 127.0.0.1 that redirect, refuse, fail, stall, lie and break off."""

from __future__ import annotations

import gzip
import hashlib
import json
import time
import zlib
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
import zstandard

from sregistry.errors import AuthenticationError, DigestMismatch, DocumentError, RegistryError, TransferError
from sregistry.oci.documents import Descriptor, Digest, MediaType
from sregistry.oci.json_fields import MAX_DOCUMENT
from sregistry.oci.reference import Reference
from sregistry.registry.client import RegistryClient
from sregistry.registry.http import Patience, new_session
from tests.support.scripted import HASTY, TOKEN, Answer, Asked, Reply, Scripted, bearer, client, json_errors, settings

MANIFEST = b'{"schemaVersion":2}'
DIGEST = Digest.of(MANIFEST)
BLOB = bytes(range(256)) * 9000  # more than two chunks


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as script:
        yield script


def reference(server: Scripted, text: str = "demo/tiny:1") -> Reference:
    return Reference.parse(f"{server.host}/{text}", registry=server.host, collection="nvidia")


def blob(data: bytes = BLOB, *urls: str) -> Descriptor:
    return Descriptor(media_type=MediaType.OCI_LAYER, digest=Digest.of(data), size=len(data), urls=urls)


def blob_path(data: bytes = BLOB) -> str:
    return f"/v2/demo/tiny/blobs/{Digest.of(data)}"


CHUNKED = [("Transfer-Encoding", "chunked")]
TAG = "/v2/demo/tiny/manifests/1"


def get(server: Scripted, **options: Any) -> bytes:
    with client(server.host, **options) as it:
        return it.get_manifest(reference(server)).data


def get_blob(server: Scripted, data: bytes = BLOB, **options: Any) -> bytes:
    with client(server.host, **options) as it:
        return b"".join(it.get_blob(reference(server), blob(data)))


def protected(answer: Reply, *tokens: str) -> Answer:
    """Answer those who bring one of *tokens*, challenge all others."""

    def reply(asked: Asked) -> Reply:
        if asked.authorization in [f"Bearer {token}" for token in tokens]:
            return answer
        realm = f"http://{asked.headers['Host']}/token"
        return Reply(401, json_errors("UNAUTHORIZED", "authentication required"), list(bearer(realm).items()))

    return reply


def token(text: str) -> Reply:
    return Reply(200, json.dumps({"token": text}).encode())


def test_a_manifest_is_asked_for_by_tag_with_all_types(server: Scripted) -> None:
    server.routes[TAG] = Reply(200, MANIFEST, [("Content-Type", f"{MediaType.OCI_MANIFEST}; charset=utf-8")])
    with client(server.host) as it:
        document = it.get_manifest(reference(server))
    assert document == (MANIFEST, MediaType.OCI_MANIFEST)
    headers = server.asked[0].headers
    for kind in (*MediaType.MANIFESTS, *MediaType.INDEXES):
        assert kind in headers["Accept"]
    assert headers["Accept-Encoding"] == "identity"
    assert headers["User-Agent"].startswith("sregistry/")
    assert headers["Authorization"] is None


def test_a_digest_is_asked_for_and_checked(server: Scripted) -> None:
    path = f"/v2/demo/tiny/manifests/{DIGEST}"
    server.routes[path] = [Reply(200, MANIFEST), Reply(200, MANIFEST + b" ")]
    pinned = reference(server, f"demo/tiny:1@{DIGEST}")
    with client(server.host) as it:
        assert it.get_manifest(pinned).data == MANIFEST
        with pytest.raises(DigestMismatch, match=str(DIGEST)):
            it.get_manifest(pinned)
        with pytest.raises(DigestMismatch):
            it.get_manifest(reference(server), DIGEST)


def test_a_sha512_digest_is_checked_too(server: Scripted) -> None:
    digest = Digest("sha512:" + hashlib.sha512(MANIFEST).hexdigest())
    server.routes[f"/v2/demo/tiny/manifests/{digest}"] = Reply(200, MANIFEST)
    with client(server.host) as it:
        assert it.get_manifest(reference(server), digest).data == MANIFEST


def test_blobs_stream_as_they_are_on_the_wire(server: Scripted) -> None:
    server.routes[blob_path()] = Reply(200, BLOB, [("Content-Encoding", "gzip")])
    assert get_blob(server) == BLOB
    assert server.asked[0].headers["Accept-Encoding"] == "identity"


def test_a_chunked_blob(server: Scripted) -> None:
    body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BLOB), BLOB)
    server.routes[blob_path()] = Reply(200, body, [("Transfer-Encoding", "chunked")])
    assert get_blob(server) == BLOB


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(200, BLOB[:-1], length=len(BLOB)), id="hangs-up"),
        pytest.param(Reply(200, BLOB[:-1]), id="short-length"),
        pytest.param(
            Reply(200, b"%x\r\n%s" % (len(BLOB), BLOB[:-1]), [("Transfer-Encoding", "chunked"), ("Connection", "close")]), id="chunk"
        ),
        pytest.param(
            Reply(200, b"%x\r\n%s\r\n0\r\n\r\n" % (len(BLOB) - 1, BLOB[:-1]), [("Transfer-Encoding", "chunked")]), id="short-chunks"
        ),
        pytest.param(Reply(raw=b"HTTP/1.0 200 OK\r\n\r\n" + BLOB[:-1]), id="http-1.0"),
        pytest.param(Reply(200, b""), id="empty"),
    ],
)
def test_a_blob_that_ends_early(server: Scripted, reply: Reply) -> None:
    server.routes[blob_path()] = reply
    with pytest.raises(TransferError, match=r"127\.0\.0\.1"):
        get_blob(server)


def test_a_blob_that_falls_silent(server: Scripted) -> None:
    server.routes[blob_path()] = Reply(200, BLOB[:-5], length=len(BLOB), silence=0.8)
    with pytest.raises(TransferError, match="fell silent"):
        get_blob(server)


def test_a_blob_that_is_too_long(server: Scripted) -> None:
    server.routes[blob_path()] = Reply(200, BLOB + b"x")
    with pytest.raises(DigestMismatch, match="more than"):
        get_blob(server)


def test_small_documents_are_tried_again_and_verified(server: Scripted) -> None:
    data = b'{"a":1}'
    server.routes[blob_path(data)] = [Reply(200, data[:3], length=7), Reply(200, data)]
    server.routes[TAG] = [Reply(200, MANIFEST[:3], length=len(MANIFEST)), Reply(200, MANIFEST)]
    with client(server.host) as it:
        assert it.get_document(reference(server), blob(data)) == data
        assert it.get_manifest(reference(server)).data == MANIFEST
    server.routes[blob_path(data)] = Reply(200, b'{"a":2}')
    with client(server.host) as it, pytest.raises(DigestMismatch):
        it.get_document(reference(server), blob(data))
    server.routes[blob_path(data)] = Reply(200, data[:3], length=7)
    with client(server.host) as it, pytest.raises(TransferError):
        it.get_document(reference(server), blob(data))


def test_documents_have_a_limit(server: Scripted) -> None:
    server.routes[TAG] = Reply(200, b"{" + b" " * MAX_DOCUMENT)
    with pytest.raises(RegistryError, match=f"more than {MAX_DOCUMENT} bytes"):
        get(server)
    with client(server.host) as it, pytest.raises(DocumentError, match="over the limit"):
        it.get_document(reference(server), blob(bytes(MAX_DOCUMENT + 1)))


@pytest.mark.parametrize(
    ("coding", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstandard.compress), ("br", bytes), ("GZIP, identity", gzip.compress)],
)
def test_documents_that_a_server_compresses(server: Scripted, coding: str, pack: Any) -> None:
    coded = [("Content-Encoding", coding)]
    config = b'{"a":1}'
    server.routes |= {TAG: Reply(200, pack(MANIFEST), coded), blob_path(config): Reply(200, pack(config), coded)}
    server.routes[f"/v2/demo/tiny/manifests/{DIGEST}"] = Reply(200, pack(MANIFEST), coded)
    with client(server.host) as it:
        assert it.get_manifest(reference(server)).data == MANIFEST
        assert it.get_manifest(reference(server), DIGEST).data == MANIFEST
        assert it.get_document(reference(server), blob(config)) == config


def test_all_that_is_read_of_a_server_that_compresses(server: Scripted) -> None:
    coded = [("Content-Encoding", "gzip")]

    def reply(asked: Asked) -> Reply:
        if asked.authorization == "Bearer t":
            return Reply(404, gzip.compress(json_errors("MANIFEST_UNKNOWN", "gone")), coded)
        return Reply(401, gzip.compress(b"{}"), [*coded, *bearer(f"{server.url}/token").items()])

    server.routes |= {TAG: reply, "/token": Reply(200, gzip.compress(b'{"token":"t"}'), coded)}
    with pytest.raises(RegistryError, match=r"has no image demo/tiny:1 .*MANIFEST_UNKNOWN: gone"):
        get(server)


@pytest.mark.parametrize(
    ("body", "coding", "words"),
    [
        (b"\x0b\x03", "br", "sends demo/tiny:1 in the content coding 'br', which was not asked for; the registry or a proxy is broken"),
        (b"\x1f\x8bx", "gzip", "sends demo/tiny:1 as (damaged gzip data|gzip data that ends too early); the registry or a proxy"),
        (gzip.compress(b" " * (MAX_DOCUMENT + 1)), "gzip", f"sends more than {MAX_DOCUMENT} bytes for demo/tiny:1"),
    ],
)
def test_documents_in_a_coding_that_can_not_be_undone(server: Scripted, body: bytes, coding: str, words: str) -> None:
    server.routes[TAG] = Reply(200, body, [("Content-Encoding", coding)])
    with pytest.raises(RegistryError, match=words):
        get(server)
    assert len(server.asked) == 1


# --- login ---------------------------------------------------------------------------------------


def test_anonymous_login(server: Scripted) -> None:
    server.routes |= {TAG: protected(Reply(200, MANIFEST), "t"), blob_path(): protected(Reply(200, BLOB), "t"), "/token": token("t")}
    with client(server.host) as it:
        assert it.get_manifest(reference(server)).data == MANIFEST
        assert b"".join(it.get_blob(reference(server), blob())) == BLOB
    assert server.paths() == [TAG, "/token?scope=repository%3Ademo%2Ftiny%3Apull", TAG, blob_path()]
    assert server.asked[1].authorization is None


def test_login_with_a_token_over_one_connection(server: Scripted) -> None:
    server.routes |= {TAG: protected(Reply(200, MANIFEST), "t"), "/token": token("t")}
    assert get(server, token=TOKEN) == MANIFEST
    first, login, second = server.asked
    assert (first.authorization, second.authorization) == (None, "Bearer t")
    assert (login.authorization or "").startswith("Basic ")


def test_a_token_that_expires_in_between_is_renewed_at_the_first_realm(server: Scripted) -> None:
    elsewhere = Reply(401, b"", [("WWW-Authenticate", 'Bearer realm="http://127.0.0.1:9/token",service="registry",error="invalid_token"')])
    server.routes |= {TAG: protected(Reply(200, MANIFEST), "t1"), "/token": [token("t1"), token("t2")]}
    server.routes[blob_path()] = lambda asked: Reply(200, BLOB) if asked.authorization == "Bearer t2" else elsewhere
    with client(server.host) as it:
        it.get_manifest(reference(server))
        assert b"".join(it.get_blob(reference(server), blob())) == BLOB
    assert server.paths().count("/token?scope=repository%3Ademo%2Ftiny%3Apull") == 2


def test_basic_login(server: Scripted) -> None:
    challenge = Reply(401, b"", [("WWW-Authenticate", 'Basic realm="r"')])
    server.routes[TAG] = lambda asked: Reply(200, MANIFEST) if (asked.authorization or "").startswith("Basic ") else challenge
    assert get(server, token=TOKEN) == MANIFEST


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("secret", [None, TOKEN])
def test_a_refusal_never_shows_a_credential(server: Scripted, status: int, secret: str | None) -> None:
    def refuse(asked: Asked) -> Reply:
        header = asked.authorization
        if header is None:
            return Reply(401, b"", list(bearer(f"{server.url}/token").items()))
        return Reply(status, json_errors("DENIED", f"no entry for {header} {secret}"), list(bearer(f"{server.url}/token").items()))

    server.routes |= {TAG: refuse, "/token": token("t0ken")}
    with pytest.raises(AuthenticationError) as caught:
        get(server, token=secret)
    said = str(caught.value)
    assert "\n" not in said
    assert "t0ken" not in said
    assert TOKEN not in said
    assert server.host in said
    assert "SREGISTRY_NVIDIA_TOKEN" in said
    assert ("You must have an Nvidia GPU cloud token to use it." in said) == (secret is None)


def test_netrc_is_not_consulted(server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server.routes[TAG] = Reply(302, b"", [("Location", "/x")])
    server.routes["/x"] = Reply(200, MANIFEST)
    get(server)
    assert [asked.authorization for asked in server.asked] == [None, None]


# --- redirects -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_another_host_gets_no_authorization(server: Scripted, status: int) -> None:
    with Scripted({"/data": Reply(200, BLOB)}) as storage:
        server.routes |= {"/token": token("t")}
        server.routes[blob_path()] = protected(Reply(status, b"see there", [("Location", f"{storage.url}/data?sig=s%2F1")]), "t")
        assert get_blob(server, token=TOKEN) == BLOB
        assert [(asked.path, asked.authorization) for asked in storage.asked] == [("/data?sig=s%2F1", None)]


def test_the_same_host_keeps_it_and_relative_addresses_work(server: Scripted) -> None:
    server.routes |= {"/token": token("t"), "/there": Reply(200, MANIFEST)}
    server.routes[TAG] = protected(Reply(307, b"", [("Location", "../../../../there")]), "t")
    assert get(server) == MANIFEST
    assert server.asked[-1].authorization == "Bearer t"


def test_an_address_that_only_looks_like_the_registry_s_is_none(server: Scripted) -> None:
    with Scripted() as other:
        server.routes[TAG] = protected(Reply(307, b"", [("Location", f"{other.url}\\@{server.host}/x")]), "t")
        server.routes["/token"] = token("t")
        with pytest.raises(RegistryError, match="redirects to something that is no web address; this is refused"):
            get(server)
        assert other.asked == []


def test_a_challenge_of_a_storage_service_is_not_answered(server: Scripted) -> None:
    with Scripted({"/data": Reply(401, b"", list(bearer(f"{server.url}/token").items()))}) as storage:
        server.routes |= {blob_path(): Reply(307, b"", [("Location", f"{storage.url}/data?secret=1")]), "/token": token("t")}
        with pytest.raises(RegistryError, match="keeps its data") as caught:
            get_blob(server, token=TOKEN)
        assert not isinstance(caught.value, AuthenticationError)
        assert "secret" not in str(caught.value)
        assert len(storage.asked) == 1
    assert not any(path.startswith("/token") for path in server.paths())


@pytest.mark.parametrize(
    ("location", "message"),
    [
        (TAG, "redirects more often than the limit REDIRECTS of 10"),
        ("ftp://host/x", "no web address"),
        ("file:///etc/passwd", "no web address"),
        ("http://[::1", "no web address"),
        ("http://user:pa55@127.0.0.1:1/", r"can't reach 127\.0\.0\.1:1: connection refused"),
    ],
)
def test_bad_redirects(server: Scripted, location: str, message: str) -> None:
    server.routes[TAG] = Reply(302, b"", [("Location", location)])
    with pytest.raises(RegistryError, match=message) as caught:
        get(server)
    assert "pa55" not in str(caught.value)


def test_a_redirect_without_an_address_is_an_error(server: Scripted) -> None:
    server.routes[TAG] = Reply(302)
    with pytest.raises(RegistryError, match="302 Found"):
        get(server)


# --- retries -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_passing_trouble_is_waited_for(server: Scripted, status: int) -> None:
    server.routes[TAG] = [Reply(status, b"busy"), Reply(status, b"busy"), Reply(200, MANIFEST)]
    assert get(server) == MANIFEST
    assert len(server.asked) == 3


@pytest.mark.parametrize(("status", "message"), [(429, "limits the rate"), (503, "has trouble"), (500, "has trouble")])
def test_lasting_trouble_is_reported(server: Scripted, status: int, message: str) -> None:
    server.routes[TAG] = Reply(status, json_errors("TOOMANYREQUESTS", "slow down"))
    with pytest.raises(RegistryError, match=f"{message}.*{status}"):
        get(server)
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [404, 410, 501])
def test_other_answers_are_not_repeated(server: Scripted, status: int) -> None:
    server.routes[TAG] = Reply(status, b"<html>")
    with pytest.raises(RegistryError, match=f"{status} .*check"):
        get(server)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("given", "least"), [("1", 0.15), (formatdate(time.time() + 3600, usegmt=True), 0.15), ("soon", 0.0), ("9" * 5000, 0.0), ("-1", 0.0)]
)
def test_retry_after_is_honoured_up_to_a_limit(server: Scripted, given: str, least: float) -> None:
    server.routes[TAG] = [Reply(429, b"", [("Retry-After", given)]), Reply(200, MANIFEST)]
    patience = Patience(connect=2, read=2, retries=2, backoff=0, longest=0.2)
    start = time.monotonic()
    with RegistryClient(settings(server.host), patience=patience) as it:
        assert it.get_manifest(reference(server)).data == MANIFEST
    assert least <= time.monotonic() - start < 2


def test_a_reset_before_the_answer_is_tried_again(server: Scripted) -> None:
    server.routes[TAG] = [Reply(raw=b""), Reply(200, MANIFEST)]
    assert get(server) == MANIFEST


def test_a_session_can_be_passed_in_and_stays_open(server: Scripted) -> None:
    server.routes[TAG] = Reply(200, MANIFEST)
    with new_session(HASTY) as session:
        for _ in range(2):
            with RegistryClient(settings(server.host), session, HASTY) as it:
                it.get_manifest(reference(server))
    assert len(server.asked) == 2


# --- errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["NAME_UNKNOWN", "MANIFEST_UNKNOWN"])
def test_an_unknown_image(server: Scripted, code: str) -> None:
    server.routes[TAG] = Reply(404, json_errors(code, "not\\nhere \\u001b[31m"))
    with pytest.raises(RegistryError, match=r"has no image demo/tiny:1 \(404 Not Found: .*check the name and the tag") as caught:
        get(server)
    assert str(caught.value).isprintable()


def test_an_unknown_blob(server: Scripted) -> None:
    server.routes[blob_path()] = Reply(404, json_errors("BLOB_UNKNOWN"))
    with pytest.raises(RegistryError, match="the image is incomplete"):
        get_blob(server)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        pytest.param(Reply(200, b"<html>login</html>", [("Content-Type", "text/html")]), "answers text/html in place of", id="portal"),
        pytest.param(Reply(200, b""), "in place of the manifest", id="empty"),
        pytest.param(Reply(404, b"<html>"), "check the name, and that this host is a registry", id="web-server"),
        pytest.param(Reply(raw=b"SSH-2.0-OpenSSH_9.2\r\n"), "speaks no HTTP", id="ssh"),
        pytest.param(Reply(raw=b""), "closed the connection", id="hangs-up"),
        pytest.param(Reply(404, b'{"errors": 5}'), "404", id="odd-errors"),
        pytest.param(Reply(404, b'{"errors": [5, {"code": 5, "message": {}}]}'), "404", id="odder-errors"),
        pytest.param(Reply(404, b"x" * 100, length=1000), "404", id="broken-error"),
        pytest.param(Reply(599, b"\xff" * 100_000), "599", id="long-error"),
        pytest.param(Reply(200, MANIFEST, delay=0.8), r"no answer in 0\.5 s", id="silent"),
    ],
)
def test_answers_of_no_registry(server: Scripted, reply: Reply, message: str) -> None:
    server.routes[TAG] = reply
    with pytest.raises(RegistryError, match=message) as caught:
        get(server)
    assert server.host in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("127.0.0.1:1", "connection refused"),
        ("no-such-host.invalid", "this name is not known"),
        ("127.0.0.1:99999", "this is no valid address"),
    ],
)
def test_unreachable_hosts(host: str, message: str) -> None:
    with client(host) as it, pytest.raises(RegistryError, match=f"can't reach {host}: {message}"):
        it.get_manifest(Reference.parse("demo/tiny:1", registry=host, collection=""))


def test_https_to_plain_http_names_the_switch(server: Scripted) -> None:
    with client(server.host, https=True) as it, pytest.raises(RegistryError, match=r"speaks no TLS; .*SREGISTRY_NVIDIA_NOHTTPS=yes"):
        it.get_manifest(reference(server))


def test_plain_http_to_https_names_the_switch(server: Scripted) -> None:
    server.routes[TAG] = Reply(400, b"Client sent an HTTP request to an HTTPS server.")
    with pytest.raises(RegistryError, match=r"over plain http \(400 Bad Request\); if it wants https, unset SREGISTRY_NVIDIA_NOHTTPS"):
        get(server)


def test_a_dead_proxy_is_named_without_its_password(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("http_proxy", "http://me:pa55@127.0.0.1:1")
    name = Reference.parse("demo/tiny:1", registry="registry.example", collection="")
    with client("registry.example") as it, pytest.raises(RegistryError, match="the proxy does not answer") as caught:
        it.get_manifest(name)
    assert "pa55" not in str(caught.value)
    server.routes[TAG] = Reply(200, MANIFEST)
    assert get(server) == MANIFEST  # this machine is reached without it


def test_http_is_for_the_own_registry_and_this_machine_only() -> None:
    it = client("registry.example:5000")
    for host, scheme in (
        ("registry.example:5000", "http"),
        ("localhost:1", "http"),
        ("[::1]:5", "http"),
        ("127.0.0.1", "http"),
        ("ghcr.io", "https"),
        ("127.evil.example", "https"),
    ):
        name = Reference.parse("a/b:1", registry=host, collection="")
        assert it.manifest_url(name) == f"{scheme}://{host}/v2/a/b/manifests/1"
    it.close()
    it = client("127.0.0.1:5", https=True)
    assert it.manifest_url(Reference.parse("a/b", registry="127.0.0.1:5", collection="")).startswith("https://")
    it.close()


# --- foreign layers ------------------------------------------------------------------------------


def test_foreign_layers_come_without_credentials(server: Scripted) -> None:
    with Scripted({"/layer": Reply(200, BLOB)}) as other:
        foreign = blob(BLOB, "ftp://no", "not a url", f"{other.url}/gone", f"{other.url}/layer")
        with client(server.host, token=TOKEN) as it:
            assert b"".join(it.get_foreign(foreign).chunks) == BLOB
            with pytest.raises(RegistryError, match="404"):
                it.get_foreign(blob(BLOB, f"{other.url}/gone"))
            with pytest.raises(RegistryError, match="no usable address"):
                it.get_foreign(blob(BLOB, "nowhere"))
        assert {asked.authorization for asked in other.asked} == {None}
