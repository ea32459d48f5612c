"""Each system call of a pull is one before which the process is killed, and one that fails: no name ever stands for less.

After it, each name in the store, the storage and the catalog is whole, a failure is one line, and the next run
leaves the bytes of an undisturbed one. `--all-faults` tries all calls, else it is a dozen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.faulting import FAULTS, SCENES, asking, in_memory

pytestmark = [pytest.mark.needs("cc", "glibc"), pytest.mark.slow("many kills", once=True)]

#: Calls that are tried of a scene and a fault, if not all are.
_FEW = 2


@pytest.fixture(scope="module")
def ask() -> Iterator[Callable[..., dict[str, Any]]]:
    with in_memory() as folder, asking("tests.support.faulting", folder) as question:
        yield question


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("scene", SCENES)
def test_no_fault_leaves_a_wrong_byte(ask: Callable[..., dict[str, Any]], scene: str, fault: str, request: pytest.FixtureRequest) -> None:
    every = request.config.getoption("--all-faults")
    answer = ask("faults", scene=scene, fault=fault, most=None if every else _FEW)
    assert not answer["wrong"], "\n".join(answer["wrong"])
    assert answer["tried"] == (answer["points"] if every or fault == "parts" else _FEW)
    assert fault == "parts" or answer["points"] > 50
