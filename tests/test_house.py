"""The house is as its drawing says: packages, sizes, and what tests stand on."""

from __future__ import annotations

import ast
import re
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
