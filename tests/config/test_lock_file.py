"""The lock file: read, added to, used; what is wrong with one is a line."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml

from sregistry.config.lock_file import Lock
from sregistry.config.plan import Plan, plan
from sregistry.errors import ConfigError, UsageError
from sregistry.oci.documents import Digest

SCHEMA = Path(__file__).resolve().parents[2] / "workflow/schemas/config.schema.yaml"
ONE, TWO, THREE = (Digest("sha256:" + digit * 64) for digit in "123")


def asked(config: dict[str, Any]) -> Plan:
    return plan({"platform": "linux/amd64", **config}, overrides=config, schema=SCHEMA, environ={})


def empty(folder: Path) -> Lock:
    return Lock(path=folder / "lock.yaml", images={}, tags={})


def written(lock: Lock) -> Path:
    lock.path.write_bytes(lock.encode())
    return lock.path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    images = ["a/b:1", {"uri": "a/c", "platform": "linux/arm64/v8", "format": "simg", "name": "ü x", "compression": {"level": "fast"}}]
    found = asked({"images": [*images, {"uri": "a/d", "tags": "1*", "newest": 2}, {"uri": "a/d", "tags": "1*"}]})
    resolved = list(zip(found.targets, (ONE, TWO), strict=True))
    lists = [(pattern, ["1.1", "1.0"]) for pattern in found.open]
    lock = empty(tmp_path).merged(resolved, lists)
    assert Lock.read(written(lock)) == lock
    assert lock.encode() == empty(tmp_path).merged(resolved[::-1], lists[::-1]).encode()
    text = lock.path.read_text()
    assert text.startswith("# ") and "version: 1\n" in text
    value = yaml.safe_load(text)
    assert value["images"][0] == {
        "uri": "nvcr.io/a/b:1",
        "platform": "linux/amd64",
        "digest": str(ONE),
        "name": "a-b:1.sif",
        "format": "sif",
        "compression": {"codec": "gzip", "level": "default", "block_size": 131072},
    }
    assert value["tags"] == [
        {"uri": "nvcr.io/a/d", "tags": "1*", "found": ["1.1", "1.0"]},
        {"uri": "nvcr.io/a/d", "tags": "1*", "newest": 2, "found": ["1.1", "1.0"]},
    ]


def test_a_lock_file_alone_means_its_images(tmp_path: Path) -> None:
    images = ["a/b:1", {"uri": "docker://a/c:2", "platform": "linux/arm64", "format": "simg", "compression": {"level": "fast"}}]
    first = asked({"images": [*images, {"uri": "a/d", "tags": "*", "format": "sandbox"}]})
    (pattern,) = first.open
    before = first.images({pattern.key: ["1"]})
    lock = written(empty(tmp_path).merged(list(zip(before, (ONE, TWO, THREE), strict=True)), [(pattern, ["1"])]))
    again = asked({"locked": str(lock)})
    assert not again.open
    assert {target.key: target.locked for target in again.targets} == dict(
        zip((target.key for target in before), (ONE, TWO, THREE), strict=True)
    )
    assert {target.path for target in again.targets} == {target.path for target in before}
    some = asked({"locked": str(lock), "images": images[1:]})
    assert [(target.key, target.locked) for target in some.targets] == [(before[1].key, TWO)]
    listed = asked({"locked": str(lock), "images": [{"uri": "a/d", "tags": "*"}]})
    assert [(target.path.name, target.locked) for target in listed.targets] == [("a-d:1.sif", THREE)]


def test_a_digest_needs_no_lock(tmp_path: Path) -> None:
    lock = written(empty(tmp_path))
    (target,) = asked({"locked": str(lock), "uri": f"a/b@{ONE}"}).targets
    assert target.locked == ONE


def test_one_reference_that_meant_two_things(tmp_path: Path) -> None:
    one, two = asked({"images": ["a/b:1", {"uri": "a/b:1", "format": "simg"}]}).targets
    lock = written(empty(tmp_path).merged([(one, ONE), (two, TWO)], []))
    found = asked({"locked": str(lock), "images": ["a/b:1", {"uri": "a/b:1", "format": "simg"}]}).targets
    assert [target.locked for target in found] == [ONE, TWO]
    with pytest.raises(ConfigError, match=r"lacks nvcr\.io/a/b:1 \(linux/amd64\)"):
        asked({"locked": str(lock), "images": [{"uri": "a/b:1", "format": "sandbox"}]})


def test_runs_add_to_it(tmp_path: Path) -> None:
    one, two, three = asked({"uri": ["a/b:1", "a/b:2", "a/c:1"]}).targets
    (pattern,) = asked({"images": [{"uri": "a/b", "tags": "*", "newest": 1}]}).open
    steps: list[tuple[list[Any], list[Any]]] = [
        ([(three, ONE)], []),
        ([(one, ONE)], [(pattern, ["1"])]),
        ([(two, TWO)], [(pattern, ["2"])]),  # a/b:1 is no longer meant
        ([(two, THREE)], []),
    ]
    wanted = [{"a/c:1": ONE}, {"a/c:1": ONE, "a/b:1": ONE}, {"a/c:1": ONE, "a/b:2": TWO}, {"a/c:1": ONE, "a/b:2": THREE}]
    lock = empty(tmp_path)
    for (images, lists), names in zip(steps, wanted, strict=True):
        lock = Lock.read(written(lock.merged(images, lists)))
        assert {image.uri.removeprefix("nvcr.io/"): image.digest for image in lock.images.values()} == names
    assert [item.found for item in lock.tags.values()] == [("2",)]
    # asked for by its own name as well, an image stays
    kept = empty(tmp_path).merged([(one, ONE)], [(pattern, ["1"])]).merged([(one, ONE), (two, TWO)], [(pattern, ["2"])])
    assert len(kept.images) == 2


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "can't read the lock file "),
        ("a: [", "is no YAML"),
        ("x: 2024-13-45", "is no YAML"),
        ("[]", ":1: expected a lock file, got list []"),
        ("{}", ":1: 'version', 'images' are required properties"),
        ("version: 2", "version: expected 1, got 2"),
        ("version: 1", ":1: 'images' is a required property"),
        ("version: 1\nimages: [x]", ":2: images[0]: expected a table, got 'x'"),
        ("version: 1\nimages: [{uri: 1}]", ":2: images[0].uri: expected text, got 1"),
        (
            "version: 1\nimages: [{uri: a, platform: p, digest: sha256:1, name: n, format: sif}]",
            "images[0].digest: expected a sha256 or sha512 digest, got 'sha256:1'",
        ),
        ("version: 1\nimages: []\ntags: [{uri: a, tags: b, newest: x, found: []}]", "tags[0].newest: expected a number from 1, got 'x'"),
        ("version: 1\nimages: []\ntags: [{uri: a, tags: b, found: [1]}]", ":3: tags[0].found[0]: expected text, got 1"),
        (f"version: 1\nimages: [{{uri: a/b, platform: a/b/c/d, digest: {ONE}, name: n, format: sif}}]", "a/b: platform: 'a/b/c/d' is no"),
        (f"version: 1\nimages: [{{uri: a/b, platform: a/b, digest: {ONE}, name: n, format: x}}]", "a/b: format: 'x' is unknown"),
        (f"version: 1\nimages: [{{uri: a/b, platform: a/b, digest: {ONE}, name: ../n, format: sif}}]", "a/b: name: '../n' is no file name"),
        (
            f"version: 1\nimages: [{{uri: A/b, platform: a/b, digest: {ONE}, name: n, format: sif}}]",
            "A/b: 'A/b': 'A/b' is no repository name",
        ),
        ("version: 1\nimages: []\ntags: [{uri: 'a/b:1', tags: b, found: []}]", "a/b:1: 'a/b:1' names a tag beside `tags`"),
    ],
)
def test_what_is_wrong_is_a_line(text: str | None, line: str, tmp_path: Path) -> None:
    path = tmp_path / "some.lock"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError) as caught:
        asked({"locked": str(path)})
    assert line in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "lacks"),
    [
        ({"uri": "a/c:1"}, "nvcr.io/a/c:1 (linux/amd64);"),
        ({"uri": ["a/b:1", "a/c:1", "a/d:1"]}, "nvcr.io/a/c:1 (linux/amd64) and 1 more;"),
        ({"images": [{"uri": "a/b:1", "platform": "linux/arm64"}]}, "nvcr.io/a/b:1 (linux/arm64);"),
        ({"images": [{"uri": "a/b", "tags": "*"}]}, "nvcr.io/a/b:*;"),
    ],
)
def test_what_it_lacks_is_told(config: dict[str, Any], lacks: str, tmp_path: Path) -> None:
    (target,) = asked({"uri": "a/b:1"}).targets
    lock = written(empty(tmp_path).merged([(target, ONE)], []))
    with pytest.raises(ConfigError) as caught:
        asked({"locked": str(lock), **config})
    assert f"lock.yaml lacks {lacks}" in str(caught.value)


def test_any_order_of_runs_ends_in_one_file(tmp_path: Path) -> None:
    resolved = [
        [(target, digest)] for target, digest in zip(asked({"uri": ["a/b:1", "a/c:1", "b/c:1"]}).targets, (ONE, TWO, THREE), strict=True)
    ]
    files = set()
    for runs in itertools.permutations(resolved):
        lock = empty(tmp_path)
        for run in runs:
            lock = lock.merged(run, [])
        files.add(lock.encode())
    assert len(files) == 1
