"""Real Apptainer runs what we make: as root and as an ordinary user, SIF and simg, with a shell and without."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real.conftest import Apptainer, Pipeline, Pulled
from tests.support import images

SifAt = Callable[[str], Path]

pytestmark = pytest.mark.needs("amd64", "apptainer", "docker-registry", "busybox", "openssl")


@pytest.fixture
def sif(pulled: Pulled, open_folder: Path) -> SifAt:
    """Return a function: an image's path where every user may read it."""

    def at(uri: str) -> Path:
        path = open_folder / pulled(uri).name
        if not path.exists():
            shutil.copy(pulled(uri), path)
        return path

    return at


def _words(*words: str) -> str:
    """Return what /bin/show prints of words."""
    return "".join(f"<{word}>\n" for word in words)


def test_the_version_is_one_we_know(apptainer: Apptainer) -> None:
    assert apptainer("--version").stdout.startswith("apptainer version 1.")


ODD_ARGUMENTS = ("a b", "", "it's", '"', "$HOME", "`id`", "\\", "*", "-x", "ü\nv")


@pytest.mark.parametrize(
    ("uri", "arguments", "printed"),
    [
        ("demo/tiny:1", (), _words(*images.WORDS, "default", "com mand")),
        ("demo/tiny:1", ODD_ARGUMENTS, _words(*images.WORDS, *ODD_ARGUMENTS)),
        ("demo/tiny:Mixed.Case-2", (), _words(*images.WORDS, "other")),
        ("demo/run:entrypoint", (), _words("e 1")),
        ("demo/run:entrypoint", ("u 1", "u2"), _words("e 1", "u 1", "u2")),
        ("demo/run:cmd", (), _words("c 1")),
        ("demo/run:cmd", ("/bin/show", "u 1"), _words("u 1")),
        ("demo/run:both", (), _words("e 1", "c 1", "c2")),
        ("demo/run:both", ("u 1",), _words("e 1", "u 1")),
        ("demo/run:neither", ("/bin/show", "u 1"), _words("u 1")),
        ("demo/run:neither", ("/bin/sh", "-c", "echo sh"), "sh\n"),
        ("demo/run:taken-away", (), _words("c 1", "")),
        ("demo/run:taken-away", ("/bin/show", "u 1"), _words("u 1")),
        ("demo/run:shell-form", (), "shell 2\n"),
        ("demo/static:1", (), _words("it's", "$HOME", "default")),
        ("demo/static:1", ODD_ARGUMENTS, _words("it's", "$HOME", *ODD_ARGUMENTS)),
    ],
    ids=lambda value: value.replace("demo/", "") if isinstance(value, str) and value.startswith("demo/") else "",
)
def test_run(apptainer: Apptainer, sif: SifAt, uri: str, arguments: tuple[str, ...], printed: str) -> None:
    done = apptainer("run", sif(uri), *arguments)
    assert (done.returncode, done.stdout) == (0, printed), done.stderr


def test_run_gives_the_exit_code_of_the_program(apptainer: Apptainer, sif: SifAt) -> None:
    assert apptainer("run", sif("demo/run:cmd"), "/bin/sh", "-c", "exit 7").returncode == 7


@pytest.mark.parametrize("options", [(), ("--containall",), ("--cleanenv", "--no-home")], ids=" ".join)
def test_the_environment_arrives_to_the_byte(apptainer: Apptainer, sif: SifAt, options: tuple[str, ...]) -> None:
    done = apptainer("exec", *options, sif("demo/tiny:1"), "/bin/cat", "/proc/self/environ", environment={"SIMPLE": "of the host"})
    assert done.returncode == 0, done.stderr
    found = dict(item.split("=", 1) for item in done.stdout.split("\0") if item)
    path = images.ENVIRONMENT["PATH"]
    assert found["PATH"] == path or found["PATH"].startswith(f"{path}:"), found["PATH"]
    wanted = {name: value for name, value in images.ENVIRONMENT.items() if name != "PATH"}
    assert {name: found.get(name) for name in wanted} == wanted
    assert not any(name.startswith("not a name") for name in found)


def test_a_program_of_the_images_path_is_found(apptainer: Apptainer, sif: SifAt) -> None:
    assert apptainer("exec", sif("demo/tiny:1"), "hello").stdout == "hello from tiny\n"


def test_variables_can_be_given(apptainer: Apptainer, sif: SifAt) -> None:
    command = ("/bin/sh", "-c", 'printf "%s|%s|%s" "$NEW" "$SIMPLE" "$OUTSIDE"')
    done = apptainer(
        "exec", "--env", "NEW=a 'b'", "--env", "SIMPLE=2", sif("demo/tiny:1"), *command, environment={"APPTAINERENV_OUTSIDE": "o"}
    )
    assert done.stdout == "a 'b'|2|o", done.stderr


def test_exec_in_an_image_without_a_shell(apptainer: Apptainer, sif: SifAt) -> None:
    done = apptainer("exec", sif("demo/static:1"), "/busybox", "cat", "/data/text", "/proc/self/environ")
    assert done.stdout.startswith("static data\n") and "WITH=a `tick` and 'quote'\0" in done.stdout, done.stderr


@pytest.mark.parametrize("uri", ["demo/tricky:1", "demo/tricky-packed:1", "demo/empty:1", "demo/sizes:1"])
def test_every_image_starts(apptainer: Apptainer, sif: SifAt, uri: str) -> None:
    done = apptainer("exec", sif(uri), "/bin/sh", "-c", "echo started") if "tricky" in uri else apptainer("exec", sif(uri), "/no/program")
    assert done.stdout == "started\n" if "tricky" in uri else "/no/program" in done.stderr, done.stderr


def test_test_succeeds_without_a_test(apptainer: Apptainer, sif: SifAt) -> None:
    assert apptainer("test", sif("demo/tiny:1")).returncode == 0


def test_the_shell_reads_commands(apptainer: Apptainer, sif: SifAt) -> None:
    done = apptainer("shell", sif("demo/tiny:1"), feed='echo "$UNICODE"\n')
    assert done.stdout == images.ENVIRONMENT["UNICODE"] + "\n", done.stderr


@pytest.mark.parametrize("uri", ["demo/tiny:1", "demo/static:1"])
def test_inspect_tells_what_the_image_says(apptainer: Apptainer, sif: SifAt, uri: str) -> None:
    done = apptainer("inspect", "--all", sif(uri))
    assert done.returncode == 0, done.stderr
    attributes = json.loads(done.stdout)["data"]["attributes"]
    labels = attributes["labels"]
    assert labels["org.label-schema.usage.singularity.deffile.bootstrap"] == "docker"
    assert labels["org.label-schema.build-date"] == "Friday_27_October_2017_8:0:0_UTC"
    if uri == "demo/tiny:1":
        assert {**labels, **images.LABELS} == labels
    assert attributes["deffile"].startswith("bootstrap: docker\nfrom: ")
    assert 'eval "set ${SINGULARITY_OCI_RUN}"' in attributes["runscript"].splitlines()
    assert "/.singularity.d/env/10-docker2singularity.sh" in attributes["environment"]


@pytest.mark.parametrize("option", ["--labels", "--runscript", "--deffile", "--environment", "--test", "--startscript", "--helpfile"])
def test_inspect_knows_each_part(apptainer: Apptainer, sif: SifAt, option: str) -> None:
    done = apptainer("inspect", option, sif("demo/tiny:1"))
    assert done.returncode == 0, done.stderr


def test_inspect_reads_the_rootfs_like_the_document(apptainer: Apptainer, sif: SifAt) -> None:
    image = sif("demo/tiny:1")
    labels = json.loads(apptainer("exec", image, "/bin/cat", "/.singularity.d/labels.json").stdout)
    runscript = apptainer("exec", image, "/bin/cat", "/.singularity.d/runscript").stdout
    attributes = json.loads(apptainer("inspect", "--all", image).stdout)["data"]["attributes"]
    assert attributes["labels"] == labels
    assert attributes["runscript"].rstrip("\n") == runscript.rstrip("\n")


def test_sif_list_shows_the_objects(apptainer: Apptainer, sif: SifAt) -> None:
    done = apptainer("sif", "list", sif("demo/tiny:1"))
    kinds = [line.split("|")[-1].strip() for line in done.stdout.splitlines() if line[:1].isdigit()]
    assert kinds == ["Def.FILE", "JSON.Generic", "JSON.Generic", "FS (Squashfs/*System/amd64)"], done.stdout


def test_the_root_file_system_is_the_images(apptainer: Apptainer, sif: SifAt) -> None:
    listing = "cd /wh && ls -A | tr '\\n' ' '; cat /hard/lower; ls -A /opaque/first"
    done = apptainer("exec", sif("demo/tricky:1"), "/bin/sh", "-c", listing)
    assert done.stdout == "after back before dir gone kept xx linked from a higher layerlower\nsame\nsub\n", done.stderr


@pytest.fixture(scope="module")
def simg(registry: str, open_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pipeline = Pipeline(tmp_path_factory.mktemp("simg"), registry)
    result = pipeline.run("uri=demo/tiny:1", "format=simg")
    assert result.returncode == 0, result.stderr
    return Path(shutil.copy(pipeline.image("demo/tiny:1", ".simg"), open_folder))


def test_a_simg_runs(apptainer: Apptainer, simg: Path) -> None:
    done = apptainer("run", simg, "u 1")
    assert (done.returncode, done.stdout) == (0, _words(*images.WORDS, "u 1")), done.stderr
    done = apptainer("exec", "--env", "NEW=n", simg, "/bin/sh", "-c", 'printf "%s|%s" "$NEW" "$BACKTICK"')
    assert done.stdout == "n|" + images.ENVIRONMENT["BACKTICK"], done.stderr


def test_a_simg_can_be_inspected(apptainer: Apptainer, simg: Path) -> None:
    done = apptainer("inspect", "--json", "--labels", simg)
    assert done.returncode == 0, done.stderr
    labels = json.loads(done.stdout)["data"]["attributes"]["labels"]
    assert {**labels, **images.LABELS} == labels


def test_a_sandbox_runs(apptainer: Apptainer, registry: str, open_folder: Path, tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "work", registry, {"SREGISTRY_STORAGE": str(open_folder / "sandboxes")})
    result = pipeline.run("uri=demo/tiny:1", "format=sandbox")
    assert result.returncode == 0, result.stderr
    done = apptainer("run", open_folder / "sandboxes/demo-tiny:1", "u 1")
    assert (done.returncode, done.stdout) == (0, _words(*images.WORDS, "u 1")), done.stderr


def test_a_signature_can_be_added_and_verified(apptainer: Apptainer, sif: SifAt, tmp_path: Path) -> None:
    """Signing rewrites the SIF: it works only if Apptainer finds the structure sound."""
    folder = Path("/tmp") / f"sregistry-keys-{tmp_path.name}"
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    try:
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", folder / "key"], check=True, capture_output=True)
        subprocess.run(["openssl", "pkey", "-in", folder / "key", "-pubout", "-out", folder / "public"], check=True, capture_output=True)
        (folder / "key").chmod(0o644)
        image = Path(shutil.copy(sif("demo/tiny:1"), folder))
        image.chmod(0o666)
        done = apptainer("sign", "--key", folder / "key", image)
        assert done.returncode == 0, done.stderr
        done = apptainer("verify", "--key", folder / "public", image)
        assert done.returncode == 0, done.stderr
        assert apptainer("run", image).stdout == _words(*images.WORDS, "default", "com mand")
    finally:
        shutil.rmtree(folder)
