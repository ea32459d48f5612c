"""A token is sent to the registry and shows up nowhere else: in no file, no output and no list of processes.

It is the same whether it comes from the environment or from the secrets file, which is then the one file that has it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.images import Layout, layer
from tests.support.scripted import Asked, Reply, Scripted, bearer
from tests.support.snakemake import command, inherited, settings
from tests.support.tarball import directory, file

TOKEN = "nvapi-S3cretKeyThatNobodyMaySee0123456789"
BEARER = "t0ken-Th4tTheRealmGives"
BASIC = base64.b64encode(f"$oauthtoken:{TOKEN}".encode()).decode()
SECRETS = (TOKEN, BEARER, BASIC, BASIC[8:-4])
#: What is put before an environment that was seen.
ENVIRONMENT = b"environment: "


@contextmanager
def watched() -> Iterator[set[bytes]]:
    """Collect the command lines of all processes, time and again, and the environments of the stages."""
    seen: set[bytes] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            for name in os.listdir("/proc"):
                if name.isdigit():
                    with contextlib.suppress(OSError):
                        line = Path(f"/proc/{name}/cmdline").read_bytes()
                        seen.add(line)
                        if b"sregistry.stage" in line:
                            seen.add(ENVIRONMENT + Path(f"/proc/{name}/environ").read_bytes())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def serve(layout: Layout, server: Scripted, status: int) -> None:
    """Have all that is in the layout, for those who bring the token of the realm; errors, of *status* too, repeat what they were sent."""

    def guard(answer: Reply) -> object:
        def reply(asked: Asked) -> Reply:
            if asked.authorization == f"Bearer {BEARER}":
                return answer
            return Reply(401, f"no entry with {asked.authorization}".encode(), list(bearer(f"{server.url}/token", service="s").items()))

        return reply

    def realm(asked: Asked) -> Reply:
        given = asked.authorization == f"Basic {BASIC}"
        return Reply(200, f'{{"token":"{BEARER}"}}'.encode()) if given else Reply(403, f"not with {asked.authorization} {TOKEN}".encode())

    server.routes["/token"] = realm
    for path in (layout.root / "blobs/sha256").iterdir():
        for kind in ("manifests", "blobs"):
            server.routes[f"/v2/demo/guarded/{kind}/sha256:{path.name}"] = guard(Reply(200, path.read_bytes()))  # type: ignore[assignment]
    digest = layout.tags()["demo/guarded:1"]["digest"]
    server.routes["/v2/demo/guarded/manifests/1"] = server.routes[f"/v2/demo/guarded/manifests/{digest}"]
    broken = "sha256:" + "0" * 64
    server.routes[f"/v2/demo/guarded/manifests/{broken}"] = guard(Reply(status, f"Bearer {BEARER} {TOKEN}".encode()))  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("kept", "level", "status"),
    [
        pytest.param(False, "INFO", 500, id="of-the-environment"),
        pytest.param(False, "DEBUG", 400, id="of-the-environment-debugged"),
        pytest.param(True, "DEBUG", 400, id="of-the-secrets-file-debugged"),
    ],
)
def test_a_token_shows_up_nowhere(tmp_path: Path, kept: bool, level: str, status: int) -> None:
    layout = Layout(tmp_path / "layout")
    layout.tag("demo/guarded:1", layout.image([layer([directory(b"d"), file(b"d/f", bytes(range(256)) * 500)])], {"Cmd": ["sh"]}))
    work = tmp_path / "work"
    work.mkdir()
    file_of_secrets = tmp_path / "secrets"
    with Scripted() as server, watched() as seen:
        serve(layout, server, status)
        environ = {
            **inherited(),
            **settings(tmp_path, server.host),
            **({} if kept else {"SREGISTRY_NVIDIA_TOKEN": TOKEN}),
            "SREGISTRY_CLIENT_SECRETS": str(file_of_secrets),
            "MESSAGELEVEL": level,
        }
        said = b""
        if kept:
            for arguments in (["backend", "add", "nvidia", "TOKEN", "-"], ["backend", "ls"], ["config"]):
                verb = [sys.executable, "-m", "sregistry.cli", *arguments]
                said += subprocess.run(
                    verb, cwd=work, env=environ, input=TOKEN.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True
                ).stdout
            assert said.count(b"SREGISTRY_NVIDIA_TOKEN") == 4  # added, listed, in effect and where from
        for flags, code in (([], 0), (["--verbose", "--printshellcmds"], 1)):
            uri = "demo/guarded:1" if code == 0 else "demo/guarded@sha256:" + "0" * 64
            words = command(*flags, config=[f"uri={uri}"])
            done = subprocess.run(words, cwd=work, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            assert done.returncode == code, done.stdout.decode()
            said += done.stdout
        wrong = {**environ, "SREGISTRY_NVIDIA_TOKEN": TOKEN + "x"}
        check = [sys.executable, "-m", "sregistry.cli", "login-check", "nvidia", "--json"]
        for variables in (environ, wrong):
            done = subprocess.run(check, cwd=work, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
            said += done.stdout
            assert b"SREGISTRY_NVIDIA_TOKEN" in done.stdout
        assert any(asked.authorization == f"Basic {BASIC}" for asked in server.asked)
    assert any(b"sregistry.stage" in line and not line.startswith(ENVIRONMENT) for line in seen)
    assert any(line.startswith(ENVIRONMENT) and b"SREGISTRY_NVIDIA_BASE" in line for line in seen)
    assert file_of_secrets.exists() == kept
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path != file_of_secrets]
    assert any(".snakemake" in path.parts for path in files)
    for secret in SECRETS:
        assert secret.encode() not in said
        assert not [line for line in seen if secret.encode() in line and (kept or not line.startswith(ENVIRONMENT))]
        assert not [path for path in files if secret.encode() in path.read_bytes()]
