"""The secrets file, and the verb that changes it."""

from __future__ import annotations

import io
import json
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pexpect
import pytest

from sregistry.cli.__main__ import main
from sregistry.config import secrets_file
from sregistry.config.registries import OWN
from sregistry.config.settings import registry
from sregistry.errors import ConfigError

TOKEN = "nvapi-S3cretKeyThatNobodyMaySee"
KNOWN = "nvidia, docker, quay, ghcr, oci, oras"
NVIDIA = "SREGISTRY_NVIDIA_BASE, SREGISTRY_NVIDIA_VERSION, SREGISTRY_NVIDIA_USERNAME, SREGISTRY_NVIDIA_NOHTTPS, SREGISTRY_NVIDIA_TOKEN"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the secrets file is to be; there is none."""
    for name in list(os.environ):
        if name.startswith("SREGISTRY_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SREGISTRY_CLIENT_SECRETS", str(tmp_path / "secrets"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "secrets"


def keep(path: Path, document: Any, mode: int = 0o600) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    path.chmod(mode)
    return path


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    assert main(["backend", *arguments]) == code
    out, err = capsys.readouterr()
    return out, err


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- the verb


def test_the_session_of_the_seed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "activate", "nvidia") == ("[activate] nvidia\n", "")
    assert said(capsys, "status") == ("[backend status]\nThere are 0 clients found in secrets.\nactive: nvidia\n", "")
    assert json.loads(path.read_bytes()) == {"SREGISTRY_CLIENT": "nvidia"}
    assert said(capsys, "deactivate") == ("[deactivate] nvidia\n", "")
    assert said(capsys, "deactivate") == ("", "No backend is active.\n")
    assert said(capsys, "status") == ("[backend status]\nThere are 0 clients found in secrets.\nactive: none\n", "")


def test_settings_are_kept_and_forgotten(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert said(capsys, "add", "nvidia", "SREGISTRY_NVIDIA_BASE", "127.0.0.1:5000") == ("[add] nvidia SREGISTRY_NVIDIA_BASE\n", "")
    assert said(capsys, "add", "nvidia", "nohttps", "yes") == ("[add] nvidia SREGISTRY_NVIDIA_NOHTTPS\n", "")
    assert said(capsys, "add", "docker", "SREGISTRY_DOCKERHUB_USERNAME", "me")[0] == "[add] docker SREGISTRY_DOCKERHUB_USERNAME\n"
    said(capsys, "activate", "docker")
    assert "There are 2 clients found in secrets.\nactive: docker\n" in said(capsys, "status")[0]
    docker = "docker (active)\n  SREGISTRY_DOCKERHUB_USERNAME=me\n"
    nvidia = "nvidia\n  SREGISTRY_NVIDIA_BASE=127.0.0.1:5000\n  SREGISTRY_NVIDIA_NOHTTPS=yes\n"
    assert said(capsys, "ls") == (docker + nvidia, "")
    assert said(capsys, "ls", "docker") == (docker, "")
    assert json.loads(said(capsys, "ls", "--json")[0]) == {
        "active": "docker",
        "backends": {
            "docker": {"SREGISTRY_DOCKERHUB_USERNAME": "me"},
            "nvidia": {"SREGISTRY_NVIDIA_BASE": "127.0.0.1:5000", "SREGISTRY_NVIDIA_NOHTTPS": "yes"},
        },
    }
    assert said(capsys, "remove", "nvidia", "BASE") == ("[remove] nvidia SREGISTRY_NVIDIA_BASE\n", "")
    assert said(capsys, "remove", "nvidia", "SREGISTRY_NVIDIA_NOHTTPS")[0] == "[remove] nvidia SREGISTRY_NVIDIA_NOHTTPS\n"
    assert "There are 1 clients" in said(capsys, "status")[0]  # one without settings is none
    assert said(capsys, "delete", "docker") == ("[delete] docker\n[deactivate] docker\n", "")
    assert json.loads(path.read_bytes()) == {}
    out, err = said(capsys, "ls")
    assert (out, err) == ("", f"Nothing is kept for any backend in {path}.\n")


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["activate", "hub"], 2, f"error: backend 'hub' is unknown; one of {KNOWN}"),
        (["add", "hub", "TOKEN", "x"], 2, f"error: backend 'hub' is unknown; one of {KNOWN}"),
        (["delete", "hub"], 2, f"error: backend 'hub' is unknown; one of {KNOWN}"),
        (["remove", "hub", "BASE"], 2, f"error: backend 'hub' is unknown; one of {KNOWN}"),
        (["ls", "hub"], 2, f"error: backend 'hub' is unknown; one of {KNOWN}"),
        (["add", "nvidia", "SREGISTRY_QUAY_BASE", "x"], 2, f"error: that is no variable of nvidia; one of {NVIDIA}"),
        (["add", "nvidia", "SREGISTRY_STORAGE", "/x"], 2, f"error: that is no variable of nvidia; one of {NVIDIA}"),
        (["add", "nvidia", "CLIENT", "x"], 2, f"error: that is no variable of nvidia; one of {NVIDIA}"),
        (["add", "nvidia", TOKEN, "x"], 2, f"error: that is no variable of nvidia; one of {NVIDIA}"),
        (["add", "nvidia", "BASE", "https://nvcr.io"], 2, "error: SREGISTRY_NVIDIA_BASE: 'https://nvcr.io' is no host; "),
        (["add", "nvidia", "NOHTTPS", "perhaps"], 2, "error: SREGISTRY_NVIDIA_NOHTTPS: 'perhaps' is neither yes nor no; "),
        (["add", "nvidia", "TOKEN", f"{TOKEN}\n{TOKEN}"], 2, "error: SREGISTRY_NVIDIA_TOKEN: expected text in one line"),
        (["add", "nvidia", "TOKEN", f"{TOKEN}ö"], 2, "error: SREGISTRY_NVIDIA_TOKEN: holds characters that no token has; "),
        (["add", "nvidia", "BASE", ""], 2, "error: SREGISTRY_NVIDIA_BASE: nothing was given; "),
        (["add", "docker", "CMD", "maybe"], 2, "error: SREGISTRY_DOCKER_CMD: 'maybe' is neither yes nor no; "),
        (["add", "docker", "ARCHITECTURE", "a/b/c"], 2, "error: SREGISTRY_DOCKER_ARCHITECTURE: "),
        (["remove", "nvidia", "BASE"], 1, "has no SREGISTRY_NVIDIA_BASE for nvidia; sregistry backend ls nvidia"),
        (["delete", "nvidia"], 1, "has nothing of nvidia; sregistry backend ls"),
    ],
)
def test_what_is_refused(path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, line: str) -> None:
    out, err = said(capsys, *arguments, code=code)
    assert out == ""
    assert line in err.splitlines()[-1]
    assert TOKEN not in err
    assert not path.exists()


def test_a_row_of_ones_own(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    OWN.parent.mkdir()
    OWN.write_text("lab: {base: 'registry.lab.example:5000', token: LAB_PASS}\n")
    said(capsys, "add", "lab", "token", TOKEN)
    # with the host that it is for: another folder may have a row of that name
    assert json.loads(path.read_bytes()) == {"lab": {"LAB_PASS": TOKEN, "SREGISTRY_LAB_BASE": "registry.lab.example:5000"}}
    assert said(capsys, "ls")[0] == "lab\n  LAB_PASS=********\n  SREGISTRY_LAB_BASE=registry.lab.example:5000\n"
    environ = secrets_file.overlay({"SREGISTRY_CLIENT_SECRETS": str(path)})
    assert environ["LAB_PASS"] == TOKEN
    OWN.write_text("lab: {base: evil.example, token: LAB_PASS}\n")
    assert (registry("lab", environ).base, registry("lab", environ).token) == ("registry.lab.example:5000", TOKEN)


def test_a_token_is_read_from_a_pipe(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (["add", "nvidia", "TOKEN", "-"], ["add", "nvidia", "TOKEN"]):
        path.unlink(missing_ok=True)
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{TOKEN}\n"))
        assert said(capsys, *arguments) == ("[add] nvidia SREGISTRY_NVIDIA_TOKEN\n", "")
        assert json.loads(path.read_bytes())["nvidia"] == {"SREGISTRY_NVIDIA_TOKEN": TOKEN}
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert "nothing was given" in said(capsys, "add", "nvidia", "TOKEN", code=2)[1]
    _, err = said(capsys, "add", "nvidia", "TOKEN", TOKEN)
    assert err.startswith("WARNING SREGISTRY_NVIDIA_TOKEN stood in the list of processes")
    assert TOKEN not in err


def test_a_token_is_read_from_a_terminal_unseen(path: Path) -> None:
    command = pexpect.spawn(sys.executable, ["-m", "sregistry.cli", "backend", "add", "nvidia", "TOKEN"], encoding="utf-8", timeout=60)
    command.expect("SREGISTRY_NVIDIA_TOKEN: ")
    command.sendline(TOKEN)
    command.expect(pexpect.EOF)
    assert command.before is not None
    assert TOKEN not in command.before
    assert "[add] nvidia SREGISTRY_NVIDIA_TOKEN" in command.before
    command.close()
    assert command.exitstatus == 0
    assert json.loads(path.read_bytes())["nvidia"] == {"SREGISTRY_NVIDIA_TOKEN": TOKEN}


def test_secrets_are_not_shown(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither known ones, nor what another client left in the file, nor what stands where it should not."""
    own = {"SREGISTRY_NVIDIA_TOKEN": TOKEN, "SREGISTRY_NVIDIA_BASE": f"user:{TOKEN}@host", "SREGISTRY_NVIDIA_OTHER": TOKEN}
    hub = {"SREGISTRY_DOCKERHUB_PASSWORD": TOKEN, "SREGISTRY_DOCKERHUB_SECRETS": "/a/file"}
    keep(path, {"nvidia": own, "docker": hub, "registry": {"base": "http://x", "token": TOKEN}, "odd": TOKEN})
    out, _ = said(capsys, "ls")
    assert TOKEN not in out
    assert out.count("=********\n") == 6
    assert "SREGISTRY_DOCKERHUB_SECRETS=/a/file\n" in out
    assert "registry (not used)\n" in out
    assert TOKEN not in said(capsys, "ls", "--json")[0]
    assert "There are 3 clients" in said(capsys, "status")[0]
    assert said(capsys, "remove", "registry", "token")[0] == "[remove] registry token\n"
    assert said(capsys, "delete", "registry")[0] == "[delete] registry\n"
    assert json.loads(path.read_bytes()) == {"nvidia": own, "docker": hub, "odd": TOKEN}


def test_the_environment_goes_before_the_active_backend(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(path, {"SREGISTRY_CLIENT": "docker"})
    monkeypatch.setenv("SREGISTRY_DATABASE", str(path.parent / "database"))
    assert main(["images"]) == 0
    assert capsys.readouterr().err.startswith("[client|docker] ")
    monkeypatch.setenv("SREGISTRY_CLIENT", "quay")
    assert main(["images"]) == 0
    assert capsys.readouterr().err.startswith("[client|quay] ")
    out, err = said(capsys, "status")
    assert out.endswith("active: docker\n")
    assert err == "SREGISTRY_CLIENT=quay in the environment goes before it.\n"


# -- the file


def test_the_file_is_the_users_own_from_the_first_byte(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the umask, in a folder that is made, too; and nothing else stays there."""
    deep = path.parent / "a/b/secrets"
    before = os.umask(0)
    try:
        os.environ["SREGISTRY_CLIENT_SECRETS"] = str(deep)
        said(capsys, "add", "nvidia", "BASE", "nvcr.io")
    finally:
        os.umask(before)
    assert mode_of(deep) == 0o600
    assert mode_of(deep.parent) & 0o022 == 0
    assert [entry.name for entry in deep.parent.iterdir()] == ["secrets"]


def test_no_temporary_file_is_wider(path: Path) -> None:
    """What strace would show: each file that is made beside it has no more rights than it."""
    seen: set[tuple[str, int]] = set()
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for entry in path.parent.iterdir():
                try:
                    if TOKEN in entry.read_text():
                        seen.add((entry.name, mode_of(entry)))
                except OSError:
                    continue

    thread = threading.Thread(target=watch)
    thread.start()
    before = os.umask(0)
    try:
        for number in range(30):
            with secrets_file.changing(path) as document:
                document["nvidia"] = {"SREGISTRY_NVIDIA_TOKEN": f"{TOKEN}{number}"}
    finally:
        os.umask(before)
        stop.set()
        thread.join()
    assert seen
    assert {mode for _, mode in seen} == {0o600}


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o777, 0o601])
def test_a_wider_file_is_closed_with_a_warning(path: Path, capsys: pytest.CaptureFixture[str], mode: int) -> None:
    keep(path, {"nvidia": {"SREGISTRY_NVIDIA_TOKEN": TOKEN}}, mode)
    _, err = said(capsys, "ls")
    assert re.fullmatch(rf"WARNING {path} was open to others \({mode:o}\), .*\n", err)
    assert mode_of(path) == 0o600
    assert said(capsys, "ls")[1] == ""


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_narrow_file_is_left_alone(path: Path, capsys: pytest.CaptureFixture[str], mode: int) -> None:
    keep(path, {"nvidia": {"SREGISTRY_NVIDIA_TOKEN": TOKEN}}, mode)
    assert said(capsys, "ls") == ("nvidia\n  SREGISTRY_NVIDIA_TOKEN=********\n", "")
    assert mode_of(path) == mode


@pytest.mark.needs("root")
def test_another_users_file_is_passed_over(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(path, {"SREGISTRY_CLIENT": "docker", "nvidia": {"SREGISTRY_NVIDIA_BASE": "evil.example"}})
    os.chown(path, 12345, 12345)
    assert secrets_file.overlay({"SREGISTRY_CLIENT_SECRETS": str(path)}) == {"SREGISTRY_CLIENT_SECRETS": str(path)}
    assert capsys.readouterr().err == f"WARNING {path} is another user's: it is passed over\n"
    assert "is another user's; set SREGISTRY_CLIENT_SECRETS" in said(capsys, "activate", "quay", code=2)[1]
    assert (path.stat().st_uid, json.loads(path.read_bytes())["SREGISTRY_CLIENT"]) == (12345, "docker")


DAMAGED: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: keep(path, '{"nvidia": {"SREGISTRY_NVIDIA_TOKEN": "' + TOKEN),
    "a-token-alone": lambda path: keep(path, TOKEN),
    "a-list": lambda path: keep(path, [TOKEN]),
    "no-text": lambda path: path.write_bytes(b"\xff\xfe" + TOKEN.encode()),
    "deep": lambda path: keep(path, "[" * 100_000),
    "huge": lambda path: keep(path, json.dumps({"a": TOKEN * 100_000})),
    "active-is-no-name": lambda path: keep(path, {"SREGISTRY_CLIENT": [TOKEN]}),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("arguments", [["images"], ["config"], ["backend", "ls"], ["backend", "activate", "nvidia"]])
def test_a_damaged_file(path: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], object], arguments: list[str]) -> None:
    damage(path)
    path.chmod(0o600)
    before = path.read_bytes()
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"error: {path} is damaged: .*\n", err)
    assert TOKEN not in err
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("document", "line"),
    [
        ({"SREGISTRY_CLIENT": TOKEN}, "its active backend is unknown; sregistry backend activate NAME"),
        ({"nvidia": {"SREGISTRY_NVIDIA_BASE": f"https://u:{TOKEN}@h"}}, "nvidia: SREGISTRY_NVIDIA_BASE has a value that can't be used; "),
        ({"nvidia": {"SREGISTRY_NVIDIA_TOKEN": f"{TOKEN} {TOKEN}\x07"}}, "nvidia: SREGISTRY_NVIDIA_TOKEN has a value that can't be used; "),
        ({"nvidia": {"SREGISTRY_NVIDIA_NOHTTPS": True}}, "nvidia: SREGISTRY_NVIDIA_NOHTTPS has a value that can't be used; "),
    ],
)
def test_a_wrong_value(path: Path, document: dict[str, Any], line: str) -> None:
    keep(path, document)
    with pytest.raises(ConfigError, match=re.escape(f"{path}: {line}")) as caught:
        secrets_file.overlay({"SREGISTRY_CLIENT_SECRETS": str(path)})
    assert TOKEN not in str(caught.value)
    # What the environment replaces is not looked at.
    good = {"SREGISTRY_CLIENT": "nvidia", "SREGISTRY_NVIDIA_BASE": "a", "SREGISTRY_NVIDIA_TOKEN": "b", "SREGISTRY_NVIDIA_NOHTTPS": "no"}
    environ = {"SREGISTRY_CLIENT_SECRETS": str(path), **good}
    assert secrets_file.overlay(environ) == environ


def test_the_file_of_the_original_is_understood(path: Path) -> None:
    """Tables of clients that are unknown here, and variables that mean nothing, stay and do nothing."""
    document = {
        "SREGISTRY_CLIENT": "nvidia",
        "nvidia": {
            "SREGISTRY_NVIDIA_BASE": "registry.example",
            "SREGISTRY_NVIDIA_TOKEN": TOKEN,
            "SREGISTRY_STORAGE": "/evil",
            "PATH": "/evil",
        },
        "docker": {"SREGISTRY_NVIDIA_VERSION": "v3", "SREGISTRY_DOCKER_BASE": ""},
        "google-drive": {"GOOGLE_DRIVE_CREDENTIALS": "/x"},
        "quay": None,
    }
    keep(path, document)
    environ = {"SREGISTRY_CLIENT_SECRETS": str(path), "SREGISTRY_NVIDIA_BASE": "", "SREGISTRY_NVIDIA_TOKEN": "other"}
    assert secrets_file.overlay(environ) == {
        **environ,
        "SREGISTRY_CLIENT": "nvidia",
        "SREGISTRY_NVIDIA_BASE": "registry.example",
    }
    with secrets_file.changing(path) as found:
        found["SREGISTRY_CLIENT"] = "quay"
    assert json.loads(path.read_bytes()) == {**document, "SREGISTRY_CLIENT": "quay"}


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({"HOME": "/home/me"}, Path("/home/me/.sregistry")),
        ({"HOME": "/home/me", "SREGISTRY_CLIENT_SECRETS": ""}, Path("/home/me/.sregistry")),
        ({"HOME": "/home/me", "SREGISTRY_CLIENT_SECRETS": "~/x"}, Path("/home/me/x")),
        ({"HOME": "/home/me", "SREGISTRY_CLIENT_SECRETS": "/etc/x"}, Path("/etc/x")),
        ({"HOME": "/home/me", "SREGISTRY_CLIENT_SECRETS": "x"}, Path.cwd() / "x"),
        ({}, None),
    ],
)
def test_where_the_file_is(environ: dict[str, str], found: Path | None) -> None:
    assert secrets_file.path_of(environ) == found


def test_a_link_stays_one(path: Path) -> None:
    keep(path.with_name("real"), {})
    path.symlink_to("real")
    with secrets_file.changing(path) as document:
        document["SREGISTRY_CLIENT"] = "nvidia"
    assert path.is_symlink()
    assert json.loads(path.with_name("real").read_bytes()) == {"SREGISTRY_CLIENT": "nvidia"}


def test_what_is_no_file(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="is no file"):
        secrets_file.read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match="is no file"):
        secrets_file.read(path)


def test_many_writers_lose_nothing(path: Path) -> None:
    names = ("BASE", "VERSION", "USERNAME", "NOHTTPS")
    values = {"BASE": "a.example", "VERSION": "v2", "USERNAME": "me", "NOHTTPS": "no"}
    jobs = [
        subprocess.Popen([sys.executable, "-m", "sregistry.cli", "backend", "add", client, name, values[name]], stdout=subprocess.DEVNULL)
        for client in ("nvidia", "quay")
        for name in names
    ]
    assert [job.wait() for job in jobs] == [0] * 8
    document = json.loads(path.read_bytes())
    assert {client: len(document[client]) for client in document} == {"nvidia": 4, "quay": 4}
    assert mode_of(path) == 0o600
