"""The images: recipes of layers, the layers made of them and kept, and the images of those.

```
Recipe ─▶ members, sorted ─▶ tar ─▶ gzip -6 ─▶ blobs/sha256/… of an OCI image layout
                              └▶ diff_id, sizes    layers/<name>-<key>.json
```

The large image has the make-up of NVIDIA's: an operating system, compilers, headers, Python, numerics,
a few huge libraries, thousands of small files, and two small layers that each month's release changes.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import packages
from benchmarks.packages import SITE, BenchmarkError, Member

OCI = "application/vnd.oci.image"
Json = dict[str, Any]
Say = Callable[[str], None]

#: Part of a layer's key; raised when the same recipe gives other bytes.
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a layer holds.

    Args:
        base: a minimal Debian.
        debs: Debian packages.
        wheels: requirements, pinned.
        removes: names that lower layers have and the image has not: a whiteout each.
        replaces: folders of which nothing below is left: an opaque whiteout each.
        examples: number of small made-up files, as a workspace has them.
        release: changes the made-up files.
    """

    base: bool = False
    debs: tuple[str, ...] = ()
    wheels: tuple[str, ...] = ()
    removes: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    examples: int = 0
    release: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """A layer that is made: `size` of the blob and `tar` of the stream in bytes, `entries` of the tar."""

    name: str
    digest: str
    size: int
    diff_id: str
    tar: int
    entries: int


def _upgrade(setuptools: str) -> Recipe:
    """An upgrade as `apt-get upgrade`, `pip install --upgrade` and `rm -r` leave it in a layer."""
    return Recipe(
        debs=("tzdata", "libpcre2-8-0", "perl-base"),
        wheels=(f"setuptools=={setuptools}",),
        removes=("usr/share/doc/libpython3.11-stdlib", "usr/share/man/man1", "usr/share/locale/de"),
        replaces=(f"{SITE}/setuptools",),
    )


RECIPES: dict[str, Recipe] = {
    "base": Recipe(base=True),
    "toolchain": Recipe(
        debs=(
            *("gcc-12", "cpp-12", "g++-12", "libgcc-12-dev", "libstdc++-12-dev", "libc6-dev", "linux-libc-dev"),
            *("binutils-x86-64-linux-gnu", "cmake", "cmake-data", "git", "gdb"),
        )
    ),
    "python": Recipe(
        debs=(
            *("libpython3.11-minimal", "libpython3.11-stdlib", "libpython3.11-dev", "python3.11-minimal"),
            *("perl-modules-5.36", "vim-runtime", "locales", "libopenblas0-pthread", "libopenmpi-dev"),
        )
    ),
    "sources": Recipe(debs=("libboost1.74-dev", "rust-src")),
    "science": Recipe(wheels=("numpy==2.4.6", "scipy==1.17.1", "pandas==3.1.1", "matplotlib==3.11.2", "setuptools==84.2.1")),
    # What PyPI itself has under this version is built for CUDA and larger than the one of a CPU index.
    "torch": Recipe(wheels=("torch==2.13.0", "torchvision==0.29.1", "networkx==3.6.1", "sympy==1.14.0")),
    "triton": Recipe(wheels=("triton==3.9.0",)),
    "data": Recipe(wheels=("pyarrow==26.0.1", "opencv-python-headless==5.0.0.93", "scikit-learn==1.9.1")),
    "boosting": Recipe(wheels=("xgboost==3.2.0",)),
    "notebooks": Recipe(
        wheels=("transformers==5.23.0", "jupyterlab==4.6.6", "notebook==7.6.5", "plotly==7.1.0", "bokeh==3.9.2", "botocore==1.44.5")
    ),
    "upgrade-1": _upgrade("80.9.0"),
    "upgrade-2": _upgrade("82.0.0"),
    "workspace-1": Recipe(examples=1200, release=1),
    "workspace-2": Recipe(examples=1200, release=2),
    # Of the small image.
    "python-minimal": Recipe(debs=("libpython3.11-minimal", "libpython3.11-stdlib", "python3.11-minimal")),
    "numpy": Recipe(wheels=("numpy==2.4.6", "setuptools==84.2.1")),
    # Of the batches.
    "fortran": Recipe(debs=("gfortran-12",)),
    "hdf5": Recipe(debs=("libhdf5-dev", "libeigen3-dev")),
    "onnx": Recipe(wheels=("onnx==1.23.2",)),
    "sympy": Recipe(wheels=("sympy==1.14.0", "networkx==3.6.1")),
    "jax": Recipe(wheels=("jax==0.10.2",)),
    "plotly": Recipe(wheels=("plotly==7.1.0",)),
    "bokeh": Recipe(wheels=("bokeh==3.9.2",)),
    "transformers": Recipe(wheels=("transformers==5.23.0",)),
    "jupyterlab": Recipe(wheels=("jupyterlab==4.6.6",)),
    "ruby": Recipe(debs=("libruby3.1",)),
    "fonts": Recipe(debs=("fonts-noto-core",)),
    "pip": Recipe(wheels=("pip==26.3",)),
}

_Names = tuple[str, ...]
_COMPILED, _SCIENTIFIC, _SCRIPTED = ("base", "toolchain"), ("base", "python", "science"), ("base", "python")
_BIG: _Names = ("base", "toolchain", "python", "sources", "science", "torch", "triton", "data", "boosting", "notebooks")
_SMALL: _Names = ("base", "python-minimal", "numpy")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """The images of a benchmark: reference without registry → names of layers."""

    first: str
    second: str
    batch: tuple[str, ...]
    images: Mapping[str, tuple[str, ...]]
    #: The layer on which levels are compared.
    sample: str


def suite(*, quick: bool) -> Suite:
    """Return the small or the large suite. The small one's batch is of four images, the other's of ten."""
    bases: Sequence[_Names]
    tops: Sequence[_Names]
    if quick:
        name, sample, lower = "small", "numpy", _SMALL
        bases = [_SMALL[:1]] * 2 + [_SMALL] * 2
        tops = [("hdf5",), ("ruby",), ("jax",), ("sympy", "pip")]
    else:
        name, sample, lower = "pytorch", "science", _BIG
        bases = [_COMPILED] * 3 + [_SCIENTIFIC] * 4 + [_SCRIPTED] * 3
        tops = [
            ("fortran",),
            ("hdf5",),
            ("ruby",),
            ("onnx",),
            ("sympy", "jax"),
            ("plotly",),
            ("bokeh",),
            ("transformers",),
            ("fonts",),
            ("jupyterlab", "pip"),
        ]
    releases = {f"benchmark/{name}:{n}": (*lower, f"upgrade-{n}", f"workspace-{n}") for n in (1, 2)}
    batch = {f"benchmark/{name}-{n}:1": (*low, *top) for n, (low, top) in enumerate(zip(bases, tops, strict=True))}
    first, second = releases
    return Suite(first=first, second=second, batch=tuple(batch), images={**releases, **batch}, sample=sample)


# -- layers


def members(recipe: Recipe, cache: Path, space: Path, opened: ExitStack) -> Iterator[Member]:
    """Yield what the recipe names; *space* and *opened* must last until all is read."""
    if recipe.base:
        yield from packages.tar_members(packages.base(cache / "base"), merge=False)
    for name in recipe.debs:
        yield from packages.deb_members(packages.deb(name, cache / "debs"), space)
    for name in recipe.wheels:
        yield from packages.wheel_members(packages.wheel(name, cache / "wheels"), opened)
    # Whiteouts (image-spec, layer.md).
    for name in recipe.removes:
        folder, _, last = name.rpartition("/")
        yield packages.text(f"{folder}/.wh.{last}", b"")
    for name in recipe.replaces:
        yield packages.text(f"{name}/.wh..wh..opq", b"")
    yield from _examples(recipe)


def _examples(recipe: Recipe) -> Iterator[Member]:
    """Yield the files of a workspace: short programs of few words, other ones in each release."""
    words = ["import", "model", "train", "batch", "self", "return", "for", "in", "range", "=", "(", ")", ":", "torch.nn", "loss", "\n    "]
    for number in range(recipe.examples):
        draw = random.Random(recipe.release * 100_000 + number)  # noqa: S311 -- the same text each time
        body = " ".join(
            draw.choice(words) + (str(draw.randrange(10_000)) if draw.random() < 0.2 else "") for _ in range(draw.randrange(20, 1200))
        )
        yield packages.text(f"workspace/examples/{number // 100:02}/example_{number}.py", body.encode())


def arrange(found: Iterator[Member]) -> list[Member]:
    """Return the members in the order of the tar: sorted, parents first, hard links last; later ones win."""
    named: dict[str, Member] = {}
    for member in found:
        for folder in _parents(member.info.name):
            named.setdefault(folder, Member(packages.fixed(folder, tarfile.DIRTYPE, mode=0o755)))
        named[member.info.name] = member
    return sorted(named.values(), key=lambda member: (member.info.islnk(), member.info.name))


def _parents(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


class _Counted:
    """Passes a stream on, and knows its size and digest."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write, self._hash, self.size = write, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self._write(data)
        self._hash.update(data)
        self.size += len(data)
        return len(data)

    def tell(self) -> int:
        return self.size

    @property
    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


class Layout:
    """An OCI image layout in the cache, and what is known of its layers (image-spec, image-layout.md)."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.blobs = cache / "blobs/sha256"
        self.blobs.mkdir(parents=True, exist_ok=True)
        (cache / "layers").mkdir(exist_ok=True)
        (cache / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def path(self, digest: str) -> Path:
        return self.blobs / digest.removeprefix("sha256:")

    def layer(self, name: str, say: Say) -> Layer:
        """Return the layer of a recipe; it is made if it isn't there yet."""
        recipe = RECIPES[name]
        key = hashlib.sha256(json.dumps([FORMAT, asdict(recipe)]).encode()).hexdigest()[:12]
        known = self.cache / "layers" / f"{name}-{key}.json"
        if known.exists():
            layer = Layer(**json.loads(known.read_text()))
            if self.path(layer.digest).exists():
                return layer
        say(f"making layer {name}")
        layer = self._make(name, recipe)
        known.with_suffix(".new").write_text(json.dumps(asdict(layer)))
        known.with_suffix(".new").rename(known)
        return layer

    def _make(self, name: str, recipe: Recipe) -> Layer:
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self.cache) as folder, ExitStack() as opened:
            space = Path(folder)
            content = arrange(members(recipe, self.cache, space, opened))
            blob = space / "blob"
            stream = _pack(content, blob)
            digest = _digest(blob)
            blob.rename(self.path(digest))
        size = self.path(digest).stat().st_size
        return Layer(name=name, digest=digest, size=size, diff_id=stream.digest, tar=stream.size, entries=len(content))

    def add(self, data: bytes, media_type: str) -> Json:
        """Keep a document and return its descriptor."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.path(digest).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data)}

    def image(self, layers: list[Layer], name: str) -> Json:
        """Keep an image of *layers* and return the descriptor of its manifest."""
        config = {
            "created": "2024-01-01T00:00:00Z",
            "architecture": "amd64",
            "os": "linux",
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", f"BENCHMARK_IMAGE={name}"],
                "Cmd": ["/bin/bash"],
                "Labels": {"org.opencontainers.image.title": name},
                "WorkingDir": "/workspace",
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{OCI}.manifest.v1+json",
            "config": self.add(_json(config), f"{OCI}.config.v1+json"),
            "layers": [{"mediaType": f"{OCI}.layer.v1.tar+gzip", "digest": layer.digest, "size": layer.size} for layer in layers],
        }
        return self.add(_json(manifest), f"{OCI}.manifest.v1+json")


def _pack(content: list[Member], blob: Path) -> _Counted:
    """Write the tar of *content*, compressed as most builders do, and return its stream's size and digest."""
    # A name or a time in the header would make equal content differ.
    command = ["pigz", "-6", "-n"] if shutil.which("pigz") else ["gzip", "-6", "-n"]
    with blob.open("wb") as file, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=file) as packer:
        assert packer.stdin is not None
        stream = _Counted(packer.stdin.write)
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT, copybufsize=1 << 20) as tar:  # type: ignore[call-overload]
            for member in content:
                if member.open is None:
                    tar.addfile(member.info)
                else:
                    with member.open() as file_:
                        tar.addfile(member.info, file_)
    if packer.returncode:
        raise BenchmarkError(f"{command[0]} failed with {packer.returncode}")
    return stream


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _json(document: object) -> bytes:
    return json.dumps(document, indent=1).encode()


# -- images


@dataclass(frozen=True, kw_only=True)
class Made:
    """A suite that is made: its layers by name, and the descriptor of each image's manifest."""

    suite: Suite
    layout: Layout
    layers: Mapping[str, Layer] = field(repr=False)
    manifests: Mapping[str, Json] = field(repr=False)

    def of(self, image: str) -> list[Layer]:
        return [self.layers[name] for name in self.suite.images[image]]


def make(cache: Path, wanted: Suite, say: Say) -> Made:
    """Make what the cache lacks of a suite. Raises BenchmarkError if a client or a package is missing."""
    layout = Layout(cache)
    names = dict.fromkeys(name for image in wanted.images.values() for name in image)
    layers = {name: layout.layer(name, say) for name in names}
    manifests = {image: layout.image([layers[name] for name in content], image) for image, content in wanted.images.items()}
    return Made(suite=wanted, layout=layout, layers=layers, manifests=manifests)
