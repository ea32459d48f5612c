"""Each system call of a pull is one before which the process is killed, and one that fails: no name ever stands for less.

After it, each name in the store, the storage and the catalog is whole, a failure is one line, and the next run
leaves the bytes of an undisturbed one. `--all-faults` tries all calls, else it is a few of them.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sregistry.serve import serve
from sregistry.store import Store
from tests.conftest import REPOSITORY
from tests.faulting import FAULTS, SCENES
from tests.images import Layout, layer
from tests.tarball import directory, file, symlink

pytestmark = [pytest.mark.needs("cc", "glibc"), pytest.mark.once("a system call of any user fails alike")]

#: Calls that are tried of a scene and a fault, if not all are.
_FEW = 2
_MEMORY = Path("/dev/shm")  # a disk makes fsync slow and shows nothing more

Answer = dict[str, Any]
Ask = Callable[[str, str, int | None], Answer]


@pytest.fixture(scope="module")
def top() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sregistry-faults-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def library(top: Path) -> Path:
    """Compile faults.c."""
    path = top / "faults.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", path, REPOSITORY / "tests/faults.c", "-ldl"], check=True)
    return path


@pytest.fixture(scope="module")
def ask(top: Path, library: Path) -> Iterator[Ask]:
    """Start the process that tries faults, and a registry for it; return a function that has it try some."""
    layout = Layout(top / "layout")
    base = layer([directory(b"bin"), file(b"bin/sh", b"shell" * 600), symlink(b"bin/bash", b"sh")])
    layout.tag("demo/one:1", layout.image([base], {"Cmd": ["/bin/sh"]}))
    noise = random.Random(1).randbytes(2_000)
    layout.tag("demo/two:1", layout.image([base, layer([file(b"two", noise)])], {"Cmd": ["/bin/sh"]}))
    with serve(Store(layout.root)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        environ = {"PATH": os.environ["PATH"], "HOME": str(top), "LD_PRELOAD": str(library)}
        command = [sys.executable, "-m", "tests.faulting", str(library), str(top), server.address]
        with (top / "log").open("wb") as log:
            job = subprocess.Popen(
                command, cwd=REPOSITORY, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        with job:
            assert job.stdin is not None and job.stdout is not None

            def question(scene: str, fault: str, most: int | None) -> Answer:
                assert job.stdin is not None and job.stdout is not None
                print(json.dumps({"scene": scene, "fault": fault, "most": most}), file=job.stdin, flush=True)
                line = job.stdout.readline()
                assert line, (top / "log").read_text()
                answer: Answer = json.loads(line)
                return answer

            yield question
            job.stdin.close()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("scene", SCENES)
def test_no_fault_leaves_a_wrong_byte(ask: Ask, scene: str, fault: str, request: pytest.FixtureRequest) -> None:
    every = request.config.getoption("--all-faults")
    answer = ask(scene, fault, None if every else _FEW)
    assert not answer["wrong"], "\n".join(answer["wrong"])
    assert answer["tried"] == (answer["points"] if every or fault == "parts" else _FEW)
    assert fault == "parts" or answer["points"] > 50
