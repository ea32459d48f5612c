"""A working folder, a registry with one image, and folders for what is made: where whole runs of the workflow are tested."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from sregistry.catalog.catalog import Catalog
from tests.support.images import Layout, layer
from tests.support.registry import serving
from tests.support.snakemake import Run, command, settings, snakemake
from tests.support.tarball import directory, file


@dataclass
class Place:
    """A working directory, a registry, and folders for what is made."""

    root: Path
    layout: Layout
    host: str
    log: StringIO
    environ: dict[str, str] = field(default_factory=dict)

    def run(self, *config: str, flags: tuple[str, ...] = (), **environ: str) -> Run:
        """Run ``snakemake FLAGS --config CONFIG``."""
        return snakemake(command(*flags, config=config), self.work, {**self.environ, **environ})

    @property
    def work(self) -> Path:
        return self.root / "work dir"

    @property
    def images(self) -> Path:
        return self.root / "images"

    def names(self) -> list[str]:
        return sorted(path.name for path in self.images.iterdir())

    def uris(self) -> list[str]:
        return [record.uri for record in Catalog(self.root / "database").records()]

    def asked(self, kind: str) -> list[str]:
        """Return what the registry was asked for, and forget it."""
        found: list[str] = re.findall(rf'"GET /v2/\S+/{kind}/(\S+) ', self.log.getvalue())
        self.log.truncate(0)
        self.log.seek(0)
        return found


@contextlib.contextmanager
def opened(root: Path) -> Iterator[Place]:
    """Have a place in *root*, whose registry has the image demo/tiny:1."""
    layout = Layout(root / "layout")
    layout.tag("demo/tiny:1", layout.image([layer([directory(b"etc"), file(b"etc/name", b"tiny")])], {"Cmd": ["/bin/true"]}))
    log = StringIO()
    with serving(layout, log=log) as server:
        place = Place(root, layout, server.address, log, settings(root, server.address))
        place.work.mkdir()
        yield place
