"""Random layers: our image, read back by unsquashfs, is what a straightforward reference makes of them."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from sregistry.layers.compression import Compression
from tests.support import contents, engine, oracle, tarball
from tests.support.model import IMPLIED, Ambiguous, Reference
from tests.support.tarball import Member, Style

pytestmark = pytest.mark.slow("long generated tables", once=True)

_ROOT = os.geteuid() == 0
_BLOCK = 65536
#: Few names, so that layers meet one another.
_NAMES = [b"a", b"b", b"c", b"dir", b"\xff\x80", b"new\nline", b"x" * 120]
_TARGETS = [b"a", b"/b", b"../c", b"nowhere/at all", b".", b"..", b"dir/../a", b"/dir", b"\xfe", b"t" * 130]
_CONTENTS = [
    b"",
    b"1",
    b"text\n" * 99,
    bytes(_BLOCK),
    bytes(_BLOCK + 1),
    b"z" * (_BLOCK - 1),
    b"01234567" * 20_000,
    bytes(3 * _BLOCK) + b"end",
]
_XATTRS: list[dict[bytes, bytes]] = [
    {},
    {b"user.a": b"1"},
    {b"user.a": b"1", b"user.b": b"\0\xff\n="},
    {b"user.large": bytes(range(256)) * 8, b"user.empty": b""},
]
_PRIVILEGED: list[dict[bytes, bytes]] = [*_XATTRS, {b"trusted.t": b"t"}, {b"security.s": b"\0s", b"user.a": b"1"}]

paths = st.lists(st.sampled_from(_NAMES), min_size=1, max_size=4).map(b"/".join)
_OWNERS = [0, 1, 1000, 65534, 4_000_000_000]


@st.composite
def members(draw: st.DrawFn) -> Member:
    """Draw an entry; as an ordinary user only of kinds that unsquashfs can then make."""
    kinds = ["file", "file", "dir", "dir", "symlink", "link", "fifo", "whiteout", "opaque", *(["device"] if _ROOT else [])]
    kind = draw(st.sampled_from(kinds))
    name = draw(paths)
    if kind == "whiteout":
        return tarball.whiteout(name)
    if kind == "opaque":
        return tarball.opaque(name)
    mode = draw(st.integers(0, 0o7777))
    if not _ROOT:
        mode = mode & 0o755 | 0o700  # unsquashfs must fill folders, the test read files, and the umask is heeded
    xattrs = draw(st.sampled_from(_PRIVILEGED if _ROOT else _XATTRS))
    attached = {key: value for key, value in xattrs.items() if kind in ("file", "dir") or not key.startswith(b"user.")}
    made: Callable[[], Member] = {
        "file": lambda: tarball.file(name, draw(st.sampled_from(_CONTENTS)), mode=mode),
        "dir": lambda: tarball.directory(name, mode),
        "symlink": lambda: tarball.symlink(name, draw(st.sampled_from(_TARGETS))),
        "link": lambda: tarball.link(name, draw(paths)),
        "fifo": lambda: tarball.fifo(name, mode),
        "device": lambda: tarball.device(name, draw(st.sampled_from([tarball.CHARACTER, tarball.BLOCK])), draw(st.integers(0, 4095)), 77),
    }[kind]
    return dataclasses.replace(
        made(),
        uid=draw(st.sampled_from(_OWNERS)),
        gid=draw(st.sampled_from(_OWNERS)),
        mtime=draw(st.sampled_from([0, 1, 1_234_567_890, 4_000_000_000])),
        xattrs=attached,
        style=Style.PAX if attached else draw(st.sampled_from([Style.PAX, Style.GNU])),
    )


@pytest.mark.needs("unsquashfs")
@pytest.mark.parametrize("compression", engine.COMPRESSIONS.values(), ids=engine.COMPRESSIONS)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(st.lists(members(), max_size=14), min_size=1, max_size=4))
def test_any_layers_give_the_tree_of_the_reference(compression: Compression, drawn: list[list[Member]]) -> None:
    reference = Reference()
    layers = [_applied(reference, layer) for layer in drawn]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        engine.build(folder / "store", folder / "image", layers, compression)
        engine.unsquashed(folder / "image", folder / "root")
        assert _compared(reference, folder / "root") == []


@pytest.mark.needs("unsquashfs", "root")
@pytest.mark.parametrize("streams", [contents.tricky_members, contents.odd_members], ids=["tricky", "odd"])
def test_the_hard_cases_give_the_tree_of_the_reference(tmp_path: Path, streams: Callable[[], list[list[Member]]]) -> None:
    reference = Reference()
    for layer in streams():
        assert reference.apply(layer) == layer
    engine.build(tmp_path / "store", tmp_path / "image", streams())
    engine.unsquashed(tmp_path / "image", tmp_path / "root")
    assert _compared(reference, tmp_path / "root") == []


def _applied(reference: Reference, layer: list[Member]) -> list[Member]:
    """Apply what of a layer has a meaning, and return it."""
    try:
        return reference.apply(layer)
    except Ambiguous:
        event("a layer whose order would matter")
        return reference.apply([member for member in layer if b".wh." not in member.name])


def _compared(reference: Reference, root: Path) -> list[str]:
    expected, ours = reference.nodes(), oracle.tree(root)
    if not _ROOT:  # everything belongs to who extracts it
        expected = {path: dataclasses.replace(node, uid=os.getuid(), gid=os.getgid()) for path, node in expected.items()}
        ours = {path: dataclasses.replace(node, uid=os.getuid(), gid=os.getgid()) for path, node in ours.items()}
    loose = {b"/".join(path) for path in reference.loose}
    return oracle.differences(expected, ours, implied_since=IMPLIED, loose=loose)
