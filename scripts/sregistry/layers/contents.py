"""The contents of files in exploded layers, expanded again.

Only what needs the bytes themselves reads them: a sandbox directory, and the look at /bin/sh that
tells an image's architecture. Images are composed without expanding anything.

What is read is compared with the index: a stretch of data is read whole, and counts if its digest is right.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from sregistry.errors import StoreError, from_oserror
from sregistry.layers.compression import decoder
from sregistry.layers.index import NONE, RAW, STRETCH, DamagedLayer, Index
from sregistry.store.beneath import opened

#: Bytes of expanded fragment blocks that are kept, and of stretches of data.
_KEPT = 32 << 20


class Contents:
    """Reads files out of exploded layers; a context that keeps their `data` open."""

    def __init__(self, folders: Sequence[Path], layers: Sequence[Index]) -> None:
        self._folders = folders
        self._layers = layers
        self._handles: dict[int, int] = {}
        # Names in a tree are in another order than in the tar stream that filled the fragments.
        self._fragment = functools.lru_cache(maxsize=_KEPT // layers[0].block_size)(self._read_fragment)
        self._stretch = functools.lru_cache(maxsize=_KEPT // STRETCH)(self._read_stretch)

    def __enter__(self) -> Contents:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()

    def handle(self, layer: int) -> int:
        """Return the open descriptor of a layer's data. Raises DamagedLayer: missing, or of another size than its index says."""
        if layer not in self._handles:
            path = self._folders[layer] / "data"
            try:
                with opened(path, depth=4) as file:
                    self._handles[layer] = os.dup(file.fileno())
                    size = os.fstat(file.fileno()).st_size
            except OSError as error:
                raise DamagedLayer(path.parent, from_oserror(error, StoreError, "can't read").message) from error
            if size != self._layers[layer].data_size:
                raise self.damaged(layer)
        return self._handles[layer]

    def damaged(self, layer: int, at: int | None = None) -> DamagedLayer:
        """Return the error of a layer whose data is not what its index says, from byte *at* on."""
        where = "" if at is None else f" at byte {at}"
        return DamagedLayer(self._folders[layer], f"{self._folders[layer] / 'data'} is damaged{where}")

    def blocks(self, layer: int, row: int) -> Iterator[bytes | None]:
        """Yield a file's content block by block; None stands for a block of zeros (a hole).

        Raises:
            StoreError: the data is missing or damaged.
        """
        index = self._layers[layer]
        at = index.start[row]
        for word in index.blocks(row):
            yield self._expand(layer, at, word, index.block_size) if word else None
            at += word & (RAW - 1)
        if index.fragment[row] != NONE:
            start = index.fragment_offset[row]
            yield self._fragment(layer, index.fragment[row])[start : start + index.size[row] % index.block_size]

    def head(self, layer: int, row: int, size: int) -> bytes:
        """Return a file's first bytes, at most *size*."""
        for block in self.blocks(layer, row):
            return bytes(size) if block is None else block[:size]
        return b""

    def _read_fragment(self, layer: int, number: int) -> bytes:
        index = self._layers[layer]
        return self._expand(layer, index.fragment_start[number], index.fragment_word[number], index.fragment_length[number])

    def _expand(self, layer: int, start: int, word: int, size: int) -> bytes:
        stored = self._stored(layer, start, start + (word & (RAW - 1)))
        try:
            data = stored if word & RAW else decoder(self._layers[layer].codec)(stored, size)
        except Exception:  # noqa: BLE001 - each codec has its own; all mean the same
            data = b""
        if len(data) != size:
            raise self.damaged(layer, start)
        return data

    def _stored(self, layer: int, start: int, end: int) -> bytes:
        """Return bytes of a layer's data, out of stretches that are what the index says."""
        parts = []
        for number in range(start // STRETCH, -(-end // STRETCH)):
            base = number * STRETCH
            parts.append(self._stretch(layer, number)[max(start - base, 0) : end - base])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_stretch(self, layer: int, number: int) -> bytes:
        start, end, digest = self._layers[layer].stretch(number)
        data = os.pread(self.handle(layer), end - start, start)
        if hashlib.sha256(data).digest() != digest:
            raise self.damaged(layer, start)
        return data
