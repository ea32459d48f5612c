"""Every parser of strangers' bytes, with any bytes and with right ones that were changed."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.fuzzing import TARGETS, feed, seeds

SEEDS = seeds()


@st.composite
def changed(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """A right input with some of its bytes replaced, removed or doubled."""
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        until = min(len(data), at + draw(st.integers(0, 12)))
        how = draw(st.sampled_from(["replace", "remove", "double", "digit"]))
        if how == "replace":
            data[at:until] = draw(st.binary(max_size=12))
        elif how == "remove":
            del data[at:until]
        elif how == "double":
            data[at:at] = data[at:until]
        else:
            data[at:until] = draw(st.sampled_from([b"0", b"-1", b"99999999999999999999", b"null", b"[]", b"{}", b'"', b"\0"]))
    return bytes(data)


@pytest.mark.parametrize("target", TARGETS)
@settings(
    deadline=None,
    max_examples=settings().max_examples,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_bytes(target: str, data: st.DataObject) -> None:
    feed(target, data.draw(st.binary(max_size=600)))
    feed(target, data.draw(changed(SEEDS[target])))


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_right_is_taken(target: str) -> None:
    for seed in SEEDS[target]:
        TARGETS[target](seed)
