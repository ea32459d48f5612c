"""The benchmark's parts: recipes and layers, the measurement, the report. Nothing here is timed."""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
import tarfile
import zipfile
from contextlib import ExitStack
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks import batches, catalog, images, measure, packages, peers, report, scale
from benchmarks.batches import Batch, Case, Usage
from benchmarks.images import RECIPES, Recipe
from benchmarks.measure import Cost
from benchmarks.packages import SITE, BenchmarkError, Member
from benchmarks.report import Content, Results, Run
from benchmarks.scale import Scaled
from sregistry.catalog.catalog import Catalog
from sregistry.oci.documents import Manifest
from sregistry.oci.parse import parse_manifest
from sregistry.store.store import Store

# -- recipes


@pytest.mark.parametrize("quick", [True, False], ids=["quick", "large"])
def test_suite_has_a_next_release_and_a_batch(quick: bool) -> None:
    suite = images.suite(quick=quick)
    first, second = suite.images[suite.first], suite.images[suite.second]
    assert first[:-2] == second[:-2]
    assert first[-2] != second[-2] and first[-1] != second[-1]
    assert {name for layers in suite.images.values() for name in layers} <= RECIPES.keys()
    assert suite.sample in first
    for image in suite.batch:
        shared = [other for other in suite.batch if other != image and suite.images[other][0] == suite.images[image][0]]
        assert shared, f"{image} has a base of its own"


def test_large_suite_has_a_dozen_layers_and_ten_images() -> None:
    suite = images.suite(quick=False)
    assert len(suite.images[suite.first]) == 12
    assert len(suite.batch) == 10


def test_wheels_are_pinned() -> None:
    assert [wheel for recipe in RECIPES.values() for wheel in recipe.wheels if "==" not in wheel] == []


def made(recipe: Recipe, folder: Path) -> list[Member]:
    with ExitStack() as opened:
        return images.arrange(images.members(recipe, folder, folder, opened))


def test_members_are_whiteouts_and_examples(tmp_path: Path) -> None:
    recipe = Recipe(removes=("usr/share/man",), replaces=("opt/lib",), examples=2, release=1)
    assert [member.info.name for member in made(recipe, tmp_path)] == [
        "opt",
        "opt/lib",
        "opt/lib/.wh..wh..opq",
        "usr",
        "usr/share",
        "usr/share/.wh.man",
        "workspace",
        "workspace/examples",
        "workspace/examples/00",
        "workspace/examples/00/example_0.py",
        "workspace/examples/00/example_1.py",
    ]


def test_equal_recipes_give_equal_layers(tmp_path: Path) -> None:
    recipe = Recipe(examples=30, release=1)
    one, two, other = (
        images._pack(made(r, tmp_path), tmp_path / name)
        for r, name in ((recipe, "one"), (recipe, "two"), (replace(recipe, release=2), "other"))
    )
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert one.digest == two.digest != other.digest
    with tarfile.open(tmp_path / "one", "r:gz") as tar:
        assert {(item.mtime, item.uid, item.gid, item.uname) for item in tar} == {(packages.TIME, 0, 0, "")}


def test_later_members_win_and_hard_links_follow_their_target() -> None:
    link = Member(packages.fixed("a/link", tarfile.LNKTYPE, mode=0o644, link="b/file"))
    found = images.arrange(iter([packages.text("b/file", b"old"), link, packages.text("b/file", b"newer")]))
    assert [(member.info.name, member.info.size) for member in found] == [("a", 0), ("b", 0), ("b/file", 5), ("a/link", 0)]


def test_tar_members_have_merged_names(tmp_path: Path) -> None:
    path = tmp_path / "data.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("./lib/x/one", "./usr/bin/two", "./var/log/left-out"):
            item = tarfile.TarInfo(name)
            item.size, item.uid, item.mtime = 3, 7, 9
            tar.addfile(item, io.BytesIO(name[-3:].encode()))
        hard = tarfile.TarInfo("./bin/three")
        hard.type, hard.linkname = tarfile.LNKTYPE, "./lib/x/one"
        tar.addfile(hard)
    found = {member.info.name: member for member in packages.tar_members(path, merge=True)}
    assert list(found) == ["usr/lib/x/one", "usr/bin/two", "usr/bin/three"]
    assert found["usr/bin/three"].info.linkname == "usr/lib/x/one"
    first = found["usr/lib/x/one"]
    assert (first.info.uid, first.info.mtime) == (0, packages.TIME)
    assert first.open is not None
    with first.open() as file:
        assert file.read(3) == b"one"


def test_wheel_members_lie_where_pip_puts_them(tmp_path: Path) -> None:
    path = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a/x.py", "a-1.data/scripts/run", "a-1.data/data/share/doc", "a-1.data/purelib/b.py", "a-1.dist-info/RECORD"):
            archive.writestr(name, name)
    with ExitStack() as opened:
        found = {member.info.name: member for member in packages.wheel_members(path, opened)}
        read = found["usr/local/bin/run"].open
        assert read is not None
        with read() as file:
            assert file.read() == b"a-1.data/scripts/run"
    assert set(found) == {f"{SITE}/a/x.py", "usr/local/bin/run", "usr/local/share/doc", f"{SITE}/b.py", f"{SITE}/a-1.dist-info/RECORD"}


def test_layers_are_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "one", Recipe(examples=3))
    suite = images.Suite(first="b/one:1", second="b/one:1", batch=(), images={"b/one:1": ("one",)}, sample="one")
    said: list[str] = []
    first = images.make(tmp_path, suite, said.append)
    assert images.make(tmp_path, suite, said.append).manifests == first.manifests
    assert said == ["making layer one"]
    layer = first.layers["one"]
    blob = first.layout.path(layer.digest).read_bytes()
    assert layer.digest == f"sha256:{hashlib.sha256(blob).hexdigest()}"
    assert (layer.size, layer.entries) == (len(blob), 6)


# -- the measurement


def test_measure_counts_the_whole_tree(tmp_path: Path) -> None:
    child = "import time; x = bytearray(80_000_000); sum(range(3_000_000)); time.sleep(1)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    cost = measure.run([sys.executable, "-c", parent], environ=os.environ, cwd=tmp_path, log=tmp_path / "log")
    assert cost.memory_process > 80_000_000
    assert cost.memory_tree > 80_000_000
    assert cost.wall > 1
    assert cost.cpu > 0


def test_measure_tells_why_a_run_failed(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkError, match=r"bash failed with 3: it broke \(log: "):
        measure.run(["bash", "-c", "echo it broke; exit 3"], environ=os.environ, cwd=tmp_path, log=tmp_path / "log")


# -- scale


@pytest.mark.parametrize("quick", [True, False])
def test_cases_grow_tenfold(quick: bool) -> None:
    entries = [case.entries for case in scale.cases(quick=quick) if case.layers == 1 and case.entries]
    assert [b // a for a, b in pairwise(entries)] == [10] * (len(entries) - 1) and max(entries) == (100_000 if quick else 1_000_000)


def test_streams_of_any_size_are_tars() -> None:
    for case in (scale.Case(name="mixed", layers=2, entries=2500), scale.Case(name="single", size=3_000_001)):
        for layer in range(case.layers):
            data = b"".join(case.tar(layer))
            assert data == b"".join(case.tar(layer))
            with tarfile.open(fileobj=io.BytesIO(data)) as tar:
                found = tar.getmembers()
            assert len(found) == (case.entries or 1) and sum(item.size for item in found) < len(data)
            kinds = {item.type for item in found}
            assert kinds == ({tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE} if case.entries else {tarfile.REGTYPE})


# -- batches


@pytest.mark.parametrize("quick", [True, False])
def test_batches_grow_in_images_and_in_layers(quick: bool) -> None:
    found = batches.cases(quick=quick)
    assert {case.images for case in found} == {1, 10, 50, 200}
    assert {case.layers for case in found} == ({10} if quick else {10, 60})


def test_images_of_a_batch_share_seven_layers_of_ten(tmp_path: Path) -> None:
    case = Case(images=3, layers=10)
    assert (case.common, case.distinct) == (7, 16)
    names = batches.publish(case, tmp_path)
    store = Store(tmp_path)
    found = []
    for name in names:
        manifest = parse_manifest(store.read(store.tags()[name].digest))
        assert isinstance(manifest, Manifest)
        found.append([layer.digest for layer in manifest.layers])
    assert [len(set(layers)) for layers in found] == [10] * 3
    assert len({digest for layers in found for digest in layers}) == 16
    assert len(set.intersection(*map(set, found))) == 7


@pytest.mark.slow("benchmarks are run", once=True)
def test_a_batch_is_run_empty_whole_again_and_planned(tmp_path: Path) -> None:
    found = batches.measure(Case(images=2, layers=3), tmp_path)
    # A manifest, its metadata, sandbox, image and record each; four layers, which are fetched and exploded; one gathering.
    assert (found.distinct, found.jobs) == (4, 2 * 5 + 4 * 2 + 1)
    assert found.whole.jobs > found.empty.jobs > found.again.jobs
    assert min(usage.wall for usage in (found.plan, found.empty, found.whole, found.again)) > 0
    assert "Nothing to be done" in (tmp_path / "again.log").read_text()
    planned = (tmp_path / "plan.log").read_text()
    assert [len(re.findall(rf"^Job \d+: {rule} ", planned, re.MULTILINE)) for rule in ("layer", "manifest")] == [4, 0]
    assert len(list((tmp_path / "storage").iterdir())) == 2


# -- the peers


def test_every_peer_has_a_command_for_its_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "apptainer", lambda: ["apptainer"])
    monkeypatch.setenv("SREGISTRY_NVIDIA_TOKEN", "secret")
    for peer in peers.PEERS:
        for work in peer.works:
            command = peer.command(work, ["benchmark/x:1", "benchmark/y:1"], "127.0.0.1:5", tmp_path)
            assert len(command.made) == 2
            assert "SREGISTRY_NVIDIA_TOKEN" not in command.environ


# -- the report

MEGA = 1_000_000


def run(work: str, peer: str, number: int, wall: float, *, size: int = 1000 * MEGA) -> Run:
    cost = Cost(wall=wall, cpu=2 * wall, memory_tree=200 * MEGA, memory_process=150 * MEGA, disk_peak=3000 * MEGA, disk_left=2500 * MEGA)
    return Run(work=work, peer=peer, round=number, cost=cost, size=size)


RESULTS = Results(
    command="scripts/benchmark --quick",
    machine="2 cores",
    images=[Content(image="benchmark/small:1", layers=5, tar=272 * MEGA, size=89 * MEGA, entries=14839)],
    peers={"ours": "sregistry", "apptainer": "Apptainer"},
    missing={"skopeo + umoci + mksquashfs": "umoci"},
    runs=[
        *(run("cold", "ours", n, wall, size=1010 * MEGA) for n, wall in enumerate((11.0, 10.0, 30.0), 1)),
        *(run("cold", "apptainer", n, wall) for n, wall in enumerate((250.0, 220.0, 230.0), 1)),
        run("fast", "ours", 1, 5.0, size=1150 * MEGA),
        run("fast", "apptainer", 1, 115.0, size=1100 * MEGA),
        run("next", "ours", 1, 2.0),
    ],
    sample=Content(image="science", layers=1, tar=250 * MEGA, size=70 * MEGA, entries=5469),
    levels=[run("levels", "sregistry fast", 1, 0.5, size=100 * MEGA)],
)


def rows(text: str, title: str) -> list[str]:
    return [line for line in text.split(f"### {title}")[1].partition("###")[0].splitlines() if line.startswith("|")][2:]


def test_report_compares_medians_with_apptainer() -> None:
    text = report.markdown(RESULTS)
    assert rows(text, "Cold pull, default level") == [
        "| sregistry | 10.0 / 11.0 | 22.0 | 200 / 150 | 3,000 / 500 | 1,010 | 20.9 | 20.9 | 1.010 |",
        "| Apptainer | 220.0 / 230.0 | 460.0 | 200 / 150 | 3,000 / 500 | 1,000 | 1 | 1 | 1 |",
    ]


def test_report_compares_the_fastest_level_with_a_pull_as_it_is() -> None:
    assert rows(report.markdown(RESULTS), "Cold pull, fastest level") == [
        "| sregistry, level fast | 5.0 / 5.0 | 10.0 | 200 / 150 | 3,000 / 500 | 1,150 | 46.0 | 46.0 | 1.150 |",
        "| Apptainer `build`, gzip 1 | 115.0 / 115.0 | 230.0 | 200 / 150 | 3,000 / 500 | 1,100 | 2.0 | 2.0 | 1.100 |",
    ]


def test_report_makes_no_ratio_without_the_reference() -> None:
    assert rows(report.markdown(RESULTS), "Next release")[0].endswith("| – | – | – |")


def test_report_names_what_is_left_out_and_leaves_out_what_was_not_run() -> None:
    text = report.markdown(RESULTS)
    assert "Left out: skopeo + umoci + mksquashfs; the machine lacks umoci." in text
    assert "Batch" not in text
    assert "| `benchmark/small:1` | 5 | 272 | 89 | 14,839 |" in text
    assert rows(text, "Levels") == ["| sregistry fast | 0.5 / 0.5 | 500 | 1.0 | 100 | 0.400 |"]


def test_report_of_scale_has_what_an_entry_costs() -> None:
    scaled = [Scaled(case="10,000 entries", stage="image", entries=10_000, cpu=0.5, memory=30 * MEGA)]
    text = report.markdown(Results(command="scripts/benchmark --only scale", machine="2 cores", scale=scaled))
    assert rows(text, "Scale") == ["| 10,000 entries | image | 10,000 | 0.50 | 50.0 | 30 | 3,000 |"]
    assert "Apptainer" not in text


@pytest.mark.slow("benchmarks are run", once=True)
def test_the_catalog_at_a_number(tmp_path: Path) -> None:
    cells = catalog.measure(3, tmp_path)
    assert len(cells) == len(catalog._HEAD) - 1
    assert all(float(cell) >= 0 for cell in cells)
    assert len(Catalog(tmp_path).records()) == 3 + catalog._TIMES


def test_report_of_batches_has_rates_and_what_a_job_costs() -> None:
    usage = [Usage(wall=wall, own=4.0, jobs=36.0, memory=120 * MEGA) for wall in (1.5, 8.0, 20.0, 1.0)]
    batch = Batch(images=50, layers=10, distinct=157, jobs=500, plan=usage[0], empty=usage[1], whole=usage[2], again=usage[3])
    text = report.markdown(Results(command="scripts/benchmark --batch", machine="2 cores", batches=[batch]))
    assert rows(text, "Batches") == ["| 50 | 10 | 500 | 1.5 | 8.0 | 62 | 8.0 | 120 | 20.0 | 80 | 1.0 |"]


def test_results_are_plain_data() -> None:
    assert asdict(RESULTS)["runs"][0]["cost"]["wall"] == 11.0


# -- the command line


@pytest.mark.parametrize("arguments", [["--only", "warm"], ["--peers", "docker"], ["--rounds", "0"], ["--rounds", "x"]], ids=" ".join)
def test_bad_usage_ends_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        command_line.main(arguments)
    assert end.value.code == 2
    assert arguments[0] in capsys.readouterr().err
