"""What is added to an image: the scripts are run by real shells, the documents read back."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sregistry.errors import DocumentError
from sregistry.image.metadata import (
    creation_time,
    deffile,
    environment_script,
    environment_tar,
    labels,
    metadata_tar,
    runscript,
    sif_objects,
)
from sregistry.oci.documents import ImageConfig

CREATED = 1795449781  # 2026-11-23T16:03:01Z
REFERENCE = "127.0.0.1:5000/demo/tiny:1"
ENV = shutil.which("env") or "env"
SHELLS = [shell for shell in (["dash"], ["busybox", "sh"], ["bash", "--posix"], ["bash"], ["sh"]) if shutil.which(shell[0])]


def config(inner: dict[str, Any] | None = None, **document: Any) -> ImageConfig:
    whole = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, "config": inner, **document}
    return ImageConfig.parse(json.dumps(whole).encode())


def members(tar: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {item.name: item for item in archive}


def contents(tar: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return {item.name: file.read() for item in archive if item.isreg() and (file := archive.extractfile(item))}


# -- the base environment ----------------------------------------------------------------------------


def test_base_environment() -> None:
    found = {name: (item.type, oct(item.mode), item.linkname) for name, item in members(environment_tar()).items()}
    directories = [".singularity.d", *(f".singularity.d/{name}" for name in ("actions", "env", "libs"))]
    directories += ["dev", "etc", "home", "proc", "root", "sys", "var"]
    scripts = [f"actions/{name}" for name in ("exec", "run", "shell", "start", "test")]
    scripts += [f"env/{name}.sh" for name in ("01-base", "90-environment", "94-appsbase", "95-apps", "99-base", "99-runtimevars")]
    expected = dict.fromkeys(directories, (tarfile.DIRTYPE, "0o755", ""))
    expected |= dict.fromkeys(("tmp", "var/tmp"), (tarfile.DIRTYPE, "0o1777", ""))
    expected |= {f".singularity.d/{name}": (tarfile.REGTYPE, "0o755", "") for name in (*scripts, "startscript")}
    expected |= {f".{name}": (tarfile.SYMTYPE, "0o777", f".singularity.d/actions/{name}") for name in ("exec", "run", "shell", "test")}
    expected["singularity"] = (tarfile.SYMTYPE, "0o777", ".singularity.d/runscript")
    expected["environment"] = (tarfile.SYMTYPE, "0o777", ".singularity.d/env/90-environment.sh")
    assert found == expected
    assert contents(environment_tar())[".singularity.d/env/94-appsbase.sh"] == b""


def test_base_environment_is_constant() -> None:
    assert environment_tar() == environment_tar()
    for item in members(environment_tar()).values():
        assert (item.uid, item.gid, item.uname, item.gname, item.mtime) == (0, 0, "", "", 0)


def test_parents_come_first() -> None:
    names = list(members(environment_tar()))
    assert all("/" not in name or names.index(name.rpartition("/")[0]) < number for number, name in enumerate(names))


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_every_script_is_read_by_every_shell(shell: list[str]) -> None:
    image = config({"Entrypoint": ["a"], "Cmd": ["b"], "Env": ["A=1", "B"]})
    files = contents(environment_tar()) | contents(metadata_tar(image, reference=REFERENCE, docker_cmd=False, created=0))
    scripts = {name: text for name, text in files.items() if text.startswith(b"#!")}
    assert len(scripts) == 13
    for text in scripts.values():
        assert text.startswith(b"#!/bin/sh\n")
        subprocess.run([*shell, "-n"], input=text, check=True)


# -- the metadata layer ------------------------------------------------------------------------------


def test_metadata_tar() -> None:
    tar = metadata_tar(config({"Cmd": ["/bin/sh"]}), reference=REFERENCE, docker_cmd=False, created=CREATED)
    folder = ".singularity.d"
    assert {name: (item.type, oct(item.mode)) for name, item in members(tar).items()} == {
        f"{folder}/env/10-docker2singularity.sh": (tarfile.REGTYPE, "0o755"),
        f"{folder}/Singularity": (tarfile.REGTYPE, "0o644"),
        f"{folder}/labels.json": (tarfile.REGTYPE, "0o644"),
        f"{folder}/runscript": (tarfile.REGTYPE, "0o755"),
        "etc/hosts": (tarfile.REGTYPE, "0o644"),
        "etc/resolv.conf": (tarfile.REGTYPE, "0o644"),
    }
    assert all((item.uid, item.gid, item.uname, item.gname, item.mtime) == (0, 0, "", "", CREATED) for item in members(tar).values())
    files = contents(tar)
    assert files["etc/hosts"] == files["etc/resolv.conf"] == b""
    assert files[f"{folder}/Singularity"] == b"bootstrap: docker\nfrom: 127.0.0.1:5000/demo/tiny:1\n\n"
    assert tar == metadata_tar(config({"Cmd": ["/bin/sh"]}), reference=REFERENCE, docker_cmd=False, created=CREATED)


@pytest.mark.parametrize(
    ("created", "epoch", "seconds"),
    [
        pytest.param("2026-11-23T16:03:01Z", None, CREATED, id="UTC"),
        pytest.param("2026-11-23T16:03:01.999999999Z", None, CREATED, id="nanoseconds"),
        pytest.param("2026-11-23T18:03:01+02:00", None, CREATED, id="zone"),
        pytest.param("2026-11-23t16:03:01z", None, CREATED, id="lower case"),
        pytest.param("2026-11-23T16:03:01", None, CREATED, id="no zone"),
        pytest.param("2026-11-23T16:03:01Z", 5, 5, id="SOURCE_DATE_EPOCH"),
        pytest.param(None, 5, 5, id="SOURCE_DATE_EPOCH alone"),
        pytest.param(None, None, 0, id="none"),
        pytest.param("yesterday", None, 0, id="no date"),
        pytest.param("0001-01-01T00:00:00Z", None, 0, id="Go's zero"),
        pytest.param("0001-01-01T00:00:00+14:00", None, 0, id="before the calendar"),
        pytest.param("1969-12-31T23:59:59.5Z", None, 0, id="before 1970"),
        pytest.param("9999-12-31T23:59:59Z", None, 2**32 - 1, id="after 2106"),
        pytest.param(None, -1, 0, id="negative SOURCE_DATE_EPOCH"),
    ],
)
def test_creation_time(created: str | None, epoch: int | None, seconds: int) -> None:
    assert creation_time(config(created=created), epoch) == seconds
    metadata_tar(config(), reference=REFERENCE, docker_cmd=False, created=seconds)


@given(st.text(max_size=40))
def test_creation_time_of_anything(created: str) -> None:
    assert 0 <= creation_time(config(created=created)) < 2**32


# -- environment -------------------------------------------------------------------------------------


def environment(shell: Sequence[str], script: str, **caller: str) -> dict[str, bytes]:
    """Source the script in a shell and return the environment of a program that it starts."""
    with tempfile.NamedTemporaryFile(suffix=".sh") as file:
        file.write(script.encode())
        file.flush()
        # `env` by its path: the script sets PATH
        command = [*shell, "-c", '. "$1"; exec "$2" -0', "test", file.name, ENV]
        result = subprocess.run(command, env={"PATH": os.environ["PATH"], **caller}, check=True, capture_output=True)
    assert result.stderr == b""
    return {name.decode(): value for name, _, value in (item.partition(b"=") for item in result.stdout.split(b"\0") if item)}


NASTY: dict[str, str] = {
    "apostrophe": "it's",
    "apostrophes": "''a'''b'",
    "quotes": 'say "hi"',
    "dollar": "$HOME ${HOME} $(id) $$ $((1+1))",
    "backtick": "`id`",
    "backslash": "a\\b\\\\c\\",
    "backslash newline": "a\\\nb",
    "backslash apostrophe": "\\'",
    "lines": "\n\none\ntwo\n\n",
    "carriage return": "a\rb\r",
    "CRLF": "a\r\nb\r\n\r\r\n",
    "brace": "}{}",
    "non-ASCII": "żółć 🎉 \ufffd\ufeff\u2028\x85",
    "control": "\x01\x02\x7f\x1b[0m",
    "history": "!! !x",
    "comment": "# no",
    "glob": "* ? [a] ~",
    "operators": "a;b&c|d<e>f(g)",
    "equals": "=a=b=",
    "blank": " \t ",
    "option": "-n",
    "bracket": "]",
    "magic line": '\neval "set ${SINGULARITY_OCI_RUN}"\n',
    "long": "x" * 100_000,
}


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize("value", NASTY.values(), ids=NASTY)
def test_values_are_literal(shell: list[str], value: str) -> None:
    found = environment(shell, environment_script([f"A={value}", f"PATH={value}", "LAST=x"]))
    assert found["A"] == found["PATH"] == value.encode()
    assert found["LAST"] == b"x"


VALUES = st.text(st.one_of(st.sampled_from("'\"$`\\\r\n \t{}()[]!#*?~;&|<>=-"), st.characters(exclude_categories=["Cs"])), max_size=30)
TEXTS = VALUES.filter(lambda text: "\0" not in text)


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@settings(max_examples=30, deadline=None)
@given(values=st.lists(TEXTS, max_size=40))
def test_any_values_are_literal(shell: list[str], values: list[str]) -> None:
    found = environment(shell, environment_script([f"T_{number}={value}" for number, value in enumerate(values)]))
    assert {name: value.decode() for name, value in found.items() if name.startswith("T_")} == {
        f"T_{number}": value for number, value in enumerate(values)
    }


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_which_value_wins(shell: list[str]) -> None:
    script = environment_script(["PATH=/image", "SET=image", "UNSET=image", "EMPTY=image", "NONE=", "PASSED", "ABSENT"])
    found = environment(shell, script, SET="caller", EMPTY="", PASSED="caller's", NONE="caller")
    assert {name: found[name] for name in ("PATH", "SET", "UNSET", "EMPTY", "NONE", "PASSED", "ABSENT")} == {
        "PATH": b"/image",
        "SET": b"caller",
        "UNSET": b"image",
        "EMPTY": b"image",
        "NONE": b"caller",
        "PASSED": b"caller's",
        "ABSENT": b"",
    }


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_the_last_of_duplicates_wins(shell: list[str]) -> None:
    found = environment(shell, environment_script(["A=1", "PATH=/1", "B", "A=2", "PATH=/2", "B=3", "C=1", "C"]), C="caller")
    assert [found[name] for name in ("A", "PATH", "B", "C")] == [b"2", b"/2", b"3", b"caller"]


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
def test_names_that_shells_reserve_break_nothing(shell: list[str]) -> None:
    names = "UID EUID GID PPID GROUPS HOME PWD OLDPWD IFS OPTIND OPTARG PS1 PS2 PS4 LINENO RANDOM SECONDS SHELLOPTS BASHOPTS BASH_VERSION"
    names += " BASHPID FUNCNAME DIRSTACK HISTCMD EPOCHSECONDS PIPESTATUS BASH_ENV ENV CDPATH SHLVL SHELL TERM"
    found = environment(shell, environment_script([*(f"{name}=odd" for name in names.split()), "LAST=x"]))
    assert found["LAST"] == b"x"


@pytest.mark.parametrize("entry", ["", "=", "=x", "1A=x", "A-B=x", "A B=x", "Ż=x", "A$(id)=x", "A\n=x", "a.b", " A=x"])
def test_other_names_are_left_out(entry: str) -> None:
    assert environment_script([entry]) == "#!/bin/sh\n"


def test_half_a_character_becomes_a_replacement() -> None:
    tar = metadata_tar(
        config({"Env": ["A=\ud800"], "Cmd": ["\udc00"], "Labels": {"\ud800": "\udfff"}}), reference=REFERENCE, docker_cmd=False, created=0
    )
    files = {name.rpartition("/")[2]: text.decode() for name, text in contents(tar).items()}
    assert "A='\ufffd'" in files["10-docker2singularity.sh"]
    assert "'\ufffd'" in files["runscript"]
    assert json.loads(files["labels.json"])["\ufffd"] == "\ufffd"


# -- runscript ---------------------------------------------------------------------------------------

#: A program that shows its arguments, each ended by a NUL.
SHOW = [shutil.which("printf") or "printf", "%s\\0"]


def run(path: Path, script: str, arguments: Sequence[str], *shell: str) -> list[str]:
    path.write_bytes(script.encode())
    path.chmod(0o755)
    result = subprocess.run([*shell, path, *arguments], check=True, capture_output=True, stdin=subprocess.DEVNULL)
    assert result.stderr == b""
    return result.stdout.decode().split("\0")[:-1]


ENTRYPOINT = [*SHOW, "it's", "$HOME"]
CMD = ["-x", "", "a  b\r\nc"]


@pytest.mark.parametrize(
    ("inner", "docker_cmd", "without", "with_arguments"),
    [
        pytest.param({"Entrypoint": ENTRYPOINT}, False, ["it's", "$HOME"], ["it's", "$HOME", "1 `id`", '"', ""], id="entrypoint"),
        pytest.param({"Cmd": SHOW + CMD}, False, CMD, ["x"], id="cmd"),
        pytest.param(
            {"Entrypoint": ENTRYPOINT, "Cmd": CMD}, False, ["it's", "$HOME", *CMD], ["it's", "$HOME", "1 `id`", '"', ""], id="both"
        ),
        pytest.param({}, False, [], ["x"], id="neither"),
        pytest.param({"Entrypoint": ["false"], "Cmd": SHOW + CMD}, True, CMD, [*CMD, "1 `id`", '"', ""], id="both, docker_cmd"),
        pytest.param({"Cmd": SHOW + CMD}, True, CMD, [*CMD, "1 `id`", '"', ""], id="cmd, docker_cmd"),
        pytest.param(
            {"Entrypoint": ENTRYPOINT}, True, ["it's", "$HOME"], ["it's", "$HOME", "1 `id`", '"', ""], id="entrypoint, docker_cmd"
        ),
        pytest.param({}, True, [], ["x"], id="neither, docker_cmd"),
        pytest.param({"Entrypoint": [""], "Cmd": SHOW + CMD}, False, CMD, ["x"], id="entrypoint taken away"),
        pytest.param({"Entrypoint": "", "Cmd": SHOW + CMD}, True, CMD, [*CMD, "1 `id`", '"', ""], id="entrypoint taken away, docker_cmd"),
        pytest.param({"Entrypoint": [""], "Cmd": None}, False, [], ["x"], id="neither, by an empty word"),
        pytest.param({"Cmd": [""]}, False, [], ["x"], id="cmd of an empty word"),
        pytest.param({"Entrypoint": [*SHOW, "a"], "Cmd": [""]}, False, ["a", ""], ["a", "1 `id`", '"', ""], id="an empty argument"),
        pytest.param({"Entrypoint": [*SHOW, "a"], "Cmd": [""]}, True, ["a"], ["a", "1 `id`", '"', ""], id="an empty word, docker_cmd"),
    ],
)
def test_runscript(tmp_path: Path, inner: dict[str, Any], docker_cmd: bool, without: list[str], with_arguments: list[str]) -> None:
    script = runscript(config(inner), docker_cmd=docker_cmd)
    arguments = [*SHOW, "x"] if with_arguments == ["x"] else ["1 `id`", '"', ""]
    for shell in ([], *SHELLS):
        assert run(tmp_path / "runscript", script, [], *shell) == without
        assert run(tmp_path / "runscript", script, arguments, *shell) == with_arguments


def test_runscript_of_nothing_is_a_shell(tmp_path: Path) -> None:
    (tmp_path / "runscript").write_text(runscript(config(), docker_cmd=False))
    result = subprocess.run(["sh", tmp_path / "runscript"], input=b"echo $0", check=True, capture_output=True)
    assert result.stdout == b"/bin/sh\n"


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXTS, max_size=4), st.lists(TEXTS, max_size=4), st.lists(TEXTS, max_size=4))
def test_any_words_are_exact(entrypoint: list[str], cmd: list[str], arguments: list[str]) -> None:
    script = runscript(config({"Entrypoint": SHOW + entrypoint, "Cmd": cmd}), docker_cmd=False)
    words = [*entrypoint, *(arguments or cmd)] or [""]  # printf shows one empty argument for none
    with tempfile.TemporaryDirectory() as folder:
        for shell in SHELLS:
            assert run(Path(folder) / "runscript", script, arguments, *shell) == words


@pytest.mark.parametrize("first", ["-x", "+x", "-", "--", "-o"])
def test_words_that_look_like_options(tmp_path: Path, first: str) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / first
    program.write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
    program.chmod(0o755)
    script = runscript(config({"Cmd": [str(program)]}), docker_cmd=False)
    assert run(tmp_path / "runscript", script, [str(program), first, "b"]) == [first, "b"]
    assert f"set -- '{first}'" in runscript(config({"Entrypoint": [first]}), docker_cmd=False)


def test_numbers_that_are_none_never_reach_a_document() -> None:
    with pytest.raises(DocumentError, match=r"config: config\.Healthcheck\.Interval: expected a number, got 'NaN'"):
        config({"Healthcheck": {"Interval": float("nan")}})
    image = ImageConfig(platform=None, created=None, diff_ids=(), env=(), entrypoint=None, cmd=None, labels={}, config={"a": float("inf")})
    with pytest.raises(DocumentError, match="a number that is none"):
        sif_objects(image, reference=REFERENCE, docker_cmd=False, created=0)


def test_magic_line_stands_behind_exec() -> None:
    for inner in ({}, {"Cmd": ["a"]}, {"Entrypoint": ["a"]}, {"Entrypoint": ["a"], "Cmd": ["b"]}):
        assert runscript(config(inner), docker_cmd=False).splitlines()[-2:] == ['exec "$@"', 'eval "set ${SINGULARITY_OCI_RUN}"']


# -- labels and documents ----------------------------------------------------------------------------


def test_labels() -> None:
    image = config({"Labels": {"b": "2", "a": 'ż"', "n": 3, "org.label-schema.schema-version": "old"}}, created="2026-11-23T16:03:01Z")
    assert labels(image, REFERENCE, CREATED) == {
        "a": 'ż"',
        "b": "2",
        "n": "3",
        "org.label-schema.build-arch": "amd64",
        "org.label-schema.build-date": "Monday_23_November_2026_16:3:1_UTC",
        "org.label-schema.schema-version": "1.0",
        "org.label-schema.usage.singularity.deffile.bootstrap": "docker",
        "org.label-schema.usage.singularity.deffile.from": REFERENCE,
    }
    text = contents(metadata_tar(image, reference=REFERENCE, docker_cmd=False, created=CREATED))[".singularity.d/labels.json"].decode()
    assert text.startswith('{\n\t"a": "ż\\"",\n\t"b": "2",\n\t"n": "3",\n\t"org.label-schema.build-arch": "amd64",\n')
    assert json.loads(text) == labels(image, REFERENCE, CREATED)
    assert "org.label-schema.build-arch" not in labels(config(architecture=None), REFERENCE, 0)


@pytest.mark.parametrize("created", [0, 2**32 - 1])
def test_labels_of_any_time(created: int) -> None:
    day = {0: "Thursday_1_January_1970_0:0:0_UTC", 2**32 - 1: "Sunday_7_February_2106_6:28:15_UTC"}[created]
    assert labels(config(), REFERENCE, created)["org.label-schema.build-date"] == day


def test_sif_objects() -> None:
    inner = {"Labels": {"a": "ż"}, "Env": ["A=it's"], "Cmd": ["/bin/sh"], "WorkingDir": "/", "Zeta": None}
    definition, documents = sif_objects(config(inner), reference=REFERENCE, docker_cmd=False, created=CREATED)
    assert definition == deffile(REFERENCE).encode() == b"bootstrap: docker\nfrom: 127.0.0.1:5000/demo/tiny:1\n\n"
    assert sorted(documents) == ["inspect-metadata.json", "oci-config.json"]
    assert documents["oci-config.json"] == json.dumps(inner, ensure_ascii=False, separators=(",", ":")).encode()
    document = json.loads(documents["inspect-metadata.json"])
    assert document["type"] == "container"
    attributes = document["data"]["attributes"]
    assert list(attributes) == ["environment", "labels", "runscript", "deffile", "startscript"]
    assert attributes["labels"] == labels(config(inner), REFERENCE, CREATED)
    assert attributes["runscript"] == runscript(config(inner), docker_cmd=False)[:-1]
    assert attributes["deffile"] == "bootstrap: docker\nfrom: 127.0.0.1:5000/demo/tiny:1"
    assert attributes["environment"]["/.singularity.d/env/10-docker2singularity.sh"].endswith("A='it'\"'\"'s'\nexport A")
    base = contents(environment_tar())
    assert (
        attributes["environment"]["/.singularity.d/env/90-environment.sh"] + "\n" == base[".singularity.d/env/90-environment.sh"].decode()
    )
    assert attributes["startscript"] + "\n" == base[".singularity.d/startscript"].decode()


def test_docker_cmd_reaches_every_place() -> None:
    image = config({"Entrypoint": ["entry"], "Cmd": ["cmd"]})
    for docker_cmd in (False, True):
        tar = metadata_tar(image, reference=REFERENCE, docker_cmd=docker_cmd, created=0)
        _, documents = sif_objects(image, reference=REFERENCE, docker_cmd=docker_cmd, created=0)
        expected = runscript(image, docker_cmd=docker_cmd)
        assert contents(tar)[".singularity.d/runscript"].decode() == expected
        assert json.loads(documents["inspect-metadata.json"])["data"]["attributes"]["runscript"] + "\n" == expected
        assert ("entry" in expected) is not docker_cmd


def test_a_config_nested_too_deeply_is_an_error() -> None:
    nested: dict[str, Any] = {}
    for _ in range(100_000):
        nested = {"a": nested}
    image = ImageConfig(platform=None, created=None, diff_ids=(), env=(), entrypoint=None, cmd=None, labels={}, config=nested)
    with pytest.raises(DocumentError, match="nested"):
        sif_objects(image, reference=REFERENCE, docker_cmd=False, created=0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("Env", "Cmd", "Entrypoint", "Labels", "User"), JSON)), JSON, st.booleans())
def test_any_config_gives_files_or_a_document_error(inner: dict[str, Any], created: object, docker_cmd: bool) -> None:
    try:
        image = config(inner, created=created)
    except DocumentError:
        return
    seconds = creation_time(image)
    tar = metadata_tar(image, reference=REFERENCE, docker_cmd=docker_cmd, created=seconds)
    assert len(members(tar)) == 6
    _, documents = sif_objects(image, reference=REFERENCE, docker_cmd=docker_cmd, created=seconds)
    assert all(json.loads(text) is not None for text in documents.values())


# -- actions, in a root of their own -----------------------------------------------------------------


def confine(root: Path, *command: str) -> list[str]:
    """Return what runs *command* with *root* as / and as process 1, with root's rights or without."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *user, "--pid", "--fork", "chroot", str(root), *command]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unpacked image of a static busybox and our files."""
    root = tmp_path_factory.mktemp("root")
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    image = config({"Env": ["PATH=/bin", "GREETING=it's $HOME"], "Entrypoint": ["/bin/printf", "%s,"], "Cmd": ["none"]})
    for tar in (environment_tar(), metadata_tar(image, reference=REFERENCE, docker_cmd=False, created=0)):
        subprocess.run(["tar", "--extract", "--no-same-owner", "--same-permissions", "--directory", root], input=tar, check=True)
    (root / "bin").mkdir()
    shutil.copy(busybox, root / "bin" / "busybox")
    for name in ("sh", "env", "printf", "kill", "echo"):
        (root / "bin" / name).symlink_to("busybox")
    if subprocess.run(confine(root, "/bin/busybox", "true"), capture_output=True, check=False).returncode:
        pytest.skip("needs root or user namespaces, and a static busybox")
    return root


def act(root: Path, *command: str, code: int = 0, **caller: str) -> str:
    """Run *command* in the root; return what it prints, or its errors when *code* is not 0."""
    result = subprocess.run(
        confine(root, *command),
        env={"PATH": os.environ["PATH"], **caller},
        capture_output=True,
        text=True,
        check=False,
        input="echo from $0",
    )
    assert result.returncode == code, result.stderr
    return result.stdout if code == 0 else result.stderr


@pytest.mark.parametrize("run", ["/.singularity.d/actions/run", "/.run"])
def test_action_run(root: Path, run: str) -> None:
    assert act(root, run) == "none,"
    assert act(root, run, "a b", "$HOME") == "a b,$HOME,"
    assert act(root, "/singularity", "x") == "x,"


def test_action_exec_has_the_environment(root: Path) -> None:
    lines = act(root, "/.exec", "env", SINGULARITYENV_X="no", LD_LIBRARY_PATH="/host").splitlines()
    assert "GREETING=it's $HOME" in lines
    assert "PATH=/bin" in lines
    assert "LD_LIBRARY_PATH=/host:/.singularity.d/libs" in lines
    assert any(line.startswith("PS1=") for line in lines)  # some shells have a default
    assert not [line for line in lines if line.startswith(("sregistry", "SING_USER", "SCIF"))]
    assert "LD_LIBRARY_PATH=/.singularity.d/libs" in act(root, "/.exec", "env").splitlines()


def test_action_exec_is_exact(root: Path) -> None:
    assert act(root, "/.exec", "printf", "%s,", "a b", "$HOME", "it's", "") == "a b,$HOME,it's,,"


def test_action_shell(root: Path) -> None:
    assert act(root, "/.shell") == "from /bin/sh\n"
    assert act(root, "/.shell", "-c", "echo hi") == "hi\n"
    assert act(root, "/.shell", "hello", SINGULARITY_SHELL="/bin/echo") == "hello\n"
    assert act(root, "/.shell", SINGULARITY_SHELL="/no/such") == "from /bin/sh\n"


def test_action_test(root: Path) -> None:
    assert act(root, "/.test", "x") == ""
    script = root / ".singularity.d" / "test"
    script.write_text('#!/bin/sh\necho "$1"\nexit 3\n')
    script.chmod(0o755)
    try:
        assert act(root, "/.test", "x", code=3) == ""
    finally:
        script.unlink()


def test_action_start(root: Path) -> None:
    assert act(root, "/.singularity.d/actions/start") == ""


def test_action_run_without_a_runscript(root: Path) -> None:
    runscript = root / ".singularity.d" / "runscript"
    runscript.chmod(0o644)
    try:
        # root may not execute it either: no x bit at all
        assert act(root, "/.run") == "from /bin/sh\n"
    finally:
        runscript.chmod(0o755)


@pytest.mark.parametrize(
    ("variables", "path"),
    [
        ({"SING_USER_DEFINED_PREPEND_PATH": "/a b"}, "/a b:/bin"),
        ({"SING_USER_DEFINED_APPEND_PATH": "/z"}, "/bin:/z"),
        ({"SING_USER_DEFINED_PREPEND_PATH": "/a", "SING_USER_DEFINED_APPEND_PATH": "/z"}, "/a:/bin:/z"),
        ({"SING_USER_DEFINED_PATH": "/only"}, "/only"),
    ],
)
def test_path_as_the_user_asks(root: Path, variables: dict[str, str], path: str) -> None:
    lines = act(root, "/.exec", "/bin/env", code=0, **variables).splitlines()
    assert f"PATH={path}" in lines
    assert not [line for line in lines if line.startswith("SING_USER")]


def test_apps(root: Path) -> None:
    app = root / "scif" / "apps" / "hello"
    (app / "scif" / "env").mkdir(parents=True)
    (app / "scif" / "env" / "90-environment.sh").write_text("APP=yes\nexport APP\n")
    for name in ("runscript", "test"):
        (app / "scif" / name).write_text(f'#!/bin/sh\necho {name} "$APP" "$PATH" "$LD_LIBRARY_PATH" "$@"\n')
        (app / "scif" / name).chmod(0o755)
    libraries = "/scif/apps/hello/lib:/.singularity.d/libs"
    expected = f"yes /scif/apps/hello/bin:/scif/apps/hello:/bin {libraries} x\n"
    assert act(root, "/.run", "x", SINGULARITY_APPNAME="hello") == f"runscript {expected}"
    assert act(root, "/.test", "x", SINGULARITY_APPNAME="hello") == f"test {expected}"
    assert act(root, "/.run", SINGULARITY_APPNAME="other", code=1) == "the image has no app other\n"
    (app / "scif" / "runscript").unlink()
    assert act(root, "/.run", SINGULARITY_APPNAME="hello", code=1) == "the app hello has no runscript\n"
