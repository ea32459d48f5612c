"""Two users, with uids of their own, share a store of their group: whatever one leaves, the other's images are right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.faulting import asking, in_memory

pytestmark = pytest.mark.needs("root", "cc", "glibc")


@pytest.fixture(scope="module")
def ask() -> Iterator[Callable[..., dict[str, Any]]]:
    with in_memory() as folder, asking("tests.support.crowding", folder) as question:
        yield question


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        pytest.param("same", {}, id="the same image at once"),
        pytest.param("different", {}, id="other images at once, then each the other's"),
        pytest.param("killed", {"most": 8}, id="one is killed"),
    ],
)
def test_each_one_s_image_is_right(ask: Callable[..., dict[str, Any]], method: str, arguments: dict[str, Any]) -> None:
    answer = ask(method, **arguments)
    assert not answer["wrong"], "\n".join(answer["wrong"])
