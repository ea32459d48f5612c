"""Every variable that the command knows: its default, what goes before it, and what `sregistry config` says of it.

Precedence: command line > environment > secrets file > config/config.yaml > default.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sregistry.cli.__main__ import main
from sregistry.config import secrets_file, temporary
from sregistry.config.explain import effective
from sregistry.config.filename import DEFAULT as FILENAME
from sregistry.config.filename import Template
from sregistry.config.options import CLIENT_SECRETS
from sregistry.config.registries import OWN
from sregistry.config.settings import Settings, registry, unverified
from sregistry.oci.documents import Platform
from sregistry.system import logs

HOME = Path("/home/me")
DOT = HOME / ".singularity"
HOST = Platform.host()
WINDOWS, PPC = Platform(os="windows", architecture=HOST.architecture), Platform(os="linux", architecture="ppc64le")
S390X = ("platform", "linux/s390x", Platform(os="linux", architecture="s390x"))


class Variable(NamedTuple):
    """One variable: what is in effect without it, and what its *value* means, as *read* returns it.

    `row` is its line in `sregistry config`, the variable's name if "", and `texts` are what that line has without
    it and with it. `file` is its key in the configuration, with a value there and what that means, and `backend` the
    table of the secrets file that may have it ("": none, the file itself); None where there is no such place.
    """

    name: str
    default: Any
    value: str
    meant: Any
    read: Callable[[Settings, Mapping[str, str]], Any]
    row: str
    texts: tuple[str, str]
    file: tuple[str, Any, Any] | None = None
    backend: str | None = None

    @property
    def line(self) -> str:
        return self.row or self.name

    @property
    def written(self) -> dict[str, Any]:
        """The configuration file that has another value."""
        return {self.file[0]: self.file[1]} if self.file else {}


def setting(name: str) -> Callable[[Settings, Mapping[str, str]], Any]:
    return lambda settings, _: getattr(settings, name)


def own(name: str, client: str = "nvidia") -> Callable[[Settings, Mapping[str, str]], Any]:
    return lambda _, environ: getattr(registry(client, environ), name)


VARIABLES = [
    Variable(
        "SREGISTRY_CLIENT", "nvidia", "quay", "quay", setting("client"), "client", ("nvidia", "quay"), ("client", "docker", "docker"), ""
    ),
    Variable("SREGISTRY_NVIDIA_TOKEN", None, "s3cret", "s3cret", own("token"), "", ("-", "********"), None, "nvidia"),
    Variable(
        "SREGISTRY_NVIDIA_BASE",
        "nvcr.io",
        "a.example:5000",
        "a.example:5000",
        own("base"),
        "",
        ("nvcr.io", "a.example:5000"),
        None,
        "nvidia",
    ),
    Variable("SREGISTRY_NVIDIA_VERSION", "v2", "v3", "v3", own("version"), "", ("v2", "v3"), None, "nvidia"),
    Variable("SREGISTRY_NVIDIA_USERNAME", "$oauthtoken", "me", "me", own("username"), "", ("$oauthtoken", "me"), None, "nvidia"),
    Variable("SREGISTRY_NVIDIA_NOHTTPS", True, "yes", False, own("https"), "", ("no", "yes"), None, "nvidia"),
    Variable(
        "SREGISTRY_DOCKER_CMD",
        False,
        "yes",
        True,
        setting("docker_cmd"),
        "docker_cmd",
        ("no", "yes"),
        ("docker_cmd", "yes", True),
        "docker",
    ),
    Variable("SREGISTRY_DOCKER_OS", HOST, "windows", WINDOWS, setting("platform"), "platform", (str(HOST), str(WINDOWS)), S390X, "docker"),
    Variable(
        "SREGISTRY_DOCKER_ARCHITECTURE", HOST, "ppc64le", PPC, setting("platform"), "platform", (str(HOST), str(PPC)), S390X, "docker"
    ),
    Variable("SREGISTRY_PYTHON_THREADS", 9, "3", 3, setting("connections"), "connections", ("9", "3"), ("connections", 4, 4)),
    Variable(
        "SREGISTRY_DATABASE", DOT, "/d", Path("/d"), setting("database"), "database", (str(DOT), "/d"), ("database", "/k", Path("/k"))
    ),
    Variable(
        "SREGISTRY_STORAGE",
        DOT / "shub",
        "~/s",
        HOME / "s",
        setting("storage"),
        "storage",
        (f"{DOT}/shub", f"{HOME}/s"),
        ("storage", "/k", Path("/k")),
    ),
    Variable(
        "SREGISTRY_FILENAME",
        Template.parse(FILENAME, ""),
        "{client}-{name}",
        Template.parse("{client}-{name}", ""),
        setting("filename"),
        "filename",
        (FILENAME, "{client}-{name}"),
        ("filename", "{name}", Template.parse("{name}", "")),
    ),
    Variable("SREGISTRY_DISABLE", False, "yes", True, setting("disable"), "", ("no", "yes")),
    Variable("SREGISTRY_TMPDIR", None, "/t", Path("/t"), setting("tmpdir"), "", ("-", "/t")),
    Variable("SREGISTRY_TRUST", frozenset(), "root:1234", frozenset({0, 1234}), setting("trust"), "", ("-", "0:1234")),
    Variable(
        "SREGISTRY_CLIENT_SECRETS",
        HOME / ".sregistry",
        "/none",
        Path("/none"),
        lambda _, environ: secrets_file.path_of(environ),
        "",
        (f"{HOME}/.sregistry", "/none"),
    ),
    Variable("SREGISTRY_HTTPS_NOVERIFY", False, "yes", True, lambda _, environ: unverified(environ), "", ("no", "yes")),
    Variable(
        "SREGISTRY_CACHE_FROM",
        (),
        "/a:/b",
        (Path("/a"), Path("/b")),
        setting("cache_from"),
        "cache_from",
        ("-", "/a:/b"),
        ("cache_from", ["/k"], (Path("/k"),)),
    ),
    Variable("SINGULARITY_CACHEDIR", DOT, "/c", Path("/c"), setting("cache"), "cache", (str(DOT), "/c"), ("cache", "/k", Path("/k"))),
    Variable("SINGULARITY_DISABLE_CACHE", False, "yes", True, setting("disable_cache"), "", ("no", "yes")),
    Variable("MESSAGELEVEL", logs.Level.INFO, "5", logs.Level.DEBUG, lambda _, environ: logs.level(environ), "", ("INFO", "DEBUG")),
]
every = pytest.mark.parametrize("variable", VARIABLES, ids=lambda variable: variable.name)
SPEC = Path(__file__).resolve().parents[2] / "config/README.md"


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(HOME))
    monkeypatch.chdir(tmp_path)


def load(environ: Mapping[str, str], *, given: Any = None, file: Any = None) -> tuple[Settings, dict[str, str]]:
    known = secrets_file.overlay({"HOME": str(HOME), **environ})
    return Settings.load(given=given, file=file, environ=known), known


def config(environ: Mapping[str, str], name: str, file: Mapping[str, Any] | None = None) -> tuple[str, str]:
    found = [item for item in effective(file or {}, {"HOME": str(HOME), **environ}) if item.name == name]
    assert len(found) == 1
    return found[0].text(), found[0].origin


@every
def test_default(variable: Variable) -> None:
    assert variable.read(*load({})) == variable.default
    assert variable.read(*load({variable.name: ""})) == variable.default  # empty is unset
    assert config({}, variable.line) == (variable.texts[0], "default")


@every
def test_the_environment_goes_before_the_file_and_the_default(variable: Variable) -> None:
    file = variable.written
    environ = {variable.name: variable.value}
    assert variable.read(*load(environ, file=file)) == variable.meant
    assert config(environ, variable.line, file) == (variable.texts[1], f"environment {variable.name}")


@pytest.mark.parametrize("variable", [v for v in VARIABLES if v.file], ids=lambda variable: variable.name)
def test_the_command_line_goes_before_all_and_the_file_before_the_default(variable: Variable) -> None:
    assert variable.file
    assert variable.read(*load({variable.name: variable.value}, given=variable.written)) == variable.file[2]
    assert variable.read(*load({}, file=variable.written)) == variable.file[2]
    assert config({}, variable.line, variable.written)[1] == "config/config.yaml"


@pytest.mark.parametrize("variable", [v for v in VARIABLES if v.backend is not None], ids=lambda variable: variable.name)
def test_the_secrets_file_goes_before_the_file_and_after_the_environment(variable: Variable, tmp_path: Path) -> None:
    kept = {variable.name: variable.value}
    path = tmp_path / "secrets"
    path.write_text(json.dumps({variable.backend: kept} if variable.backend else kept))
    path.chmod(0o600)
    named = {"SREGISTRY_CLIENT_SECRETS": str(path)}
    file = variable.written
    assert variable.read(*load(named, file=file)) == variable.meant
    assert config(named, variable.line, file) == (variable.texts[1], f"{path} {variable.name}")
    other = {"SREGISTRY_CLIENT": "docker", "SREGISTRY_DOCKER_CMD": "no", "SREGISTRY_NVIDIA_NOHTTPS": "no"}.get(variable.name, "other")
    environ = {**named, variable.name: other}
    assert variable.read(*load(environ, file=file)) != variable.meant
    assert config(environ, variable.line, file)[1] == f"environment {variable.name}"


@pytest.mark.parametrize(
    "variable", [v for v in VARIABLES if v.backend is None and v.name != CLIENT_SECRETS], ids=lambda variable: variable.name
)
def test_what_only_the_environment_sets(variable: Variable, tmp_path: Path) -> None:
    path = tmp_path / "secrets"
    path.write_text(json.dumps({client: {variable.name: variable.value} for client in ("nvidia", "docker")}))
    path.chmod(0o600)
    assert variable.name not in secrets_file.overlay({CLIENT_SECRETS: str(path)})


SWITCHES = [v for v in VARIABLES if v.value == "yes"]


@pytest.mark.parametrize("word", ["yes", "YES", "True", "t", "T", "1", "y", "Y"])
@pytest.mark.parametrize("variable", SWITCHES, ids=lambda variable: variable.name)
def test_on(variable: Variable, word: str) -> None:
    assert variable.read(*load({variable.name: word})) == variable.meant


@pytest.mark.parametrize("word", ["no", "NO", "False", "f", "0", "n", "N"])
@pytest.mark.parametrize("variable", SWITCHES, ids=lambda variable: variable.name)
def test_off(variable: Variable, word: str) -> None:
    assert variable.read(*load({variable.name: word})) == variable.default


@pytest.mark.parametrize("variable", SWITCHES, ids=lambda variable: variable.name)
def test_neither(variable: Variable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(variable.name, "maybe")
    assert main(["config"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {variable.name}: 'maybe' is neither yes nor no; ")


@every
def test_it_is_documented(variable: Variable) -> None:
    text = SPEC.read_text()
    suffix = variable.name.removeprefix("SREGISTRY_NVIDIA")
    assert any(f"`{name}`" in text for name in (variable.name, suffix, f"SREGISTRY_<CLIENT>{suffix}"))


# -- the verb


def test_config_for_readers_and_programs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("SREGISTRY_", "SINGULARITY_", "MESSAGELEVEL")):
            monkeypatch.delenv(name)
    (tmp_path / "config").mkdir()
    (tmp_path / "config/config.yaml").write_text("compression: {level: fast}\nconnections: 2\nstorage: /file\n")
    path = tmp_path / "secrets"
    path.write_text(json.dumps({"SREGISTRY_CLIENT": "docker", "docker": {"SREGISTRY_DOCKERHUB_PASSWORD": "hub-s3cret"}}))
    path.chmod(0o600)
    monkeypatch.setenv("SREGISTRY_CLIENT_SECRETS", str(path))
    monkeypatch.setenv("SREGISTRY_DOCKER_TOKEN", "own-s3cret")
    monkeypatch.setenv("SREGISTRY_DOCKER_ARCHITECTURE", "arm64")
    monkeypatch.setenv("SREGISTRY_STORAGE", "/variable")
    assert main(["config"]) == 0
    text, err = capsys.readouterr()
    assert err == ""
    lines = {line.split()[0]: line.split(maxsplit=2)[1:] for line in text.splitlines()}
    assert lines["client"] == ["docker", f"{path} SREGISTRY_CLIENT"]
    assert lines["compression.level"] == ["fast", "config/config.yaml"]
    assert lines["compression.codec"] == ["gzip", "default"]
    assert lines["connections"] == ["2", "config/config.yaml"]
    assert lines["storage"] == ["/variable", "environment SREGISTRY_STORAGE"]
    assert lines["platform"] == ["linux/arm64", "environment SREGISTRY_DOCKER_ARCHITECTURE"]
    assert lines["SREGISTRY_DOCKER_BASE"] == ["registry-1.docker.io", "default"]
    assert lines["SREGISTRY_DOCKER_TOKEN"] == ["********", "environment SREGISTRY_DOCKER_TOKEN"]
    assert lines["SREGISTRY_DOCKERHUB_PASSWORD"] == ["********", f"{path} SREGISTRY_DOCKERHUB_PASSWORD"]
    assert main(["config", "--json"]) == 0
    document = capsys.readouterr().out
    assert [item["name"] for item in json.loads(document)] == list(lines)
    assert {item["name"]: item["origin"] for item in json.loads(document)} == {name: line[1] for name, line in lines.items()}
    assert "s3cret" not in text + document


def test_config_tells_what_the_switches_do(tmp_path: Path) -> None:
    environ = {"SREGISTRY_DISABLE": "yes", "SINGULARITY_DISABLE_CACHE": "1", "SREGISTRY_STORAGE": "/s", "SINGULARITY_CACHEDIR": "/c"}
    assert config(environ, "storage") == (str(tmp_path), "environment SREGISTRY_DISABLE")
    assert config(environ, "cache") == ("-", "environment SINGULARITY_DISABLE_CACHE")


def test_config_names_a_row_of_ones_own(tmp_path: Path) -> None:
    OWN.parent.mkdir()
    OWN.write_text("nvidia: {base: mirror.example}\n")
    assert config({}, "SREGISTRY_NVIDIA_BASE") == ("mirror.example", "config/registries.yaml")
    assert config({"SREGISTRY_CLIENT": "quay"}, "SREGISTRY_QUAY_BASE") == ("quay.io", "default")


# -- temporary files


def test_working_files_go_where_the_variable_says(tmp_path: Path) -> None:
    assert temporary.working({}) is None
    assert temporary.working({"SREGISTRY_TMPDIR": str(tmp_path / "a/b")}) == tmp_path / "a/b"
    assert (tmp_path / "a/b").is_dir()
    assert temporary.working({"SREGISTRY_TMPDIR": "rel"}) == tmp_path / "rel"
