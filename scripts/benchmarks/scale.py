"""Images of any number of entries, layers or bytes: what a stage costs must grow as they do, no faster.

```
explode  a tar through a pipe ─▶ an exploded layer     sandbox  its index ─▶ sandbox.index     image  ─▶ a simg
```

The tars are made while they are read, of a few distinct contents, so that neither the making nor much
data is measured. `python -m benchmarks.scale STAGE FOLDER` is one stage, in a process of its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import resource
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from benchmarks.packages import BenchmarkError

STAGES = ("explode", "sandbox", "image")
FILE, SYMLINK, DIRECTORY = b"0", b"2", b"5"
#: Names in a directory, in turn: most are small.
_FANS = (3, 12, 1, 40, 7, 250, 20, 1000)
_FLUSH = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """Layers to make: entries of each, or the bytes of its only file."""

    name: str
    layers: int = 1
    entries: int = 0
    size: int = 0

    def tar(self, layer: int) -> Iterator[bytes]:
        """Yield the stream of a layer in pieces."""
        return _pieces(single(self.size) if self.size else mixed(self.entries, layer))


def cases(*, quick: bool) -> list[Case]:
    """Return what is measured; *quick* is a tenth of it, at most."""
    tenth = 10 if quick else 1
    return [
        *(Case(name=f"{entries:,} entries", entries=entries) for entries in (10_000, 100_000, 1_000_000) if entries * tenth <= 1_000_000),
        Case(name=f"{300 // tenth} layers of 300 entries", layers=300 // tenth, entries=300),
        Case(name=f"a file of {6 / tenth:g} GB", size=6_000_000_000 // tenth),
    ]


@dataclass(frozen=True, kw_only=True, slots=True)
class Scaled:
    """What a stage cost: seconds of CPU, and the largest resident set of its process in bytes."""

    case: str
    stage: str
    entries: int
    cpu: float
    memory: int


# -- streams


def mixed(entries: int, layer: int = 0) -> Iterator[bytes]:
    """Yield a tar of *entries*: a tenth of the names in one directory, the others in directories of any size.

    Every 20th is a symlink, every 200th has an attribute, every 1000th is larger than a block. Layers
    share all directories; each has files of its own and replaces some of the one before.
    """
    draw = random.Random(layer)  # noqa: S311 -- the same bytes each time
    small = [draw.randbytes(draw.randrange(1, 500)).hex().encode() for _ in range(60)] + [b""] * 4
    large = [draw.randbytes(500) * 300 for _ in range(4)]
    flat = entries // 10
    number = 0
    folder, left = b"flat", flat
    fans = cycle(_FANS)
    depth: list[bytes] = []
    while number < entries:
        yield header(folder, DIRECTORY)
        number += 1
        for name in range(min(left, entries - number)):
            path = b"%b/%b-%06d" % (folder, b"own%d" % layer if name % 3 else b"shared", name)
            if number % 20 == 1:
                yield header(path, SYMLINK, link=b"../target-%d" % name)
            else:
                if number % 200 == 2:
                    yield attribute(b"user.number", b"%d" % (number % 1000))
                content = large[number % 4] if number % 1000 == 3 else small[number % 64]
                yield header(path, FILE, size=len(content))
                yield content + bytes(-len(content) % 512)
            number += 1
        depth = [*depth[: number % 7], b"d%d" % (number % 97), b"e%d" % number]
        folder, left = b"/".join(depth), next(fans)
    yield bytes(1024)


def single(size: int) -> Iterator[bytes]:
    """Yield a tar of one file of *size* bytes: blocks that compress well but are not zeros."""
    draw = random.Random(1)  # noqa: S311
    blocks = [draw.randbytes(1 << 10) * (_FLUSH >> 10) for _ in range(8)]
    yield header(b"large", FILE, size=size)
    for at, block in zip(range(0, size, _FLUSH), cycle(blocks), strict=False):
        yield block[: size - at]
    yield bytes(-size % 512 + 1024)


def header(path: bytes, kind: bytes, *, size: int = 0, link: bytes = b"") -> bytes:
    """Return a ustar header; a size that octal can't hold in GNU's base-256."""
    length = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    mode = b"0000755\0" if kind == DIRECTORY else b"0000644\0"
    owner = b"0001750\0" * 2 if kind == FILE and size % 7 == 1 else b"0000000\0" * 2
    front = b"%b%b%b%b14371573701\0" % (path.ljust(100, b"\0"), mode, owner, length)
    back = b"%b%bustar\x0000%b" % (kind, link.ljust(100, b"\0"), bytes(247))
    return b"%b%06o\0 %b" % (front, sum(front) + sum(back) + 256, back)


def attribute(name: bytes, value: bytes) -> bytes:
    """Return the PAX header that gives the next entry an extended attribute."""
    rest = b" SCHILY.xattr.%b=%b\n" % (name, value)
    record = b"%d%b" % (len(rest) + 2, rest)
    return header(b"pax", b"x", size=len(record)) + record.ljust(512, b"\0")


def _pieces(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Join small parts."""
    held: list[bytes] = []
    size = 0
    for part in parts:
        held.append(part)
        size += len(part)
        if size >= _FLUSH:
            yield b"".join(held)
            held.clear()
            size = 0
    yield b"".join(held)


# -- stages


def measure(case: Case, folder: Path) -> Iterator[Scaled]:
    """Run the stages of a case one after the other in *folder*, which is empty; yield what each cost."""
    digests = []
    for layer in range(case.layers):
        os.mkfifo(folder / f"tar-{layer}")
        digest = hashlib.sha256()
        for piece in case.tar(layer):
            digest.update(piece)
        digests.append(digest.hexdigest())
    (folder / "digests.json").write_text(json.dumps(digests))
    for stage in STAGES:
        command = [sys.executable, "-m", "benchmarks.scale", stage, str(folder)]
        environ = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environ) as process:
            if stage == STAGES[0]:
                threading.Thread(target=feed, args=(case, folder), daemon=True).start()
            assert process.stdout is not None
            told = process.stdout.read()
        if process.returncode:
            raise BenchmarkError(f"{case.name}: {stage} failed with {process.returncode}")
        yield Scaled(case=case.name, stage=stage, **json.loads(told))


def feed(case: Case, folder: Path) -> None:
    """Write the tars of a case into their pipes, as their readers take them."""
    for layer in range(case.layers):
        pipe = folder / f"tar-{layer}"
        with contextlib.suppress(BrokenPipeError), pipe.open("wb") as file:
            for piece in case.tar(layer):
                file.write(piece)
        # Who looks again, because something is wrong, must not wait for a writer.
        pipe.unlink()
        pipe.touch()


def _explode(folder: Path) -> None:
    from sregistry.image.metadata import environment_tar
    from sregistry.layers.compression import Compression
    from sregistry.layers.explode import explode_stream, explode_tar
    from sregistry.oci.documents import Digest
    from sregistry.store.store import Store

    store, compression = Store(folder / "store"), Compression(level="fast")
    made = [explode_tar(store, environment_tar(), compression)]
    for layer, value in enumerate(json.loads((folder / "digests.json").read_text())):
        digest = Digest(f"sha256:{value}")
        # A pipe, which a store would not take for a blob: the disk has no part in what is measured.
        with open(folder / f"tar-{layer}", "rb") as pipe:
            made.append(explode_stream(store, pipe, f"layer {digest}", digest, compression, threads=1))
    made.append(explode_tar(store, bytes(1024), compression))
    (folder / "folders.json").write_text(json.dumps([str(layer.folder) for layer in made]))


def _sandbox(folder: Path) -> None:
    from sregistry.image.merge import merge

    merge([Path(path) for path in json.loads((folder / "folders.json").read_text())]).write(folder / "sandbox.index")


def _image(folder: Path) -> None:
    from sregistry.image.assemble import build
    from sregistry.image.tree import Sandbox

    packed = Sandbox.read(folder / "sandbox.index")
    build(packed, format="simg", target=folder / "image", created=0, deffile=b"", documents={}, architecture="amd64")


def _entries(stage: str, folder: Path) -> int:
    """Return what a stage has gone through: entries of the tars, or names in the sandbox."""
    from sregistry.image.tree import Sandbox
    from sregistry.layers.index import Index

    if stage == "image":
        return len(Sandbox.read(folder / "sandbox.index"))
    return sum(len(Index.read(Path(path) / "index")) for path in json.loads((folder / "folders.json").read_text()))


def main(stage: str, folder: Path) -> None:
    """Run a stage and print what it cost, as JSON."""
    {"explode": _explode, "sandbox": _sandbox, "image": _image}[stage](folder)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # Not ru_maxrss: it begins with the memory of the process that started this one.
    highest = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    cost = {"cpu": usage.ru_utime + usage.ru_stime, "memory": int(highest.split()[1]) * 1024}
    print(json.dumps({"entries": _entries(stage, folder), **cost}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
