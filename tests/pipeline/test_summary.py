"""Batches run by the real Snakemake against our own registry: what is told at the end, locked, refreshed and made again."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.support.images import layer
from tests.support.place import Place, opened
from tests.support.scripted import Reply, Scripted
from tests.support.snakemake import NOTHING, WORKFLOW, Run, command, inherited
from tests.support.tarball import file

pytestmark = pytest.mark.slow("whole runs of Snakemake", once=True)

SHARED = layer([file(b"shared", b"shared" * 1000)])
FLAGS = ("--configfile", "batch.yaml", "--cores", "2")
#: Where no registry is.
GONE = "127.0.0.1:1"
Json = dict[str, Any]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with opened(tmp_path) as place:
        for tag in ("24.9", "24.10", "24.11-rc1"):
            push(place, f"demo/many:{tag}", tag)
        arm = place.layout.image([layer([file(b"arm", b"arm")])], {"Cmd": ["/own"]}, platform="linux/arm64")
        index = place.layout.index([(place.layout.tags()["demo/tiny:1"], "linux/amd64"), (arm, "linux/arm64")])
        place.layout.tag("demo/multi:1", index)
        place.environ["SREGISTRY_OCI_NOHTTPS"] = "yes"
        yield place


def push(place: Place, name: str, content: str) -> str:
    """Have an image with the shared layer and one of its own; return its digest."""
    entry = place.layout.image([SHARED, layer([file(b"own", content.encode())])], {"Cmd": ["/own"]})
    place.layout.tag(name, entry)
    return str(entry["digest"])


def batch(place: Place, text: str, *target: str, **config: str) -> Run:
    (place.work / "batch.yaml").write_text(text)
    return place.run(*(f"{key}={value}" for key, value in config.items()), flags=(*target, *FLAGS))


def valid(place: Place, name: str) -> Json:
    """Return summary.json or refresh.json, which keeps to its schema."""
    value: Json = json.loads((place.work / f"results/{name}.json").read_text())
    schemas = {path.name: yaml.safe_load(path.read_bytes()) for path in (WORKFLOW / "schemas").glob("*.yaml")}
    known = Registry().with_resources([(key, Resource.from_contents(schema)) for key, schema in schemas.items()])
    Draft202012Validator(schemas[f"{name}.schema.yaml"], registry=known).validate(value)
    return value


def states(place: Place) -> dict[str, str]:
    """Return the status of each image of the last run, by its file."""
    return {Path(image["path"]).name: image["status"] for image in valid(place, "summary")["images"]}


def lock(place: Place) -> Json:
    value: Json = yaml.safe_load((place.work / "results/lock.yaml").read_text())
    return value


def locked(place: Place) -> dict[str, str]:
    """Return the digests of the lock file, by the images' files."""
    return {image["name"]: image["digest"] for image in lock(place)["images"]}


def arm_config(place: Place) -> str:
    """Return the digest of the config of the image for arm64."""
    manifest = place.layout.read(place.layout.tags()["demo/multi:1"]["digest"])["manifests"][1]
    return str(place.layout.read(manifest["digest"])["config"]["digest"])


def table(run: Run, *words: str) -> list[list[str]]:
    """Return the rows of the table that begin with one of *words*."""
    return [re.split(r"  +", line) for line in run.text.splitlines() if line.partition(" ")[0] in words and "  " in line]


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return time and content of each file."""
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def state(place: Place) -> dict[str, object]:
    """Return all that a run makes and keeps, but for what Snakemake and a refresh have for themselves, and when layers were used last."""
    results = {name: kept for name, kept in files(place.work / "results").items() if not name.startswith(("change/", "refresh.json"))}
    cache = {name: content for name, (_, content) in files(place.root / "cache").items()}
    return {"images": files(place.images), "results": results, "cache": cache, "database": files(place.root / "database")}


ALL = """\
format: sif
images:
- demo/tiny:1
- {uri: demo/multi:1, platform: linux/arm64, name: arm}
- demo/multi:1: {compression: {level: small}}
- demo/none:1
- demo/many: {tags: "24.*", newest: 2}
- demo/many: {tags: "25.*"}
groups:
  boxes:
    format: sandbox
    images: [demo/tiny:1]
"""


def test_a_batch_of_which_some_fail(place: Place) -> None:
    first = batch(place, ALL, platform="linux/amd64")
    assert first.code == 1
    made = ["arm.sif", "demo-many:24.10.sif", "demo-many:24.9.sif", "demo-multi:1.sif", "demo-tiny:1", "demo-tiny:1.sif"]
    assert place.names() == made
    assert states(place) == {**dict.fromkeys(made, "done"), "demo-none:1.sif": "failed"}

    configs = {place.layout.read(entry["digest"]).get("config", {}).get("digest") for entry in place.layout.tags().values()}
    layers = [digest for digest in place.asked("blobs") if digest not in configs and digest != arm_config(place)]
    assert len(layers) == len(set(layers)) == 5
    assert first.rules.count("layer") == 5  # tiny, arm, shared, and one of each of two
    assert first.rules.count("explode") == 6  # tiny's for two levels

    summary = valid(place, "summary")
    assert summary["counts"] == {"done": 6, "unchanged": 0, "failed": 2, "left": 0}
    (failed,) = [image for image in summary["images"] if image["status"] == "failed"]
    assert "has no image demo/none:1" in failed["reason"]
    assert [(item["status"], item["tags"]) for item in summary["patterns"]] == [("done", ["24.10", "24.9"]), ("failed", None)]
    assert "no tag matches '25.*'; it has 3 tags: 24.11-rc1, 24.10, 24.9" in summary["patterns"][1]["reason"]
    for image in summary["images"]:
        if image["status"] == "done":
            assert image["size"] > 0 and image["digest"].startswith("sha256:") and image["seconds"] > 0 and image["before"] is None

    rows = table(first, "done", "failed")
    assert [row[0] for row in rows] == ["done"] * 3 + ["failed", "done", "done", "done", "failed"]
    assert [row[-1] for row in rows if row[0] == "done"] == [image["path"] for image in summary["images"] if image["status"] == "done"]
    assert [row[-1] for row in rows if row[0] == "failed"] == [failed["reason"], summary["patterns"][1]["reason"]]
    assert "8 asked for: 6 done, 2 failed; results/summary.json has more\n" in first.text
    assert sorted(first.errors) == sorted([failed["reason"], summary["patterns"][1]["reason"]])

    assert sorted(locked(place)) == made
    assert locked(place)["arm.sif"] == locked(place)["demo-multi:1.sif"] == place.layout.tags()["demo/multi:1"]["digest"]
    assert lock(place)["tags"] == [{"uri": f"{place.host}/demo/many", "tags": "24.*", "newest": 2, "found": ["24.10", "24.9"]}]

    # What failed is asked again, alone; one of them is there now.
    push(place, "demo/none:1", "some")
    place.asked("manifests")
    before = files(place.images)
    again = batch(place, ALL, platform="linux/amd64")
    assert again.code == 1
    assert place.asked("manifests") == ["1"]
    assert states(place) == {**dict.fromkeys(made, "unchanged"), "demo-none:1.sif": "done"}
    assert {name: kept for name, kept in files(place.images).items() if name in before} == before
    assert "8 asked for: 1 done, 6 unchanged, 1 failed;" in again.text

    # Nothing to do is told, too, and is no failure.
    whole = ALL.replace('- demo/many: {tags: "25.*"}\n', "")
    assert batch(place, whole, platform="linux/amd64").code == 0
    idle = batch(place, whole, platform="linux/amd64")
    assert (idle.code, idle.rules) == (0, []) and NOTHING in idle.text
    assert valid(place, "summary")["counts"] == {"done": 0, "unchanged": 7, "failed": 0, "left": 0}
    assert "7 asked for: 7 unchanged; results/summary.json has more\n" in idle.text


def test_a_layer_that_is_broken_fails_the_images_that_have_it(place: Place) -> None:
    push(place, "demo/other:1", "other")
    place.layout.path(f"sha256:{hashlib.sha256(SHARED.blob).hexdigest()}").write_bytes(b"broken")
    run = batch(place, "images: [demo/tiny:1, 'demo/many:24.9', demo/other:1]\n")
    assert run.code == 1
    assert states(place) == {"demo-tiny:1.sif": "done", "demo-many:24.9.sif": "failed", "demo-other:1.sif": "failed"}
    reasons = {image["reason"] for image in valid(place, "summary")["images"]} - {None}
    assert len(reasons) == 1 and len(run.errors) == 1 and run.errors[0] in reasons
    assert locked(place).keys() == {"demo-tiny:1.sif", "demo-many:24.9.sif", "demo-other:1.sif"}  # what it meant is known


def test_a_registry_that_refuses_or_is_gone(place: Place) -> None:
    refused = Reply(401, headers=[("WWW-Authenticate", 'Basic realm="some"')])
    with Scripted({"/v2/demo/x/manifests/1": refused, "/v2/demo/y/tags/list": refused}) as other:
        text = (
            "images: [demo/tiny:1"
            + "".join(f", '{host}/demo/x:1', {{uri: {host}/demo/y, tags: '*'}}" for host in (other.host, GONE))
            + "]\n"
        )
        text = text.replace(f"'{GONE}/demo/x:1'", f"{{uri: {GONE}/demo/x:1, name: gone}}")
        run = batch(place, text)
    assert run.code == 1
    summary = valid(place, "summary")
    assert states(place) == {"demo-tiny:1.sif": "done", "demo-x:1.sif": "failed", "gone.sif": "failed"}
    reasons = [item["reason"] for item in (*summary["images"], *summary["patterns"]) if item["reason"]]
    assert [sum(host in reason for reason in reasons) for host in (other.host, f"can't reach {GONE}")] == [2, 2]
    assert [row[-1] for row in table(run, "failed")] == reasons
    assert summary["counts"]["failed"] == 4
    assert list(locked(place)) == ["demo-tiny:1.sif"]


def test_mistakes_are_told_before_anything_is_done(place: Place) -> None:
    run = batch(place, "images:\n- {uri: demo/tiny:1, formt: sif}\n- demo/tiny:1: {platform: a/b/c/d/e}\nconection: 1\n")
    assert run.code == 2
    assert run.text.splitlines()[-2:] == [
        "error: batch.yaml:2: unknown key 'images[0].formt'; did you mean format?",
        "error: batch.yaml:4: unknown key 'conection'; did you mean connections?",
    ]
    clash = batch(place, "images:\n- demo/tiny:1\n- {uri: demo/multi:1, name: 'demo-tiny:1'}\n")
    assert clash.code == 2
    assert clash.text.splitlines()[-1].startswith("error: batch.yaml:3: images[1]: ") and "would both become" in clash.text
    assert place.asked("manifests") == []
    assert not (place.work / "results").exists()


def test_a_pattern_whose_image_takes_another_s_file_is_told(place: Place) -> None:
    text = "images:\n- {uri: demo/tiny:1, name: 'demo-many:24.10'}\n- demo/many: {tags: '24.*', newest: 1}\n"
    for code in (1, 2):  # once the tags are known, and then from the start
        run = batch(place, text)
        assert run.code == code
        lines = [line for line in run.text.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and lines[0].startswith("error: batch.yaml:3: images[1].demo/many: ") and "would both become" in lines[0]
        assert not place.images.exists() and place.asked("blobs") == []


def test_a_dry_run_leaves_nothing(place: Place) -> None:
    assert place.run("uri=[demo/tiny:1,demo/multi:1]", flags=("-n",)).code == 0
    assert not (place.work / "results").exists()


def test_one_image_has_no_table_but_all_the_rest(place: Place) -> None:
    run = place.run("uri=demo/tiny:1")
    assert run.code == 0 and "asked for" not in run.text
    assert states(place) == {"demo-tiny:1.sif": "done"}
    assert list(locked(place)) == ["demo-tiny:1.sif"]
    assert place.run("uri=demo/multi:1", flags=("--until", "manifests")).code == 0
    assert states(place) == {"demo-multi:1.sif": "left"}


def test_a_moved_tag(place: Place) -> None:
    text = "images:\n- demo/tiny:1\n- demo/many: {tags: '24.*', newest: 2}\n"
    assert batch(place, text).code == 0
    old = locked(place)
    (place.work / "results/lock.yaml").rename(place.root / "old.yaml")
    assert place.run("uri=demo/multi:1").code == 0
    once = lock(place)
    assert len(once["images"]) == 1
    assert batch(place, text).code == 0
    assert len(locked(place)) == 4 and once["images"][0] in lock(place)["images"]  # what other runs resolved stays

    moved = push(place, "demo/tiny:1", "moved")
    push(place, "demo/many:24.12", "24.12")
    place.asked("manifests")
    assert batch(place, text).code == 0 and place.asked("manifests") == []
    assert states(place) == dict.fromkeys(old, "unchanged")

    # `refresh` tells, and changes nothing.
    kept = state(place)
    told = batch(place, text, "refresh")
    assert told.code == 0
    assert state(place) == kept
    found = valid(place, "refresh")
    assert {image["uri"].partition("/")[2]: image["status"] for image in found["images"]} == {
        "demo/tiny:1": "changed",
        "demo/many:24.10": "unchanged",
        "demo/many:24.9": "unchanged",
    }
    (pattern,) = found["patterns"]
    assert (pattern["status"], pattern["came"], pattern["went"]) == ("changed", ["24.12"], ["24.9"])
    (tiny,) = [image for image in found["images"] if image["status"] == "changed"]
    assert (tiny["before"], tiny["after"]) == (old["demo-tiny:1.sif"], moved)
    assert (tiny["added"], tiny["removed"]) == (2, 1) and 0 < tiny["fetch"] < tiny["size_after"]  # the shared one is there
    assert [row[:3] for row in table(told, "changed")] == [
        ["changed", f"{place.host}/demo/many:24.* (newest 2)", "+24.12 −24.9"],
        ["changed", f"{place.host}/demo/tiny:1", f"{old['demo-tiny:1.sif'][:19]} → {moved[:19]}"],
    ]
    assert "refresh: 2 changed, 2 unchanged\n" in told.text
    assert batch(place, text, "refresh").code == 0  # asked anew each time
    assert "refresh: 2 changed, 2 unchanged\n" in batch(place, text, "refresh").text

    # What an older lock file says is compared as well.
    against = batch(place, text, "refresh", locked=str(place.root / "old.yaml"))
    assert against.code == 0 and "refresh: 2 changed, 2 unchanged\n" in against.text
    assert state(place) == kept

    # `refresh=true` makes it.
    done = batch(place, text, refresh="true")
    assert done.code == 0
    assert "refresh: 1 changed, 1 new, 1 unchanged\n" in done.text
    assert states(place) == {"demo-tiny:1.sif": "done", "demo-many:24.12.sif": "done", "demo-many:24.10.sif": "unchanged"}
    summary = valid(place, "summary")
    assert summary["images"][0]["before"]["version"] != summary["images"][0]["version"]
    assert {change["uri"].partition("/")[2]: change["status"] for change in summary["changes"]} == {
        "demo/tiny:1": "changed",
        "demo/many:24.12": "new",
        "demo/many:24.10": "unchanged",
    }
    assert locked(place).keys() == {"demo-tiny:1.sif", "demo-multi:1.sif", "demo-many:24.12.sif", "demo-many:24.10.sif"}
    assert locked(place)["demo-tiny:1.sif"] == moved
    assert "demo-many:24.9.sif" in place.names()  # nobody's file is removed

    # Where the registry does not answer, all stays what it is.
    place.environ["SREGISTRY_NVIDIA_VERSION"] = "v3"
    before = locked(place)
    for target, config in ((("refresh",), {}), ((), {"refresh": "true"})):
        failed = batch(place, text, *target, **config)
        assert failed.code == 1 and failed.errors
    assert locked(place) == before
    assert valid(place, "summary")["counts"] == {"done": 0, "unchanged": 0, "failed": 4, "left": 0}
    assert {image["status"] for image in valid(place, "refresh")["images"]} == {"failed"}


def test_a_lock_file_makes_the_same_again_and_asks_by_digest(place: Place) -> None:
    text = "images:\n- demo/tiny:1\n- {uri: demo/multi:1, platform: linux/arm64, name: arm}\n- demo/many: {tags: '24.*', newest: 2}\n"
    assert batch(place, text).code == 0
    made = {path.name: path.read_bytes() for path in place.images.iterdir()}
    kept = place.root / "kept.yaml"
    shutil.copy(place.work / "results/lock.yaml", kept)
    was = locked(place)
    push(place, "demo/tiny:1", "moved")
    push(place, "demo/many:24.12", "24.12")

    def elsewhere(name: str) -> None:
        place.environ |= {"SREGISTRY_STORAGE": str(place.root / name), "SINGULARITY_CACHEDIR": str(place.root / f"{name}-cache")}
        shutil.rmtree(place.work / "results")
        place.log.truncate(0)
        place.log.seek(0)

    for number in range(2):
        elsewhere(f"again{number}")
        done = place.run(f"locked={kept}") if number else batch(place, text, locked=str(kept))
        assert done.code == 0, done.text
        assert {path.name: path.read_bytes() for path in (place.root / f"again{number}").iterdir()} == made
        asked = re.findall(r'"(?:GET|HEAD) /v2/\S+/(manifests|tags|blobs)/(\S+) ', place.log.getvalue())
        assert asked and all(re.fullmatch(r"sha256:[0-9a-f]{64}", name) for _, name in asked), asked
        assert not (place.work / "results/lock.yaml").exists()  # it has nothing new to say
        assert place.run(f"locked={kept}").rules == []

    # What tags mean by now is nothing that was asked for; the other way round is.
    assert batch(place, text, refresh="true").code == 0
    assert locked(place)["demo-tiny:1.sif"] != was["demo-tiny:1.sif"]
    back = place.run(f"locked={kept}")
    assert back.code == 0
    assert (place.root / "again1/demo-tiny:1.sif").read_bytes() == made["demo-tiny:1.sif"]

    # A digest that is gone.
    elsewhere("gone")
    place.layout.path(was["demo-tiny:1.sif"]).unlink()
    failed = place.run(f"locked={kept}")
    assert failed.code == 1
    assert len(failed.errors) == 1 and was["demo-tiny:1.sif"] in failed.errors[0]
    assert states(place) == {**dict.fromkeys(made, "done"), "demo-tiny:1.sif": "failed"}


def test_a_lock_file_that_lacks_an_image_or_is_damaged(place: Place) -> None:
    assert place.run("uri=demo/tiny:1").code == 0
    path = place.work / "results/lock.yaml"
    lacks = place.run("uri=demo/multi:1", "locked=results/lock.yaml")
    assert lacks.code == 2
    assert lacks.errors == [
        f"results/lock.yaml lacks {place.host}/demo/multi:1 ({valid(place, 'summary')['images'][0]['platform']});"
        " run once without `locked`, which adds it to results/lock.yaml"
    ]
    path.write_text("version: 1\nimages: [{uri: x}]\n")
    for config in (["uri=demo/multi:1"], ["locked=results/lock.yaml"]):
        damaged = place.run(*config)
        assert damaged.code == 2
        assert len(damaged.errors) == 1 and damaged.errors[0].startswith("results/lock.yaml:2: images[0]: 'platform', 'digest',")
    assert path.read_text() == "version: 1\nimages: [{uri: x}]\n"
    assert place.names() == ["demo-tiny:1.sif"]
    both = place.run("uri=demo/tiny:1", "locked=results/lock.yaml", "refresh=true")
    assert both.code == 2 and "not both" in both.errors[0]


def test_a_run_that_is_stopped_tells_how_far_it_came(place: Place) -> None:
    place.layout.tag("demo/one:1", place.layout.image([SHARED], {"Cmd": ["/own"]}))
    # Its layer's job waits until Ctrl-C reaches it, as it reaches all processes of a terminal.
    assert place.run("uri=demo/tiny:1").code == 0
    (place.work / "hook").mkdir()
    (place.work / "hook/sitecustomize.py").write_text(
        "import sys, time\nif 'explode' in sys.orig_argv[3:5]:\n    open('waiting', 'w').close()\n    time.sleep(60)\n"
    )
    text = "images: [demo/tiny:1, 'demo/one:1']\n"
    (place.work / "batch.yaml").write_text(text)
    path = os.pathsep.join([str(place.work / "hook"), os.environ.get("PYTHONPATH", "")])
    run = subprocess.Popen(
        command(*FLAGS),
        cwd=place.work,
        env={**inherited(), **place.environ, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while not (place.work / "waiting").exists():
        assert run.poll() is None
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)
    told = run.communicate()[1].decode()
    assert run.returncode == 1
    assert states(place) == {"demo-tiny:1.sif": "unchanged", "demo-one:1.sif": "failed"}
    (reason,) = [image["reason"] for image in valid(place, "summary")["images"] if image["reason"]]
    assert reason.startswith("explode: the job was cut short; its log is logs/explode/sha256:")
    assert "2 asked for: 1 unchanged, 1 failed;" in told
    assert batch(place, text).code == 0
    assert states(place) == {"demo-tiny:1.sif": "unchanged", "demo-one:1.sif": "done"}


def test_two_runs_of_one_folder_add_to_one_lock_file(place: Place) -> None:
    # Of layers of their own: receipts are Snakemake's outputs, which it locks.
    place.layout.tag("demo/one:1", place.layout.image([SHARED], {"Cmd": ["/own"]}))
    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(place.run, ("uri=demo/tiny:1", "uri=demo/one:1")))
    assert [run.code for run in runs] == [0, 0], [run.text[-2000:] for run in runs]
    assert locked(place).keys() == {"demo-tiny:1.sif", "demo-one:1.sif"}
    assert len(states(place)) == 1


def test_what_can_not_be_told_is_a_failure(place: Place) -> None:
    (place.work / "results/summary.json").mkdir(parents=True)
    run = place.run("uri=demo/tiny:1")
    assert run.code == 1
    (line,) = [line for line in run.text.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: can't write ") and "summary.json" in line
    assert place.names() == ["demo-tiny:1.sif"]


def test_less_is_said_where_less_is_asked_for(place: Place) -> None:
    run = place.run("uri=[demo/tiny:1,demo/multi:1]", MESSAGELEVEL="ERROR")
    assert run.code == 0 and "asked for" not in run.text
    assert valid(place, "summary")["counts"]["done"] == 2
