"""What a file holds, and who may take its name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sregistry.catalog.occupant import Identity, holds, refusal
from sregistry.catalog.record import Record
from sregistry.config.filename import FORMATS
from sregistry.errors import ImageError, SregistryError
from sregistry.image import assemble, provenance
from sregistry.image.merge import merge
from sregistry.image.metadata import deffile, metadata_tar, sif_objects
from sregistry.oci.documents import Digest, ImageConfig
from tests.support import tarball
from tests.support.engine import Tars, folders
from tests.support.records import made

URI = "nvcr.io/nvidia/caffe2:17.10"
DIGEST = str(Digest.of(b"a manifest"))


def wanted(text: str = URI, platform: str = "linux/amd64", format: str = "sif") -> Identity:
    name, _, digest = text.partition("@")
    registry, _, rest = name.partition("/")
    repository, _, tag = rest.partition(":")
    return Identity.of(registry, repository, tag or None, [digest], platform, format)


def write(path: Path, reference: str = URI, format: str = "sif", architecture: str = "amd64", content: bytes = b"x") -> dict[str, Any]:
    """Make an image as the pipeline does."""
    config = ImageConfig.parse(
        json.dumps({"os": "linux", "architecture": architecture, "rootfs": {"type": "layers", "diff_ids": []}}).encode()
    )
    definition, documents = sif_objects(config, reference=reference, docker_cmd=False, created=0)
    layers: Tars = [[tarball.file(b"etc/name", content)], metadata_tar(config, reference=reference, docker_cmd=False, created=0)]
    packed = merge(folders(path.parent / "store", layers))
    settings: dict[str, Any] = {"created": 0, "deffile": definition, "documents": documents, "architecture": architecture}
    return assemble.build(packed, format=format, target=path, **settings).json()


def recorded(path: Path, receipt: dict[str, Any], uri: str = "nvidia/caffe2:17.10", **fields: Any) -> Record:
    kept = {"size": receipt["size"], "version": receipt["version"], "format": receipt["format"], "digest": DIGEST}
    return made(uri, image=str(path), **{**kept, **fields})


def refused(path: Path, identity: Identity, *records: Record, force: bool = False) -> str | None:
    error = refusal(path, identity, lambda: records, {}, force=force)
    return None if error is None else str(error)


OTHERS = {
    "registry": wanted("quay.io/nvidia/caffe2:17.10"),
    "repository": wanted("nvcr.io/nvidia-caffe2/x:17.10"),
    "tag": wanted("nvcr.io/nvidia/caffe2:17.11"),
    "architecture": wanted(platform="linux/arm64"),
    "operating system": wanted(platform="windows/amd64"),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("known", [True, False], ids=["recorded", "unrecorded"])
def test_who_may_take_a_name(tmp_path: Path, format: str, known: bool) -> None:
    """The same image may, on record or by its own labels; others may not, but by force."""
    path = tmp_path / f"x{FORMATS[format]}"
    records = [recorded(path, write(path, format=format))][: int(known)]
    own = wanted(format=format)
    assert refused(path, own, *records) is None
    assert refused(path, replace(own, platform="linux/amd64/v2"), *records) is None
    for identity in OTHERS.values():
        other = replace(identity, format=format)
        says = refused(path, other, *records)
        assert says and f"{path} holds {URI} (linux/amd64, {format}), not {other}; " in says and "\n" not in says
        assert all(way in says for way in ("--name", "another storage", "--force", "force: yes"))
        assert refused(path, other, *records, force=True) is None
    for another in FORMATS:
        assert (refused(path, wanted(format=another), *records) is None) == (another == format)


def test_an_image_by_digest(tmp_path: Path) -> None:
    path = tmp_path / "x.sif"
    record = recorded(path, write(path))
    assert refused(path, wanted(f"nvcr.io/nvidia/caffe2@{DIGEST}"), record) is None, "the rebuild of what is recorded"
    assert refused(path, wanted(f"nvcr.io/nvidia/caffe2@{Digest.of(b'other')}"), record)
    by_digest = replace(record, uri=f"nvidia/caffe2@{DIGEST}", tag=None, url=f"https://nvcr.io/v2/nvidia/caffe2/manifests/{DIGEST}")
    assert refused(path, wanted(), by_digest) is None
    assert refused(path, wanted(f"nvcr.io/nvidia/caffe2@{Digest.of(b'other')}"), by_digest)


@pytest.mark.parametrize(("one", "other", "same"), [("v6", "v7", False), ("v7", "v7", True), ("", "v7", True)])
def test_a_variant_counts_where_both_have_one(tmp_path: Path, one: str, other: str, same: bool) -> None:
    path = tmp_path / "x.sif"
    record = recorded(path, write(path, architecture="arm"), platform=f"linux/arm/{other}")
    assert (refused(path, wanted(platform=f"linux/arm/{one}".rstrip("/")), record) is None) == same


def test_other_names_of_a_registry(tmp_path: Path) -> None:
    path = tmp_path / "x.sif"
    write(path, "busybox:1")  # as Apptainer's own definition says Docker Hub's
    assert refused(path, wanted("registry-1.docker.io/library/busybox:1")) is None
    assert refused(path, wanted("nvcr.io/library/busybox:1"))


def test_an_image_with_another_name_here(tmp_path: Path) -> None:
    """It is where it is from that counts: `rename` and `tag` change neither that nor the file."""
    path = tmp_path / "x.sif"
    record = replace(recorded(path, write(path)), collection="lab", name="mine", uri="lab/mine:1", tag="1")
    assert refused(path, wanted(), record) is None
    assert refused(path, wanted("nvcr.io/lab/mine:1"), record)


def cut(path: Path) -> None:
    write(path)
    os.truncate(path, 40_000)


def work(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").touch()


def own_sandbox(path: Path) -> None:
    (path / ".singularity.d").mkdir(parents=True)


def pretended_sandbox(path: Path) -> None:
    path.mkdir()
    (path / ".singularity.d").symlink_to("/tmp")


SOMEBODYS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("notes"),
    "empty file": Path.touch,
    "squashfs": lambda path: path.write_bytes(b"hsqs" + bytes(4092)),
    "cut SIF": cut,
    "pipe": os.mkfifo,
    "directory": work,
    "sandbox of a definition": own_sandbox,
    "link to the mark": pretended_sandbox,
}


@pytest.mark.parametrize("format", ["sif", "sandbox"])
@pytest.mark.parametrize("what", SOMEBODYS)
def test_somebody_s_file_stays(tmp_path: Path, what: str, format: str) -> None:
    path = tmp_path / "x.sif"
    SOMEBODYS[what](path)
    says = refused(path, wanted(format=format))
    assert says and "--name" in says and "another storage" in says
    # By force a file goes, and what is a sandbox, but no directory of work.
    assert (refused(path, wanted(format=format), force=True) is None) == (what not in ("directory", "link to the mark"))


@pytest.mark.parametrize("added", [True, False])
def test_a_file_that_was_added_is_somebody_s(tmp_path: Path, added: bool) -> None:
    """Nobody said where it is from; what it says itself counts."""
    path = tmp_path / "x.sif"
    receipt = write(path, "nvcr.io/nvidia/other:1" if added else URI)
    record = recorded(path, receipt, registry="", url="")
    assert (refused(path, wanted(), record) is None) == (not added)


@pytest.mark.parametrize("format", ["sif", "simg"])
def test_a_damaged_image_is_made_again(tmp_path: Path, format: str) -> None:
    """Of its record, and of no other."""
    path = tmp_path / "x.sif"
    record = recorded(path, write(path, format=format))
    os.truncate(path, 8192 if format == "simg" else path.stat().st_size - 4096)
    assert refused(path, wanted(format=format), record) is None
    assert refused(path, replace(OTHERS["registry"], format=format), record)
    path.write_text("half")
    assert refused(path, wanted(format=format), record) is None
    assert refused(path, replace(OTHERS["registry"], format=format), record)
    path.unlink()
    work(path)
    assert refused(path, wanted(format=format), record)


def test_a_file_that_was_replaced_by_hand(tmp_path: Path) -> None:
    """The record is of other bytes, though of as many: the image's own word counts."""
    path = tmp_path / "x.sif"
    record = recorded(path, write(path))
    other = write(tmp_path / "y.sif", "nvcr.io/nvidia/other1:17.0"[: len(URI)], content=b"y")
    assert other["size"] == record.size, "squashfs pads"
    shutil.copy(tmp_path / "y.sif", path)
    assert refused(path, wanted(), record)
    assert holds(path, [record], {}) == [wanted("nvcr.io/nvidia/other1:17.0")]


@pytest.mark.parametrize("target", ["thesis", "nowhere", "notes.txt"])
def test_a_link_to_no_image_is_free(tmp_path: Path, target: str) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "x").symlink_to(target)
    assert refused(tmp_path / "x", wanted(format="sandbox")) is None


def test_a_link_to_an_image_holds_it(tmp_path: Path) -> None:
    write(tmp_path / "y.sif")
    (tmp_path / "x.sif").symlink_to("y.sif")
    assert refused(tmp_path / "x.sif", wanted()) is None
    assert refused(tmp_path / "x.sif", OTHERS["registry"])


def test_a_storage_with_several_names(tmp_path: Path) -> None:
    (tmp_path / "storage").mkdir()
    (tmp_path / "other").symlink_to("storage")
    receipt = write(tmp_path / "storage/x.simg", format="simg")
    assert refused(tmp_path / "other/x.simg", wanted(format="simg"), recorded(tmp_path / "storage/x.simg", receipt)) is None


def test_an_empty_directory_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    assert refused(tmp_path / "x", wanted(format="sandbox")) is None
    assert refused(tmp_path / "x", wanted())


def test_what_is_free_asks_no_catalog(tmp_path: Path) -> None:
    def records() -> list[Record]:
        raise AssertionError

    assert refusal(tmp_path / "x.sif", wanted(), records, {}, force=False) is None


@pytest.mark.parametrize(
    "text",
    ["bootstrap: docker\nfrom: nvcr.io/a/b:1\n%post\n  touch /x\n", "bootstrap: library\nfrom: a/b:1\n", "from: a/b:1\n", ""],
    ids=["does more", "library", "no bootstrap", "nothing"],
)
def test_a_definition_that_names_no_image_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.sif"
    packed = merge(folders(tmp_path / "store", [[], []]))
    assemble.build(packed, format="sif", target=path, created=0, deffile=text.encode(), documents={}, architecture="amd64")
    assert provenance.read(path).source == ""
    assert refused(path, wanted("nvcr.io/a/b:1"))


@pytest.mark.parametrize("labels", ["{", "[]", "null", '{"org.label-schema.usage.singularity.deffile.from": 1}', "[" * 100_000])
def test_labels_that_can_not_be_read(tmp_path: Path, labels: str) -> None:
    (tmp_path / "x/.singularity.d").mkdir(parents=True)
    (tmp_path / "x/.singularity.d/labels.json").write_text(labels)
    assert provenance.read(tmp_path / "x").source == ""


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/etc/passwd")], ids=["pipe", "link"])
def test_labels_that_are_no_file(tmp_path: Path, make: Callable[[Path], object]) -> None:
    (tmp_path / "x/.singularity.d").mkdir(parents=True)
    make(tmp_path / "x/.singularity.d/labels.json")
    assert provenance.read(tmp_path / "x").source == ""


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    """It is not opened: that would wait for its writer."""
    os.mkfifo(tmp_path / "x")
    with pytest.raises(ImageError, match="neither a file nor a directory"):
        provenance.recognize(tmp_path / "x")
    assert not provenance.looks_like_one(tmp_path / "x")


def test_the_definition_of_ours_is_read(tmp_path: Path) -> None:
    write(tmp_path / "x.sif")
    assert deffile(URI).endswith(f"{provenance.read(tmp_path / 'x.sif').source}\n\n")
    with pytest.raises(SregistryError):
        provenance.read(tmp_path / "nothing")
