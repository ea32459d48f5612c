"""Batch files: what their entries become, and what is said of a mistake: file, line and key, a line each."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sregistry.config.plan import Plan, plan, warnings
from sregistry.config.requested import OPTIONS, entries
from sregistry.errors import Mistakes, SregistryError, UsageError, each, report
from sregistry.oci.documents import Platform

TOP = Path(__file__).resolve().parents[2]
SCHEMA = TOP / "workflow/schemas/config.schema.yaml"


def read(text: str, folder: Path, overrides: dict[str, Any] | None = None) -> Plan:
    """Plan what a file of *text* asks for, as Snakemake does that was given it."""
    path = folder / "batch.yaml"
    path.write_text(text)
    config = yaml.safe_load(text)
    return plan({**config, **(overrides or {})}, overrides={**config, **(overrides or {})}, schema=SCHEMA, environ={}, files=[path])


def lines(text: str, folder: Path) -> list[str]:
    """Return what is said of a file's mistakes, without the folder."""
    with pytest.raises(UsageError) as caught:
        read(text, folder)
    assert caught.value.exit_code == 2
    said = [str(error).replace(f"{folder}/", "") for error in each(caught.value)]
    assert not any("\n" in line for line in said)
    return said


MISTAKES = {
    "key": ("images: []\nimage: [a/b]\n", ["batch.yaml:2: unknown key 'image'; did you mean images?"]),
    "key-of-an-image": (
        "images:\n- a/b\n- uri: a/c\n  plattform: linux/arm64\n",
        ["batch.yaml:4: unknown key 'images[1].plattform'; did you mean platform?"],
    ),
    "key-of-a-short-form": (
        "images:\n- a/c: {newst: 3, tags: '*'}\n",
        ["batch.yaml:2: unknown key 'images[0].a/c.newst'; did you mean newest?"],
    ),
    "key-of-a-group": (
        "groups:\n  g:\n    images: [a/b]\n    formt: sif\n",
        ["batch.yaml:4: unknown key 'groups.g.formt'; did you mean format?"],
    ),
    "uri-misspelt": ("images:\n- urii: a/b\n", ["batch.yaml:2: unknown key 'images[0].urii'; did you mean uri?"]),
    "uri-missing": ("images:\n- name: x\n  format: sif\n", ["batch.yaml:2: images[0]: 'uri' is a required property"]),
    "no-images-in-a-group": ("groups:\n  g: {format: sif}\n", ["batch.yaml:2: groups.g: 'images' is a required property"]),
    "number-for-text": (
        "images:\n- uri: 17.10\n",
        ['batch.yaml:2: images[0].uri: expected text, got the number 17.1; quote it: "17.1", for 17.10 is read as the number 17.1'],
    ),
    "tags-without-quotes": (
        "images:\n- uri: a/b\n  tags: 24.10\n",
        ['batch.yaml:3: images[0].tags: expected text, got the number 24.1; quote it: "24.1", for 17.10 is read as the number 17.1'],
    ),
    "format": ("images:\n- {uri: a/b, format: siff}\n", ["batch.yaml:2: images[0].format: 'siff' is unknown; did you mean sif?"]),
    "format-of-a-group": (
        "groups:\n  g:\n    format: tar\n    images: [a/b]\n",
        ["batch.yaml:3: groups.g.format: 'tar' is unknown; one of sif, simg, sandbox"],
    ),
    "platform": (
        "images:\n- a/b\n\n- uri: a/c\n  platform: a/b/c/d\n",
        ["batch.yaml:5: images[1].platform: 'a/b/c/d' is no platform; such as linux/amd64 or linux/arm64"],
    ),
    "platform-of-a-group-is-told-once": (
        "groups:\n  g:\n    platform: a/b/c/d\n    images: [a/b, a/c]\n",
        ["batch.yaml:3: groups.g.platform: 'a/b/c/d' is no platform; such as linux/amd64 or linux/arm64"],
    ),
    "compression": (
        "images:\n- uri: a/b\n  compression:\n    codec: gzip\n    block_size: 1000\n",
        ["batch.yaml:5: images[0].compression.block_size: 1000 is no power of two from 65536 to 1048576"],
    ),
    "reference": (
        "images:\n- a/b\n- UPPER/case:1\n",
        ["batch.yaml:3: images[1]: 'UPPER/case:1': 'UPPER/case' is no repository name; repositories are lower case"],
    ),
    "name": (
        "images:\n- {uri: a/b, name: ../x}\n",
        ["batch.yaml:2: images[0].name: '../x' is no file name; letters, digits and signs, without '/', no '.' or '-' in front"],
    ),
    "tag-and-tags": (
        "images:\n- {uri: 'a/b:1', tags: '*'}\n",
        ["batch.yaml:2: images[0]: 'a/b:1' names a tag beside `tags`; leave out what follows the name"],
    ),
    "name-of-a-pattern": (
        "images:\n- {uri: a/b, tags: '*', name: x}\n",
        ["batch.yaml:2: images[0].name: a pattern may stand for several images, which can't have one name; leave it out"],
    ),
    "newest": ("images:\n- {uri: a/b, tags: '*', newest: 0}\n", ["batch.yaml:2: images[0].newest: expected a number from 1, got 0"]),
    "newest-alone": (
        "images:\n- {uri: a/b, newest: 2}\n",
        ["batch.yaml:2: images[0].newest: is for an entry with `tags` only; add tags: '*', or leave it out"],
    ),
    "empty-tags": (
        "images:\n- {uri: a/b, tags: ''}\n",
        ["batch.yaml:2: images[0].tags: this pattern matches nothing; such as '24.*-py3', or '*' for all"],
    ),
    "twice": (
        "images: [a/b]\nformat: sif\nimages: [a/c]\n",
        ["batch.yaml:3: images stands in line 1 already; only one of them would count"],
    ),
    "one-file": (
        "storage: /i\nimages:\n- a/b:1\n- {uri: 'a/c:1', name: 'a-b:1'}\n",
        [
            "batch.yaml:4: images[1]: nvcr.io/a/b:1 (HOST, sif) and nvcr.io/a/c:1 (HOST, sif) would both become /i/a-b:1.sif;"
            " give one of them another name"
        ],
    ),
    "merged-tables": (
        "images:\n- &base {uri: a/b, platform: a/b/c/d}\n- {<<: *base, name: n}\n",
        [
            "batch.yaml:2: images[0].platform: 'a/b/c/d' is no platform; such as linux/amd64 or linux/arm64",
            "batch.yaml:2: images[1].platform: 'a/b/c/d' is no platform; such as linux/amd64 or linux/arm64",
        ],
    ),
    "a-list-in-itself": ("images: &a [*a]\n", ["config: images[0]: expected text or a table, got list [[...]]"]),
    "setting": ("images: [a/b]\nconnections: 0\n", ["batch.yaml:2: connections: expected a number from 1, got 0"]),
    "locked-and-refresh": (
        "locked: x\nrefresh: yes\n",
        ["locked, refresh: what tags meant, or what they mean now: not both; leave one of them out"],
    ),
    "several": (
        "images:\n- {uri: a/b, format: x}\n- {uri: a/b, nam: x}\nconnection: 3\n",
        [
            "batch.yaml:2: images[0].format: 'x' is unknown; one of sif, simg, sandbox",
            "batch.yaml:3: unknown key 'images[1].nam'; did you mean name?",
            "batch.yaml:4: unknown key 'connection'; did you mean connections?",
        ],
    ),
    "several-values": (
        "images:\n- {uri: a/b, platform: a/b/c/d}\n- A/B\n- {uri: a/b, tags: '*', newest: 0}\n",
        [
            "batch.yaml:2: images[0].platform: 'a/b/c/d' is no platform; such as linux/amd64 or linux/arm64",
            "batch.yaml:3: images[1]: 'A/B': 'A/B' is no repository name; repositories are lower case",
            "batch.yaml:4: images[2].newest: expected a number from 1, got 0",
        ],
    ),
}


@pytest.mark.parametrize(("text", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_with_line_and_key(text: str, said: list[str], tmp_path: Path) -> None:
    assert [line.replace(f"({Platform.host()}, ", "(HOST, ") for line in lines(text, tmp_path)] == said


def test_several_mistakes_are_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(Mistakes([UsageError("a"), UsageError("b", hint="c")])) == 2
    assert capsys.readouterr().err == "error: a\nerror: b; c\n"


def test_the_file_that_counts_is_blamed(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("format: x\nconnections: y\n")
    second.write_text("\n\nformat: z\n")
    config = {"format": "z", "connections": "y"}  # as Snakemake merges `--configfile first.yaml second.yaml`
    with pytest.raises(Mistakes) as caught:
        plan(config, overrides=config, schema=SCHEMA, environ={}, files=[second, first])
    assert [str(error).replace(f"{tmp_path}/", "").partition(" ")[0] for error in caught.value.each] == ["first.yaml:2:", "second.yaml:3:"]


def test_a_value_of_the_command_line_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^config: format: 'x' is unknown"):
        read("images: [a/b]\nformat: sif\n", tmp_path, {"format": "x"})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("uri: a/b\n", [{"uri": "a/b"}]),
        ("uri: [a/b, c]\n", [{"uri": "a/b"}, {"uri": "c"}]),
        (
            "images: [a/b, {uri: c, name: n}, {d: {format: simg}}]\n",
            [{"uri": "a/b"}, {"uri": "c", "name": "n"}, {"uri": "d", "format": "simg"}],
        ),
        ("images:\n- {c: {}}\n- {uri: d, format: null}\n", [{"uri": "c"}, {"uri": "d"}]),
        (
            "groups:\n  g: {format: simg, platform: arm64, images: [a, {uri: b, format: sif}]}\nuri: z\n",
            [{"uri": "z"}, {"uri": "a", "format": "simg", "platform": "arm64"}, {"uri": "b", "format": "sif", "platform": "arm64"}],
        ),
        (
            "groups:\n  g: {compression: {codec: zstd, level: fast}, images: [{uri: b, compression: {level: small}}]}\n",
            [{"uri": "b", "compression": {"codec": "zstd", "level": "small"}}],
        ),
        ("images:\n- nvidia/pytorch: {tags: '24.*', newest: 3}\n", [{"uri": "nvidia/pytorch", "tags": "24.*", "newest": 3}]),
    ],
)
def test_entries(text: str, wanted: list[dict[str, Any]]) -> None:
    assert [dict(entry.options) for entry in entries(yaml.safe_load(text))] == wanted


def test_options_of_images_and_groups_count(tmp_path: Path) -> None:
    text = """\
format: simg
platform: linux/amd64
storage: /i
images:
- a/b:1
- {uri: a/b:1, format: sif, platform: linux/arm64, name: arm}
groups:
  one:
    compression: {level: fast}
    images: [c/d:1, {e/f:1: {compression: {level: small}, format: sandbox}}]
"""
    found = read(text, tmp_path)
    assert [(str(target.path), str(target.platform), target.format, target.compression.level) for target in found.targets] == [
        ("/i/a-b:1.simg", "linux/amd64", "simg", "default"),
        ("/i/arm.sif", "linux/arm64", "sif", "default"),
        ("/i/c-d:1.simg", "linux/amd64", "simg", "fast"),
        ("/i/e-f:1", "linux/amd64", "sandbox", "small"),
    ]


def test_an_image_that_is_asked_for_twice_is_told_with_its_line(tmp_path: Path) -> None:
    found = read("images:\n- a/b:1\n- nvcr.io/a/b:1\n", tmp_path)
    assert len(found.targets) == 1
    (line,) = warnings(found, {})
    assert line.replace(f"{tmp_path}/", "") == "batch.yaml:3: images[1]: nvcr.io/a/b:1 is images[0] again"


def test_images_of_a_pattern_are_known_with_its_tags(tmp_path: Path) -> None:
    found = read("images:\n- a/b:1\n- {uri: a/b, tags: '*', format: simg}\n", tmp_path)
    (pattern,) = found.open
    assert [target.path.name for target in found.images({})] == ["a-b:1.sif"]
    assert [target.path.name for target in found.images({pattern.key: ["2", "1"]})] == ["a-b:1.sif", "a-b:2.simg", "a-b:1.simg"]


def test_a_pattern_that_leads_to_a_file_of_another_image_is_told(tmp_path: Path) -> None:
    found = read("images:\n- {uri: a/b:1, platform: linux/s390x}\n- {uri: a/b, tags: '*'}\n", tmp_path)
    (pattern,) = found.open
    with pytest.raises(UsageError, match=r"batch\.yaml:3: images\[1\]: nvcr\.io/a/b:1 .* and .* would both become .*; give one") as caught:
        found.images({pattern.key: ["2", "1"]})
    assert "\n" not in str(caught.value)


def test_the_example_of_the_repository() -> None:
    path = TOP / "config/batch.yaml"
    config = yaml.safe_load(path.read_bytes())
    found = plan(config, overrides=config, schema=SCHEMA, environ={}, files=[path])
    assert len(found.targets) == 6
    assert [pattern.described for pattern in found.open] == [
        "nvcr.io/nvidia/pytorch:24.*-py3 (newest 3)",
        "nvcr.io/hpc/gromacs:202[34].* (newest 1)",
    ]
    used = {option for entry in found.entries for option in entry.options}
    assert used == set(OPTIONS)
    assert warnings(found, {}) == []


_words = st.sampled_from(
    ["uri", "images", "groups", "tags", "newest", "format", "sif", "a/b", "a/b:1", "*", "", "name", "compression", "locked"]
)
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.floats(allow_nan=False, width=16) | _words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_words, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(_words, _values, max_size=3))
def test_whatever_the_file_holds_mistakes_are_lines(tmp_path_factory: pytest.TempPathFactory, config: dict[str, Any]) -> None:
    text = io.StringIO()
    yaml.safe_dump(config, text)
    folder = tmp_path_factory.mktemp("any")
    try:
        read(text.getvalue(), folder)
    except SregistryError as error:
        assert isinstance(error, UsageError)
        for one in each(error):
            assert str(one).strip() and "\n" not in str(one)
