"""Which credentials go to which host: their order, the files and helpers that others write, and nothing secret in an error."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sregistry.config.settings import client_of, registry
from sregistry.errors import ConfigError, SregistryError
from sregistry.registry.credentials import Credentials, IdentityToken, Keyring, Password, RegistryToken, secrets

SECRET = "s3cret-wörd/+"
HUB = "registry-1.docker.io"


def auth(username: str = "me", password: str = SECRET) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}


def keyring(host: str, environ: Mapping[str, str], **options: Any) -> Keyring:
    return Keyring(registry(client_of(host, environ), environ, fallback=host), environ, **options)


def find(host: str, environ: Mapping[str, str], repository: str = "a/b") -> Credentials | None:
    return keyring(host, environ).find(host, repository)


def pair(prefix: str, username: str = "me", password: str = SECRET) -> dict[str, str]:
    return {f"{prefix}USERNAME": username, f"{prefix}PASSWORD": password}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


def write(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def helper(folder: Path, name: str, script: str) -> str:
    """Write a credential helper; it keeps what it was asked in <name>.asked."""
    folder.mkdir(exist_ok=True)
    program = folder / f"docker-credential-{name}"
    program.write_text(f'#!/bin/sh\nserver=$(cat)\necho "$1 $server" >> {folder}/{name}.asked\n{script}\n')
    program.chmod(0o755)
    return f"{folder}:/usr/bin:/bin"


# -- order ---------------------------------------------------------------------------------------------

HOST = "quay.io"


def test_the_first_source_wins(home: Path) -> None:
    """Take away one source after the other."""
    environ = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), "REGISTRY_AUTH_FILE": str(home / "named.json")}
    environ |= {"SREGISTRY_QUAY_TOKEN": "t", **pair("APPTAINER_DOCKER_"), **pair("SINGULARITY_DOCKER_"), **pair("DOCKER_")}
    names = (
        ".docker/config.json",
        "named.json",
        "run/containers/auth.json",
        ".config/containers/auth.json",
        ".apptainer/docker-config.json",
        ".singularity/docker-config.json",
    )
    files = [write(home / name, {"auths": {HOST: auth(password=name)}}) for name in names]
    netrc = write(home / ".netrc", f"machine {HOST} login me password {SECRET}\n")

    def source() -> str | None:
        found = find(HOST, environ)
        assert found is None or isinstance(found, Password)
        return found.source if found else None

    assert source() == "SREGISTRY_QUAY_TOKEN"
    del environ["SREGISTRY_QUAY_TOKEN"]
    for prefix in ("APPTAINER_DOCKER_", "SINGULARITY_DOCKER_", "DOCKER_"):
        assert source() == f"{prefix}USERNAME, {prefix}PASSWORD"
        del environ[f"{prefix}PASSWORD"]  # a pair counts only whole
    for file in files:
        assert source() == f"{file} (auths)"
        file.unlink()
    assert source() == str(netrc)
    netrc.unlink()
    assert source() is None


def test_docker_hub_has_variables_of_its_own(home: Path) -> None:
    default = write(home / ".docker/config.json", {"auths": {"https://index.docker.io/v1/": auth("default")}})
    named = write(home / "hub.json", {"auths": {"https://index.docker.io/v1/": auth("named")}})
    environ = {"HOME": str(home), "SREGISTRY_DOCKERHUB_SECRETS": str(named), **pair("SREGISTRY_DOCKERHUB_")}
    found = find(HUB, environ)
    assert found == Password(source="SREGISTRY_DOCKERHUB_USERNAME, SREGISTRY_DOCKERHUB_PASSWORD", username="me", password=SECRET)
    assert find("quay.io", environ) is find("nvcr.io", environ) is find("evil.example", environ) is None
    del environ["SREGISTRY_DOCKERHUB_PASSWORD"]
    assert find(HUB, environ) == Password(source=f"{named} (auths)", username="named", password=SECRET)
    write(named, {})
    assert find(HUB, environ) is None  # in place of the default files, not before them
    named.unlink()
    with pytest.raises(ConfigError, match=r"SREGISTRY_DOCKERHUB_SECRETS: .*hub\.json is no file"):
        find(HUB, environ)
    del environ["SREGISTRY_DOCKERHUB_SECRETS"]
    assert find(HUB, environ) == Password(source=f"{default} (auths)", username="default", password=SECRET)


@pytest.mark.parametrize(
    ("host", "username", "sent"),
    [
        pytest.param("nvcr.io", "$oauthtoken", True, id="ngc-key-to-nvcr"),
        pytest.param(HUB, "$oauthtoken", False, id="ngc-key-to-docker-hub"),
        pytest.param("quay.io", "$oauthtoken", False, id="ngc-key-to-quay"),
        pytest.param("evil.example", "$oauthtoken", False, id="ngc-key-to-any-host"),
        pytest.param("nvcr.io", "me", False, id="another-pair-to-nvcr"),
        pytest.param(HUB, "me", True, id="docker-hub"),
        pytest.param("localhost:5000", "me", True, id="any-host"),
    ],
)
@pytest.mark.parametrize("prefix", ["APPTAINER_DOCKER_", "SINGULARITY_DOCKER_", "DOCKER_"])
def test_a_literal_user_name_is_one_registrys(prefix: str, host: str, username: str, sent: bool) -> None:
    assert (find(host, pair(prefix, username)) is not None) == sent
    mirror = {"SREGISTRY_NVIDIA_BASE": "127.0.0.1:5000"}
    assert (find("127.0.0.1:5000", {**mirror, **pair(prefix, username)}) is not None) == (username == "$oauthtoken")
    assert (find(host, {**mirror, **pair(prefix, username)}) is not None) == sent


def test_a_token_goes_to_its_own_base_only() -> None:
    environ = {"SREGISTRY_OCI_TOKEN": "t", "SREGISTRY_NVIDIA_TOKEN": "t"}
    assert find("nvcr.io", environ) == Password(source="SREGISTRY_NVIDIA_TOKEN", username="$oauthtoken", password="t")
    assert find("any.example", environ) is None
    environ |= {"SREGISTRY_OCI_BASE": "mine.example", "SREGISTRY_NVIDIA_BASE": "mirror.example"}
    assert find("mine.example", environ) == Password(source="SREGISTRY_OCI_TOKEN", username="token", password="t")
    assert find("any.example", environ) is find("nvcr.io", environ) is None
    assert find("mirror.example", environ) is not None
    # One object that is asked for another host than its client's.
    assert Keyring(registry("nvidia", environ), environ).find("evil.example") is None


# -- files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "key", "found"),
    [
        ("quay.io", "quay.io", True),
        ("quay.io", "https://quay.io/v1/", True),
        ("quay.io", "https://quay.io", True),
        ("quay.io", "http://quay.io/v2/", True),
        ("quay.io", "quay.io/", True),
        ("quay.io", "quay.io/v1/", True),
        ("quay.io", "quay.io/a", True),
        ("quay.io", "quay.io/a/b", True),
        ("quay.io", "quay.io/a/b/c", False),
        ("quay.io", "quay.io/other", False),
        ("quay.io", "quay.io:443", False),
        ("quay.io", "xquay.io", False),
        ("quay.io", "evil.example/quay.io", False),
        ("127.0.0.1:5000", "127.0.0.1:5000", True),
        ("127.0.0.1:5000", "127.0.0.1", False),
        (HUB, "https://index.docker.io/v1/", True),
        (HUB, "docker.io", True),
        (HUB, "registry-1.docker.io", True),
        ("quay.io", "https://index.docker.io/v1/", False),
    ],
)
def test_keys(home: Path, host: str, key: str, found: bool) -> None:
    write(home / ".docker/config.json", {"auths": {key: auth()}})
    assert (find(host, {"HOME": str(home)}) is not None) == found


def test_a_mirror_of_docker_hub_does_not_get_what_docker_hub_gets(home: Path) -> None:
    write(home / ".docker/config.json", {"auths": {"https://index.docker.io/v1/": auth()}})
    assert find("mirror.example", {"HOME": str(home), "SREGISTRY_DOCKER_BASE": "mirror.example"}) is None


def test_the_closest_key_counts(home: Path) -> None:
    write(home / ".docker/config.json", {"auths": {"quay.io": auth("far"), "quay.io/a/b": auth("close"), "quay.io/a": auth("near")}})
    users = [
        getattr(find("quay.io", {"HOME": str(home)}, repository), "username", None) for repository in ("a/b", "a/b/c", "a/c", "x/y", "")
    ]
    assert users == ["close", "close", "near", "far", "far"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        pytest.param(auth(), Password(source="F", username="me", password=SECRET), id="auth"),
        pytest.param(auth("me", "a:b"), Password(source="F", username="me", password="a:b"), id="colon-in-password"),
        pytest.param(auth("me", "x\0\0"), Password(source="F", username="me", password="x"), id="padded"),
        pytest.param({"username": "me", "password": "x"}, Password(source="F", username="me", password="x"), id="plain"),
        pytest.param({"identitytoken": "i"}, IdentityToken(source="F", token="i"), id="identity"),
        pytest.param(
            {"identitytoken": "i", **auth("me", "")}, IdentityToken(source="F", username="me", token="i"), id="identity-of-a-user"
        ),
        pytest.param({"identitytoken": "i", **auth("<token>", "")}, IdentityToken(source="F", token="i"), id="identity-marked"),
        pytest.param({"registrytoken": "r", **auth()}, RegistryToken(source="F", token="r"), id="registry"),
        pytest.param({}, None, id="empty"),
        pytest.param({"auth": ""}, None, id="empty-auth"),
        pytest.param({"username": "me"}, None, id="half"),
        pytest.param({"email": "me@there"}, None, id="else"),
    ],
)
def test_entries(home: Path, entry: object, expected: Credentials | None) -> None:
    path = write(home / ".docker/config.json", {"auths": {HOST: entry}})
    found = find(HOST, {"HOME": str(home)})
    assert repr(found).replace(f"{path} (auths)", "F") == repr(expected)
    assert (secrets(found) if found else None) == (secrets(expected) if expected else None)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("{", id="no-json"),
        pytest.param(SECRET, id="text"),
        pytest.param("[]", id="list"),
        pytest.param("[" * 9999, id="deep"),
        pytest.param('{"auths": ["x"]}', id="auths-list"),
        pytest.param(f'{{"auths": {{"quay.io": "{SECRET}"}}}}', id="entry-text"),
        pytest.param(f'{{"auths": {{"quay.io": {{"auth": "{SECRET}"}}}}}}', id="no-base64"),
        pytest.param(json.dumps({"auths": {"quay.io": {"auth": base64.b64encode(SECRET.encode()).decode()}}}), id="no-colon"),
        pytest.param(json.dumps({"auths": {"quay.io": {"auth": base64.b64encode(b"me:\xff").decode()}}}), id="no-utf8"),
        pytest.param(json.dumps({"auths": {"quay.io": auth("me", f"{SECRET}\r\nX: y")}}), id="line-end"),
        pytest.param(json.dumps({"auths": {"quay.io": {"username": "me", "password": f"{SECRET}\udc80"}}}), id="half-a-character"),
        pytest.param(json.dumps({"auths": {"quay.io": {"auth": 5}}}), id="number"),
        pytest.param(json.dumps({"auths": {"quay.io": {"identitytoken": f"{SECRET}\n"}}}), id="identity-line-end"),
        pytest.param(json.dumps({"auths": {"quay.io": {"registrytoken": f"{SECRET} x"}}}), id="registry-blank"),
        pytest.param(json.dumps({"auths": {"quay.io": {"username": f"{SECRET}:x", "password": "x"}}}), id="colon-in-name"),
        pytest.param(json.dumps({"credHelpers": {"quay.io": "../../evil"}}), id="helper-path"),
        pytest.param(json.dumps({"credsStore": "a b"}), id="helper-blank"),
        pytest.param(json.dumps({"credsStore": ["x"]}), id="helper-list"),
        pytest.param(json.dumps({"credHelpers": "pass"}), id="helpers-text"),
        pytest.param(" " * (5 << 20), id="large"),
    ],
)
def test_a_broken_file_is_one_line_that_shows_nothing_of_it(home: Path, content: str) -> None:
    path = write(home / ".docker/config.json", content)
    with pytest.raises(ConfigError) as caught:
        find(HOST, {"HOME": str(home), "PATH": "/usr/bin:/bin"})
    said = str(caught.value)
    assert str(path) in said and "\n" not in said
    assert SECRET not in said and "s3cret" not in said


@pytest.mark.parametrize("name", [".docker/config.json", ".netrc"])
def test_a_file_that_can_not_be_read(home: Path, name: str) -> None:
    path = write(home / name, {})
    path.unlink()
    path.symlink_to("/proc/self/mem")  # root may open everything but read this
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")) as caught:
        find(HOST, {"HOME": str(home)})
    assert "\n" not in str(caught.value)


def test_missing_files_and_homes_are_nothing(home: Path) -> None:
    assert find(HOST, {}) is None
    (home / "file").touch()
    for folder in (home / "none", home / "file"):
        assert (
            find(HOST, {"HOME": str(folder), "DOCKER_CONFIG": str(folder), "REGISTRY_AUTH_FILE": str(folder / "x"), "NETRC": "/none"})
            is None
        )


def test_docker_config_names_the_folder(home: Path) -> None:
    write(home / ".docker/config.json", {"auths": {HOST: auth("home")}})
    path = write(home / "elsewhere/config.json", {"auths": {HOST: auth("there")}})
    found = find(HOST, {"HOME": str(home), "DOCKER_CONFIG": str(path.parent)})
    assert found == Password(source=f"{path} (auths)", username="there", password=SECRET)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda x: (
            st.lists(x, max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    ["auths", "credHelpers", "quay.io", "https://quay.io/v1/", "auth", "identitytoken", "username", "password", "x"]
                ),
                x,
                max_size=3,
            )
        ),
        max_leaves=12,
    )
)
def test_any_document_gives_credentials_or_one_of_our_errors(tmp_path_factory: pytest.TempPathFactory, document: object) -> None:
    folder = tmp_path_factory.getbasetemp() / "documents"
    write(folder / "config.json", document)
    try:
        find(HOST, {"DOCKER_CONFIG": str(folder), "PATH": "/none"})
    except SregistryError as error:
        assert "\n" not in str(error)


# -- helpers -------------------------------------------------------------------------------------------

ANSWER = f"""printf '%s' '{{"ServerURL":"x","Username":"me","Secret":"{SECRET}"}}'"""


def test_the_helper_of_a_host_goes_first_and_that_of_all_last(home: Path) -> None:
    path = helper(home / "bin", "one", ANSWER)
    helper(home / "bin", "all", ANSWER.replace('"me"', '"all"'))
    document = {"credHelpers": {HOST: "one"}, "auths": {HOST: auth("file"), "ghcr.io": auth("file"), "nvcr.io": {}}, "credsStore": "all"}
    write(home / ".docker/config.json", document)
    environ = {"HOME": str(home), "PATH": path, "SREGISTRY_NVIDIA_USERNAME": "x"}
    assert find(HOST, environ) == Password(source="docker-credential-one", username="me", password=SECRET)
    assert getattr(find("ghcr.io", environ), "username", "") == "file"
    assert find("nvcr.io", environ) == Password(source="docker-credential-all", username="all", password=SECRET)
    assert (home / "bin/one.asked").read_text() == f"get {HOST}\n"
    assert (home / "bin/all.asked").read_text() == "get nvcr.io\n"


def test_docker_hub_has_a_name_of_its_own_for_helpers(home: Path) -> None:
    path = helper(home / "bin", "all", ANSWER)
    write(home / ".docker/config.json", {"credsStore": "all"})
    assert find(HUB, {"HOME": str(home), "PATH": path})
    assert (home / "bin/all.asked").read_text() == "get https://index.docker.io/v1/\n"


def test_a_helper_may_give_an_identity_token_and_gets_no_token_of_ours(home: Path) -> None:
    script = """printf '{"Username":"<token>","Secret":"%s"}' "id$SREGISTRY_NVIDIA_TOKEN$MINE" """
    path = helper(home / "bin", "one", script)
    write(home / ".docker/config.json", {"credHelpers": {HOST: "one"}})
    found = find(HOST, {"HOME": str(home), "PATH": path, "SREGISTRY_NVIDIA_TOKEN": "leak", "MINE": "entity"})
    assert found == IdentityToken(source="docker-credential-one", token="identity")


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        pytest.param("exit 0", "gave no user name and secret", id="silent"),
        pytest.param("echo '[]'", "gave no user name and secret", id="list"),
        pytest.param("""echo '{"Username":"me"}'""", "gave no user name and secret", id="half"),
        pytest.param("""echo '{"Username":"me","Secret":5}'""", "can't be sent", id="number"),
        pytest.param("""printf '{"Username":"me","Secret":"a\\\\nb"}'""", "can't be sent", id="line-end"),
        pytest.param("""echo '{"Username":"m:e","Secret":"x"}'""", "can't be sent", id="colon"),
        pytest.param("echo the vault is locked; exit 1", "failed (1): the vault is locked", id="says-why"),
        pytest.param("echo why >&2; exit 3", "failed (3): why", id="on-stderr"),
        pytest.param("exec sleep 20", "gave no answer in 0.3 s", id="hangs"),
        pytest.param("kill -9 $$", "failed (-9)", id="killed"),
    ],
)
def test_a_helper_that_fails_is_remembered_and_asked_once(home: Path, script: str, problem: str) -> None:
    path = helper(home / "bin", "bad", script)
    write(home / ".docker/config.json", {"credHelpers": {HOST: "bad"}, "credsStore": "bad"})
    environ = {"HOME": str(home), "PATH": path}
    ring = keyring(HOST, environ, limit=0.3)
    assert ring.find(HOST, "a/b") is ring.find(HOST, "c/d") is None
    assert ring.problems == (f"docker-credential-bad {problem}",) or problem in ring.problems[0]
    assert (home / "bin/bad.asked").read_text().count("\n") == 1
    # What else there is still counts.
    write(home / ".netrc", f"machine {HOST} login me password x\n")
    assert keyring(HOST, environ, limit=0.3).find(HOST) == Password(source=str(home / ".netrc"), username="me", password="x")


def test_a_helper_that_is_not_there(home: Path) -> None:
    write(home / ".docker/config.json", {"credsStore": "desktop"})
    ring = keyring(HOST, {"HOME": str(home), "PATH": "/none"})
    assert ring.find(HOST) is None
    assert ring.problems == ("docker-credential-desktop is not on PATH",)


@pytest.mark.parametrize("script", ["echo credentials not found in native keychain; exit 1", """echo '{"Username":"","Secret":""}'"""])
def test_a_helper_that_has_nothing_is_no_problem(home: Path, script: str) -> None:
    path = helper(home / "bin", "empty", script)
    write(home / ".docker/config.json", {"credsStore": "empty"})
    ring = keyring(HOST, {"HOME": str(home), "PATH": path})
    assert (ring.find(HOST), ring.problems) == (None, ())


# -- netrc ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "text", "username"),
    [
        ("quay.io", "machine quay.io login me password x", "me"),
        ("quay.io", "machine quay.io\nlogin me\naccount y\npassword x\n", "me"),
        ("quay.io", "machine ghcr.io login me password x", None),
        ("quay.io", "default login me password x", None),
        ("default", "default login me password x", None),
        ("quay.io", "machine quay.io password x", None),
        ("127.0.0.1:5000", "machine 127.0.0.1 login me password x", "me"),
        ("127.0.0.1:5000", "machine 127.0.0.1 login far password x machine 127.0.0.1:5000 login me password x", "me"),
        (HUB, "machine docker.io login me password x", "me"),
        ("nvcr.io", "machine nvcr.io login $oauthtoken password x", "$oauthtoken"),
    ],
)
def test_netrc(home: Path, host: str, text: str, username: str | None) -> None:
    path = write(home / "my-netrc", text)
    found = find(host, {"NETRC": str(path)})
    assert found == (Password(source=str(path), username=username, password="x") if username else None)


@pytest.mark.parametrize(
    "content", [f"machine quay.io {SECRET}", f"{SECRET} x", f"machine quay.io login me passwort {SECRET}", b"\xff\xfe"]
)
def test_a_broken_netrc_is_not_quoted(home: Path, content: str | bytes) -> None:
    path = home / ".netrc"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError, match=r"/\.netrc: ") as caught:
        find(HOST, {"HOME": str(home)})
    assert "s3cret" not in str(caught.value)


# -- secrets -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["SREGISTRY_DOCKERHUB_", "APPTAINER_DOCKER_", "SINGULARITY_DOCKER_", "DOCKER_"])
@pytest.mark.parametrize("name", ["USERNAME", "PASSWORD"])
@pytest.mark.parametrize("end", ["\n", "\udc80"])
def test_control_characters_are_refused_by_name(prefix: str, name: str, end: str) -> None:
    environ = {**pair(prefix), f"{prefix}{name}": f"{SECRET}{end}"}
    with pytest.raises(ConfigError, match=f"{prefix}{name}: holds a character") as caught:
        find(HUB, environ)
    assert SECRET not in str(caught.value)


def test_no_secret_in_a_repr() -> None:
    found: list[Credentials] = [
        Password(source="S", username="me", password=SECRET),
        IdentityToken(source="S", token=SECRET),
        RegistryToken(source="S", token=SECRET),
    ]
    for credentials in found:
        assert SECRET not in repr(credentials) and "source='S'" in repr(credentials)
        assert SECRET in secrets(credentials)
