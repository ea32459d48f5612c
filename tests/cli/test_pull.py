"""One whole pull, from a name to a file and its record; tests/whole has the others."""

from __future__ import annotations

import subprocess
import sys

from sregistry.image import sif
from sregistry.image.squashfs import reader
from tests.support.place import Place
from tests.support.snakemake import inherited


def test_a_pull(place: Place) -> None:
    environ = {**inherited(), **place.environ, "HOME": str(place.root), "XDG_STATE_HOME": str(place.root / "state")}
    command = [sys.executable, "-m", "sregistry.cli", "pull", "demo/tiny:1"]
    done = subprocess.run(command, cwd=place.work, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    image = place.images / "demo-tiny:1.sif"
    assert done.stdout == f"[container][new] demo/tiny:1\nSuccess! {image}\n"
    with image.open("rb") as file:
        system = next(entry for entry in sif.parse(file)[1] if entry.data_type == sif.DataType.PARTITION)
        assert reader.read(file, system.offset, "/etc/name") == b"tiny"
    assert place.uris() == ["demo/tiny:1"]
    assert list(place.work.iterdir()) == []
