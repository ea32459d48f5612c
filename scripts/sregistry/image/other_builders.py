"""Builders beside ours: others' tools write the squashfs; the file around it is ours, as is its metadata.

```
mksquashfs   sandbox ─ tar stream ─▶ mksquashfs ──────────────────────────▶ squashfs ┬▶ SIF or simg
singularity  sandbox ─ directory ──▶ apptainer | singularity build ─▶ SIF ─ squashfs ┘
```

mksquashfs reads a tar stream, so owners, modes, devices and attributes are exact without root, and
nothing is unpacked. A runtime's `build` takes a directory: what an ordinary user can't make in one,
and what the runtime itself leaves out, is named in the receipt's `lost`.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from io import BufferedRandom
from pathlib import Path
from typing import NamedTuple

from sregistry.errors import ImageError
from sregistry.image import programs, sif, tar_writer
from sregistry.image.assemble import architecture_of, prefix_of, published, unguarded
from sregistry.image.squashfs import format as f
from sregistry.image.tree import IMPLIED, Sandbox
from sregistry.image.unpack import open_bits, unpack
from sregistry.layers.compression import Codec
from sregistry.layers.contents import Contents
from sregistry.layers.index import Index
from sregistry.layers.tar_reader import Kind
from sregistry.results.receipts import Built

#: What our levels are to mksquashfs. zstd's are the very same, gzip's are zlib's in place of libdeflate's.
_LEVELS = {
    (Codec.GZIP, "fast"): 1,
    (Codec.GZIP, "default"): 6,
    (Codec.GZIP, "small"): 9,
    (Codec.ZSTD, "fast"): 1,
    (Codec.ZSTD, "default"): 3,
    (Codec.ZSTD, "small"): 15,
}
#: Bytes copied at a time.
_COPY = 4 << 20
#: mksquashfs reads tar since 4.5; it sets the root's owner and time then since 4.6.
_TAR, _ROOT = (4, 5), (4, 6)


class Job(NamedTuple):
    """What a builder gets: the sandbox and what it needs to be read; `level` is a name."""

    sandbox: Sandbox
    layers: Sequence[Index]
    contents: Contents
    created: int
    level: str
    threads: int
    scratch: Path


class Left(NamedTuple):
    """What is not in the image: in words, and names of attributes that squashfs can't hold."""

    lost: list[str]
    dropped: list[str]


def build(
    sandbox: Sandbox,
    *,
    builder: str,
    level: str,
    threads: int,
    scratch: Path | None,
    format: str,
    target: Path,
    created: int,
    deffile: bytes,
    documents: Mapping[str, bytes],
    architecture: str | None,
    guard: Callable[[], None] = unguarded,
) -> Built:
    """Build an image with another tool and publish it under *target*; return what it is.

    Args:
        sandbox: the merged root file system; codec and block size are those of its layers.
        builder: ``mksquashfs`` or ``singularity``.
        level: of compression, by name.
        threads: cores that the tool may use.
        scratch: where temporary folders go; None is beside *target*.
        format: ``sif`` or ``simg``.
        target, created, deffile, documents, architecture, guard: as for `image.build`.

    Returns:
        What `image.build` returns, and `lost`: what the tool could not keep, in words.

    Raises:
        ImageError: the tool is missing, too old or failed; or as `image.build` does.
        StoreError: an exploded layer is missing or damaged.
    """
    tool = programs.find(builder)
    assert tool is not None, f"{builder} needs no program"
    layers = sandbox.indexes()
    with Contents(sandbox.folders, layers) as contents, published(target, 0, guard) as file:
        architecture = architecture_of(sandbox, layers, contents) or architecture
        job = Job(sandbox, layers, contents, created, level, threads, scratch or target.parent)
        # Its length is known before the squashfs is, so the squashfs can be written in its place.
        start = len(prefix_of(format, deffile, documents, b"", f.PADDING, architecture=architecture, created=created))
        left = _mksquashfs(tool, job, file, start) if builder == "mksquashfs" else _singularity(tool, job, file, start)
        superblock, tables, size = _squashfs(file, start, tool)
        file.seek(0)
        file.write(prefix_of(format, deffile, documents, tables, size, architecture=architecture, created=created))
        file.seek(0)
        version = hashlib.file_digest(file, "sha256").hexdigest()
    return Built(
        path=str(target),
        format=format,
        size=start + size,
        version=version,
        architecture=architecture,
        inodes=superblock.inodes,
        dropped_xattrs=tuple(left.dropped),
        lost=tuple(left.lost),
    )


def _mksquashfs(tool: Path, job: Job, file: BufferedRandom, start: int) -> Left:
    """Let mksquashfs write a squashfs at *start* of the file."""
    version = programs.version(tool)
    if version < _TAR:
        raise ImageError(
            f"{tool} is version {'.'.join(map(str, version))}, builder: mksquashfs needs 4.5, which reads tar",
            hint="install a newer one, or choose builder: native",
        )
    root, dropped = tar_writer.metadata(job.sandbox, job.layers, 0, job.created)
    command = [tool, "-", file.name, "-tar", "-noappend", "-no-progress", "-quiet", "-o", str(start), *_compression(job)]
    command += ["-mkfs-time", str(job.created), "-root-mode", f"{root.mode:o}"]
    lost = []
    if version >= _ROOT:
        command += ["-root-uid", str(root.uid), "-root-gid", str(root.gid), "-root-time", str(root.mtime)]
    else:
        owner = "" if (root.uid, root.gid) == (os.geteuid(), os.getegid()) else "owner and "
        lost.append(f"{owner}time of / (from 4.6 it can)")
    if root.xattrs:
        lost.append("extended attributes of /")
    written: list[tar_writer.Written] = []

    def feed(sink: programs.Sink) -> None:
        written.append(tar_writer.write(job.sandbox, job.layers, job.contents, job.created, sink))

    complaints = programs.run(command, feed=feed)
    if complaints:
        lost.append(f"what it complains about, {len(complaints)} times, the last: {complaints[-1]}")
    superblock, _, _ = _squashfs(file, start, tool)
    if not written or superblock.inodes != written[0].inodes:
        raise ImageError(f"{tool} made {superblock.inodes} inodes of {written[0].inodes if written else 'a stream that it left early'}")
    dropped += [name for _, name in written[0].dropped]
    return Left(lost, sorted({os.fsdecode(name) for name in dropped}))


def _singularity(tool: Path, job: Job, file: BufferedRandom, start: int) -> Left:
    """Let a runtime build a SIF of the sandbox as a directory; copy its squashfs to *start* of the file."""
    root = os.geteuid() == 0
    options: list[str] = []
    if "--mksquashfs-args" in programs.output([tool, "build", "--help"]):
        options = ["--mksquashfs-args", " ".join(_compression(job))]
    elif (job.layers[0].codec, job.layers[0].block_size, job.level) != (Codec.GZIP, 131072, "default"):
        raise ImageError(f"{tool} has no --mksquashfs-args: it compresses in its own way only", hint="leave out compression")
    with tempfile.TemporaryDirectory(dir=job.scratch, prefix=".sregistry-") as name:
        folder = Path(name)
        # What its owner may not read, a runtime without root can't copy.
        unpack(job.sandbox, job.layers, job.contents, folder / "rootfs", readable=not root)
        # A relative name, because the runtime writes it into the image's labels.
        programs.run(
            [tool, "build", *options, "image.sif", "rootfs"],
            folder=folder,
            environment={f"{maker}_{purpose}": name for maker in ("APPTAINER", "SINGULARITY") for purpose in ("TMPDIR", "CACHEDIR")},
        )
        with (folder / "image.sif").open("rb") as made:
            _, objects = sif.parse(made)
            partition = next((item for item in objects if item.data_type == sif.DataType.PARTITION), None)
            if partition is None:
                raise ImageError(f"{tool} made an image without a file system")
            made.seek(partition.offset)
            file.seek(start)
            for at in range(0, partition.size, _COPY):
                file.write(made.read(min(_COPY, partition.size - at)))
            file.flush()
    return Left(unkept(job, root), [])


def _compression(job: Job) -> list[str]:
    """Return mksquashfs' options: the compression that is asked for, the job's cores, and memory to go with them."""
    index = job.layers[0]
    return [
        *("-comp", index.codec.name.lower(), "-Xcompression-level", str(_LEVELS[index.codec, job.level]), "-b", str(index.block_size)),
        *("-processors", str(job.threads), "-mem", f"{256 + 4 * job.threads}M"),
    ]


def _squashfs(file: BufferedRandom, start: int, tool: Path) -> tuple[f.Superblock, bytes, int]:
    """Return the superblock of the squashfs at *start*, its bytes and those of the tables, and its size."""
    end = file.seek(0, os.SEEK_END)
    file.seek(start)
    head = file.read(f.SUPERBLOCK.size)
    superblock = f.Superblock._make(f.SUPERBLOCK.unpack(head.ljust(f.SUPERBLOCK.size, b"\0")))
    size = superblock.bytes_used + -superblock.bytes_used % f.PADDING
    if superblock.magic != f.MAGIC or start + size != end:
        raise ImageError(f"{tool} wrote no whole squashfs at {start} of the image", hint="choose builder: native")
    file.seek(start + superblock.inode_table)
    return superblock, head + file.read(), size


def unkept(job: Job, root: bool) -> list[str]:
    """Return what a runtime's build of a directory loses, each with the number of entries and the first."""
    found: dict[str, tuple[int, bytes]] = {}

    def note(what: str, path: bytes) -> None:
        count, first = found.get(what, (0, path))
        found[what] = count + 1, first

    own, _ = tar_writer.metadata(job.sandbox, job.layers, 0, job.created)
    if (own.mode, own.uid, own.gid) != (0o755, 0, 0):
        note("owner and mode of the root", b"")
    for path, row in tar_writer.walk(job.sandbox):
        source = job.sandbox.source[row]
        if source == IMPLIED:
            continue
        index, item = job.layers[source >> 32], source & 0xFFFFFFFF
        kind, mode = index.kind[item], index.mode[item]
        names = {name for name, _ in index.xattrs(item)} - {b"security.selinux"}
        if names - {b"security.capability"}:
            note("extended attributes", path)
        if root:
            continue
        if b"security.capability" in names:
            note("capabilities", path)
        if index.uid[item] or index.gid[item]:
            note("owners", path)
        if kind in (Kind.BLOCK_DEVICE, Kind.CHARACTER_DEVICE):
            note("devices", path)
        if kind != Kind.SYMLINK and open_bits(kind) & ~mode:
            note("modes that lock out the owner", path)
    return [f"{what} ({count}, such as /{first.decode(errors='backslashreplace')})" for what, (count, first) in sorted(found.items())]
