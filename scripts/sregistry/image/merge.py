"""The sandbox stage: layers merged into one root file system, in memory, nothing unpacked.

Order of precedence, lowest first: base environment, image layers, metadata. The base environment is
laid *under* the merged image layers, so that a layer's whiteout can't take it away.

Rules of merging: OCI image-spec 1.1, layer.md ("Applying Changesets", "Whiteouts"), as umoci and
containerd apply them:

* a path's parents are resolved inside the tree, symlinks included, never above its root;
* an entry replaces what is there, but a directory over a directory only changes its metadata;
* a whiteout or opaque marker hides what lower layers made, whatever its place in its layer;
* a hard link shares the inode of its target, which this or a lower layer made;
* what eStargz adds to a layer's root for its own use is no file of the image (oci-to-sif.md §16).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from itertools import count
from pathlib import Path

from sregistry.errors import LayerError
from sregistry.image.tree import IMPLIED, Directory, Sandbox, show
from sregistry.layers.index import Index
from sregistry.layers.tar_reader import Kind
from sregistry.system import limits

_WHITEOUT = b".wh."
_RESERVED = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_STARGZ = frozenset((b"stargz.index.json", b".prefetch.landmark", b".no.prefetch.landmark"))
_LOW = 0xFFFFFFFF
# An attribute of an enumeration costs as much as all the rest of a line.
_DIRECTORY, _FILE, _HARD_LINK = int(Kind.DIRECTORY), int(Kind.FILE), int(Kind.HARD_LINK)


class Merger:
    """The tree while layers are applied. Layer numbers are positions in *layers*; *estargz* are those of that kind."""

    def __init__(self, layers: Sequence[Index], estargz: Collection[int] = ()) -> None:
        self._layers = layers
        self._estargz = estargz
        self.root = Directory(IMPLIED, -1)
        self._layer = -1
        self._cache: dict[bytes, Directory] = {}
        self._linked: set[tuple[int, bytes]] = set()
        self._aside: dict[bytes, int] = {}
        self._steps = 0  # names that this layer may still walk through symbolic links
        self._implied = 0

    def apply(self, number: int) -> None:
        """Apply a layer over what is there. Raises LayerError that names the layer and the path."""
        self._begin(number)
        index = self._layers[number]
        cache = self._cache
        foreign = _STARGZ if number in self._estargz else frozenset()
        marked = index.mentions(_WHITEOUT) or bool(foreign)  # most layers hide nothing
        for path, kind, source in zip(index.paths(), index.kind, count(number << 32)):
            parent, _, name = path.rpartition(b"/")
            if marked:
                if path in foreign and kind == _FILE:
                    continue
                if name.startswith(_WHITEOUT):
                    self._whiteout(parent, name)
                    continue
                if _RESERVED in path and (b"/" + path).find(b"/" + _RESERVED) >= 0:
                    self._aside[path] = source  # hard links of old aufs layers may name it
                    continue
            if not path:
                if kind != _DIRECTORY:
                    raise self._fail(path, "the root must be a directory")
                self.root.source = source
                self.root.layer = number
                continue
            directory = cache.get(parent) or self._parent(parent)
            children = directory.children
            old = children.get(name)
            if kind == _DIRECTORY:
                if isinstance(old, Directory):
                    old.source = source
                    old.layer = number
                    cache[path] = old
                    continue
                if old is not None and self._is_symlink(old):
                    cache.clear()
                cache[path] = children[name] = Directory(source, number)
                continue
            if old is not None and (isinstance(old, Directory) or self._is_symlink(old)):
                cache.clear()
            if kind == _HARD_LINK:
                children[name] = self._target(path, index.link(source & _LOW))
                self._linked.add((id(directory), name))
            else:
                children[name] = source

    def underlay(self, number: int) -> None:
        """Apply a layer under what is there: only what is missing is added.

        A directory that is a symlink in the image has its target made, because it is a mount point.
        """
        self._begin(number)
        index = self._layers[number]
        for row, (path, kind) in enumerate(zip(index.paths(), index.kind, strict=True)):
            source = number << 32 | row
            if not path:
                if self.root.source == IMPLIED:
                    self.root.source = source
                continue
            parent, _, name = path.rpartition(b"/")
            directory = self._parent(parent)
            old = directory.children.get(name)
            if kind != Kind.DIRECTORY:
                directory.children.setdefault(name, source)
            elif old is None:
                directory.children[name] = Directory(source, number)
            elif not isinstance(old, Directory) and self._is_symlink(old):
                made = self._walk(path, create=True, keep=True)
                if made is not None and made.source == IMPLIED and made.layer == number and not made.children:
                    made.source = source

    def _begin(self, number: int) -> None:
        self._layer = number
        self._steps = limits.LINK_STEPS * (len(self._layers[number]) + 10_000)
        self._cache.clear()
        self._linked.clear()
        self._aside.clear()

    def _parent(self, path: bytes) -> Directory:
        directory = self._walk(path, create=True)
        assert directory is not None
        self._cache[path] = directory
        return directory

    def _walk(self, path: bytes, *, create: bool, keep: bool = False) -> Directory | None:
        """Find the directory at *path*, symlinks resolved inside the tree.

        With *create*, what is missing is made and each directory on the way is marked as written by
        this layer; what is no directory is replaced, or, with *keep*, ends the walk.
        """
        todo = deque(path.split(b"/") if path else ())
        trail = [self.root]
        links = 0
        if create:
            self.root.layer = self._layer
        while todo:
            name = todo.popleft()
            if name in (b"", b"."):
                continue
            if name == b"..":
                if len(trail) > 1:
                    trail.pop()
                continue
            here = trail[-1]
            child = here.children.get(name)
            if child is not None and not isinstance(child, Directory) and self._is_symlink(child):
                links += 1
                if links > limits.LINKS:
                    raise self._fail(path, f"more symbolic links than the limit LINKS of {limits.LINKS}, a loop")
                target = self._link(child)
                if target.startswith(b"/"):
                    del trail[1:]
                names = target.split(b"/")
                self._steps -= len(names)
                if self._steps < 0:
                    most = limits.LINK_STEPS
                    raise self._fail(path, f"symbolic links that lead through more names than the limit LINK_STEPS of {most} an entry")
                todo.extendleft(reversed(names))
                continue
            if not isinstance(child, Directory):
                if not create or (keep and child is not None):
                    return None
                self._implied += 1
                if self._implied > limits.IMPLIED:
                    raise self._fail(path, f"more directories that no layer describes than the limit IMPLIED of {limits.IMPLIED}")
                child = here.children[name] = Directory(IMPLIED, self._layer)
            if create:
                child.layer = self._layer
            trail.append(child)
        return trail[-1]

    def _target(self, path: bytes, link: bytes) -> int:
        """Return the inode that a hard link names."""
        parent, _, name = link.rpartition(b"/")
        directory = self._walk(parent, create=False)
        found = directory.children.get(name) if directory and name else directory
        if found is None:
            found = self._aside.get(link)
        if found is None:
            raise self._fail(path, f"a hard link to {show(link)}, which does not exist")
        if isinstance(found, Directory):
            raise self._fail(path, f"a hard link to the directory {show(link)}")
        return found

    def _whiteout(self, parent: bytes, name: bytes) -> None:
        directory = self._walk(parent, create=False)
        if name == _OPAQUE:
            if directory and directory.cleaned != self._layer:
                directory.cleaned = self._layer
                self._hide([(directory, child) for child in directory.children])
        elif not name.startswith(_RESERVED):
            hidden = name[len(_WHITEOUT) :]
            if hidden in (b"", b".", b".."):
                raise self._fail(parent + b"/" + name, "a whiteout of nothing")
            if directory:
                self._hide([(directory, hidden)])

    def _hide(self, waiting: list[tuple[Directory, bytes]]) -> None:
        """Remove what lower layers made; what this layer wrote stays, with the directories above it."""
        while waiting:
            above, name = waiting.pop()
            child = above.children.get(name)
            if child is None:
                continue
            if isinstance(child, Directory):
                if child.layer == self._layer:
                    if child.cleaned != self._layer:
                        child.cleaned = self._layer
                        waiting.extend([(child, below) for below in child.children])
                    continue
            elif child >> 32 == self._layer or (id(above), name) in self._linked:
                continue
            del above.children[name]
            self._cache.clear()

    def _is_symlink(self, source: int) -> bool:
        return self._layers[source >> 32].kind[source & 0xFFFFFFFF] == Kind.SYMLINK

    def _link(self, source: int) -> bytes:
        return self._layers[source >> 32].link(source & 0xFFFFFFFF)

    def _fail(self, path: bytes, message: str) -> LayerError:
        return LayerError(f"layer {self._layer} of the image: {show(path)}: {message}")


def merge(folders: Sequence[Path], estargz: Collection[int] = (), expected: Sequence[bytes | None] | None = None) -> Sandbox:
    """Merge exploded layers into one root file system.

    Args:
        folders: of the base environment, the image's layers from the lowest, the metadata.
        estargz: positions of those that are laid out for lazy loading.
        expected: the digests of their indexes, as far as they are known.

    Raises:
        LayerError: a layer can't be applied; the message names it and the path.
        DamagedLayer: an index can't be read, is damaged or another one.
    """
    pairs = zip(folders, expected or [None] * len(folders), strict=True)
    layers = [Index.read(folder / "index", merging=True, expected=digest) for folder, digest in pairs]
    merger = Merger(layers, estargz)
    for number in range(1, len(layers) - 1):
        merger.apply(number)
    merger.underlay(0)
    merger.apply(len(layers) - 1)
    return Sandbox.pack(merger.root, folders, [index.digest for index in layers])
