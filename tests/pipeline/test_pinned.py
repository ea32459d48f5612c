"""What earlier runs resolved, read from the results."""

from __future__ import annotations

from pathlib import Path

import pytest

from sregistry.config.lock_file import Lock
from sregistry.config.plan import plan
from sregistry.oci.documents import Digest
from sregistry.pipeline import pinned
from sregistry.results import paths, receipts
from sregistry.results.paths import Results
from tests.conftest import REPOSITORY

SCHEMA = REPOSITORY / "workflow/schemas/config.schema.yaml"
ONE = Digest("sha256:" + "1" * 64)


@pytest.mark.parametrize(
    ("uri", "locked", "refresh", "outdated"),
    [
        ("a/b:1", False, False, False),
        ("a/b:1", False, True, True),
        ("a/b:1", True, False, False),  # nothing is there yet
        (f"a/b@{ONE}", False, True, False),
    ],
    ids=["a tag", "refresh", "lock file", "a digest"],
)
def test_manifests_of_another_digest_are_out_of_date(tmp_path: Path, uri: str, locked: bool, refresh: bool, outdated: bool) -> None:
    targets = plan({"uri": uri, "platform": "linux/amd64"}, overrides={}, schema=SCHEMA, environ={}).targets
    if locked:
        lock = Lock(path=tmp_path / "lock.yaml", images={}, tags={})
        targets = lock.merged([(target, ONE) for target in targets], []).pin(list(targets))
    found = pinned.outdated(targets, Results(tmp_path), refresh=refresh)
    assert found == ({targets[0].key} if outdated else set())


@pytest.mark.parametrize(
    "text", ['{"uri": "a/b", "tags": ["2", "1"]}', '{"error": "none"}', "{", None], ids=["list", "failed", "damaged", "none"]
)
def test_tags_are_those_of_the_last_list(tmp_path: Path, text: str | None) -> None:
    asked = plan({"images": [{"uri": "a/b", "tags": "*"}]}, overrides={}, schema=SCHEMA, environ={})
    (pattern,) = asked.open
    if text is not None:
        receipts.publish(tmp_path / paths.TAGS.format(pattern=pattern.key), text.encode())
    assert pinned.tags(asked, Results(tmp_path)) == ({pattern.key: ["2", "1"]} if text and "tags" in text else {})
