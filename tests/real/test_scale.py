"""Numbers of more than 32 bits, judged by the kernel: a file of 6 GB, and files behind more than 4 GiB of data."""

from __future__ import annotations

import os
import random
import tempfile
import threading
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from benchmarks import scale
from sregistry.image import assemble as image
from sregistry.image import merge
from sregistry.image.metadata import environment_tar
from sregistry.layers.compression import Compression
from sregistry.layers.explode import explode_stream
from sregistry.layers.index import Index
from sregistry.oci.documents import Digest
from sregistry.store.store import Store
from tests.real.conftest import mounted, tool
from tests.support import engine
from tests.support.tarball import file

pytestmark = pytest.mark.needs("mount", "unsquashfs")
FAST = Compression(level="fast")


@pytest.fixture
def space() -> Iterator[Path]:
    """Return a folder that is gone at once, with its gigabytes; pytest would keep the last ones."""
    with tempfile.TemporaryDirectory(prefix="sregistry-scale-") as name:
        yield Path(name)


def assemble(space: Path, layers: list[Path]) -> Path:
    below, above = engine.folders(space / "store", [environment_tar(), []], FAST)
    packed = merge.merge([below, *layers, above])
    image.build(packed, format="simg", target=space / "image", created=0, deffile=b"", documents={}, architecture="amd64")
    return space / "image"


def test_a_file_of_six_gigabytes(space: Path) -> None:
    case = scale.Case(name="6 GB", size=6_000_000_000)
    # Known, because to read it twice would take as long as all the rest.
    digest = Digest("sha256:9a910358a0cb971eb1cbf744358494318203eea20cb5c54ce296c0f1b7b668a3")
    store = Store(space / "store")
    os.mkfifo(space / "tar-0")
    threading.Thread(target=scale.feed, args=(case, space), daemon=True).start()
    with open(space / "tar-0", "rb") as pipe:
        layer = explode_stream(store, pipe, "layer", digest, FAST, threads=2)
    made = assemble(space, [layer.folder])
    assert made.stat().st_size < 200_000_000, "blocks that compress well"
    pieces = case.tar(0)
    start = b"".join(islice(pieces, 2))[512:]
    with mounted(made, 31, space / "mnt") as root, (root / "large").open("rb") as content:
        assert os.fstat(content.fileno()).st_size == case.size
        assert content.read(len(start)) == start
        # The blocks of the tar repeat, each 1 MiB: see `scale.single`.
        for place in (2**31 - 3, 2**32 - 3, 2**32 + 5 * 2**20, case.size - 1000):
            content.seek(place)
            found = content.read(1000)
            content.seek(place % (8 << 20))
            assert found == content.read(1000), place


def test_files_behind_four_gigabytes_of_data(space: Path) -> None:
    part = random.Random(1).randbytes(128 << 20)
    tail = random.Random(2).randbytes(300_001)
    first, last = engine.folders(space / "store", [[file(b"part-00", part)], [file(b"after", tail), file(b"small", b"tail")]], FAST)
    # The same data many times, under other names: one part is enough to compress.
    parts = []
    for number in range(34):
        folder = space / f"part-{number:02}"
        folder.mkdir()
        index = Index.read(first / "index")
        index._heap = bytes(index._heap).replace(b"part-00", folder.name.encode())
        with (folder / "index").open("wb") as file_:
            index.write(file_)
        os.link(first / "data", folder / "data")
        parts.append(folder)
    made = assemble(space, [*parts, last])
    assert made.stat().st_size > 34 * len(part) > 1 << 32
    with mounted(made, 31, space / "mnt") as root:
        assert (root / "after").read_bytes() == tail
        assert (root / "small").read_bytes() == b"tail"
        assert (root / "part-33").read_bytes() == part
        for name in ("part-00", "part-17", "part-31", "part-32"):
            with (root / name).open("rb") as content:
                for place in (0, 77 << 20, (128 << 20) - 4096):
                    content.seek(place)
                    assert content.read(4096) == part[place : place + 4096], (name, place)
    tool("unsquashfs", "-quiet", "-no-progress", "-o", "31", "-d", space / "out", made, "after", "small")
    assert (space / "out/after").read_bytes() == tail and (space / "out/small").read_bytes() == b"tail"
