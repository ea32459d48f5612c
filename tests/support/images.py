"""The images that the tests use: an OCI image layout, made by this script, equal bytes every time.

```
python -m tests.support.images DIR                    write the layout
python -m tests.support.images DIR http://HOST:PORT   and push everything to a registry, byte for byte
```

`IMAGES` names each image and says what it is for. Everything a tool might repair on the way (types that
lie, layers that repeat, odd compression) is written and pushed by our own code.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import random
import shutil
import struct
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import requests
import zstandard

from tests.support import contents, tarball
from tests.support.tarball import Member

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
INDEX = f"{OCI}.index.v1+json"
LIST = f"{DOCKER}.distribution.manifest.list.v2+json"
SIF_CONFIG = "application/vnd.sylabs.sif.config.v1+json"
SIF = "application/vnd.sylabs.sif.layer.v1.sif"
STARGZ = "containerd.io/snapshot/stargz/toc.digest"
_REF_NAME = "org.opencontainers.image.ref.name"

Json = dict[str, Any]

#: What Docker made of an empty layer for years: named many times in old images, always with this digest.
DOCKER_EMPTY = base64.b64decode("H4sIAAAJbogA/2IYBaNgFIxYAAgAAP//Lq+17wAEAAA=")
assert hashlib.sha256(DOCKER_EMPTY).hexdigest() == "a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"


def gzip_one(data: bytes) -> bytes:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def gzip_members(data: bytes) -> bytes:
    """Return many gzip members, cut at odd places, an empty one among them."""
    return b"".join(gzip_one(part) for part in [*_cut(data, 70_001), b""])


def zstd_frames(data: bytes) -> bytes:
    """Return many zstd frames with skippable frames before, between and after (RFC 8878, 3.1.2)."""
    pack = zstandard.ZstdCompressor(level=3).compress
    skip = [struct.pack("<II", 0x184D2A50 + n, 7) + b"skipped" for n in (0, 15)]
    return skip[0] + skip[1].join(pack(part) for part in _cut(data, 90_001)) + skip[1]


def estargz(data: bytes) -> bytes:
    """Return what eStargz makes: gzip members, and an empty last one that says where the table of contents is."""
    return gzip_members(data) + _gzip_empty(b"SG" + struct.pack("<H", 22) + b"%016xSTARGZ" % len(data))


def stargz(data: bytes) -> bytes:
    """Return what eStargz' predecessor makes: no subfield around the place."""
    return gzip_members(data) + _gzip_empty(b"%016xSTARGZ" % len(data))


def _gzip_empty(extra: bytes) -> bytes:
    """Return a gzip member of nothing with an extra field (RFC 1952, 2.3.1.1)."""
    return b"\x1f\x8b\x08\x04" + bytes(5) + b"\xff" + struct.pack("<H", len(extra)) + extra + b"\x01\0\0\xff\xff" + bytes(8)


def zstd_chunked(data: bytes) -> bytes:
    """Return what zstd:chunked makes: frames, then skippable ones: the compressed manifest, the headers, a footer of 64 bytes."""
    pack = zstandard.ZstdCompressor(level=3).compress
    extras = [pack(b'{"version":1,"entries":[]}'), pack(b'{"type":"tar-split"}'), struct.pack("<7Q", *range(7)) + b"GNUlInUx"]
    return b"".join([*map(pack, _cut(data, 50_001)), *(struct.pack("<II", 0x184D2A50, len(extra)) + extra for extra in extras)])


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


#: What a packing does, and the end of an OCI media type that tells the truth about it.
PACKINGS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "plain": (bytes, ""),
    "gzip": (gzip_one, "+gzip"),
    "gzip-members": (gzip_members, "+gzip"),
    "zstd": (lambda data: zstandard.ZstdCompressor(level=3).compress(data), "+zstd"),
    "zstd-frames": (zstd_frames, "+zstd"),
    "estargz": (estargz, "+gzip"),
    "stargz": (stargz, "+gzip"),
    "zstd-chunked": (zstd_chunked, "+zstd"),
    "docker-empty": (lambda data: DOCKER_EMPTY, "+gzip"),
}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer: the tar stream, the blob that holds it, and the type that the manifest claims."""

    tar: bytes
    blob: bytes
    media_type: str
    annotations: Mapping[str, str] | None = None

    @property
    def diff_id(self) -> str:
        return _digest(self.tar)


def layer(content: bytes | Iterable[Member], packing: str = "gzip", media_type: str | None = None) -> Layer:
    pack, ending = PACKINGS[packing]
    tar = content if isinstance(content, bytes) else tarball.tar(content)
    return Layer(tar=tar, blob=pack(tar), media_type=media_type or f"{OCI}.layer.v1.tar{ending}")


class Layout:
    """An OCI image layout that grows (image-spec, image-layout.md)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tags: dict[str, Json] = {}
        (root / "blobs/sha256").mkdir(parents=True, exist_ok=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def add(self, data: bytes, media_type: str, **more: object) -> Json:
        """Keep a blob and return its descriptor."""
        digest = _digest(data)
        self.path(digest).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def path(self, digest: str) -> Path:
        return self.root / "blobs" / digest.replace(":", "/")

    def read(self, digest: str) -> Any:
        return json.loads(self.path(digest).read_bytes())

    def image(
        self,
        layers: Iterable[Layer],
        config: Mapping[str, object] | None = None,
        *,
        docker: bool = False,
        platform: str = "linux/amd64",
        diff_ids: list[str] | None = None,
        history: list[Json] | None = None,
    ) -> Json:
        """Keep an image and return the descriptor of its manifest."""
        layers = list(layers)
        os, architecture, variant = [*platform.split("/"), ""][:3]
        document = {
            "created": "2017-10-27T08:00:00Z",
            "architecture": architecture,
            **({"variant": variant} if variant else {}),
            "os": os,
            "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": [item.diff_id for item in layers] if diff_ids is None else diff_ids},
            **({"history": history} if history else {}),
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{DOCKER}.distribution.manifest.v2+json" if docker else f"{OCI}.manifest.v1+json",
            "config": self.add(_json(document), f"{DOCKER}.container.image.v1+json" if docker else f"{OCI}.config.v1+json"),
            "layers": [
                self.add(
                    item.blob,
                    f"{DOCKER}.image.rootfs.diff.tar.gzip" if docker else item.media_type,
                    **({"annotations": dict(item.annotations)} if item.annotations else {}),
                )
                for item in layers
            ],
        }
        return self.add(_json(manifest), str(manifest["mediaType"]))

    def sif(self, data: bytes, media_type: str = SIF, config: str = SIF_CONFIG) -> Json:
        """Keep a SIF as an artifact, as `apptainer push` does, and return the descriptor of its manifest."""
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": self.add(b"{}", config),
            "layers": [self.add(data, media_type, annotations={"org.opencontainers.image.title": "image.sif"})],
        }
        return self.add(_json(manifest), f"{OCI}.manifest.v1+json")

    def schema1(self, layers: Iterable[Layer], config: Mapping[str, object] | None = None, *, signed: bool = False) -> Json:
        """Keep an image as Docker did before 2016, with a step that holds nothing after each layer; return its manifest's descriptor.

        A signed one is kept under the digest of its payload, as registries do, so the file has other bytes than its name says.
        """
        steps: list[tuple[bytes, Json]] = []
        for item in layers:
            steps += [(item.blob, {"container_config": {"Cmd": ["/bin/sh"]}}), (DOCKER_EMPTY, {"throwaway": True})]
        history = [{"id": f"{number:064x}", "created": "2016-02-03T04:05:06Z", **step} for number, (_, step) in enumerate(steps)]
        history[-1] |= {"architecture": "amd64", "os": "linux", "config": dict(config or {})}
        document = {
            "schemaVersion": 1,
            "name": "demo/old",
            "tag": "1",
            "architecture": "amd64",
            "fsLayers": [{"blobSum": self.add(blob, "")["digest"]} for blob, _ in reversed(steps)],
            "history": [{"v1Compatibility": json.dumps(step)} for step in reversed(history)],
        }
        data = json.dumps(document, indent=3).encode()
        if not signed:
            return self.add(data, f"{DOCKER}.distribution.manifest.v1+json")
        entry = self.add(data, f"{DOCKER}.distribution.manifest.v1+prettyjws")
        self.path(entry["digest"]).write_bytes(sign(data))
        return entry

    def index(self, entries: Iterable[tuple[Json, str | None]], media_type: str = INDEX) -> Json:
        """Keep an index of (descriptor, platform) and return its descriptor."""
        manifests = []
        for entry, platform in entries:
            os, architecture, variant = [*(platform or "").split("/"), "", ""][:3]
            named = {"os": os, "architecture": architecture, **({"variant": variant} if variant else {})}
            manifests.append({**entry, **({"platform": named} if platform else {})})
        return self.add(_json({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}), media_type)

    def tag(self, name: str, entry: Json) -> None:
        """Let *name* (repository:tag) mean the manifest or index *entry*."""
        self._tags[name] = entry
        manifests = [{**item, "annotations": {_REF_NAME: tag}} for tag, item in self._tags.items()]
        (self.root / "index.json").write_bytes(_json({"schemaVersion": 2, "manifests": manifests}))

    def tags(self) -> dict[str, Json]:
        return dict(self._tags)

    def children(self, entry: Json) -> tuple[list[Json], list[Json]]:
        """Return the descriptors that a manifest or index names: (manifests, blobs)."""
        document = self.read(entry["digest"])
        return document.get("manifests", []), [document["config"], *document["layers"]] if "layers" in document else []

    def layers(self, name: str) -> list[bytes]:
        """Return the layer blobs of an image that is no index, in order."""
        return [self.path(item["digest"]).read_bytes() for item in self.read(self._tags[name]["digest"])["layers"]]


def sign(data: bytes) -> bytes:
    """Put a signature into a schema 1 manifest, as libtrust does; nobody can check it, and nobody has to."""
    head = data.rstrip()[:-1].rstrip()
    protected = json.dumps({"formatLength": len(head), "formatTail": _base64url(data[len(head) :]), "time": "2016-02-03T04:05:06Z"})
    signature = {"header": {"alg": "ES256"}, "signature": _base64url(b"none"), "protected": _base64url(protected.encode())}
    return head + b',\n   "signatures": ' + json.dumps([signature]).encode() + b"\n}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def push(layout: Layout, base: str, names: Iterable[str] | None = None) -> None:
    """Upload images as they are (distribution-spec, "Pushing"): no tool in between that could convert them."""
    with requests.Session() as session:
        session.trust_env = False  # a proxy has no business with 127.0.0.1
        for name in names or layout.tags():
            repository, _, tag = name.rpartition(":")
            _push_manifest(session, layout, f"{base}/v2/{repository}", layout.tags()[name], tag)


def _push_manifest(session: requests.Session, layout: Layout, base: str, entry: Json, name: str) -> None:
    manifests, blobs = layout.children(entry)
    for child in manifests:
        _push_manifest(session, layout, base, child, child["digest"])
    for blob in blobs:
        if session.head(f"{base}/blobs/{blob['digest']}", timeout=30).status_code == 200:
            continue
        start = session.post(f"{base}/blobs/uploads/", timeout=30)
        start.raise_for_status()
        data = layout.path(blob["digest"]).read_bytes()
        sent = session.put(start.headers["Location"], params={"digest": blob["digest"]}, data=data, timeout=60)
        sent.raise_for_status()
    body = layout.path(entry["digest"]).read_bytes()
    answer = session.put(f"{base}/manifests/{name}", data=body, headers={"Content-Type": entry["mediaType"]}, timeout=30)
    assert answer.ok, f"{base}/manifests/{name}: {answer.status_code} {answer.text}"


# -- the images

#: Words that each break some careless way of quoting.
WORDS = [
    "it's",
    'quo"te',
    "$HOME",
    "`id`",
    "$(id)",
    "back\\slash\\",
    "new\nline",
    "tab\t",
    "ünïcödé ☃",
    "",
    "-n",
    "+e",
    "*",
    "!",
    "{a,b}",
    "}",
    "#no",
    "~",
]
#: Environment of the tiny image: what must arrive in the container, to the byte.
ENVIRONMENT = {
    "PATH": "/opt/tiny/bin:/bin",
    "SIMPLE": "1",
    "EMPTY": "",
    "APOSTROPHE": "it's",
    "QUOTES": 'a "b" c',
    "DOLLAR": "$HOME ${HOME} $$",
    "BACKTICK": "`id` $(id)",
    "BACKSLASH": "a\\b\\\\c\\",
    "NEWLINE": "one\ntwo\n\nthree",
    "UNICODE": "ünïcödé ☃",
    "EQUALS": "a=b=c",
    "BRACE": "}${x:-y}",
    "SPACES": "  two  spaces  ",
    "CONTROL": "\x01\x1b[31m\x7f\tb",
}
LABELS = {
    "maintainer": 'J. "Quote" O\'Neil <j@example.org>',
    "org.opencontainers.image.title": "tiny ☃",
    "newline": "one\ntwo",
    "dollar": "$HOME `id`",
    "com.example.empty": "",
}
TINY: Json = {
    "Entrypoint": ["/bin/show", *WORDS],
    "Cmd": ["default", "com mand"],
    "Env": [f"{name}={value}" for name, value in ENVIRONMENT.items()] + ["not a name=x"],
    "Labels": LABELS,
    "WorkingDir": "/opt",
    "User": "1000:1000",
    "ExposedPorts": {"8080/tcp": {}},
}


def tiny(layout: Layout) -> None:
    """Busybox, in Docker's types: entrypoint, cmd, environment and labels that want careful quoting."""
    layers = [layer(contents.busybox()), layer(contents.tiny())]
    layout.tag("demo/tiny:1", layout.image(layers, TINY, docker=True))
    layout.tag("demo/tiny:Mixed.Case-2", layout.image(layers, {**TINY, "Cmd": ["other"]}))


def runs(layout: Layout) -> None:
    """The four ways of Entrypoint and Cmd (spec: the table of runscripts), and an Entrypoint that takes away the one below."""
    layers = [layer(contents.busybox()), layer(contents.tiny())]
    entry, cmd = {"Entrypoint": ["/bin/show", "e 1"]}, {"Cmd": ["/bin/show", "c 1"]}
    layout.tag("demo/run:entrypoint", layout.image(layers, entry))
    layout.tag("demo/run:cmd", layout.image(layers, cmd))
    layout.tag("demo/run:both", layout.image(layers, {**entry, "Cmd": ["c 1", "c2"]}))
    layout.tag("demo/run:neither", layout.image(layers, {"Cmd": None, "Entrypoint": []}))
    layout.tag("demo/run:taken-away", layout.image(layers, {"Entrypoint": [""], "Cmd": ["/bin/show", "c 1", ""]}))
    layout.tag("demo/run:shell-form", layout.image(layers, {"Cmd": ["/bin/sh", "-c", 'echo "shell $((1 + 1))"']}))


def static(layout: Layout) -> None:
    """One static binary and no shell anywhere."""
    config = {"Entrypoint": ["/busybox", "printf", "<%s>\\n", "it's", "$HOME"], "Env": ["WITH=a `tick` and 'quote'"], "Cmd": ["default"]}
    layout.tag("demo/static:1", layout.image([layer(contents.static())], config))


def tricky(layout: Layout) -> None:
    """Every case of applying layers, and the same in every compression, some with types that lie."""
    streams = contents.tricky()
    layout.tag("demo/tricky:1", layout.image([layer(stream) for stream in streams], {"Cmd": ["/bin/sh"]}))
    packings = [("zstd-frames", ""), ("gzip-members", ""), ("plain", "+gzip"), ("zstd", "+gzip"), ("zstd-frames", "+zstd")]
    honest = [layer(stream, packing) for stream, (packing, _) in zip(streams, packings, strict=True)]
    layout.tag("demo/tricky-packed:1", layout.image(honest, {"Cmd": ["/bin/sh"]}))
    lying = [layer(stream, packing, f"{OCI}.layer.v1.tar{lie}") for stream, (packing, lie) in zip(streams, packings, strict=True)]
    layout.tag("demo/tricky-mislabelled:1", layout.image(lying, {"Cmd": ["/bin/sh"]}))


def odd(layout: Layout) -> None:
    """What umoci can't judge: global headers, old GNU sparse files, contiguous files, aufs' side folder."""
    layout.tag("demo/odd:1", layout.image([layer(stream) for stream in contents.odd()], {"Cmd": ["/bin/sh"]}))


def sizes(layout: Layout) -> None:
    """Files around the block size, blocks of zeros, data that won't shrink, one big directory."""
    layout.tag("demo/sizes:1", layout.image([layer(contents.sizes()), layer(contents.wide())], {"Cmd": ["/bin/sh"]}))


def rich(layout: Layout) -> None:
    """Every case of applying layers and files of all sizes, in one: built in every variant, pulled by none of the big runs."""
    layers = [layer(stream) for stream in [*contents.tricky(), tarball.tar(contents.sizes())]]
    layout.tag("judged/rich:1", layout.image(layers, {"Cmd": ["/bin/sh"]}))


def empty(layout: Layout) -> None:
    """Layers without content, many times the same, in between others; and an image of nothing else."""
    nothing = layer(tarball.END, "docker-empty")
    one, two = layer([tarball.file(b"one", b"1")]), layer([tarball.file(b"two", b"2")])
    layout.tag(
        "demo/empty:1", layout.image([nothing, one, nothing, nothing, two, one, nothing, layer(b"")], {"Cmd": ["/one"]}, docker=True)
    )
    layout.tag("demo/nothing:1", layout.image([nothing], {}, docker=True))


def lazy_members() -> list[Member]:
    """Return a layer with what eStargz adds at its root, and with files of the same names elsewhere."""
    return [
        tarball.file(b".no.prefetch.landmark", b"\x0f"),
        tarball.directory(b"data"),
        tarball.file(b"data/stargz.index.json", b"a file of the image"),
        tarball.file(b"data/.prefetch.landmark", b"another"),
        tarball.file(b"stargz.index.json", b'{"version":1,"entries":[]}'),
    ]


def lazy(layout: Layout) -> None:
    """Layers for lazy loading: eStargz and zstd:chunked, with the annotation and without; and an ordinary one with such names."""
    for packing in ("estargz", "stargz", "gzip"):
        layout.tag(f"demo/lazy:{packing}", layout.image([layer(lazy_members(), packing)], {"Cmd": ["/data"]}))
    chunked = layer(lazy_members(), "zstd-chunked")
    layout.tag("demo/lazy:zstd-chunked", layout.image([chunked], {"Cmd": ["/data"]}))
    layout.tag("demo/lazy:annotated", layout.image([replace(chunked, annotations={STARGZ: _digest(b"toc")})], {"Cmd": ["/data"]}))


def multi(layout: Layout) -> None:
    """An index with attestations before, nested indexes, and variants; each image says what it is."""

    def named(platform: str) -> Json:
        return layout.image([layer([tarball.file(b"platform", platform.encode())])], {"Cmd": ["/platform"]}, platform=platform)

    platforms = ["linux/arm64/v8", "linux/arm/v6", "linux/arm/v7", "linux/amd64", "linux/s390x"]
    entries: list[tuple[Json, str | None]] = [(named(platform), platform) for platform in platforms]
    attestation = layout.image([layer([tarball.file(b"attestation", b"no image")])], platform="unknown/unknown")
    layout.tag("demo/multi:1", layout.index([(attestation, "unknown/unknown"), *entries]))
    layout.tag(
        "demo/multi:list", layout.index([(layout.image([layer(contents.busybox())], docker=True), "linux/amd64"), *entries[:1]], LIST)
    )
    inner = layout.index(entries[2:])
    layout.tag("demo/nested:1", layout.index([(layout.index(entries[:2]), None), (layout.index([(inner, None)]), None)]))


def broken(layout: Layout) -> None:
    """What must be refused: an artifact that is no image, a wrong diff_id, an archive that is none."""
    chart = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": layout.add(b"{}", "application/vnd.cncf.helm.config.v1+json"),
        "layers": [layout.add(gzip_one(b"chart"), "application/vnd.cncf.helm.chart.content.v1.tar+gzip")],
    }
    layout.tag("broken/chart:1", layout.add(_json(chart), f"{OCI}.manifest.v1+json"))
    one = layer([tarball.file(b"one", b"1")])
    layout.tag("broken/diff-id:1", layout.image([one], diff_ids=[_digest(b"other")]))
    layout.tag("broken/count:1", layout.image([one], diff_ids=[one.diff_id] * 2))
    layout.tag("broken/tar:1", layout.image([layer(random.Random(1).randbytes(3000))]))
    cut = layer([tarball.file(b"cut", b"x" * 5000)])
    short = Layer(tar=cut.tar[:2048], blob=gzip_one(cut.tar[:2048]), media_type=cut.media_type)
    layout.tag("broken/cut:1", layout.image([short]))
    damaged = gzip.decompress(cut.blob) and cut.blob[:-8] + bytes(8)
    layout.tag("broken/gzip:1", layout.image([Layer(tar=cut.tar, blob=damaged, media_type=cut.media_type)]))


IMAGES: tuple[Callable[[Layout], None], ...] = (tiny, runs, static, tricky, odd, sizes, rich, empty, lazy, multi, broken)


def build(root: Path) -> Layout:
    """Write all images into an OCI image layout."""
    layout = Layout(root)
    for make in IMAGES:
        make(layout)
    return layout


def _digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _json(document: object) -> bytes:
    return json.dumps(document, indent=1).encode()


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    made = build(folder)
    if len(sys.argv) > 2:
        push(made, sys.argv[2])
    print("\n".join(made.tags()))
