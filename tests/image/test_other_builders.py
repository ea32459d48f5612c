"""Builders beside ours, with programs that a test writes: found, run, failing; nothing half-done is left.

What real programs make is judged in real/test_builders.py.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sregistry.config.options import BUILDERS
from sregistry.errors import ImageError
from sregistry.image import other_builders, programs
from sregistry.image.assemble import prefix_of
from sregistry.image.squashfs import format as f
from sregistry.image.unpack import open_bits
from sregistry.layers.compression import Compression
from sregistry.layers.contents import Contents
from sregistry.layers.index import Index
from sregistry.layers.tar_reader import Kind
from sregistry.results import receipts
from tests.support import engine
from tests.support.tarball import CHARACTER, device, directory, file, symlink

LAYER = [directory(b"d"), file(b"d/f", b"text " * 50_000), symlink(b"s", b"d/f")]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Return a function that puts a shell script on PATH as a program."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(name: str, script: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return path

    return write


def made(root: Path, builder: str = "mksquashfs", **more: Any) -> dict[str, Any]:
    packed = engine.merged(root / "store", [more.pop("layer", LAYER)], more.pop("compression", None))
    settings: dict[str, Any] = {"level": "default", "threads": 1, "scratch": None, "format": "sif", "target": root / "images" / "i"}
    settings |= {"created": 0, "deffile": b"", "documents": {}, "architecture": "amd64"}
    return other_builders.build(packed, builder=builder, **{**settings, **more}).json()


def left(root: Path) -> list[str]:
    return [path.name for path in (root / "images").iterdir()] if (root / "images").exists() else []


# -- programs


def test_native_needs_no_program() -> None:
    assert programs.find("native") is None


@pytest.mark.parametrize("builder", [name for name in BUILDERS if name != "native"])
def test_a_missing_program_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builder: str) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "_MORE", (str(tmp_path / "sbin"),))
    with pytest.raises(ImageError, match="no program") as caught:
        made(tmp_path, builder)
    line = str(caught.value)
    assert f"builder: {builder}: " in line and f"{tmp_path}/sbin" in line and "install" in line and "builder: native" in line
    assert "\n" not in line and left(tmp_path) == []


def test_apptainer_goes_before_singularity(install: Callable[[str, str], Path]) -> None:
    install("singularity", "")
    apptainer = install("apptainer", "")
    assert programs.find("singularity") == apptainer


@pytest.mark.parametrize(
    ("text", "version"),
    [("mksquashfs version 4.5.1 (2022/03/17)", (4, 5)), ("mksquashfs version 4.4-git.1 (2020)", (4, 4)), ("what?", (0, 0))],
)
def test_versions(install: Callable[[str, str], Path], text: str, version: tuple[int, int]) -> None:
    assert programs.version(install("mksquashfs", f"echo '{text}'; exit 1")) == version


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo fine >&2; echo 'FATAL ERROR: no space' >&2; exit 1", r"tool failed \(1\): fine FATAL ERROR: no space;"),
        (
            "echo 'FATAL:   while: exit status 1: first' >&2; echo ' : second' >&2; exit 255",
            r"\(255\): FATAL: while: exit status 1: first : second;",
        ),
        ("echo one >&2; echo two >&2; exit 3", r"\(3\): two;"),
        ("exit 4", r"\(4\): it says nothing;"),
        ("kill -9 $$", "was ended by signal 9: it says nothing;"),
        ("head -c 3000000 /dev/zero | tr '\\0' x >&2; exit 1", r"\(1\): x{400}…;"),
        ("printf '\\377\\376 broken' >&2; exit 1", r"\\xff\\xfe broken"),
    ],
)
def test_a_failure_is_its_last_words(install: Callable[[str, str], Path], script: str, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        programs.run([install("tool", script)])
    assert "\n" not in str(caught.value)


def test_a_program_that_stops_to_read_says_why(install: Callable[[str, str], Path]) -> None:
    def endless(sink: programs.Sink) -> None:
        while True:
            sink(bytes(1 << 16))

    with pytest.raises(ImageError, match="seen enough"):
        programs.run([install("tool", "head -c 10 >/dev/null; echo seen enough >&2; exit 1")], feed=endless)


def test_a_program_gets_no_secret(install: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SREGISTRY_NVIDIA_TOKEN", "secret")
    monkeypatch.setenv("APPTAINER_DOCKER_PASSWORD", "secret")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")
    lines = programs.run([install("tool", "env >&2; pwd >&2")], folder=Path("/"), environment={"MORE": "1"})
    assert not any(line.startswith(("SREGISTRY_", "SOURCE_DATE_EPOCH")) for line in lines)
    assert "MORE=1" in lines and lines[-1] == "/" and not any(line.endswith("=secret") for line in lines)


def test_what_a_program_started_ends_with_it(install: Callable[[str, str], Path], tmp_path: Path) -> None:
    def feed(sink: programs.Sink) -> None:
        while not (tmp_path / "child").exists() or not (tmp_path / "child").read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt

    script = f"sleep 1000 & echo $! >{tmp_path}/child; wait"
    with pytest.raises(KeyboardInterrupt):
        programs.run([install("tool", script)], feed=feed)
    assert _gone(int((tmp_path / "child").read_text()))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_cancelled_while_its_program_starts_ends_it(
    install: Callable[[str, str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    class Late(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            (tmp_path / "child").write_text(str(self.pid))
            signal.raise_signal(number)

    monkeypatch.setattr(subprocess, "Popen", Late)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with pytest.raises(SystemExit if number == signal.SIGTERM else KeyboardInterrupt):
            programs.run([install("tool", "exec sleep 1000")])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert _gone(int((tmp_path / "child").read_text()))


def test_a_program_of_a_job_that_no_interrupt_reaches_goes_on(install: Callable[[str, str], Path], tmp_path: Path) -> None:
    """As under nohup: an ignored signal ends neither of them, and SIGTERM still ends both."""
    script = f"echo $$ >{tmp_path}/child; kill -INT $$; echo goes on >&2"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        signal.raise_signal(signal.SIGINT)
        assert programs.run([install("tool", script)]) == ["goes on"]
    finally:
        signal.signal(signal.SIGINT, before)


def _gone(process: int) -> bool:
    """Wait for a process to end; a zombie that nobody waits for has ended."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


# -- images

VERSION = 'if [ "$1" = -version ]; then echo "mksquashfs version 4.6 (2023)"; exit; fi; '


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('echo "mksquashfs version 4.4 (2019)"', "is version 4.4, builder: mksquashfs needs 4.5"),
        (VERSION + "cat >/dev/null; echo 'FATAL ERROR: out of order' >&2; exit 1", "out of order"),
        (VERSION + "exit 0", "wrote no whole squashfs"),
        (VERSION + 'cat >/dev/null; echo garbage >"$2"', "wrote no whole squashfs"),
    ],
)
def test_a_failing_mksquashfs_leaves_what_was_there(install: Callable[[str, str], Path], tmp_path: Path, script: str, words: str) -> None:
    install("mksquashfs", script)
    (tmp_path / "images").mkdir()
    (tmp_path / "images/i").write_text("older image")
    with pytest.raises(ImageError, match=words):
        made(tmp_path)
    assert left(tmp_path) == ["i"] and (tmp_path / "images/i").read_text() == "older image"


def test_an_inode_too_few_is_noticed(install: Callable[[str, str], Path], tmp_path: Path) -> None:
    """A squashfs of something else, as a tool that loses entries would make."""
    packed = engine.build(tmp_path / "store", tmp_path / "other.simg", [[file(b"f", b"")]])
    install("mksquashfs", VERSION + f'cat >/dev/null; tail -c +32 {tmp_path}/other.simg | dd of="$2" bs=1 seek=31 status=none conv=notrunc')
    with pytest.raises(ImageError, match=rf"made {packed['inodes']} inodes of \d+"):
        made(tmp_path, format="simg")
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("compression", "level", "options"),
    [
        (Compression(), "default", "-comp gzip -Xcompression-level 6 -b 131072 -processors 1 -mem 260M"),
        (Compression(level="small", block_size=1 << 20), "small", "-comp gzip -Xcompression-level 9 -b 1048576 -processors 1 -mem 260M"),
        (Compression.parse(codec="zstd", level="fast", block_size=65536), "fast", "-comp zstd -Xcompression-level 1 -b 65536"),
        (Compression.parse(codec="zstd", level="small", block_size=65536), "small", "-comp zstd -Xcompression-level 15 -b 65536"),
    ],
)
@pytest.mark.parametrize("builder", ["mksquashfs", "singularity"])
def test_compression_and_threads_arrive(
    install: Callable[[str, str], Path], tmp_path: Path, builder: str, compression: Compression, level: str, options: str
) -> None:
    install("mksquashfs", VERSION + "cat >/dev/null; echo said: $* >&2; exit 1")
    install("apptainer", 'case $2 in --help) echo " --mksquashfs-args";; *) echo said: $* >&2; exit 1;; esac')
    with pytest.raises(ImageError, match="said: .*" + re.escape(options)):
        made(tmp_path, builder, compression=compression, level=level)
    assert left(tmp_path) == []


def test_threads(install: Callable[[str, str], Path], tmp_path: Path) -> None:
    install("mksquashfs", VERSION + "cat >/dev/null; echo said: $* >&2; exit 1")
    with pytest.raises(ImageError, match="-processors 6 -mem 280M"):
        made(tmp_path, threads=6)


def test_an_old_runtime_compresses_in_its_own_way(install: Callable[[str, str], Path], tmp_path: Path) -> None:
    install("apptainer", "case $2 in --help) echo usage;; *) echo said: $* >&2; exit 1;; esac")
    with pytest.raises(ImageError, match=r"said: build image\.sif rootfs"):
        made(tmp_path, "singularity")
    with pytest.raises(ImageError, match="has no --mksquashfs-args"):
        made(tmp_path, "singularity", level="fast")


def test_temporary_folders_go_where_they_should(install: Callable[[str, str], Path], tmp_path: Path) -> None:
    said = tmp_path / "said"  # an error shows no more than the beginning of long words
    told = f'printf "%s\\n" "$PWD" "$APPTAINER_TMPDIR" "$SINGULARITY_TMPDIR" "$APPTAINER_CACHEDIR" >{said}'
    install("apptainer", f"case $2 in --help) ;; *) {told}; exit 1;; esac")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for place, folder in [(scratch, scratch), (None, tmp_path / "images")]:
        with pytest.raises(ImageError, match="apptainer failed"):
            made(tmp_path, "singularity", scratch=place)
        folders = said.read_text().splitlines()
        assert len(folders) == 4 and all(Path(name).is_relative_to(folder) for name in folders), folders
    assert list(scratch.iterdir()) == [] and left(tmp_path) == []
    with pytest.raises(ImageError, match=r"can't write .*scratch/none"):
        made(tmp_path, "singularity", scratch=scratch / "none")


@pytest.mark.parametrize("builder", ["mksquashfs", "singularity"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_cancelled_job_leaves_nothing(install: Callable[[str, str], Path], tmp_path: Path, builder: str, number: signal.Signals) -> None:
    waits = f"echo $$ >{tmp_path}/running; exec sleep 1000"
    install("mksquashfs", VERSION + waits)
    install("apptainer", f"case $2 in --help) ;; *) {waits};; esac")
    (tmp_path / "images").mkdir()
    packed = engine.merged(tmp_path / "store", [LAYER])
    packed.write(tmp_path / "sandbox.index")
    config = '{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}'
    resolved = {
        **{"uri": "a/b:1", "client": "nvidia", "registry": "h", "repository": "a/b", "tag": "1", "url": "u"},
        "digest": "sha256:" + "0" * 64,
        "platform": "linux/amd64",
        "size": 1,
        "config": {"mediaType": "c", "digest": "sha256:" + "1" * 64, "size": 1},
        "layers": [],
        "documents": [],
        "image_config": config,
    }
    receipts.write(tmp_path / "manifest.json", resolved)
    receipts.Metadata(
        environment="e", metadata="m", variant="v", indexes=("00", "00"), docker_cmd=False, created=0, store="s", holds=()
    ).write(tmp_path / "metadata.json")
    command = [sys.executable, "-m", "sregistry.stages", "image", "--manifest", "manifest.json", "--metadata", "metadata.json"]
    command += ["--sandbox", "sandbox.index", "--format", "sif", "--target", "images/i", "--builder", builder, "--output", "image.json"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "running").exists() or not (tmp_path / "running").read_text():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert (process.returncode, said) == (128 + number, "")
    assert left(tmp_path) == [] and not (tmp_path / "image.json").exists()
    assert _gone(int((tmp_path / "running").read_text()))


def test_the_prefix_has_one_length(tmp_path: Path) -> None:
    """The squashfs is written in its place before its size is known."""
    sizes = (f.PADDING, 1 << 33)
    lengths = {
        len(prefix_of("sif", b"d", {"a": b"1" * 3000}, str(size).encode(), size, architecture="arm64", created=size)) for size in sizes
    }
    assert len(lengths) == 1


def test_what_a_runtime_can_not_keep_is_named(install: Callable[[str, str], Path], tmp_path: Path) -> None:
    layer = [
        directory(b"locked", 0),
        file(b"locked/f", b"", uid=5),
        file(b"ping", b"", mode=0o111, gid=7, xattrs={b"security.capability": b"c", b"security.selinux": b"l"}),
        device(b"null", CHARACTER, 1, 3, mode=0o666),
        file(b"note", b"", mode=0o400, xattrs={b"user.n": b"v"}),
    ]
    packed = engine.merged(tmp_path, [layer])
    layers = [Index.read(folder / "index") for folder in packed.folders]
    with Contents(packed.folders, layers) as contents:
        job = other_builders.Job(packed, layers, contents, 0, "default", 1, tmp_path)
        assert other_builders.unkept(job, root=True) == ["extended attributes (1, such as /note)"]
        assert other_builders.unkept(job, root=False) == [
            "capabilities (1, such as /ping)",
            "devices (1, such as /null)",
            "extended attributes (1, such as /note)",
            "modes that lock out the owner (2, such as /locked)",
            "owners (2, such as /locked/f)",
        ]
    assert (open_bits(Kind.DIRECTORY), open_bits(Kind.FILE)) == (0o700, 0o400)
