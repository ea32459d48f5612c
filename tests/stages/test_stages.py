"""The stage commands by hand, one after the other: their receipts, their errors, and how fast they start."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sregistry.errors import (
    AuthenticationError,
    ConfigError,
    DigestMismatch,
    DocumentError,
    ImageError,
    LayerError,
    RegistryError,
    SregistryError,
    StoreError,
    TransferError,
    UnavailableError,
)
from sregistry.results import failures, receipts
from sregistry.results.paths import Results
from sregistry.stages.__main__ import main
from tests.support.images import Layout, layer
from tests.support.registry import serving
from tests.support.tarball import file

WORDS = ["--codec", "gzip", "--level", "default", "--block-size", "131072"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory, and a registry that SREGISTRY_NVIDIA_BASE names."""
    layout = Layout(tmp_path / "layout")
    shared = layer([file(b"shared", b"shared")])
    layout.tag("demo/one:1", layout.image([shared, layer([file(b"own", b"own")]), shared], {"Cmd": ["/own"]}))
    with serving(layout) as server:
        monkeypatch.setenv("SREGISTRY_NVIDIA_BASE", server.address)
        monkeypatch.setenv("SREGISTRY_NVIDIA_NOHTTPS", "yes")
        monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
        monkeypatch.chdir(tmp_path)
        yield tmp_path


def stage(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def resolve(uri: str = "demo/one:1", output: str = "r/manifest.json") -> dict[str, Any]:
    assert stage("manifest", "--uri", uri, "--client", "nvidia", "--platform", "linux/amd64", "--cache", "cache", "--output", output) == 0
    return receipts.read(Path(output))


def fail(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    code = stage(*arguments)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert (code in (1, 2), out, len(lines)) == (True, "", 1), err
    assert lines[0].startswith("error: ")
    return lines[0]


def test_all(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = resolve()
    digests = [item["digest"] for item in manifest["layers"]]
    assert stage("manifests", "r/manifest.json", "--output", "batch.json") == 0
    assert receipts.read(Path("batch.json"))["layers"] == {"r": digests[:2]}

    exploded = []
    for number, digest in enumerate(digests[:2]):
        one, two = f"layer{number}.json", f"explode{number}.json"
        assert stage("layer", "--manifest", "r/manifest.json", "--digest", digest, "--cache", "cache", "--output", one) == 0
        made = receipts.read(Path(one))
        assert made["holds"] == [{"path": f"cache/docker/blobs/sha256/{digest[7:]}", "size": made["size"]}]
        assert (made["digest"], made["store"]) == (digest, "cache/docker")
        assert stage("explode", "--layer", one, "--cache", "cache", *WORDS, "--threads", 2, "--output", two) == 0
        assert not receipts.stale(receipts.Vouched.read(Path(two)).holds)
        exploded.append(two)

    metadata = ["--tar", "metadata.tar", "--output", "metadata.json"]
    assert stage("metadata", "--manifest", "r/manifest.json", "--cache", "cache", *WORDS, *metadata) == 0
    assert Path("metadata.tar").stat().st_size
    # Receipts in any order: the manifest knows the layers'.
    assert (
        stage("sandbox", "--manifest", "r/manifest.json", "--metadata", "metadata.json", "--output", "sandbox.index", *exploded[::-1]) == 0
    )
    image = ["image", "--manifest", "r/manifest.json", "--metadata", "metadata.json", "--sandbox", "sandbox.index", "--format", "sif"]
    target = root / "new" / "folder" / "image.sif"
    assert stage(*image, "--target", target, "--output", "image.json") == 0
    made = receipts.read(Path("image.json"))
    assert made["holds"] == [{"path": str(target), "size": target.stat().st_size, "mtime_ns": target.stat().st_mtime_ns}]

    capsys.readouterr()
    record = ["catalog", "--manifest", "r/manifest.json", "--image", "image.json", "--database", "db", *WORDS, "--output", "record.json"]
    assert stage(*record) == 0
    assert capsys.readouterr().out == f"[container][new] demo/one:1\nSuccess! {target}\n"
    assert stage(*record) == 0
    assert capsys.readouterr().out.startswith("[container][update] demo/one:1\n")
    assert {item["path"] for item in receipts.read(Path("record.json"))["holds"]} == {str(target), "db/sregistry.json"}
    kept = json.loads(Path("db/sregistry.json").read_bytes())["images"]["1"]
    assert kept["digest"] == manifest["digest"]
    assert (kept["facts"]["architecture"], kept["made"]["builder"], kept["made"]["name"]) == ("amd64", "native", "image.sif")


def test_a_sif_and_what_is_none(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Layout(root / "layout").tag("demo/sif:1", Layout(root / "layout").sif(b"no SIF" * 100))
    manifest = resolve("demo/sif:1")
    assert stage("manifests", "r/manifest.json", "--output", "batch.json") == 0
    assert receipts.read(Path("batch.json"))["sifs"] == ["r"]
    metadata = ["metadata", "--manifest", "r/manifest.json", "--cache", "cache", *WORDS, "--tar", "m.tar", "--output", "m.json"]
    assert "demo/sif:1 is a SIF already" in fail(capsys, *metadata)
    image = ["image", "--manifest", "r/manifest.json", "--target", root / "x.sif", "--output", "image.json"]
    assert "--sif is needed" in fail(capsys, *image, "--format", "sif")
    assert "can't become simg; choose format: sif" in fail(capsys, *image, "--format", "simg")
    digest = manifest["layers"][0]["digest"]
    assert stage("layer", "--manifest", "r/manifest.json", "--digest", digest, "--cache", "cache", "--output", "layer.json") == 0
    assert "demo/sif:1: no SIF image: expected SIF_MAGIC" in fail(capsys, *image, "--format", "sif", "--sif", "layer.json")
    assert not (root / "x.sif").exists()


def test_equal_input_gives_equal_receipts(root: Path) -> None:
    resolve(output="a.json")
    resolve(output="b.json")
    assert Path("a.json").read_bytes() == Path("b.json").read_bytes()


def test_an_image_that_is_not_there_fails_later(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused = resolve("demo/none:1")
    assert refused["uri"] == "demo/none:1"
    assert "demo/none:1" in refused["error"]
    assert stage("manifests", "r/manifest.json", "--output", "batch.json") == 0
    assert receipts.read(Path("batch.json")) == {"layers": {"r": []}, "sizes": {}, "sources": {}, "sifs": []}
    metadata = ["metadata", "--manifest", "r/manifest.json", "--cache", "cache", *WORDS, "--tar", "m.tar", "--output", "m.json"]
    assert fail(capsys, *metadata) == f"error: {refused['error']}"
    assert not Path("r/manifest.json").exists()  # the next run asks again
    assert not Path("m.json").exists()


def test_a_failed_refresh_keeps_what_was_known(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    resolve(output="results/r/manifest.json")
    before = Path("results/r/manifest.json").read_text()
    monkeypatch.setenv("SREGISTRY_NVIDIA_BASE", "127.0.0.1:1")
    for _ in range(2):  # a second failure does not lose it
        resolve(output="results/r/manifest.json")
    assert "error" in receipts.read(Path("results/r/manifest.json"))
    fail(
        capsys,
        "metadata",
        "--manifest",
        "results/r/manifest.json",
        "--cache",
        "cache",
        *WORDS,
        "--tar",
        "m.tar",
        "--output",
        "results/r/metadata.json",
    )
    assert Path("results/r/manifest.json").read_text() == before
    assert failures.unmade(Results(), [("r", "v")]) == set()  # nothing is known against it
    failure = failures.Failure.look(Path("results/r/metadata.json"))
    assert failure is not None and (failure.cause, failure.exit_code) == (failures.HERE, 1) and "127.0.0.1:1" in failure.error


class Sharing:
    """Images that share a layer: `good`, and others that say something wrong of it."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root / "layout")
        self.shared, self.other = layer([file(b"shared", b"shared")]), layer([file(b"other", b"other")])
        self.layout.tag("demo/good:1", self.layout.image([self.shared]))
        self.layout.tag("demo/other:1", self.layout.image([self.other]))
        self.layout.tag("demo/diff-id:1", self.layout.image([self.shared], diff_ids=[self.other.diff_id]))
        for name in ("good", "other", "diff-id"):
            resolve(f"demo/{name}:1", f"results/{name}/manifest.json")
        self.write("size", layers={"size": len(self.shared.blob) + 7})
        self.write("refused", repository="demo/nobody")
        self.write("schema1", layers={"diff_id": None, "size": None})
        self.digest = receipts.read(Path("results/good/manifest.json"))["layers"][0]["digest"]

    def write(self, name: str, layers: dict[str, Any] | None = None, **changes: Any) -> None:
        value = receipts.read(Path("results/good/manifest.json"))
        value["layers"] = [{**item, **(layers or {})} for item in value["layers"]]
        receipts.write(Path(f"results/{name}/manifest.json"), {**value, **changes, "uri": f"demo/{name}:1"})

    def layer(self, *names: str) -> int:
        manifests = [f"results/{name}/manifest.json" for name in names]
        output = f"results/layer/{self.digest}.json"
        return stage("layer", "--manifest", *manifests, "--digest", self.digest, "--cache", "cache", "--output", output)

    def explode(self, *names: str, digest: str | None = None) -> int:
        digest = digest or self.digest
        manifests = [f"results/{name}/manifest.json" for name in names]
        paths = ["--layer", f"results/layer/{digest}.json", "--output", f"results/explode/{digest}.v.json"]
        return stage("explode", *paths, "--manifest", *manifests, "--cache", "cache", *WORDS)

    def sandbox(self, name: str) -> int:
        manifest, folder = f"results/{name}/manifest.json", f"results/{name}"
        made = ["--tar", f"{folder}/m.tar", "--output", f"{folder}/metadata.json"]
        assert stage("metadata", "--manifest", manifest, "--cache", "cache", *WORDS, *made) == 0
        paths = ["--metadata", f"{folder}/metadata.json", "--output", f"{folder}/sandbox.index", f"results/explode/{self.digest}.v.json"]
        return stage("sandbox", "--manifest", manifest, *paths)


WRONG = {
    "size": r"demo/size:1: layer sha256:\w+ has \d+ bytes, not \d+ as its manifest says",
    "diff-id": r"demo/diff-id:1: layer sha256:\w+ has diff_id sha256:\w+, not sha256:\w+ as its config says",
    "refused": None,
    "schema1": None,
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("first", [True, False], ids=["wrong-first", "good-first"])
def test_what_one_image_says_of_a_shared_layer_harms_no_other(
    root: Path, capsys: pytest.CaptureFixture[str], wrong: str, first: bool
) -> None:
    it = Sharing(root)
    names = (wrong, "good") if first else ("good", wrong)
    assert it.layer(*names) == 0
    assert it.explode(*names) == 0
    assert it.sandbox("good") == 0
    message = WRONG[wrong]
    capsys.readouterr()
    assert it.sandbox(wrong) == (message is not None)
    assert message is None or re.search(message, capsys.readouterr().err)


def test_a_receipt_of_a_wrong_image_alone_harms_no_later_one(root: Path) -> None:
    it = Sharing(root)
    assert (it.layer("diff-id"), it.explode("diff-id")) == (0, 1)
    assert (it.explode("diff-id", "good"), it.sandbox("good"), it.sandbox("diff-id")) == (0, 0, 1)


def test_a_blob_that_is_there_needs_no_registry(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    it = Sharing(root)
    assert it.layer("good") == 0
    monkeypatch.setenv("SREGISTRY_NVIDIA_BASE", "127.0.0.1:1")
    assert it.layer("size", "good") == 0


def test_a_layer_is_not_another_s_because_a_config_says_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    it = Sharing(root)
    other = receipts.read(Path("results/other/manifest.json"))["layers"][0]["digest"]
    fetch = ["--digest", other, "--cache", "cache", "--output", f"results/layer/{other}.json"]
    assert stage("layer", "--manifest", "results/other/manifest.json", *fetch) == 0
    assert it.explode("other", digest=other) == 0
    assert it.layer("diff-id") == 0
    for _ in range(2):
        capsys.readouterr()
        assert it.explode("diff-id") == 1
        assert f"but the image config says {it.other.diff_id}" in capsys.readouterr().err
    assert it.explode("good") == 0


def test_what_was_published_wrongly_is_marked(root: Path) -> None:
    it = Sharing(root)
    keys = [(name, "v") for name in ("good", "other", "diff-id")]

    def unmade() -> set[str]:
        return failures.unmade(Results(), keys)

    assert unmade() == set()
    assert it.layer("diff-id") == 0
    assert it.explode("diff-id") == 1
    assert unmade() == {"good", "diff-id"}  # both have the layer, and none is made
    digest = receipts.read(Path("results/good/manifest.json"))["digest"]
    receipts.write(Path("results/good/image.json"), {"manifest": digest})
    receipts.write(Path("results/diff-id/image.json"), {"manifest": "sha256:of an earlier one"})
    assert unmade() == {"diff-id"}
    assert it.explode("good", "diff-id") == 0
    assert unmade() == set()
    assert it.sandbox("diff-id") == 1
    assert unmade() == {"diff-id"}
    receipts.write(Path("results/diff-id/image.json"), {"manifest": receipts.read(Path("results/diff-id/manifest.json"))["digest"]})
    assert unmade() == set()  # it was made once: what its tag means stays
    Path("results/diff-id/image.json").unlink()
    resolve("demo/diff-id:1", "results/diff-id/manifest.json")  # it was asked again
    assert unmade() == set()


@pytest.mark.parametrize(
    ("error", "marked"),
    [
        (DigestMismatch("x"), True),
        (LayerError("x"), True),
        (DocumentError("x"), True),
        (RegistryError("404"), True),
        (AuthenticationError("403"), True),
        (ImageError("no SIF"), True),
        (StoreError("no space"), False),
        (UnavailableError("no network"), False),
        (TransferError("broke off"), False),
        (ConfigError("x"), False),
    ],
)
def test_what_a_publisher_may_mend(tmp_path: Path, error: SregistryError, marked: bool) -> None:
    output = tmp_path / "r" / "image.json"

    def cause() -> str:
        failures.note(output, failures.Failure.of(error, "image"))
        failure = failures.Failure.look(output)
        assert failure is not None and (str(failure), failure.exit_code) == (str(error), error.exit_code)
        return failure.cause

    assert cause() == (failures.PUBLISHED if marked else failures.HERE)
    error.__cause__ = OSError(28, "No space left on device")
    assert cause() == failures.HERE
    failures.forget([output, tmp_path / "none.json"])
    assert not (tmp_path / "r" / "image.failed").exists()


def test_a_mark_of_an_earlier_version_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "image.failed").write_text('{"error": "demo/one:1: no SIF (choose another tag)"}')
    failure = failures.Failure.look(tmp_path / "image.json")
    assert failure is not None and (failure.cause, str(failure)) == (failures.PUBLISHED, "demo/one:1: no SIF (choose another tag)")


def test_a_bug_keeps_its_traceback_and_is_a_failure(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve(output="results/r/manifest.json")
    options = [
        "metadata",
        "--manifest",
        "results/r/manifest.json",
        "--cache",
        "\0",
        *WORDS,
        "--tar",
        "m.tar",
        "--output",
        "results/r/m.json",
    ]
    with pytest.raises(ValueError, match="null"):
        stage(*options)
    failure = failures.Failure.look(Path("results/r/m.json"))
    assert failure is not None and failure.cause == failures.BUG
    assert failure.error.startswith("metadata: ValueError: ") and failure.error.endswith("; please report this")


def test_sizes_are_those_that_most_images_say(root: Path) -> None:
    it = Sharing(root)
    for name in ("good2", "good3"):
        it.write(name)
    names = ["size", "good", "schema1", "good2", "refused", "good3"]
    assert stage("manifests", *(f"results/{name}/manifest.json" for name in names), "--output", "batch.json") == 0
    batch = receipts.read(Path("batch.json"))
    assert batch["sizes"] == {it.digest: len(it.shared.blob)}
    assert batch["sources"] == {it.digest: ["size", "good", "schema1", "refused"]}  # each claim once


def test_a_warning_about_the_platform_is_said(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layout = Layout(root / "layout")
    image = layout.image([layer([file(b"a", b"a")])], platform="linux/arm64")
    layout.tag("demo/odd:1", layout.index([(image, "linux/amd64")]))
    manifest = resolve("demo/odd:1")
    said = "the index says linux/amd64, the config of the image linux/arm64: the index decides"
    assert capsys.readouterr().out == f"warning: demo/odd:1: {said}\n"
    assert (manifest["platform"], manifest["warnings"]) == ("linux/amd64", [said])


def test_errors(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = resolve()
    missing = ["layer", "--manifest", "none.json", "--digest", manifest["layers"][0]["digest"], "--cache", "cache", "--output", "x"]
    assert "none.json: No such file" in fail(capsys, *missing)
    other = ["layer", "--manifest", "r/manifest.json", "--digest", "sha256:" + "01" * 32, "--cache", "cache", "--output", "x"]
    assert "has no layer" in fail(capsys, *other)
    receipts.Metadata(
        environment="e", metadata="m", variant="v", indexes=("00", "00"), docker_cmd=False, created=0, store="s", holds=()
    ).write(Path("metadata.json"))
    sandbox = ["sandbox", "--manifest", "r/manifest.json", "--metadata", "metadata.json", "--output", "x"]
    assert "no receipt for layer" in fail(capsys, *sandbox)
    image = ["image", "--manifest", "r/manifest.json", "--format", "sif", "--target", "x.sif", "--output", "x"]
    assert "--metadata and --sandbox are needed" in fail(capsys, *image)
    metadata = ["metadata", "--manifest", "r/manifest.json", "--cache", "cache", "--tar", "m.tar", "--output", "m.json"]
    assert "compression.level" in fail(capsys, *metadata, "--codec", "gzip", "--level", "11", "--block-size", "131072")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert "SOURCE_DATE_EPOCH" in fail(capsys, *metadata, *WORDS)


def test_bad_usage() -> None:
    for arguments in ([], ["nothing"], ["layer"], ["explode", "--threads", "x"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2


def test_a_stage_starts_light() -> None:
    """What a job doesn't need is not imported: the fixed cost of hundreds of jobs."""
    heavy = "requests", "tinydb", "yaml", "isal", "filelock", "rich", "jsonschema"
    code = f"import sys, sregistry.stages.__main__; print(*(name for name in {heavy} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_stage_imports_no_other() -> None:
    code = (
        "import contextlib, sys; from sregistry.stages.__main__ import main\n"
        "with contextlib.suppress(SystemExit):\n    main(['layer', '--help'])\n"
        "print(*sorted(name for name in sys.modules if name.startswith('sregistry.stages.')), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == [f"sregistry.stages.{name}" for name in ("__main__", "arguments", "layer", "wording")]


def test_every_stage_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """The command without a stage's name imports them all."""
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out.split()
    folder = Path(main.__code__.co_filename).parent
    rules = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__", "arguments", "wording", "remake", "gather"}
    assert (rules | {"gather-tags", "gather-layers", "report-tags"}) <= set(shown)
