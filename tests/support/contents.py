"""What the layers of the test images hold."""

from __future__ import annotations

import random
import shutil
import struct
from pathlib import Path

from tests.support.tarball import (
    BLOCK,
    CHARACTER,
    CONTIGUOUS,
    END,
    GLOBAL,
    OLD_FILE,
    Member,
    Sparse,
    Style,
    device,
    directory,
    fifo,
    file,
    link,
    opaque,
    symlink,
    tar,
    whiteout,
)

_APPLETS = (
    "sh", "ash", "cat", "chmod", "cp", "cut", "date", "df", "dirname", "echo", "env", "false",
    "find", "grep", "head", "hostname", "id", "kill", "ln", "ls", "mkdir", "mktemp", "mount", "mv",
    "od", "printf", "ps", "pwd", "readlink", "rm", "sed", "sleep", "sort", "stat", "tail",
    "tar", "test", "touch", "true", "tty", "uname", "wc", "which", "xargs",
)  # fmt: skip

#: Prints its words one a line in angle brackets, so that empty words, blanks and newlines show.
_SHOW = b'#!/bin/sh\nfor word in "$@"; do printf \'<%s>\\n\' "$word"; done\n'

# A file capability as the kernel stores it (linux/capability.h, vfs_cap_data version 2): cap_net_raw+ep.
_CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)


def _program() -> bytes:
    """Return a static busybox; where the machine has none, an ELF header that no one can run."""
    found = shutil.which("busybox") or "/bin/busybox"
    if Path(found).is_file():
        return Path(found).read_bytes()
    return struct.pack("<4sBBBBQHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 0, 0, 2, 62, 1, 0x400000, 64, 0, 0, 64, 56, 0, 64, 0, 0)


def busybox() -> list[Member]:
    return [
        directory(b"bin"),
        file(b"bin/busybox", _program(), mode=0o755),
        *(symlink(b"bin/" + name.encode(), b"busybox") for name in _APPLETS),
    ]


def tiny() -> list[Member]:
    return [
        directory(b"etc"),
        file(b"etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"),
        file(b"etc/group", b"root:x:0:\nnogroup:x:65534:\n"),
        directory(b"tmp", 0o1777),
        directory(b"opt"),
        directory(b"opt/tiny"),
        directory(b"opt/tiny/bin"),
        file(b"opt/tiny/bin/hello", b"#!/bin/sh\necho hello from tiny\n", mode=0o755),
        file(b"bin/show", _SHOW, mode=0o755),
    ]


def static() -> list[Member]:
    return [file(b"busybox", _program(), mode=0o755), directory(b"data"), file(b"data/text", b"static data\n")]


def sizes() -> list[Member]:
    """Return files around the block sizes 128 KiB and 1 MiB, with and without zeros, alike and not."""
    noise = random.Random(20171127)
    block = 131072
    around = [
        0,
        1,
        511,
        512,
        4096,
        8191,
        block - 1,
        block,
        block + 1,
        2 * block - 1,
        2 * block,
        2 * block + 1,
        3 * block + 17,
        8 * block,
        8 * block + 1,
    ]
    members = [directory(b"sizes"), directory(b"sizes/noise"), directory(b"sizes/text"), directory(b"sizes/zero")]
    for size in around:
        name = b"%d" % size
        members.append(file(b"sizes/noise/" + name, noise.randbytes(size)))
        members.append(file(b"sizes/text/" + name, (b"%d bytes of text\n" % size * size)[:size]))
        members.append(file(b"sizes/zero/" + name, bytes(size)))
    one = noise.randbytes(block)
    members += [
        file(b"sizes/zeros-inside", one + bytes(2 * block) + one + bytes(block) + b"end"),
        file(b"sizes/zeros-first", bytes(2 * block) + one),
        file(b"sizes/zeros-last", one + bytes(2 * block)),
        file(b"sizes/same-1", one * 2 + b"tail"),
        file(b"sizes/same-2", one * 2 + b"tail"),
        file(b"sizes/same-but-tail", one * 2 + b"liat"),
        *(file(b"sizes/small-%d" % i, noise.randbytes(i * 37 % 900)) for i in range(400)),
    ]
    return members


def wide() -> list[Member]:
    """Return a directory of 5,000 entries, whose listing spans many metadata blocks, and a deep path."""
    deep = b"deep/" + b"/".join([b"d" * 60] * 30)
    return [
        directory(b"wide"),
        *(file(b"wide/entry-%04d-%s" % (i, b"x" * (i % 40)), b"%d" % i, mtime=1_100_000_000 + i * 7) for i in range(0, 5000, 2)),
        *(symlink(b"wide/link-%04d" % i, b"entry-%04d" % i, mtime=1_300_000_000 - i * 1000) for i in range(1, 5000, 2)),
        file(deep + b"/bottom", b"deep"),
    ]


def odd() -> list[bytes]:
    """Return the tar streams of the odd image, lowest layer first."""
    return [tar(layer) for layer in odd_members()]


def odd_members() -> list[list[Member]]:
    """Return layers that umoci can't read or reads otherwise than others: not for that oracle."""
    many = bytearray(60 * 4096)
    for i in range(0, 60, 2):
        many[i * 4096 : i * 4096 + 512] = b"%03d." % i * 128
    scattered = tuple((i * 4096, 512) for i in range(0, 60, 2))
    block = 131072
    wide = bytes(2 * block) + b"middle" + bytes(3 * block)
    lower = [
        Member(name=b"pax_global_header", type=GLOBAL, records=[(b"comment", b"a global header")]),
        *busybox(),
        file(b"contiguous", b"type 7", type=CONTIGUOUS),
        file(b"sparse/old-gnu", wide, sparse=Sparse.OLD_GNU, segments=((2 * block, 6),), style=Style.GNU),
        file(b"sparse/old-gnu-many", bytes(many), sparse=Sparse.OLD_GNU, segments=scattered, style=Style.GNU),
        file(b"sparse/old-gnu-hole", bytes(block), sparse=Sparse.OLD_GNU, style=Style.GNU),
        file(b"sparse/after", b"what follows a sparse file is found\n"),
        file(b"before-1970", mtime=-5),
        file(b"acl", b"squashfs can't hold it", xattrs={b"system.posix_acl_access": b"\2\0\0\0", b"user.kept": b"1"}),
        file(b"empty-attribute", b"Go's archive/tar drops it", xattrs={b"user.empty": b""}),
        directory(b"folder"),
        file(b"folder/file", b"f"),
        file(b"parent", b"a file now, a directory later"),
        # A file aside, which hard links of the same old aufs layer name as their target.
        directory(b".wh..wh.plnk", 0o700),
        file(b".wh..wh.plnk/12.34", b"aside", mode=0o640),
        link(b"aufs-1", b".wh..wh.plnk/12.34"),
        link(b"aufs-2", b".wh..wh.plnk/12.34"),
    ]
    upper = [
        file(b"parent/child", b"c"),
        file(b"folder/sub/own", b"of this layer"),
        whiteout(b"folder"),
    ]
    return [lower, upper]


def tricky_members() -> list[list[Member]]:
    """Return the layers of the tricky image, lowest first."""
    return [[*busybox(), *_plain(), *_formats(), *_before()], _after(), [], _again(), []]


def tricky() -> list[bytes]:
    """Return the tar streams of the tricky image, lowest layer first."""
    first, second, third, fourth, _ = tricky_members()
    return [
        tar(first),
        tar(second, end=b""),  # the two zero blocks may be missing …
        tar(third),
        tar(fourth, end=END + bytes(8192) + b"what follows the end is padding"),  # … or followed by something
        b"",
    ]


def _plain() -> list[Member]:
    """Kinds, modes, owners, times and extended attributes."""
    both = {b"user.text": b"value", b"user.binary": b"\0\1\xfe\xff\n=", b"trusted.secret": b"t" * 300}
    return [
        directory(b"./", 0o755, mtime=1_234_567_890),
        directory(b"etc", mtime=1_111_111_111),
        file(b"etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
        file(b"etc/hosts", b"10.0.0.1 build-host\n"),
        symlink(b"etc/resolv.conf", b"../run/systemd/resolve/stub-resolv.conf"),
        directory(b"tmp", 0o1777, mtime=1_222_222_222),
        directory(b"dev"),
        device(b"dev/null", CHARACTER, 1, 3, 0o666),
        directory(b"opt"),
        directory(b"opt/dev"),
        file(b"opt/dev/x", b"not a device\n"),
        directory(b"kinds"),
        device(b"kinds/block", BLOCK, 7, 0, 0o660, gid=6),
        device(b"kinds/large", CHARACTER, 4095, 1048575, 0o600, style=Style.GNU),
        device(b"kinds/minor", BLOCK, 259, 70000, 0o600),
        fifo(b"kinds/fifo", 0o622, uid=5),
        symlink(b"kinds/relative", b"../etc/passwd", mtime=1_010_101_010),
        symlink(b"kinds/absolute", b"/etc/passwd"),
        symlink(b"kinds/dangling", b"no/such/../file"),
        symlink(b"kinds/loop", b"loop"),
        symlink(b"kinds/outside", b"../../../../../../etc/shadow"),
        symlink(b"kinds/odd-target", b"\xff\xfe ' \" $x\n"),
        symlink(b"kinds/owned", b"relative", uid=1234, gid=4321),
        directory(b"modes"),
        file(b"modes/suid", b"suid", mode=0o4755),
        file(b"modes/sgid", b"sgid", mode=0o2711, gid=8),
        file(b"modes/all-bits", b"all", mode=0o7777, uid=1000, gid=1000),
        file(b"modes/none", b"nobody reads this", mode=0),
        directory(b"modes/sgid-dir", 0o2775, gid=50),
        directory(b"modes/none-dir", 0),
        file(b"modes/none-dir/inside", b"behind a closed door"),
        directory(b"modes/none-dir/deeper", 0o700),
        file(b"modes/none-dir/deeper/file", b"x"),
        directory(b"owners"),
        *(file(b"owners/%d" % i, b"%d" % i, uid=i * 1000, gid=i * 1000 + 7) for i in range(12)),
        file(b"owners/pax", b"", uid=2_097_152, gid=4_000_000_000),
        file(b"owners/base-256", b"", uid=3_000_000_000, gid=2_097_153, style=Style.GNU),
        directory(b"times"),
        file(b"times/zero", b"", mtime=0),
        file(b"times/fraction", b"", mtime="1234567890.987654321"),
        file(b"times/late", b"", mtime=4_000_000_000),
        directory(b"times/dir", mtime=86_400),
        directory(b"xattrs", xattrs={b"user.dir": b"on a directory"}),
        file(b"xattrs/many", b"m", xattrs=both),
        file(b"xattrs/same", b"s", xattrs=both),
        file(b"xattrs/capability", b"c", mode=0o755, xattrs={b"security.capability": _CAPABILITY}),
        file(b"xattrs/odd-name", b"o", xattrs={b"user.with space.\xc3\xbc": b"v"}),
        file(b"xattrs/selinux", b"l", xattrs={b"security.selinux": b"system_u:object_r:etc_t:s0\0", b"user.kept": b"1"}),
        symlink(b"xattrs/link", b"many", xattrs={b"trusted.on-link": b"\0"}),
        device(b"xattrs/device", CHARACTER, 1, 5, xattrs={b"trusted.on-device": b"d"}),
        *(file(b"xattrs/own-%d" % i, b"", xattrs={b"user.n": b"%d" % i}) for i in range(20)),
    ]


def _formats() -> list[Member]:
    """Names, numbers and sparse files in every tar format."""
    deep = b"names/" + b"/".join([b"component-%02d" % i for i in range(20)])
    block = 131072
    data = bytearray(5 * block + 100)
    data[10:20] = b"0123456789"
    data[2 * block : 2 * block + 5000] = random.Random(5).randbytes(5000)
    data[-100:] = b"e" * 100
    segments = ((10, 10), (2 * block, 5000), (5 * block, 100))
    many = bytearray(60 * 4096)
    for i in range(0, 60, 2):
        many[i * 4096 : i * 4096 + 512] = b"%03d." % i * 128
    scattered = tuple((i * 4096, 512) for i in range(0, 60, 2))
    hole = bytes(3 * block)
    return [
        directory(b"names"),
        file(b"names/" + b"p" * 255, b"pax", style=Style.PAX),
        file(b"names/" + b"g" * 255, b"gnu", style=Style.GNU),
        file(deep + b"/pax", b"deep pax"),
        file(deep + b"/gnu", b"deep gnu", style=Style.GNU),
        file(b"names/" + b"u" * 90 + b"/" + b"s" * 90, b"ustar", style=Style.USTAR),
        symlink(b"names/long-target-pax", b"/" + b"t" * 200 + b"/" + b"t" * 250),
        symlink(b"names/long-target-gnu", b"../" * 60 + b"t" * 150, style=Style.GNU),
        link(b"names/hard-to-long", b"names/" + b"g" * 255, style=Style.GNU),
        file(b"names/\xff\xfe not utf-8 \x80", b"raw", style=Style.GNU),
        file(b"names/\xff" + b"long not utf-8 " * 8, b"raw", style=Style.PAX),
        file("names/ünïcödé ☃".encode(), b"utf-8"),
        file(b"names/new\nline", b"n"),
        file(b"names/tab\tand\x01control", b"t"),
        file(b"names/ blanks ", b"b"),
        file(b"names/quotes'\"`$(x)\\", b"q"),
        file(b"names/-dash", b"d"),
        file(b"names/*?[glob]", b"g"),
        file(b"names/colon:at@", b"c"),
        file(b"names/...", b"three dots"),
        file(b"names/.hidden", b"hidden"),
        file(b"names/wh.looks-like", b"no whiteout"),
        directory(b"formats"),
        file(b"formats/v7", b"v7", style=Style.V7, type=OLD_FILE),
        file(b"formats/v7-dir/", b"", style=Style.V7, type=OLD_FILE, mode=0o750),
        file(b"formats/v7-dir/file", b"inside", style=Style.V7, type=OLD_FILE),
        file(b"formats/pax-size", b"short", records=[(b"size", b"5"), (b"comment", b"x" * 2000)]),
        directory(b"sparse"),
        file(b"sparse/pax-0.0", bytes(data), sparse=Sparse.PAX_0_0, segments=segments),
        file(b"sparse/pax-0.1", bytes(data), sparse=Sparse.PAX_0_1, segments=segments),
        file(b"sparse/pax-1.0", bytes(many), sparse=Sparse.PAX_1_0, segments=scattered),
        file(b"sparse/only-a-hole", hole, sparse=Sparse.PAX_1_0),
        file(b"sparse/after", b"what follows a sparse file is found\n"),
        # Names that are absolute, climb or need cleaning stay inside.
        file(b"/absolute/file", b"absolute"),
        file(b"../../climbs/out", b"stays"),
        file(b"cleaned/../cleaned/./twice//file", b"cleaned"),
        file(b"implied/by/a/deep/file", b"no directory of this path has an entry"),
    ]


def _before() -> list[Member]:
    """What the second and fourth layer change."""
    kinds = [b"file", b"dir", b"link", b"fifo"]
    members = [directory(b"replace", mtime=1_000_000_100)]
    for old in kinds:
        for new in [*kinds, b"device"]:
            members += _of_kind(b"replace/%s-by-%s" % (old, new), old)
    members += [
        # Within one layer the last entry of a name wins.
        directory(b"twice"),
        file(b"twice/file", b"first", mode=0o600),
        file(b"twice/file", b"second", mode=0o640),
        file(b"twice/kind", b"a file"),
        directory(b"twice/kind", 0o711),
        file(b"twice/kind/inside", b"i"),
        symlink(b"twice/link", b"first"),
        symlink(b"twice/link", b"second"),
        # Hard links: in the layer, to every kind that may have them, and to a file that is replaced later.
        directory(b"hard"),
        file(b"hard/a", b"hard", mode=0o644, uid=3, xattrs={b"user.h": b"1"}),
        link(b"hard/b", b"hard/a", mode=0, uid=99),
        link(b"hard/c", b"./hard/../hard/a"),
        symlink(b"hard/symlink", b"a"),
        link(b"hard/symlink-too", b"hard/symlink"),
        fifo(b"hard/fifo"),
        link(b"hard/fifo-too", b"hard/fifo"),
        device(b"hard/device", CHARACTER, 1, 7),
        link(b"hard/device-too", b"/hard/device"),
        file(b"hard/old", b"old content"),
        link(b"hard/old-kept", b"hard/old"),
        file(b"hard/old", b"new content"),
        file(b"hard/lower", b"linked from a higher layer"),
        file(b"hard/empty", b""),
        link(b"hard/empty-too", b"hard/empty"),
        file(b"hard/shrinks-1", b"three names, then two"),
        link(b"hard/shrinks-2", b"hard/shrinks-1"),
        link(b"hard/shrinks-3", b"hard/shrinks-1"),
        # Entries below symlinks land where these point to, inside the root.
        directory(b"real"),
        file(b"real/victim", b"goes away through a link"),
        directory(b"through"),
        symlink(b"through/relative", b"../real"),
        symlink(b"through/absolute", b"/real"),
        symlink(b"through/climbing", b"../../../../../../real"),
        symlink(b"through/chain", b"relative"),
        symlink(b"through/dangling", b"made/by-need"),
        file(b"through/relative/one", b"1"),
        file(b"through/absolute/two", b"2"),
        file(b"through/climbing/three", b"3"),
        directory(b"through/chain/dir", 0o750),
        file(b"through/chain/dir/four", b"4"),
        file(b"through/dangling/five", b"5"),
        link(b"through/hard", b"through/chain/one"),
        # What whiteouts of the next layer remove, or leave.
        directory(b"wh"),
        *(file(b"wh/" + name, b"lower " + name) for name in (b"gone", b"kept", b"gone-again", b"back", b"before", b"after", b"x", b"xx")),
        directory(b"wh/dir"),
        directory(b"wh/dir/sub"),
        file(b"wh/dir/sub/file", b"gone with it"),
        symlink(b"wh/link-to-kept", b"kept"),
        fifo(b"wh/fifo"),
        device(b"wh/device", CHARACTER, 1, 3),
        file(b"wh/implied/only/file", b"gone"),
    ]
    for name in (b"first", b"last", b"none", b"nested"):
        top = b"opaque/" + name
        members += [
            directory(top, 0o755, mtime=1_000_000_200),
            file(top + b"/lower", b"hidden"),
            directory(top + b"/sub"),
            file(top + b"/sub/lower", b"hidden too"),
            file(top + b"/same", b"lower"),
        ]
    return members


def _after() -> list[Member]:
    """The second layer."""
    kinds = [b"file", b"dir", b"link", b"fifo"]
    members: list[Member] = []
    for old in kinds:
        for new in [*kinds, b"device"]:
            members += _of_kind(b"replace/%s-by-%s" % (old, new), new, again=True)
    members += [
        whiteout(b"wh/gone"),
        whiteout(b"wh/gone-again"),
        whiteout(b"wh/dir"),
        whiteout(b"wh/link-to-kept"),
        whiteout(b"wh/fifo"),
        whiteout(b"wh/device"),
        whiteout(b"wh/implied"),
        whiteout(b"wh/x"),
        whiteout(b"wh/never-was"),
        whiteout(b"hard/shrinks-2"),
        whiteout(b"through/chain/victim"),
        # A whiteout hides lower layers only, wherever in its layer it stands.
        whiteout(b"wh/before"),
        file(b"wh/before", b"upper before"),
        file(b"wh/after", b"upper after"),
        whiteout(b"wh/after"),
        # What aufs left in old layers is no file.
        Member(name=b".wh..wh.aufs", mode=0o444),
        directory(b".wh..wh.orph", 0o700),
        directory(b".wh..wh.plnk", 0o700),
        # Opaque markers first, last, alone, and below one another.
        opaque(b"opaque/first"),
        directory(b"opaque/first/sub", 0o711),
        file(b"opaque/first/upper", b"stays"),
        file(b"opaque/first/same", b"upper"),
        directory(b"opaque/last", 0o700, mtime=1_000_000_300),
        directory(b"opaque/last/sub"),
        file(b"opaque/last/sub/upper", b"stays"),
        file(b"opaque/last/same", b"upper"),
        opaque(b"opaque/last"),
        opaque(b"opaque/none"),
        file(b"opaque/nested/sub/upper", b"stays"),
        opaque(b"opaque/nested/sub"),
        # Hard links into the layer below, one of them under a new name of its own layer.
        link(b"hard/upper", b"hard/lower"),
        link(b"hard/upper-too", b"hard/upper"),
        # Metadata of a directory that exists, and of the root.
        directory(b"modes/sgid-dir", 0o751, uid=9, gid=9, mtime=1_000_000_400, xattrs={b"user.new": b"1"}),
        directory(b"xattrs", 0o755, mtime=1_000_000_500),
        file(b"xattrs/many", b"without any"),
        directory(b".", 0o711, mtime=1_000_000_600),
    ]
    return members


def _again() -> list[Member]:
    """The fourth layer."""
    return [
        file(b"wh/back", b"was there all the time"),
        file(b"wh/gone", b"came back", mode=0o600),
        directory(b"wh/dir", 0o701),
        file(b"wh/dir/new", b"came back"),
        file(b"opaque/first/lower", b"came back"),
        whiteout(b"opaque/first/upper"),
        whiteout(b"twice"),
        link(b"hard/b-again", b"hard/b"),
        file(b"hard/a", b"no longer linked"),
        file(b"implied/by/other", b"o"),
        symlink(b"names/.hidden", b"now-a-link"),
    ]


def _of_kind(path: bytes, kind: bytes, again: bool = False) -> list[Member]:
    """Return the entries that make *path* a file, a directory with content, a symlink, a FIFO or a device."""
    mtime = 1_000_001_000 + 1000 * again
    new = b"new" if again else b"old"
    match kind:
        case b"file":
            return [file(path, new + b" content", mtime=mtime, mode=0o640 + again)]
        case b"dir":
            return [directory(path, 0o750 + again, mtime=mtime), file(path + b"/" + new, new), file(path + b"/both", new)]
        case b"link":
            return [symlink(path, new + b"-target", mtime=mtime)]
        case b"fifo":
            return [fifo(path, 0o620 + again, mtime=mtime)]
        case _:
            return [device(path, CHARACTER, 5, 1, mtime=mtime)]
