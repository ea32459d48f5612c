"""Logins at a real registry by the whole pipeline: passwords over TLS, tokens that end in the middle of a pull.

```
snakemake ──TLS──▶ docker-registry (htpasswd)
snakemake ──▶ slow proxy ──▶ docker-registry (token) ─ trusts ─ a token server that signs with the same key
```
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from sregistry.client import Client
from sregistry.config.settings import Settings
from sregistry.errors import AuthenticationError
from tests.real.conftest import Pipeline, docker_registry, tool
from tests.support import images
from tests.support.scripted import Asked, Reply, Scripted

pytestmark = [
    pytest.mark.needs("amd64", "docker-registry", "openssl"),
    pytest.mark.slow("real tools", once=True),
]

USERNAME, SECRET = "$oauthtoken", "s3cret-of-a-registry"
#: SECRET by bcrypt, the only hash that the registry takes; cost 4, because it is no secret.
HASH = "$2b$04$p9TByuMKgJjIZTcAWKqhyuYwV/8FIaAvm8.gxEHbK4Lzjf1N9tnc6"
BASIC = base64.b64encode(f"{USERNAME}:{SECRET}".encode()).decode()
PUBLIC = ("demo/tiny:1", "demo/multi:list")
#: Seconds beyond its end for which docker-registry accepts a token (its constant `Leeway`).
LEEWAY = 60


@dataclass(frozen=True)
class Identity:
    """A key, and a certificate for 127.0.0.1 that is its own authority."""

    key: Path
    certificate: Path

    def token(self, claims: dict[str, object]) -> str:
        """Return a JSON Web Token (RFC 7515), signed RS256, with the certificate in it."""
        der = subprocess.run(["openssl", "x509", "-in", self.certificate, "-outform", "DER"], capture_output=True, check=True).stdout
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        text = ".".join(_url64(json.dumps(part).encode()) for part in (header, claims))
        sign = ["openssl", "dgst", "-sha256", "-sign", str(self.key)]
        signature = subprocess.run(sign, input=text.encode(), capture_output=True, check=True).stdout
        return f"{text}.{_url64(signature)}"


def _url64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    folder = tmp_path_factory.mktemp("identity")
    made = Identity(folder / "key.pem", folder / "certificate.pem")
    what = ["-subj", "/CN=sregistry tests", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    tool("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *what, "-keyout", made.key, "-out", made.certificate)
    return made


@pytest.fixture(scope="module")
def data(layout: images.Layout, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of docker-registry that holds images, pushed while it was open."""
    folder = tmp_path_factory.mktemp("data")
    with docker_registry(folder) as address:
        images.push(layout, f"http://{address}", PUBLIC)
    return folder


def assert_no_secret(folder: Path, result: subprocess.CompletedProcess[str], *secrets: str) -> None:
    """Look into every file of a working directory, Snakemake's records among them, and all that was printed."""
    assert (folder / ".snakemake").is_dir()
    for secret in (SECRET, BASIC, *secrets):
        assert secret not in result.stdout + result.stderr
        for path in folder.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path


def one_error(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 1 and "Traceback" not in result.stderr, result.stderr
    lines = {line.strip() for line in (result.stderr + result.stdout).splitlines() if line.strip().startswith("error: ")}
    assert len(lines) == 1, result.stderr
    return lines.pop()


LOUD = ["--printshellcmds", "--verbose"]


# -- passwords over TLS ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(data: Path, identity: Identity, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a registry that wants TLS and a password."""
    folder = tmp_path_factory.mktemp("locked")
    shutil.copytree(data / "data", folder / "data")
    (folder / "htpasswd").write_text(f"{USERNAME}:{HASH}\nme:{HASH}\n")
    tls = f"tls: {{certificate: {identity.certificate}, key: {identity.key}}}"
    with docker_registry(folder, http=tls, more=f"auth: {{htpasswd: {{realm: tests, path: {folder / 'htpasswd'}}}}}\n") as address:
        yield address


def stored(kind: str, folder: Path, host: str) -> dict[str, str]:
    """Keep the password where users keep it, outside the working directory; return the environment that leads there."""
    folder.mkdir()
    entry = {"auth": base64.b64encode(f"me:{SECRET}".encode()).decode()}
    if kind == "token":
        return {"SREGISTRY_NVIDIA_BASE": host, "SREGISTRY_NVIDIA_TOKEN": SECRET}
    if kind == "pair":
        return {"APPTAINER_DOCKER_USERNAME": "me", "APPTAINER_DOCKER_PASSWORD": SECRET}
    if kind == "netrc":
        (folder / "netrc").write_text(f"machine 127.0.0.1 login me password {SECRET}\n")
        return {"NETRC": str(folder / "netrc")}
    program = folder / "docker-credential-tests"
    program.write_text(f'#!/bin/sh\n[ "$1 $(cat)" = "get {host}" ] && echo \'{{"Username":"me","Secret":"{SECRET}"}}\'\n')
    program.chmod(0o755)
    (folder / "config.json").write_text(json.dumps({"auths": {host: entry}} if kind == "file" else {"credHelpers": {host: "tests"}}))
    return {"DOCKER_CONFIG": str(folder), "PATH": f"{folder}:/usr/local/bin:/usr/bin:/bin"}


@pytest.mark.parametrize("kind", ["token", "pair", "file", "helper", "netrc"])
def test_a_password_opens_a_registry_with_tls(locked: str, identity: Identity, tmp_path: Path, kind: str) -> None:
    more = {"SREGISTRY_NVIDIA_NOHTTPS": "no", "REQUESTS_CA_BUNDLE": str(identity.certificate)}
    pipeline = Pipeline(tmp_path / "work", "nvcr.io", {**more, **stored(kind, tmp_path / "kept", locked)})
    result = pipeline.run(f"uri={locked}/demo/tiny:1", options=LOUD)
    assert result.returncode == 0, result.stderr
    assert pipeline.image("demo/tiny:1").is_file()
    assert_no_secret(pipeline.folder, result, base64.b64encode(f"me:{SECRET}".encode()).decode())


def test_what_is_said_without_a_password_with_a_wrong_one_and_without_the_authority(
    locked: str, identity: Identity, tmp_path: Path
) -> None:
    trust = {"SREGISTRY_NVIDIA_NOHTTPS": "no", "REQUESTS_CA_BUNDLE": str(identity.certificate)}
    said = one_error(Pipeline(tmp_path / "none", locked, trust).run("uri=demo/tiny:1"))
    assert "You must have an Nvidia GPU cloud token to use it." in said and "export SREGISTRY_NVIDIA_TOKEN=" in said
    wrong = Pipeline(tmp_path / "wrong", locked, {**trust, "SREGISTRY_NVIDIA_TOKEN": f"{SECRET}-not"}).run("uri=demo/tiny:1")
    assert "SREGISTRY_NVIDIA_TOKEN" in one_error(wrong) and SECRET not in one_error(wrong)
    said = one_error(Pipeline(tmp_path / "strange", locked, {"SREGISTRY_NVIDIA_NOHTTPS": "no"}).run("uri=demo/tiny:1"))
    assert "certificate" in said and "REQUESTS_CA_BUNDLE" in said


def test_certificates_are_not_checked_if_so_asked_and_it_says_so(locked: str, tmp_path: Path) -> None:
    more = {"SREGISTRY_NVIDIA_NOHTTPS": "no", "SREGISTRY_NVIDIA_TOKEN": SECRET, "SREGISTRY_HTTPS_NOVERIFY": "yes"}
    # A bundle that knows another authority must not matter.
    pipeline = Pipeline(tmp_path / "work", locked, {**more, "REQUESTS_CA_BUNDLE": "/etc/ssl/certs/ca-certificates.crt"})
    result = pipeline.run("uri=demo/tiny:1")
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("warning: SREGISTRY_HTTPS_NOVERIFY: certificates are not checked") == 1
    assert pipeline.image("demo/tiny:1").is_file()


# -- tokens ------------------------------------------------------------------------------------------------


@dataclass
class TokenServer:
    """A realm: gives tokens to who knows the secret, and for public images to everybody."""

    identity: Identity
    #: Seconds that a token really opens the registry.
    lifetime: float = 300
    public: bool = False
    given: list[str] = field(default_factory=list)

    def __call__(self, asked: Asked) -> Reply:
        form = parse_qs(asked.body.decode())
        query = form or parse_qs(urlsplit(asked.path).query)
        known = asked.authorization == f"Basic {BASIC}" or form.get("refresh_token") == [SECRET]
        if not known and (asked.authorization or form or not self.public):
            return Reply(401, b"{}")
        now = time.time()
        access = []
        for scope in " ".join(query.get("scope", [])).split():
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": sorted({"pull", "*"} & set(actions.split(",")))})
        end = int(now + self.lifetime - LEEWAY)
        claims = {"iss": "tests", "sub": "me", "aud": query["service"][0], "exp": end, "nbf": end - 900, "iat": end - 900}
        self.given.append(self.identity.token({**claims, "jti": str(len(self.given)), "access": access}))
        key = "access_token" if form else "token"
        return Reply(200, json.dumps({key: self.given[-1]}).encode(), [("Content-Type", "application/json")])


@dataclass
class SlowProxy:
    """Passes on bytes, and lets each answer wait; counts what went by."""

    delay: float
    target: tuple[str, int]
    expired: int = 0

    def __enter__(self) -> SlowProxy:
        self._sockets = [socket.create_server(("127.0.0.1", 0))]
        self._threads: list[threading.Thread] = []
        self.host = f"127.0.0.1:{self._sockets[0].getsockname()[1]}"
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for item in self._sockets:
            with contextlib.suppress(OSError):
                item.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for item in self._sockets:
            item.close()

    def _start(self, function: Callable[..., None], *arguments: object) -> None:
        self._threads.append(threading.Thread(target=function, args=arguments))
        self._threads[-1].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, far, waiting = self._sockets[0].accept()[0], socket.create_connection(self.target), threading.Event()
                self._sockets += [near, far]
                self._start(self._pass, near, far, False, waiting)
                self._start(self._pass, far, near, True, waiting)

    def _pass(self, source: socket.socket, sink: socket.socket, back: bool, waiting: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if not back:
                    waiting.set()
                elif waiting.is_set():
                    waiting.clear()
                    self.expired += b'error="invalid_token"' in data
                    time.sleep(self.delay)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@dataclass(frozen=True)
class Guarded:
    """A registry that trusts a token server."""

    host: str
    tokens: TokenServer

    def pipeline(self, folder: Path, **more: str) -> Pipeline:
        return Pipeline(folder, self.host, more)


@pytest.fixture
def guarded(data: Path, identity: Identity, tmp_path: Path) -> Iterator[Guarded]:
    folder, tokens = tmp_path / "guarded", TokenServer(identity)
    shutil.copytree(data / "data", folder / "data")
    with Scripted({"/token": tokens}) as realm:
        words = f"realm: '{realm.url}/token', service: tests, issuer: tests, rootcertbundle: {identity.certificate}"
        with docker_registry(folder, more=f"auth: {{token: {{{words}}}}}\n") as host:
            yield Guarded(host, tokens)


def test_a_token_server_gives_tokens_to_who_knows_the_secret(guarded: Guarded, tmp_path: Path) -> None:
    pipeline = guarded.pipeline(tmp_path / "work", SREGISTRY_NVIDIA_TOKEN=SECRET)
    result = pipeline.run("uri=[demo/tiny:1,demo/multi:list]", options=LOUD)
    assert result.returncode == 0, result.stderr
    assert_no_secret(pipeline.folder, result, *guarded.tokens.given)
    said = one_error(guarded.pipeline(tmp_path / "none").run("uri=demo/tiny:1"))
    assert "You must have an Nvidia GPU cloud token to use it." in said


def test_tags_and_repositories_want_scopes_of_their_own(guarded: Guarded) -> None:
    environ = {"SREGISTRY_NVIDIA_BASE": guarded.host, "SREGISTRY_NVIDIA_NOHTTPS": "yes"}
    with_token = {**environ, "SREGISTRY_NVIDIA_TOKEN": SECRET}
    client = Client(Settings.load(environ=with_token), with_token)
    assert client.search("demo/tiny") == ["demo/tiny:1"]
    assert client.search("demo/*") == ["demo/multi", "demo/tiny"]
    assert client.search("tin") == ["demo/tiny"]
    anonymous = Client(Settings.load(environ=environ), environ)
    for query in ("demo/tiny", "demo/*"):
        with pytest.raises(AuthenticationError, match="You must have an Nvidia GPU cloud token to use it"):
            anonymous.search(query)
    guarded.tokens.public = True
    assert anonymous.search("demo/tiny:*") == ["demo/tiny:1"]


def test_an_identity_token(guarded: Guarded, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/config.json").write_text(json.dumps({"auths": {guarded.host: {"identitytoken": SECRET}}}))
    pipeline = guarded.pipeline(tmp_path / "work", DOCKER_CONFIG=str(tmp_path / "kept"))
    result = pipeline.run("uri=demo/tiny:1", options=LOUD)
    assert result.returncode == 0, result.stderr
    assert_no_secret(pipeline.folder, result, *guarded.tokens.given)


def test_a_public_image_needs_no_login_but_wrong_credentials_are_said(guarded: Guarded, tmp_path: Path) -> None:
    guarded.tokens.public = True
    assert guarded.pipeline(tmp_path / "public").run("uri=demo/tiny:1").returncode == 0
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login {USERNAME} password wr0ng\n")
    said = one_error(guarded.pipeline(tmp_path / "wrong", NETRC=str(tmp_path / "netrc")).run("uri=demo/tiny:1"))
    assert f"with the credentials of {tmp_path}/netrc" in said and "wr0ng" not in said


def test_a_pull_outlives_its_token(guarded: Guarded, tmp_path: Path) -> None:
    """The index, its manifest and the config are asked for one after the other, each answer later than the one before."""
    guarded.tokens.lifetime = 6
    host, _, port = guarded.host.partition(":")
    with SlowProxy(3.2, (host, int(port))) as proxy:
        pipeline = Pipeline(tmp_path / "work", proxy.host, {"SREGISTRY_NVIDIA_TOKEN": SECRET})
        result = pipeline.run("uri=demo/multi:list", options=LOUD)
        assert result.returncode == 0, result.stderr
        assert proxy.expired >= 1
    assert pipeline.image("demo/multi:list").is_file()
    assert_no_secret(pipeline.folder, result, *guarded.tokens.given)


def test_login_check(guarded: Guarded, tmp_path: Path) -> None:
    def check(*arguments: str, **more: str) -> tuple[int, dict[str, Any], str]:
        pipeline = guarded.pipeline(tmp_path, **more)
        done = subprocess.run(
            [sys.executable, "-m", "sregistry.cli", "login-check", "--json", *arguments],
            env=pipeline.environment(),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert SECRET not in done.stdout + done.stderr
        return done.returncode, json.loads(done.stdout), done.stderr

    code, found, _ = check("demo/tiny:1", SREGISTRY_NVIDIA_TOKEN=SECRET)
    assert (code, found["accepted"], found["credentials"], found["challenge"]) == (0, True, "SREGISTRY_NVIDIA_TOKEN", "bearer")
    assert check("nvidia", SREGISTRY_NVIDIA_TOKEN=SECRET)[0] == 0
    code, found, said = check()
    assert (code, found["accepted"], found["credentials"]) == (1, False, None)
    assert re.fullmatch(r"error: You must have an Nvidia GPU cloud token to use it\..*\n", said)
