"""The check of what users write: the quick answer is jsonschema's, and a mistake is a line with its place."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator, FormatChecker

from sregistry.config import lock_file, registries
from sregistry.config.schema_check import FORMATS, _plainly_right, check
from sregistry.config.yaml_lines import Marks

SCHEMAS = {"registries": registries._SCHEMA, "lock": lock_file._SCHEMA}
WORDS = ["lab", "Lab", "a b", "nvcr.io", "x/y", "v2", "TOKEN", "s3cret", "", "a\n", "sha256:" + "0" * 64, "sif"]
SCALARS = st.sampled_from([*WORDS, None, True, False, 0, 1, 2, -1, 0.5, float("nan"), float("inf")])
KEYS = st.sampled_from(
    ["lab", "Lab", 1, "base", "aliases", "rate", "https", "token", "version", "images", "tags", "uri", "found", "newest"]
)


def keyed(part: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    row = st.fixed_dictionaries({}, optional=dict.fromkeys(("base", "aliases", "collection", "version", "token", "https", "rate"), part))
    image = st.fixed_dictionaries({"uri": part, "platform": part, "digest": part, "name": part, "format": part})
    lock = st.fixed_dictionaries({"version": part, "images": st.lists(image | part, max_size=2)})
    return st.lists(part, max_size=2) | st.dictionaries(KEYS, part, max_size=3) | row | lock | st.dictionaries(st.just("lab"), row)


def formats() -> FormatChecker:
    checker = FormatChecker(())
    for name, holds in FORMATS.items():
        checker.checks(name)(holds)
    return checker


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
@given(value=st.recursive(SCALARS, keyed, max_leaves=8))
def test_what_is_plainly_right_is_so_to_jsonschema(schema: dict[str, Any], value: Any) -> None:
    valid = Draft202012Validator(schema, format_checker=formats()).is_valid(value)
    assert valid or not _plainly_right(value, schema)
    assert bool(check(value, schema, Marks([], value))) is not valid


def test_schemas_are_schemas() -> None:
    for schema in SCHEMAS.values():
        Draft202012Validator.check_schema(schema)


def test_an_unknown_keyword_is_left_to_jsonschema() -> None:
    assert not _plainly_right(3, {"multipleOf": 3}) and check(3, {"multipleOf": 3}, Marks([], 3)) == []


def test_what_is_secret_is_not_repeated() -> None:
    (mistake,) = check("s3cret", {"title": "a name", "pattern": "^x", "writeOnly": True}, Marks([], "s3cret"))
    assert str(mistake) == "config: expected a name"


def test_rows_that_are_right_are_read_without_jsonschema(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config/registries.yaml").write_text("lab: {base: lab.example, aliases: [lab], https: no, rate: 2, token: LAB_TOKEN}\n")
    code = "import sys; from sregistry.config.registries import rows; assert rows()['lab'].own; print('jsonschema' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
