"""Cases of applying layers, generated: what a lower layer left at a name × what a higher layer does to it.

Each case is a small image of one to three layers. `x` is the name that it is about; beside it every
lowest layer has a directory `t` with a file in it, which symlinks lead to. A case's names are below a
folder of its own, so that many cases share one image: `Case.at` puts them there. In symlinks' targets
and in absolute names, `@` stands for that folder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

from tests.support import tarball
from tests.support.tarball import BLOCK, CHARACTER, EPOCH, Member, opaque, whiteout

Members = list[Member]
#: Makes the entries of a name, each time (generation 1, 2, 3) with other content, owner, mode, time and attributes.
Make = Callable[[bytes, int], Members]


@dataclasses.dataclass(frozen=True)
class Case:
    """A readable name, and the layers from the lowest."""

    name: str
    layers: Sequence[Members]

    def at(self, base: bytes) -> list[Members]:
        """Return the layers with all names below the folder *base*; the whole root if it is empty."""
        return [[_placed(member, base) for member in layer] for layer in self.layers]


def _placed(member: Member, base: bytes) -> Member:
    folder = base + b"/" if base else b""

    def put(name: bytes) -> bytes:
        return name.replace(b"@/", folder) if b"@/" in name else folder + name

    link = member.type == tarball.LINK
    target = put(member.target) if link else member.target.replace(b"@/", folder)
    return dataclasses.replace(member, name=put(member.name), target=target)


def _owned(generation: int, mode: int = 0) -> dict[str, object]:
    return {"uid": 100 * generation, "gid": 100 * generation + 1, "mtime": EPOCH + 1000 * generation, "mode": mode + generation}


def _marked(generation: int) -> dict[bytes, bytes]:
    return {b"user.generation-%d" % generation: b"%d" % generation}


def file(name: bytes, generation: int = 2) -> Member:
    text = b"%s of generation %d\n" % (name.rpartition(b"/")[2], generation)
    return tarball.file(name, text, xattrs=_marked(generation), **_owned(generation, 0o640))


def directory(name: bytes, generation: int = 2) -> Member:
    return tarball.directory(name, xattrs=_marked(generation), **_owned(generation, 0o710))  # type: ignore[arg-type]


def symlink(name: bytes, target: bytes, generation: int = 2) -> Member:
    owned = {key: value for key, value in _owned(generation).items() if key != "mode"}
    return tarball.symlink(name, target, xattrs={b"trusted.generation": b"%d" % generation}, **owned)


def link(name: bytes, target: bytes, generation: int = 2) -> Member:
    """Return a hard link; owner, mode and time in its header mean nothing."""
    return tarball.link(name, target, **_owned(generation, 0o600))


def _full(name: bytes, generation: int) -> Members:
    below = [file(name + b"/in", generation), directory(name + b"/sub", generation), file(name + b"/sub/in", generation)]
    return [directory(name, generation), *below]


def _linked(target: bytes) -> Make:
    return lambda name, generation: [symlink(name, target, generation)]


def _device(kind: bytes, major: int) -> Make:
    return lambda name, generation: [tarball.device(name, kind, major, generation, **_owned(generation, 0o600))]  # type: ignore[arg-type]


SYMLINKS: dict[str, Make] = {
    "symlink to directory": _linked(b"t"),
    "symlink to file": _linked(b"t/in"),
    "dangling symlink": _linked(b"not/there"),
    "absolute symlink": _linked(b"/@/t"),
    "symlink out of the root": _linked(b"../../../../../@/t"),
    "symlink to its parent": _linked(b"."),
}
KINDS: dict[str, Make] = {
    "file": lambda name, generation: [file(name, generation)],
    "two hard links": lambda name, generation: [file(name, generation), link(name + b"2", name, generation)],
    "empty directory": lambda name, generation: [directory(name, generation)],
    "directory with content": _full,
    "implied directory": lambda name, generation: [file(name + b"/in", generation)],
    **SYMLINKS,
    "character device": _device(CHARACTER, 5),
    "block device": _device(BLOCK, 259),
    "fifo": lambda name, generation: [tarball.fifo(name, **_owned(generation, 0o620))],  # type: ignore[arg-type]
}
LOWER: dict[str, Make] = {"nothing": lambda name, generation: [], **KINDS}

X = b"x"
#: What a higher layer does to x, and to what is below and beside it.
ACTIONS: dict[str, Members] = {
    "whiteout": [whiteout(X)],
    "whiteout, then a file": [whiteout(X), file(X)],
    "a file, then whiteout": [file(X), whiteout(X)],
    "whiteout, then a directory": [whiteout(X), *_full(X, 2)],
    "a directory, then whiteout": [*_full(X, 2), whiteout(X)],
    "whiteout amid a directory": [directory(X), file(X + b"/in"), whiteout(X), file(X + b"/new")],
    "whiteout, then an entry below": [whiteout(X), file(X + b"/new")],
    "opaque parent": [opaque(b"@/")],
    "opaque parent, then a file": [opaque(b"@/"), file(X)],
    "a directory, then opaque parent": [directory(X), file(X + b"/new"), opaque(b"@/")],
    "opaque": [opaque(X)],
    "a directory, then opaque": [directory(X), file(X + b"/in"), opaque(X)],
    "opaque amid a directory": [directory(X), opaque(X), file(X + b"/new")],
    "whiteout below": [whiteout(X + b"/in")],
    "whiteout two below": [whiteout(X + b"/sub/in")],
    "hard link over it": [link(X, b"t/in")],
    "hard link over it, then whiteout": [link(X, b"t/in"), whiteout(X)],
    "name through it and up": [file(X + b"/../y")],
}
#: What makes x a directory by the name of an entry alone. Where x is none, see `DEVIATIONS`.
BELOW: dict[str, Members] = {
    "opaque, then an entry below": [opaque(X), file(X + b"/new")],
    "an entry below": [file(X + b"/new")],
    "the same name below": [file(X + b"/in")],
}
#: What needs an x that is no directory. Where it is one, see `REFUSED`.
LINKED: dict[str, Members] = {
    "hard link to it": [link(b"y", X)],
    "hard link to it, then whiteout": [link(b"y", X), whiteout(X)],
    "hard link to it, then a file": [link(b"y", X), file(X)],
    "a file, then hard link to it": [file(X), link(b"y", X)],
}

#: More cases with hard links and metadata, a layer a list.
FURTHER: dict[str, list[Members]] = {
    "hard links: one of two is whited out": [[file(b"a", 1), link(b"b", b"a")], [whiteout(b"a")]],
    "hard links: both are whited out": [[file(b"a", 1), link(b"b", b"a")], [whiteout(b"b"), whiteout(b"a")]],
    "hard links: one of two is replaced": [[file(b"a", 1), link(b"b", b"a")], [file(b"b")]],
    "hard links: three, one a layer": [[file(b"a", 1)], [link(b"b", b"a")], [link(b"c", b"b")]],
    "hard links: of a file that goes in the same layer": [[file(b"a", 1)], [link(b"b", b"a"), whiteout(b"a")], [link(b"c", b"b")]],
    "hard links: to a file that this layer replaced": [[file(b"a", 1)], [file(b"a"), link(b"b", b"a")]],
    "hard links: to a file that this layer replaces later": [[file(b"a", 1)], [link(b"b", b"a"), file(b"a")]],
    "hard links: anew after a replacement": [[file(b"a", 1), link(b"b", b"a")], [file(b"a"), link(b"b", b"a")]],
    "hard links: both replaced by one another": [[file(b"a", 1), file(b"b", 1)], [link(b"a", b"b")], [link(b"b", b"a")]],
    "hard links: into a directory of a lower layer": [[directory(b"d", 1), file(b"a", 1)], [link(b"d/b", b"a")]],
    "hard links: into an implied directory": [[file(b"a", 1)], [link(b"d/e/b", b"a")]],
    "hard links: out of a directory that is whited out": [[*_full(b"d", 1)], [link(b"b", b"d/in"), whiteout(b"d")]],
    "hard links: out of a directory that is opaque": [[*_full(b"d", 1)], [link(b"b", b"d/in"), opaque(b"d")]],
    "hard links: within a directory that is opaque": [[*_full(b"d", 1)], [link(b"d/b", b"d/in"), opaque(b"d")]],
    "hard links: over a directory": [[*_full(b"d", 1), file(b"a", 1)], [link(b"d", b"a")]],
    "hard links: to a symlink": [[symlink(b"s", b"t/in", 1)], [link(b"b", b"s")]],
    "hard links: to a symlink of the same layer": [[file(b"a", 1)], [symlink(b"s", b"a"), link(b"b", b"s")]],
    "hard links: to a fifo": [[tarball.fifo(b"a")], [link(b"b", b"a")]],
    "hard links: to a device": [[tarball.device(b"a", CHARACTER, 1, 3)], [link(b"b", b"a")]],
    "hard links: through a symlink to a directory": [[symlink(b"s", b"t", 1)], [link(b"b", b"s/in")]],
    "hard links: through an absolute symlink": [[symlink(b"s", b"/@/t", 1)], [link(b"b", b"s/in")]],
    "hard links: name through a symlink": [[symlink(b"s", b"t", 1), file(b"a", 1)], [link(b"s/b", b"a")]],
    "hard links: absolute target": [[file(b"a", 1)], [link(b"b", b"/@/a")]],
    "hard links: target with dots": [[file(b"a", 1)], [link(b"b", b"@/./t/../a")]],
    "hard links: climbing target": [[file(b"a", 1)], [link(b"b", b"../../../@/a")]],
    "hard links: twice the same": [[file(b"a", 1)], [link(b"b", b"a"), link(b"b", b"a")]],
    "metadata: of a directory, content kept": [[*_full(b"d", 1)], [directory(b"d")]],
    "metadata: of a directory, attributes taken away": [[directory(b"d", 1)], [tarball.directory(b"d", 0o700)]],
    "metadata: of a directory, twice in a layer": [[*_full(b"d", 1)], [directory(b"d"), directory(b"d", 3)]],
    "metadata: of a directory, after its content": [[file(b"d/in", 1), directory(b"d", 1)]],
    "metadata: of a directory that was implied": [[file(b"d/e/in", 1)], [directory(b"d"), directory(b"d/e")]],
    "metadata: of a directory, kept by an entry below": [[*_full(b"d", 1)], [file(b"d/new"), file(b"d/sub/new")]],
    "metadata: of a directory, kept by a whiteout below": [[*_full(b"d", 1)], [whiteout(b"d/in"), whiteout(b"d/sub/in")]],
    "metadata: of a directory, kept by an opaque marker": [[*_full(b"d", 1)], [opaque(b"d")]],
    "metadata: of a directory, then whited out and implied": [[*_full(b"d", 1)], [whiteout(b"d")], [file(b"d/new", 3)]],
    "metadata: closed directory with content": [[tarball.directory(b"d", 0), file(b"d/in", 1)], [file(b"d/new")]],
    "metadata: special bits": [[tarball.file(b"a", b"1", mode=0o7755, uid=5)], [tarball.directory(b"d", 0o3777, gid=7)]],
    "metadata: a file's owner alone": [[file(b"a", 1)], [dataclasses.replace(file(b"a", 1), uid=7)]],
    "metadata: a file's attributes taken away": [[file(b"a", 1)], [tarball.file(b"a", b"a")]],
    "names: whiteout of a name with .wh. within": [[file(b"a.wh.b", 1), file(b"b", 1)], [whiteout(b"a.wh.b")]],
    "names: like a whiteout, but not quite": [[file(b".wh", 1), file(b".whb", 1), file(b"wh.b", 1)], [whiteout(b".wh"), file(b"..wh.c")]],
    "names: whiteout of a hidden name": [[file(b".hidden", 1), file(b"hidden", 1)], [whiteout(b".hidden")]],
    "names: whiteout of any bytes": [[file(b"\xff\n\x01", 1), file(b"\xff", 1)], [whiteout(b"\xff\n\x01")]],
    "names: whiteout of a long name": [[file(b"n" * 250, 1), file(b"n" * 249, 1)], [whiteout(b"n" * 250)]],
    "names: whiteout of a prefix": [[file(b"ab", 1), file(b"a", 1), *_full(b"abc", 1)], [whiteout(b"a")]],
    "names: other cases are other names": [[file(b"A", 1), file(b"a", 1)], [whiteout(b"A")]],
    "names: composed and decomposed are two": [[file("ä".encode(), 1), file("a\u0308".encode(), 1)], [whiteout("ä".encode())]],
    "names: blanks and dots": [[file(b" ", 1), file(b"...", 1), file(b".. ", 1)], [whiteout(b"..."), whiteout(b" ")]],
    "names: whiteout by an absolute name": [[*_full(b"d", 1)], [dataclasses.replace(whiteout(b"d/in"), name=b"/@/d/.wh.in")]],
    "names: whiteout by a climbing name": [[*_full(b"d", 1)], [dataclasses.replace(whiteout(b"d/in"), name=b"../../@/d/.wh.in")]],
    "names: whiteout by a name with dots": [[*_full(b"d", 1)], [dataclasses.replace(whiteout(b"d/in"), name=b"d/sub/../.wh.in")]],
    "names: dots": [[file(b"a", 1)], [file(b"./t/../a")]],
    "names: absolute": [[file(b"a", 1)], [file(b"/@/a")]],
    "names: climbing": [[file(b"a", 1)], [file(b"../../../@/a")]],
    "names: a file's name that ends in a slash": [[file(b"a", 1), *_full(b"d", 1)], [file(b"a/"), file(b"d/")]],
    "names: dots, slashes and emptiness": [[file(b".//d/./e//in", 1)], [file(b"./d/./e/.//in"), directory(b"./d//e/")]],
    "whiteout: with entries below its name": [[*_full(b"d", 1)], [tarball.directory(b".wh.d"), file(b".wh.e/in")]],
    "whiteout: that is a directory": [[*_full(b"d", 1)], [tarball.directory(b".wh.d")]],
    "whiteout: that is a symlink": [[*_full(b"d", 1)], [tarball.symlink(b".wh.d", b"t")]],
    "whiteout: that is a hard link": [[*_full(b"d", 1)], [tarball.link(b".wh.d", b"t/in")]],
    "whiteout: that is a device 0/0": [[*_full(b"d", 1)], [tarball.device(b".wh.d", CHARACTER, 0, 0)]],
    "whiteout: that has content": [[*_full(b"d", 1)], [tarball.file(b".wh.d", b"content")]],
    "whiteout: opaque marker that is a directory": [[*_full(b"d", 1)], [tarball.directory(b"d/.wh..wh..opq")]],
    "whiteout: opaque marker that has content": [[*_full(b"d", 1)], [tarball.file(b"d/.wh..wh..opq", b"y")]],
    "whiteout: overlayfs' device is only a device": [[*_full(b"d", 1)], [tarball.device(b"d", CHARACTER, 0, 0)]],
    "whiteout: after an entry below": [[*_full(b"d", 1)], [file(b"d/new"), whiteout(b"d")]],
    "whiteout: after an entry two below": [[*_full(b"d", 1)], [file(b"d/sub/new"), whiteout(b"d")]],
    "whiteout: of an implied directory, after an entry below": [[*KINDS["implied directory"](b"d", 1)], [file(b"d/new"), whiteout(b"d")]],
    "whiteout: opaque after an entry two below": [[*_full(b"d", 1)], [file(b"d/sub/new"), opaque(b"d")]],
    "whiteout: twice": [[*_full(b"d", 1)], [whiteout(b"d"), file(b"d/new"), whiteout(b"d")]],
    "whiteout: with an opaque marker below": [[*_full(b"d", 1)], [opaque(b"d"), whiteout(b"d")]],
    "whiteout: of what is not there": [[file(b"a", 1)], [whiteout(b"nothing"), whiteout(b"nowhere/nothing"), opaque(b"no/where")]],
    "whiteout: in the lowest layer": [[file(b"a", 1), whiteout(b"a"), whiteout(b"b")]],
    "whiteout: of a name below a file": [[file(b"a", 1)], [whiteout(b"a/b")]],
    "whiteout: through a symlink": [[*_full(b"d", 1), symlink(b"s", b"d", 1)], [whiteout(b"s/in")]],
    "whiteout: through an absolute symlink": [[*_full(b"d", 1), symlink(b"s", b"/@/d", 1)], [whiteout(b"s/sub")]],
    "whiteout: opaque through a symlink": [[*_full(b"d", 1), symlink(b"s", b"d", 1)], [opaque(b"s")]],
    "whiteout: through a dangling symlink": [[symlink(b"s", b"d", 1)], [whiteout(b"s/in")]],
    "whiteout: aufs' own files are no files": [[file(b"a", 1)], [Member(name=b".wh..wh.aufs"), tarball.directory(b".wh..wh.plnk")]],
    "whiteout: opaque, upper, opaque": [[*_full(b"d", 1)], [opaque(b"d"), file(b"d/new"), opaque(b"d")]],
    "whiteout: opaque in two layers": [[*_full(b"d", 1)], [opaque(b"d"), file(b"d/two")], [opaque(b"d"), file(b"d/three", 3)]],
    "whiteout: opaque, then whiteout of the upper": [[*_full(b"d", 1)], [opaque(b"d"), file(b"d/new")], [whiteout(b"d/new")]],
    "whiteout: opaque deep in a whited-out directory": [[*_full(b"d", 1)], [whiteout(b"d"), opaque(b"d/sub"), file(b"d/sub/new")]],
    "whiteout: opaque parent and child": [[*_full(b"d", 1)], [opaque(b"d"), opaque(b"d/sub"), file(b"d/sub/new")]],
    "whiteout: upper directory with lower content": [[*_full(b"d", 1)], [directory(b"d"), directory(b"d/sub"), whiteout(b"d")]],
    "whiteout: lower layers are seen through": [[file(b"a", 1)], [file(b"a")], [whiteout(b"a")]],
    "whiteout: comes and goes and comes": [[*_full(b"d", 1)], [whiteout(b"d")], [*_full(b"d", 3)]],
    "whiteout: device 0/0 stays a device": [[tarball.device(b"a", CHARACTER, 0, 0)], [file(b"b")]],
    "symlinks: replaced in a layer that goes through it": [[symlink(b"s", b"t", 1)], [file(b"s/one"), directory(b"s"), file(b"s/two")]],
    "symlinks: whited out in a layer that goes through it": [[symlink(b"s", b"t", 1)], [file(b"s/one"), whiteout(b"s"), file(b"s/two")]],
    "symlinks: of this layer are followed": [[], [symlink(b"s", b"t"), file(b"s/new"), directory(b"s/dir"), file(b"s/dir/in")]],
    "symlinks: chain": [[symlink(b"a", b"b", 1), symlink(b"b", b"./c/", 1), symlink(b"c", b"t", 1)], [file(b"a/new")]],
    "symlinks: through one below another": [[symlink(b"a", b"t", 1), symlink(b"t/up", b"..", 1)], [file(b"a/up/a/new")]],
    "symlinks: changed between layers": [[symlink(b"s", b"t", 1)], [symlink(b"s", b"u")], [file(b"s/new", 3)]],
    "symlinks: loop that nothing goes through": [[symlink(b"a", b"b", 1), symlink(b"b", b"a", 1)], [file(b"c")]],
    "symlinks: long target": [[symlink(b"s", b"t/" * 300, 1)], [file(b"s/new")]],
    "duplicates: file and file": [[file(b"a", 1), file(b"a", 2), file(b"a", 3)]],
    "duplicates: file, whiteout, file": [[file(b"a", 1)], [file(b"a"), whiteout(b"a"), file(b"a", 3)]],
    "duplicates: directory, file, directory": [[*_full(b"a", 1), file(b"a"), directory(b"a", 3)]],
    "duplicates: hard link, then the target anew": [[file(b"a", 1), link(b"b", b"a"), file(b"a", 3)]],
    "duplicates: one name in two spellings": [[file(b"a", 1), file(b"./a", 2), file(b"t/../a", 3)]],
}
#: Cases about the root itself: an image each.
ROOT: dict[str, list[Members]] = {
    "root: metadata": [[directory(b"./", 1)], [directory(b"/")]],
    "root: opaque": [[file(b"a", 1), *_full(b"d", 1)], [opaque(b""), file(b"new")]],
    "root: opaque at the end": [[file(b"a", 1), *_full(b"d", 1)], [file(b"d/new"), opaque(b"")]],
    "root: whiteout of everything by name": [[file(b"a", 1), *_full(b"d", 1)], [whiteout(b"a"), whiteout(b"d"), whiteout(b"t")]],
    "root: names that climb": [[file(b"../a", 1), file(b"/../../b", 1)], [file(b"d/../../c"), whiteout(b"/../a")]],
    "root: symlink that climbs": [[symlink(b"s", b"../../..", 1)], [file(b"s/new")]],
    "root: nothing but empty layers": [[], [], []],
}

#: What can't be applied → its layers, and the words of the one line that says so.
REFUSED: dict[str, tuple[list[Members], str]] = {
    "hard link to nothing": ([[], [link(b"b", b"a")]], "hard link to /case/a, which does not exist"),
    "hard link before its target": ([[link(b"b", b"a"), file(b"a")]], "hard link to /case/a, which does not exist"),
    "hard link to what a lower layer whited out": ([[file(b"a", 1)], [whiteout(b"a")], [link(b"b", b"a")]], "does not exist"),
    "hard link to what this layer whited out": ([[file(b"a", 1)], [whiteout(b"a"), link(b"b", b"a")]], "does not exist"),
    "hard link below a file": ([[file(b"a", 1)], [link(b"b", b"a/in")]], "does not exist"),
    "hard link through a dangling symlink": ([[symlink(b"s", b"not/there", 1)], [link(b"b", b"s/in")]], "does not exist"),
    "hard link to a directory": ([[directory(b"a", 1)], [link(b"b", b"a")]], "hard link to the directory /case/a"),
    "hard link to an implied directory": ([[file(b"a/in", 1)], [link(b"b", b"a")]], "hard link to the directory"),
    "hard link to the root": ([[], [link(b"b", b"@/..")]], "hard link to the directory"),
    "loop of symlinks that an entry goes through": ([[symlink(b"a", b"b"), symlink(b"b", b"a")], [file(b"a/new")]], "loop"),
    "whiteout of nothing": ([[], [Member(name=b".wh.")]], "a whiteout of nothing"),
    "whiteout of its folder": ([[file(b"d/in", 1)], [Member(name=b"d/.wh..")]], "a whiteout of nothing"),
    "whiteout of the folder above": ([[file(b"d/in", 1)], [Member(name=b"d/.wh...")]], "a whiteout of nothing"),
    "whiteout of the root": ([[file(b"a", 1)], [Member(name=b"@/../.wh..")]], "a whiteout of nothing"),
    "a file as the root": ([[], [tarball.file(b"@/..")]], "the root must be a directory"),
    "a symlink as the root": ([[], [tarball.symlink(b"@/..", b"t")]], "the root must be a directory"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deviation:
    """Where umoci 0.4.7 is not the judge, and why. `cases` → their layers, and one layer that says what must come out."""

    umoci: str
    specification: str
    reason: str
    cases: dict[str, tuple[list[Members], Members]]


_AROUND = [directory(b"@/", 1), directory(b"t", 1), file(b"t/in", 1)]


def _below(old: str, *left: Member) -> tuple[list[Members], Members]:
    return [KINDS[old](X, 1), [file(X + b"/new")]], [*(left or _AROUND), file((b"t/in" if old == "symlink to file" else X) + b"/new")]


_OVERLAY = tarball.directory(b"d", xattrs={b"trusted.overlay.opaque": b"y", b"user.kept": b"1"})
DEVIATIONS: dict[str, Deviation] = {
    "an entry below what is no directory": Deviation(
        umoci="not a directory",
        specification="image-spec 1.1, layer.md, Changeset over existing files",
        reason="what is at a path that a layer gives another type is removed; newer umoci and overlay2 do so, 0.4.7 gives up",
        cases={
            "file / an entry below": _below("file"),
            "two hard links / an entry below": _below("two hard links", *_AROUND, dataclasses.replace(file(X, 1), name=X + b"2")),
            "symlink to file / an entry below": _below("symlink to file", *_AROUND[:2], *KINDS["symlink to file"](X, 1)),
            "character device / an entry below": _below("character device"),
            "fifo / an entry below": _below("fifo"),
        },
    ),
    "a hard link to itself": Deviation(
        umoci="no such file",
        specification="image-spec 1.1, layer.md, Hardlinks",
        reason="names of one file are one file, and that they are; umoci removes the name first, and then misses it",
        cases={"hard link to itself": ([[file(b"a", 1)], [link(b"a", b"a")]], [*_AROUND, file(b"a", 1)])},
    ),
    "attributes of overlayfs": Deviation(
        umoci="",
        specification="image-spec 1.1, layer.md, File Attributes",
        reason="extended attributes are part of a file; umoci leaves these out because the file system that it unpacks to may be overlayfs",
        cases={"directory with overlayfs' opaque attribute": ([[*_full(b"d", 1)], [_OVERLAY]], [*_AROUND, *_full(b"d", 1), _OVERLAY])},
    ),
}

_NO_DIRECTORIES = ("file", "two hard links", "symlink to file", "character device", "block device", "fifo")
_ACTED_ON = (
    "nothing", "file", "two hard links", "directory with content", "symlink to directory", "symlink to file",
    "dangling symlink", "absolute symlink", "symlink out of the root",
)  # fmt: skip
_REPEATED = ("file", "empty directory", "directory with content", "symlink to directory", "dangling symlink", "fifo")


def every() -> list[Case]:
    """Return all cases that can be applied and share an image."""
    return list(_every())


def refused() -> dict[str, tuple[Case, str]]:
    """Return what can't be applied, and the words that say so."""
    return {name: (_case(name, *layers), words) for name, (layers, words) in REFUSED.items()}


def deviating() -> dict[str, tuple[Case, Case]]:
    """Return what umoci does not judge: the case, and one layer that says what must come out of it."""
    return {
        name: (_case(name, *layers), Case(name, [flat]))
        for deviation in DEVIATIONS.values()
        for name, (layers, flat) in deviation.cases.items()
    }


def _every() -> Iterator[Case]:
    for old, before in LOWER.items():
        for new in ("file", "two hard links", "directory with content", "symlink to directory", "character device", "fifo"):
            yield _case(f"{old} / replaced by {new}", before(X, 1), KINDS[new](X, 2))
    for old in _ACTED_ON:
        below = {} if old in _NO_DIRECTORIES else BELOW
        linked = LINKED if old in KINDS and "directory" not in old.split(" to ")[0] else {}
        for action, layer in {**ACTIONS, **below, **linked}.items():
            yield _case(f"{old} / {action}", LOWER[old](X, 1), layer)
    for old in _REPEATED:
        for new in ("file", "directory with content", "symlink to directory"):
            yield _case(f"{old} / {new} in the same layer", [*KINDS[old](X, 1), *KINDS[new](X, 2)])
            yield _case(f"{old} / whiteout / {new}", KINDS[old](X, 1), [whiteout(X)], KINDS[new](X, 3))
            yield _case(f"{old} / {new} / whiteout", KINDS[old](X, 1), KINDS[new](X, 2), [whiteout(X)])
        for action in ("whiteout", "opaque parent", "opaque"):
            yield _case(f"{old} / {action} in the same layer", [*KINDS[old](X, 1), *ACTIONS[action]])
        yield _case(f"{old} / opaque parent / an entry below", KINDS[old](X, 1), [opaque(b"@/")], [file(X + b"/new", 3)])
    for name, layers in FURTHER.items():
        yield _case(name, *layers)


def _case(name: str, lowest: Members, *others: Members) -> Case:
    return Case(name, [[*_AROUND, *lowest], *others])
