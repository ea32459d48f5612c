"""`sregistry pull` as users start it: one image, several, at once, cut short, on a terminal and in a log."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

import pexpect
import pytest

from sregistry.catalog.catalog import Catalog
from sregistry.client import Client, Container, get_client
from sregistry.errors import PullError, UsageError
from sregistry.pipeline import pull as pipeline
from sregistry.pipeline.progress.displays import Silent
from sregistry.pipeline.progress.tracker import View
from tests.support.images import Layout, layer
from tests.support.registry import serving
from tests.support.tarball import directory, file

# SIGINT is ignored where a shell has started the tests in the background.
COMMAND = ("env", "--default-signal=INT", sys.executable, "-m", "sregistry.cli")
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


class Slow:
    """A way to *host* that lets so many bytes a second through, on each connection, until it is opened."""

    def __init__(self, host: str, rate: float) -> None:
        self._host, self._rate = host, rate
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        name, port = self._host.split(":")
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection((name, int(port)))
            threading.Thread(target=self._join, args=(near, far), daemon=True).start()

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        with near, far:
            asking = threading.Thread(target=self._pass, args=(near, far, None), daemon=True)
            asking.start()
            self._pass(far, near, self._rate)
            asking.join()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, rate: float | None) -> None:
        try:
            while data := source.recv(16 << 10):
                sink.sendall(data)
                time.sleep(len(data) / rate if rate else 0)
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass
class Place:
    """A user's folders, and a registry."""

    root: Path
    layout: Layout
    host: str
    log: StringIO
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        return self.root / "work dir"

    @property
    def images(self) -> Path:
        return self.root / "images"

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=self.work,
            env={**self.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, code: int = 0, **environ: str) -> tuple[list[str], str]:
        """Run the command and return the lines of stdout, and stderr."""
        return self.finish(self.start(*arguments, **environ), code)

    @staticmethod
    def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[list[str], str]:
        out, err = process.communicate(timeout=120)
        assert process.returncode == code, err
        assert "Traceback" not in err
        assert not CONTROL.search(out + err)
        return out.splitlines(), err

    def asked(self, kind: str) -> list[str]:
        """Return what the registry was asked for, and forget it."""
        found: list[str] = re.findall(rf'"GET /v2/\S+/{kind}/(\S+) ', self.log.getvalue())
        self.log.truncate(0)
        self.log.seek(0)
        return found

    def client(self) -> Client:
        return get_client({**self.environ, "HOME": str(self.root)})


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    layout = Layout(tmp_path / "layout")
    layout.tag("demo/tiny:1", layout.image([layer([directory(b"etc"), file(b"etc/name", b"tiny")])], {"Cmd": ["/bin/true"]}))
    shared = layer([file(b"shared", os.urandom(100_000))])
    for name in ("one", "two"):
        own = layer([file(b"own", os.urandom(400_000))])
        layout.tag(f"demo/{name}:1", layout.image([shared, own], {"Cmd": ["/bin/true"]}))
    log = StringIO()
    with serving(layout, log=log) as server:
        place = Place(tmp_path, layout, server.address, log)
        place.work.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SREGISTRY_", "SINGULARITY_"))}
        place.environ = {
            **kept,
            "SREGISTRY_NVIDIA_BASE": server.address,
            "SREGISTRY_NVIDIA_NOHTTPS": "yes",
            "SREGISTRY_STORAGE": str(place.images),
            "SREGISTRY_DATABASE": str(tmp_path / "database"),
            "SINGULARITY_CACHEDIR": str(tmp_path / "cache"),
            "XDG_STATE_HOME": str(tmp_path / "state"),
        }
        yield place


@pytest.fixture
def slow(place: Place) -> Iterator[Place]:
    """The same behind a line that takes seconds for a layer; the image `demo/big:1` has three."""
    layers = [layer([file(b"%d" % number, os.urandom(600_000))]) for number in range(3)]
    place.layout.tag("demo/big:1", place.layout.image(layers, {"Cmd": ["/bin/true"]}))
    line = Slow(place.host, 300_000)
    place.environ["SREGISTRY_NVIDIA_BASE"] = line.address
    yield place
    line.close()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_one_image_and_the_same_again(place: Place) -> None:
    out, err = place.run("pull", "demo/one:1")
    assert out == ["[container][new] demo/one:1", f"Success! {place.images}/demo-one:1.sif"]
    lines = err.splitlines()
    assert lines[0] == f"[client|nvidia] [database|{place.root}/database/sregistry.json]"
    exploding = [line for line in lines if line.startswith("Exploding ")]
    assert len(exploding) == 2
    assert all(Path(line.removeprefix("Exploding ")).is_file() for line in exploding)
    assert lines[-1].startswith("[2/2] 0.5 MB of layers in ")
    assert list(place.work.iterdir()) == []
    image = place.images / "demo-one:1.sif"
    before = image.stat()
    assert len(place.asked("blobs")) == 3

    place.asked("manifests")
    out, err = place.run("pull", "demo/one:1")
    assert out == [f"Success! {image}"]
    assert err.splitlines() == lines[:1]
    assert image.stat().st_mtime_ns == before.st_mtime_ns
    assert place.asked("manifests") == ["1"]

    assert place.run("pull", "--pinned", "demo/one:1")[0] == out
    assert place.asked("manifests") == []


def test_a_tag_that_moved(place: Place) -> None:
    place.run("pull", "demo/one:1")
    place.layout.tag("demo/one:1", place.layout.tags()["demo/two:1"])
    assert place.run("pull", "--pinned", "demo/one:1")[0] == [f"Success! {place.images}/demo-one:1.sif"]
    out, err = place.run("pull", "demo/one:1")
    assert out == ["[container][update] demo/one:1", f"Success! {place.images}/demo-one:1.sif"]
    assert err.count("Exploding ") == 1  # the other layer is the same


def test_several_of_which_one_fails(place: Place) -> None:
    out, err = place.run("pull", "demo/one:1", "demo/none:1", "demo/two:1", code=1)
    assert out == [
        "[container][new] demo/one:1",
        f"Success! {place.images}/demo-one:1.sif",
        "[container][new] demo/two:1",
        f"Success! {place.images}/demo-two:1.sif",
    ]
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "demo/none:1" in errors[0]
    assert err.count("Exploding ") == 3
    again, err = place.run("pull", "demo/one:1", "demo/none:1", "demo/two:1", code=1)
    assert again == [out[1], out[3]]
    assert err.splitlines()[1:] == errors


def test_a_registry_that_is_gone_is_told_though_the_image_is_there(place: Place) -> None:
    place.run("pull", "demo/one:1")
    out, err = place.run("pull", "demo/one:1", code=1, SREGISTRY_NVIDIA_VERSION="v3")
    assert out == []
    assert [line[:7] for line in err.splitlines()[1:]] == ["error: "]
    assert place.run("pull", "--pinned", "demo/one:1")[0] == [f"Success! {place.images}/demo-one:1.sif"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["a/b:c:d"], "error: 'a/b:c:d'"),
        (["a/b", "c/d", "--name", "x"], "error: a name is for one image"),
        (["a/b", "--name", "x/y"], "error: name: 'x/y' is no file name"),
        (["a/b", "--platform", "a/b/c/d"], "error: platform: 'a/b/c/d' is no platform"),
    ],
    ids=["reference", "names", "name", "platform"],
)
def test_bad_usage(place: Place, arguments: list[str], line: str) -> None:
    out, err = place.run("pull", *arguments, code=2)
    assert out == []
    assert err.splitlines()[-1].startswith(line)
    assert not (place.root / "state").exists() and not place.images.exists()


def test_one_image_that_is_named_twice(place: Place) -> None:
    out, _ = place.run("pull", "demo/tiny:1", "nvidia://demo/tiny:1")
    assert out == ["[container][new] demo/tiny:1", f"Success! {place.images}/demo-tiny:1.sif"]


def test_quiet(place: Place) -> None:
    assert place.run("--quiet", "pull", "demo/one:1", "demo/tiny:1") == (
        [f"{place.images}/demo-one:1.sif", f"{place.images}/demo-tiny:1.sif"],
        "",
    )
    assert place.run("--quiet", "pull", "demo/none:1", code=1)[0] == []


def test_name_format_and_force(place: Place) -> None:
    assert place.run("pull", "demo/tiny:1", "--name", "mine", "--format", "simg")[0][-1] == f"Success! {place.images}/mine.simg"
    assert place.run("pull", "demo/tiny:1", "--format", "sandbox")[0][-1] == f"Success! {place.images}/demo-tiny:1"
    assert (place.images / "demo-tiny:1/etc/name").read_text() == "tiny"
    image = place.images / "mine.simg"
    before = image.stat().st_mtime_ns
    place.run("pull", "demo/tiny:1", "--name", "mine", "--format", "simg")
    assert image.stat().st_mtime_ns == before
    out, _ = place.run("pull", "demo/tiny:1", "--name", "mine", "--format", "simg", "--force")
    assert out == ["[container][update] demo/tiny:1", f"Success! {image}"]
    assert image.stat().st_mtime_ns != before


def test_without_a_cache(place: Place) -> None:
    scratch = place.root / "scratch"
    out, _ = place.run("pull", "demo/one:1", "--no-cache", SREGISTRY_TMPDIR=str(scratch))
    assert out[-1] == f"Success! {place.images}/demo-one:1.sif"
    assert list(scratch.iterdir()) == []
    assert not (place.root / "cache").exists()
    assert place.run("pull", "demo/one:1", SINGULARITY_DISABLE_CACHE="yes", SREGISTRY_TMPDIR=str(scratch))[0] == out[-1:]
    assert place.run("pull", "demo/two:1", SINGULARITY_DISABLE_CACHE="yes", SREGISTRY_TMPDIR="scratch")[0][-1].startswith("Success! ")
    assert list((place.work / "scratch").iterdir()) == []
    assert not (place.root / "cache").exists()


def test_settings_are_those_of_the_folder_one_is_in(place: Place) -> None:
    config = place.work / "config"
    config.mkdir()
    (config / "config.yaml").write_text("format: simg\nstorage: under/here\ncache: ../layers\n")
    (config / "registries.yaml").write_text(f"lab: {{base: '{place.host}', https: false}}\n")
    out, _ = place.run("pull", "lab://demo/one:1", SREGISTRY_STORAGE="", SINGULARITY_CACHEDIR="", SREGISTRY_NVIDIA_BASE="")
    assert out[-1] == f"Success! {place.work}/under/here/demo-one:1.simg"
    assert (place.work / "../layers/docker/blobs").is_dir()
    out, _ = place.run("pull", "lab://demo/one:1", SREGISTRY_STORAGE="there", SREGISTRY_NVIDIA_BASE="")
    assert out[-1] == f"Success! {place.work}/there/demo-one:1.simg"
    assert sorted(path.name for path in place.work.iterdir()) == ["config", "there", "under"]


def test_without_a_catalog(place: Place) -> None:
    for first in (True, False):
        out, _ = place.run("pull", "demo/tiny:1", SREGISTRY_DISABLE="yes", SREGISTRY_STORAGE="")
        assert out == ["[container][new] demo/tiny:1"] * first + [f"Success! {place.work}/demo-tiny:1.sif"]
    assert [path.name for path in place.work.iterdir()] == ["demo-tiny:1.sif"]
    assert not (place.root / "database").exists()


def test_what_is_gone_comes_back(place: Place) -> None:
    place.run("pull", "demo/tiny:1")
    catalog = Catalog(place.root / "database")
    catalog.path.unlink()
    assert place.run("pull", "demo/tiny:1")[0][0] == "[container][new] demo/tiny:1"
    (place.images / "demo-tiny:1.sif").unlink()
    assert place.run("pull", "demo/tiny:1")[0] == ["[container][update] demo/tiny:1", f"Success! {place.images}/demo-tiny:1.sif"]
    assert len(catalog.records()) == 1


def test_a_state_folder_that_can_not_be_written(place: Place) -> None:
    (place.root / "file").write_text("")
    _, err = place.run("pull", "demo/tiny:1", code=1, XDG_STATE_HOME=str(place.root / "file"))
    assert re.fullmatch(
        r"error: can't write to .*/file/sregistry/pulls; set XDG_STATE_HOME to folders that you can write", err.splitlines()[-1]
    )


def test_a_home_that_can_not_be_written_is_one_line(place: Place) -> None:
    (home := place.root / "home").write_text("")
    gone = ("SREGISTRY_STORAGE", "SREGISTRY_DATABASE", "SINGULARITY_CACHEDIR", "XDG_STATE_HOME")
    _, err = place.run("pull", "demo/tiny:1", code=1, HOME=str(home), **dict.fromkeys(gone, ""))
    (line,) = (line for line in err.splitlines() if line.startswith("error: "))
    named = "XDG_STATE_HOME, SREGISTRY_STORAGE, SREGISTRY_DATABASE, SINGULARITY_CACHEDIR"
    assert line.endswith(f"; set {named} to folders that you can write")
    out, _ = place.run("pull", "demo/tiny:1", HOME=str(home))
    assert out[-1] == f"Success! {place.images}/demo-tiny:1.sif"


def test_two_at_once_in_one_folder(slow: Place) -> None:
    jobs = [slow.start("pull", f"demo/{name}:1") for name in ("one", "two")]
    results = [slow.finish(job) for job in jobs]
    for name, (out, _) in zip(("one", "two"), results, strict=True):
        assert out == [f"[container][new] demo/{name}:1", f"Success! {slow.images}/demo-{name}:1.sif"]
    assert len(slow.asked("blobs")) == 5  # the shared layer once
    assert list(slow.work.iterdir()) == []
    assert len(Catalog(slow.root / "database").records()) == 2


def test_the_same_image_twice_at_once(slow: Place) -> None:
    first = slow.start("pull", "demo/one:1")
    until(lambda: list((slow.root / "cache/docker/ingest").glob("*.partial")))
    second = slow.start("pull", "demo/one:1")
    success = f"Success! {slow.images}/demo-one:1.sif"
    assert slow.finish(first)[0] == ["[container][new] demo/one:1", success]
    out, err = slow.finish(second)
    assert out == [success]
    assert "waiting for another pull of the same" in err.splitlines()
    assert "Exploding" not in err
    assert len(slow.asked("blobs")) == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["interrupted", "ended", "killed"])
def test_cut_short_and_again(slow: Place, number: signal.Signals) -> None:
    process = slow.start("pull", "demo/big:1")
    store = slow.root / "cache/docker"
    until(lambda: list((store / "ingest").glob("*.partial")))
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert not slow.images.exists() or list(slow.images.iterdir()) == []
    if number != signal.SIGKILL:
        assert _stages(slow.root) == []
    out, _ = slow.run("pull", "demo/big:1", SREGISTRY_NVIDIA_BASE=slow.host)
    assert out == ["[container][new] demo/big:1", f"Success! {slow.images}/demo-big:1.sif"]
    # Jobs that do not end in time are killed, as on a busy machine: what they leave is taken over, or cleaned away.
    slow.run("store", "check")
    assert list((store / "locks").iterdir()) == list((store / "leases").iterdir()) == []
    until(lambda: _stages(slow.root) == [])


def _stages(root: Path) -> list[str]:
    """Return the command lines of stages that work below *root*."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"sregistry.stage" in words and any(str(root).encode() in word for word in words):
            found.append(b" ".join(words).decode())
    return found


@pytest.mark.parametrize("columns", [80, 200])
def test_on_a_terminal(slow: Place, columns: int) -> None:
    line = " ".join([sys.executable, "-m", "sregistry.cli", "pull", "demo/big:1"])
    process: pexpect.spawn[str] = pexpect.spawn(
        line, cwd=str(slow.work), env={**slow.environ, "TERM": "xterm"}, encoding="utf-8", timeout=60, dimensions=(24, columns)
    )
    process.expect(r"\[0/3\] fetching +\S")
    process.expect(r"[0-9a-f]{12} fetch +\S.* +\d+% +0\.\d/0\.6 MB +\d\.\d MB/s +0:0\d")
    process.expect("Exploding ")
    process.expect(r"\[3/3\] 1\.8 MB of layers in 0:\d\d")
    process.expect(r"\[container\]\[new\] demo/big:1\r\n")
    process.expect(rf"Success! {slow.images}/demo-big:1.sif\r\n")
    process.expect(pexpect.EOF)
    process.close()
    assert process.exitstatus == 0


def test_bars_fit_the_terminal(slow: Place) -> None:
    for columns, lines in ((80, 6), (60, 24), (200, 24)):
        process: pexpect.spawn[str] = pexpect.spawn(
            sys.executable,
            ["-m", "sregistry.cli", "pull", "demo/big:1", "--name", f"n{columns}"],
            cwd=str(slow.work),
            env={**slow.environ, "TERM": "xterm", "NO_COLOR": "1", "SINGULARITY_CACHEDIR": str(slow.root / f"cache{columns}")},
            encoding="utf-8",
            timeout=60,
            dimensions=(lines, columns),
        )
        process.expect(pexpect.EOF)
        text = process.before or ""
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", text)  # no colour
        drawn = [line for line in re.split(r"[\r\n]+", ESCAPE.sub("", text)) if re.match(r"\[\d/3\] [a-z]|[0-9a-f]{12} ", line)]
        assert drawn and max(map(len, drawn)) <= columns


def test_a_log_says_now_and_then_how_far_it_is(slow: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = slow.root / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text("from sregistry.pipeline.progress import displays\ndisplays.LINE = 0.5\n")
    path = os.pathsep.join(filter(None, [str(hook), slow.environ.get("PYTHONPATH")]))
    _, err = slow.run("pull", "demo/big:1", PYTHONPATH=path)
    far = [line for line in err.splitlines() if re.fullmatch(r"\[\d/3\] \d\.\d of 1\.8 MB fetched, .*", line)]
    assert far and "MB/s" in far[1], err
    assert re.search(r"^layer sha256:[0-9a-f]{12}: 0\.6 MB in \d\.\d s, .* [kM]B/s$", err, re.MULTILINE)
    assert re.search(r"^explode sha256:[0-9a-f]{12}: 0\.6 MB in \d\.\d s, .* [kM]B/s$", err, re.MULTILINE)


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # Snakemake's own files
def test_the_client(place: Place, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(place.work)
    client = place.client()
    before = dict(os.environ)
    one = client.pull("demo/one:1")
    assert isinstance(one, Container) and repr(one) == "<Container 'demo/one:1'>"
    both = client.pull(["demo/two:1", "demo/one:1"])
    assert isinstance(both, list) and [container.uri for container in both] == ["demo/two:1", "demo/one:1"]
    assert client.find("demo/one:1").id == both[1].id
    with pytest.raises(PullError) as caught:
        client.pull(["demo/none:1", "demo/one:1"])
    assert len(caught.value.errors) == 1 and "demo/none:1" in caught.value.errors[0]
    assert [str(made) for made in caught.value.pulled] == ["<Container 'demo/one:1'>"]
    with pytest.raises(UsageError):
        client.pull(["a/b", "c/d"], name="x")
    assert (dict(os.environ), Path.cwd()) == (before, place.work)
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_nothing_of_the_calling_process_changes(slow: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a pull lasts, and when it is interrupted: environment, folder, signals and files; it may be any thread's."""
    monkeypatch.chdir(slow.work)

    def own() -> tuple[object, ...]:
        return dict(os.environ), Path.cwd(), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), list(slow.work.iterdir())

    before = own()
    seen: list[object] = []

    class Watching(Silent):
        def show(self, view: View) -> None:
            seen.append(own() == before)
            raise KeyboardInterrupt

    def pull() -> None:
        with pytest.raises(KeyboardInterrupt):
            slow.client().pull("demo/big:1", progress=Watching(StringIO()))
        seen.append("interrupted")

    thread = threading.Thread(target=pull)
    thread.start()
    thread.join()
    assert seen == [True, "interrupted"]
    assert own() == before
    assert _stages(slow.root) == []


def test_old_state_goes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    root = place.root / "state/sregistry/pulls"
    for number in range(pipeline.KEPT + 5):
        (root / f"{number:020}").mkdir(parents=True)
        os.utime(root / f"{number:020}", (time.time() - 1000 - number,) * 2)
    os.utime(root / f"{0:020}", (time.time() - pipeline.FORGOTTEN - 10,) * 2)
    place.run("pull", "demo/tiny:1")
    kept = sorted(path.name for path in root.iterdir())
    assert len(kept) == pipeline.KEPT
    assert f"{0:020}" not in kept and f"{1:020}" in kept and f"{pipeline.KEPT + 4:020}" not in kept


def test_a_moment_of_no_memory_is_told(place: Place) -> None:
    """A job that is killed leaves no line of its own."""
    hook = place.root / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text("import os, sys\nif 'explode' in sys.orig_argv[3:5]:\n    os.kill(os.getpid(), 9)\n")
    path = os.pathsep.join(filter(None, [str(hook), place.environ.get("PYTHONPATH")]))
    _, err = place.run("pull", "demo/tiny:1", code=1, PYTHONPATH=path)
    assert err.splitlines()[-1].endswith("demo/tiny:1: a job ended by itself, with 137; was it killed, for want of memory?")


def test_no_secret_anywhere(place: Place) -> None:
    place.run("pull", "demo/tiny:1", SREGISTRY_NVIDIA_TOKEN="sec" + "ret-token")
    for path in place.root.rglob("*"):
        assert not path.is_file() or b"secret-token" not in path.read_bytes(), path
    (state,) = (path for path in (place.root / "state/sregistry/pulls").iterdir() if path.is_dir())
    assert json.loads(next(state.glob("results/*/record.json")).read_bytes())["uri"] == "demo/tiny:1"


def complaints(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("error: ")]


def test_another_image_s_file_is_refused(place: Place) -> None:
    """Before anything is asked, in one line with the ways out; an image that is asked for beside it is made."""
    tags = place.layout.tags()
    place.layout.tag("a/b-c:1", tags["demo/tiny:1"])
    place.layout.tag("a-b/c:1", tags["demo/one:1"])
    image = place.images / "a-b-c:1.sif"
    place.run("pull", "a/b-c:1")
    before, records = image.read_bytes(), place.client().images()
    for _ in range(2):
        place.asked("manifests")
        out, err = place.run("pull", "a-b/c:1", code=1)
        assert (out, place.asked("manifests")) == ([], [])
        (line,) = complaints(err)
        assert line.startswith(
            f"error: {image} holds {place.host}/a/b-c:1 (linux/amd64, sif), not {place.host}/a-b/c:1 (linux/amd64, sif); "
        )
        assert all(way in line for way in ("--name", "another storage", "--force"))
    place.asked("blobs")
    out, err = place.run("pull", "a-b/c:1", "demo/two:1", code=1)
    assert out == ["[container][new] demo/two:1", f"Success! {place.images}/demo-two:1.sif"]
    assert complaints(err) == [line] and len(place.asked("blobs")) == 3, "the other's layers are not fetched"
    assert (image.read_bytes(), place.client().images()[:1]) == (before, records)
    assert place.run("pull", "a-b/c:1", "--name", "c")[0][-1] == f"Success! {place.images}/c.sif"
    assert place.run("pull", "a-b/c:1", "--force")[0] == ["[container][new] a-b/c:1", f"Success! {image}"]
    assert image.read_bytes() != before
    assert [container.uri for container in place.client().images()] == ["demo/two:1", "a-b/c:1", "a-b/c:1"]
    (line,) = complaints(place.run("pull", "a/b-c:1", code=1)[1])
    assert f"{image} holds {place.host}/a-b/c:1 " in line


def test_another_registry_s_file_is_refused(place: Place) -> None:
    """Also without a catalog: the image tells. What is the same image is made again, though its record is lost."""
    place.environ |= {"SREGISTRY_QUAY_BASE": place.host.replace("127.0.0.1", "localhost"), "SREGISTRY_QUAY_NOHTTPS": "yes"}
    place.run("pull", "demo/one:1")
    (place.root / "database/sregistry.json").unlink()
    assert len(complaints(place.run("pull", "quay://demo/one:1", code=1)[1])) == 1
    place.layout.tag("demo/one:1", place.layout.tags()["demo/two:1"])
    assert place.run("pull", "demo/one:1")[0][-1] == f"Success! {place.images}/demo-one:1.sif"
    template = "{registry}-{collection}-{name}:{tag}"
    out, _ = place.run("pull", "quay://demo/one:1", SREGISTRY_FILENAME=template)
    assert out[-1] == f"Success! {place.images}/{place.environ['SREGISTRY_QUAY_BASE']}-demo-one:1.sif"
    uris = ["quay://demo/one:1", "demo/one:1"]
    assert [place.run("get", uri)[0] for uri in uris] == [[out[-1][9:]], [f"{place.images}/demo-one:1.sif"]]


def test_somebody_s_folder_is_not_replaced(place: Place) -> None:
    mine = place.images / "demo-tiny:1"
    mine.mkdir(parents=True)
    (mine / "thesis.tex").write_text("mine")
    for more in ([], ["--force"]):
        (line,) = complaints(place.run("pull", "demo/tiny:1", "--format", "sandbox", *more, code=1)[1])
        assert line.startswith(f"error: {mine} is a directory and no image; move it away")
        assert (mine / "thesis.tex").read_text() == "mine" and os.listdir(place.images) == [mine.name]


def test_a_program_is_refused_by_an_error(place: Place) -> None:
    place.images.mkdir()
    (place.images / "demo-tiny:1.sif").write_text("notes")
    with pytest.raises(PullError, match="nothing tells which image it is"):
        place.client().pull("demo/tiny:1")
    assert (place.images / "demo-tiny:1.sif").read_text() == "notes"
    assert place.client().pull("demo/tiny:1", force=True).uri == "demo/tiny:1"  # type: ignore[union-attr]
