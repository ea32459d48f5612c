"""`sregistry login-check` against real servers on 127.0.0.1: what would be sent, by name, and what the registry says to it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from sregistry.errors import AuthenticationError, ConfigError, RegistryError, SregistryError
from sregistry.oci.reference import Reference
from sregistry.registry.login_check import Check, check
from tests.support.realm import SECRET, environment, guard, realm
from tests.support.scripted import HASTY, Reply, Scripted, client

TAGS = Reply(200, b'{"name": "a/b", "tags": ["1"]}')


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as script:
        yield script


def run(text: str, environ: dict[str, str]) -> Check:
    return check(text, "nvidia", environ, HASTY)


def test_an_open_registry(server: Scripted) -> None:
    server.routes["/v2/"] = Reply(200, b"{}")
    found = run("nvidia", environment(server, HOME="/none", DOCKER_CONFIG="/proc/self/mem"))
    assert (found.error, found.login, found.credentials) == (None, None, None)
    assert found.lines() == [
        f"registry     {server.host} (client nvidia)",
        "repository   -",
        "credentials  anonymous",
        "asks for     no login",
        "accepted     yes",
    ]


def test_a_token_that_is_accepted(server: Scripted) -> None:
    guard(server, "/v2/", Reply(200, b"{}"))
    realm(server)
    found = run("nvidia", environment(server, SREGISTRY_NVIDIA_TOKEN=SECRET))
    assert found.json() == {
        "client": "nvidia",
        "registry": server.host,
        "https": False,
        "repository": None,
        "credentials": "SREGISTRY_NVIDIA_TOKEN",
        "kind": "user name and password",
        "challenge": "bearer",
        "realm": server.host,
        "accepted": True,
        "error": None,
    }
    assert server.paths() == ["/v2/", "/token?service=s", "/v2/"]


def test_a_repository_has_its_pull_scope_asked_for(server: Scripted) -> None:
    guard(server, "/v2/nvidia/cuda/tags/list", TAGS)
    realm(server, anonymous=True)
    found = run(f"{server.host}/nvidia/cuda:12", environment(server))
    assert (found.error, found.credentials, found.repository) == (None, None, "nvidia/cuda")
    assert parse_qs(server.paths()[1].partition("?")[2])["scope"] == ["repository:nvidia/cuda:pull"]
    assert run("cuda", environment(server)).repository == "nvidia/cuda"


@pytest.mark.parametrize("text", ["nvidia", "{host}", "nvidia/cuda", "nvidia://cuda:1", "{host}/a/b/c"])
def test_all_ways_to_name_a_registry(server: Scripted, text: str) -> None:
    for path in ("/v2/", "/v2/nvidia/cuda/tags/list", "/v2/a/b/c/tags/list"):
        server.routes[path] = TAGS
    found = run(text.format(host=server.host), environment(server))
    assert (found.settings.client, found.settings.base, found.error) == ("nvidia", server.host, None)


def test_a_host_of_no_client(server: Scripted) -> None:
    server.routes["/v2/"] = TAGS
    found = run(server.host, {"SREGISTRY_OCI_NOHTTPS": "yes"})
    assert (found.settings.client, found.settings.base, found.error) == ("oci", server.host, None)


@pytest.mark.parametrize("text", ["oci", "oras"])
def test_a_client_of_any_host_is_no_registry(text: str) -> None:
    with pytest.raises(ConfigError, match="is for any host"):
        run(text, {})


@pytest.mark.parametrize("text", ["UPPER/case", "gopher://x/y", "a b"])
def test_what_names_no_registry(text: str) -> None:
    with pytest.raises(SregistryError) as caught:
        run(text, {})
    assert caught.value.exit_code == 2


def test_credentials_that_are_refused(server: Scripted, tmp_path: Path) -> None:
    guard(server, "/v2/", Reply(200, b"{}"))
    realm(server, anonymous=True)
    (tmp_path / "config.json").write_text(json.dumps({"auths": {server.host: {"username": "me", "password": "wr0ng"}}}))
    found = run("nvidia", environment(server, DOCKER_CONFIG=str(tmp_path)))
    assert isinstance(found.error, AuthenticationError)
    said = json.dumps(found.json()) + "\n".join(found.lines())
    assert f"{tmp_path}/config.json (auths)" in said and "accepted     no" in said
    assert "wr0ng" not in said and base64.b64encode(b"me:wr0ng").decode() not in said


def test_nobody_home() -> None:
    found = run("127.0.0.1:9", {"SREGISTRY_OCI_NOHTTPS": "yes"})
    assert isinstance(found.error, RegistryError)
    assert found.json()["accepted"] is False and "can't reach 127.0.0.1:9" in str(found.error)


def test_no_registry(server: Scripted) -> None:
    assert "404" in str(run("nvidia", environment(server)).error)


# -- identity tokens over HTTP -----------------------------------------------------------------------------


def identity(server: Scripted, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "config.json").write_text(json.dumps({"auths": {server.host: {"identitytoken": SECRET}}}))
    return environment(server, DOCKER_CONFIG=str(tmp_path))


def test_an_identity_token_is_posted(server: Scripted, tmp_path: Path) -> None:
    guard(server, "/v2/a/b/tags/list", TAGS)
    server.routes["/token"] = Reply(200, b'{"access_token": "t"}')
    assert run("a/b", identity(server, tmp_path)).error is None
    posted = server.asked[1]
    assert posted.path == "/token" and posted.authorization is None
    assert posted.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert parse_qs(posted.body.decode()) == {
        "grant_type": ["refresh_token"],
        "client_id": ["sregistry"],
        "service": ["s"],
        "scope": ["repository:a/b:pull"],
        "refresh_token": [SECRET],
    }


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_an_identity_token_follows_no_redirect(server: Scripted, tmp_path: Path, status: int) -> None:
    guard(server, "/v2/a/b/tags/list", TAGS)
    with Scripted() as elsewhere:
        server.routes["/token"] = Reply(status, b"", [("Location", f"{elsewhere.url}/token")])
        error = run("a/b", identity(server, tmp_path)).error
        assert error is not None and f"gives no token ({status})" in str(error)
        assert elsewhere.asked == []


def test_a_netrc_password_logs_in_and_stays_with_the_host(server: Scripted, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login me password {SECRET}\n")
    with Scripted({"/data": Reply(200, b"{}")}) as storage:
        guard(server, "/v2/a/b/manifests/1", Reply(307, b"", [("Location", f"{storage.url}/data")]))
        realm(server, username="me")
        with client(server.host, client="quay", environ={"NETRC": str(tmp_path / "netrc")}) as it:
            assert it.get_manifest(Reference(registry=server.host, repository="a/b", tag="1")).data == b"{}"
        assert storage.asked[0].authorization is None
