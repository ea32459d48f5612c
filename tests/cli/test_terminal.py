"""What people get to see: nothing that a terminal obeys, whoever sent it and wherever it shows up."""

from __future__ import annotations

import io
import json
import re
from argparse import Namespace
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sregistry.cli.commands import images, labels, search
from sregistry.errors import LayerError, RegistryError, report
from sregistry.oci.reference import Reference
from sregistry.pipeline.progress.displays import Bars, Lines, Silent
from sregistry.pipeline.progress.tracker import View
from sregistry.system import logs
from sregistry.system.heartbeat import Kind, Message
from sregistry.terminal import printable
from tests.support.scripted import Reply, Scripted, client

#: A sequence that clears the screen, one that C1 begins, a hyperlink, a direction override, a return, and rich's markup.
EVIL = "a\x1b[2J\x9b31m\x1b]8;;http://x\x07\u202egnp\u2066\r\x7f\ufeff[red]:warning:"
SHOWN = r"a\x1b[2J\x9b31m\x1b]8;;http://x\x07\u202egnp\u2066\x0d\x7f\ufeff[red]:warning:"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nvidia/cuda:12.4", "nvidia/cuda:12.4"),
        ("Grüße, 世界 עברית 🚀", "Grüße, 世界 עברית 🚀"),
        ("two\nlines\tand", r"two\x0alines\x09and"),
        ("\x00\x1f\x7f\x80\x9f\xa0\xad", r"\x00\x1f\x7f\x80\x9f\xa0\xad"),
        ("\u200b\u200f\u202a\u202e\u2028\u2029\u2069\ufeff", r"\u200b\u200f\u202a\u202e\u2028\u2029\u2069\ufeff"),
        ("\ud800\udcff\ue000\uffff", r"\ud800\udcff\ue000\uffff"),
        ("\U000e0001\U0010ffff", r"\U000e0001\U0010ffff"),
        (EVIL, SHOWN),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


@given(st.text())
def test_what_is_shown_can_be_shown(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)


def test_errors(capsys: pytest.CaptureFixture[str]) -> None:
    error = LayerError(f"layer 1: {EVIL}", hint=EVIL)
    assert str(error).isprintable() and r"a\x1b[2J\x9b31m" in str(error)
    report(error)
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: {error}"


@pytest.mark.parametrize("answer", ["message", "code", "body", "header"])
def test_the_error_of_a_registry(answer: str) -> None:
    document = {"errors": [{"code": EVIL if answer == "code" else "DENIED", "message": EVIL if answer == "message" else ""}]}
    reply = Reply(403, json.dumps(document).encode() if answer in ("message", "code") else EVIL.encode())
    if answer == "header":
        reply = Reply(200, b"x", [("Content-Type", "a\x1b[2J\x9b31m")])
    with Scripted({"/v2/demo/tiny/manifests/1": reply}) as server, client(server.host) as it, pytest.raises(RegistryError) as caught:
        it.get_manifest(Reference.parse("demo/tiny:1", registry=server.host, collection=""))
    assert str(caught.value).isprintable()


def test_messages_on_the_way(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up({})
    logs.logger().warning("layer %s", EVIL)
    assert capsys.readouterr().err == f"WARNING layer {printable(' '.join(EVIL.split()))}\n"


@pytest.mark.parametrize("kind", [Lines, Silent])
def test_lines_of_progress(kind: Callable[[io.StringIO], Lines | Silent]) -> None:
    stream = io.StringIO()
    with kind(stream) as shown:
        shown.show(View(messages=(Message(Kind.WARNING, EVIL),)))
    assert stream.getvalue() == f"warning: {SHOWN}\n"


def test_bars_obey_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    bars = Bars(stream)
    bars.say(f"warning: {EVIL}")
    # rich's own sequences stand around what is said
    said = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    assert said == f"warning: {SHOWN}\n"


class Record(Namespace):
    """A record of a catalog that others wrote to."""

    client, label, uri = EVIL, EVIL, EVIL
    created = datetime(2024, 1, 2, tzinfo=UTC)

    def json(self) -> dict[str, str]:
        return {"uri": EVIL}


class Client:
    """Answers as the Python client does."""

    def search(self, query: str) -> list[str]:
        return [EVIL]

    def images(self, query: Sequence[str], where: str | None = None) -> list[Record]:
        return [Record()]

    def labels(self, key: str | None, value: str | None) -> list[tuple[str, str, Record]]:
        return [(EVIL, EVIL, Record())]

    def check(self, deep: bool) -> list[tuple[Record, str]]:
        return [(Record(image=EVIL), EVIL)]


def texts(value: object) -> list[object]:
    """Return all texts in a JSON document."""
    if isinstance(value, dict):
        value = list(value.values())
    return [text for item in value for text in texts(item)] if isinstance(value, list) else [value]


@pytest.mark.parametrize(
    ("verb", "options"),
    [
        (search, {"query": "x", "limit": None}),
        (images, {"query": [], "where": None, "check": False}),
        (images, {"check": True, "deep": False}),
        (labels, {"label": None}),
        (labels, {"label": "x"}),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_tables(
    verb: Any, options: dict[str, Any], as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verb, "open_client", lambda _: Client())
    verb.run(Namespace(**options, json=as_json, quiet=False))
    printed = capsys.readouterr().out
    if as_json:
        assert EVIL in texts(json.loads(printed))
    else:
        assert SHOWN.partition(r"\x0d")[0] in printed
        assert printed.replace("\n", "").replace("\t", "").isprintable()
