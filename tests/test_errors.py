"""What an error of the system becomes."""

from __future__ import annotations

import errno

import pytest

from sregistry.errors import StoreError, from_oserror


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "can't write: Input/output error"),
        ("a/b", "can't write: a/b: Input/output error"),
        (b"a/\xff", "can't write: a/\udcff: Input/output error"),
        (7, "can't write: Input/output error"),  # os.chmod and its like name the open file by its number
    ],
)
def test_the_name_that_the_system_gives(name: object, message: str) -> None:
    assert from_oserror(OSError(errno.EIO, "any words", name), StoreError, "can't write:").message == message
