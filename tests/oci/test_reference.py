"""What users write, by the grammar of references."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sregistry.errors import InvalidReference
from sregistry.oci.documents import Digest
from sregistry.oci.reference import Reference, split_scheme
from tests.support.references import COMPONENT, HOST, TAG

SHA = "sha256:" + "0a" * 32
BUILD = "16765f12b73ec77235726fa9e47e808c"


def parse(text: str) -> Reference:
    return Reference.parse(text, registry="nvcr.io", collection="nvidia")


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("nvidia/caffe2:17.10", "nvcr.io/nvidia/caffe2:17.10"),
        ("caffe2", "nvcr.io/nvidia/caffe2:latest"),
        (" caffe2 ", "nvcr.io/nvidia/caffe2:latest"),
        ("nvcr.io/caffe2", "nvcr.io/nvidia/caffe2:latest"),
        ("nvcr.io/nim/meta/llama3:1.0", "nvcr.io/nim/meta/llama3:1.0"),
        ("nvidia/l4t-base:R32.1", "nvcr.io/nvidia/l4t-base:R32.1"),
        ("127.0.0.1:5000/demo/tiny:1", "127.0.0.1:5000/demo/tiny:1"),
        ("127.0.0.1:5000/tiny:1", "127.0.0.1:5000/tiny:1"),
        ("localhost/tiny", "localhost/tiny:latest"),
        ("[::1]:5000/a/b", "[::1]:5000/a/b:latest"),
        ("ghcr.io/a/b/c/d", "ghcr.io/a/b/c/d:latest"),
        (f"a/b@{SHA}", f"nvcr.io/a/b@{SHA}"),
        (f"a/b:1@{SHA}", f"nvcr.io/a/b@{SHA}"),
        ("a/b.c_d__e---f", "nvcr.io/a/b.c_d__e---f:latest"),
    ],
)
def test_references(text: str, whole: str) -> None:
    reference = parse(text)
    assert str(reference) == whole
    assert f"{reference.collection}/{reference.name}".rstrip("/") == reference.repository


def test_a_digest_wins_over_a_tag_which_is_kept() -> None:
    reference = parse(f"a/b:1@{SHA}")
    assert (reference.target, reference.tag, reference.digest) == (SHA, "1", Digest(SHA))
    assert parse(f"a/b@{SHA}").tag is None


def test_a_version_names_a_build() -> None:
    reference = parse(f"nvidia/tensorflow:17.11@{BUILD}")
    assert (reference.version, reference.digest, reference.target) == (BUILD, None, "17.11")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no image"),
        (":1", "names no image"),
        ("a/b:", "no tag"),
        ("a/b:-x", "no tag"),
        ("a/b:" + "x" * 129, "no tag"),
        ("a/b:x/y", "no tag"),
        ("NVIDIA/Caffe2", "lower case"),
        ("a//b", "no repository"),
        ("/a", "no repository"),
        ("a/", "no repository"),
        ("a/../b", "no repository"),
        ("a/-b", "no repository"),
        ("a b", "no repository"),
        ("a\0b", "no repository"),
        ("café/x", "no repository"),
        ("a/b@sha256:abc", "no digest"),
        ("a/b@", "no digest"),
        (f"a/b@{SHA}@{SHA}", "no digest"),
        ("-x.y/a", "no registry host"),
        ("host:port/a", "no registry host"),
        ("me:pa55@host.example/a", "no digest"),
        ("a/" + "b" * 300, "255"),
    ],
)
def test_what_is_none(text: str, message: str) -> None:
    with pytest.raises(InvalidReference, match=message) as caught:
        parse(text)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [("docker://a/b", ("docker", "a/b")), ("a/b", (None, "a/b")), (" nvidia://x ", ("nvidia", "x")), ("://x", (None, "://x"))],
)
def test_schemes(text: str, expected: tuple[str | None, str]) -> None:
    assert split_scheme(text) == expected


@given(HOST, st.lists(COMPONENT, min_size=2, max_size=4), TAG, st.booleans())
def test_what_the_grammar_allows_comes_back(host: str, components: list[str], tag: str, pinned: bool) -> None:
    path = "/".join(["x", *components])  # no host: it has neither dot nor colon
    reference = parse(f"{host}{path}:{tag}" + (f"@{SHA}" if pinned else ""))
    assert (reference.repository, reference.tag) == (path, tag)
    assert reference.registry == (host[:-1] or "nvcr.io")
    assert parse(str(reference)).target == reference.target


@given(st.text(max_size=40) | st.text("aA0:/@.-_[] ", max_size=30))
def test_any_text_is_a_reference_or_refused(text: str) -> None:
    try:
        reference = parse(text)
    except InvalidReference as error:
        assert len(str(error).splitlines()) == 1
        return
    if not reference.version and not (reference.digest and reference.tag):
        assert parse(str(reference)) == reference
    assert not {"..", "."} & set(reference.repository.split("/"))
