"""Images' files together with their records: add, mv, rename, rm, as the command has them and as Python does."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sregistry import get_client, library
from sregistry.cli import main
from sregistry.client import Client
from sregistry.errors import CatalogError, ImageError
from tests import tarball
from tests.engine import build
from tests.test_catalog import made

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
        library.move(client.catalog, found, tmp_path / "elsewhere")
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
