"""The session of the seed's page, line by line, against a registry of our own; outputs are compared by pattern."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pexpect
import pytest

from tests.support.images import Layout, layer
from tests.support.registry import serving
from tests.support.scripted import Reply, Scripted
from tests.support.tarball import directory
from tests.support.tarball import file as plain

pytestmark = pytest.mark.slow("whole pulls", once=True)

SCRIPTS = Path(sys.executable).parent
PAGE = Path(__file__).parents[2] / "config/differences.md"
CONFIG = {
    "Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "CUDA_VERSION=9.0.176"],
    "Entrypoint": ["/usr/local/bin/nvidia_entrypoint.sh"],
    "Labels": {"com.nvidia.volumes.needed": "nvidia_driver"},
}


@dataclass
class Session:
    """A user's terminal: home, folders and registry as environment variables."""

    environ: dict[str, str]
    home: Path
    said: list[str] = field(default_factory=list)

    def run(self, line: str, code: int = 0, **environ: str) -> tuple[str, str]:
        """Run a line in a shell and return what went to stdout and to stderr."""
        done = subprocess.run(
            ["bash", "-c", line], env={**self.environ, **environ}, cwd=self.home, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        self.said += [*done.stdout.splitlines(), *done.stderr.splitlines()]
        return done.stdout, done.stderr

    def open(self, line: str, **environ: str) -> pexpect.spawn[str]:
        """Start a line in a terminal."""
        return pexpect.spawn(
            "bash", ["-c", line], env={**self.environ, **environ}, cwd=str(self.home), encoding="utf-8", timeout=120, dimensions=(40, 200)
        )


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    root = tmp_path_factory.mktemp("transcript")
    layout = Layout(root / "layout")
    for name, count in (("nvidia/tensorflow:17.11", 6), ("nvidia/caffe2:17.10", 2)):
        layers = [layer([directory(b"opt"), plain(f"opt/{name.replace('/', '-')}-{i}".encode(), os.urandom(64))]) for i in range(count)]
        layout.tag(name, layout.image(layers, CONFIG, docker=True))
    home = root / "home"
    home.mkdir()
    with serving(layout) as server:
        environ = {
            "PATH": f"{SCRIPTS}:{os.environ['PATH']}",
            "HOME": str(home),
            "LC_ALL": "C.UTF-8",
            "TERM": "xterm",
            "SREGISTRY_NVIDIA_BASE": server.address,
            "SREGISTRY_NVIDIA_NOHTTPS": "yes",
        }
        yield Session(environ, home)


def announced(home: Path) -> str:
    return rf"\[client\|nvidia\] \[database\|{re.escape(str(home))}/\.singularity/sregistry\.json\]"


def matches(text: str, patterns: list[str]) -> None:
    """Each pattern is found, one after the other."""
    position = 0
    for pattern in patterns:
        found = re.compile(pattern, re.MULTILINE).search(text, position)
        assert found, f"{pattern!r} is not in what follows:\n{text[position:]}"
        position = found.end()


def test_session(session: Session) -> None:
    """One test: each line of the page builds on those before it."""
    home = re.escape(str(session.home))
    host = re.escape(session.environ["SREGISTRY_NVIDIA_BASE"])

    # "If you don't, you won't get very far!"
    with Scripted({}) as locked:
        locked.routes["/v2/nvidia/tensorflow/manifests/17.11"] = Reply(401, headers=[("WWW-Authenticate", 'Basic realm="nvcr.io"')])
        _, err = session.run("sregistry pull tensorflow:17.11", 1, SREGISTRY_NVIDIA_BASE=locked.host)
        matches(err, [r"^error: You must have an Nvidia GPU cloud token to use it\.", "export SREGISTRY_NVIDIA_TOKEN"])

    out, err = session.run("sregistry backend activate nvidia")
    matches(out + err, [r"^\[activate\] nvidia$"])
    out, err = session.run("sregistry backend status")
    matches(out + err, [r"^\[backend status\]$", r"^There (is 1 client|are \d+ clients) found in secrets\.$", "^active: nvidia$"])

    shell = session.open("sregistry shell", MESSAGELEVEL="5", SREGISTRY_NVIDIA_TOKEN="nvapi-secret")
    shell.expect("DEBUG Database located at [^\r\n]*sregistry.json")
    shell.expect(announced(session.home))
    shell.expect(r"Python 3\.")
    shell.expect("IPython")
    shell.expect(r"In \[")
    shell.sendline("client")
    shell.expect("<Client nvidia")
    shell.sendline("exit")
    shell.expect(pexpect.EOF)
    assert "nvapi-secret" not in (shell.before or "")

    # pull, by its short name
    out, err = session.run("sregistry pull tensorflow:17.11")
    matches(err, [f"^{announced(session.home)}$", *[rf"^Exploding {home}/\.singularity/docker/\S+"] * 6])
    image = f"{session.home}/.singularity/shub/nvidia-tensorflow:17.11.sif"
    matches(out, [r"^\[container\]\[new\] nvidia/tensorflow:17\.11$", f"^Success! {re.escape(image)}$"])
    assert Path(image).is_file()

    out, err = session.run("sregistry record nvidia/caffe2:17.10")
    matches(out, [r"^\[container\]\[new\] nvidia/caffe2:17\.10$"])

    out, err = session.run("sregistry images")
    matches(err, [f"^{announced(session.home)}$"])
    matches(
        out,
        [
            r"^Containers:   \[date\]    \[client\]\t\[uri\]$",
            r"^1  [A-Z][a-z]+ \d\d, \d{4}\t\[nvidia\]\tnvidia/tensorflow:17\.11@[0-9a-f]{64}$",
            r"^2  [A-Z][a-z]+ \d\d, \d{4}\t\[nvidia\]\tnvidia/caffe2:17\.10$",
        ],
    )
    label = out.splitlines()[1].split("\t")[-1]

    out, err = session.run("sregistry inspect nvidia/caffe2:17.10")
    matches(err, [f"^{announced(session.home)}$"])
    uri, url, document = out.split("\n", 2)
    assert uri == "nvidia/caffe2:17.10"
    assert re.fullmatch(f"http://{host}/v2/nvidia/caffe2/manifests/17.10", url)
    value = json.loads(document)
    assert document.startswith('{\n    "client": "nvidia",\n    "collection": "nvidia",\n    "collection_id": ')
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", value["created_at"])
    assert (value["image"], value["name"], value["tag"], value["uri"], value["url"], value["version"]) == (
        None,
        "caffe2",
        "17.10",
        uri,
        url,
        "",
    )
    assert value["metrics"]["2"]["schemaVersion"] == 2
    assert value["metrics"]["2"]["selfLink"] == url
    assert value["metrics"]["selfLink"] == url.rpartition("/")[0]

    assert session.run("sregistry get nvidia/caffe2:17.10")[0] == f"{url}\n"
    assert session.run(f"sregistry get {label}")[0] == f"{image}\n"

    shell = session.open("sregistry shell")
    shell.expect(announced(session.home))
    shell.expect(r"In \[")
    shell.sendline("client.get('nvidia/caffe2:17.10')")
    shell.expect_exact(url)
    shell.expect_exact("<Container 'nvidia/caffe2:17.10'>")
    shell.sendline("exit")
    shell.expect(pexpect.EOF)

    # What the page says that is printed now: the second column of its table, whose codes are lines.
    session.run("sregistry --debug pull tensorflow:17.11")
    rows = re.findall(r"^\| (?!it printed|---)(.+?) (?<!\\)\| (.+?) (?<!\\)\| .+ \|$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == 14
    lines = {line.replace("\\|", "|") for _, ours in rows for line in re.findall("`([^`]+)`", ours) if line != "[update]"}
    assert len(lines) == 12
    for line in lines:
        pattern = ".*".join(map(re.escape, line.split("…")))
        assert any(re.match(pattern, said) for said in session.said), line


def test_commands_of_the_page(session: Session, tmp_path: Path) -> None:
    """Taking over the original's database."""
    (block,) = re.findall(r"^```bash\n(.*?)```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    home = tmp_path / "home"
    (home / ".singularity").mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(home / ".singularity/sregistry.db")) as database:
        database.executescript(
            "CREATE TABLE collection (id INTEGER PRIMARY KEY, name TEXT, token TEXT, created_at TEXT);"
            "CREATE TABLE container (id INTEGER PRIMARY KEY, created_at TEXT, metrics TEXT, name TEXT, tag TEXT, image TEXT, url TEXT,"
            " uri TEXT, client TEXT, version TEXT, collection_id INTEGER);"
            "INSERT INTO collection VALUES (6, 'nvidia', NULL, '2018-01-15 15:33:30');"
            "INSERT INTO container VALUES (16, '2018-01-15 15:33:30', '{}', 'caffe2', '17.10', NULL,"
            " 'https://nvcr.io/v2/nvidia/caffe2/manifests/17.10', 'nvidia/caffe2:17.10', 'nvidia', '', 6);"
        )
    out, _ = session.run(f"set -e\n{block}", HOME=str(home))
    matches(out, [r"^1  January 15, 2018\t\[nvidia\]\tnvidia/caffe2:17\.10$"])
