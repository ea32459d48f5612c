"""The table of verbs: whole, and read without importing what the verbs need."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

from sregistry.catalog.engine_links import RULES
from sregistry.cli import arguments, commands
from sregistry.cli.__main__ import main
from sregistry.cli.commands.link import ENGINES
from sregistry.cli.verbs import VERBS
from sregistry.config.filename import FORMATS


def test_each_module_has_a_verb() -> None:
    assert {module for module, _ in VERBS.values()} == {found.name for found in pkgutil.iter_modules(commands.__path__)}


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_its_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["help", verb])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: sregistry {verb} ")
    assert len(text.split("\n\n")) > (1 if verb == "version" else 2)  # a description is between usage and arguments


def test_only_the_module_of_the_verb_is_imported() -> None:
    code = "import sys; from sregistry.cli.__main__ import main; sys.argv[1:] and main(sys.argv[1:])\n"
    code += "print(*(name.rpartition('.')[2] for name in sys.modules if name.startswith('sregistry.cli.commands.')), file=sys.stderr)"
    for line, wanted in ([], ""), (["help"], ""), (["version"], "version"):
        done = subprocess.run([sys.executable, "-c", code, *line], capture_output=True, text=True, check=True)
        assert done.stderr.strip() == wanted


def test_choices_are_those_of_the_modules_that_are_not_imported_for_them() -> None:
    assert set(arguments.FORMATS) == set(FORMATS)
    assert set(ENGINES) == set(RULES)
