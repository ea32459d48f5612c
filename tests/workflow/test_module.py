"""Our rules in another workflow, as a module: its own config, folders, prefix and rules, and ours beside them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.images import Layout, layer
from tests.support.registry import serving
from tests.support.snakemake import command, inherited
from tests.support.tarball import directory, file

TOP = Path(__file__).resolve().parents[2]

#: What README.md shows, but for where the module is.
SNAKEFILE = """\
configfile: "config/config.yaml"


module sregistry:
    snakefile:
        {snakefile}
    config:
        config["containers"]
{prefix}

use rule * from sregistry as sregistry_*


rule all:
    default_target: True
    input:
        "listing.txt",


rule listing:
    input:
        image=sregistry.receipt_of("demo/tiny:1"),
    output:
        "listing.txt",
    params:
        image=sregistry.file_of("demo/tiny:1"),
    shell:
        "wc -c < {{params.image:q}} > {{output}}; command -v python3 >> {{output}}"
"""


@dataclass
class Other:
    """Another workflow, and a registry."""

    root: Path
    layout: Layout
    host: str
    environ: dict[str, str] = field(default_factory=dict)

    def write(self, snakefile: str = f'"{TOP}/workflow/Snakefile"', prefix: str = "", containers: str = "{uri: demo/tiny:1}") -> None:
        (self.root / "workflow").mkdir(exist_ok=True)
        (self.root / "config").mkdir(exist_ok=True)
        text = SNAKEFILE.format(snakefile=snakefile, prefix=f'    prefix:\n        "{prefix}"\n' if prefix else "")
        (self.root / "workflow/Snakefile").write_text(text)
        (self.root / "config/config.yaml").write_text(f"samples: [a, b]\ncontainers: {containers}\n")

    def run(self, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
        words = command("--cores", "2", *options, snakefile=None)
        done = subprocess.run(
            words, cwd=self.root, env={**inherited(), **self.environ, **environ}, capture_output=True, text=True, check=False
        )
        assert "Traceback" not in done.stderr
        return done

    @property
    def image(self) -> Path:
        return self.root / "images/demo-tiny:1.sif"


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Other]:
    layout = Layout(tmp_path / "layout")
    layout.tag("demo/tiny:1", layout.image([layer([directory(b"etc"), file(b"etc/name", b"tiny")])], {"Cmd": ["/bin/true"]}))
    with serving(layout) as server:
        other = Other(tmp_path / "other", layout, server.address)
        other.root.mkdir()
        other.environ = {
            "SREGISTRY_NVIDIA_BASE": server.address,
            "SREGISTRY_NVIDIA_NOHTTPS": "yes",
            "SREGISTRY_STORAGE": str(other.root / "images"),
            "SREGISTRY_DATABASE": str(tmp_path / "database"),
            "SINGULARITY_CACHEDIR": str(tmp_path / "cache"),
            "XDG_CACHE_HOME": str(tmp_path / "sources"),
        }
        yield other


@pytest.mark.parametrize("prefix", ["", "containers"], ids=["plain", "prefix"])
def test_an_image_is_the_input_of_another_rule(other: Other, prefix: str) -> None:
    other.write(prefix=prefix)
    done = other.run()
    assert done.returncode == 0, done.stderr
    size, python = (other.root / "listing.txt").read_text().split()
    assert int(size) == other.image.stat().st_size
    assert python == shutil.which("python3")  # the other workflow's rules find the programs that they found before
    assert [path.name for path in (other.root / prefix / "results").iterdir() if path.name.startswith("demo-tiny")]
    assert (other.root / "results").exists() == (prefix == "")
    assert "Nothing to be done" in other.run().stderr

    other.image.unlink()
    (other.root / "listing.txt").unlink()
    again = other.run()
    assert again.returncode == 0, again.stderr
    assert other.image.is_file()
    assert "rule listing" in again.stderr and "rule sregistry_layer" not in again.stderr


def test_another_image_of_that_name_is_noticed(other: Other) -> None:
    other.write(prefix="containers", containers="{uri: demo/tiny:1, refresh: yes}")
    assert other.run().returncode == 0
    before = (other.root / "listing.txt").read_text()
    other.layout.tag("demo/tiny:1", other.layout.image([layer([file(b"new", os.urandom(100_000))])], {"Cmd": ["/bin/true"]}))
    done = other.run()
    assert done.returncode == 0, done.stderr
    assert (other.root / "listing.txt").read_text() != before


def test_all_images_without_the_rules_of_the_other(other: Other) -> None:
    other.write()
    done = other.run("sregistry_all")
    assert done.returncode == 0, done.stderr
    assert other.image.is_file() and not (other.root / "listing.txt").exists()
    assert list((other.root / "results").glob("demo-tiny*/record.json"))


@pytest.mark.parametrize(
    ("containers", "error"),
    [
        ("{uri: demo/tiny:1, sample: a}", "error: config: unknown key 'sample'; known keys: uri, images,"),
        ("{uri: demo/other:1}", "error: 'demo/tiny:1' means no image of the config; name a file: demo-other:1.sif"),
        (
            "{images: [demo/tiny:1, {uri: demo/tiny:1, format: simg}]}",
            "error: 'demo/tiny:1' means several images of the config; name a file: demo-tiny:1.sif, demo-tiny:1.simg",
        ),
        ("{}", "error: 'demo/tiny:1' means no image of the config; name a file: none"),
    ],
    ids=["key", "another image", "two images", "no image"],
)
def test_a_mistake_in_its_config_is_one_line(other: Other, containers: str, error: str) -> None:
    other.write(containers=containers)
    done = other.run()
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and lines[0].startswith(error), done.stderr


def test_rules_from_a_repository(other: Other, tmp_path: Path) -> None:
    """As `github(…)` does: single files of a commit come into a cache, and no folder around them."""
    clone = tmp_path / "clone"
    shutil.copytree(TOP / "workflow", clone / "workflow", ignore=shutil.ignore_patterns(".snakemake", "__pycache__"))
    git = ["git", "-C", str(clone), "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message=rules"], ["tag", "v1"]):
        subprocess.run([*git, *words], check=True)
    other.write(snakefile=f'"git+file://{clone}/workflow/Snakefile@v1"')
    done = other.run()
    assert done.returncode == 0, done.stderr
    assert other.image.is_file()
    assert "Nothing to be done" in other.run().stderr
