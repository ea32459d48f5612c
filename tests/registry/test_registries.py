"""Rows of the working folder: whose word counts, and what no row can have sent to a host of its choice."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sregistry.config.ownership import read_own
from sregistry.config.registries import OWN, is_own, rows
from sregistry.config.secrets_file import overlay
from sregistry.config.settings import registry
from sregistry.errors import ConfigError, RegistryError
from sregistry.oci.reference import Reference
from sregistry.registry.client import RegistryClient
from sregistry.registry.credentials import Keyring, Password
from sregistry.system import logs
from tests.support.scripted import HASTY, Reply, Scripted, bearer

KEY = "nvapi-s3cret"


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The registries.yaml of a working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logs, "_warned", set())
    logs.set_up({})
    OWN.parent.mkdir()
    return OWN


@pytest.fixture
def evil() -> Iterator[Scripted]:
    """A registry that asks for a login in both ways."""
    with Scripted() as server:
        server.routes["/v2/a/b/manifests/1"] = Reply(401, b"", [*bearer(f"{server.url}/token").items(), ("WWW-Authenticate", "Basic")])
        server.routes["/token"] = Reply(401)
        yield server


def sent(server: Scripted, client: str, environ: dict[str, str]) -> list[str]:
    """Return all that a pull from *client* sends to a server which it could be recognised by."""
    settings = registry(client, environ, fallback=server.host)
    name = Reference.parse("a/b:1", registry=settings.base, collection="")
    with RegistryClient(settings, patience=HASTY, keyring=Keyring(settings, environ)) as it, pytest.raises(RegistryError):
        it.get_manifest(name)
    assert server.asked
    plain = [base64.b64decode((asked.authorization or "").partition(" ")[2] + "==").decode(errors="replace") for asked in server.asked]
    return [text for text in plain if text] + [asked.body.decode() for asked in server.asked if asked.body]


# -- whose word counts


@pytest.mark.parametrize("mode", [0o666, 0o664, 0o662, 0o646, 0o622, 0o620, 0o602])
def test_a_file_that_others_may_write_is_passed_over(own: Path, mode: int, capsys: pytest.CaptureFixture[str]) -> None:
    own.write_text("lab: {base: lab.example}\n")
    own.chmod(mode)
    for _ in range(2):
        assert "lab" not in rows() and not is_own("lab")
    assert capsys.readouterr().err == f"WARNING {OWN} may be written by others ({mode:o}; chmod go-w): it is passed over\n"
    own.chmod(0o644)
    assert "lab" in rows()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_user_s_file_is_passed_over(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own.write_text("nvidia: {base: evil.example}\n")
    os.chown(own, 12345, 12345)
    assert registry("nvidia", {}).base == "nvcr.io"
    assert capsys.readouterr().err == f"WARNING {OWN} is another user's: it is passed over\n"
    # behind a link as well, and behind a folder of ours
    own.rename("theirs")
    own.symlink_to(Path("theirs").absolute())
    assert registry("nvidia", {}).base == "nvcr.io"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("closed", ["file", "folder"])
def test_what_another_user_closed_is_passed_over(own: Path, closed: str) -> None:
    """By a process of its own: what root may read is closed to it."""
    own.write_text("lab: {base: lab.example}\n")
    (own if closed == "file" else own.parent).chmod(0o700)
    folder = Path.cwd()
    for part in (folder, *folder.parents):
        if part.stat().st_uid == 0 and part.name.startswith(("test_", "pytest-")):
            part.chmod(0o755)
    child = os.fork()
    if child == 0:
        try:
            os.setuid(12345)
            os._exit(0 if read_own(OWN) is None else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_is_no_file_holds_nobody_up(own: Path) -> None:
    os.mkfifo(own)
    with pytest.raises(ConfigError, match=f"{OWN} is no file"):
        rows()
    own.unlink()
    own.mkdir()
    with pytest.raises(ConfigError, match=f"{OWN}"):
        rows()


def test_the_package_s_own_file_is_no_folder_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    assert not any(row.own for row in rows().values())


# -- what no row can have sent


@pytest.mark.parametrize(
    ("client", "row"),
    [
        pytest.param("nvidia", "nvidia: {{base: '{host}'}}", id="same-name"),
        pytest.param("nvidia", "nvidia: {{base: '{host}', aliases: [nvcr.io]}}", id="with-its-alias"),
        pytest.param("evil", "evil: {{base: '{host}', token: SREGISTRY_NVIDIA_TOKEN}}", id="other-name"),
        pytest.param("quay", "quay: {{base: '{host}', token: SREGISTRY_NVIDIA_TOKEN}}", id="another-s"),
        pytest.param("evil", "evil: {{base: '{host}', token: GITHUB_TOKEN}}", id="any-variable"),
        pytest.param("evil", "evil: {{base: '{host}', token: AWS_SECRET_ACCESS_KEY, username: me}}", id="any-key"),
        pytest.param("evil", "evil: {{base: '{host}', token: SREGISTRY_DOCKERHUB_PASSWORD}}", id="hub-password"),
        pytest.param("docker", "docker: {{base: '{host}'}}", id="hub"),
        pytest.param("docker", "docker: {{base: '{host}', aliases: [docker.io, index.docker.io, registry-1.docker.io]}}", id="hub-alias"),
        pytest.param("evil", "evil: {{base: '{host}', aliases: [index.docker.io, ghcr.io, nvcr.io]}}", id="stored"),
        pytest.param("evil", "evil: {{base: '{host}', username: $oauthtoken}}", id="pair"),
        pytest.param("evil", "nvidia: {{base: nvcr.io}}\nevil: {{base: '{host}'}}", id="pair-without-owner"),
        pytest.param("oci", "oci: {{base: '{host}'}}", id="any-host"),
    ],
)
def test_nothing_kept_for_a_host_follows_a_row_to_another(own: Path, evil: Scripted, tmp_path: Path, client: str, row: str) -> None:
    own.write_text(row.format(host=evil.host).replace("}", ", https: no}"))
    docker = {"auths": {name: {"auth": base64.b64encode(f"me:{KEY}".encode()).decode()} for name in ("ghcr.io", "nvcr.io")}}
    docker["auths"]["https://index.docker.io/v1/"] = docker["auths"]["ghcr.io"]
    (tmp_path / "config.json").write_text(json.dumps(docker))
    (tmp_path / ".netrc").write_text(f"machine nvcr.io login me password {KEY}\nmachine docker.io login me password {KEY}\n")
    tokens = ("SREGISTRY_NVIDIA_TOKEN", "SREGISTRY_OCI_TOKEN", "SREGISTRY_DOCKER_TOKEN", "SREGISTRY_QUAY_TOKEN", "GITHUB_TOKEN")
    environ = {
        **dict.fromkeys(tokens, KEY),
        "AWS_SECRET_ACCESS_KEY": KEY,
        "SREGISTRY_DOCKERHUB_USERNAME": "me",
        "SREGISTRY_DOCKERHUB_PASSWORD": KEY,
        "DOCKER_USERNAME": "$oauthtoken",
        "DOCKER_PASSWORD": KEY,
        "DOCKER_CONFIG": str(tmp_path),
        "HOME": str(tmp_path),
    }
    assert KEY not in "".join(sent(evil, client, environ))


def test_what_is_not_sent_is_said_once_with_the_way_out(own: Path, evil: Scripted, capsys: pytest.CaptureFixture[str]) -> None:
    own.write_text(f"nvidia: {{base: '{evil.host}', https: no}}\nlab: {{base: '{evil.host}', token: LAB_KEY, https: no}}\n")
    sent(evil, "nvidia", {"SREGISTRY_NVIDIA_TOKEN": KEY})
    registry("nvidia", {"SREGISTRY_NVIDIA_TOKEN": KEY})
    line = f"SREGISTRY_NVIDIA_TOKEN is not sent to {evil.host}: only {OWN} says that it is for this host"
    assert capsys.readouterr().err == f"WARNING {line}; export SREGISTRY_NVIDIA_BASE={evil.host}\n"
    assert KEY in "".join(sent(evil, "nvidia", {"SREGISTRY_NVIDIA_TOKEN": KEY, "SREGISTRY_NVIDIA_BASE": evil.host}))
    evil.asked.clear()
    registry("lab", {"LAB_KEY": KEY})
    assert "name SREGISTRY_LAB_TOKEN there, or export SREGISTRY_TOKEN_VARIABLES=LAB_KEY" in capsys.readouterr().err
    assert KEY in "".join(sent(evil, "lab", {"LAB_KEY": KEY, "SREGISTRY_TOKEN_VARIABLES": "OTHER,LAB_KEY"}))
    settings = registry("lab", {"LAB_KEY": KEY})
    assert settings.withheld and settings.withheld in Keyring(settings, {}).problems


def test_a_row_has_its_own_token(own: Path, evil: Scripted) -> None:
    own.write_text(f"lab: {{base: '{evil.host}', https: no}}\n")
    assert f"token:{KEY}" in sent(evil, "lab", {"SREGISTRY_LAB_TOKEN": KEY})


def test_a_variable_that_is_kept_in_the_secrets_file_is_sent(own: Path, tmp_path: Path) -> None:
    own.write_text("lab: {base: lab.example, token: LAB_KEY}\n")
    file = tmp_path / "secrets"
    file.write_text(json.dumps({"lab": {"LAB_KEY": KEY}, "nvidia": {"SREGISTRY_NVIDIA_TOKEN": KEY}}))
    file.chmod(0o600)
    environ = {"SREGISTRY_CLIENT_SECRETS": str(file)}
    assert registry("lab", overlay(environ)).token == KEY
    assert registry("lab", overlay({**environ, "LAB_KEY": "of the environment"})).token is None
    own.write_text("nvidia: {base: evil.example}\n")
    assert registry("nvidia", overlay(environ)).token is None


def test_a_row_can_not_have_secrets_sent_in_the_clear(own: Path, tmp_path: Path) -> None:
    own.write_text("nvidia: {base: nvcr.io, https: no}\nlab: {base: lab.example, https: no}\n")
    (tmp_path / ".netrc").write_text(f"machine lab.example login me password {KEY}\n")
    for client, host in (("nvidia", "nvcr.io"), ("lab", "lab.example")):
        environ = {f"SREGISTRY_{client.upper()}_TOKEN": KEY, "HOME": str(tmp_path), "DOCKER_USERNAME": "me", "DOCKER_PASSWORD": KEY}
        ring = Keyring(registry(client, environ), environ)
        assert (ring.find(host), ring.known(host), ring.secrets()) == (None, None, [])
        assert any("plain http" in problem for problem in ring.problems)
        said = {**environ, f"SREGISTRY_{client.upper()}_NOHTTPS": "yes"}
        assert isinstance(Keyring(registry(client, said), said).find(host), Password)
