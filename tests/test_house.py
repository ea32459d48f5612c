"""The house is as its drawing says: packages, sizes, and what tests stand on."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[1]
PACKAGE = TOP / "scripts/sregistry"
TESTS = sorted((TOP / "tests").rglob("*.py"))
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())
CONTRACTS = PROJECT["tool"]["importlinter"]["contracts"]
#: What may not import each other stands on one floor; the highest is 0.
FLOORS = {name.strip(): floor for floor, names in enumerate(CONTRACTS[0]["layers"]) for name in names.split("|")}


def imported(path: Path) -> Iterator[str]:
    """Yield the modules, and names of modules, that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)


def named(path: Path) -> str:
    return str(path.relative_to(TOP))


@pytest.mark.parametrize("path", TESTS, ids=named)
def test_no_test_module_is_imported(path: Path) -> None:
    """Not in code that a test has another process run, either."""
    text = path.read_text()
    assert not re.findall(r"\bfrom tests(?:\.\w+)* import test_\w+|\bfrom tests\.[\w.]*\btest_\w+|\bimport tests\.[\w.]*\btest_\w+", text)


@pytest.mark.parametrize("path", [path for path in TESTS if path.parent.name in FLOORS and path.parent.parent.name == "tests"], ids=named)
def test_a_test_stands_on_its_package_and_what_is_below(path: Path) -> None:
    package = path.parent.name
    found = {name.split(".")[1] for name in imported(path) if name.startswith("sregistry.")}
    floors = {name: FLOORS.get(name, FLOORS["client"]) for name in found if name != package}  # `from sregistry import get_client`
    above = [name for name, floor in floors.items() if floor <= FLOORS[package]]
    assert not above, f"a test of {package} may not import {above}: it belongs to a package above, or to tests/whole"


#: A module that is added to a copy of the package, and the contract that it breaks, with the line that says so.
FORBIDDEN = {
    "upward": ({"oci/upward.py": "from sregistry.store import store\n"}, "An arrow never points up", "sregistry.oci.upward"),
    "circle": (
        {"oci/one.py": "import sregistry.oci.other\n", "oci/other.py": "import sregistry.oci.one\n"},
        "No circle inside a package",
        "sregistry.oci",
    ),
    "external": ({"store/download.py": "import requests\n"}, "HTTP belongs to the registry", "sregistry.store.download"),
}


@pytest.mark.parametrize("name", FORBIDDEN)
def test_the_layer_rule_bites(tmp_path: Path, name: str) -> None:
    modules, contract, named_module = FORBIDDEN[name]
    shutil.copytree(PACKAGE, tmp_path / "sregistry", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TOP / "pyproject.toml", tmp_path)
    for module, text in modules.items():
        (tmp_path / "sregistry" / module).write_text(f'"""A module too many."""\n\n{text}')
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert contract in re.findall(r"^(.+?) BROKEN", done.stdout, re.MULTILINE)
    assert named_module in done.stdout.partition("Broken contracts")[2]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("__init__.py")), ids=named)
def test_a_package_says_what_it_is_and_imports_nothing(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    if path.parent != PACKAGE:  # which has what users import, lazily
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_few_modules_stand_beside_the_packages() -> None:
    """`stage` is an alias for those who call it by its earlier name."""
    modules = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__", "stage"}
    assert modules <= FLOORS.keys() and len(modules) <= 5


#: Lines that a reader can hold in mind.
LONGEST_MODULE, LONGEST_CLASS = 450, 300


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=named)
def test_modules_and_classes_are_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_MODULE
    classes = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)}
    assert not {name: lines for name, lines in classes.items() if lines > LONGEST_CLASS}
