"""Proofs that a blob, uncompressed, has a diff_id.

```
<store>/proofs/<digest of the blob>+<diff_id>      an empty file: its name is all there is to say
```

An exploded layer is found by its diff_id, which a config says. A config that says the diff_id of another layer would
get that layer's files under this layer's digest; so what is found counts for a blob only once the blob was inflated and
hashed. A proof saves doing so again.

Whoever may write in a shared store may write a proof. It is believed only where an image says the same: it then has
the files that its own config names.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from sregistry.oci import Digest
from sregistry.store import Store

_FOLDER = "proofs"


def known(store: Store, blob: Digest, diff_id: Digest) -> bool:
    """Tell whether the blob has been found to have this diff_id."""
    with contextlib.suppress(OSError), _opened(store) as folder:
        os.stat(_name(blob, diff_id), dir_fd=folder, follow_symlinks=False)
        return True
    return False


def keep(store: Store, blob: Digest, diff_id: Digest) -> None:
    """Remember that the blob has this diff_id; in a store that may not be written, it is not."""
    with contextlib.suppress(OSError):
        store.folder(store.root / _FOLDER)
        with _opened(store) as folder:
            os.close(os.open(_name(blob, diff_id), os.O_CREAT | os.O_EXCL | os.O_WRONLY, store.file_mode, dir_fd=folder))


@contextlib.contextmanager
def _opened(store: Store) -> Iterator[int]:
    """Open the folder, which may be no link. Raises OSError."""
    handle = os.open(store.root / _FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield handle
    finally:
        os.close(handle)


def _name(blob: Digest, diff_id: Digest) -> str:
    return f"{blob.algorithm}-{blob.hex}+{diff_id.algorithm}-{diff_id.hex}"
