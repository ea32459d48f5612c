"""The contents of files in exploded layers, expanded again.

Only what needs the bytes themselves reads them: a sandbox directory, and the look at /bin/sh that
tells an image's architecture. Images are composed without expanding anything.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

from sregistry.compression import decoder
from sregistry.errors import StoreError, from_oserror
from sregistry.index import NONE, RAW, Index

#: Bytes of expanded fragment blocks that are kept.
_KEPT = 32 << 20


class Contents:
    """Reads files out of exploded layers; a context that keeps their `data` open."""

    def __init__(self, folders: Sequence[Path], layers: Sequence[Index]) -> None:
        self._folders = folders
        self._layers = layers
        self._handles: dict[int, int] = {}
        # Names in a tree are in another order than in the tar stream that filled the fragments.
        self._fragment = functools.lru_cache(maxsize=_KEPT // layers[0].block_size)(self._read_fragment)

    def __enter__(self) -> Contents:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()

    def handle(self, layer: int) -> int:
        """Return the open descriptor of a layer's data. Raises StoreError: missing, or of another size than its index says."""
        if layer not in self._handles:
            path = self._folders[layer] / "data"
            try:
                handle = self._handles[layer] = os.open(path, os.O_RDONLY)
                size = os.fstat(handle).st_size
            except OSError as error:
                raise from_oserror(error, StoreError, "can't read") from error
            if size != self._layers[layer].data_size:
                raise StoreError(f"{path} is damaged", hint=f"remove the folder {path.parent} and run again")
        return self._handles[layer]

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
        stored = os.pread(self.handle(layer), word & (RAW - 1), start)
        try:
            data = stored if word & RAW else decoder(self._layers[layer].codec)(stored, size)
        except Exception as error:  # noqa: BLE001 - each codec has its own; all mean the same
            data, stored = b"", str(error).encode()
        if len(data) != size:
            folder = self._folders[layer]
            raise StoreError(f"{folder / 'data'} is damaged at byte {start}", hint=f"remove the folder {folder} and run again")
        return data
