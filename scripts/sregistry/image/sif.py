"""The Singularity Image Format, version 1: laid out before it is written, and read back.

```
0            128           4096                        32176                                4096 n
| header 128 | zeros       | 48 object descriptors     | deffile | JSON | … | zeros         | squashfs |
|            |             | 585 each                  |                    |               |          |
 launch line                free slots are zero         packed, in id order                  end of file
```

Integers are little-endian, structs are packed. A loader finds objects by type, or by type and name,
never by place. The file system comes last and ends the file, so that an image is written in one
pass: `plan` gives the bytes before it, then the file system is streamed. Sections named "§" are
those of the project's specification, sif.md.
"""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Mapping
from enum import Enum, IntEnum
from typing import BinaryIO, NamedTuple

from sregistry.errors import ImageError, from_oserror

#: What the kernel starts when an image is executed; 31 bytes, as the header has room for.
LAUNCH_LINE = b"#!/usr/bin/env run-singularity\n"
MAGIC = b"SIF_MAGIC\0"
VERSION = b"01\0"

#: Slots in a new image's table. Free ones are what `sign` and `overlay create` use later.
CAPACITY = 48
#: A file system starts at a multiple of this many bytes (§5: loop mounts).
ALIGNMENT = 4096

_TABLE_OFFSET = 4096
#: Group 1, which all objects are in (§3): the mask tells groups from ids.
_GROUP = 0xF0000001
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "sregistry.image")


class DataType(IntEnum):
    """What an object is (§4)."""

    DEFFILE = 0x4001
    ENVIRONMENT = 0x4002
    LABELS = 0x4003
    PARTITION = 0x4004
    SIGNATURE = 0x4005
    GENERIC_JSON = 0x4006
    GENERIC = 0x4007
    CRYPTOGRAPHIC_MESSAGE = 0x4008
    SBOM = 0x4009
    OCI_ROOT_INDEX = 0x400A
    OCI_BLOB = 0x400B


class FileSystem(IntEnum):
    """What a partition is formatted as (§4)."""

    SQUASHFS = 1
    EXT3 = 2
    ARCHIVE = 3
    RAW = 4
    ENCRYPTED_SQUASHFS = 5
    GOCRYPTFS_SQUASHFS = 6


class PartitionType(IntEnum):
    """What a partition is for; an image is started from its one primary system partition (§4)."""

    SYSTEM = 1
    PRIMARY_SYSTEM = 2
    DATA = 3
    OVERLAY = 4


class Architecture(Enum):
    """Processor architectures: Go's name and the format's two digits (§2)."""

    UNKNOWN = "unknown", b"00\0"
    I386 = "386", b"01\0"
    AMD64 = "amd64", b"02\0"
    ARM = "arm", b"03\0"
    ARM64 = "arm64", b"04\0"
    PPC64 = "ppc64", b"05\0"
    PPC64LE = "ppc64le", b"06\0"
    MIPS = "mips", b"07\0"
    MIPSLE = "mipsle", b"08\0"
    MIPS64 = "mips64", b"09\0"
    MIPS64LE = "mips64le", b"10\0"
    S390X = "s390x", b"11\0"
    RISCV64 = "riscv64", b"12\0"
    LOONG64 = "loong64", b"13\0"

    def __init__(self, go: str, code: bytes) -> None:
        self.go = go
        self.code = code

    @classmethod
    def of(cls, go: str | None) -> Architecture:
        """Return the architecture of a Go name; UNKNOWN, which runs on any host, for any other text."""
        return next((item for item in cls if item.go == go), cls.UNKNOWN)

    @classmethod
    def read(cls, code: bytes) -> Architecture:
        """Return the architecture of a header's digits; UNKNOWN for any that the format does not know."""
        return next((item for item in cls if item.code == code), cls.UNKNOWN)


#: ELF's (e_machine, class, byte order) and Go's name; class 1 is 32 bits, order 1 little-endian.
_ELF = {
    (3, 1, 1): "386",
    (62, 1, 1): "amd64",  # x32: needs an amd64 kernel
    (62, 2, 1): "amd64",
    (40, 1, 1): "arm",
    (183, 2, 1): "arm64",
    (21, 2, 2): "ppc64",
    (21, 2, 1): "ppc64le",
    (8, 1, 2): "mips",
    (8, 1, 1): "mipsle",
    (8, 2, 2): "mips64",
    (8, 2, 1): "mips64le",
    (22, 2, 2): "s390x",
    (243, 2, 1): "riscv64",
    (258, 2, 1): "loong64",
}


def elf_architecture(head: bytes) -> str | None:
    """Return Go's name of the architecture that a program is for.

    Args:
        head: the file's first bytes, 20 at least; 64 are the whole header.

    Returns:
        None: no ELF file, or of an architecture that the format has no code for.
    """
    if len(head) < 20 or head[:4] != b"\x7fELF" or head[5] not in (1, 2):
        return None
    (machine,) = struct.unpack_from("<H" if head[5] == 1 else ">H", head, 18)
    return _ELF.get((machine, head[4], head[5]))


class Header(NamedTuple):
    """The global header, in disk order (§1). Times are unix seconds, offsets bytes in the file."""

    launch: bytes
    magic: bytes
    version: bytes
    architecture: bytes
    image_id: bytes
    created: int
    modified: int
    free: int
    total: int
    table_offset: int
    table_size: int
    data_offset: int
    data_size: int


class ObjectDescriptor(NamedTuple):
    """One slot of the table, in disk order (§3). `storage` is the size with the gap before it."""

    data_type: int
    used: int
    id: int
    group: int
    link: int
    offset: int
    size: int
    storage: int
    created: int
    modified: int
    uid: int
    gid: int
    name: bytes
    extra: bytes

    @property
    def title(self) -> str:
        """The name as text."""
        return self.name.partition(b"\0")[0].decode(errors="replace")

    @property
    def partition(self) -> Partition:
        """What the slot says of a file system; only a partition's slot does."""
        return Partition._make(_PARTITION.unpack_from(self.extra))


class Partition(NamedTuple):
    """The extra field of a partition, in disk order (§4)."""

    file_system: int
    partition_type: int
    architecture: bytes


_HEADER = struct.Struct("<32s10s3s3s16s8q")
_DESCRIPTOR = struct.Struct("<iBIIIqqqqqqq128s384s")
_PARTITION = struct.Struct("<ii3s")


class Plan(NamedTuple):
    """An image but for its file system: the bytes before it; their number is where it starts."""

    prefix: bytes
    partition_offset: int


def image_id(inputs: str) -> uuid.UUID:
    """Return the id of the image that is made of *inputs*, a digest of all that decides its bytes."""
    return uuid.uuid5(_NAMESPACE, inputs)


def plan(
    deffile: bytes,
    documents: Mapping[str, bytes],
    *,
    partition_size: int,
    architecture: str | None,
    created: int,
    image: uuid.UUID,
) -> Plan:
    """Lay out an image with one file system, as `singularity build` orders it (§6, §7).

    Args:
        deffile: the definition file.
        documents: JSON documents by name; they are laid out by name.
        partition_size: bytes of the squashfs, a multiple of 4096 (§5).
        architecture: Go's name; None or one without a code is written as unknown, which no host refuses.
        created: unix seconds, for the header and every object.
        image: the image's id; see `image_id`.

    Returns:
        The bytes up to the file system. The finished file is these and *partition_size* bytes.
    """
    if partition_size <= 0 or partition_size % ALIGNMENT:
        raise ValueError(f"a squashfs of {partition_size} bytes can't be mounted: expected a multiple of {ALIGNMENT}")
    code = Architecture.of(architecture).code
    small = [(DataType.DEFFILE, "", deffile)]
    small += [(DataType.GENERIC_JSON, name, documents[name]) for name in sorted(documents)]

    start = end = _TABLE_OFFSET + CAPACITY * _DESCRIPTOR.size
    table, data = bytearray(), bytearray()

    def describe(kind: DataType, name: str, offset: int, size: int, extra: bytes) -> None:
        title = name.encode()
        if len(title) > 128:
            raise ValueError(f"{name!r} is longer than an object's name may be (128 bytes)")
        number = len(table) // _DESCRIPTOR.size + 1
        fields = ObjectDescriptor(kind, 1, number, _GROUP, 0, offset, size, offset - end + size, created, created, 0, 0, title, extra)
        table.extend(_DESCRIPTOR.pack(*fields))

    for kind, name, content in small:
        describe(kind, name, end, len(content), b"")
        data += content
        end += len(content)
    offset = -(-end // ALIGNMENT) * ALIGNMENT
    extra = _PARTITION.pack(FileSystem.SQUASHFS, PartitionType.PRIMARY_SYSTEM, code)
    describe(DataType.PARTITION, "", offset, partition_size, extra)

    used = len(table) // _DESCRIPTOR.size
    if used > CAPACITY:
        raise ValueError(f"{used} objects, but the table has {CAPACITY} slots")
    header = Header(
        launch=LAUNCH_LINE,
        magic=MAGIC,
        version=VERSION,
        architecture=code,
        image_id=image.bytes,
        created=created,
        modified=created,
        free=CAPACITY - used,
        total=CAPACITY,
        table_offset=_TABLE_OFFSET,
        table_size=CAPACITY * _DESCRIPTOR.size,
        data_offset=start,
        data_size=offset + partition_size - start,
    )
    prefix = _HEADER.pack(*header).ljust(_TABLE_OFFSET, b"\0") + bytes(table).ljust(start - _TABLE_OFFSET, b"\0") + data
    return Plan(prefix.ljust(offset, b"\0"), offset)


def parse(file: BinaryIO) -> tuple[Header, list[ObjectDescriptor]]:
    """Read the header and the objects of a whole image, in table order, free slots left out.

    Args:
        file: open for reading and seekable; where it stands afterwards is not defined.

    Raises:
        ImageError: no image, or cut or damaged; it names the offset and what was expected there.
    """
    try:
        length = file.seek(0, os.SEEK_END)
        header = Header._make(_HEADER.unpack(_read(file, 0, _HEADER.size, length, "the header")))
        _expect(header.magic == MAGIC, 32, "SIF_MAGIC", header.magic)
        _expect(header.version == VERSION, 42, "version 01", header.version)
        _expect(header.total >= 0, 88, "a number of objects", header.total)
        _expect(header.table_offset >= _HEADER.size, 96, f"a table behind the header's {_HEADER.size} bytes", header.table_offset)
        table = _read(file, header.table_offset, header.total * _DESCRIPTOR.size, length, "the table of objects")
    except OSError as error:
        raise from_oserror(error, ImageError, "can't read the image") from error
    slots = [ObjectDescriptor._make(fields) for fields in _DESCRIPTOR.iter_unpack(table)]
    for number, slot in enumerate(slots):
        if slot.used:
            at = header.table_offset + number * _DESCRIPTOR.size
            _expect(slot.offset >= 0, at + 17, "an object inside the file", slot.offset)
            _expect(0 <= slot.size <= length - slot.offset, at + 25, f"an object that ends inside the file's {length} bytes", slot.size)
    return header, [slot for slot in slots if slot.used]


def _read(file: BinaryIO, offset: int, size: int, length: int, what: str) -> bytes:
    """Return *size* bytes at *offset* of a file of *length* bytes."""
    if offset + size > length:
        raise ImageError(f"no whole SIF image: expected {what}, {size} bytes at {offset}, but the file has {length} bytes")
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise ImageError(f"no whole SIF image: expected {what}, {size} bytes at {offset}, got {len(data)}")
    return data


def _expect(condition: bool, offset: int, expected: str, got: object) -> None:
    if not condition:
        raise ImageError(f"no SIF image: expected {expected} at {offset}, got {got!r}")
