"""A working folder, a store and a catalog of an earlier version are taken as they are: nothing is made again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from sregistry.errors import RegistryError
from sregistry.registry.server import Server, serve
from sregistry.store.store import Store
from tests.support.registry import running
from tests.support.snakemake import NOTHING, Run, command, inherited, snakemake

#: What before/README.md tells of.
SITE = Path(__file__).with_name("before") / "site.tar.xz"
ROOT = b"/@ROOT@".ljust(160, b"@")
HOST = ("127.77.0.1", 5077)


@dataclass
class Site:
    """What was left, in a folder of the test."""

    root: Path
    log: StringIO

    @property
    def environ(self) -> dict[str, str]:
        return {
            "SREGISTRY_OCI_NOHTTPS": "yes",
            "SREGISTRY_STORAGE": str(self.root / "images"),
            "SREGISTRY_DATABASE": str(self.root / "database"),
            "SINGULARITY_CACHEDIR": str(self.root / "cache"),
        }

    def run(self, *flags: str, config: tuple[str, ...] = ()) -> Run:
        return snakemake(command("--configfile", "batch.yaml", *flags, config=config), self.root / "work", self.environ)

    def sregistry(self, *words: str) -> str:
        verb = [sys.executable, "-m", "sregistry.cli", "--quiet", *words]
        return subprocess.run(verb, env={**inherited(), **self.environ}, stdout=subprocess.PIPE, text=True, check=True).stdout

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Return time and content of what was made, but for what tells of the last run; use of the store leaves its mark as a time."""
        return {
            str(path.relative_to(self.root)): (0 if folder.startswith("cache") else path.stat().st_mtime_ns, path.read_bytes())
            for folder in ("images", "cache/docker/blobs", "cache/docker/exploded", "work/results", "database")
            for path in sorted((self.root / folder).rglob("*"))
            if path.is_file() and path.name != "summary.json"
        }


def _server(layout: Path, log: StringIO) -> Server:
    """Listen at the address that the images came from, when no other run of this test does any more."""
    while True:
        try:
            return serve(Store(layout), *HOST, log=log)
        except RegistryError:
            time.sleep(0.2)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    root = tmp_path / "r".ljust(len(ROOT) - len(str(tmp_path)) - 1, "r")
    root.mkdir()
    times = {}
    with tarfile.open(SITE) as tar:
        for member in tar:
            path = root / member.name
            times[path] = int(member.pax_headers["SREGISTRY.mtime_ns"])  # receipts have them to the nanosecond
            if member.isreg():
                content = tar.extractfile(member)
                assert content is not None
                data = content.read().replace(ROOT, str(root).encode())
                if path.name == "sandbox.index":  # ends with its digest
                    data = data[:-32] + hashlib.sha256(data[:-32]).digest()
                if path.name in ("image.json", "record.json"):  # a sandbox is known by the number of its folder
                    data = re.sub(rb'"inode": \d+', b'"inode": %d' % (root / "images/demo-box:1").stat().st_ino, data)
                path.write_bytes(data)
                path.chmod(member.mode)
            else:
                tar.extract(member, root, filter="fully_trusted")
    for path, moment in times.items():
        os.utime(path, ns=(moment, moment), follow_symlinks=False)
    log = StringIO()
    with running(_server(root / "layout", log)):
        yield Site(root, log)


def test_nothing_is_made_again(site: Site) -> None:
    before = site.files()
    for flags in (["-n"], []):
        run = site.run(*flags)
        assert (run.code, run.rules) == (0, []), run.text
        assert NOTHING in run.text
    assert site.files() == before
    assert site.log.getvalue() == ""


def test_verbs_read_the_catalog(site: Site) -> None:
    records = {record["uri"]: record for record in json.loads(site.sregistry("images", "--json"))}
    assert sorted(records) == ["demo/box:1", "demo/many:1", "demo/many:2", "demo/one:1"]
    for uri, record in records.items():
        assert site.sregistry("get", f"127.77.0.1:5077/{uri}") == f"{record['image']}\n"
        assert Path(record["image"]).exists()
        assert record["digest"] in site.sregistry("inspect", f"127.77.0.1:5077/{uri}")
    assert "0 findings" in site.sregistry("store", "check", "--dry-run")


def test_what_is_gone_comes_back_from_what_is_there(site: Site) -> None:
    """The image alone is built, of layers exploded then, to the same bytes."""
    image = site.root / "images/demo-one:1.sif"
    made = image.read_bytes()
    image.unlink()
    run = site.run()
    assert (run.code, run.rules) == (0, ["image", "catalog"]), run.text
    assert image.read_bytes() == made
    assert site.log.getvalue() == ""


def test_its_lock_file_is_taken(site: Site) -> None:
    """It names the same images, so that of their own set nothing but the gathering is new."""
    (site.root / "work/results/lock.yaml").rename(site.root / "work/lock.yaml")
    run = snakemake(command(config=["locked=lock.yaml"]), site.root / "work", site.environ)
    assert (run.code, run.rules) == (0, ["manifests"]), run.text
    assert site.log.getvalue() == ""
