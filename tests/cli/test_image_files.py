"""Images' files together with their records: add, mv, rename, rm, as the command has them and as Python does."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sregistry import get_client
from sregistry.catalog import image_files
from sregistry.cli.__main__ import main
from sregistry.client import Client
from sregistry.errors import CatalogError, ImageError
from tests.support import tarball
from tests.support.engine import build
from tests.support.records import made

IMAGE = b"hsqs" + bytes(4092)
URI = "nvidia/caffe2:17.10"


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    """A client with empty folders of its own, which the command uses too."""
    for name in ("STORAGE", "DATABASE"):
        monkeypatch.setenv(f"SREGISTRY_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SREGISTRY_CLIENT", raising=False)
    monkeypatch.chdir(tmp_path)
    return get_client()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "some.img"
    path.write_bytes(IMAGE)
    return path


def sandbox(path: Path) -> Path:
    (path / ".singularity.d").mkdir(parents=True)
    (path / "closed").mkdir(mode=0o000)
    return path


def names(client: Client) -> list[str]:
    return sorted(path.name for path in client.settings.storage.iterdir())


@pytest.mark.parametrize("copy", [False, True], ids=["move", "copy"])
def test_add(client: Client, file: Path, copy: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["add", file.name, "--name", "caffe2:17.10", *(["--copy"] if copy else [])]) == 0
    place = client.settings.storage / "nvidia-caffe2:17.10.simg"
    assert capsys.readouterr().out == f"[container][new] {URI}\n{place}\n"
    assert (place.read_bytes(), file.exists()) == (IMAGE, copy)
    found = client.find(URI)
    assert (found.client, found.format, found.size) == ("nvidia", "simg", len(IMAGE))
    assert found.version == hashlib.sha256(IMAGE).hexdigest()
    assert names(client) == [place.name]


@pytest.mark.parametrize(("form", "platform"), [("sif", "linux/arm64"), ("simg", "")])
def test_add_a_real_image(client: Client, tmp_path: Path, form: str, platform: str) -> None:
    image = build(tmp_path / "layers", tmp_path / "made", [[tarball.file(b"etc/name", b"x")]], format=form, architecture="arm64")
    found = client.add(tmp_path / "made", URI)
    assert (found.format, found.platform, found.version, found.size) == (form, platform, image["version"], image["size"])
    assert names(client) == [f"nvidia-caffe2:17.10.{form}"]


def test_add_a_sandbox(client: Client, tmp_path: Path) -> None:
    assert client.add(sandbox(tmp_path / "box"), URI).image == str(client.settings.storage / "nvidia-caffe2:17.10")
    with pytest.raises(ImageError, match="is a directory, which is not copied"):
        client.add(sandbox(tmp_path / "other"), "nvidia/other:1", copy=True)
    client.rm(URI)
    assert names(client) == []


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"", "is no image"), (b"#!/bin/sh\n", "is no image"), (b"SIF" * 100, "is no image")],
    ids=["empty", "script", "no SIF"],
)
def test_what_is_no_image(client: Client, tmp_path: Path, data: bytes, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_bytes(data)
    assert main(["add", "file", "--name", URI]) == 1
    assert says in capsys.readouterr().err
    assert (tmp_path / "file").read_bytes() == data
    assert client.images() == []


def test_no_sandbox(client: Client, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ImageError, match=r"is no sandbox: it has no \.singularity\.d"):
        client.add("folder", URI)
    with pytest.raises(ImageError, match="No such file or directory"):
        client.add("nothing", URI)


def test_a_place_that_is_taken(client: Client, file: Path) -> None:
    client.add(file, URI, copy=True)
    file.write_bytes(IMAGE + b"new")
    with pytest.raises(ImageError, match="is there already"):
        client.add(file, URI)
    assert file.exists()
    place = client.add(file, URI, force=True).image
    assert Path(str(place)).read_bytes() == IMAGE + b"new"
    assert len(client.images()) == 1


def test_a_link_is_copied_only(client: Client, file: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(file.name)
    with pytest.raises(ImageError, match="is a link, which is not moved"):
        client.add("link", URI)
    place = Path(str(client.add("link", URI, copy=True).image))
    assert (place.is_symlink(), place.read_bytes(), file.exists()) == (False, IMAGE, True)


def test_add_what_is_in_its_place(client: Client) -> None:
    place = client.settings.storage / "nvidia-caffe2:17.10.simg"
    place.parent.mkdir()
    place.write_bytes(IMAGE)
    assert client.add(place, URI).image == str(place)
    assert names(client) == [place.name]


def test_a_record_that_can_t_be_written(client: Client, file: Path) -> None:
    client.catalog.path.parent.mkdir()
    client.catalog.path.write_text("{")
    with pytest.raises(CatalogError, match=r"nvidia-caffe2:17\.10\.simg is in place, but not recorded: the catalog .* is damaged"):
        client.add(file, URI)
    assert names(client) == ["nvidia-caffe2:17.10.simg"]


def test_mv(client: Client, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client.add(file, URI)
    (tmp_path / "folder").mkdir()
    assert main(["mv", "caffe2:17.10", "folder"]) == 0
    place = tmp_path / "folder" / "nvidia-caffe2:17.10.simg"
    assert capsys.readouterr().out == f"[move] {URI} => {place}\n"
    assert (place.read_bytes(), client.get(URI).location, names(client)) == (IMAGE, str(place), [])
    assert client.mv(URI, tmp_path / "folder" / "mine.img").image == str(tmp_path / "folder" / "mine.img")
    (tmp_path / "taken").touch()
    with pytest.raises(ImageError, match="taken is there already"):
        client.mv(URI, "taken")
    with pytest.raises(ImageError, match="is no folder"):
        client.mv(URI, "not/there")
    assert Path(client.get(URI).location).read_bytes() == IMAGE


def test_mv_without_record(client: Client, file: Path, tmp_path: Path) -> None:
    """The record is taken off meanwhile: the file is where it was."""
    found = client.add(file, URI)
    client.catalog.remove(found)
    with pytest.raises(CatalogError, match="is off the record meanwhile"):
        image_files.move(client.catalog, found, tmp_path / "elsewhere")
    assert names(client) == ["nvidia-caffe2:17.10.simg"]


def test_rename(client: Client, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    client.add(file, URI)
    assert main(["rename", URI, "lab/caffe2:mine"]) == 0
    assert capsys.readouterr().out == f"[rename] {URI} => lab/caffe2:mine\n"
    found = client.find("lab/caffe2:mine")
    assert (found.collection, found.name, found.tag) == ("lab", "caffe2", "mine")
    assert names(client) == ["lab-caffe2:mine.simg"]
    with pytest.raises(CatalogError, match="no such image"):
        client.find(URI)
    with pytest.raises(CatalogError, match="is on record already"):
        client.rename("lab/caffe2:mine", "lab/caffe2:mine")


def test_rename_keeps_a_name_of_its_own(client: Client, file: Path, tmp_path: Path) -> None:
    client.add(file, URI)
    client.mv(URI, tmp_path / "mine.img")
    assert client.rename(URI, "lab/caffe2:2").image == str(tmp_path / "mine.img")


def test_tag(client: Client, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Path(str(client.add(file, URI).image))
    for _ in range(2):  # the second time, it has that name
        assert main(["tag", URI, "caffe2:stable"]) == 0
        assert capsys.readouterr().out == f"[tag] {URI} => nvidia/caffe2:stable\n"
    assert [container.location for container in client.images()] == [str(place)] * 2
    assert client.rename(URI, "nvidia/caffe2:old").image == str(place), "the file has another name still"
    client.mv("nvidia/caffe2:stable", tmp_path / "mine.img")
    assert [container.location for container in client.images()] == [str(tmp_path / "mine.img")] * 2
    client.rm("nvidia/caffe2:old")
    assert client.get("nvidia/caffe2:stable").location == str(tmp_path / "mine.img")
    client.rm("nvidia/caffe2:stable")
    assert (client.images(), os.path.lexists(tmp_path / "mine.img")) == ([], False)


def test_a_tag_that_is_taken(client: Client, file: Path) -> None:
    client.add(file, URI, copy=True)
    file.write_bytes(IMAGE + b"new")
    client.add(file, "nvidia/caffe2:stable")
    with pytest.raises(CatalogError, match="caffe2:stable is on record already, for another image"):
        client.tag(URI, "nvidia/caffe2:stable")
    Path(client.get(URI).location).unlink()
    with pytest.raises(CatalogError, match="but is gone"):
        client.tag(URI, "nvidia/caffe2:new")


def test_a_tag_of_an_image_that_is_in_its_registry(client: Client) -> None:
    client.catalog.add(made("nvidia/remote:1", image=None, version="", metrics={"2": {"layers": []}}))
    kept = client.tag("nvidia/remote:1", "nvidia/remote:good")
    assert (kept.location, kept.inspect()["metrics"]) == (client.find("nvidia/remote:1").location, {"2": {"layers": []}})


def test_rm(client: Client, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(client.add(file, URI).image)
    client.catalog.add(made("nvidia/remote:1", image=None, version=""))
    assert main(["rm", "caffe2:17.10", "nvidia/remote:1"]) == 0
    assert capsys.readouterr().out == f"[rm] {URI}\n[rm] nvidia/remote:1\n"
    assert (client.images(), os.path.lexists(place)) == ([], False)


def test_rm_what_is_gone(client: Client, file: Path) -> None:
    Path(str(client.add(file, URI).image)).unlink()
    client.rm(URI)
    assert client.images() == []


@pytest.mark.parametrize(
    "line", [["mv", URI, "x"], ["rename", URI, "a/b:1"], ["tag", URI, "a/b:1"], ["rm", URI]], ids=lambda line: str(line[0])
)
def test_what_is_not_on_record(client: Client, line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line) == 1
    assert "no such image" in capsys.readouterr().err


@pytest.mark.parametrize("line", [["mv", URI, "x"], ["rm", URI, "nvidia/none:1"]], ids=["mv", "rm"])
def test_remote(client: Client, line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    client.catalog.add(made(URI, image=None, version=""))
    assert main(line) == 1
    err = capsys.readouterr().err
    assert err.count("error: ") == 1


@pytest.mark.needs("root", "mount")
def test_add_across_file_systems(client: Client, tmp_path: Path) -> None:
    """A move to another file system is a copy, whole before it has its name; a full one leaves the file where it was."""
    there = client.settings.storage
    there.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(there)], check=True)
    try:
        small, large = tmp_path / "small", tmp_path / "large"
        small.write_bytes(IMAGE)
        large.write_bytes(b"hsqs" + bytes(92) + os.urandom(2 << 20))
        assert Path(str(client.add(small, URI).image)).read_bytes() == IMAGE
        assert not small.exists()
        with pytest.raises(ImageError, match=os.strerror(errno.ENOSPC)):
            client.add(large, "nvidia/large:1")
        assert large.exists()
        assert names(client) == ["nvidia-caffe2:17.10.simg"]
        with pytest.raises(ImageError, match="a directory stays on its file system"):
            client.add(sandbox(tmp_path / "box"), "nvidia/box:1")
    finally:
        subprocess.run(["umount", str(there)], check=True)


@pytest.mark.parametrize(
    ("change", "deep", "says"),
    [
        (lambda path: None, True, ""),
        (lambda path: path.unlink(), False, "is gone"),
        (lambda path: path.write_bytes(IMAGE + b"x"), False, "has 4097 bytes, not 4096"),
        (lambda path: path.write_bytes(IMAGE[:-1] + b"x"), True, "has other bytes than were recorded"),
        (lambda path: path.write_bytes(IMAGE[:-1] + b"x"), False, ""),
        (lambda path: (path.unlink(), path.mkdir()), False, "is something else"),
    ],
    ids=["sound", "gone", "size", "bytes", "bytes unread", "a folder"],
)
def test_check(
    client: Client, file: Path, change: Callable[[Path], object], deep: bool, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Path(str(client.add(file, URI).image))
    client.catalog.add(made("nvidia/remote:1", image=None, version=""))
    change(place)
    assert main(["images", "--check", *(["--deep"] if deep else [])]) == int(bool(says))
    assert capsys.readouterr().out == (f"{URI}: {place} {says}\n" if says else "")


def test_the_catalog_s_way_back(client: Client, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the error says is run by a shell, and brings back the state before the last change."""
    client.add(file, URI, copy=True)
    client.add(file, "nvidia/second:1")
    client.catalog.path.write_text('{"images": {"1"')
    assert main(["images"]) == 1
    command = capsys.readouterr().err.rpartition("is kept: ")[2]
    subprocess.run(["sh", "-c", command], check=True)
    assert [container.uri for container in client.images()] == [URI]


def test_rm_dry_run(client: Client, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = client.add(file, URI).image
    client.tag(URI, "caffe2:stable")
    client.catalog.add(made("nvidia/remote:1", image=None, version=""))
    before = client.catalog.path.read_bytes()
    assert main(["rm", "--dry-run", URI, "nvidia/remote:1", "caffe2:stable"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"[rm] {URI} would be removed: record 1",  # its file has another name still
        "[rm] nvidia/remote:1 would be removed: record 3",
        f"[rm] nvidia/caffe2:stable would be removed: record 2, {place} (4,096 bytes)",
    ]
    assert (client.catalog.path.read_bytes(), os.path.exists(str(place))) == (before, True)
    client.rm(URI)
    assert os.path.exists(str(place))


@pytest.mark.parametrize("dry", [[], ["--dry-run"]], ids=["rm", "dry run"])
@pytest.mark.parametrize("wrong", ["nvidia/none:1", "several/images:1", "UPPER/case:1"])
def test_rm_removes_all_or_nothing(client: Client, file: Path, wrong: str, dry: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    place = client.add(file, URI).image
    client.catalog.add_all(made("several/images:1", client="oci", registry=f"h{n}.example", image=f"/{n}.sif") for n in range(2))
    assert main(["rm", *dry, URI, wrong]) != 0
    out, err = capsys.readouterr()
    assert out == "" and err.count("error: ") == 1
    assert (len(client.images()), os.path.exists(str(place))) == (3, True)


def other_s(client: Client, uri: str = URI) -> Path:
    """An image of another registry with the same name, newer, in a file of its own."""
    path = client.settings.database / "quay.sif"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(IMAGE)
    url = f"https://quay.io/v2/{uri.replace(':', '/manifests/')}"
    client.catalog.add(made(uri, client="quay", registry="quay.io", url=url, image=str(path), created_at="2040-01-01 00:00:00"))
    return path


@pytest.mark.parametrize("alone", [False, True], ids=["beside ours", "alone"])
@pytest.mark.parametrize(
    "line", [["rm", URI], ["mv", URI, "x"], ["rename", URI, "a/b:1"], ["tag", URI, "a/b:1"]], ids=lambda line: str(line[0])
)
def test_another_registry_s_image_is_not_touched(client: Client, file: Path, line: list[str], alone: bool) -> None:
    foreign = other_s(client)
    if not alone:
        client.add(file, URI)
    before = client.find("quay.io/" + URI)
    assert main(line) == int(alone)
    assert (client.find("quay.io/" + URI), foreign.read_bytes()) == (before, IMAGE)


def replaced(path: Path, what: str) -> Path:
    """Have somebody's work where an image was."""
    kept = path.parent / "kept"
    path.unlink() if path.is_file() else path.rename(path.parent / "old")
    kept.mkdir()
    (kept / "draft").mkdir(mode=0o750)
    if what == "text":
        path.write_text("notes")
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "directory":
        shutil.copytree(kept, path)
    else:
        path.symlink_to(kept)
    return kept


@pytest.mark.parametrize("form", ["simg", "sandbox"])
@pytest.mark.parametrize("what", ["text", "pipe", "directory"])
def test_rm_keeps_what_is_no_image_any_more(
    client: Client, file: Path, tmp_path: Path, form: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Path(str(client.add(file if form == "simg" else sandbox(tmp_path / "box"), URI).image))
    replaced(place, what)
    assert main(["rm", URI]) == 1
    assert f"error: {place}, which is on record as {URI}, is " in capsys.readouterr().err
    assert os.path.lexists(place) and len(client.images()) == 1
    place.rename(tmp_path / "away")
    client.rm(URI)
    assert client.images() == []


@pytest.mark.parametrize("form", ["simg", "sandbox"])
def test_rm_of_a_link_removes_the_link(client: Client, file: Path, tmp_path: Path, form: str) -> None:
    place = Path(str(client.add(file if form == "simg" else sandbox(tmp_path / "box"), URI).image))
    kept = replaced(place, "link")
    client.rm(URI)
    assert not os.path.lexists(place) and stat.S_IMODE((kept / "draft").stat().st_mode) == 0o750


def test_rm_of_a_cut_image(client: Client, tmp_path: Path) -> None:
    """Damaged or not, it is ours."""
    build(tmp_path / "layers", tmp_path / "made", [[tarball.file(b"etc/name", b"x")]], format="sif")
    place = Path(str(client.add(tmp_path / "made", URI).image))
    os.truncate(place, 5000)
    client.rm(URI)
    assert names(client) == []


def by_template(monkeypatch: pytest.MonkeyPatch, template: str) -> Client:
    monkeypatch.setenv("SREGISTRY_FILENAME", template)
    return get_client()


def test_add_and_rename_by_the_template(client: Client, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file follows the name as long as it has that of the template, that of today or of before."""
    client = by_template(monkeypatch, "{client}_{name}_{tag}")
    client.add(file, URI)
    assert names(client) == ["nvidia_caffe2_17.10.simg"]
    client.rename(URI, "lab/mine:2")
    assert names(client) == ["nvidia_mine_2.simg"]
    client = by_template(monkeypatch, "{name}")
    client.rename("lab/mine:2", "lab/other:3")
    assert names(client) == ["nvidia_mine_2.simg"], "a name of its own by now"


@pytest.mark.parametrize("verb", ["add", "rename"])
def test_a_name_that_no_file_can_have(client: Client, file: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    long = f"lab/{'b' * 120}:{'t' * 128}"
    if verb == "rename":
        client.add(file, URI, copy=True)
    assert main(["add", str(file), "--name", long] if verb == "add" else ["rename", URI, long]) == 2
    assert "255 are the limit of a file name" in capsys.readouterr().err
    assert file.exists() and len(client.images()) == int(verb == "rename")


@pytest.mark.parametrize("verb", ["rename", "tag"])
def test_a_new_name_stays_in_its_registry(client: Client, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    other_s(client)
    assert main([verb, "quay.io/" + URI, "nvcr.io/lab/mine:1"]) == 2
    assert "'nvcr.io/lab/mine:1' is a name at nvcr.io, and nvidia/caffe2:17.10 is an image of quay.io" in capsys.readouterr().err
    assert main([verb, "quay.io/" + URI, "lab/mine:1"]) == 0
    assert client.find("lab/mine:1").registry == client.find("quay.io/lab/mine:1").registry == "quay.io"
    client.rm("lab/mine:1")


def test_a_name_given_here_is_taken_whatever_the_registry(client: Client, file: Path) -> None:
    other_s(client)
    client.tag("quay.io/" + URI, "lab/mine:1")
    client.catalog.add(made("nvidia/a:1", image=str(file)))
    with pytest.raises(CatalogError, match="lab/mine:1 is on record already"):
        client.tag("nvidia/a:1", "lab/mine:1")


def test_move_keeps_what_is_there(client: Client, file: Path, tmp_path: Path) -> None:
    """A link, also one to nothing, and an empty directory's name are taken, too."""
    client.add(file, URI)
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ImageError, match="is there already"):
        client.mv(URI, "link")
    (tmp_path / "link").unlink()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="is there already"):
        client.mv(URI, "pipe")


@pytest.mark.parametrize("force", [False, True])
def test_add_never_replaces_a_directory(client: Client, file: Path, tmp_path: Path, force: bool) -> None:
    for name in ("nvidia-caffe2:17.10.simg", "nvidia-caffe2:17.10"):
        (client.settings.storage / name / "mine").mkdir(parents=True)
    for source in (file, sandbox(tmp_path / "box")):
        with pytest.raises(ImageError):
            client.add(source, URI, force=force)
        assert source.exists()
    assert (names(client), client.images()) == (["nvidia-caffe2:17.10", "nvidia-caffe2:17.10.simg"], [])
