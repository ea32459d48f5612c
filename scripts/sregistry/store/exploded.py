"""Where exploded layers are in a store: names, locks, removal. What is in one, and whose are used: layers/verify.py.

```
exploded/<variant>/<hex>/{data,index}          the first that was made; shared by those who trust its owner
exploded/<variant>.u<uid>/<hex>/{data,index}   one user's, where the first is one of somebody whom he does not trust
```
"""

from __future__ import annotations

import re
import secrets
from pathlib import Path

from sregistry.oci.documents import Digest
from sregistry.store.store import WORKSPACE, Store

#: Format of exploded layers; the end of a variant's name, raised when their bytes change.
FORMAT = 3
#: The files of an exploded layer.
PARTS = ("data", "index")
_VARIANT = re.compile(r"(?P<variant>[a-z]+-[a-z]+-[0-9]+-(?P<format>[0-9]+))(\.u[0-9]+)?")
_HEX = re.compile(r"[0-9a-f]{64}|[0-9a-f]{128}")


def lock(variant: str, diff_id: Digest) -> str:
    """Return the name of the lock that whoever makes or removes a layer holds."""
    return f"explode-{variant}-{diff_id.hex}"


def named(folder: Path) -> tuple[str, Digest] | None:
    """Return the variant and the diff_id that an exploded layer's folder stands for; None if it is no such name."""
    found = _VARIANT.fullmatch(folder.parent.name)
    if found is None or not _HEX.fullmatch(folder.name):
        return None
    return found["variant"], Digest(f"{'sha256' if len(folder.name) == 64 else 'sha512'}:{folder.name}")


def current(variant: str) -> bool:
    """Tell whether layers of a variant are in the format of this version."""
    found = _VARIANT.fullmatch(variant)
    return found is not None and int(found["format"]) == FORMAT


def discard(store: Store, folder: Path) -> bool:
    """Remove an exploded layer of this store, at once; for who holds its lock. Tell whether it is gone. Raises OSError."""
    name = store.files.name(folder)
    if any(part not in PARTS for part, _ in store.files.entries(name)):
        return False  # none of ours
    aside = f"ingest/work-{secrets.token_hex(8)}"
    store.folder(store.root / "ingest")
    store.files.rename(name, aside)  # nobody finds half of it
    store.files.remove(aside, WORKSPACE)
    return True
