"""Where a setting comes from, what it may be, and which registry a text means."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from sregistry.config.filename import FORMATS
from sregistry.config.options import DEFAULTS, flag
from sregistry.config.own_config import foreign, load_local, load_own
from sregistry.config.requested import entries
from sregistry.config.settings import RegistrySettings, Settings, clients, from_file, registry
from sregistry.config.targets import Target, locate, targets
from sregistry.errors import ConfigError, InvalidReference, Mistakes, SregistryError
from sregistry.layers.compression import Compression
from sregistry.oci.documents import Platform

TOP = Path(__file__).resolve().parents[2]


def load(given: Mapping[str, Any] | None = None, file: Mapping[str, Any] | None = None, **environ: str) -> Settings:
    return Settings.load(given=given, file=file, environ=environ)


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/some")
    settings = load()
    assert settings.client == "nvidia"
    assert settings.platform == Platform.host()
    assert settings.storage == Path("/home/some/.singularity/shub")
    assert settings.database == settings.cache == Path("/home/some/.singularity")
    assert settings.store == Path("/home/some/.singularity/docker")
    assert (settings.connections, settings.refresh, settings.docker_cmd, settings.disable) == (9, False, False, False)
    assert settings.compression == Compression()


def test_the_file_in_the_repository_holds_the_defaults() -> None:
    keys = from_file(TOP / "config/config.yaml")
    assert keys.pop("images") == []
    assert keys == {key: value for key, value in DEFAULTS.items() if value is not None}


def test_precedence() -> None:
    file, variable = {"connections": 2, "storage": "/file"}, {"SREGISTRY_PYTHON_THREADS": "3", "SREGISTRY_STORAGE": "/variable"}
    assert load(file=file).connections == 2
    assert (load().layer_limit, load({"layer_limit": 5}).layer_limit) == (1099511627776, 5)
    assert load({}, file, **variable).connections == 3
    assert load({"connections": 4}, file, **variable).connections == 4
    assert load({}, file, **variable).storage == Path("/variable")
    assert load(file=file, SREGISTRY_STORAGE="").storage == Path("/file")  # empty is unset


def test_keys_of_compression_count_alone() -> None:
    settings = load({"compression": {"level": "fast"}}, {"compression": {"block_size": "65536"}})
    assert settings.compression == Compression(level="fast", block_size=65536)


def test_platform_of_the_environment_is_one_setting() -> None:
    assert str(load(file={"platform": "linux/s390x"}).platform) == "linux/s390x"
    assert str(load(file={"platform": "linux/s390x"}, SREGISTRY_DOCKER_ARCHITECTURE="arm64").platform) == "linux/arm64"
    assert str(load({"platform": "aarch64"}, SREGISTRY_DOCKER_OS="windows").platform) == "linux/arm64"
    assert load(SREGISTRY_DOCKER_OS="windows").platform == Platform(os="windows", architecture=Platform.host().architecture)


def test_without_a_catalog_images_go_to_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load(SREGISTRY_DISABLE="yes", SREGISTRY_STORAGE="/elsewhere")
    assert settings.disable
    assert settings.storage == tmp_path
    assert load({"storage": "/given"}, SREGISTRY_DISABLE="yes").storage == Path("/given")


@pytest.mark.parametrize("word", ["yes", "YES", "true", "True", "t", "1", "y", " y "])
def test_on(word: str) -> None:
    assert flag(word, "X")
    assert load(SREGISTRY_DOCKER_CMD=word).docker_cmd


@pytest.mark.parametrize("word", ["no", "No", "false", "f", "0", "n", ""])
def test_off(word: str) -> None:
    assert not flag(word, "X")
    assert registry("nvidia", {"SREGISTRY_NVIDIA_NOHTTPS": word}).https


@pytest.mark.parametrize(
    ("given", "environ", "named"),
    [
        ({}, {"SREGISTRY_PYTHON_THREADS": "many"}, "SREGISTRY_PYTHON_THREADS"),
        ({}, {"SREGISTRY_PYTHON_THREADS": "0"}, "SREGISTRY_PYTHON_THREADS"),
        ({}, {"SREGISTRY_DOCKER_CMD": "maybe"}, "SREGISTRY_DOCKER_CMD"),
        ({}, {"SREGISTRY_DISABLE": "2"}, "SREGISTRY_DISABLE"),
        ({}, {"SREGISTRY_CLIENT": "hub"}, "SREGISTRY_CLIENT"),
        ({}, {"SREGISTRY_DOCKER_ARCHITECTURE": "a/b/c/d"}, "SREGISTRY_DOCKER_ARCHITECTURE"),
        ({}, {"SREGISTRY_STORAGE": "~nobody-of-that-name/x"}, "SREGISTRY_STORAGE"),
        ({"connections": True}, {}, "connections"),
        ({"layer_limit": 0}, {}, "layer_limit: expected a size from 1 byte"),
        ({"layer_limit": "1X"}, {}, "layer_limit: '1X' is no size"),
        ({"format": "ext3"}, {}, "format"),
        ({"builder": "umoci"}, {}, "builder"),
        ({"compression": {"block_size": 100000}}, {}, "compression.block_size"),
        ({"compression": {"level": "11"}}, {}, "compression.level"),
        ({"refresh": "perhaps"}, {}, "refresh"),
    ],
)
def test_a_bad_value_is_named_in_one_line(given: dict[str, Any], environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(named)) as caught:
        load(given, {}, **environ)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_table(tmp_path: Path) -> None:
    assert from_file(tmp_path / "none.yaml") == {}
    for text in ("[1, 2]", "a: [", "just words"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"config\.yaml"):
            from_file(tmp_path / "config.yaml")


def test_what_is_wrong_in_the_file_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    file = tmp_path / "config/config.yaml"
    environ = {"HOME": str(tmp_path)}
    for text, words in (
        ("client: nvidia\nformat: ext3\n", "config/config.yaml:2: format: 'ext3' is unknown"),
        ("compression:\n  level: 11\n", "config/config.yaml:2: compression.level: "),
        ("storage: [\n", "config/config.yaml:2: this is no YAML: "),
        ("storage: '\x00'\n", "config/config.yaml: this is no YAML: "),
        ("- a\n", "config/config.yaml: expected `key: value` lines"),
    ):
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_own(environ)
        assert str(caught.value).startswith(words)
        assert "\n" not in str(caught.value)
        # Without it, what needs the catalog alone goes on: by the file, as far as it can be read, or by a variable.
        known = {**environ, "SREGISTRY_DATABASE": str(tmp_path / "d")}
        settings, wrong = load_local(known)
        assert settings.database == tmp_path / "d" and str(wrong) == str(caught.value)
    file.write_text("format: ext3\nclient: docker\ndatabase: here\n")
    settings, wrong = load_local(environ)
    assert (settings.client, settings.database) == ("docker", tmp_path / "here") and wrong is not None
    file.write_text("storage: [\n")
    with pytest.raises(ConfigError, match="mend it, or export SREGISTRY_DATABASE"):
        load_local(environ)
    with pytest.raises(ConfigError, match=r"^SREGISTRY_PYTHON_THREADS: "):  # that is not the file's fault
        load_local({**environ, "SREGISTRY_DATABASE": "/d", "SREGISTRY_PYTHON_THREADS": "x"})


@pytest.mark.needs("root")
def test_a_configuration_file_of_another_user_is_told(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    assert foreign(file) is None
    file.write_text("")
    assert foreign(file) is None
    os.chown(file, 12345, -1)
    assert foreign(file) == f"{file} is another user's: its settings count here"


# -- registries ----------------------------------------------------------------------------------------


def test_nvidia_is_the_registry_of_the_seed() -> None:
    settings = registry("nvidia", {})
    assert settings == RegistrySettings(
        client="nvidia",
        base="nvcr.io",
        collection="nvidia",
        https=True,
        version="v2",
        username="$oauthtoken",
        token=None,
        token_variable="SREGISTRY_NVIDIA_TOKEN",
    )


def test_variables_go_before_the_row() -> None:
    environ = {"BASE": "127.0.0.1:5000", "NOHTTPS": "yes", "VERSION": "v3", "USERNAME": "me", "TOKEN": " secret\n"}
    settings = registry("nvidia", {f"SREGISTRY_NVIDIA_{key}": value for key, value in environ.items()})
    assert (settings.base, settings.https, settings.version, settings.username) == ("127.0.0.1:5000", False, "v3", "me")
    assert settings.token == "secret"
    assert "secret" not in repr(settings)
    assert registry("docker", {"SREGISTRY_NVIDIA_TOKEN": "x"}).token is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BASE", "https://nvcr.io"),
        ("BASE", "nvcr.io/v2"),
        ("BASE", "nvcr.io:port"),
        ("BASE", "a b"),
        ("VERSION", "v2/x"),
        ("NOHTTPS", "x"),
        ("TOKEN", "two\nlines"),
        ("TOKEN", "tökén"),
        ("USERNAME", "two\nlines"),
        ("USERNAME", "a:b"),
    ],
)
def test_a_bad_variable_is_named_and_a_token_is_not_shown(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"SREGISTRY_NVIDIA_{variable}") as caught:
        registry("nvidia", {f"SREGISTRY_NVIDIA_{variable}": value})
    if variable == "TOKEN":
        assert value not in str(caught.value)


def test_the_registries_are_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TOP)  # where the package's own file is the working folder's
    rows = yaml.safe_load((TOP / "config/registries.yaml").read_bytes())
    assert tuple(rows) == clients()
    assert not any("token" in row for row in rows.values())


BASE = {"SREGISTRY_NVIDIA_BASE": "127.0.0.1:5000", "SREGISTRY_NVIDIA_TOKEN": "secret", "SREGISTRY_QUAY_TOKEN": "other"}


@pytest.mark.parametrize(
    ("text", "client", "found", "token"),
    [
        ("caffe2:17.10", "nvidia", "127.0.0.1:5000/nvidia/caffe2:17.10", "secret"),
        ("nvidia://a/b", "nvidia", "127.0.0.1:5000/a/b:latest", "secret"),
        ("127.0.0.1:5000/a/b/c:1", "nvidia", "127.0.0.1:5000/a/b/c:1", "secret"),
        ("nvcr.io/a/b:1", "oci", "nvcr.io/a/b:1", None),
        ("docker://busybox", "docker", "registry-1.docker.io/library/busybox:latest", None),
        ("docker.io/busybox:1", "docker", "registry-1.docker.io/library/busybox:1", None),
        ("index.docker.io/a/b", "docker", "registry-1.docker.io/a/b:latest", None),
        ("quay.io/a/b:1", "quay", "quay.io/a/b:1", "other"),
        ("localhost:5001/one", "oci", "localhost:5001/one:latest", None),
        ("evil.example/a/b", "oci", "evil.example/a/b:latest", None),
        ("docker://evil.example/a/b", "oci", "evil.example/a/b:latest", None),
        ("docker://a/b:1", "docker", "registry-1.docker.io/a/b:1", None),
        ("docker://docker.io/busybox", "docker", "registry-1.docker.io/library/busybox:latest", None),
        ("quay://a/b", "quay", "quay.io/a/b:latest", "other"),
        ("ghcr://a/b/c:1", "ghcr", "ghcr.io/a/b/c:1", None),
        ("oras://quay.io/a/b:1", "quay", "quay.io/a/b:1", "other"),
        ("oras://localhost:5001/one:1", "oci", "localhost:5001/one:1", None),
        ("oci://docker.io/busybox", "docker", "registry-1.docker.io/library/busybox:latest", None),
    ],
)
def test_a_host_has_its_own_client_and_token(text: str, client: str, found: str, token: str | None) -> None:
    settings, reference = locate(text, "nvidia", BASE)
    assert (settings.client, str(reference), settings.token) == (client, found, token)
    assert settings.base == reference.registry


@pytest.mark.parametrize("text", ["gopher://a/b", "oci://name", "oras://a/b:1", "UPPER/case", "", "a/b:", "nvidia://"])
def test_what_names_no_image(text: str) -> None:
    with pytest.raises((ConfigError, InvalidReference)):
        locate(text, "nvidia", {})


def test_any_host_is_not_the_host_of_the_variable() -> None:
    environ = {"SREGISTRY_OCI_BASE": "mine.example", "SREGISTRY_OCI_TOKEN": "secret"}
    settings, reference = locate("oci://a/b:1", "nvidia", environ)
    assert (str(reference), settings.token) == ("mine.example/a/b:1", "secret")
    settings, reference = locate("other.example/a/b:1", "nvidia", environ)
    assert (str(reference), settings.base, settings.token) == ("other.example/a/b:1", "other.example", None)


# -- registries of one's own -----------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The registries.yaml of a working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config").mkdir()
    return tmp_path / "config/registries.yaml"


def test_the_working_folder_adds_and_replaces_registries(own: Path) -> None:
    own.write_text(
        "my-lab: {base: 'lab.example:5000', aliases: [lab], collection: team, version: v3, username: me, token: LAB_KEY,"
        " https: no, rate: 2.5}\n"
        "quay: {base: quay.example}\n"
    )
    assert clients() == ("nvidia", "docker", "quay", "ghcr", "oci", "oras", "my-lab")
    settings, reference = locate("my-lab://tool:1", "nvidia", {"LAB_KEY": "secret", "SREGISTRY_TOKEN_VARIABLES": "LAB_KEY"})
    assert str(reference) == "lab.example:5000/team/tool:1"
    assert settings == RegistrySettings(
        client="my-lab",
        base="lab.example:5000",
        collection="team",
        https=False,
        version="v3",
        username="me",
        token="secret",
        token_variable="LAB_KEY",
        rate=2.5,
    )
    assert registry("my-lab", {"SREGISTRY_MY_LAB_NOHTTPS": "no", "SREGISTRY_MY_LAB_BASE": "x.example"}).https
    assert registry("quay", {}).base == "quay.example"
    assert locate("quay.io/a/b", "nvidia", {})[0].client == "oci"
    assert registry("nvidia", {}).rate is None
    own.write_text("")
    assert "my-lab" not in clients()


def test_all_that_is_wrong_is_told_at_once(own: Path) -> None:
    own.write_text("lab:\n  host: x.example\n  https: perhaps\nOther: {}\n")
    with pytest.raises(Mistakes) as caught:
        clients()
    assert [str(each).partition(";")[0] for each in caught.value.each] == [
        "config/registries.yaml:2: unknown key 'lab.host'",
        "config/registries.yaml:3: lab.https: expected yes or no, got 'perhaps'",
        "config/registries.yaml:4: 'Other': expected a name of lower-case letters, digits and '-'",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "this is no YAML"),
        ("[1, 2]", "expected a table"),
        ("just words", "expected a table"),
        ("Lab: {}", "'Lab': expected a name"),
        ("1: {}", "'1': expected a name"),
        ("lab:", "lab: expected `key: value` lines"),
        ("lab: {host: x}", "unknown key 'lab.host'; known keys: base, aliases,"),
        ("lab: {alias: x}", "unknown key 'lab.alias'; did you mean aliases?"),
        ("lab: {base: 'https://x'}", "lab.base: expected host"),
        ("lab: {base: 5}", "lab.base: expected host"),
        ("lab: {base: x.example, aliases: y.example}", "lab.aliases: expected a list"),
        ("lab: {base: x.example, aliases: ['y/z']}", "lab.aliases[0]: expected host or host:port"),
        ("lab: {collection: A/b}", "lab.collection: expected"),
        ("lab: {version: v2/x}", "lab.version: expected"),
        ("lab: {username: 'a:b'}", "lab.username: expected"),
        ("lab: {token: nvapi-s3cret}", "lab.token: expected the name of an environment variable"),
        ("lab: {https: 2}", "lab.https: expected yes or no"),
        ("lab: {rate: 0}", "lab.rate: expected requests a second"),
        ("lab: {rate: yes}", "lab.rate: expected requests a second"),
        ("lab: {rate: .nan}", "lab.rate: expected requests a second"),
        ("lab: {rate: fast}", "lab.rate: expected requests a second"),
    ],
)
def test_a_bad_row_is_one_line_that_names_it(own: Path, text: str, said: str) -> None:
    own.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        clients()
    line = {"a: [": ":2", "lab: {rate: .nan}": ""}.get(text, ":1")
    assert str(caught.value).startswith(f"config/registries.yaml{line}: ") and "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


# -- targets -------------------------------------------------------------------------------------------

DIGEST = "sha256:" + "0123456789abcdef" * 4


def made(images: list[Any], settings: Settings | None = None) -> list[Target]:
    return targets(entries({"images": images}), settings or load(), {})


@pytest.mark.parametrize(
    ("entry", "name"),
    [
        ("nvidia/tensorflow:17.11", "nvidia-tensorflow:17.11.sif"),
        ("tensorflow:17.11", "nvidia-tensorflow:17.11.sif"),
        ("nvidia/k8s/cuda-sample:nbody", "nvidia-k8s-cuda-sample:nbody.sif"),
        (f"demo/tiny@{DIGEST}", f"demo-tiny@{DIGEST}.sif"),
        ({"uri": "demo/tiny:1", "format": "simg"}, "demo-tiny:1.simg"),
        ({"uri": "demo/tiny:1", "format": "sandbox"}, "demo-tiny:1"),
        ({"uri": "demo/tiny:1", "name": "my name"}, "my name.sif"),
        ({"uri": "demo/tiny:1", "name": "mine.sif"}, "mine.sif"),
    ],
)
def test_names(entry: Any, name: str) -> None:
    (target,) = made([entry], load({"storage": "/images"}))
    assert target.path == Path("/images") / name
    assert re.fullmatch(r"[A-Za-z0-9._-]+-[0-9a-f]{8}", target.key)


@pytest.mark.parametrize("name", ["a/b", "..", "../up", ".hidden", "-option", "two\nlines", "x" * 300])
def test_a_name_stays_in_its_folder(name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        made([{"uri": "demo/tiny:1", "name": name}])


def test_equal_images_are_one() -> None:
    assert len(made(["caffe2", "nvidia/caffe2:latest", "nvcr.io/nvidia/caffe2"])) == 1


@pytest.mark.parametrize(
    "other", ["docker://demo/tiny:1", {"uri": "demo/tiny:1", "platform": "linux/s390x"}, {"uri": "b/c:1", "name": "demo-tiny:1"}]
)
def test_different_images_are_not_one_file(other: Any) -> None:
    with pytest.raises(ConfigError, match=r"would both become .*/demo-tiny:1\.sif"):
        made(["demo/tiny:1", other])


def test_the_key_tells_apart_what_makes_another_image() -> None:
    variants = [
        (load(), "demo/tiny:1"),
        (load(), "demo/tiny:2"),
        (load(), "docker://demo/tiny:1"),
        (load({"compression": {"level": "fast"}}), "demo/tiny:1"),
        (load({"docker_cmd": True}), "demo/tiny:1"),
        (load({"platform": "linux/s390x"}), "demo/tiny:1"),
        *((load({"format": form}), "demo/tiny:1") for form in FORMATS if form != "sif"),
    ]
    keys = [made([uri], settings)[0].key for settings, uri in variants]
    assert len(set(keys)) == len(variants)
    assert made(["demo/tiny:1"], load({"storage": "/elsewhere"}))[0].key == keys[0]


def test_a_build_can_not_be_pulled() -> None:
    with pytest.raises(SregistryError, match="one build"):
        made(["demo/tiny:1@" + "0" * 32])


def test_where_downloads_are_sent() -> None:
    assert load({"transfer": "dtn"}).transfer == "dtn"
    assert load().transfer is None
    for bad in ("a b", "-p", "$(x)", "x;y"):
        with pytest.raises(ConfigError, match=r"^transfer: .* is no name of a partition or queue"):
            load({"transfer": bad})
