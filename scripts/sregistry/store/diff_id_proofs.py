"""Proofs that a blob, uncompressed, has a diff_id.

```
<store>/proofs/<digest of the blob>+<diff_id>            an empty file: its name is all there is to say
<store>/proofs/<digest of the blob>+<diff_id>.u<uid>     one user's, where the first is one of somebody whom he does not trust
```

An exploded layer is found by its diff_id, which a config says. A config that says the diff_id of another layer would
get that layer's files under this layer's digest; so what is found counts for a blob only once the blob was inflated and
hashed. A proof saves doing so again. It is believed as an exploded layer is: of this user, root, and users whom
he trusts (see `exploded`).
"""

from __future__ import annotations

import contextlib
import os
import stat

from sregistry.oci.documents import Digest
from sregistry.store.beneath import Root
from sregistry.store.store import Store

_FOLDER = "proofs"


def known(store: Store, blob: Digest, diff_id: Digest) -> bool:
    """Tell whether the blob has been found to have this diff_id, in this store or a further one."""
    return any(_believed(store, files, name) for files in (store.files, *store.further) for name in _names(blob, diff_id))


def keep(store: Store, blob: Digest, diff_id: Digest) -> None:
    """Remember that the blob has this diff_id; in a store that may not be written, it is not."""
    with contextlib.suppress(OSError):
        store.folder(store.root / _FOLDER)
        for name in _names(blob, diff_id):
            with contextlib.suppress(FileExistsError):
                store.files.create(name, store.file_mode).close()
            if _believed(store, store.files, name):
                return


def _believed(store: Store, files: Root, name: str) -> bool:
    with contextlib.suppress(OSError):
        found = files.stat(name)
        return stat.S_ISREG(found.st_mode) and (store.trusted is None or found.st_uid in store.trusted)
    return False


def _names(blob: Digest, diff_id: Digest) -> tuple[str, str]:
    name = f"{_FOLDER}/{blob.algorithm}-{blob.hex}+{diff_id.algorithm}-{diff_id.hex}"
    return name, f"{name}.u{os.geteuid()}"
