"""The rule graph, run by the real Snakemake against our own registry server.

What is checked here is what runs when, and what is said when something is wrong; that the images are
right is checked elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sregistry.catalog.catalog import Catalog
from tests.support import forked
from tests.support.images import Layer, layer, lazy
from tests.support.place import Place
from tests.support.snakemake import ALL, NOTHING, WORKFLOW, command, inherited, snakemake
from tests.support.tarball import directory, file


def test_one_image(place: Place) -> None:
    plan = place.run("uri=demo/tiny:1", flags=("-n",))
    assert (plan.code, plan.rules) == (0, ["manifest", "manifests", "image", "catalog"])  # what of is not known
    assert place.asked("manifests") == []
    first = place.run("uri=demo/tiny:1")
    assert first.code == 0, first.text
    assert sorted(first.rules) == sorted(ALL)
    assert "[container][new] demo/tiny:1\n" in first.text
    assert f"Success! {place.images}/demo-tiny:1.sif" in first.text
    for stage in ("layer", "explode"):
        assert re.search(rf"^{stage} sha256:[0-9a-f]{{12}}: \d+\.\d kB in \d+\.\d s, .*B/s$", first.text, re.MULTILINE)
    assert re.search(rf"^image demo/tiny:1: .*B/s, {place.images}/demo-tiny:1.sif$", first.text, re.MULTILINE)
    assert "reason:" not in first.text and "benchmark:" not in first.text
    assert place.names() == ["demo-tiny:1.sif"]
    assert place.uris() == ["demo/tiny:1"]
    second = place.run("uri=demo/tiny:1")
    assert (second.code, second.rules) == (0, [])
    assert NOTHING in second.text
    for folder in ("results", "logs", "benchmarks"):
        assert (place.work / folder).is_dir()


def test_what_is_gone_comes_back(place: Place) -> None:
    assert place.run("uri=demo/tiny:1").code == 0
    image = place.images / "demo-tiny:1.sif"
    before = image.read_bytes()

    image.unlink()
    assert place.run("uri=demo/tiny:1").rules == ["image", "catalog"]
    assert image.read_bytes() == before

    image.write_bytes(b"half")
    assert place.run("uri=demo/tiny:1").rules == ["image", "catalog"]
    assert image.read_bytes() == before

    (place.root / "cache").rename(place.root / "gone")
    assert NOTHING in place.run("uri=demo/tiny:1").text  # the image is there, and needs nothing more
    image.unlink()
    again = place.run("uri=demo/tiny:1")
    assert sorted(again.rules) == sorted(set(ALL) - {"manifest", "manifests"})
    assert image.read_bytes() == before

    image.unlink()
    shutil.rmtree(place.root / "cache/docker/exploded")
    assert place.run("uri=demo/tiny:1").code == 0
    assert image.read_bytes() == before

    (place.root / "database/sregistry.json").unlink()
    assert place.run("uri=demo/tiny:1").rules == ["catalog"]
    assert place.uris() == ["demo/tiny:1"]


def test_a_setting_that_changes(place: Place) -> None:
    assert place.run("uri=demo/tiny:1").code == 0
    elsewhere = place.run("uri=demo/tiny:1", SREGISTRY_STORAGE=str(place.root / "other"))
    assert elsewhere.rules == ["image", "catalog"]
    assert (place.root / "other/demo-tiny:1.sif").read_bytes() == (place.images / "demo-tiny:1.sif").read_bytes()
    assert place.run(
        "uri=demo/tiny:1", SREGISTRY_DATABASE=str(place.root / "other"), SREGISTRY_STORAGE=str(place.root / "other")
    ).rules == ["catalog"]
    # Another image of the same name takes its place, and the first one knows.
    assert place.run("uri=demo/tiny:1", "compression={level: fast}", SREGISTRY_STORAGE=str(place.root / "other")).code == 0
    assert place.run("uri=demo/tiny:1", SREGISTRY_STORAGE=str(place.root / "other")).rules[0] == "image"
    assert place.run("uri=demo/tiny:1", "format=simg").code == 0
    assert place.run("uri=demo/tiny:1", "format=sandbox").code == 0
    assert place.names() == ["demo-tiny:1", "demo-tiny:1.sif", "demo-tiny:1.simg"]
    assert (place.images / "demo-tiny:1/etc/name").read_text() == "tiny"


def test_refresh(place: Place) -> None:
    assert place.run("uri=demo/tiny:1").code == 0
    image = place.images / "demo-tiny:1.sif"
    before = image.stat().st_mtime_ns
    place.asked("manifests")
    assert place.run("uri=demo/tiny:1").rules == []
    assert place.asked("manifests") == []  # pinned

    for config, flags in ((["refresh=true"], ()), ([], ("--forcerun", "manifest"))):
        again = place.run("uri=demo/tiny:1", *config, flags=flags)
        assert again.code == 0
        assert again.rules == ["manifest", "manifests"]  # asked, and nothing rebuilt
        assert place.asked("manifests") == ["1"]
        assert NOTHING in place.run("uri=demo/tiny:1").text
    assert image.stat().st_mtime_ns == before

    failed = place.run("uri=demo/tiny:1", "refresh=true", SREGISTRY_NVIDIA_VERSION="v3")
    assert failed.code == 1
    assert len(failed.errors) == 1
    assert place.run("uri=demo/tiny:1").rules in ([], ["manifests"])  # still pinned, still whole
    assert image.stat().st_mtime_ns == before

    place.layout.tag("demo/tiny:1", place.layout.image([layer([file(b"new", b"new")])], {"Cmd": ["/bin/true"]}))
    assert NOTHING in place.run("uri=demo/tiny:1").text
    moved = place.run("uri=demo/tiny:1", "refresh=yes")
    assert sorted(moved.rules) == sorted(ALL)
    assert "[container][update] demo/tiny:1" in moved.text
    assert image.stat().st_mtime_ns != before


def test_a_digest_is_not_asked_again(place: Place) -> None:
    digest = place.layout.tags()["demo/tiny:1"]["digest"]
    assert place.run(f"uri=demo/tiny@{digest}").code == 0
    assert place.names() == [f"demo-tiny@{digest}.sif"]
    assert place.run(f"uri=demo/tiny@{digest}", "refresh=true").rules == []


def test_many_images_share_layers_and_failures_are_their_own(place: Place) -> None:
    shared = layer([file(b"shared", b"shared")])
    for number in range(4):
        own = layer([file(b"own", str(number).encode())])
        place.layout.tag(f"demo/many:{number}", place.layout.image([shared, own, shared], {"Cmd": ["/own"]}))
    uris = [*(f"demo/many:{number}" for number in range(4)), "demo/none:1"]
    done = place.run(f"uri=[{','.join(uris)}]")
    assert done.code == 1
    assert place.names() == [f"demo-many:{number}.sif" for number in range(4)]
    assert done.rules.count("layer") == done.rules.count("explode") == 5
    assert len(place.asked("blobs")) == 5 + 4  # layers once, and a config each
    assert len(done.errors) == 1
    assert "demo/none:1" in done.errors[0]
    assert done.rules.count("manifests") == 1

    again = place.run(f"uri=[{','.join(uris)}]")
    assert again.code == 1
    assert (len(again.errors), again.rules) == (1, ["manifest", "manifests", "metadata"])  # asked anew, alone
    assert place.run(f"uri=[{','.join(uris[:2])}]").code == 0  # another set, another gathering
    assert len(place.uris()) == 4


def test_an_image_that_is_wrong_about_a_shared_layer_fails_alone(place: Place) -> None:
    shared = layer([file(b"shared", b"shared")])
    place.layout.tag("demo/a-bad:1", place.layout.image([shared], {"Cmd": ["/a"]}, diff_ids=[f"sha256:{'0' * 64}"]))
    place.layout.tag("demo/good:1", place.layout.image([shared], {"Cmd": ["/b"]}))
    done = place.run("uri=[demo/a-bad:1,demo/good:1]")
    assert (done.code, place.names(), len(done.errors)) == (1, ["demo-good:1.sif"], 1), done.text
    assert re.fullmatch(r"demo/a-bad:1: layer sha256:\w+ has diff_id sha256:\w+, not sha256:0+ as its config says", done.errors[0])


def test_a_tag_that_was_published_wrongly_is_asked_again(place: Place) -> None:
    wrong = layer([file(b"a", b"a")])
    place.layout.tag("demo/repaired:1", place.layout.image([wrong], {"Cmd": ["/a"]}, diff_ids=[f"sha256:{'0' * 64}"]))
    assert place.run("uri=[demo/repaired:1,demo/tiny:1]").code == 1
    place.layout.tag("demo/repaired:1", place.layout.image([wrong], {"Cmd": ["/a"]}))
    place.asked("manifests")
    assert place.run("uri=[demo/repaired:1,demo/tiny:1]").code == 0
    assert place.asked("manifests") == ["1"]  # nobody asks for the other one again
    assert place.names() == ["demo-repaired:1.sif", "demo-tiny:1.sif"]
    place.layout.tag("demo/repaired:1", place.layout.tags()["demo/tiny:1"])
    assert NOTHING in place.run("uri=[demo/repaired:1,demo/tiny:1]").text  # what was made is pinned


def test_images_of_the_file_and_of_the_command_line(place: Place) -> None:
    place.layout.tag("demo/other:1", place.layout.tags()["demo/tiny:1"])
    (place.work / "config").mkdir()
    config = place.work / "config/config.yaml"
    config.write_text(f"images: [demo/tiny:1, {{uri: demo/other:1, name: mine, format: simg}}]\nstorage: {place.root / 'file'}\n")
    assert place.run(flags=("-n",), SREGISTRY_STORAGE="").rules.count("image") == 2
    assert place.run("uri=demo/other:1").code == 0
    assert place.names() == ["demo-other:1.sif"]  # one key goes before the other, the variable before the file
    assert place.run(f"storage={place.root / 'given'}", flags=("-n",)).rules.count("image") == 2
    assert place.run().code == 0
    assert place.names() == ["demo-other:1.sif", "demo-tiny:1.sif", "mine.simg"]
    given = place.root / "given.yaml"
    given.write_text(f"uri: demo/tiny:1\nstorage: {place.root / 'given'}\n")
    assert place.run(flags=("--configfile", str(given))).code == 0
    assert [path.name for path in (place.root / "given").iterdir()] == ["demo-tiny:1.sif"]


def test_without_a_catalog(place: Place) -> None:
    done = place.run("uri=demo/tiny:1", SREGISTRY_DISABLE="yes")
    assert done.code == 0
    assert "catalog" not in done.rules
    assert (place.work / "demo-tiny:1.sif").is_file()
    assert not (place.root / "database").exists()


@pytest.mark.parametrize(
    ("config", "environ", "line"),
    [
        (["urii=demo/tiny:1"], {}, "config: unknown key 'urii'; did you mean uri?"),
        (["uri=17.10"], {}, "config: uri: expected text or a list, got the number 17.1; quote it"),
        (["uri=a/b"], {"SREGISTRY_PYTHON_THREADS": "x"}, "SREGISTRY_PYTHON_THREADS: expected a whole number, got 'x'"),
        ([], {}, "no image is asked for; name one: snakemake --config uri=nvidia/caffe2:17.10"),
    ],
    ids=["key", "type", "variable", "nothing"],
)
def test_bad_usage_is_one_line(place: Place, config: list[str], environ: dict[str, str], line: str) -> None:
    done = place.run(*config, flags=("-n",), **environ)
    assert done.code == 2
    assert len(done.errors) == 1, done.text
    assert line in done.errors[0]
    assert done.text.rstrip().splitlines()[-1] == f"error: {done.errors[0]}"


def test_storage_that_can_not_be_written(place: Place) -> None:
    (place.root / "file").write_text("")
    done = place.run("uri=demo/tiny:1", SREGISTRY_STORAGE=str(place.root / "file" / "x"))
    assert done.code == 1
    assert len(done.errors) == 1, done.text
    assert str(place.root / "file") in done.errors[0]


def test_a_damaged_catalog(place: Place) -> None:
    (place.root / "database").mkdir()
    (place.root / "database/sregistry.json").write_text("{")
    done = place.run("uri=demo/tiny:1")
    assert done.code == 1
    assert len(done.errors) == 1
    assert "is damaged" in done.errors[0]


def test_no_secret_anywhere(place: Place) -> None:
    done = place.run("uri=demo/tiny:1", flags=("--printshellcmds", "--verbose"), SREGISTRY_NVIDIA_TOKEN="sec" + "ret-token")
    assert done.code == 0, done.text
    assert "secret-token" not in done.text
    for path in place.root.rglob("*"):
        if path.is_file():
            assert b"secret-token" not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("config", "flags"), [(["connections=2"], ()), ([], ("--resources", "network=2"))], ids=["connections", "resources"]
)
def test_downloads_at_a_time(place: Place, config: list[str], flags: tuple[str, ...], tmp_path: Path) -> None:
    # Only the scheduler can be seen here, so the stage command is replaced by one that notes its start and end.
    layers = [layer([file(f"l{number}".encode(), b"x" * number)]) for number in range(7)]
    place.layout.tag("demo/wide:1", place.layout.image(layers, {"Cmd": ["/x"]}))
    note = tmp_path / "note"
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(
        "import atexit, sys, time\n"
        "if 'layer' in sys.orig_argv[3:5]:\n"
        f"    note = lambda what: open({str(note)!r}, 'a').write(what + '\\n')\n"
        "    note('+'); time.sleep(0.3); atexit.register(note, '-')\n"
    )
    done = place.run("uri=demo/wide:1", *config, flags=flags, PYTHONPATH=str(hook))
    assert done.code == 0, done.text
    running = most = 0
    for line in note.read_text().split():
        running += 1 if line == "+" else -1
        most = max(most, running)
    assert (running, most) == (0, 2)


def test_cut_short(place: Place) -> None:
    """A run that is killed leaves no half image, and the next one ends it."""
    blob = layer([file(b"big", os.urandom(3 << 20))])
    place.layout.tag("demo/big:1", place.layout.image([blob], {"Cmd": ["/x"]}))
    process = subprocess.Popen(
        command(config=["uri=demo/big:1"]),
        cwd=place.work,
        env={**inherited(), **place.environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 30
    while not list((place.work / "results").glob("layer/*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, 9)
    process.wait()
    assert not place.images.exists() or not [name for name in place.names() if not name.startswith(".")]
    assert place.run("uri=demo/big:1", flags=("--unlock",)).code == 0
    assert place.run("uri=demo/big:1").code == 0
    assert place.names() == ["demo-big:1.sif"]


def test_lint() -> None:
    done = snakemake(command("--lint", snakefile=None), WORKFLOW.parent, {})
    assert done.code == 0, done.text
    assert "Congratulations" in done.text


def test_an_image_without_layers_of_its_own(place: Place) -> None:
    empty = Layer(tar=bytes(1024), blob=layer(bytes(1024)).blob, media_type=layer(b"").media_type)
    place.layout.tag("demo/empty:1", place.layout.image([empty, empty], {"Cmd": ["/x"]}))
    assert place.run("uri=demo/empty:1").code == 0
    batch = [json.loads(path.read_text()) for path in (place.work / "results/batch").iterdir()]
    assert [len(layers) for value in batch for layers in value["layers"].values()] == [1]


def test_zstd_is_warned_of_once(place: Place) -> None:
    run = place.run("uri=demo/tiny:1", "compression={codec: zstd}")
    assert run.code == 0
    warned = re.findall(r"^warning: .*", run.text, re.MULTILINE)
    assert len(warned) == 1 and warned[0].startswith("warning: compression.codec: zstd: "), run.text
    assert "warning: " not in place.run("uri=demo/tiny:1").text


def test_a_missing_program_is_told_before_anything_is_asked(place: Place, tmp_path: Path) -> None:
    if any(Path(folder, name).exists() for folder in ("/usr/local/sbin", "/usr/sbin", "/sbin") for name in ("apptainer", "singularity")):
        pytest.skip("the machine has a runtime outside of PATH")
    # Plugins of Snakemake that are installed look around when they are loaded, with this one program.
    (folder := tmp_path / "programs").mkdir()
    (folder / "which").symlink_to(shutil.which("which") or "/usr/bin/which")
    run = place.run("uri=demo/tiny:1", "builder=singularity", PATH=str(folder))
    assert run.code == 1
    assert run.text.splitlines()[-1].startswith("error: builder: singularity: no program apptainer or singularity on PATH")
    assert (place.asked("manifests"), place.asked("blobs"), list(place.work.glob("results/*"))) == ([], [], [])


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder with a mksquashfs that is too old."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "mksquashfs").write_text("#!/bin/sh\necho 'mksquashfs version 4.2 (2011)'\n")
    (folder / "mksquashfs").chmod(0o755)
    return folder


def test_another_builder_that_fails_is_tried_again(place: Place, programs: Path) -> None:
    path = f"{programs}:{os.environ['PATH']}"
    for _ in range(2):
        run = place.run("uri=demo/tiny:1", "builder=mksquashfs", PATH=path)
        assert (run.code, run.rules[-1]) == (1, "image")
        assert run.errors == [f"{programs}/mksquashfs is version 4.2, builder: mksquashfs needs 4.5, which reads tar; "
                              "install a newer one, or choose builder: native"]  # fmt: skip
        assert place.names() == []


def test_threads_follow_the_cores(place: Place, programs: Path) -> None:
    """A native image is one job of one core; another builder gets all."""
    for builder, threads in (("native", 1), ("mksquashfs", 2)):
        run = place.run("uri=demo/tiny:1", f"builder={builder}", flags=("-n", "--cores", "2"), PATH=f"{programs}:{os.environ['PATH']}")
        assert run.code == 0 and re.search(rf"^Job \d+: image .*, threads: {threads}$", run.text, re.MULTILINE), run.text


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_an_image_of_schema_1(place: Place, signed: bool) -> None:
    """It becomes the image that schema 2 makes of the same layers, and says where it is from."""
    layers = [
        layer([directory(b"etc"), file(b"etc/name", b"old"), file(b"gone")]),
        layer([file(b".wh.gone"), file(b"big", b"x" * 300_000)]),
    ]
    place.layout.tag("demo/old:1", place.layout.schema1(layers, {"Cmd": ["/bin/true"], "Env": ["A=old"]}, signed=signed))
    digest = place.layout.tags()["demo/old:1"]["digest"]
    done = place.run("uri=demo/old:1", "format=sandbox")
    assert done.code == 0, done.text
    assert sorted(done.rules) == sorted([*ALL, "layer", "explode"])
    assert len(place.asked("blobs")) == 2  # neither config nor throw-away layers
    root = place.images / "demo-old:1"
    assert ((root / "etc/name").read_text(), (root / "big").stat().st_size, (root / "gone").exists()) == ("old", 300_000, False)
    assert "A=old" in (root / ".singularity.d/env/10-docker2singularity.sh").read_text().replace('"', "").replace("'", "")
    assert NOTHING in place.run("uri=demo/old:1", "format=sandbox").text
    catalog = Catalog(place.root / "database")
    (record,) = catalog.records()
    assert (record.digest, record.compressed_size) == (digest, 0)
    manifest = catalog.metrics(record)["1"]
    assert manifest["schemaVersion"] == 1 and "signatures" not in manifest

    # The same layers of an image of schema 2 are there already, fetched and exploded.
    place.layout.tag("demo/new:1", place.layout.image(layers, {"Cmd": ["/bin/true"]}, docker=True))
    before = sorted((place.root / "cache/docker/exploded").glob("*/*"))
    assert place.run("uri=[demo/new:1,demo/old:1]").code == 0
    assert set(before) < set((place.root / "cache/docker/exploded").glob("*/*"))
    assert len(place.asked("blobs")) == 1  # the config
    assert place.run(f"uri=demo/old@{digest}").code == 0


def test_a_signed_manifest_of_other_content_is_refused(place: Place) -> None:
    entry = place.layout.schema1([layer([file(b"f")])], signed=True)
    other = place.layout.schema1([layer([file(b"g")])], signed=True)
    place.layout.tag("demo/old:1", entry)
    place.layout.path(entry["digest"]).write_bytes(place.layout.path(other["digest"]).read_bytes())
    done = place.run(f"uri=demo/old@{entry['digest']}")
    assert (done.code, len(done.errors)) == (1, 1), done.text
    assert "sends another manifest" in done.errors[0]


def test_a_sif_in_the_registry(place: Place) -> None:
    """It is published as it is: no metadata, no sandbox, and no format but sif."""
    assert place.run("uri=demo/tiny:1").code == 0
    made = (place.images / "demo-tiny:1.sif").read_bytes()
    place.layout.tag("demo/sif:1", place.layout.sif(made))
    done = place.run("uri=demo/sif:1")
    assert done.code == 0, done.text
    assert done.rules == ["manifest", "manifests", "layer", "image", "catalog"]
    target = place.images / "demo-sif:1.sif"
    assert target.read_bytes() == made
    catalog = Catalog(place.root / "database")
    record = catalog.records()[-1]
    assert (record.uri, record.version, record.size, record.format) == ("demo/sif:1", hashlib.sha256(made).hexdigest(), len(made), "sif")
    assert "sylabs.sif" in json.dumps(catalog.metrics(record)["2"])
    assert NOTHING in place.run("uri=demo/sif:1").text
    target.unlink()
    assert place.run("uri=demo/sif:1").rules == ["image", "catalog"]
    assert target.read_bytes() == made

    place.asked("blobs")
    refused = place.run("uri=demo/sif:1", "format=simg")
    assert (refused.code, refused.rules, place.asked("blobs")) == (1, ["manifest", "manifests", "image"], [])
    assert refused.errors == ["demo/sif:1 is a SIF in the registry already, and can't become simg; choose format: sif"]


def test_an_artifact_that_only_says_that_it_is_a_sif(place: Place) -> None:
    place.layout.tag("demo/sif:1", place.layout.sif(b"no SIF" * 100, "appliciation/vnd.sylabs.sif.layer.tar"))
    done = place.run("uri=[demo/sif:1,demo/tiny:1]")
    assert (done.code, place.names()) == (1, ["demo-tiny:1.sif"])
    assert len(done.errors) == 1 and done.errors[0].startswith("demo/sif:1: no SIF image: expected SIF_MAGIC at 32"), done.text


def test_layers_for_lazy_loading(place: Place) -> None:
    lazy(place.layout)
    names = ["estargz", "stargz", "annotated", "gzip", "zstd-chunked"]
    done = place.run(f"uri=[{','.join(f'demo/lazy:{name}' for name in names)}]", "format=sandbox")
    assert done.code == 0, done.text
    for number, name in enumerate(names):
        root = place.images / f"demo-lazy:{name}"
        assert (root / "data/stargz.index.json").read_text() == "a file of the image"
        assert (root / "stargz.index.json").exists() == (root / ".no.prefetch.landmark").exists() == (number >= 3)


def test_a_layer_over_the_limit(place: Place) -> None:
    done = place.run("uri=demo/tiny:1", "layer_limit=1000")
    assert (done.code, len(done.errors)) == (1, 1), done.text
    assert re.fullmatch(r"layer sha256:\w+: more than 1000 bytes uncompressed, the layer_limit; raise layer_limit if you trust the image",
                        done.errors[0])  # fmt: skip
    for module in ("isal", "deflate"):  # what lies in the working folder is no part of the program
        (place.work / f"{module}.py").write_text("raise SystemExit('planted')")
    done = place.run("uri=demo/tiny:1")
    assert done.code == 0, done.text
    assert NOTHING in place.run("uri=demo/tiny:1", "layer_limit=1000").text  # it says what is refused, not what is made


ODD = "a{b}c { 'q\" $HOME %s * [x] ü ; & \\ -lead"


def test_folders_of_any_name(place: Place) -> None:
    work, made = place.root / ODD, {}
    for name in ("SREGISTRY_STORAGE", "SREGISTRY_DATABASE", "SINGULARITY_CACHEDIR", "SREGISTRY_TMPDIR", "TMPDIR"):
        made[name] = place.root / name / ODD
        made[name].mkdir(parents=True)
    place.work.rename(work)
    given = {**place.environ, **{name: str(path) for name, path in made.items()}}
    environ = {**{name: value for name, value in os.environ.items() if not name.startswith(("SREGISTRY_", "SINGULARITY_"))}, **given}
    start = ["--snakefile", str(WORKFLOW / "Snakefile")]
    asked = ["--config", "uri=demo/tiny:1"]
    for code, text in forked.each([[*start, *asked], [*start, "--report", "report.html", *asked]], work, environ):
        assert code == 0, text
    assert (made["SREGISTRY_STORAGE"] / "demo-tiny:1.sif").is_file()
    assert [record.uri for record in Catalog(made["SREGISTRY_DATABASE"]).records()] == ["demo/tiny:1"]


@pytest.mark.parametrize("name", ["new\nline", "a\x1b[31m", "tab\there", "\udcff"], ids=["line", "escape", "tab", "bytes"])
def test_a_folder_whose_name_is_refused(place: Place, name: str) -> None:
    done = place.run("uri=demo/tiny:1", flags=("-n",), SREGISTRY_DATABASE=str(place.root / name))
    assert done.code == 2
    (line,) = done.errors
    assert line.startswith("SREGISTRY_DATABASE: '/") and line.endswith(
        "is no folder name; choose one in UTF-8, without line ends and control characters"
    )


def test_a_user_without_a_name(place: Place) -> None:
    alone = ["unshare", "--user", "--map-user=12345", "--map-group=12345"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs user namespaces")
    names = {"LOGNAME", "USER", "LNAME", "USERNAME"}
    environ = {name: value for name, value in inherited().items() if name not in names}
    environ |= {**place.environ, "HOME": str(place.root / "home"), "XDG_STATE_HOME": str(place.root / "state")}
    for words in (command(config=["uri=demo/tiny:1"]), [sys.executable, "-m", "sregistry.cli", "pull", "demo/tiny:1"]):
        done = subprocess.run([*alone, *words], cwd=place.work, env=environ, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert place.names() == ["demo-tiny:1.sif"]


def test_a_configuration_file_that_is_no_yaml(place: Place) -> None:
    (place.work / "config").mkdir()
    (place.work / "config/config.yaml").write_text("uri: demo/tiny:1\nstorage: [\n")
    done = place.run(flags=("-n",))
    assert done.code == 2
    (line,) = done.errors  # the reason is the parser's, libyaml or PyYAML's own
    assert line.startswith("config/config.yaml:3: this is no YAML: ")


def test_another_image_s_file_is_refused(place: Place) -> None:
    """A plan says so too; where others are asked for beside it, they are made, and its layers are not fetched."""
    place.layout.tag("a/b-c:1", place.layout.tags()["demo/tiny:1"])
    place.layout.tag("a-b/c:1", place.layout.image([layer([file(b"x", b"x")])], {}))
    assert place.run("uri=a/b-c:1").code == 0
    image = place.images / "a-b-c:1.sif"
    before = image.read_bytes()
    says = f"{image} holds {place.host}/a/b-c:1 (linux/amd64, sif), not {place.host}/a-b/c:1 (linux/amd64, sif); "
    for flags in ((), ("-n",)):
        run = place.run("uri=a-b/c:1", flags=flags)
        lines = run.text.splitlines()
        assert (run.code, run.rules, [line for line in lines if line.startswith("error: ")]) == (1, [], lines[-1:])
        assert lines[-1].startswith(f"error: {says}") and "force: yes" in lines[-1]
    place.asked("blobs")
    run = place.run("uri=[a-b/c:1,demo/tiny:1]")
    assert run.code == 1 and len(run.errors) == 1 and says in run.errors[0]
    assert place.asked("blobs") == [], "what there is, both others have"
    assert (image.read_bytes(), place.uris()) == (before, ["a/b-c:1", "demo/tiny:1"])
    assert place.run("uri=a-b/c:1", "force=yes").code == 0
    assert (image.read_bytes() != before, place.uris()) == (True, ["demo/tiny:1", "a-b/c:1"])


def test_names_by_a_template(place: Place) -> None:
    run = place.run("uri=demo/tiny:1", "filename={client}_{name}_{tag}_{architecture}.{format}")
    assert (run.code, place.names()) == (0, ["nvidia_tiny_1_amd64.sif"])
    run = place.run("uri=demo/tiny:1", "filename=x-{repository}")
    assert run.code == 2 and "error: filename: {repository} is unknown; fields: {client} {registry} " in run.text


def test_what_comes_while_a_job_runs_stays(place: Place) -> None:
    """The job of the image asks once more: what it was planned for is another matter by then."""
    assert place.run("uri=demo/tiny:1").code == 0
    (place.images / "demo-tiny:1.sif").write_text("notes")
    (results,) = (place.work / "results").glob("demo-tiny-1-*")
    command = [sys.executable, "-m", "sregistry.stages", "image", "--manifest", "manifest.json", "--metadata", "metadata.json"]
    command += ["--sandbox", "sandbox.index", "--format", "sif", "--target", str(place.images / "demo-tiny:1.sif"), "--output", "i.json"]
    done = subprocess.run(command, cwd=results, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith("error: ") and "nothing tells which image it is" in done.stderr
    assert ((place.images / "demo-tiny:1.sif").read_text(), (results / "i.json").exists()) == ("notes", False)
