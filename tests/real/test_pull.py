"""Images pulled from a real registry by the whole pipeline, against what umoci unpacks of them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real.conftest import TWINS, Pipeline, Pulled, extracted, mounted, partition, tool
from tests.support import images, oracle
from tests.support.oracle import Tree

pytestmark = pytest.mark.needs("amd64", "docker-registry", "siftool")

judged = pytest.mark.needs("mount", "skopeo", "umoci", "unsquashfs")
IMAGES = (
    "demo/tiny:1",
    "demo/static:1",
    "demo/tricky:1",
    "demo/tricky-packed:1",
    "demo/tricky-mislabelled:1",
    "demo/sizes:1",
    "demo/empty:1",
    "demo/nothing:1",
    "demo/multi:1",
    "demo/multi:list",
    "demo/nested:1",
)

Unpacked = Callable[[str], tuple[Tree, int]]


def test_one_run_pulls_every_image(pulled: Pulled, layout: images.Layout) -> None:
    assert pulled.result.returncode == 0, pulled.result.stderr[-5000:]
    good = {pulled.pipeline.image(name).name for name in layout.tags() if name.startswith("demo/")}
    assert {path.name for path in pulled.pipeline.storage.iterdir()} == good


@judged
@pytest.mark.parametrize("uri", IMAGES)
def test_the_kernel_mounts_what_umoci_unpacks(pulled: Pulled, unpacked: Unpacked, tmp_path: Path, uri: str) -> None:
    image = pulled(uri)
    with mounted(image, partition(image), tmp_path / "mnt") as folder:
        ours = oracle.tree(folder)
    _judge(unpacked(uri), ours)
    assert oracle.link_counts(ours) == []


@judged
@pytest.mark.parametrize("uri", IMAGES)
def test_unsquashfs_extracts_what_umoci_unpacks(pulled: Pulled, unpacked: Unpacked, tmp_path: Path, uri: str) -> None:
    image = pulled(uri)
    _judge(unpacked(uri), oracle.tree(extracted(image, partition(image), tmp_path / "out")))


@judged
def test_variants_of_one_image_share_a_store(pipeline: Pipeline, unpacked: Unpacked, tmp_path: Path) -> None:
    """Each keeps its exploded layers: who comes back to one finds all of it, in this working directory and in another."""
    store, image = pipeline.folder / "cache/docker", pipeline.image("demo/sizes:1")
    made: dict[str, bytes] = {}
    kept: dict[Path, tuple[int, int]] = {}
    for compression in ("{}", "{codec: zstd, level: fast, block_size: 65536}"):
        result = pipeline.run("uri=demo/sizes:1", f"compression={compression}")
        assert result.returncode == 0, result.stderr
        assert "explode" in _rules(result) and ("layer" in _rules(result)) == (not made)
        made[compression] = image.read_bytes()
        where = tmp_path / f"mnt-{len(made)}"
        with mounted(image, partition(image), where) as folder:
            _judge(unpacked("demo/sizes:1"), oracle.tree(folder))
        assert kept.items() <= _stamps(store).items()
        kept = _stamps(store)
    variants = [path.name for path in (store / "exploded").iterdir()]
    assert sorted(variants) == ["gzip-default-131072-3", "zstd-fast-65536-3"]
    assert made["{}"] != made["{codec: zstd, level: fast, block_size: 65536}"]
    for compression, data in made.items():
        result = pipeline.run("uri=demo/sizes:1", f"compression={compression}")
        assert (result.returncode, set(_rules(result)) - {"catalog"}) == (0, {"image"}), result.stderr
        assert image.read_bytes() == data and _stamps(store) == kept
    # A new working directory has no receipts; what they vouch for is there.
    other = Pipeline(tmp_path / "other", pipeline.base, {"SINGULARITY_CACHEDIR": str(pipeline.folder / "cache")})
    assert other.run("uri=demo/sizes:1").returncode == 0
    assert other.image("demo/sizes:1").read_bytes() == made["{}"] and _stamps(store) == kept


def _rules(result: subprocess.CompletedProcess[str]) -> list[str]:
    """Return the rules of the jobs that ran, without `all`."""
    return [rule for rule in re.findall(r"^Job \d+: (\w+)", result.stderr, re.MULTILINE) if rule != "all"]


def _stamps(store: Path) -> dict[Path, tuple[int, int]]:
    """Return inode and time of every file of the exploded layers."""
    files = [path for path in (store / "exploded").rglob("*") if path.is_file()]
    return {path: (status.st_ino, status.st_mtime_ns) for path, status in ((path, path.stat()) for path in files)}


@judged
@pytest.mark.parametrize("uri", ["demo/tricky:1", "demo/sizes:1"])
def test_a_simg_holds_the_same(pipeline: Pipeline, unpacked: Unpacked, tmp_path: Path, uri: str) -> None:
    result = pipeline.run(f"uri={uri}", "format=simg")
    assert result.returncode == 0, result.stderr
    image = pipeline.image(uri, ".simg")
    assert image.read_bytes()[:35] == b"#!/usr/bin/env run-singularity\nhsqs"
    with mounted(image, 31, tmp_path / "mnt") as folder:
        _judge(unpacked(uri), oracle.tree(folder))


@judged
@pytest.mark.parametrize("uri", ["demo/tricky:1", "demo/sizes:1"])
def test_a_sandbox_holds_the_same(pipeline: Pipeline, unpacked: Unpacked, uri: str) -> None:
    result = pipeline.run(f"uri={uri}", "format=sandbox")
    assert result.returncode == 0, result.stderr
    ours = oracle.tree(pipeline.image(uri, ""))
    _judge(unpacked(uri), ours)


def _judge(expected: tuple[Tree, int], ours: Tree) -> None:
    tree, since = expected
    assert oracle.differences(tree, ours, implied_since=since) == []
    assert oracle.stubs(ours) == []
    missing = [path for path in oracle.MOUNT_POINTS if path not in tree]
    wrong = {path: oct(ours[path].mode) for path in missing if ours[path].mode != (0o1777 if path.endswith(b"tmp") else 0o755)}
    assert wrong == {}


@pytest.mark.needs("root")
def test_every_twin_is_judged() -> None:
    assert set(TWINS) <= set(IMAGES)


def test_siftool_finds_the_four_objects(pulled: Pulled) -> None:
    rows = [[cell.strip() for cell in line.split("|")] for line in tool("siftool", "list", pulled("demo/tiny:1")).splitlines()[3:]]
    assert [row[-1] for row in rows] == ["Def.FILE", "JSON.Generic", "JSON.Generic", "FS (Squashfs/*System/amd64)"]
    header = tool("siftool", "header", pulled("demo/tiny:1"))
    assert re.search(r"Architecture:\s+amd64", header) and re.search(r"Descriptors Free:\s+44", header), header


def test_siftool_dumps_the_documents(pulled: Pulled) -> None:
    image = pulled("demo/tiny:1")
    deffile = tool("siftool", "dump", "1", image)
    assert deffile.startswith("bootstrap: docker\nfrom: ") and "demo/tiny:1" in deffile
    documents = {name: json.loads(tool("siftool", "dump", number, image)) for number, name in _names(image).items()}
    assert documents["oci-config.json"] == images.TINY
    attributes = documents["inspect-metadata.json"]["data"]["attributes"]
    assert documents["inspect-metadata.json"]["type"] == "container"
    assert {**attributes["labels"], **images.LABELS} == attributes["labels"]
    assert attributes["deffile"] == deffile.rstrip("\n")


def _names(image: Path) -> dict[str, str]:
    """Return the names of the JSON objects 2 and 3."""
    found = {number: re.search(r"Name:\s+(\S+)", tool("siftool", "info", number, image)) for number in ("2", "3")}
    return {number: match[1] for number, match in found.items() if match}


@pytest.mark.parametrize(
    ("uri", "platform", "text"),
    [
        ("demo/multi:1", "linux/arm64", "linux/arm64/v8"),
        ("demo/multi:1", "linux/arm/v7", "linux/arm/v7"),
        ("demo/multi:1", "linux/arm/v6", "linux/arm/v6"),
        ("demo/multi:1", "s390x", "linux/s390x"),
        ("demo/multi:list", "aarch64", "linux/arm64/v8"),
        ("demo/nested:1", "linux/arm/v6", "linux/arm/v6"),
        ("demo/nested:1", "linux/arm/v7", "linux/arm/v7"),
        ("demo/nested:1", "amd64", "linux/amd64"),
    ],
)
def test_the_platform_is_chosen(pipeline: Pipeline, uri: str, platform: str, text: str) -> None:
    result = pipeline.run(f"uri={uri}", f"platform={platform}", "format=sandbox")
    assert result.returncode == 0, result.stderr
    assert (pipeline.image(uri, "") / "platform").read_text() == text


def test_a_platform_that_is_not_offered_is_one_clear_line(pipeline: Pipeline) -> None:
    result = pipeline.run("uri=demo/multi:1", "platform=linux/riscv64")
    assert result.returncode == 1
    assert "linux/riscv64" in _error(result) and "linux/s390x" in _error(result)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("chart", "helm"),
        ("diff-id", "diff_id|digest|config says"),
        ("count", "diff_id|layers"),
        ("tar", "tar"),
        ("cut", "ends too early|truncated"),
        ("gzip", "gzip|checksum|crc"),
        ("never-pushed", "404|not found|unknown|no such"),
    ],
)
def test_a_broken_image_is_one_clear_line(pipeline: Pipeline, name: str, words: str) -> None:
    result = pipeline.run(f"uri=broken/{name}:1")
    assert result.returncode == 1
    assert re.search(words, _error(result), re.IGNORECASE), _error(result)
    assert "Traceback" not in result.stderr
    assert not pipeline.storage.exists() or list(pipeline.storage.iterdir()) == []


def test_one_broken_image_does_not_stop_the_others(pipeline: Pipeline) -> None:
    result = pipeline.run("uri=[broken/chart:1,demo/static:1,broken/tar:1]")
    assert result.returncode == 1
    assert [path.name for path in pipeline.storage.iterdir()] == ["demo-static:1.sif"]


def test_an_unreachable_registry_is_one_clear_line(tmp_path: Path) -> None:
    result = Pipeline(tmp_path / "work", "127.0.0.1:9").run("uri=demo/tiny:1")
    assert result.returncode == 1
    assert "127.0.0.1:9" in _error(result) and "Traceback" not in result.stderr


def _error(result: subprocess.CompletedProcess[str]) -> str:
    (line,) = _errors(result)
    return line


def _errors(result: subprocess.CompletedProcess[str]) -> set[str]:
    lines = {line.strip() for line in (result.stderr + result.stdout).splitlines() if line.strip().startswith("error: ")}
    assert lines, result.stderr
    return lines


def test_a_second_run_does_nothing(pipeline: Pipeline) -> None:
    assert pipeline.run("uri=demo/static:1").returncode == 0
    image = pipeline.image("demo/static:1")
    before = image.stat()
    result = pipeline.run("uri=demo/static:1")
    assert result.returncode == 0 and "Nothing to be done" in result.stderr, result.stderr
    assert image.stat() == before


def test_a_removed_image_comes_back(pipeline: Pipeline) -> None:
    assert pipeline.run("uri=demo/static:1").returncode == 0
    image = pipeline.image("demo/static:1")
    before = image.read_bytes()
    image.unlink()
    assert pipeline.run("uri=demo/static:1").returncode == 0
    assert image.read_bytes() == before


def test_a_digest_names_an_image(pipeline: Pipeline, layout: images.Layout) -> None:
    digest = layout.tags()["demo/static:1"]["digest"]
    assert pipeline.run(f"uri=demo/static@{digest}").returncode == 0
    assert [path.name for path in pipeline.storage.iterdir()] == [f"demo-static@{digest}.sif"]


def test_the_store_holds_the_blobs_as_published(pulled: Pulled, layout: images.Layout) -> None:
    store = pulled.pipeline.folder / "cache/docker"
    for name in ("demo/tiny:1", "demo/tricky-packed:1"):
        for item in layout.read(layout.tags()[name]["digest"])["layers"]:
            algorithm, _, value = item["digest"].partition(":")
            assert hashlib.sha256((store / "blobs" / algorithm / value).read_bytes()).hexdigest() == value


def test_equal_input_gives_equal_bytes(registry: str, tmp_path: Path) -> None:
    versions = set()
    for number, cores in enumerate(["1", "2"]):
        # Another store, working directory, number of threads, time zone and order of images.
        pipeline = Pipeline(tmp_path / ("w" * (1 + 7 * number)), registry, {"TZ": ["UTC", "Asia/Tokyo"][number]})
        uris = ["demo/sizes:1", "demo/tricky:1", "demo/tiny:1"]
        result = pipeline.run(f"uri=[{','.join(uris[::-1] if number else uris)}]", options=["--cores", cores])
        assert result.returncode == 0, result.stderr
        versions.add(tuple(hashlib.sha256(pipeline.image(uri).read_bytes()).hexdigest() for uri in uris))
    assert len(versions) == 1


@pytest.mark.needs("mount")
def test_a_read_only_store_serves_what_it_has_and_says_what_to_do_for_the_rest(pipeline: Pipeline) -> None:
    cache = pipeline.folder / "cache"
    first = pipeline.run("uri=demo/sizes:1")
    assert first.returncode == 0, first.stderr
    image = pipeline.image("demo/sizes:1").read_bytes()
    for name in ("results", "storage"):
        shutil.rmtree(pipeline.folder / name)
    tool("mount", "--bind", cache, cache)
    tool("mount", "-o", "remount,bind,ro", cache)
    try:
        again = pipeline.run("uri=demo/sizes:1")
        assert again.returncode == 0, again.stderr
        assert pipeline.image("demo/sizes:1").read_bytes() == image
        refused = pipeline.run("uri=demo/tricky:1")
        assert refused.returncode == 1
        assert "Read-only file system; set `cache` to a folder of your own, and `cache_from` to this one" in _error(refused)
    finally:
        tool("umount", cache)
    other = Pipeline(pipeline.folder / "other", pipeline.base, {"SREGISTRY_CACHE_FROM": str(cache)})
    result = other.run("uri=demo/sizes:1")
    assert result.returncode == 0, result.stderr
    assert other.image("demo/sizes:1").read_bytes() == image
    assert not (other.folder / "cache/docker/exploded").exists()


@pytest.mark.needs("mount")
@pytest.mark.parametrize("folder", ["cache", "storage"])
def test_a_full_disk_is_one_clear_line_and_the_next_run_ends_right(pipeline: Pipeline, folder: str) -> None:
    small = pipeline.folder / folder
    small.mkdir(parents=True)
    tool("mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small)
    try:
        result = pipeline.run("uri=demo/sizes:1")
        assert result.returncode == 1
        # A job each, and a line each, of which some ask before they begin.
        assert all(
            re.search("No space left|needs [0-9]+ bytes in|the image needs", line) and "free some space" in line for line in _errors(result)
        )
        assert "Traceback" not in result.stderr
        assert not pipeline.image("demo/sizes:1").exists() and not list(small.glob("docker/blobs/sha256/.*"))
    finally:
        tool("umount", small)
    assert pipeline.run("uri=demo/sizes:1").returncode == 0
    assert pipeline.image("demo/sizes:1").is_file()


@pytest.mark.needs("apptainer")
def test_a_sif_that_apptainer_pushed(pipeline: Pipeline, registry: str, open_folder: Path) -> None:
    """It comes back as it was, from the registry itself and by its digest; siftool reads it."""
    assert pipeline.run("uri=demo/static:1").returncode == 0
    source = open_folder / "pushed.sif"
    shutil.copy(pipeline.image("demo/static:1"), source)
    wrapper = Path(__file__).parent / "apptainer"
    tool(wrapper, "push", "--allow-unsigned", "--no-https", source, f"oras://{registry}/pushed/sif:1")
    result = pipeline.run("uri=pushed/sif:1")
    assert result.returncode == 0, result.stderr
    assert _rules(result) == ["manifest", "manifests", "layer", "image", "catalog"]
    assert pipeline.image("pushed/sif:1").read_bytes() == source.read_bytes()
    assert "FS (Squashfs/*System/amd64)" in tool("siftool", "list", pipeline.image("pushed/sif:1"))
    refused = pipeline.run("uri=pushed/sif:1", "format=sandbox")
    assert refused.returncode == 1 and "can't become sandbox; choose format: sif" in _error(refused)


@judged
def test_zstd_chunked_is_what_gzip_is(pulled: Pulled, tmp_path: Path) -> None:
    """The same layer in both packings, and as eStargz, which leaves out its own two files."""
    trees = {}
    for name in ("gzip", "zstd-chunked", "estargz"):
        image = pulled(f"demo/lazy:{name}")
        trees[name] = oracle.tree(extracted(image, partition(image), tmp_path / name))
    own = {b"stargz.index.json", b".no.prefetch.landmark"}
    for name, without in (("zstd-chunked", set()), ("estargz", own)):
        expected = {path: node for path, node in trees["gzip"].items() if path not in without}
        assert oracle.differences(expected, trees[name], implied_since=0) == []
        assert set(expected) == set(trees[name])
