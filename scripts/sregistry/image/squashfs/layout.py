"""The data area of an image: which stretches of the exploded layers' data are alive, and where they go.

```
layer 0: │ live │ dead │ live, live │      layer 1: │ live │ dead │
           └──────┐        └───────┐                  └────────┐
image:  superblock│ live │ live, live │ live │ tables
```

A file's blocks and each fragment block are copied whole or not at all. A fragment block is alive if
one of its tails is; the dead tails in it are counted, nothing more.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress, count

from sregistry.image.squashfs import format as f
from sregistry.layers.index import RAW, Index

_SIZE = RAW - 1
_INVERT = bytes([1, 0]) + bytes(254)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes of a layer's data to copy as they are."""

    layer: int
    offset: int
    size: int


@dataclass(slots=True)
class Dead:
    """Bytes of tails that no file refers to, copied with the live tails beside them.

    `size` is their length as content, `stored` their share of the compressed blocks.
    """

    size: int = 0
    stored: int = 0


class Layout:
    """Where the live data of all layers goes in the image, from byte *base* on.

    `large` are the rows of each layer that have blocks and are alive, and where those are in the
    image. `fragment` is each layer's column of that name, with the numbers of the image.
    """

    def __init__(self, layers: Sequence[Index], live: Sequence[bytes | bytearray], base: int) -> None:
        """Place everything. *live* has a byte for each row of each layer: 1 if it is alive, else 0."""
        self.stretches: list[Stretch] = []
        self.large: list[dict[int, int]] = []
        self.fragment: list[array[int]] = []
        self.fragments = bytearray()
        self.fragment_count = 0
        self.dead = Dead()
        self.end = base
        for number, index in enumerate(layers):
            self._place(number, index, live[number])

    def _place(self, number: int, index: Index, live: bytes | bytearray) -> None:
        sizes: dict[int, int] = {}
        large = []
        if len(index.words):
            large = [row for row in compress(count(), map(index.block_size.__le__, index.size)) if live[row]]
        for row in large:
            size = sum(map(_SIZE.__and__, index.blocks(row)))
            if size:
                sizes[index.start[row]] = size
        alive = set(compress(index.fragment, live))
        alive.discard(f.NONE)
        fragments = {index.fragment_start[k]: k for k in alive}
        sizes.update((start, index.fragment_word[k] & _SIZE) for start, k in fragments.items())
        moved: dict[int, int] = {}
        # Fragments that are dead get no number, and nothing that is alive asks for it.
        numbers = array("I", [f.NONE]) * len(index.fragment_start)
        run_start = run_end = -1
        for start in sorted(sizes):
            moved[start] = self.end
            if start in fragments:
                k = fragments[start]
                numbers[k] = self.fragment_count
                self.fragment_count += 1
                self.fragments += f.FRAGMENT.pack(self.end, index.fragment_word[k], 0)
            if start != run_end:
                self._stretch(number, run_start, run_end)
                run_start = start
            run_end = start + sizes[start]
            self.end += sizes[start]
        self._stretch(number, run_start, run_end)
        self.large.append({row: moved.get(index.start[row], 0) for row in large})
        renumber = dict(enumerate(numbers))
        renumber[f.NONE] = f.NONE
        self.fragment.append(array("I", map(renumber.__getitem__, index.fragment)))
        self._count_dead(index, live, alive)

    def _stretch(self, layer: int, start: int, end: int) -> None:
        if end > start:
            self.stretches.append(Stretch(layer, start, end - start))

    def _count_dead(self, index: Index, live: bytes | bytearray, alive: set[int]) -> None:
        dead = dict(_tails(index, compress(count(), live.translate(_INVERT)), alive))
        if dead:
            for place, _ in _tails(index, compress(count(), live), {fragment for fragment, _ in dead}):
                dead.pop(place, None)
        for (fragment, _), size in dead.items():
            self.dead.size += size
            self.dead.stored += size * (index.fragment_word[fragment] & _SIZE) // index.fragment_length[fragment]


def _tails(index: Index, rows: Iterable[int], fragments: set[int]) -> Iterable[tuple[tuple[int, int], int]]:
    """Yield place and size of the tails of *rows* that are in *fragments*."""
    fragment, offset, size, block = index.fragment, index.fragment_offset, index.size, index.block_size
    return (((fragment[row], offset[row]), size[row] % block) for row in rows if fragment[row] in fragments)
