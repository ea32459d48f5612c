"""The data of an exploded layer as it is written: blocks and fragments, compressed by a pool, in the order of the stream.

```
contents ─▶ blocks, tails ─▶ batches ─▶ compression pool ─▶ in order ─▶ data, and its digests by the stretch
                                                                └─────▶ index: words, places, fragments
```
"""

from __future__ import annotations

import hashlib
import io
import os
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import IO, NamedTuple, Protocol, TypeVar

from sregistry.layers.compression import Compression
from sregistry.layers.index import RAW, STRETCH, Index
from sregistry.layers.piece_stream import Piece
from sregistry.layers.tar_reader import is_hole

#: Bytes of blocks that are handed to a thread at a time.
_BATCH = 512 << 10
#: In place of a fragment's number: the block is a part of a file.
_PART = -1

T = TypeVar("T")
R = TypeVar("R")

#: What the writer has done by others: a batch of blocks; what is no block is passed through as None.
Stored = tuple[int, bytes] | None
Batch = list[tuple[Piece | None, int]]


class Submit(Protocol):
    """Has a function called by a thread of the pool, or at once."""

    def __call__(self, function: Callable[[T], R], argument: T, /) -> Future[R]: ...


def at_once(function: Callable[[T], R], argument: T, /) -> Future[R]:
    """Call a function and return its result as a future."""
    future: Future[R] = Future()
    future.set_result(function(argument))
    return future


class Writer:
    """Cuts contents into blocks and fragments, has them compressed, and writes them in order.

    Blocks are compressed in batches, because handing one over costs a tenth of compressing it. An
    item of a batch is a block and the number of the fragment it is (_PART for a part of a file), or
    None and the row of the file that ends here, or None and so many blocks of holes, negative. The queue
    `_pending` holds what was handed over and is not yet written, oldest first. A stretch of `data` is hashed
    in the pool once nothing takes it back.
    """

    def __init__(self, data: IO[bytes], compression: Compression, submit: Submit, depth: int) -> None:
        self.index = Index(compression.codec, compression.block_size)
        self._data = data
        self._block_size = compression.block_size
        self._submit = submit
        self._depth = depth
        self._encode = compression.encoder()
        self._batch: Batch = []
        self._batched = 0
        self._pending: deque[tuple[Future[list[Stored]], Batch]] = deque()
        self._position = 0
        self._file_start = 0
        self._file_words = array("I")
        self._known_files: dict[bytes, _Alike] = {}  # by the words, as bytes
        self._known_tails: dict[bytes, int] = {}  # sha256 → fragment and offset as one number: there may be millions
        self._fragment = bytearray()
        self._sums: list[Future[bytes]] = []
        self._summed = 0

    def file(self, row: int, size: int, blocks: Iterator[Piece]) -> None:
        """Take the content of a file, given in blocks."""
        full, tail_size = divmod(size, self._block_size)
        holes = 0
        for _ in range(full):
            block = next(blocks)
            if is_hole(block):  # a header of 512 bytes may stand for millions
                holes += 1
                continue
            if holes:
                self._batch.append((None, -holes))
                holes = 0
            self._push(block, _PART)
        if holes:
            self._batch.append((None, -holes))
        if full:
            self._batch.append((None, row))
            self._batched += 1 << 10  # a file of nothing but holes has its share
            self._go_on()
        if tail_size:
            self._tail(row, next(blocks))

    def finish(self) -> None:
        """Write what is left."""
        self._flush_fragment()
        self._hand_over()
        self._drain(0)
        self._sum(self._position, last=True)
        self.index.data_size = self._position
        self.index.stretches = b"".join(future.result() for future in self._sums)

    def _tail(self, row: int, tail: Piece) -> None:
        key = hashlib.sha256(tail).digest()
        place = self._known_tails.get(key)
        if place is None:
            if len(self._fragment) + len(tail) > self._block_size:
                self._flush_fragment()
            place = self._known_tails[key] = len(self.index.fragment_start) * self._block_size + len(self._fragment)
            self._fragment += tail
        self.index.fragment[row], self.index.fragment_offset[row] = divmod(place, self._block_size)

    def _flush_fragment(self) -> None:
        if self._fragment:
            number = len(self.index.fragment_start)
            self.index.fragment_start.append(0)
            self.index.fragment_word.append(0)
            self.index.fragment_length.append(len(self._fragment))
            self._push(bytes(self._fragment), number)
            self._fragment.clear()

    def _push(self, block: Piece, fragment: int) -> None:
        self._batch.append((block, fragment))
        self._batched += len(block)
        self._go_on()

    def _go_on(self) -> None:
        if self._batched >= _BATCH:
            self._hand_over()
            self._drain(self._depth)

    def _hand_over(self) -> None:
        self._pending.append((self._submit(self._compress, self._batch), self._batch))
        self._batch = []
        self._batched = 0

    def _compress(self, batch: Batch) -> list[Stored]:
        """Return each block's word and stored bytes; (0, b"") is a hole."""
        return [None if block is None else self._stored(block) for block, _ in batch]

    def _stored(self, block: Piece) -> tuple[int, bytes]:
        packed = self._encode(block)
        if len(packed) >= len(block):
            return len(block) | RAW, bytes(block)
        if len(packed) < len(block) >> 6 and bytes(block).count(0) == len(block):
            return 0, b""
        return len(packed), packed

    def _drain(self, depth: int) -> None:
        while len(self._pending) > depth:
            future, batch = self._pending.popleft()
            for stored, (_, number) in zip(future.result(), batch, strict=True):
                if not self._file_words:
                    self._file_start = self._position
                if stored is None:
                    if number < 0:
                        self._file_words.extend(array("I", bytes(4 * -number)))
                    else:
                        self._end_file(number)
                elif number == _PART:
                    self._file_words.append(stored[0])
                    self._write(stored[1])
                else:
                    self._write_fragment(number, *stored)
        self._sum(self._file_start if self._file_words else self._position)

    def _sum(self, end: int, *, last: bool = False) -> None:
        """Have the stretches hashed that end before *end*, which stays as it is, and the *last* one, which is shorter."""
        if self._summed + STRETCH <= end or last:
            self._data.flush()
        while self._summed + STRETCH <= end or (last and self._summed < end):
            self._sums.append(self._submit(self._sum_of, (self._summed, min(STRETCH, end - self._summed))))
            self._summed += STRETCH

    def _sum_of(self, stretch: tuple[int, int]) -> bytes:
        start, size = stretch
        return hashlib.sha256(os.pread(self._data.fileno(), size, start)).digest()

    def _write_fragment(self, number: int, word: int, stored: bytes) -> None:
        if not word:  # only a file's block may be a hole
            stored = self._encode(bytes(self.index.fragment_length[number]))
            word = len(stored)
        self.index.fragment_start[number] = self._position
        self.index.fragment_word[number] = word
        self._write(stored)

    def _write(self, stored: bytes) -> None:
        self._data.write(stored)
        self._position += len(stored)

    def _end_file(self, row: int) -> None:
        """All blocks of a file are written: take them back if an earlier file has the same."""
        words, start, size = self._file_words, self._file_start, self._position - self._file_start
        self._file_words = array("I")
        index = self.index
        key = words.tobytes()
        alike = self._known_files.get(key)
        place = (start, len(index.words))
        if alike is None:
            self._known_files[key] = _Alike(place, {})
        else:
            # Files of noise have the same words as others of their size: each is read and hashed once, and only then.
            if not alike.places:
                alike.places[self._digest(alike.first[0], size)] = alike.first
            known = alike.places.setdefault(self._digest(start, size), place)
            if known != place:
                self._data.seek(start)
                self._data.truncate()
                self._position = start
                index.start[row], index.first_block[row] = known
                return
        index.start[row], index.first_block[row] = place
        index.words.extend(words)

    def _digest(self, start: int, size: int) -> bytes:
        """Return the digest of a stretch of what was written."""
        hasher = hashlib.sha256()
        self._data.seek(start)
        while size and (part := self._data.read(min(size, 1 << 20))):
            hasher.update(part)
            size -= len(part)
        self._data.seek(0, io.SEEK_END)
        return hasher.digest()


class _Alike(NamedTuple):
    """Files whose words are the same: start and first block of the first, and of each by the digest of what is stored."""

    first: tuple[int, int]
    places: dict[bytes, tuple[int, int]]
