"""A batch from docker-registry: tags by pattern, what is locked, and what a refresh tells."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from tests.real.conftest import Pipeline, docker_registry
from tests.support import images
from tests.support.images import layer
from tests.support.tarball import file

pytestmark = [pytest.mark.needs("docker-registry"), pytest.mark.slow("real tools", once=True)]

BATCH = """\
images:
- demo/many: {tags: "24.*-py3", newest: 2}
- demo/none:1
groups:
  small:
    compression: {level: small}
    images: [{uri: demo/many, tags: "24.9-py3", format: simg}]
"""
SHARED = layer([file(b"shared", b"shared" * 1000)])


class Many:
    """A registry whose tags grow."""

    def __init__(self, folder: Path, address: str) -> None:
        self.layout, self.address = images.Layout(folder / "layout"), address
        for number in range(8, 12):
            self.push(f"24.{number}-py3", str(number))
        self.push("24.12-py3-igpu", "other")

    def push(self, tag: str, content: str) -> str:
        entry = self.layout.image([SHARED, layer([file(b"own", content.encode())])], {"Cmd": ["/own"]})
        self.layout.tag(f"demo/many:{tag}", entry)
        images.push(self.layout, f"http://{self.address}", [f"demo/many:{tag}"])
        return str(entry["digest"])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Many]:
    folder = tmp_path_factory.mktemp("many")
    with docker_registry(folder) as address:
        yield Many(folder, address)


def run(pipeline: Pipeline, *options: str) -> CompletedProcess[str]:
    pipeline.folder.mkdir(parents=True, exist_ok=True)
    (pipeline.folder / "batch.yaml").write_text(BATCH)
    return pipeline.run("connections=4", options=[*options, "--configfile", str(pipeline.folder / "batch.yaml")])


def read(pipeline: Pipeline, name: str) -> Any:
    text = (pipeline.folder / "results" / name).read_text()
    return json.loads(text) if name.endswith(".json") else yaml.safe_load(text)


def test_a_batch_its_lock_and_a_refresh(many: Many, tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "one", many.address)
    first = run(pipeline)
    assert first.returncode == 1  # demo/none
    made = ["demo-many:24.10-py3.sif", "demo-many:24.11-py3.sif", "demo-many:24.9-py3.simg"]
    assert sorted(path.name for path in pipeline.storage.iterdir()) == made
    assert read(pipeline, "summary.json")["counts"] == {"done": 3, "unchanged": 0, "failed": 1, "left": 0}
    digests = {image["uri"].rpartition(":")[2]: image["digest"] for image in read(pipeline, "lock.yaml")["images"]}
    assert digests == {tag: many.layout.tags()[f"demo/many:{tag}"]["digest"] for tag in ("24.9-py3", "24.10-py3", "24.11-py3")}

    moved = many.push("24.11-py3", "moved")
    many.push("24.12-py3", "new")
    told = run(pipeline, "refresh")
    assert told.returncode == 1 and "demo/none" in told.stderr
    found = read(pipeline, "refresh.json")
    assert {image["uri"].rpartition(":")[2]: image["after"] for image in found["images"] if image["status"] == "changed"} == {
        "24.11-py3": moved
    }
    assert [(pattern["came"], pattern["went"]) for pattern in found["patterns"]] == [(["24.12-py3"], ["24.10-py3"]), ([], [])]

    # The lock file makes, elsewhere, what the tags meant: the registry still has it by its digest.
    again = Pipeline(tmp_path / "two", many.address)
    assert again.run(f"locked={pipeline.folder / 'results/lock.yaml'}").returncode == 0
    for name in made:
        assert (again.storage / name).read_bytes() == (pipeline.storage / name).read_bytes()
