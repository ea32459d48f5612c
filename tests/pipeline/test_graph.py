"""Functions of the rules, each by a table of cases: no Snakemake, and a Host that is a few fields."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from sregistry._version import __version__
from sregistry.oci.documents import Digest
from sregistry.pipeline import images
from sregistry.pipeline.demands import Demands
from sregistry.pipeline.graph import Graph
from sregistry.pipeline.host import ALL_CONNECTIONS as ALL
from sregistry.pipeline.parameters import NotARerunTrigger, Parameters
from sregistry.results import paths, receipts
from tests.conftest import REPOSITORY

SCHEMA = str(REPOSITORY / "workflow/schemas/config.schema.yaml")
A, B, C, D = (f"sha256:{digit * 64}" for digit in "abcd")
MB, GB = 1 << 20, 1 << 30


class Unfinished(Exception):
    """Stands for Snakemake's exception of a checkpoint that is not there yet."""


@dataclass
class Here:
    """A Host of fields."""

    top: Path
    own: bool = True
    first: bool = True
    executes: bool = True
    runs: bool = False
    local: bool = True
    cores: int = 8
    network: int | None = ALL
    lost_program: str | None = None
    finished: dict[str, Path] = field(default_factory=dict)

    def checkpoint(self, name: str) -> Path:
        if name not in self.finished:
            raise Unfinished(name)
        return self.finished[name]


@dataclass
class Place:
    """A working folder."""

    root: Path

    def graph(self, config: dict[str, Any] | None = None, **host: Any) -> Graph:
        given = {"uri": "demo/tiny:1", **(config or {})}
        if "images" in given:
            del given["uri"]
        here = Here(self.root, **host)
        return Graph(here, images.plan(here, given, given=given, schema=SCHEMA))

    def gather(self, graph: Graph, layers: dict[str, list[str]], sizes: dict[str, int | None], **more: Any) -> None:
        """Let the images' layers be known; *layers* by the images' numbers."""
        keys = list(graph.images.targets)
        value = {
            "layers": {keys[int(number)]: digests for number, digests in layers.items()},
            "sizes": sizes,
            "sifs": [keys[number] for number in more.get("sifs", ())],
            "sources": {digest: [keys[number] for number in numbers] for digest, numbers in more.get("sources", {}).items()},
        }
        receipts.write(self.root / graph.gathering, value)
        graph.host.finished["manifests"] = self.root / graph.gathering  # type: ignore[attr-defined]

    def files(self) -> set[str]:
        return {str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name in list(os.environ):
        if name.startswith(("SREGISTRY_", "SINGULARITY_")):
            monkeypatch.delenv(name)
    for name in ("SREGISTRY_STORAGE", "SREGISTRY_DATABASE", "SINGULARITY_CACHEDIR"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere" / name))
    (work := tmp_path / "work").mkdir()
    monkeypatch.chdir(work)
    return Place(work)


def wild(**values: str) -> SimpleNamespace:
    return SimpleNamespace(**values)


TWO = {"images": ["demo/tiny:1", "demo/two:1"]}


# -- threads, resources, groups


@pytest.mark.parametrize(
    ("sizes", "cores", "threads"),
    [
        ({}, 8, 8),  # not known yet
        ({A: 100}, 8, 8),  # the only layer has all
        ({A: 100, B: 100}, 8, 8),
        ({A: 1, B: 10_000}, 8, 1),
        ({A: 1000, **{f"sha256:{n:064}": 1000 for n in range(99)}}, 8, 1),
        ({A: None, B: 100}, 4, 4),  # an unknown size counts as the average
        ({A: None}, 4, 4),
        ({A: 0}, 4, 1),
    ],
    ids=["unknown", "alone", "half", "small", "many", "no size", "no size alone", "empty"],
)
def test_threads_follow_the_share_of_bytes(place: Place, sizes: dict[str, int | None], cores: int, threads: int) -> None:
    graph = place.graph(cores=cores)
    if sizes:
        place.gather(graph, {"0": list(sizes)}, sizes)
    assert Demands(graph).explode_threads(wild(digest=A, variant="x")) == threads


@pytest.mark.parametrize(
    ("sizes", "limit", "connections", "network"),
    [
        ({A: 100}, ALL, 1, 125_000),
        ({A: 10 * GB}, ALL, 8, ALL),
        ({A: GB, B: 9 * GB}, ALL, 1, 125_000),
        ({A: 3 * GB, B: 3 * GB}, ALL, 4, 500_000),
        ({A: 600 * MB}, ALL, 3, 375_000),  # a connection for each 256 MiB
        ({A: None, B: GB}, ALL, 1, 125_000),
        ({}, ALL, 1, 125_000),
        ({A: 10 * GB}, 2, 2, 2),  # a limit of the command line counts connections
        ({A: 10 * GB}, None, 8, 8),
    ],
    ids=["small", "huge", "share", "half", "per size", "no size", "unknown", "a limit", "no limit"],
)
def test_connections_follow_the_share_of_bytes(
    place: Place, sizes: dict[str, int | None], limit: int | None, connections: int, network: int
) -> None:
    graph = place.graph({"connections": 8}, network=limit)
    if sizes:
        place.gather(graph, {"0": list(sizes)}, sizes)
    jobs = Demands(graph)
    assert (jobs.layer_connections(wild(digest=A)), jobs.layer_network(wild(digest=A))) == (connections, network)


@pytest.mark.parametrize("limit", [ALL, 3, None])
@pytest.mark.parametrize("connections", [1, 3, 8, 64])
def test_all_connections_together_are_the_limit(place: Place, connections: int, limit: int | None) -> None:
    jobs = Demands(place.graph({"connections": connections}, network=limit))
    one, every = jobs.networked()["network"], jobs.all_network(wild())
    assert isinstance(one, int)
    assert jobs.connections == (connections if limit != 3 else 3)
    assert every == (limit or connections)
    assert every // one == jobs.connections


@pytest.mark.parametrize(
    ("config", "host", "here", "threads", "names"),
    [
        ({}, {}, True, 0, set()),
        ({}, {"network": None}, True, 1, set()),  # only cores limit how many there are
        ({"transfer": "dtn"}, {}, False, 1, {"slurm_partition", "lsf_queue", "queue"}),
    ],
    ids=["here", "no limit", "transfer"],
)
def test_where_jobs_talk_to_a_registry(
    place: Place, config: dict[str, Any], host: dict[str, Any], here: bool, threads: int, names: set[str]
) -> None:
    jobs = Demands(place.graph(config, **host))
    assert (jobs.network_here, jobs.network_threads) == (here, threads)
    assert jobs.networked(runtime=7).keys() == {"mem_mb", "runtime", "disk_mb", "tmpdir", "network", *names}
    assert (jobs.networked(runtime=7)["runtime"], jobs.light()["runtime"]) == (7, 10)


@pytest.mark.parametrize(
    ("layers", "size", "host", "group"),
    [
        ({"0": [A]}, MB, {"local": False}, 0),
        ({"0": [A], "1": [A]}, MB, {"local": False}, None),
        ({"0": [A], "1": [B]}, 128 * MB, {"local": False}, 0),
        ({"1": [A]}, 128 * MB + 1, {"local": False}, None),
        ({"0": [A]}, None, {"local": False}, None),
        ({"0": [A]}, MB, {"local": True}, None),
        ({"0": [A]}, MB, {"local": False, "executes": False}, None),
    ],
    ids=["own", "shared", "just small", "large", "no size", "no cluster", "a summary"],
)
def test_layers_join_the_job_of_their_only_image(
    place: Place, layers: dict[str, list[str]], size: int | None, host: dict[str, Any], group: int | None
) -> None:
    graph = place.graph(TWO, **host)
    assert Demands(graph).layer_group(wild(digest=A, variant="x")) is None  # nothing is known yet
    place.gather(graph, layers, {A: size, B: MB})
    image = None if group is None else list(graph.images.targets)[group]
    jobs = Demands(graph)
    assert jobs.layer_group(wild(digest=A, variant="x")) == (None if image is None else f"image-{image}")
    if image is not None:
        assert jobs.image_group(wild(image=image)) == f"image-{image}"


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda jobs, image: jobs.transfer_time(wild(digest=A), 1), 38),
        (lambda jobs, image: jobs.transfer_time(wild(digest=A), 3), 114),
        (lambda jobs, image: jobs.transfer_time(wild(digest=B), 1), 29),  # no size counts as a gigabyte
        (lambda jobs, image: jobs.explode_time(wild(digest=A, variant="x"), 2), 60),
        (lambda jobs, image: jobs.image_time(wild(image=image), 1), 13),
        (lambda jobs, image: jobs.image_disk(wild(image=image)), 100),
        (lambda jobs, image: jobs.image_threads(wild(image=image)), 1),
        (lambda jobs, image: jobs.explode_memory(wild(), 4, 2), 2200),
        (lambda jobs, image: jobs.tree_memory(wild(), 2), 2000),
        (lambda jobs, image: Path(jobs.tmpdir(wild())).is_dir(), True),
    ],
)
def test_memory_and_time(place: Place, ask: Callable[[Demands, str], object], expected: object) -> None:
    graph = place.graph()
    place.gather(graph, {"0": [A, B]}, {A: 2 * GB, B: None})
    (image,) = graph.images.targets
    assert ask(Demands(graph), image) == expected


def test_another_builder_asks_for_more(place: Place) -> None:
    graph = place.graph({"builder": "mksquashfs"})
    (image,) = graph.images.targets
    jobs = Demands(graph)
    assert (jobs.image_time(wild(image=image), 1), jobs.image_disk(wild(image=image))) == (10, 1000)  # layers are not known yet
    place.gather(graph, {"0": [A]}, {A: GB})
    assert (jobs.image_time(wild(image=image), 1), jobs.image_disk(wild(image=image))) == (30, 6120)
    assert jobs.image_threads(wild(image=image)) == 8


@pytest.mark.parametrize("name", ["default", "slurm", "pbs", "sge", "lsf"])
def test_profiles_are_whole(name: str) -> None:
    """Each has what the rules rely on: no other is read beside it."""
    said = yaml.safe_load((REPOSITORY / f"workflow/profiles/{name}/config.yaml").read_text())
    default = yaml.safe_load((REPOSITORY / "workflow/profiles/default/config.yaml").read_text())
    everywhere = (
        "scheduler",
        "scheduler-subsample",
        "keep-going",
        "rerun-incomplete",
        "rerun-triggers",
        "quiet",
        "show-failed-logs",
        "resources",
    )
    assert {key: said[key] for key in everywhere} == {key: default[key] for key in everywhere}
    assert said["resources"] == [f"network={ALL}"]
    assert "cores" in said and "max-threads" not in said
    # With a limit of nodes, Snakemake takes `cores` for the most of one job.
    assert ("jobs" in said) == ("executor" in said) == (name != "default")


# -- inputs


def test_inputs_of_an_image_of_layers(place: Place) -> None:
    graph = place.graph()
    (image,) = graph.images.targets
    waits: list[Callable[[Any], object]] = [graph.manifest, graph.parts, graph.exploded_layers, graph.manifests_of_layer, graph.fetched]
    for function in waits:
        with pytest.raises(Unfinished, match="manifests"):
            function(wild(image=image, digest=A))
    place.gather(graph, {"0": [A, B]}, {A: 1, B: 2})
    folder, variant = f"results/{image}", graph.images.targets[image].compression.variant
    assert graph.manifests(wild()) == [graph.manifest(wild(image=image))] == [f"{folder}/manifest.json"]
    assert graph.parts(wild(image=image)) == {
        "manifest": f"{folder}/manifest.json",
        "metadata": f"{folder}/metadata.json",
        "sandbox": f"{folder}/sandbox.index",
    }
    assert graph.exploded_layers(wild(image=image)) == [f"results/explode/{digest}.{variant}.json" for digest in (A, B)]
    assert graph.fetched(wild()) == [f"results/layer/{digest}.json" for digest in (A, B)]
    assert graph.finished(wild()) == [graph.gathering, f"{folder}/record.json"]
    assert graph.chosen_tags(wild()) == graph.tag_lists(wild()) == []
    assert not graph.is_fetched_again(wild(digest=A)) and graph.blob(wild(digest=A)) == f"results/layer/{A}.json"


@pytest.mark.parametrize(("format", "parts"), [("sif", {"manifest", "sif"}), ("simg", {"manifest"})])
def test_a_sif_of_the_registry_has_no_parts(place: Place, format: str, parts: set[str]) -> None:
    graph = place.graph({"format": format})
    (image,) = graph.images.targets
    place.gather(graph, {"0": [A]}, {A: 1}, sifs=[0])
    assert graph.parts(wild(image=image)).keys() == parts


@pytest.mark.parametrize(
    ("sources", "numbers"), [({}, [0]), ({A: [0, 1]}, [0, 1]), ({A: [1]}, [1])], ids=["an older file", "they differ", "one"]
)
def test_a_layer_reads_the_manifests_that_differ(place: Place, sources: dict[str, list[int]], numbers: list[int]) -> None:
    graph = place.graph(TWO)
    place.gather(graph, {"0": [A], "1": [A]}, {A: 1}, sources=sources)
    keys = list(graph.images.targets)
    assert graph.manifests_of_layer(wild(digest=A)) == [f"results/{keys[number]}/manifest.json" for number in numbers]


def test_an_image_that_was_refused_is_a_target_of_fetch(place: Place) -> None:
    graph = place.graph(TWO)
    place.gather(graph, {"0": [], "1": [A]}, {A: 1})
    assert graph.fetched(wild()) == [f"results/{next(iter(graph.images.targets))}/metadata.json", f"results/layer/{A}.json"]


def test_images_of_patterns_are_known_with_their_lists(place: Place) -> None:
    graph = place.graph({"images": ["demo/tiny:1", {"uri": "demo/many", "tags": "24.*"}, {"uri": "demo/none", "tags": "*"}]})
    many, none = graph.images.patterns
    assert graph.tag_lists(wild()) == [f"results/tags/{many}.json", f"results/tags/{none}.json"]
    assert graph.chosen_tags(wild()) == [graph.choice]
    with pytest.raises(Unfinished, match="targets"):
        graph.finished(wild())
    receipts.write(place.root / graph.choice, {"tags": {many: ["24.2", "24.1"], none: []}, "failed": {none: "no such repository"}})
    graph.host.finished["targets"] = place.root / graph.choice  # type: ignore[attr-defined]
    found = graph.finished(wild())
    assert [path.split("/")[1].rpartition("-")[0].rpartition("demo-")[2] for path in found[1:-1]] == ["tiny-1", "many-24.2", "many-24.1"]
    assert found[-1] == f"results/tags/{none}.failed"


@pytest.mark.parametrize(
    ("config", "refresh", "stamped", "again"),
    [({}, False, True, False), ({"refresh": "yes"}, True, True, True), ({"refresh": "yes"}, True, False, True)],
    ids=["pinned", "refresh", "a dry run"],
)
def test_what_is_asked_again_has_a_stamp(place: Place, config: dict[str, Any], refresh: bool, stamped: bool, again: bool) -> None:
    graph = place.graph(config)
    (image,) = graph.images.targets
    if stamped:
        receipts.publish(place.root / paths.STAMP, b"1")
    assert graph.asks_again(wild(image=image)) is again and graph.asks_again(wild(pattern="x")) is refresh
    assert graph.stamp(wild(image=image)) == (["results/refresh"] if again and stamped else [])


def test_questions_of_a_refresh(place: Place) -> None:
    config = {"images": ["demo/tiny:1", {"uri": "demo/many", "tags": "24.*", "newest": 2}]}
    assert place.graph(config).questions(wild()) == [] and place.files() == set()  # a dry run
    (name,) = place.graph(config, runs=True).questions(wild())
    assert place.graph(config, first=False).questions(wild()) == [name]  # the job, where it runs on another node
    asked = json.loads((place.root / name).read_text())
    (image,), (pattern,) = asked["images"], asked["patterns"]
    assert image["uri"].endswith("/demo/tiny:1") and image["locked"] is None and image["pinned"].endswith("manifest.json")
    assert (pattern["tags"], pattern["newest"], pattern["before"]) == ("24.*", 2, None)


# -- what a run is refused, and how it ends


@pytest.mark.parametrize(
    ("config", "host", "ask", "code", "line"),
    [
        ({"uri": []}, {}, Graph.finished, 2, "no image is asked for; name one: snakemake --config uri=nvidia/caffe2:17.10"),
        ({"uri": []}, {}, Graph.questions, 2, "no image is asked for; name one: snakemake refresh --config uri=nvidia/caffe2:17.10"),
        ({}, {"runs": True, "lost_program": "a/submit"}, Graph.finished, 2, "the profile's program a/submit is not found from "),
        ({}, {}, lambda graph, _: graph.file_of("demo/other:1"), 2, "'demo/other:1' means no image of the config; name a file: demo-t"),
        (TWO, {}, lambda graph, _: graph.receipt_of("x"), 2, "'x' means no image of the config; name a file: demo-tiny:1.sif, demo-two"),
    ],
    ids=["no image", "nothing to refresh", "a lost program", "another image", "no such image"],
)
def test_what_is_wrong_is_one_line(
    place: Place,
    capsys: pytest.CaptureFixture[str],
    config: dict[str, Any],
    host: dict[str, Any],
    ask: Callable[[Graph, object], object],
    code: int,
    line: str,
) -> None:
    graph = place.graph(config, **host)
    with pytest.raises(SystemExit) as ended:
        ask(graph, wild())
    assert ended.value.code == code
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith(f"error: {line}")
    assert place.files() == set()


@pytest.mark.parametrize("builder", ["mksquashfs", "singularity"])
@pytest.mark.parametrize("host", [{}, {"executes": False}, {"local": False}], ids=["here", "a summary", "a cluster"])
def test_a_builder_is_looked_for_where_it_works(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], builder: str, host: dict[str, Any]
) -> None:
    monkeypatch.setenv("PATH", str(place.root))
    graph = place.graph({"builder": builder}, **host)
    (image,) = graph.images.targets
    if host:
        assert graph.finished(wild())[1:] == [f"results/{image}/record.json"]
        return
    try:
        graph.finished(wild())
    except SystemExit as ended:
        *_, line = capsys.readouterr().err.splitlines()  # without root, after a warning
        assert ended.code == 1 and line.startswith(f"error: builder: {builder}")
    else:
        assert any(shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin") for name in (builder, "apptainer"))


def test_a_file_of_another_image_is_refused(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    graph = place.graph()
    (target,) = graph.images.targets.values()
    target.path.parent.mkdir(parents=True)
    target.path.write_text("notes")
    with pytest.raises(SystemExit) as ended:
        place.graph().finished(wild())
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: {target.path} is there, and nothing tells which image it is")
    assert place.graph(TWO).finished(wild())[0].startswith("results/batch/")  # the other one is made


def test_file_and_receipt_of_an_image_for_another_workflow(place: Place) -> None:
    (place.root / "inside").mkdir()
    graph = Place(place.root / "inside").graph(TWO)
    key, target = next(iter(graph.images.targets.items()))
    assert graph.file_of("demo/tiny:1") == graph.file_of("demo-tiny:1.sif") == str(target.path)
    assert graph.receipt_of("demo/tiny:1") == str(place.root / f"inside/results/{key}/image.json")


# -- what asks changes nothing; a run sweeps


def damaged(place: Place, graph: Graph) -> Path:
    (image,) = graph.images.targets
    path = place.root / paths.IMAGE.format(image=image)
    receipts.write(path, {"holds": [{"path": str(place.root / "gone"), "size": 1}]})
    return path


@pytest.mark.parametrize(("host", "swept"), [({}, False), ({"runs": True}, True), ({"first": False}, False)], ids=["asks", "runs", "a job"])
def test_a_receipt_that_no_longer_counts(place: Place, host: dict[str, Any], swept: bool) -> None:
    graph = place.graph({"refresh": "yes"}, **host)
    path = damaged(place, graph)
    (image,) = graph.images.targets
    graph.stamp(wild(image=image))
    assert path.exists() is not swept
    assert (place.root / paths.STAMP).exists() is swept
    # What a run sweeps away, a dry run shows by another version.
    version = Parameters(graph).version_of(paths.IMAGE)(wild(image=image))
    assert version == (f"{__version__}, made anew" if not swept and host.get("first", True) else __version__)


def test_a_run_is_swept_once(place: Place) -> None:
    graph = place.graph(runs=True)
    graph.manifests(wild())
    path = damaged(place, graph)
    graph.manifests(wild())
    assert path.exists()


# -- parameters


@pytest.mark.parametrize(
    ("config", "name", "expected"),
    [
        ({}, "docker_cmd", ""),
        ({"docker_cmd": True}, "docker_cmd", "--docker-cmd"),
        ({}, "builder", "native"),
        ({"force": True}, "replacing", "--database {root}/elsewhere/SREGISTRY_DATABASE --force"),
        ({"layer_limit": 1000}, "layer_limit", "1000"),
        ({"cache": "/a b", "cache_from": ["/c"]}, "store", "--cache {root}/elsewhere/SINGULARITY_CACHEDIR --cache-from /c"),
    ],
)
def test_words_of_all_jobs(place: Place, config: dict[str, Any], name: str, expected: str) -> None:
    given = {key: value for key, value in config.items() if key != "cache"}
    words = str(getattr(Parameters(place.graph(given)), name))
    assert words == expected.format(root=place.root.parent)


def test_words_of_one_job(place: Place) -> None:
    graph = place.graph(
        {"images": [{"uri": "demo/tiny:1", "compression": {"level": "fast"}}, {"uri": "demo/many", "tags": "2*", "newest": 3}]}
    )
    (image,), (pattern,) = graph.images.targets, graph.images.patterns
    params = Parameters(graph)
    of_image, of_pattern = wild(image=image), wild(pattern=pattern)
    assert params.target_field("format")(of_image) == "sif"
    assert isinstance(params.target_field("path", watched=False)(of_image), NotARerunTrigger)
    variant = graph.images.targets[image].compression.variant
    assert params.compression("level")(of_image) == params.compression("level")(wild(digest=A, variant=variant)) == "fast"
    assert str(params.locked(of_image)) == ""
    assert (params.pattern_field("tags")(of_pattern), params.newest(of_pattern)) == ("2*", "--newest 3")
    assert params.as_options(of_image, {"manifest": "a b", "sif": "c"}) == "--manifest 'a b' --sif c"
    assert params.database(of_image) == os.environ["SREGISTRY_DATABASE"]
    assert params.changes(of_image) == str(place.root / "results/refresh.json")
    digest = dataclasses.replace(graph.images.targets[image], locked=Digest(A))
    graph.images.targets[image] = digest
    assert str(params.locked(of_image)) == f"--locked {A}"
