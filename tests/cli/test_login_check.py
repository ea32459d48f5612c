"""`sregistry login-check`: what is printed, and how it ends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from sregistry.cli.__main__ import main
from tests.support.realm import SECRET, environment, guard, realm
from tests.support.scripted import Reply, Scripted


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as script:
        yield script


@pytest.fixture
def shell(server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    monkeypatch.chdir(tmp_path)
    for name in ("SREGISTRY_NVIDIA_TOKEN", "SREGISTRY_CLIENT", "DOCKER_CONFIG", "NETRC", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    return server


def test_the_command(shell: Scripted, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    guard(shell, "/v2/", Reply(200, b"{}"))
    realm(shell)
    assert main(["login-check"]) == 1
    out, err = capsys.readouterr()
    assert "credentials  anonymous\n" in out and "accepted     no\n" in out
    assert re.fullmatch(r"error: You must have an Nvidia GPU cloud token to use it\..*; export SREGISTRY_NVIDIA_TOKEN=.*\n", err)
    monkeypatch.setenv("SREGISTRY_NVIDIA_TOKEN", SECRET)
    assert main(["login-check", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["accepted"] is True and err == ""
    assert SECRET not in out
    monkeypatch.setenv("SREGISTRY_NVIDIA_TOKEN", "wr0ng")
    assert main(["login-check", "nvidia", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["accepted"] is False and err.count("\n") == 1
    assert "wr0ng" not in out + err


def test_a_broken_file_is_one_line(shell: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guard(shell, "/v2/", Reply(200, b"{}"))
    (tmp_path / ".netrc").write_text(f"machines {SECRET}")
    assert main(["login-check"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(r"error: .*/\.netrc: .*\n", err) and SECRET not in err
