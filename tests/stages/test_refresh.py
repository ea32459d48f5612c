"""One process asks what all tags and patterns mean: its answers, their order, and a registry that does not answer."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sregistry.errors import RegistryError
from sregistry.results import receipts
from sregistry.stages.__main__ import main
from sregistry.stages.refresh import answers
from tests.support.images import Layout, layer
from tests.support.registry import serving
from tests.support.tarball import file


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "layout")
    for tag in ("1", "2", "10"):
        made.tag(f"demo/tiny:{tag}", made.image([layer([file(b"tag", tag.encode())])], {"Cmd": ["/x"]}))
    return made


def asked(host: str, name: str, **more: Any) -> dict[str, Any]:
    return {"uri": f"{host}/demo/{name}", "client": "oci", "platform": "linux/amd64", "locked": None, "pinned": "none.json", **more}


def pattern(host: str, name: str, **more: Any) -> dict[str, Any]:
    return {"uri": f"{host}/demo/{name}", "client": "oci", "tags": "*", "newest": None, "before": None, **more}


def refresh(folder: Path, images: list[dict[str, Any]], patterns: list[dict[str, Any]], connections: int = 4) -> tuple[int, dict[str, Any]]:
    receipts.write(folder / "questions.json", {"images": images, "patterns": patterns})
    words = ["--questions", folder / "questions.json", "--cache", folder / "cache", "--connections", connections]
    code = main(["refresh", *map(str, words), "--output", str(folder / "refresh.json")])
    assert not (folder / "questions.json").exists()
    return code, json.loads((folder / "refresh.json").read_text())


@pytest.mark.parametrize("connections", [1, 8])
def test_a_registry_that_does_not_answer_hides_no_other(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], connections: int
) -> None:
    monkeypatch.setenv("SREGISTRY_OCI_NOHTTPS", "yes")
    old = layout.tags()["demo/tiny:1"]["digest"]
    before = {str(path): path.stat().st_mtime_ns for path in (tmp_path / "layout").rglob("*")}
    with serving(layout) as server:
        here = server.address
        images = [asked(here, "none:1"), asked(here, "tiny:1", locked=old), asked(here, "tiny:2", locked=old), asked(here, "tiny:10")]
        patterns = [pattern(here, "none"), pattern(here, "tiny", newest=2, before=["2", "1"])]
        code, found = refresh(tmp_path, [*images, images[1]], patterns, connections)
    # In the order of the questions, and what is asked for twice is told once.
    assert [image["status"] for image in found["images"]] == ["failed", "unchanged", "changed", "new"]
    assert [(item["status"], item["came"], item["went"]) for item in found["patterns"]] == [("failed", [], []), ("changed", ["10"], ["1"])]
    said = capsys.readouterr()
    assert said.out.splitlines()[-1] == "refresh: 2 changed, 1 new, 2 failed, 1 unchanged"
    assert code == 1 and said.err.startswith("error: ") and said.err.endswith("(and 1 more, above)\n") and said.err.count("\n") == 1
    assert {str(path): path.stat().st_mtime_ns for path in (tmp_path / "layout").rglob("*")} == before
    assert not list((tmp_path / "cache").rglob("sha256")), "nothing of it is kept"


def test_nothing_failed(layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SREGISTRY_OCI_NOHTTPS", "yes")
    with serving(layout) as server:
        code, found = refresh(tmp_path, [asked(server.address, "tiny:1")], [])
    assert (code, found["version"], capsys.readouterr().err) == (0, 1, "")


@pytest.mark.parametrize("threads", [1, 3, 50])
def test_answers_are_in_the_order_of_the_questions(threads: int) -> None:
    assert answers([partial(int, number) for number in range(20)], threads) == list(range(20))
    assert answers([], threads) == []


def test_a_mistake_of_a_thread_is_raised() -> None:
    def wrong() -> int:
        raise RegistryError("a mistake")

    with pytest.raises(RegistryError, match="a mistake"):
        answers([lambda: 1, wrong, lambda: 2], 2)
