"""What the images are made of: Debian packages and wheels, by the clients that the machine has.

Downloads are kept by name. A package becomes `Member`s: a tar header in normal form, and how to read
the content.
"""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

SUITE = "bookworm"
#: Where Debian's Python looks for what pip installs.
SITE = "usr/local/lib/python3.11/dist-packages"
#: One time for all members (2024-01-01), so that equal packages give equal layers.
TIME = 1_704_067_200

_PYTHON = ("3.11", "cp", ("cp311", "abi3", "none"))
_MANYLINUX = ("2_28", "2_27", "2_24", "2_17", "2014")
#: Folders of the root that are links into usr in a merged-usr system.
_MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


class BenchmarkError(Exception):
    """The benchmark can't go on, for a reason that one line tells."""


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of a layer: its header, and for a file how to open the content of `info.size` bytes."""

    info: tarfile.TarInfo
    open: Callable[[], IO[bytes]] | None = None


def fixed(name: str, kind: bytes, *, mode: int, size: int = 0, link: str = "") -> tarfile.TarInfo:
    """Return a header with nothing in it that could differ from one run to another."""
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.linkname, info.mtime = kind, mode, size, link, TIME
    return info


def text(name: str, data: bytes, *, mode: int = 0o644) -> Member:
    """Return a file of *data*."""
    return Member(fixed(name, tarfile.REGTYPE, mode=mode, size=len(data)), lambda: io.BytesIO(data))


# -- Debian


def base(folder: Path) -> Path:
    """Return a tar of a minimal Debian root file system."""
    final = folder / f"{SUITE}.tar"
    if not final.exists():
        _need("mmdebstrap")
        with _workspace(folder) as space:
            _run(["mmdebstrap", "--quiet", "--variant=minbase", SUITE, str(space / final.name), _mirror()])
            (space / final.name).rename(final)
    return final


def deb(name: str, folder: Path) -> Path:
    """Return the Debian package *name* of the machine's own sources."""
    found = sorted(folder.glob(f"{name}_*.deb"))
    if not found:
        _need("apt-get")
        _need("dpkg-deb")
        with _workspace(folder) as space:
            space.chmod(0o777)  # apt downloads as its own user
            _run(["apt-get", "download", "-q", name], cwd=space)
            found = [path.rename(folder / path.name) for path in space.glob("*.deb")]
    return found[-1]


def _mirror() -> str:
    """Return the address of the main archive in apt's sources, whatever their format."""
    fields = "$(ORIGIN)|$(LABEL)|$(CODENAME)|$(REPO_URI)"
    for line in _run(["apt-get", "indextargets", "--format", fields, "Created-By: Packages"]).splitlines():
        origin, label, suite, address = line.split("|", 3)
        if (origin, label, suite) == ("Debian", "Debian", SUITE):
            return address
    raise BenchmarkError(f"no archive of Debian {SUITE} among the sources of apt; add one and run apt-get update")


def tar_members(path: Path, *, merge: bool) -> Iterator[Member]:
    """Yield the members of a tar; with *merge*, names of a merged-usr system."""
    with tarfile.open(path, "r:") as tar:
        for item in tar:
            name = _normal(item.name, merge=merge)
            if not name or name.startswith(("var/log/", "var/cache/", "var/lib/apt/lists/")):
                continue
            link = _normal(item.linkname, merge=merge) if item.islnk() else item.linkname
            kind = tarfile.REGTYPE if item.isreg() else item.type
            info = fixed(name, kind, mode=item.mode, size=item.size if item.isreg() else 0, link=link)
            info.devmajor, info.devminor = item.devmajor, item.devminor
            yield Member(info, _slice(path, item.offset_data, item.size) if item.isreg() else None)


def deb_members(path: Path, space: Path) -> Iterator[Member]:
    """Yield the members of a Debian package, whose tar is unpacked into the folder *space*."""
    unpacked = space / f"{path.name}.tar"
    with unpacked.open("wb") as file:
        _run(["dpkg-deb", "--fsys-tarfile", str(path)], stdout=file)
    return tar_members(unpacked, merge=True)


def _normal(name: str, *, merge: bool) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/".join(["usr", *parts] if merge and parts and parts[0] in _MERGED else parts)


def _slice(path: Path, offset: int, size: int) -> Callable[[], IO[bytes]]:
    def read() -> IO[bytes]:
        file = path.open("rb")
        file.seek(offset)
        return file

    return read if size else io.BytesIO


# -- Python


def wheel(requirement: str, folder: Path) -> Path:
    """Return the wheel of a requirement such as numpy==2.4.6, for Debian's Python."""
    name, _, version = requirement.partition("==")
    found = sorted(folder.glob(f"{name.replace('-', '_')}-{version}[-+]*.whl"))
    if not found:
        python, implementation, abis = _PYTHON
        options = ["--python-version", python, "--implementation", implementation, "--only-binary=:all:", "--no-deps", "--quiet"]
        options += [word for abi in abis for word in ("--abi", abi)]
        platforms = [f"manylinux{'' if tag == '2014' else '_'}{tag}_x86_64" for tag in _MANYLINUX]
        options += [word for platform in (*platforms, "any") for word in ("--platform", platform)]
        with _workspace(folder) as space:
            _run([*_pip(), "download", *options, "--dest", str(space), requirement])
            found = [path.rename(folder / path.name) for path in space.glob("*.whl")]
    return found[-1]


def _pip() -> list[str]:
    """Return a pip: this Python's, else any, for an environment that uv made has none."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    _need("pip")
    return ["pip"]


def wheel_members(path: Path, opened: ExitStack) -> Iterator[Member]:
    """Yield the members of a wheel where pip would put them (binary distribution format, "Installing a wheel").

    Their content can be read while *opened* is.
    """
    archive = opened.enter_context(zipfile.ZipFile(path))
    for item in archive.infolist():
        if not item.is_dir():
            mode = 0o755 if item.external_attr >> 16 & 0o111 else 0o644
            info = fixed(_installed(item.filename), tarfile.REGTYPE, mode=mode, size=item.file_size)
            yield Member(info, partial(archive.open, item))


def _installed(name: str) -> str:
    first, _, rest = name.partition("/")
    if not first.endswith(".data"):
        return f"{SITE}/{name}"
    scheme, _, rest = rest.partition("/")
    places = {"purelib": SITE, "platlib": SITE, "scripts": "usr/local/bin", "headers": "usr/local/include/python3.11"}
    return f"{places.get(scheme, 'usr/local')}/{rest}"


# -- clients


@contextmanager
def _workspace(folder: Path) -> Iterator[Path]:
    """Give a folder of its own beside the final place: a file gets its name only when it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    space = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    try:
        yield space
    finally:
        shutil.rmtree(space, ignore_errors=True)


def _need(program: str) -> None:
    if shutil.which(program) is None:
        raise BenchmarkError(f"{program} is not installed; the images are made with it")


def _run(command: Sequence[str], *, cwd: Path | None = None, stdout: IO[bytes] | int = subprocess.PIPE) -> str:
    """Run a client and return what it prints. Raises BenchmarkError with its last line."""
    environ = {**os.environ, "SOURCE_DATE_EPOCH": str(TIME), "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, cwd=cwd, stdout=stdout, stderr=subprocess.PIPE, env=environ, check=False)
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise BenchmarkError(f"{' '.join(command[:3])} … failed: {' '.join(last)}")
    return (done.stdout or b"").decode()
