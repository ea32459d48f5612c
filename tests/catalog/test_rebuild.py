"""The command that makes an image again: words for a shell, and that the pipeline takes them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sregistry.catalog.catalog import Catalog
from sregistry.catalog.rebuild import rebuild
from sregistry.errors import CatalogError, ConfigError
from tests.support.images import Layout, layer
from tests.support.records import recorded
from tests.support.registry import serving
from tests.support.tarball import file

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["nvidia/tensorflow:17.11", "lab/mine:2"], ids=["", "renamed"])
def test_the_command(name: str) -> None:
    repository, _, tag = name.partition(":")
    collection, _, rest = repository.partition("/")
    record = recorded(uri=name, collection=collection, name=rest, tag=tag)
    found = rebuild(record)
    program, option, images, *settings = shlex.split(str(found))
    assert (program, option) == ("snakemake", "--config")
    assert images.startswith("images=")
    assert json.loads(images.removeprefix("images=")) == [
        {
            "uri": f"nvcr.io/nvidia/tensorflow@{record.digest}",
            "name": "it's a name.sif",
            "platform": "linux/amd64",
            "format": "sif",
        }
    ]
    assert settings == [
        "client=nvidia",
        "builder=native",
        "docker_cmd=yes",
        'compression={"codec": "zstd", "level": "default", "block_size": 131072}',
        "storage=/some images",
    ]
    assert (found.environment, found.token) == ({}, "SREGISTRY_NVIDIA_TOKEN")
    assert found.json()["command"] == str(found)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"registry": "nvcr.io", "url": "https://nvcr.io/v2/nvidia/a/manifests/1"}, {}),
        (
            {"registry": "127.0.0.1:5000", "url": "http://127.0.0.1:5000/v3/nvidia/a/manifests/1"},
            {"SREGISTRY_NVIDIA_BASE": "127.0.0.1:5000", "SREGISTRY_NVIDIA_NOHTTPS": "yes", "SREGISTRY_NVIDIA_VERSION": "v3"},
        ),
    ],
)
def test_how_the_registry_was_reached(fields: dict[str, str], wanted: dict[str, str]) -> None:
    found = rebuild(recorded(**fields))
    assert found.environment == wanted
    words = shlex.split(str(found))
    assert words[: len(wanted)] == [f"{name}={value}" for name, value in wanted.items()]


@pytest.mark.parametrize("how", [{}, {"client": "nvidia"}, {**recorded().made, "compression": "gzip"}])
def test_a_record_that_does_not_say_it(how: dict[str, Any]) -> None:
    with pytest.raises(CatalogError, match="does not say how the image was made; pull it again"):
        rebuild(recorded(made=how))


def test_a_client_that_is_gone() -> None:
    with pytest.raises(ConfigError, match="'gone' is unknown"):
        rebuild(recorded(made={**recorded().made, "client": "gone"}))


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    layout = Layout(tmp_path / "layout")
    config = {"Env": ["CUDA_VERSION=12.4.1", "NVIDIA_REQUIRE_CUDA=cuda>=12.4"], "Labels": {"maintainer": "a person"}, "Cmd": ["/one"]}
    layout.tag("demo/one:1", layout.image([layer([file(b"one", b"1")])], config))
    with serving(layout) as server:
        yield server.address


@pytest.mark.slow("whole runs of Snakemake", once=True)
def test_the_pipeline_takes_it(tmp_path: Path, registry: str) -> None:
    """A run records facts and how it was made; the command, elsewhere and without settings, makes the same file name again."""
    own = {"SREGISTRY_DATABASE": str(tmp_path / "database"), "SINGULARITY_CACHEDIR": str(tmp_path / "cache")}
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SREGISTRY_", "SINGULARITY_"))}
    clean["PATH"] = f"{Path(sys.executable).parent}:{clean['PATH']}"
    clean["PYTHONPATH"] = str(ROOT / "scripts")

    def run(line: str, folder: str, **environ: str) -> None:
        (tmp_path / folder).mkdir()
        workflow = f"--snakefile {ROOT}/workflow/Snakefile --workflow-profile {ROOT}/workflow/profiles/default --directory ."
        done = subprocess.run(
            ["sh", "-c", f"{line} {workflow}"],
            check=False,
            cwd=tmp_path / folder,
            env={**clean, **own, **environ},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr

    address = {"SREGISTRY_NVIDIA_BASE": registry, "SREGISTRY_NVIDIA_NOHTTPS": "yes", "SREGISTRY_DOCKER_CMD": "yes"}
    run(f"snakemake --config uri=demo/one:1 storage='{tmp_path}/its images' compression='{{level: small}}'", "first", **address)
    catalog = Catalog(tmp_path / "database")
    (record,) = catalog.records()
    assert record.facts["versions"] == {"cuda": "12.4.1"}
    assert record.facts["driver"] == "550.54.14"
    assert record.facts["labels"] == {"maintainer": "a person"}
    assert (record.made["compression"]["level"], record.made["docker_cmd"], record.made["name"]) == ("small", True, "demo-one:1.sif")
    assert record.image is not None
    image = Path(record.image)
    image.unlink()
    run(str(rebuild(record)), "second")
    assert image.is_file()
    again = catalog.records()[-1]
    assert (again.image, again.digest, again.made, again.facts) == (record.image, record.digest, record.made, record.facts)
