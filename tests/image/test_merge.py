"""Merging layers: a table of cases, each with the tree that must come out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sregistry.errors import LayerError, StoreError
from sregistry.image import merge as sandbox
from sregistry.image.metadata import environment_tar
from sregistry.image.tree import Sandbox, lookup
from sregistry.layers.index import Index
from sregistry.system import limits
from tests.support import engine
from tests.support.images import lazy_members
from tests.support.tarball import Member, directory, file, link, opaque, symlink, whiteout
from tests.support.work import lines

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
        ([S(b"a", b"b"), S(b"b", b"a"), F(b"a/x")], "limit LINKS of 255, a loop"),
        ([S(b"a", b"d/" * 2047), S(b"b", b"a/e"), F(b"a/" + b"f" * 100 + b"/x")], "a path of 4194 bytes, over the limit PATH of 4096"),
        ([S(b"a", b"n" * 256), F(b"a/x")], "a file name of 256 bytes, over the limit NAME of 255"),
        ([F(b"a/.wh...")], "whiteout of nothing"),
    ],
)
def test_what_can_not_be_applied_names_layer_and_path(tmp_path: Path, layer: list[Member], words: str) -> None:
    with pytest.raises(LayerError, match=words) as caught:
        engine.merged(tmp_path, [[], layer])
    assert str(caught.value).startswith(("layer 2 of the image: /", "the image: "))


def test_children_are_sorted_by_bytes_and_rows_are_breadth_first(tmp_path: Path) -> None:
    packed = engine.merged(tmp_path, [[F(b"b/\xff"), F(b"b/a"), F(b"b/\x7f"), F(b"a/x/y"), F(b"c")]])
    names = [packed.name(row) for row in range(len(packed))]
    assert names == [b"", b"a", b"b", b"c", b"x", b"a", b"\x7f", b"\xff", b"y"]


def test_a_packed_sandbox_reads_back(tmp_path: Path) -> None:
    packed = engine.merged(tmp_path, [[F(b"a/b"), H(b"c", b"a/b")]])
    packed.write(tmp_path / "sandbox.index")
    again = Sandbox.read(tmp_path / "sandbox.index")
    assert engine.paths(again) == engine.paths(packed)
    assert again.folders == packed.folders
    data = (tmp_path / "sandbox.index").read_bytes()
    for damaged in (data[:-1], data[:30], b"", data[:60] + bytes([data[60] ^ 1]) + data[61:]):
        (tmp_path / "sandbox.index").write_bytes(damaged)
        with pytest.raises(StoreError, match="damaged"):
            Sandbox.read(tmp_path / "sandbox.index")


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


def merging(root: Path, layers: list[list[Member]]) -> Callable[[], object]:
    """Return what merges layers that are exploded already."""
    folders = engine.folders(root, [[], *layers, []])
    return lambda: sandbox.merge(folders)


LONG = b"t/" * 1000
#: number → layers whose merging must take work in proportion to it.
SCALED: dict[str, Callable[[int], list[list[Member]]]] = {
    "opaque markers, again and again": lambda n: [[F(b"d/%d" % i) for i in range(n)], [F(b"d/x%d" % i) for i in range(n)] + [O(b"d")] * n],
    "whiteouts, again and again": lambda n: [[F(b"d/old")], [F(b"d/x%d" % i) for i in range(n)] + [W(b"d")] * n],
    "whiteouts of one folder": lambda n: [[F(b"d/%d" % i) for i in range(n)], [W(b"d/%d" % i) for i in range(n)] + [O(b"d")] * n],
    "hard links": lambda n: [[F(b"f"), *(H(b"h%d" % i, b"h%d" % (i - 1) if i else b"f") for i in range(n))]],
    "symbolic links replaced": lambda n: [[member for i in range(n) for member in (S(b"a/l", b"t"), F(b"a/l/%d" % i))]],
}  # fmt: skip


@pytest.mark.parametrize("case", SCALED)
def test_twice_the_entries_are_twice_the_work(tmp_path: Path, case: str) -> None:
    small, large = (merging(tmp_path / str(size), SCALED[case](size)) for size in (200, 400))
    small()
    assert lines(large) <= 2.2 * lines(small)


def test_links_that_lead_far_are_refused_before_they_cost_much(tmp_path: Path) -> None:
    """Some 20 bytes an entry, compressed, each of which leads through half a million names."""
    chain = [D(LONG), *(S(b"l%d" % i, (b"l%d/" % (i - 1) if i else b"") + b"./" * 1000) for i in range(200))]
    files = [F(b"l199/%d/f" % i) for i in range(40)]
    merge = merging(tmp_path, [[*chain, *files]])
    with pytest.raises(LayerError, match="limit LINK_STEPS of 64 an entry"):
        merge()


def test_directories_that_nothing_describes_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = [F(b"%d/" % i + b"d/" * 1000 + b"f") for i in range(4)]
    merging(tmp_path, [layer])()
    monkeypatch.setattr(limits, "IMPLIED", 4003)
    with pytest.raises(LayerError, match="limit IMPLIED of 4003"):
        merging(tmp_path, [layer])()


def test_inodes_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    merge = merging(tmp_path, [[F(b"%d" % i) for i in range(9)], [F(b"x%d" % i) for i in range(9)]])
    monkeypatch.setattr(limits, "INODES", 19)
    merge()
    monkeypatch.setattr(limits, "INODES", 18)
    with pytest.raises(LayerError, match="19 inodes or more, over the limit INODES of 18"):
        merge()


def test_looking_something_up_is_no_walk_of_its_folder(tmp_path: Path) -> None:
    """A shell among a hundred thousand, behind links; a loop, and links that lead far, have none."""
    layer = [*(F(b"bin/%05d" % i) for i in range(2000)), F(b"bin/sh"), S(b"far", b"far2/" + b"./" * 2000), S(b"far2", b"far/")]
    packed = engine.merged(tmp_path, [layer])
    layers = [Index.read(folder / "index") for folder in packed.folders]
    row = lookup(packed, layers, b"./bin/../bin/sh")
    assert row is not None and packed.name(row) == b"sh"
    assert lookup(packed, layers, b"bin/shh") is lookup(packed, layers, b"far/sh") is None
    assert lines(lambda: lookup(packed, layers, b"bin/sh")) < 200
