"""What reads bytes of strangers, fed with any bytes: it gives a value or a SregistryError, in bounded time and memory.

```
python -m tests.support.fuzzing TARGET [SECONDS]     guided by coverage, with atheris (pip install atheris); test_fuzzing has examples
```
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import io
import json
import os
import sys
import tarfile
import time
from collections.abc import Callable
from itertools import islice

import zstandard

from sregistry.errors import SregistryError
from sregistry.layers.inflate import inflate
from sregistry.layers.tar_reader import Kind, TarReader
from sregistry.oci.documents import ImageConfig
from sregistry.oci.parse import parse_manifest
from sregistry.oci.reference import Reference
from sregistry.registry.tokens import parse_challenges

#: Pieces that are read of one stream: a few bytes can stand for petabytes of holes or zeros.
_MOST = 200


def challenges(data: bytes) -> None:
    """The values of WWW-Authenticate headers, a line each."""
    for challenge in parse_challenges(data.decode("latin-1").split("\n")):
        assert challenge.scheme == challenge.scheme.lower() and all(name == name.lower() for name in challenge.parameters)


def manifest(data: bytes) -> None:
    """A manifest, an index, or neither."""
    parse_manifest(data)


def config(data: bytes) -> None:
    """An image config."""
    ImageConfig.parse(data)


def reference(data: bytes) -> None:
    """What a user may type."""
    text = data.decode("utf-8", "replace")
    found = Reference.parse(text, registry="nvcr.io", collection="nvidia")
    assert Reference.parse(str(found), registry="nvcr.io", collection="nvidia").uri == found.uri


def tar(data: bytes) -> None:
    """A layer's tar stream; the first byte says how it is cut into pieces."""
    step = data[0] + 1 if data else 1
    body = data[1:]
    reader = TarReader(iter([body[at : at + step] for at in range(0, len(body), step)]), "layer")
    for entry in islice(reader, _MOST):
        assert b".." not in entry.path.split(b"/") and not entry.path.startswith(b"/")
        if entry.kind is Kind.FILE:
            sum(map(len, islice(reader.blocks(entry, 1 << 16), _MOST)))


def compressed(data: bytes) -> None:
    """A layer as it is published."""
    for piece in islice(inflate(io.BytesIO(data), "layer"), _MOST):
        assert piece


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (challenges, manifest, config, reference, tar, compressed)
}


def feed(target: str, data: bytes) -> None:
    """Give *data* to a target; its refusal is one of ours."""
    with contextlib.suppress(SregistryError):
        TARGETS[target](data)


def seeds() -> dict[str, list[bytes]]:
    """Return inputs that are right, to be changed."""
    digest = "sha256:" + "a" * 64
    blob = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest, "size": 5}
    image = {
        "schemaVersion": 2,
        "config": {**blob, "mediaType": "application/vnd.oci.image.config.v1+json"},
        "layers": [{**blob, "urls": ["http://h/x"], "annotations": {"a": "b"}}],
    }
    index = {"schemaVersion": 2, "manifests": [{**blob, "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}}]}
    history = json.dumps({"id": "x", "architecture": "amd64", "os": "linux", "config": {"Env": ["A=b"], "Cmd": ["sh"]}})
    old = {"schemaVersion": 1, "name": "a/b", "tag": "1", "fsLayers": [{"blobSum": digest}], "history": [{"v1Compatibility": history}]}
    settings = {
        "os": "linux",
        "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [digest]},
        "config": {"Env": ["A=b"], "Entrypoint": ["/x"], "Cmd": None, "Labels": {"a": "b"}},
    }
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.PAX_FORMAT) as made:
        for name, kind in (("a" * 120, tarfile.REGTYPE), ("d", tarfile.DIRTYPE), ("l", tarfile.SYMTYPE), ("h", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.size = kind, "d/x", 700 if kind == tarfile.REGTYPE else 0
            info.pax_headers = {"SCHILY.xattr.user.a": "b", "GNU.sparse.map": "0,700", "GNU.sparse.size": "700"} if info.size else {}
            made.addfile(info, io.BytesIO(bytes(700)))
    plain = archive.getvalue()
    return {
        "challenges": [b'Bearer realm="https://h/t?scope=x",service=s , Basic realm="a\\"b"\nNegotiate abc==, NTLM'],
        "manifest": [json.dumps(document).encode() for document in (image, index, old)],
        "config": [json.dumps(settings).encode()],
        "reference": [b"nvcr.io/nvidia/k8s/cuda:12.4@" + digest.encode(), b"ubuntu"],
        "tar": [b"\xff" + plain, b"\x06" + plain],
        "compressed": [gzip.compress(plain), zstandard.compress(plain), gzip.compress(b"a") + gzip.compress(b"b"), plain[:600]],
    }


def main(target: str, seconds: float) -> None:
    """Let atheris look for inputs until the time is over."""
    atheris = importlib.import_module("atheris")

    end = float("inf")
    count = 0

    def one(data: bytes) -> None:
        nonlocal count, end
        if not count:  # all is instrumented by now, which takes a while
            end = time.monotonic() + seconds
        count += 1
        if time.monotonic() > end:
            print(f"{target}: {count} inputs in {seconds:g} s, nothing found", flush=True)
            os._exit(0)
        feed(target, data)

    atheris.instrument_all()
    atheris.Setup([sys.argv[0], "-timeout=20", "-rss_limit_mb=2000"], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 60)
