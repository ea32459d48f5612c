"""The parts of a reference, as its grammar allows them."""

from __future__ import annotations

from hypothesis import strategies as st

COMPONENT = st.from_regex(r"[a-z0-9]{1,9}((\.|_|__|-{1,3})[a-z0-9]{1,9}){0,2}", fullmatch=True)
TAG = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", fullmatch=True)
HOST = st.sampled_from(["", "nvcr.io/", "localhost/", "h:1/", "h.example/", "[::1]:5/"])
