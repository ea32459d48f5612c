"""The configuration as Snakemake hands it over: what is refused, in one line, and what becomes of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sregistry.config.filename import FORMATS
from sregistry.config.options import DEFAULTS
from sregistry.config.plan import Plan, plan, warnings
from sregistry.config.requested import KEYS
from sregistry.config.settings import from_file
from sregistry.errors import UsageError

TOP = Path(__file__).resolve().parents[2]
SCHEMA = TOP / "workflow/schemas/config.schema.yaml"


def made(config: dict[str, Any], overrides: dict[str, Any] | None = None, **environ: str) -> Plan:
    return plan(config, overrides=config if overrides is None else overrides, schema=SCHEMA, environ=environ)


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"urii": "x"}, "config: unknown key 'urii'; did you mean uri?"),
        ({"zzz": "x"}, "config: unknown key 'zzz'; known keys: uri, images, groups, client,"),
        ({"uri": 17.1}, "config: uri: expected text or a list, got the number 17.1; quote it"),
        ({"uri": 2024}, "config: uri: expected text or a list, got 2024; quote it"),
        ({"uri": {"a": 1}}, "config: uri: expected text or a list, got dict"),
        ({"uri": ["a/b", 17.1]}, "config: uri[1]: expected text, got the number 17.1; quote it"),
        ({"uri": True}, "config: uri: expected text or a list, got yes"),
        ({"images": "a/b"}, "config: images: expected a list, got 'a/b'"),
        ({"images": [{"name": "x"}]}, "config: images[0]: 'uri' is a required property"),
        ({"images": ["a/b", {"uri": "a/b", "nam": "x"}]}, "config: unknown key 'images[1].nam'; did you mean name?"),
        (
            {"images": [{"uri": "a/b", "x": "x"}]},
            "config: unknown key 'images[0].x'; known keys: name, platform, format, compression, tags, newest, uri",
        ),
        ({"images": [{"uri": 17.1}]}, "config: images[0].uri: expected text, got the number 17.1"),
        ({"images": [{"uri": "a/b", "format": "x"}]}, "config: images[0].format: 'x' is unknown; one of sif, simg, sandbox"),
        ({"images": [3]}, "config: images[0]: expected text or a table, got 3"),
        ({"connections": "many"}, "config: connections: expected a whole number, got 'many'"),
        ({"connections": 0}, "connections: expected a number from 1, got 0"),
        ({"format": "ext3"}, "config: format: 'ext3' is unknown; one of sif, simg, sandbox"),
        ({"compression": {"codec": "lzo"}}, "config: compression.codec: 'lzo' is unknown; one of gzip, zstd"),
        ({"compression": {"size": 1}}, "config: unknown key 'compression.size'; known keys: codec, level, block_size"),
        ({"compression": "fast"}, "config: compression: expected a table, got 'fast'"),
        ({"compression": {"block_size": "100000"}}, "compression.block_size: 100000 is no power of two"),
        (
            {"uri": "a/b", "builder": "mksquashfs", "format": "sandbox"},
            "format: sandbox: builder: mksquashfs writes sif and simg only; choose builder: native for it",
        ),
        ({"images": [{"uri": "a/b", "format": "sandbox"}], "builder": "singularity"}, "format: sandbox: builder: singularity writes"),
        ({"builder": "docker"}, "config: builder: 'docker' is unknown"),
        ({"storage": 7}, "config: storage: expected text, got 7; quote it"),
        ({"refresh": [1]}, "config: refresh: expected yes or no"),
        ({"refresh": "perhaps"}, "refresh: 'perhaps' is neither yes nor no"),
        ({"uri": "a/b", "platform": "a/b/c/d"}, "platform: 'a/b/c/d' is no platform"),
        ({"uri": "a/b", "client": "hub"}, "client: 'hub' is unknown; one of nvidia, docker,"),
        ({"uri": "UPPER/case:1"}, "repositories are lower case"),
        ({"uri": ["a/b:1", "docker://a/b:1"]}, "would both become"),
    ],
)
def test_one_line(config: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError) as caught:
        made(config)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        ({}, []),
        ({"images": None, "uri": None}, []),
        ({"uri": "a/b:1"}, ["a-b:1.sif"]),
        ({"uri": ["a/b:1", "c"]}, ["a-b:1.sif", "nvidia-c:latest.sif"]),
        ({"uri": "a/b:1", "images": [{"uri": "c/d:1", "name": None}]}, ["a-b:1.sif", "c-d:1.sif"]),
    ],
)
def test_images(config: dict[str, Any], names: list[str]) -> None:
    assert [target.path.name for target in made(config).targets] == names


def test_images_of_the_command_line_replace_those_of_the_file() -> None:
    config = {"images": ["a/b:1"], "uri": "c/d:1", "connections": 3}
    assert [str(target.reference) for target in made(config, {"uri": "c/d:1"}).targets] == ["nvcr.io/c/d:1"]
    assert len(made(config, {}).targets) == 2


def test_the_command_line_goes_before_the_environment_and_that_before_the_file() -> None:
    config = {"storage": "/a", "database": "/b"}
    settings = made(config, {"storage": "/a"}, SREGISTRY_STORAGE="/x", SREGISTRY_DATABASE="/y").settings
    assert (str(settings.storage), str(settings.database)) == ("/a", "/y")


def test_values_inside_a_key_are_text_on_the_command_line() -> None:
    settings = made({"compression": {"block_size": "65536", "level": "fast"}, "connections": 4, "refresh": "yes"}).settings
    assert (settings.compression.block_size, settings.compression.level, settings.refresh) == (65536, "fast", True)


def test_the_schema_knows_every_key() -> None:
    keys = from_file(SCHEMA)["properties"]
    assert set(keys) == {*KEYS, *DEFAULTS}
    assert from_file(SCHEMA)["$defs"]["format"]["enum"] == list(FORMATS)
    made(from_file(TOP / "config/config.yaml"))


@pytest.mark.parametrize("builder", ["native", "mksquashfs", "singularity"])
@pytest.mark.parametrize("form", ["sif", "simg"])
def test_every_builder_writes_images(builder: str, form: str) -> None:
    found = made({"uri": "a/b", "builder": builder, "format": form})
    assert (found.settings.builder, found.targets[0].format) == (builder, form)


@pytest.mark.parametrize(
    ("config", "warned"),
    [
        ({"uri": "a/b"}, False),
        ({"uri": "a/b", "compression": {"codec": "zstd"}}, True),
        ({"uri": "a/b", "compression": {"codec": "zstd"}, "format": "simg"}, True),
        ({"uri": "a/b", "compression": {"codec": "zstd"}, "format": "sandbox"}, False),
        ({"images": [{"uri": "a/b", "format": "sandbox"}, "a/c"], "compression": {"codec": "zstd"}}, True),
        ({"compression": {"codec": "zstd"}}, False),
    ],
)
def test_zstd_says_which_runtimes_it_excludes(config: dict[str, Any], warned: bool) -> None:
    lines = warnings(made(config), {})
    assert len(lines) == warned
    for line in lines:
        assert line.startswith("compression.codec: zstd: ") and "Apptainer before 1.4" in line and "\n" not in line
