"""Merging layers: a table of cases, each with the tree that must come out."""

from __future__ import annotations

from pathlib import Path

import pytest

from sregistry import sandbox
from sregistry.errors import LayerError, StoreError
from sregistry.metadata import environment_tar
from tests import engine
from tests.images import lazy_members
from tests.tarball import Member, directory, file, link, opaque, symlink, whiteout

D, F, S, H, W, O = directory, file, symlink, link, whiteout, opaque  # noqa: E741

#: layers, lowest first → the tree: path → the layer (1 is the lowest) and row its metadata is from.
#: Layer 0 is an empty base environment; (-1, -1) is a directory that no layer describes.
CASES: dict[str, tuple[list[list[Member]], dict[bytes, tuple[int, int]]]] = {
    "implied parents": ([[F(b"a/b/c")]], {b"a": (-1, -1), b"a/b": (-1, -1), b"a/b/c": (1, 0)}),
    "parents described later": ([[F(b"a/c"), D(b"a")]], {b"a": (1, 1), b"a/c": (1, 0)}),
    "duplicate, last wins": ([[F(b"a"), F(b"a")]], {b"a": (1, 1)}),
    "file over file": ([[F(b"a")], [F(b"a")]], {b"a": (2, 0)}),
    "directory over directory keeps children": ([[D(b"a"), F(b"a/b")], [D(b"a")]], {b"a": (2, 0), b"a/b": (1, 1)}),
    "file over directory": ([[D(b"a"), F(b"a/b")], [F(b"a")]], {b"a": (2, 0)}),
    "directory over file": ([[F(b"a")], [D(b"a")]], {b"a": (2, 0)}),
    "directory over symlink": ([[D(b"t"), S(b"a", b"t")], [D(b"a")]], {b"t": (1, 0), b"a": (2, 0)}),
    "through a symlink of a lower layer": ([[D(b"t"), S(b"a", b"t")], [F(b"a/x")]], {b"t": (1, 0), b"a": (1, 1), b"t/x": (2, 0)}),
    "through an absolute symlink": (
        [[D(b"t"), S(b"d/a", b"/t")], [F(b"d/a/x")]],
        {b"t": (1, 0), b"d": (-1, -1), b"d/a": (1, 1), b"t/x": (2, 0)},
    ),
    "through a symlink out of the root": ([[S(b"a", b"../../..")], [F(b"a/x")]], {b"a": (1, 0), b"x": (2, 0)}),
    "through a dangling symlink": ([[S(b"a", b"t/u")], [F(b"a/x")]], {b"a": (1, 0), b"t": (-1, -1), b"t/u": (-1, -1), b"t/u/x": (2, 0)}),
    "through a chain of symlinks": (
        [[D(b"t"), S(b"a", b"b"), S(b"b", b"./t/")], [F(b"a/x")]],
        {b"t": (1, 0), b"a": (1, 1), b"b": (1, 2), b"t/x": (2, 0)},
    ),
    "a file as parent is replaced": ([[F(b"a")], [F(b"a/b")]], {b"a": (-1, -1), b"a/b": (2, 0)}),
    "symlink replaced amid a layer": (
        [[D(b"t"), S(b"a", b"t"), F(b"a/x"), D(b"a"), F(b"a/y")]],
        {b"t": (1, 0), b"t/x": (1, 2), b"a": (1, 3), b"a/y": (1, 4)},
    ),
    "absolute and dotted names": (
        [[F(b"/a"), F(b"./b"), F(b"../c"), F(b"x/../d")]],
        {b"a": (1, 0), b"b": (1, 1), b"c": (1, 2), b"d": (1, 3)},
    ),
    "root's metadata": ([[D(b"./")]], {b"": (1, 0)}),
    "whiteout": ([[F(b"a"), F(b"b")], [W(b"a")]], {b"b": (1, 1)}),
    "whiteout of a directory": ([[D(b"a"), F(b"a/b")], [W(b"a")]], {}),
    "whiteout, then the same name": ([[F(b"a")], [W(b"a"), F(b"a")]], {b"a": (2, 1)}),
    "the same name, then whiteout": ([[F(b"a")], [F(b"a"), W(b"a")]], {b"a": (2, 0)}),
    "directory anew, then whiteout": ([[D(b"a"), F(b"a/b")], [D(b"a"), F(b"a/c"), W(b"a")]], {b"a": (2, 0), b"a/c": (2, 1)}),
    "whiteout of nothing": ([[F(b"a")], [W(b"b"), W(b"x/y")]], {b"a": (1, 0)}),
    "whiteout spares its own layer": (
        [[F(b"a/b/c"), F(b"a/b/d")], [F(b"a/b/e"), W(b"a")]],
        {b"a": (-1, -1), b"a/b": (-1, -1), b"a/b/e": (2, 0)},
    ),
    "whiteout through a symlink": ([[D(b"t"), F(b"t/x"), S(b"a", b"t")], [W(b"a/x")]], {b"t": (1, 0), b"a": (1, 2)}),
    "whiteout of a symlink, not its target": ([[F(b"t"), S(b"a", b"t")], [W(b"a")]], {b"t": (1, 0)}),
    "opaque": ([[D(b"a"), F(b"a/b"), F(b"a/c/d")], [O(b"a"), F(b"a/n")]], {b"a": (1, 0), b"a/n": (2, 1)}),
    "opaque comes last": (
        [[D(b"a"), F(b"a/b"), F(b"a/c")], [D(b"a"), F(b"a/c"), F(b"a/n"), O(b"a")]],
        {b"a": (2, 0), b"a/c": (2, 1), b"a/n": (2, 2)},
    ),
    "opaque of the root": ([[F(b"a"), F(b"b/c")], [O(b""), F(b"n")]], {b"n": (2, 1)}),
    "opaque in the lowest layer": ([[F(b"a/x"), O(b"a"), F(b"a/y")]], {b"a": (-1, -1), b"a/x": (1, 0), b"a/y": (1, 2)}),
    "opaque where nothing is": ([[F(b"x")], [O(b"a")]], {b"x": (1, 0)}),
    "a whited-out directory comes back empty": ([[D(b"a"), F(b"a/b")], [W(b"a")], [D(b"a")]], {b"a": (3, 0)}),
    "other aufs marks": ([[F(b".wh..wh.aufs"), D(b".wh..wh.plnk"), F(b".wh..wh.orph/x"), F(b"a")]], {b"a": (1, 3)}),
    "aufs link of a side folder": (
        [[F(b".wh..wh.plnk/1.2"), H(b"a", b".wh..wh.plnk/1.2"), H(b"b", b".wh..wh.plnk/1.2")]],
        {b"a": (1, 0), b"b": (1, 0)},
    ),
    "hard link": ([[F(b"a"), H(b"b", b"a")]], {b"a": (1, 0), b"b": (1, 0)}),
    "hard link across layers": ([[F(b"a")], [H(b"b", b"./a")]], {b"a": (1, 0), b"b": (1, 0)}),
    "hard link to a symlink": ([[F(b"t"), S(b"a", b"t"), H(b"b", b"a")]], {b"t": (1, 0), b"a": (1, 1), b"b": (1, 1)}),
    "hard link through a symlink": (
        [[F(b"t/x"), S(b"a", b"t"), H(b"b", b"a/x")]],
        {b"t": (-1, -1), b"t/x": (1, 0), b"a": (1, 1), b"b": (1, 0)},
    ),
    "one name of two is replaced": ([[F(b"a"), H(b"b", b"a")], [F(b"a")]], {b"a": (2, 0), b"b": (1, 0)}),
    "hard link, then whiteout of its target": ([[F(b"a")], [H(b"b", b"a"), W(b"a")]], {b"b": (1, 0)}),
    "a hard link survives a whiteout of its name": ([[F(b"a"), F(b"b")], [H(b"b", b"a"), W(b"b")]], {b"a": (1, 0), b"b": (1, 0)}),
    "hard link to itself": ([[F(b"a")], [H(b"a", b"a")]], {b"a": (1, 0)}),
    "names of any bytes": ([[F(b"\xff\n"), F(b"\x01"), F(b"\xc3\xa4")]], {b"\xff\n": (1, 0), b"\x01": (1, 1), b"\xc3\xa4": (1, 2)}),
    "names that start like whiteouts": ([[F(b".who"), F(b".w"), D(b"a.wh.b")]], {b".who": (1, 0), b".w": (1, 1), b"a.wh.b": (1, 2)}),
    "empty layers": ([[], [F(b"a")], [], []], {b"a": (2, 0)}),
}


@pytest.mark.parametrize("case", CASES)
def test_merging(tmp_path: Path, case: str) -> None:
    layers, tree = CASES[case]
    packed = engine.merged(tmp_path, layers)
    found = engine.paths(packed)
    assert found == {b"": (-1, -1), **tree}


@pytest.mark.parametrize("lazy", [True, False])
def test_what_estargz_adds_is_left_out_of_its_own_layer(tmp_path: Path, lazy: bool) -> None:
    layers = [[], [F(b"stargz.index.json")], lazy_members(), []]
    found = engine.paths(sandbox.merge(engine.folders(tmp_path, layers), [2] if lazy else []))
    names = {b"data": (2, 1), b"data/stargz.index.json": (2, 2), b"data/.prefetch.landmark": (2, 3)}
    assert found == {b"": (-1, -1), **names, b"stargz.index.json": (1, 0)} | (
        {} if lazy else {b"stargz.index.json": (2, 4), b".no.prefetch.landmark": (2, 0)}
    )


def test_a_folder_of_that_name_is_none_of_estargz(tmp_path: Path) -> None:
    assert b"stargz.index.json" in engine.paths(sandbox.merge(engine.folders(tmp_path, [[], [D(b"stargz.index.json")], []]), [1]))


def test_whiteouts_in_a_tree_deeper_than_python_recurses(tmp_path: Path) -> None:
    found = engine.paths(engine.merged(tmp_path, [[F(b"d/" * 1800 + b"old")], [F(b"d/" * 1800 + b"new"), O(b"d")]]))
    assert len(found) == 1802 and found[b"d/" * 1800 + b"new"] == (2, 0)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ([F(b".")], "root must be a directory"),
        ([H(b"b", b"a")], "hard link to /a, which does not exist"),
        ([D(b"a"), H(b"b", b"a")], "hard link to the directory"),
        ([D(b"a"), H(b"b", b"/")], "hard link to the directory"),
        ([S(b"a", b"b"), S(b"b", b"a"), F(b"a/x")], "loop"),
        ([F(b"a/.wh...")], "whiteout of nothing"),
    ],
)
def test_what_can_not_be_applied_names_layer_and_path(tmp_path: Path, layer: list[Member], words: str) -> None:
    with pytest.raises(LayerError, match=words) as caught:
        engine.merged(tmp_path, [[], layer])
    assert str(caught.value).startswith("layer 2 of the image: /")


def test_children_are_sorted_by_bytes_and_rows_are_breadth_first(tmp_path: Path) -> None:
    packed = engine.merged(tmp_path, [[F(b"b/\xff"), F(b"b/a"), F(b"b/\x7f"), F(b"a/x/y"), F(b"c")]])
    names = [packed.name(row) for row in range(len(packed))]
    assert names == [b"", b"a", b"b", b"c", b"x", b"a", b"\x7f", b"\xff", b"y"]


def test_a_packed_sandbox_reads_back(tmp_path: Path) -> None:
    packed = engine.merged(tmp_path, [[F(b"a/b"), H(b"c", b"a/b")]])
    packed.write(tmp_path / "sandbox.index")
    again = sandbox.Sandbox.read(tmp_path / "sandbox.index")
    assert engine.paths(again) == engine.paths(packed)
    assert again.folders == packed.folders
    data = (tmp_path / "sandbox.index").read_bytes()
    for damaged in (data[:-1], data[:30], b"", data[:60] + bytes([data[60] ^ 1]) + data[61:]):
        (tmp_path / "sandbox.index").write_bytes(damaged)
        with pytest.raises(StoreError, match="damaged"):
            sandbox.Sandbox.read(tmp_path / "sandbox.index")


def based(tmp_path: Path, layers: list[list[Member]]) -> dict[bytes, tuple[int, int]]:
    """Merge over the real base environment."""
    return engine.paths(sandbox.merge(engine.folders(tmp_path, [environment_tar(), *layers, []])))


def test_the_base_environment_is_below_and_safe_from_whiteouts(tmp_path: Path) -> None:
    found = based(tmp_path, [[D(b"tmp"), F(b"environment")], [O(b""), W(b".singularity.d"), W(b"proc"), D(b"sys")]])
    assert found[b".singularity.d/actions/run"][0] == 0 and found[b"proc"][0] == 0 and found[b"tmp"][0] == 0
    assert found[b"sys"] == (2, 3), "what the image describes is the image's"


def test_a_mount_point_that_is_a_symlink_has_its_target_made(tmp_path: Path) -> None:
    found = based(tmp_path, [[S(b"home", b"usr/home"), S(b"tmp", b"/var/tmp"), S(b"etc", b"loop"), S(b"loop", b"etc/x"), F(b"sys")][:2]])
    assert found[b"home"] == (1, 0) and found[b"tmp"] == (1, 1)
    assert found[b"usr/home"][0] == 0 and found[b"var/tmp"][0] == 0
    assert not any(path.startswith((b"home/", b"tmp/")) for path in found)
