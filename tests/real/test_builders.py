"""Other builders with the real programs: what they make is what ours makes, but for what the receipt names.

```
layers ─▶ sandbox ┬─ native ───────────────────▶ image ─ kernel mount ─┐
                  ├─ mksquashfs 4.5, 4.7 ──────▶ image ─ kernel mount ─┴─ compared
                  └─ apptainer build ──────────▶ image …
```
"""

from __future__ import annotations

import functools
import json
import os
import posixpath
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sregistry.catalog.catalog import Catalog
from sregistry.errors import SregistryError
from sregistry.image import assemble, merge, other_builders
from sregistry.image.metadata import environment_tar, metadata_tar, sif_objects
from sregistry.image.tree import Sandbox
from sregistry.layers.compression import Compression
from sregistry.oci.documents import ImageConfig
from tests.conftest import CACHE, REPOSITORY
from tests.real.conftest import Apptainer, Pipeline, mounted, partition, tool
from tests.support import contents, engine, images, oracle
from tests.support.tarball import SYMLINK, Member

UID = 1000
CREATED = 1_509_091_200
REFERENCE = "127.0.0.1:5000/demo/built:1"
needs_mksquashfs = pytest.mark.needs("mksquashfs", "unsquashfs", "siftool")
needs_apptainer = pytest.mark.needs("amd64", "apptainer", "busybox", "siftool")
compared = pytest.mark.needs("mount", "siftool")

Words = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Made:
    """A sandbox and how images of it are made, natively and otherwise."""

    folder: Path
    packed: Sandbox
    config: ImageConfig

    def build(self, builder: str, name: str, **more: Any) -> dict[str, Any]:
        """Build an image under *name* and return the receipt."""
        deffile, documents = sif_objects(self.config, reference=REFERENCE, docker_cmd=False, created=CREATED)
        words: Words = {"format": "sif", "target": self.folder / name / "image", "created": CREATED, "architecture": "amd64"}
        words |= {"deffile": deffile, "documents": documents}
        if builder == "native":
            return assemble.build(self.packed, **{**words, **more}).json()
        words |= {"builder": builder, "level": "default", "threads": 2, "scratch": None}
        return other_builders.build(self.packed, **{**words, **more}).json()

    @functools.cached_property
    def native(self) -> Path:
        return Path(self.build("native", "native")["path"])


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Made]]:
    """Return a function that merges layers; every user may look at what it makes, user 1000 may write beside."""
    if os.geteuid():
        yield functools.partial(_made, tmp_path)
    else:
        with tempfile.TemporaryDirectory(prefix="sregistry-builders-", dir="/tmp") as name:
            folder = Path(name)
            folder.chmod(0o755)
            yield functools.partial(_made, folder)


def _made(folder: Path, layers: Sequence[bytes | Sequence[Member]], compression: Compression | None = None) -> Made:
    config = ImageConfig.parse(json.dumps({"architecture": "amd64", "os": "linux", "config": images.TINY, "rootfs": ROOTFS}).encode())
    metadata = metadata_tar(config, reference=REFERENCE, docker_cmd=False, created=CREATED)
    packed = merge.merge(engine.folders(folder / "store", [environment_tar(), *layers, metadata], compression))
    if not os.geteuid():
        (folder / "user").mkdir(exist_ok=True)
        os.chown(folder / "user", UID, UID)
    return Made(folder=folder, packed=packed, config=config)


ROOTFS: Mapping[str, Any] = {"type": "layers", "diff_ids": []}
LAYERS: dict[str, Callable[[], Sequence[bytes | Sequence[Member]]]] = {
    "tricky": contents.tricky,
    "odd": contents.odd,
    "sizes": lambda: [contents.sizes(), contents.wide()],
    "tiny": lambda: [contents.busybox(), contents.tiny()],
}


def in_a_child(become: Callable[[], None], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do some work in a process that first becomes another user; an error's text is under ``error``."""
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        try:
            become()
            try:
                result = work()
            except SregistryError as error:
                result = {"error": str(error)}
            with os.fdopen(writable, "w") as out:
                json.dump(result, out)
        finally:
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as said:
        text = said.read()
    os.waitpid(child, 0)
    value: dict[str, Any] = json.loads(text)
    return value


def as_user() -> None:
    os.setgroups([])
    os.setresgid(UID, UID, UID)
    os.setresuid(UID, UID, UID)


def as_user_with_a_way_back() -> None:
    """Only effectively a user: the wrapper of Apptainer, a bash script, becomes root again to set up its namespace."""
    os.setegid(UID)
    os.seteuid(UID)


def tree(path: Path, where: Path, offset: int | None = None) -> oracle.Tree:
    with mounted(path, partition(path) if offset is None else offset, where) as folder:
        return oracle.tree(folder)


# -- mksquashfs


@pytest.fixture(params=["4.5", "4.7"])
def mksquashfs(request: pytest.FixtureRequest, open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Choose the machine's mksquashfs, or a newer one out of Apptainer's root, started by that root's own loader."""
    root = CACHE / "apptainer"
    if request.param == "4.7":
        if not (root / ".ready").exists():
            pytest.skip("needs Apptainer's root (tests/real/provision)")
        folder = Path(tempfile.mkdtemp(dir=open_folder))
        library = ":".join(str(root / name / "x86_64-linux-gnu") for name in ("lib", "usr/lib"))
        script = f'exec {root}/lib64/ld-linux-x86-64.so.2 --library-path {library} {root}/usr/bin/mksquashfs "$@"'
        (folder / "mksquashfs").write_text(f"#!/bin/sh\n{script}\n")
        for path in (folder / "mksquashfs", folder):
            path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    found = re.search(r"version (\d+\.\d+)", subprocess.run(["mksquashfs", "-version"], capture_output=True, text=True, check=False).stdout)
    assert found
    return found[1]


def _tuple(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _lost_of_the_root(version: str, uid: int, lost: list[str]) -> set[str]:
    """Check what the receipt says, and return the fields of the root that may differ."""
    named = [line for line in lost if line.endswith("/ (from 4.6 it can)")]
    if _tuple(version) >= (4, 6):
        assert named == []
        return set()
    assert named == [f"{'owner and ' if uid else ''}time of / (from 4.6 it can)"]
    return {"mtime", "uid", "gid"} if uid else {"mtime"}


@compared
@needs_mksquashfs
@pytest.mark.parametrize("uid", [0, UID], ids=["root", "user"])
@pytest.mark.parametrize("name", LAYERS)
def test_mksquashfs_makes_the_same_tree(make: Callable[..., Made], mksquashfs: str, tmp_path: Path, name: str, uid: int) -> None:
    made = make(LAYERS[name]())
    native = made.build("native", "native")
    receipt = in_a_child(as_user if uid else lambda: None, lambda: made.build("mksquashfs", "user"))
    assert "error" not in receipt, receipt
    path = Path(receipt["path"])
    differences = oracle.differences(tree(made.native, tmp_path / "one"), tree(path, tmp_path / "two"), added=False)
    allowed = _lost_of_the_root(mksquashfs, uid, receipt["lost"])
    assert [line for line in differences if not line.startswith(tuple(f"b'': {field} is " for field in allowed))] == []
    same = ("format", "architecture", "inodes", "dropped_xattrs")
    assert {key: receipt[key] for key in same} == {key: native[key] for key in same}
    assert receipt["size"] == path.stat().st_size
    assert receipt["version"] == tool("sha256sum", path).split()[0]
    assert list(path.parent.iterdir()) == [path]


@needs_mksquashfs
@pytest.mark.parametrize("name", ["tricky", "sizes"])
def test_an_ordinary_user_gets_the_same_listing(make: Callable[..., Made], name: str) -> None:
    """Without root and without mounting: unsquashfs lists owners, modes, devices, sizes, times and links."""
    made = make(LAYERS[name]())
    listings = []
    for builder in ("native", "mksquashfs"):
        path = Path(made.build(builder, builder)["path"])
        command = ["unsquashfs", "-lln", "-o", str(partition(path)), str(path)]
        lines = subprocess.run(command, capture_output=True, check=True).stdout.splitlines()
        # Without the root, and without the sizes of directories: a listing may be divided in other ways.
        listings.append([re.sub(rb"^(d\S+ \S+) +\d+ ", rb"\1 ", line) for line in lines if not line.endswith(b" squashfs-root")])
    assert listings[0] == listings[1] and len(listings[0]) > 200


@needs_mksquashfs
@pytest.mark.parametrize(
    ("codec", "level", "block_size", "number"),
    [("gzip", "fast", 131072, 1), ("gzip", "default", 65536, 6), ("gzip", "small", 1048576, 9), ("zstd", "default", 131072, 3)],
)
def test_mksquashfs_compresses_as_asked(make: Callable[..., Made], codec: str, level: str, block_size: int, number: int) -> None:
    made = make(LAYERS["tiny"](), Compression.parse(codec=codec, level=level, block_size=block_size))
    receipt = made.build("mksquashfs", "image", level=level)
    said = tool("unsquashfs", "-s", "-o", str(partition(Path(receipt["path"]))), receipt["path"])
    assert f"Compression {codec}\n" in said and f"Block size {block_size}\n" in said
    shown = re.search(r"compression-level (\d+)", said)  # gzip's own default, 9, is not written down
    assert int(shown[1]) == number if shown else number == 9


@needs_mksquashfs
def test_equal_input_gives_equal_bytes(make: Callable[..., Made], mksquashfs: str) -> None:
    made = make(LAYERS["sizes"]())
    versions = {made.build("mksquashfs", f"image-{n}", threads=n)["version"] for n in (1, 4)}
    assert len(versions) == 1 or _tuple(mksquashfs) < (4, 6), "before 4.6 the root's time is that of the build"


@compared
@needs_mksquashfs
def test_mksquashfs_makes_a_simg(make: Callable[..., Made], tmp_path: Path) -> None:
    made = make(LAYERS["tricky"]())
    path = Path(made.build("mksquashfs", "image", format="simg")["path"])
    assert path.read_bytes()[:35] == b"#!/usr/bin/env run-singularity\nhsqs"
    differences = oracle.differences(tree(made.native, tmp_path / "one"), tree(path, tmp_path / "two", 31), added=False)
    assert [line for line in differences if not line.startswith("b'': mtime is ")] == []


@needs_mksquashfs
def test_the_file_around_it_is_ours(make: Callable[..., Made]) -> None:
    made = make(LAYERS["tiny"]())
    path = Path(made.build("mksquashfs", "image")["path"])
    for number in ("1", "2", "3"):
        assert tool("siftool", "dump", number, path) == tool("siftool", "dump", number, made.native)
    assert tool("siftool", "list", path).count("|") == tool("siftool", "list", made.native).count("|")
    assert "amd64" in tool("siftool", "header", path)


@needs_mksquashfs
@pytest.mark.needs("mount")
def test_a_full_disk_is_one_line_and_leaves_nothing(make: Callable[..., Made]) -> None:
    made = make(LAYERS["sizes"]())
    (made.folder / "small").mkdir()
    tool("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", made.folder / "small")
    try:
        with pytest.raises(SregistryError, match=r"mksquashfs failed \(1\): .*([Nn]o space|full)") as caught:
            made.build("mksquashfs", "small")
        assert "\n" not in str(caught.value) and list((made.folder / "small").iterdir()) == []
    finally:
        tool("umount", made.folder / "small")


@needs_mksquashfs
@needs_apptainer
@pytest.mark.parametrize("form", ["sif", "simg"])
def test_apptainer_runs_it(make: Callable[..., Made], apptainer: Apptainer, form: str) -> None:
    made = make(LAYERS["tiny"]())
    path = made.build("mksquashfs", "image", format=form)["path"]
    done = apptainer("run", path, "u 1")
    assert (done.returncode, done.stdout) == (0, "".join(f"<{word}>\n" for word in (*images.WORDS, "u 1"))), done.stderr
    assert apptainer("exec", path, "hello").stdout == "hello from tiny\n"


# -- singularity


def _tame(layer: Sequence[Member]) -> list[Member]:
    """Leave out relative links that climb above the root: Apptainer 1.4 refuses a directory that has one."""

    def climbs(member: Member) -> bool:
        if member.type != SYMLINK or member.target.startswith(b"/"):
            return False
        return posixpath.normpath(posixpath.join(b"r", posixpath.dirname(member.name), member.target)).split(b"/")[0] != b"r"

    return [member for member in layer if not climbs(member)]


@pytest.fixture
def runtime(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Return a function that puts Apptainer on PATH, as root or as an ordinary user."""

    def install(user: bool) -> None:
        folder = Path(tempfile.mkdtemp(dir=open_folder))
        wrapper = f"SREGISTRY_TESTS_CACHE={CACHE} exec {REPOSITORY}/tests/real/apptainer {'--user' if user else ''}"
        (folder / "apptainer").write_text(f'#!/bin/bash\n{wrapper} "$@"\n')
        for path in (folder / "apptainer", folder):
            path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    return install


#: What a runtime changes in the image because it builds one: its labels, its history, and times there.
_ITS_OWN = (b".singularity.d", b".singularity.d/Singularity", b".singularity.d/labels.json", b".singularity.d/bootstrap_history")


@compared
@needs_apptainer
@pytest.mark.parametrize("user", [False, True], ids=["root", "user"])
def test_a_runtime_makes_the_same_tree_but_for_what_it_says(
    make: Callable[..., Made], runtime: Callable[[bool], None], tmp_path: Path, user: bool
) -> None:
    made = make([*map(_tame, contents.tricky_members()), contents.tiny()])
    expected = tree(made.native, tmp_path / "one")
    runtime(user)
    receipt = in_a_child(as_user_with_a_way_back if user else lambda: None, lambda: made.build("singularity", "user"))
    assert "error" not in receipt, receipt
    found = tree(Path(receipt["path"]), tmp_path / "two")
    lost = {line.partition(" (")[0] for line in receipt["lost"]}
    every = {"capabilities", "devices", "extended attributes", "modes that lock out the owner", "owners"}
    assert lost == {"owner and mode of the root", *(every if user else {"extended attributes"})}
    wrong = []
    for path in sorted(expected.keys() | found.keys()):
        if path.startswith(_ITS_OWN[1:]):
            continue
        one, other = expected.get(path), found.get(path)
        assert one is not None and other is not None, path
        for field in ("kind", "mode", "uid", "gid", "mtime", "size", "content", "device", "xattrs", "links"):
            a, b = getattr(one, field), getattr(other, field)
            if a != b and not _excused(path, one, field, user):
                wrong.append(f"{path!r}: {field} is {b!r}, expected {a!r}")
    assert wrong == []
    assert [item.name for item in Path(receipt["path"]).parent.iterdir()] == ["image"]


def _excused(path: bytes, node: oracle.Node, field: str, user: bool) -> bool:
    """Tell whether a difference is one that the receipt names, or of times that no layer says or the runtime touches."""
    if not path and field in ("mode", "uid", "gid"):
        return True
    if field == "mtime":
        return node.mtime == CREATED or path in (b"", *_ITS_OWN) or path.startswith(b".singularity.d/env/94")
    if field == "xattrs":
        return user or any(name != b"security.capability" for name, _ in node.xattrs)
    if not user:
        return False
    if node.kind in "bc" and field in ("kind", "device", "content"):
        return True
    locked = node.kind in "-d" and (0o700 if node.kind == "d" else 0o400) & ~node.mode
    return field in ("uid", "gid") or (field == "mode" and bool(locked))


@needs_apptainer
@pytest.mark.parametrize("form", ["sif", "simg"])
@pytest.mark.parametrize("user", [False, True], ids=["root", "user"])
def test_what_a_runtime_built_runs_and_says_what_the_native_image_says(
    make: Callable[..., Made], runtime: Callable[[bool], None], apptainer: Apptainer, user: bool, form: str
) -> None:
    made = make(LAYERS["tiny"]())
    made.native.chmod(0o755)
    runtime(user)
    receipt = in_a_child(as_user_with_a_way_back if user else lambda: None, lambda: made.build("singularity", "user", format=form))
    assert receipt.get("lost") == [], receipt
    done = apptainer("run", receipt["path"], "u 1")
    assert (done.returncode, done.stdout) == (0, "".join(f"<{word}>\n" for word in (*images.WORDS, "u 1"))), done.stderr
    if form == "sif":
        assert apptainer("inspect", "--all", receipt["path"]).stdout == apptainer("inspect", "--all", made.native).stdout


@compared
@needs_apptainer
def test_a_runtime_compresses_as_asked(make: Callable[..., Made], runtime: Callable[[bool], None]) -> None:
    made = make(LAYERS["tiny"](), Compression.parse(codec="zstd", level="fast", block_size=1 << 20))
    runtime(False)
    receipt = made.build("singularity", "image", level="fast")
    said = tool("unsquashfs", "-s", "-o", str(partition(Path(receipt["path"]))), receipt["path"])
    assert "Compression zstd\n" in said and "Block size 1048576\n" in said and "compression-level 1\n" in said


@needs_apptainer
def test_a_runtime_that_refuses_is_one_line_and_leaves_nothing(make: Callable[..., Made], runtime: Callable[[bool], None]) -> None:
    made = make(contents.tricky())
    runtime(False)
    with pytest.raises(SregistryError, match=r"apptainer failed \(255\): FATAL: .*invalid symlink.*; builder: native") as caught:
        made.build("singularity", "image")
    assert "\n" not in str(caught.value) and list((made.folder / "image").iterdir()) == []


# -- codecs


@compared
@needs_apptainer
@needs_mksquashfs
def test_what_is_here_takes_zstd(make: Callable[..., Made], apptainer: Apptainer, tmp_path: Path) -> None:
    """The other side of the warning: Apptainer from 1.4, this kernel and unsquashfs read such images."""
    made = make(LAYERS["tiny"](), Compression.parse(codec="zstd", level="default", block_size=131072))
    path = made.native
    assert apptainer("exec", path, "hello").stdout == "hello from tiny\n"
    assert b"opt/tiny/bin/hello" in tree(path, tmp_path / "mnt")
    assert "Compression zstd" in tool("unsquashfs", "-s", "-o", str(partition(path)), path)


# -- the pipeline


@pytest.mark.needs("docker-registry")
@needs_apptainer
@needs_mksquashfs
@pytest.mark.parametrize("builder", ["mksquashfs", "singularity"])
def test_the_pipeline(
    registry: str, tmp_path: Path, runtime: Callable[[bool], None], builder: str, apptainer: Apptainer, open_folder: Path
) -> None:
    runtime(False)
    pipeline = Pipeline(tmp_path / "work", registry, {"SREGISTRY_STORAGE": str(open_folder / builder)})
    result = pipeline.run("uri=demo/tiny:1", f"builder={builder}")
    assert result.returncode == 0, result.stderr
    assert f"Success! {open_folder / builder}/demo-tiny:1.sif" in result.stdout + result.stderr
    path = open_folder / builder / "demo-tiny:1.sif"
    assert apptainer("exec", path, "hello").stdout == "hello from tiny\n"
    records = Catalog(tmp_path / "work/database").records()
    assert [record.version for record in records] == [tool("sha256sum", path).split()[0]]
    assert "Nothing to be done" in pipeline.run("uri=demo/tiny:1", f"builder={builder}").stderr
