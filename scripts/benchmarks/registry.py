"""Debian's docker-registry on a free port of 127.0.0.1, with plain http, for as long as the benchmark runs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from benchmarks.images import Made
from benchmarks.packages import BenchmarkError

_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "{address}"}}
"""


@contextmanager
def serve(root: Path, log: Path) -> Iterator[str]:
    """Serve the registry whose files are in *root*; give its host:port."""
    program = shutil.which("docker-registry")
    if program is None:
        raise BenchmarkError("docker-registry is not installed; on Debian: apt-get install docker-registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    root.mkdir(parents=True, exist_ok=True)
    config = log.with_suffix(".yml")
    config.write_text(_CONFIG.format(root=root, address=address))
    # Its own variables would go before the file.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    with log.open("wb") as file, subprocess.Popen([program, "serve", config], stdout=file, stderr=file, env=environ) as server:
        try:
            _await(server, address, log)
            yield address
        finally:
            server.terminate()


def _await(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    with _session() as session:
        for _ in range(200):
            if server.poll() is not None:
                break
            try:
                if session.get(f"http://{address}/v2/", timeout=5).ok:
                    return
            except requests.ConnectionError:
                time.sleep(0.05)
    raise BenchmarkError(f"docker-registry does not answer; see {log}")


def push(made: Made, address: str) -> None:
    """Upload the images as they are, blobs that are there already excepted (distribution-spec, "Pushing")."""
    homes: dict[str, str] = {}
    with _session() as session:
        for image, manifest in made.manifests.items():
            name, _, tag = image.partition(":")
            base = f"http://{address}/v2/{name}"
            body = made.layout.path(manifest["digest"]).read_bytes()
            for digest in [json.loads(body)["config"]["digest"], *(layer.digest for layer in made.of(image))]:
                _push_blob(session, made, base, digest, homes.setdefault(digest, name))
            answer = session.put(f"{base}/manifests/{tag}", data=body, headers={"Content-Type": manifest["mediaType"]}, timeout=60)
            answer.raise_for_status()


def _push_blob(session: requests.Session, made: Made, base: str, digest: str, home: str) -> None:
    if session.head(f"{base}/blobs/{digest}", timeout=60).status_code == 200:
        return
    # Of a blob that another repository of the registry has, nothing is sent ("Mounting a blob").
    start = session.post(f"{base}/blobs/uploads/", params={"mount": digest, "from": home}, timeout=60)
    start.raise_for_status()
    if start.status_code == 201:
        return
    with made.layout.path(digest).open("rb") as file:
        session.put(start.headers["Location"], params={"digest": digest}, data=file, timeout=600).raise_for_status()


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # a proxy has no business with 127.0.0.1
    return session
