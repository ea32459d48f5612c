"""The table of options: whatever else says something of an option is made of it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

import option_pages
from sregistry.config.options import BY_NAME, DEFAULTS, OPTIONS, Option
from sregistry.config.registries import rows
from sregistry.config.requested import OPTIONS as IMAGE_OPTIONS
from sregistry.config.settings import Settings

TOP = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("path", option_pages.pages(), ids=lambda path: path.name)
def test_the_pages_say_what_the_table_does(path: Path) -> None:
    assert path.read_text() == option_pages.pages()[path], f"{path} is not what the options say: {option_pages.COMMAND}"


def test_each_option_is_one_row_and_one_setting() -> None:
    assert len(BY_NAME) == len(OPTIONS)
    names = {option.name.partition(".")[0] for option in OPTIONS if option.read}
    assert names == {field.name for field in fields(Settings)}
    variables = [name for option in OPTIONS for name in option.variables]
    assert len(set(variables)) == len(variables)


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.is_key], ids=lambda option: option.name)
def test_a_default_is_what_the_key_may_have(option: Option) -> None:
    """The reader and the schema of a row are of one mind."""
    from jsonschema import Draft202012Validator

    assert option.read is not None and option.schema is not None
    if option.default is None:
        return
    Draft202012Validator(option.schema).validate(option.default)
    option.read(option.default, option.name)
    for allowed in option.schema.get("enum", ()):
        assert option.read(allowed, option.name) == allowed


def test_what_images_may_have_is_in_the_part_of_the_schema_that_is_written_by_hand() -> None:
    schema = yaml.safe_load((TOP / "workflow/schemas/config.schema.yaml").read_bytes())
    image = schema["$defs"]["image"]
    own = image["then"]["additionalProperties"]["properties"]
    assert {"uri", *own} == set(image["else"]["properties"]) == set(IMAGE_OPTIONS) == set(image["if"]["propertyNames"]["not"]["enum"])
    shared = {option.name.partition(".")[0] for option in OPTIONS if option.per_image}
    assert shared <= set(own)
    assert {*shared, "images"} == set(schema["properties"]["groups"]["additionalProperties"]["properties"])
    assert set(DEFAULTS) <= set(schema["properties"])


def test_the_client_of_the_table_is_a_registry() -> None:
    assert DEFAULTS["client"] in rows()
