"""Copying into an image: what comes into it is what the indexes of its layers say, whatever part of their data is used."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from sregistry.config.filename import FORMATS
from sregistry.errors import StoreError
from sregistry.image import assemble, merge, tree
from sregistry.image.copying import Checker, Copier, Follower
from sregistry.image.squashfs.layout import Stretch
from sregistry.layers.contents import Contents
from sregistry.layers.index import STRETCH, DamagedLayer
from tests.support import engine
from tests.support.tarball import file

NOISE = random.Random(5)
#: Layers whose data is several stretches; the second hides files of the first, so that some of it is dead.
LAYERS = [
    [file(b"f%d" % n, NOISE.randbytes(400_000 + n)) for n in range(9)],
    [file(b".wh.f2"), file(b".wh.f7"), file(b"g", NOISE.randbytes(1_300_000)), file(b"text", b"text " * 50_000)],
]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tree.Sandbox:
    return merge.merge(engine.folders(tmp_path_factory.mktemp("copying") / "store", [[], *LAYERS, []]))


def build(packed: tree.Sandbox, target: Path, kind: str) -> bytes:
    more = {"created": 1, "deffile": b"", "documents": {}, "architecture": "amd64"}
    made = assemble.build(packed, format=kind, target=target, **more)  # type: ignore[arg-type]
    return b"" if kind == "sandbox" else Path(made.path).read_bytes()


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("layer", [1, 2])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.6, 0.999])
def test_a_flipped_bit_comes_into_no_image(packed: tree.Sandbox, tmp_path: Path, kind: str, layer: int, part: float) -> None:
    """Noise is stored as it is: no decoder would notice."""
    path = packed.folders[layer] / "data"
    right = path.read_bytes()
    wrong = bytearray(right)
    wrong[int(len(right) * part)] ^= 1
    path.write_bytes(wrong)
    try:
        with pytest.raises(DamagedLayer, match=f"{path} is damaged at byte [0-9]*") as caught:
            build(packed, tmp_path / "i", kind)
        assert caught.value.folder == packed.folders[layer]
    finally:
        path.write_bytes(right)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", FORMATS)
def test_a_layer_that_was_exchanged_after_the_merge_is_noticed(packed: tree.Sandbox, tmp_path: Path, kind: str) -> None:
    one, other = packed.folders[1], packed.folders[2]
    swapped = [(one, tmp_path / "aside"), (other, one)]
    for old, new in swapped:
        old.rename(new)
    try:
        with pytest.raises(DamagedLayer, match="is another one than when the layer was exploded"):
            build(packed, tmp_path / "i", kind)
    finally:
        for old, new in reversed(swapped):
            new.rename(old)


def test_the_parts_of_stretches_that_are_used_are_checked_once(packed: tree.Sandbox, tmp_path: Path) -> None:
    """Of any cut: each stretch with a part in the image is read once, others never."""
    layers = packed.indexes()
    draw = random.Random(3)
    for _ in range(20):
        stretches, size = [], 0
        for layer in (1, 2):
            at = 0
            while at < layers[layer].data_size:
                at += draw.choice([0, 1, 70_000, 2_000_000])
                length = min(draw.choice([1, 500, 90_000, STRETCH, 2 * STRETCH + 1]), layers[layer].data_size - at)
                if length > 0:
                    stretches.append(Stretch(layer, at, length))
                    at, size = at + length, size + length
        with Contents(packed.folders, layers) as contents, (tmp_path / "image").open("w+b") as out:
            out.write(b"head")
            out.flush()
            with Follower(out.fileno()) as follower:
                follower.start()
                follower.reached(4)
                with Copier(out.fileno(), 4, stretches, layers, contents, follower):
                    pass
            out.seek(0)
            content = out.read()
            parts = [os.pread(contents.handle(s.layer), s.size, s.offset) for s in stretches]
            assert content == b"head" + b"".join(parts) and len(content) == size + 4
            assert follower.hash.digest() == hashlib.sha256(content).digest()
            checks = [
                (layer, number) for _, layer, number, _ in Checker(out.fileno(), 4, stretches, layers, contents)._checks(4, stretches)
            ]
            used = {(s.layer, n) for s in stretches for n in range(s.offset // STRETCH, (s.offset + s.size - 1) // STRETCH + 1)}
            assert len(checks) == len(set(checks)) and set(checks) == used


def test_what_others_change_while_it_is_copied_is_noticed(packed: tree.Sandbox, tmp_path: Path) -> None:
    """What is compared is what has come into the image, not what is read a second time."""
    layers = packed.indexes()
    stretch = Stretch(1, 0, layers[1].data_size)
    with Contents(packed.folders, layers) as contents, (tmp_path / "image").open("w+b") as out:
        data = bytearray(os.pread(contents.handle(1), stretch.size, 0))
        data[STRETCH + 5] ^= 1
        out.write(data)
        out.flush()
        with pytest.raises(DamagedLayer, match=f"at byte {STRETCH}"), Checker(out.fileno(), 0, [stretch], layers, contents) as checker:
            checker.reached(stretch.size)


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    path.rename(path.with_name("x"))
    make(path)


WRONG: dict[str, Callable[[Path], object]] = {
    "short": lambda path: os.truncate(path, 10),
    "gone": lambda path: path.unlink(),
    "pipe": lambda path: _replace(path, os.mkfifo),
    "folder": lambda path: _replace(path, Path.mkdir),
    "link": lambda path: _replace(path, lambda at: at.symlink_to("x")),
}


@pytest.mark.parametrize("part", ["data", "index"])
@pytest.mark.parametrize("what", WRONG)
def test_a_layer_of_other_things_than_files_is_one_clear_line(tmp_path: Path, what: str, part: str) -> None:
    packed = engine.merged(tmp_path / "store", [[file(b"f", b"text" * 9)]])
    WRONG[what](packed.folders[1] / part)
    with pytest.raises(StoreError, match=r"damaged|can't read"):
        build(packed, tmp_path / "i", "sif")
