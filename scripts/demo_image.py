"""A demo image for this host, made of the host's own programs: `python scripts/demo_image.py DIR`.

```
layer 1   bin/{sh,cat,…} and their libraries, etc/{passwd,group,os-release}, tmp
layer 2   opt/hello/hello        the entrypoint, a shell script
          opt/hello/draft.txt
layer 3   opt/hello/.wh.draft.txt, opt/hello/notes.txt
```

It needs neither network nor root. DIR becomes an OCI image layout with one name, `demo/hello:1`; the
same host gives the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sregistry.errors import SregistryError, from_oserror
from sregistry.image.metadata import Member, tarball
from sregistry.oci.documents import Descriptor, Digest, MediaType, Platform
from sregistry.store.store import Store

NAME = "demo/hello:1"

#: Where a host keeps its programs. Not $PATH: an active conda environment would change the image.
SEARCH = "/bin:/usr/bin:/sbin:/usr/sbin"
#: The first is needed, the others are taken where the host has them.
PROGRAMS = ("sh", "cat", "echo", "env", "head", "id", "ls", "uname")

_CREATED = "2026-01-01T00:00:00Z"
_MTIME = 1767225600
_GZIP = f"{MediaType.OCI_LAYER}+gzip"

_HELLO = b"""\
#!/bin/sh
# Greets, then shows the arguments it was given, one a line.
printf '%s from the sregistry demo image\\n' "$GREETING"
number=0
for argument in "$@"; do
    number=$((number + 1))
    printf 'argument %s: %s\\n' "$number" "$argument"
done
"""

_OS_RELEASE = b"""\
ID=sregistry-demo
NAME="sregistry demo"
PRETTY_NAME="sregistry demo image"
VERSION_ID=1
"""


def demo(store: Store, search: str = SEARCH) -> Descriptor:
    """Make the image in *store* and name it.

    Args:
        store: where to; what is there already stays.
        search: folders of programs, joined by colons.

    Returns:
        The manifest's descriptor.

    Raises:
        SregistryError: the host has no usable sh, or the store can't be written.
    """
    base = [
        *programs(search),
        Member("etc", 0o755, None),
        Member("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n"),
        Member("etc/os-release", 0o644, _OS_RELEASE),
        Member("etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"),
        Member("root", 0o700, None),
        Member("tmp", 0o1777, None),
    ]
    app = [
        Member("opt", 0o755, None),
        Member("opt/hello", 0o755, None),
        Member("opt/hello/draft.txt", 0o644, b"The next layer removes this file.\n"),
        Member("opt/hello/hello", 0o755, _HELLO),
    ]
    # A whiteout: it removes draft.txt of the layer below (image-spec, layer.md).
    last = [
        Member("opt/hello/.wh.draft.txt", 0o644, b""),
        Member("opt/hello/notes.txt", 0o644, b"This file is of the last layer.\n"),
    ]
    tars = [tarball(members, _MTIME) for members in (base, app, last)]
    layers = [_add(store, _GZIP, gzip.compress(tar, mtime=0)) for tar in tars]
    platform = Platform.host()
    config: dict[str, Any] = {
        "created": _CREATED,
        "architecture": platform.architecture,
        **({"variant": platform.variant} if platform.variant else {}),
        "os": platform.os,
        "config": {
            "Env": ["PATH=/opt/hello:/bin", "GREETING=Hello"],
            "Entrypoint": ["/opt/hello/hello"],
            "Cmd": ["world"],
            "WorkingDir": "/",
            "Labels": {"org.opencontainers.image.title": "hello", "org.opencontainers.image.description": "The demo image of sregistry"},
        },
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(tar)) for tar in tars]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST,
        "config": _add(store, MediaType.OCI_CONFIG, _json(config)).json(),
        "layers": [layer.json() for layer in layers],
    }
    descriptor = _add(store, MediaType.OCI_MANIFEST, _json(manifest))
    store.tag(NAME, descriptor)
    return descriptor


def programs(search: str = SEARCH) -> list[Member]:
    """Return the host's programs in bin/ and the libraries they load, each at its own path.

    A static busybox serves for all programs; else each is taken from the host, a program of many
    names (busybox, coreutils) once. Scripts that stand for programs are left out.

    Raises:
        SregistryError: there is no sh that can be taken along.
    """
    files: dict[str, bytes | str] = {}
    busybox = _find("busybox", search)
    if busybox and _libraries(busybox) == []:
        offered = _output(str(busybox), "--list").split()
        files["bin/busybox"] = _read(busybox)
        files |= {f"bin/{name}": "busybox" for name in PROGRAMS if name in offered}
    else:
        taken: dict[Path, str] = {}
        for name in PROGRAMS:
            program = _find(name, search)
            libraries = _libraries(program) if program else None
            if program is None or libraries is None:
                continue
            # A link, not a copy: such a program looks at the name by which it was called.
            files[f"bin/{name}"] = taken.get(program) or _read(program)
            taken.setdefault(program, name)
            files |= {str(library).lstrip("/"): _read(library) for library in libraries}
    if "bin/sh" not in files:
        raise SregistryError(f"can't make the demo image: no sh in {search} that is a program with all its libraries")
    folders = {str(parent) for path in files for parent in Path(path).parents if parent.name}
    members = [Member(path, 0o755, None) for path in folders]
    members += [Member(path, 0o777 if isinstance(content, str) else 0o755, content) for path, content in files.items()]
    return sorted(members, key=lambda member: member.path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make the image, say its name and digest, and return the exit code."""
    parser = argparse.ArgumentParser(prog="demo_image.py", description="Make a demo image for this host.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="OCI image layout to write; made if missing")
    directory = parser.parse_args(arguments).directory
    try:
        descriptor = demo(Store(directory))
    except SregistryError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{NAME} {descriptor.digest}")
    return 0


def _find(name: str, search: str) -> Path | None:
    """Return the program's file, links resolved."""
    found = shutil.which(name, path=search)
    return Path(found).resolve() if found else None


def _libraries(program: Path) -> list[Path] | None:
    """Return what the program loads: nothing if it is static, None if it is none or misses a library."""
    if _read(program)[:4] != b"\x7fELF":
        return None
    return read_ldd(_output("ldd", str(program)))


def read_ldd(text: str) -> list[Path] | None:
    """Return the files that ldd names: none for a static program, None if something is missing.

    glibc and musl alike print `NAME => PATH (0xADDRESS)` and `LOADER (0xADDRESS)`.
    """
    paths = [Path(path) for path in re.findall(r"(/\S+) \(0x", text)]
    static = any(phrase in text for phrase in ("not a dynamic executable", "statically linked", "Not a valid dynamic program"))
    return None if "not found" in text or not (paths or static) else paths


def _output(*command: str) -> str:
    """Return what a command prints, errors too, in a plain environment: LD_LIBRARY_PATH would change the image."""
    try:
        result = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, env={"PATH": SEARCH, "LC_ALL": "C"}, errors="replace"
        )
    except OSError as error:
        raise from_oserror(error, SregistryError, "can't make the demo image: can't start") from error
    return result.stdout


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise from_oserror(error, SregistryError, "can't make the demo image: can't read") from error


def _add(store: Store, media_type: str, data: bytes) -> Descriptor:
    return Descriptor(media_type=media_type, digest=store.add(data), size=len(data))


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, indent=1).encode()


if __name__ == "__main__":
    sys.exit(main())
