"""The explode stage: one layer's tar stream becomes squashfs blocks and an index, once for all images.

```
blob ─▶ inflate ─▶ hash (diff_id) ─▶ tar entries ─▶ blocks ─▶ compression pool ─▶ ordered writer ─▶ data
        a thread   a thread          the job's own  tails ─▶ fragment blocks ┘    the job's own     index
```

Nothing is written to a file system but the two files: a path in a tar stream is only bytes here.
The result is a pure function of the stream and the Compression (if that is pure itself, see
compression.PURE): blocks and fragments are cut and placed in tar order, whatever the number of
threads. Files of equal content are stored once; a block of zeros is a hole; the tails of all files,
and files smaller than a block, share fragment blocks.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import queue
import sys
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, NamedTuple, Protocol, TypeVar, cast

from sregistry import exploded
from sregistry.beneath import opened
from sregistry.compression import Compression
from sregistry.errors import DigestMismatch, LayerError, StoreError, from_oserror
from sregistry.index import RAW, STRETCH, Index
from sregistry.inflate import inflate
from sregistry.oci import Digest
from sregistry.pulse import beating
from sregistry.store import Store
from sregistry.tar import Kind, Piece, TarReader, is_hole

#: Bytes of blocks that are handed to a thread at a time.
_BATCH = 512 << 10
#: In place of a fragment's number: the block is a part of a file.
_PART = -1

T = TypeVar("T")
R = TypeVar("R")


def explode(
    store: Store,
    blob: Digest,
    diff_id: Digest | None,
    compression: Compression,
    threads: int,
    *,
    path: Path | None = None,
    limit: int | None = None,
    begun: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Explode the layer *blob*, unless the store has it, and return the receipt.

    Args:
        store: holds the blob, takes the result.
        blob: digest of the layer as published.
        diff_id: digest of its uncompressed tar, from the image config; None where there is no config that
            says it (schema 1): then the blob is checked, and read once more to find it out.
        compression: part of the result's key.
        threads: of compression; the result does not depend on it.
        path: of the blob, if it is in a further store.
        limit: bytes that the layer may have uncompressed, with the holes of sparse files; no part of the key.
        begun: called if the layer is not there yet.

    Raises:
        LayerError: the stream can't be read, or is over the limit.
        DigestMismatch: its bytes are not those of *diff_id*.
        StoreError: the blob is missing or damaged on disk (it is removed then), or no space.
    """
    own, name = store.blob(blob), f"layer {blob}"
    path = path or own

    @contextlib.contextmanager
    def reading() -> Iterator[IO[bytes]]:
        try:
            with opened(path, depth=3) as file, beating(f"explode-{blob.algorithm}-{blob.hex}", file):
                yield file
        except OSError as error:
            wrong = from_oserror(error, StoreError, f"can't explode {name}:")
            if isinstance(error, FileNotFoundError):  # somebody cleaned up by hand
                wrong.hint = "run again to fetch it anew"
            raise wrong from error
        except (LayerError, DigestMismatch):
            _blame(store, path, blob, ours=path == own)
            raise

    if diff_id is None:
        with reading() as file:
            hashed = Hashed(file, blob)
            diff_id = _found(inflate(cast(IO[bytes], hashed), name), name, limit)
            if not hashed.whole():
                raise DigestMismatch(f"{name}: its bytes on disk are others")  # `reading` looks at the file anew
    known = diff_id

    def run() -> exploded.Layer:
        begun()
        with reading() as file:
            return _explode(store, file, name, known, compression, threads, limit)

    return _once(store, known, compression, run)


def _found(inflated: Iterator[bytes], name: str, limit: int | None) -> Digest:
    """Return the digest of a stream that no config names."""
    hasher = hashlib.sha256()
    for piece in _bounded(inflated, name, limit):
        hasher.update(piece)
    return Digest(f"sha256:{hasher.hexdigest()}")


def unlike(name: str, found: str, diff_id: Digest) -> DigestMismatch:
    """Return the error of a layer whose bytes are not those that a config says."""
    return DigestMismatch(
        f"{name}: its uncompressed bytes have digest {found}, but the image config says {diff_id}",
        hint="the image was published wrongly or tampered with",
    )


def explode_tar(store: Store, tar: bytes, compression: Compression) -> dict[str, Any]:
    """Explode a small tar of our own making and return the receipt."""
    diff_id = Digest.of(tar)
    return _once(store, diff_id, compression, lambda: _explode(store, io.BytesIO(tar), "metadata", diff_id, compression, threads=1))


def _once(store: Store, diff_id: Digest, compression: Compression, run: Callable[[], exploded.Layer]) -> dict[str, Any]:
    """Call *run* unless a store has its result, one process at a time; return the receipt."""
    name = exploded.lock(compression.variant, diff_id)
    found = exploded.find(store, compression.variant, diff_id, log=sys.stderr)
    if found is not None and (store.root not in found.folder.parents or store.keep(name, found.folder)):
        return _receipt(found, diff_id, compression)
    with store.lock(name):
        found = exploded.find(store, compression.variant, diff_id)
        return _receipt(found or run(), diff_id, compression)


def _receipt(layer: exploded.Layer, diff_id: Digest, compression: Compression) -> dict[str, Any]:
    return {
        "diff_id": str(diff_id),
        "variant": compression.variant,
        "path": str(layer.folder),
        "index": layer.digest.hex(),
        "holds": [{"path": str(layer.folder / name), "size": size} for name, size in (("data", layer.data), ("index", layer.index))],
    }


def _blame(store: Store, path: Path, blob: Digest, *, ours: bool) -> None:
    """Remove the blob if the disk, not the publisher, is at fault; in a further store it stays. Raises StoreError then."""
    with opened(path, depth=3) as file:
        if hashlib.file_digest(file, blob.algorithm).hexdigest() != blob.hex:
            if not ours:
                raise StoreError(f"{path} is damaged on disk", hint="leave that folder out of `cache_from`, or repair it") from None
            store.files.unlink(store.files.name(path))
            raise StoreError(f"{path} was damaged on disk and is removed", hint="run again to fetch it anew") from None


class Hashed:
    """A file that is read from its start and hashed on the way: what is made of it is made of these bytes."""

    def __init__(self, file: IO[bytes], digest: Digest) -> None:
        self._file, self._digest, self._hasher = file, digest, digest.hasher()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hasher.update(data)
        return data

    def whole(self) -> bool:
        """Read the rest, and tell whether all of it is what the digest says."""
        while self.read(1 << 20):
            pass
        return self._hasher.hexdigest() == self._digest.hex


def _explode(
    store: Store, file: IO[bytes], name: str, diff_id: Digest, compression: Compression, threads: int, limit: int | None = None
) -> exploded.Layer:
    hasher = diff_id.hasher()
    with store.workspace() as space, ThreadPoolExecutor(threads) as pool:
        folder = store.folder(space / "layer")
        submit: Submit = pool.submit if threads > 1 else _at_once
        with io.BufferedRandom(store.create(folder / "data"), 1 << 20) as data:
            writer = Writer(data, compression, submit, depth=2 * threads + 4 if threads > 1 else 0)
            ahead = 4 if threads > 1 else 0
            with (
                Ahead(_bounded(inflate(file, name), name, limit), ahead) as inflated,
                Ahead(_hashed(inflated, hasher.update), ahead) as pieces,
            ):
                reader = TarReader(pieces, name)
                content = 0
                for entry in reader:
                    content += entry.size  # holes are in no stream: a header of 512 bytes may stand for 2⁶³
                    if limit is not None and content > limit:
                        raise _over(name, limit)
                    row = writer.index.append(entry)
                    if entry.kind is Kind.FILE and entry.size:
                        writer.file(row, entry.size, reader.blocks(entry, compression.block_size))
            writer.finish()
        found = f"{diff_id.algorithm}:{hasher.hexdigest()}"
        if found != str(diff_id):
            raise unlike(name, found, diff_id)
        writer.index.identity = exploded.identity(compression.variant, diff_id)
        with io.BufferedWriter(store.create(folder / "index")) as index:
            writer.index.write(index)
        return exploded.publish(store, folder, compression.variant, diff_id, writer.index)


#: What the writer has done by others: a batch of blocks; what is no block is passed through as None.
Stored = tuple[int, bytes] | None
Batch = list[tuple[Piece | None, int]]


class Submit(Protocol):
    """Has a function called by a thread of the pool, or at once."""

    def __call__(self, function: Callable[[T], R], argument: T, /) -> Future[R]: ...


def _at_once(function: Callable[[T], R], argument: T, /) -> Future[R]:
    future: Future[R] = Future()
    future.set_result(function(argument))
    return future


def _bounded(pieces: Iterator[bytes], name: str, limit: int | None) -> Iterator[bytes]:
    """Pass *pieces* on. Raises LayerError as soon as there are more than *limit* bytes."""
    total = 0
    for piece in pieces:
        total += len(piece)
        if limit is not None and total > limit:
            raise _over(name, limit)
        yield piece


def _over(name: str, limit: int) -> LayerError:
    return LayerError(f"{name}: more than {limit} bytes uncompressed, the layer_limit", hint="raise layer_limit if you trust the image")


def _hashed(pieces: Iterator[bytes], update: Callable[[bytes], None]) -> Iterator[bytes]:
    for piece in pieces:
        update(piece)
        yield piece


class Ahead:
    """Runs an iterator in a thread of its own, at most *depth* pieces ahead; depth 0 runs it in place."""

    def __init__(self, pieces: Iterator[bytes], depth: int) -> None:
        self._pieces = pieces
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(max(depth, 1))
        self._stopped = False
        self._thread = threading.Thread(target=self._run, daemon=True) if depth else None

    def __enter__(self) -> Iterator[bytes]:
        if self._thread is None:
            return self._pieces
        self._thread.start()
        return iter(self)

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        while self._thread is not None and self._thread.is_alive():
            try:  # make room, so that the thread sees that nobody listens
                self._queue.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)

    def __iter__(self) -> Iterator[bytes]:
        while (piece := self._queue.get()) is not None:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def _run(self) -> None:
        last: BaseException | None = None
        try:
            for piece in self._pieces:
                self._queue.put(piece)
                if self._stopped:
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the reader
            last = error
        self._queue.put(last)


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
