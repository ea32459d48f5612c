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
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, cast

from sregistry.errors import DigestMismatch, LayerError, StoreError, from_oserror
from sregistry.layers import verify
from sregistry.layers.block_writer import Submit, Writer, at_once
from sregistry.layers.compression import Compression
from sregistry.layers.inflate import inflate
from sregistry.layers.tar_reader import Kind, TarReader
from sregistry.oci.documents import Digest
from sregistry.store import exploded
from sregistry.store.beneath import opened
from sregistry.store.store import Store
from sregistry.system.heartbeat import publish_position


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
) -> verify.Layer:
    """Explode the layer *blob*, unless the store has it, and return it.

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
            with opened(path, depth=3) as file, publish_position(str(blob), file):
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

    def run() -> verify.Layer:
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


def explode_tar(store: Store, tar: bytes, compression: Compression) -> verify.Layer:
    """Explode a small tar of our own making and return it."""
    return explode_stream(store, io.BytesIO(tar), "metadata", Digest.of(tar), compression, threads=1)


def explode_stream(store: Store, file: IO[bytes], name: str, diff_id: Digest, compression: Compression, *, threads: int) -> verify.Layer:
    """Explode a stream that is in no store, unless the store has its result, and return it. Raises as `explode`."""
    return _once(store, diff_id, compression, lambda: _explode(store, file, name, diff_id, compression, threads))


def _once(store: Store, diff_id: Digest, compression: Compression, run: Callable[[], verify.Layer]) -> verify.Layer:
    """Call *run* unless a store has its result, one process at a time; return it."""
    name = exploded.lock(compression.variant, diff_id)
    found = verify.find(store, compression.variant, diff_id, log=sys.stderr)
    if found is not None and (store.root not in found.folder.parents or store.keep(name, found.folder)):
        return found
    with store.lock(name):
        found = verify.find(store, compression.variant, diff_id)
        return found or run()


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
) -> verify.Layer:
    hasher = diff_id.hasher()
    with store.workspace() as space, ThreadPoolExecutor(threads) as pool:
        folder = store.folder(space / "layer")
        submit: Submit = pool.submit if threads > 1 else at_once
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
        writer.index.identity = verify.identity(compression.variant, diff_id)
        with io.BufferedWriter(store.create(folder / "index")) as index:
            writer.index.write(index)
        return verify.publish(store, folder, compression.variant, diff_id, writer.index)


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
