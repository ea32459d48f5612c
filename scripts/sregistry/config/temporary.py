"""Where large temporary files go, and the cache of a run that is to leave none.

```
SREGISTRY_TMPDIR                 working files of builders and of the programs they start
└ sregistry-cache-<run>/         with SINGULARITY_DISABLE_CACHE; removed when the run ends, however it does
results/.cache-<images>/         the same without SREGISTRY_TMPDIR
```

All jobs of a run use one cache, those on other nodes, too, which read the Snakefile for themselves: its
name follows from the working folder and the images. Without SREGISTRY_TMPDIR it is in the working folder,
which all nodes see, and not in /tmp, which is each node's own and often memory.

What becomes an image, a blob or a receipt is none of this: it is written beside its final name, for only
there a rename is atomic.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from sregistry.config.options import TMPDIR, folder
from sregistry.config.settings import Settings
from sregistry.errors import StoreError, os_errors_as
from sregistry.store.store import Store


def working(environ: Mapping[str, str]) -> Path | None:
    """Return the folder that SREGISTRY_TMPDIR names, made if it is missing; None where it is not set. Raises ConfigError, StoreError."""
    text = environ.get(TMPDIR)
    if not text:
        return None
    path = folder(text, TMPDIR)
    with os_errors_as(StoreError, f"{TMPDIR}:"):
        path.mkdir(parents=True, exist_ok=True)
    return path


def node(environ: Mapping[str, str]) -> str:
    """Return where this node keeps temporary files of the job: a folder that the scheduler made for it, else as Python chooses.

    A job may have inherited names of folders that another node has.
    """
    for name in ("SLURM_TMPDIR", "TMPDIR"):
        path = environ.get(name, "")
        if os.path.isabs(path) and os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK):
            return path
    return tempfile.gettempdir()


def without_braces() -> Path:
    """Make a temporary folder for pages of a report: braces in a path would be wildcards of Snakemake."""
    usual = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="sregistry-report-", dir="/tmp" if set("{}") & set(usual) else usual))  # noqa: S108 - 0700


def cache(settings: Settings, results: Path, batch: str) -> Path:
    """Return where a run of the working folder *results* is in keeps layers for as long as it lasts.

    Args:
        batch: stands for its set of images.
    """
    if settings.tmpdir is None:
        return Path.cwd() / results / f".cache-{batch}"
    run = hashlib.sha256(f"{os.geteuid()} {Path.cwd()} {batch}".encode(errors="surrogateescape")).hexdigest()[:16]
    return settings.tmpdir / f"sregistry-cache-{run}"


@contextlib.contextmanager
def writable_store(settings: Settings, environ: Mapping[str, str]) -> Iterator[Store]:
    """Give the user's store, or, where it can't be written, one that is thrown away and reads it."""
    mine = Store(settings.store, settings.cache_from)
    try:
        writable = os.access(mine.folder(mine.root / "ingest"), os.W_OK)
    except OSError:
        writable = False
    if writable:
        yield mine
        return
    with tempfile.TemporaryDirectory(prefix="sregistry-", dir=working(environ)) as folder:
        yield Store(Path(folder), (settings.cache, *settings.cache_from))


@contextlib.contextmanager
def temporary(path: Path) -> Iterator[None]:
    """Have a folder of one's own, which one that was killed may have left, and remove it with all that came into it.

    Raises:
        StoreError: it can't be made, or is not ours: in a folder that all may write, somebody else could wait there.
    """
    with os_errors_as(StoreError, "can't make a temporary cache:"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.lstat()
        if path.is_symlink() or not path.is_dir() or found.st_uid != os.geteuid():
            raise StoreError(f"{path} is no folder of yours", hint=f"set {TMPDIR} to a folder of your own")
    try:
        yield
    finally:
        shutil.rmtree(path, ignore_errors=True)
