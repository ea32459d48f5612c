"""How much is said, and who decides that."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sregistry.errors import ConfigError
from sregistry.system import logs
from sregistry.system.logs import Level
from tests.support.images import Layout, layer
from tests.support.scripted import Reply, Scripted
from tests.support.tarball import file


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("ABORT", Level.ERROR),
        ("CRITICAL", Level.ERROR),
        ("ERROR", Level.ERROR),
        ("WARNING", Level.WARNING),
        ("LOG", Level.WARNING),
        ("QUIET", Level.ERROR),
        ("INFO", Level.INFO),
        ("VERBOSE", Level.VERBOSE),
        ("VERBOSE3", Level.VERBOSE),
        ("DEBUG", Level.DEBUG),
        ("debug", Level.DEBUG),
        (" Info ", Level.INFO),
        ("-99", Level.ERROR),
        ("-5", Level.ERROR),
        ("-3", Level.ERROR),
        ("-2", Level.WARNING),
        ("-1", Level.WARNING),
        ("0", Level.ERROR),
        ("1", Level.INFO),
        ("+1", Level.INFO),
        ("2", Level.VERBOSE),
        ("4", Level.VERBOSE),
        ("5", Level.DEBUG),
        ("99", Level.DEBUG),
    ],
)
def test_names_and_numbers(text: str, level: Level) -> None:
    assert logs.parse(text) is level


@pytest.mark.parametrize("text", ["LOUD", "1.5", "five", "--", "DEBUG5"])
def test_what_is_neither(text: str) -> None:
    with pytest.raises(ConfigError, match="MESSAGELEVEL"):
        logs.parse(text)


def run(tmp_path: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command where a secrets file is open to others, which is worth a warning."""
    secrets = tmp_path / "secrets"
    secrets.write_text("{}")
    secrets.chmod(0o644)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("SREGISTRY_", "SINGULARITY_", "MESSAGELEVEL"))}
    given = {"SREGISTRY_DATABASE": str(tmp_path / "database"), "SREGISTRY_CLIENT_SECRETS": str(secrets), **environ}
    command = [sys.executable, "-m", "sregistry.cli", *arguments]
    return subprocess.run(command, cwd=tmp_path, env={**inherited, **given}, capture_output=True, text=True, check=False)


def test_a_bad_level_is_an_error_of_the_command(tmp_path: Path) -> None:
    done = run(tmp_path, "version", MESSAGELEVEL="LOUD")
    assert done.returncode == 2
    assert done.stderr.startswith("error: MESSAGELEVEL: 'LOUD' is unknown; ")


ANNOUNCED, WARNED, DEBUGGED = "[client|", "WARNING ", "DEBUG "


@pytest.mark.parametrize(
    ("flags", "environ", "said"),
    [
        pytest.param([], {}, {ANNOUNCED, WARNED}, id="by-default"),
        pytest.param([], {"MESSAGELEVEL": ""}, {ANNOUNCED, WARNED}, id="empty-is-unset"),
        pytest.param([], {"MESSAGELEVEL": "1"}, {ANNOUNCED, WARNED}, id="info"),
        pytest.param([], {"MESSAGELEVEL": "WARNING"}, {WARNED}, id="warning"),
        pytest.param([], {"MESSAGELEVEL": "0"}, set(), id="quiet-by-variable"),
        pytest.param([], {"MESSAGELEVEL": "3"}, {ANNOUNCED, WARNED}, id="verbose"),
        pytest.param([], {"MESSAGELEVEL": "5"}, {ANNOUNCED, WARNED, DEBUGGED}, id="debug-by-variable"),
        pytest.param(["--debug"], {}, {ANNOUNCED, WARNED, DEBUGGED}, id="debug"),
        pytest.param(["--quiet"], {}, set(), id="quiet"),
        pytest.param(["--quiet"], {"MESSAGELEVEL": "5"}, set(), id="quiet-before-variable"),
        pytest.param(["--debug"], {"MESSAGELEVEL": "QUIET"}, {ANNOUNCED, WARNED, DEBUGGED}, id="debug-before-variable"),
    ],
)
def test_what_is_said(tmp_path: Path, flags: list[str], environ: dict[str, str], said: set[str]) -> None:
    done = run(tmp_path, *flags, "images", "--json", **environ)
    assert (done.returncode, done.stdout) == (0, "[]\n")
    assert {mark for mark in (ANNOUNCED, WARNED, DEBUGGED) if re.search(f"^{re.escape(mark)}", done.stderr, re.MULTILINE)} == said


@pytest.mark.parametrize("flags", [["--quiet"], []])
def test_errors_are_always_said(tmp_path: Path, flags: list[str]) -> None:
    done = run(tmp_path, *flags, "get", "nvidia/none:1", MESSAGELEVEL="QUIET")
    assert done.returncode == 1
    assert re.fullmatch(r"error: .*\n", done.stderr)


def test_debug_as_the_seed_shows_it(tmp_path: Path) -> None:
    """With a token the header Authorization is named; nothing of its value is."""
    done = run(tmp_path, "images", MESSAGELEVEL="5", SREGISTRY_CLIENT="nvidia", SREGISTRY_NVIDIA_TOKEN="nvapi-s3cret")
    lines = [line for line in done.stderr.splitlines() if line.startswith(("DEBUG", "["))]
    assert lines == [
        f"DEBUG credentials cache {tmp_path}/secrets",
        "DEBUG Headers found: Accept,Authorization",
        f"DEBUG Database located at {tmp_path}/database/sregistry.json",
        f"[client|nvidia] [database|{tmp_path}/database/sregistry.json]",
    ]
    assert "s3cret" not in done.stderr + done.stdout
    assert "DEBUG Headers found: Accept\n" in run(tmp_path, "--debug", "images").stderr


def test_requests_are_told_without_query_and_values(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    layout.tag("demo/one:1", layout.image([layer([file(b"one", b"1")])]))
    digest = layout.tags()["demo/one:1"]["digest"]
    manifest = (layout.root / "blobs/sha256" / digest.partition(":")[2]).read_bytes()
    with Scripted() as server:
        signed = f"{server.url}/storage/blob?X-Signature=s3cretSignature"
        server.routes["/storage/blob"] = Reply(200, manifest)
        server.routes["/v2/demo/one/manifests/1"] = Reply(307, headers=[("Location", signed)])
        arguments = ["manifest", "--uri", "demo/one:1", "--client", "nvidia", "--platform", "linux/amd64"]
        command = [sys.executable, "-m", "sregistry.stages", *arguments]
        command += ["--cache", str(tmp_path / "cache"), "--output", str(tmp_path / "m")]
        environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SREGISTRY_")},
            "SREGISTRY_NVIDIA_BASE": server.host,
            "SREGISTRY_NVIDIA_NOHTTPS": "yes",
            "MESSAGELEVEL": "DEBUG",
        }
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        asked = [f"DEBUG GET http://{server.host}{path}" for path in ("/v2/demo/one/manifests/1: 307", "/storage/blob: 200")]
    assert [line for line in done.stderr.splitlines() if " GET " in line][:2] == asked
    assert re.search(r"^DEBUG Headers found: [A-Za-z,-]*Accept[A-Za-z,-]*$", done.stderr, re.MULTILINE)
    assert "s3cretSignature" not in done.stderr


def test_a_stage_starts_without_logging() -> None:
    code = "import sys, sregistry.stages.__main__ as s; s.logs.set_up({}); sys.exit('logging' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_who_uses_the_package_has_its_logger(tmp_path: Path) -> None:
    """Without the command nothing is printed but through handlers of the program's own."""
    code = """
import logging, pathlib, sys
logging.basicConfig(format="own %(name)s %(levelname)s", stream=sys.stdout)
import sregistry
path = pathlib.Path(sys.argv[1]); path.write_text("{}"); path.chmod(0o666)
sregistry.get_client({"SREGISTRY_CLIENT_SECRETS": str(path), "SREGISTRY_DATABASE": "x"})
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "s")], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "own sregistry WARNING\n", "")
