"""What images' files are called: the template, and what a name must be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sregistry.config.filename import DEFAULT, FIELDS, FORMATS, Template, checked, neighbour
from sregistry.config.requested import entries
from sregistry.config.settings import Settings
from sregistry.config.targets import targets
from sregistry.errors import ConfigError
from sregistry.oci.documents import Platform
from sregistry.oci.reference import Reference
from tests.support.references import COMPONENT, HOST, TAG

SHA = "sha256:" + "0a" * 32
ARM = Platform(architecture="arm", variant="v7")


def named(template: str, text: str, format: str = "sif", platform: Platform | None = ARM) -> str:
    reference = Reference.parse(text, registry="nvcr.io", collection="nvidia")
    return Template.parse(template, "filename").name(reference, client="nvidia", platform=platform, format=format)


@pytest.mark.parametrize(
    ("text", "filename"),
    [
        ("nvidia/caffe2:17.10", "nvidia-caffe2:17.10"),
        ("caffe2", "nvidia-caffe2:latest"),
        (" caffe2 ", "nvidia-caffe2:latest"),
        ("nvcr.io/caffe2", "nvidia-caffe2:latest"),
        ("nvcr.io/nim/meta/llama3:1.0", "nim-meta-llama3:1.0"),
        ("nvidia/l4t-base:R32.1", "nvidia-l4t-base:R32.1"),
        ("127.0.0.1:5000/demo/tiny:1", "demo-tiny:1"),
        ("127.0.0.1:5000/tiny:1", "tiny:1"),
        ("localhost/tiny", "tiny:latest"),
        ("[::1]:5000/a/b", "a-b:latest"),
        ("ghcr.io/a/b/c/d", "a-b-c-d:latest"),
        (f"a/b@{SHA}", f"a-b@{SHA}"),
        (f"a/b:1@{SHA}", f"a-b@{SHA}"),
        ("a/b.c_d__e---f", "a-b.c_d__e---f:latest"),
    ],
)
def test_by_default(text: str, filename: str) -> None:
    assert named(DEFAULT, text, "sandbox", None) == filename


@pytest.mark.parametrize(
    ("template", "text", "name"),
    [
        (DEFAULT, "caffe2:17.10", "nvidia-caffe2:17.10.sif"),
        (DEFAULT, "ghcr.io/a/b/c", "a-b-c:latest.sif"),
        (DEFAULT, "localhost:5000/tiny", "tiny:latest.sif"),
        (DEFAULT, f"a/b@{SHA}", f"a-b@{SHA}.sif"),
        (DEFAULT, f"a/b:1@{SHA}", f"a-b@{SHA}.sif"),
        ("{registry}-{collection}-{name}:{tag}", "localhost:5000/tiny:1", "localhost:5000-tiny:1.sif"),
        ("{collection}", "localhost/tiny:1", ".sif"),
        ("{name}-{collection}", "localhost/tiny:1", "tiny.sif"),
        ("{client}_{name}_{tag}_{architecture}.{format}", "caffe2:1", "nvidia_caffe2_1_arm-v7.sif"),
        ("{name}={tag}", f"a/b@{SHA}", f"b={SHA}.sif"),
        ("{tag}", "a/b:_x", "_x.sif"),
    ],
)
def test_a_template(template: str, text: str, name: str) -> None:
    assert named(template, text) == name


@pytest.mark.parametrize(("format", "name"), [("sif", "b.sif"), ("simg", "b.sif.simg"), ("sandbox", "b.sif")])
def test_the_ending_stands_once(format: str, name: str) -> None:
    assert named("{name}.sif", "a/b:1", format) == name


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("", "no field"),
        ("image", "no field"),
        ("{x}", "{x} is unknown"),
        ("{}", "{} is unknown"),
        ("{0}", "{0} is unknown"),
        ("{name.__class__}", "is unknown"),
        ("{name[0]}", "is unknown"),
        ("{name!r}", "{name!r} is unknown"),
        ("{name:>300000000}", "is unknown"),
        ("{name:{tag}}", "is unknown"),
        ("{name", "write each field"),
        ("name}", "write each field"),
        ("{{{name}}}", "braces"),
        ("a/{name}", "no file name"),
        ("../{name}", "no file name"),
        ("..{name}", "no file name"),
        ("-{name}", "no file name"),
        ("{name}\n", "no file name"),
        ("{name}\x1b[2J", "no file name"),
        ("{name}\0", "no file name"),
        ("{name}\udc80", "no file name"),
        ("{name}" + "x" * 256, "256 bytes"),
        (7, "expected text"),
        (["{name}"], "expected text"),
    ],
)
def test_what_is_no_template(value: object, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Template.parse(value, "SREGISTRY_FILENAME")
    assert str(caught.value).startswith("SREGISTRY_FILENAME: ") and says in str(caught.value)
    assert str(caught.value).isprintable()


@given(HOST, st.lists(COMPONENT, min_size=2, max_size=4), TAG, st.booleans())
def test_what_the_grammar_of_references_allows_is_one_file_name(host: str, components: list[str], tag: str, pinned: bool) -> None:
    assert "/" not in named(DEFAULT, f"{host}{'/'.join(['x', *components])}:{tag}" + (f"@{SHA}" if pinned else ""), platform=None)


@given(st.text(max_size=40) | st.lists(st.sampled_from([*(f"{{{field}}}" for field in FIELDS), "-", ":", "a", ".", "é"])).map("".join))
def test_any_text_is_a_template_or_refused(text: str) -> None:
    try:
        template = Template.parse(text, "filename")
    except ConfigError:
        return
    for format in FORMATS:
        name = template.name(Reference.parse("h/a/b:1", registry="h", collection=""), client="oci", platform=ARM, format=format)
        assert checked(name, Path("/"), "x") == name == os.path.basename(name)
        assert "{" not in name


def settings(tmp_path: Path, **keys: object) -> Settings:
    return Settings.load(given={"storage": str(tmp_path), **keys}, environ={})


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("spare", [0, 1])
def test_the_limit_of_a_name(tmp_path: Path, format: str, spare: int) -> None:
    """A name of 255 bytes can be made on this disk; one more is refused at once, with the limit and the way out."""
    tag = "t" * 128
    uri = f"a/{'b' * (255 - len(FORMATS[format]) - len(tag) - 3 + spare)}:{tag}"
    made = settings(tmp_path, format=format)
    if spare:
        with pytest.raises(ConfigError, match=r"has 256 bytes, and 255 are the limit of a file name; .*--name"):
            targets(entries({"uri": uri}), made, {})
        return
    (target,) = targets(entries({"uri": uri}), made, {})
    target.path.touch()
    (tmp_path / f"{neighbour(target.path.name)}12345678").touch()
    assert len(target.path.name) == 255 and len(target.key) < 100


def test_the_limit_holds_for_a_template_and_a_name_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="255 are the limit"):
        targets(entries({"uri": "a/b:" + "t" * 128}), settings(tmp_path, filename="{tag}-{tag}-{name}"), {})
    with pytest.raises(ConfigError, match=r"^name: .*255 are the limit"):
        targets(entries({"images": [{"uri": "a/b:1", "name": "é" * 126}]}), settings(tmp_path), {})


@given(st.text(min_size=1, max_size=255).filter(lambda name: "\0" not in name and "/" not in name and name.isprintable()))
def test_a_neighbour_has_room(name: str) -> None:
    assert len(os.fsencode(neighbour(name[:63]))) <= 255 - 20


def test_a_batch_by_a_template(tmp_path: Path) -> None:
    """What would be one file by the default name lies side by side."""
    uris = ["nvidia/a-b:1", "quay://nvidia/a/b:1"]
    with pytest.raises(ConfigError, match="would both become"):
        targets(entries({"uri": uris}), settings(tmp_path), {})
    made = targets(entries({"uri": uris}), settings(tmp_path, filename="{registry}-{collection}-{name}:{tag}"), {})
    assert [target.path.name for target in made] == ["nvcr.io-nvidia-a-b:1.sif", "quay.io-nvidia-a-b:1.sif"]
