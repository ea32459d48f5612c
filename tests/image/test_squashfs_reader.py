"""A file of a squashfs, read without mounting or unpacking it."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sregistry.errors import ImageError
from sregistry.image.squashfs import reader
from sregistry.layers.compression import Codec, Compression
from tests.support.engine import build
from tests.support.tarball import file as plain
from tests.support.tarball import symlink


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("size", [0, 1, 70_000, 131_072, 300_001])
def test_one_file_is_read(tmp_path: Path, codec: Codec, size: int) -> None:
    """Behind a thousand others, of blocks and of a fragment, and with a hole."""
    data = (b"".join(b"%d " % number for number in range(20_000)) + bytes(300_000))[:size]
    others = [plain(b"d/%04d" % number, b"%d" % number) for number in range(1000)]
    layers = [[*others, plain(b"d/x", data), plain(b"e/x", b"no"), symlink(b"l", b"d")]]
    build(tmp_path / "store", tmp_path / "i", layers, Compression(codec=codec))
    with (tmp_path / "i").open("rb") as opened:
        assert reader.read(opened, 31, "d/x") == data
        assert [reader.read(opened, 31, path) for path in ("d/0999", "e/x")] == [b"999", b"no"]
        assert [reader.read(opened, 31, path) for path in ("d", "l/x", "d/none", "none/x", "d/x/y", "d/1")] == [None] * 6


@pytest.mark.skipif(shutil.which("mksquashfs") is None, reason="needs mksquashfs (Debian: squashfs-tools)")
@pytest.mark.parametrize(("codec", "known"), [("gzip", True), ("xz", True), ("zstd", True), ("lz4", False)])
def test_those_of_squashfs_tools(tmp_path: Path, codec: str, known: bool) -> None:
    (tmp_path / "root/d").mkdir(parents=True)
    (tmp_path / "root/d/x").write_bytes(b"text" * 50_000)
    command = ["mksquashfs", str(tmp_path / "root"), str(tmp_path / "i"), "-comp", codec, "-quiet", "-no-progress"]
    subprocess.run(command, check=True, capture_output=True)
    with (tmp_path / "i").open("rb") as opened:
        assert reader.read(opened, 0, "d/x") == (b"text" * 50_000 if known else None)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("image")
    build(folder / "store", folder / "i", [[plain(b"d/x", b"text")]])
    return (folder / "i").read_bytes()[31:]


@settings(max_examples=2 * settings().max_examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 8000), st.integers(0, 255)), max_size=4), end=st.integers(0, 9000))
def test_what_is_damaged_is_read_or_refused(image: bytes, changes: list[tuple[int, int]], end: int) -> None:
    data = bytearray(image)
    for at, byte in changes:
        data[at % len(data)] = byte
    with contextlib.suppress(ImageError):
        reader.read(BytesIO(bytes(data[: end or None])), 0, "d/x")
