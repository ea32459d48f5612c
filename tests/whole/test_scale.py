"""What grows with an image: memory by the entry and no faster, and nothing is lost among many of them.

`scripts/benchmark --only scale` measures the same up to a million entries. Times are not judged here.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import scale
from benchmarks.scale import Case, Scaled
from tests.support import engine
from tests.support.tarball import directory, file, link

pytestmark = pytest.mark.slow("scale", once=True)

#: What a job may take, whatever the image.
LIMIT = 500_000_000


def measured(case: Case, folder: Path) -> dict[str, Scaled]:
    folder.mkdir()
    return {cost.stage: cost for cost in scale.measure(case, folder)}


def listed(image: Path) -> dict[str, tuple[str, int | str]]:
    """Return kind and size or target of each path, as unsquashfs lists them."""
    command = ["unsquashfs", "-o", "31", "-ll", "-d", "", str(image)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    found: dict[str, tuple[str, int | str]] = {}
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) == 6 and fields[5].startswith("/"):
            path, _, target = fields[5].partition(" -> ")
            kind = fields[0][0]
            found[path[1:]] = (kind, target if kind == "l" else int(fields[2]) if kind == "-" else 0)
    return found


def members(case: Case) -> Iterator[tuple[str, tuple[str, int | str]]]:
    """Yield the same of each entry of a case, layer by layer, as the standard library reads them."""
    for layer in range(case.layers):
        with tarfile.open(fileobj=io.BytesIO(b"".join(case.tar(layer)))) as tar:
            for item in tar:
                kind = "d" if item.isdir() else "l" if item.issym() else "-"
                yield item.name, (kind, item.linkname if kind == "l" else item.size)


def surplus(found: dict[str, tuple[str, int | str]], expected: dict[str, tuple[str, int | str]]) -> set[str]:
    """Return the paths that neither the layers nor our base environment have, nor lead to those of the layers."""
    parents = {path[:end] for path in expected for end in range(len(path)) if path[end] == "/"}
    ours = (".singularity.d", ".run", ".exec", ".test", ".shell", "singularity", "environment")
    points = ("dev", "proc", "root", "var", "var/tmp", "tmp", "etc", "sys", "home", "etc/hosts", "etc/resolv.conf")
    return {path for path in found.keys() - expected.keys() - parents - set(points) if path and path.split("/")[0] not in ours}


@pytest.mark.needs("unsquashfs")
def test_memory_grows_with_the_entries_and_no_faster(tmp_path: Path) -> None:
    """A million entries take what 10,000 take, and 99 times what 10,000 more take; that must be within the limit."""
    large = Case(name="100k", entries=100_000)
    small, more = measured(Case(name="10k", entries=10_000), tmp_path / "10k"), measured(large, tmp_path / "100k")
    for stage in scale.STAGES:
        step = (more[stage].memory - small[stage].memory) / 9
        assert small[stage].memory + 99 * step < LIMIT, (stage, small[stage], more[stage])
    found, expected = listed(tmp_path / "100k/image"), dict(members(large))
    assert more["explode"].entries >= len(expected) >= 100_000
    assert {path: found.get(path) for path in expected} == expected
    assert surplus(found, expected) == set()


@pytest.mark.needs("unsquashfs")
def test_three_hundred_layers(tmp_path: Path) -> None:
    case = Case(name="300 layers", layers=300, entries=120)
    measured(case, tmp_path / "300")
    found, expected = listed(tmp_path / "300/image"), dict(members(case))
    assert len([path for path in expected if "own299" in path]) > 50, "each layer has files of its own"
    assert {path: found.get(path) for path in expected} == expected
    assert surplus(found, expected) == set()


@pytest.mark.needs("unsquashfs")
def test_thousands_of_other_names(tmp_path: Path) -> None:
    """Names of inodes that lie elsewhere, alone and in rows, within a layer and across layers."""
    files = [file(b"a/%04d" % n, b"%d" % n) for n in range(3000)]
    links = [link(b"b/%04d" % n, b"a/%04d" % (n * 7 % 3000)) for n in range(3000)]
    mixed = [link(b"c/%04d" % n, b"b/%04d" % n) if n % 3 else file(b"c/%04d" % n, b"own") for n in range(900)]
    engine.build(tmp_path / "store", tmp_path / "i", [[directory(b"b"), *files, *links], mixed])
    engine.unsquashed(tmp_path / "i", tmp_path / "out")
    out = tmp_path / "out"
    assert all((out / f"b/{n:04}").read_text() == str(n * 7 % 3000) for n in range(3000))
    assert all(os.path.samefile(out / f"b/{n:04}", out / f"a/{n * 7 % 3000:04}") for n in range(3000))
    assert {(out / f"c/{n:04}").stat().st_nlink for n in range(900)} == {1, 3}
    assert {(out / f"a/{n:04}").stat().st_nlink for n in range(3000)} == {2, 3}
