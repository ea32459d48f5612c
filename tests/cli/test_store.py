"""`sregistry store`: a store is checked and cleaned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sregistry.cli.__main__ import main
from tests.support.stores import exploded, flip, names, two_images


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = two_images(tmp_path / "cache" / "docker")
    cache = ["--cache", str(store.root.parent)]
    assert main(["store", "check", *cache]) == 0
    assert "10 objects checked, 0 findings" in capsys.readouterr().out
    flip(exploded(store)[0] / "index", 60)
    assert main(["store", "check", "--dry-run", "--json", *cache]) == 1
    assert json.loads(capsys.readouterr().out)[0]["repaired"] is False
    assert main(["store", "check", *cache]) == 0
    assert "repaired" in capsys.readouterr().out
    assert main(["store", "clean", *cache]) == 2
    assert "say --unreachable" in capsys.readouterr().err
    assert main(["store", "clean", "--unreachable", "--dry-run", *cache]) == 0
    assert "would be removed" in capsys.readouterr().out
    assert main(["store", "clean", "--keep", "0.5M", "--json", *cache]) == 0
    assert json.loads(capsys.readouterr().out)
    assert main(["store", "clean", "--older-than", "0", *cache]) == 0
    assert names(store) == set()


@pytest.mark.parametrize("words", [["--keep", "x"], ["--keep", "5X"], ["--older-than", "-1"], ["--older-than", "soon"]])
def test_bad_words(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["store", "clean", *words, "--cache", str(tmp_path)])
    assert caught.value.code == 2
