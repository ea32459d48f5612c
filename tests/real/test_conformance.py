"""Whiteouts, links and replacements: hundreds of generated cases, each judged by what umoci unpacks as root.

Cases that can be applied share one image, each in a folder of its own, so that one unpacking judges all.
Ours is read through the kernel, by unsquashfs, and as a sandbox directory. Where umoci 0.4.7 is no judge,
`cases.DEVIATIONS` names the reason, and a layer that says plainly what must come out is the judge.
"""

from __future__ import annotations

import dataclasses
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from sregistry.errors import LayerError
from tests.real.conftest import extracted, mounted
from tests.support import cases, engine, images, oracle
from tests.support.cases import Case
from tests.support.model import IMPLIED, Ambiguous, Reference
from tests.support.oracle import Tree
from tests.support.tarball import Member

pytestmark = pytest.mark.needs("mount", "umoci", "unsquashfs")

EVERY = {case.name: case for case in cases.every()}
ROOT = {name: Case(name, layers) for name, layers in cases.ROOT.items()}
REFUSED = cases.refused()
DEVIATING = cases.deviating()
DEVIATION = {name: deviation for deviation in cases.DEVIATIONS.values() for name in deviation.cases}
#: Who reads what we made.
READERS = ("kernel", "unsquashfs", "sandbox")

Layers = list[list[Member]]


def umoci(layers: Layers, folder: Path) -> subprocess.CompletedProcess[str]:
    """Let umoci unpack an image of *layers* to ``folder/root``."""
    layout = images.Layout(folder / "layout")
    layout.tag("case", layout.image([images.layer(layer, "plain") for layer in layers]))
    command = ["umoci", "raw", "unpack", "--image", f"{folder}/layout:case", f"{folder}/root"]
    return subprocess.run(command, capture_output=True, text=True, umask=0o022, check=False)


def ours(layers: Layers, folder: Path) -> dict[str, Tree]:
    """Build *layers* as an image and as a sandbox and return what each reader sees."""
    engine.build(folder / "store", folder / "image", layers)
    engine.build(folder / "store", folder / "sandbox", layers, format="sandbox")
    with mounted(folder / "image", 31, folder / "mnt") as root:
        kernel = oracle.tree(root)
    return {
        "kernel": kernel,
        "unsquashfs": oracle.tree(extracted(folder / "image", 31, folder / "out")),
        "sandbox": oracle.tree(folder / "sandbox"),
    }


def together(every: Iterable[Case]) -> Layers:
    """Return the layers of one image that holds all cases, each below a folder of its own."""
    placed = [case.at(_folder(number)) for number, case in enumerate(every)]
    return [[member for layers in placed for member in (layers[i] if i < len(layers) else ())] for i in range(max(map(len, placed)))]


def _folder(number: int) -> bytes:
    return b"%03d" % number


def below(tree: Tree, folder: bytes) -> Tree:
    """Return the part of *tree* at and below *folder*."""
    return {path: node for path, node in tree.items() if path.split(b"/")[0] == folder}


def differences(expected: Tree, found: dict[str, Tree], **options: Any) -> list[str]:
    """Return a line for each reader and difference."""
    return [f"{reader}: {line}" for reader, tree in found.items() for line in oracle.differences(expected, tree, **options)]


@dataclasses.dataclass(frozen=True)
class Judged:
    """What umoci unpacked and since when its folders' times are not the image's; what readers find in ours."""

    expected: Tree
    since: int
    ours: dict[str, Tree]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Judged]:
    """Return a function: a case's part of the image that holds all of them."""
    folder, since = tmp_path_factory.mktemp("cases"), int(time.time())
    layers = together(EVERY.values())
    done = umoci(layers, folder)
    assert done.returncode == 0, done.stderr
    expected, found = oracle.tree(folder / "root"), ours(layers, folder)
    numbers = {name: _folder(number) for number, name in enumerate(EVERY)}
    assert {path.split(b"/")[0] for path in expected if path} == set(numbers.values()), "a case that leaves its folder"
    parts: dict[bytes, list[Tree]] = {number: [{} for _ in range(1 + len(READERS))] for number in numbers.values()}
    for position, tree in enumerate([expected, *(found[reader] for reader in READERS)]):
        for path, node in tree.items():
            if (part := parts.get(path.split(b"/")[0])) is not None:
                part[position][path] = node
    return lambda name: Judged(parts[numbers[name]][0], since, dict(zip(READERS, parts[numbers[name]][1:], strict=True)))


@pytest.mark.parametrize("name", EVERY)
def test_case(judged: Callable[[str], Judged], name: str) -> None:
    part = judged(name)
    assert part.expected
    assert differences(part.expected, part.ours, implied_since=part.since, added=False) == []


@pytest.mark.parametrize("name", ROOT)
def test_case_of_the_root(tmp_path: Path, name: str) -> None:
    layers, since = ROOT[name].at(b""), int(time.time())
    done = umoci(layers, tmp_path)
    assert done.returncode == 0, done.stderr
    expected = oracle.tree(tmp_path / "root")
    assert differences(expected, ours(layers, tmp_path), implied_since=since) == []


@pytest.mark.parametrize("name", REFUSED)
def test_refused(tmp_path: Path, name: str) -> None:
    case, words = REFUSED[name]
    layers = case.at(b"case")
    assert umoci(layers, tmp_path).returncode != 0
    with pytest.raises(LayerError, match=words):
        engine.build(tmp_path / "store", tmp_path / "image", layers)
    assert not (tmp_path / "image").exists()


@pytest.mark.parametrize("name", DEVIATING)
def test_deviation(tmp_path: Path, name: str) -> None:
    """Where umoci is no judge it must still be none: a deviation that has gone is to be taken off the table."""
    case, plain = DEVIATING[name]
    layers = case.at(b"case")
    reference = Reference()
    assert reference.apply(plain.at(b"case")[0]) == plain.at(b"case")[0]
    expected = below(reference.nodes(), b"case")
    found = ours(layers, tmp_path)
    assert differences(expected, {reader: below(tree, b"case") for reader, tree in found.items()}, implied_since=IMPLIED) == []
    since = int(time.time())
    done = umoci(layers, tmp_path)
    if words := DEVIATION[name].umoci:
        assert done.returncode != 0 and words in done.stderr
    else:
        assert oracle.differences(below(oracle.tree(tmp_path / "root"), b"case"), below(found["kernel"], b"case"), implied_since=since)


def test_deviations_are_few() -> None:
    assert len(cases.DEVIATIONS) <= 3 and len(DEVIATING) * 50 <= len(EVERY)


def test_the_reference_of_the_property_tests_is_of_the_same_mind(judged: Callable[[str], Judged]) -> None:
    """It also knows the time of a folder in which umoci made another, which umoci forgets to set back."""
    disagreeing, doubtful = {}, set()
    for number, (name, case) in enumerate(EVERY.items()):
        reference = Reference()
        try:
            clear = all(reference.apply(layer) == layer for layer in case.at(_folder(number)))
        except Ambiguous:
            clear = False
        if not clear:
            doubtful.add(name)
            continue
        loose = {b"/".join(path) for path in reference.loose}
        made = below(reference.nodes(), _folder(number))
        if lines := differences(made, judged(name).ours, implied_since=IMPLIED, loose=loose, added=False):
            disagreeing[name] = lines
    assert disagreeing == {}
    assert len(doubtful) * 6 < len(EVERY), sorted(doubtful)
