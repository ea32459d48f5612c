"""`sregistry search`: what a query means, what matches, and what is printed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sregistry.cli.__main__ import main
from sregistry.client import Client
from sregistry.config.settings import Settings
from sregistry.errors import AuthenticationError, ConfigError, InvalidReference, RegistryError, UnavailableError, UsageError
from sregistry.registry.search import Search
from tests.support.scripted import Reply, Scripted, json_errors

TAGS = ["24.01-py3", "24.02-py2", "24.02-py3", "24.10-py3", "latest", "sha256-" + "0" * 64 + ".sig"]
REPOSITORIES = ["nvidia/cuda", "nvidia/k8s/cuda-sample", "nvidia/pytorch", "org/torch", "torchvision"]


def body(key: str, names: list[str]) -> Reply:
    return Reply(200, json.dumps({key: names}).encode())


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as script:
        script.routes |= {
            "/v2/nvidia/pytorch/tags/list": body("tags", list(reversed(TAGS))),
            "/v2/nvidia/empty/tags/list": body("tags", []),
            "/v2/library/ubuntu/tags/list": body("tags", ["22.04"]),
            "/v2/_catalog": body("repositories", REPOSITORIES),
        }
        yield script


@pytest.fixture
def environ(server: Scripted, tmp_path: Path) -> dict[str, str]:
    return {
        **{f"SREGISTRY_{name}_BASE": server.host for name in ("NVIDIA", "DOCKER")},
        **{f"SREGISTRY_{name}_NOHTTPS": "yes" for name in ("NVIDIA", "DOCKER")},
        "SINGULARITY_CACHEDIR": str(tmp_path / "cache"),
        "SREGISTRY_DATABASE": str(tmp_path / "database"),
    }


@pytest.fixture
def client(environ: dict[str, str]) -> Client:
    return Client(Settings.load(environ=environ), environ)


# -- what a query means

ENVIRON = {"SREGISTRY_NVIDIA_BASE": "127.0.0.1:5000"}


@pytest.mark.parametrize(
    ("text", "base", "prefix", "path", "pattern", "repository"),
    [
        ("pytorch", "127.0.0.1:5000", "", "pytorch", "", "nvidia/pytorch"),
        (" nvidia/pytorch ", "127.0.0.1:5000", "", "nvidia/pytorch", "", "nvidia/pytorch"),
        ("nvidia/pytorch:24.*-py3", "127.0.0.1:5000", "", "nvidia/pytorch", "24.*-py3", "nvidia/pytorch"),
        ("pytorch:24.01-py3", "127.0.0.1:5000", "", "pytorch", "24.01-py3", "nvidia/pytorch"),
        ("nvidia/*torch*", "127.0.0.1:5000", "", "nvidia/*torch*", "", None),
        ("[a-n]*", "127.0.0.1:5000", "", "[a-n]*", "", None),
        ("[a-n]*/x", "127.0.0.1:5000", "", "[a-n]*/x", "", None),
        ("nvidia/", "127.0.0.1:5000", "", "nvidia/*", "", None),
        ("*", "127.0.0.1:5000", "", "*", "", None),
        ("", "127.0.0.1:5000", "", "*", "", None),
        ("127.0.0.1:5000/", "127.0.0.1:5000", "127.0.0.1:5000/", "*", "", None),
        ("127.0.0.1:5000/pytorch:2*", "127.0.0.1:5000", "127.0.0.1:5000/", "pytorch", "2*", "nvidia/pytorch"),
        ("quay.io/", "quay.io", "quay.io/", "*", "", None),
        ("quay.io/org/na?e", "quay.io", "quay.io/", "org/na?e", "", None),
        ("quay.io/org/name", "quay.io", "quay.io/", "org/name", "", "org/name"),
        ("docker.io/ubuntu:22.*", "registry-1.docker.io", "docker.io/", "ubuntu", "22.*", "library/ubuntu"),
        ("docker://ubuntu", "registry-1.docker.io", "docker://", "ubuntu", "", "library/ubuntu"),
        ("nvidia://nvcr.io/nim/*", "nvcr.io", "nvidia://nvcr.io/", "nim/*", "", None),
        ("oras://h.example:5/a/b:*", "h.example:5", "oras://h.example:5/", "a/b", "*", "a/b"),
        ("[::1]:5000/a/b:*", "[::1]:5000", "[::1]:5000/", "a/b", "*", "a/b"),
        ("localhost/a", "localhost", "localhost/", "a", "", "a"),
    ],
)
def test_a_query(text: str, base: str, prefix: str, path: str, pattern: str, repository: str | None) -> None:
    found = Search.parse(text, "nvidia", ENVIRON)
    assert (found.settings.base, found.prefix, found.path, found.pattern) == (base, prefix, path, pattern)
    assert (found.repository and found.repository.repository) == repository


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("nvidia/*:24.*", UsageError, "tags are listed of one repository; name it"),
        ("quay.io/:1", UsageError, "tags are listed of one repository"),
        (f"nvidia/pytorch@sha256:{'0' * 64}", InvalidReference, "leave out what follows '@'"),
        ("gopher://x", ConfigError, "gopher:// is unknown"),
        ("oci://name", InvalidReference, "'oci://name' names no registry; write host/name"),
        ("oci://*", InvalidReference, "names no registry"),
        ("Nvidia/PyTorch", InvalidReference, "repositories are lower case"),
        ("a b", InvalidReference, "is no repository name"),
        ("nvidia//x", InvalidReference, "is no repository name"),
    ],
)
def test_what_can_not_be_looked_for(text: str, kind: type[UsageError], words: str) -> None:
    with pytest.raises(kind, match=words):
        Search.parse(text, "nvidia", ENVIRON)


# -- what matches


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("pytorch", [f"nvidia/pytorch:{tag}" for tag in ("latest", *TAGS[:-2])]),
        ("nvidia/pytorch:24.*-py3", ["nvidia/pytorch:24.01-py3", "nvidia/pytorch:24.02-py3", "nvidia/pytorch:24.10-py3"]),
        ("nvidia/pytorch:24.0[2-9]-*", ["nvidia/pytorch:24.02-py2", "nvidia/pytorch:24.02-py3"]),
        ("nvidia/pytorch:latest", ["nvidia/pytorch:latest"]),
        ("nvidia/pytorch:24", []),
        ("nvidia/pytorch:LATEST", []),
        ("nvidia/empty", []),
        ("docker://ubuntu", ["docker://library/ubuntu:22.04"]),
        ("HOST/nvidia/pytorch:l*", ["HOST/nvidia/pytorch:latest"]),
        ("nvidia/*torch*", ["nvidia/pytorch"]),
        ("*torch*", ["nvidia/pytorch", "org/torch", "torchvision"]),
        ("torch*", ["org/torch", "torchvision"]),
        ("CUDA*", ["nvidia/cuda"]),
        ("nvidia/", ["nvidia/cuda", "nvidia/k8s/cuda-sample", "nvidia/pytorch"]),
        ("HOST/", [f"HOST/{name}" for name in REPOSITORIES]),
        ("torch", ["nvidia/pytorch", "org/torch", "torchvision"]),
        ("nvidia/py", ["nvidia/pytorch"]),
        ("nothing", []),
    ],
)
def test_what_matches(client: Client, server: Scripted, query: str, found: list[str]) -> None:
    assert client.search(query.replace("HOST", server.host)) == [name.replace("HOST", server.host) for name in found]


def test_what_was_found_can_be_looked_for(client: Client, server: Scripted) -> None:
    for query in ("pytorch", f"{server.host}/nvidia/pytorch:2*", "docker://ubuntu"):
        for name in client.search(query):
            assert client.search(name) == [name]


# -- registries that refuse


def test_a_word_that_is_no_repository_where_none_are_listed(client: Client, server: Scripted) -> None:
    server.routes["/v2/_catalog"] = Reply(404)
    server.routes["/v2/nvidia/torch/tags/list"] = Reply(404, json_errors("NAME_UNKNOWN"))
    with pytest.raises(RegistryError, match=f"{server.host} has no image nvidia/torch .*; {server.host} does not list its repositories$"):
        client.search("torch")


def test_a_repository_that_is_refused_where_none_are_listed(client: Client, server: Scripted) -> None:
    """As nvcr.io answers for what does not exist."""
    for path in ("/v2/nvidia/torch/tags/list", "/v2/_catalog"):
        server.routes[path] = Reply(401)
    with pytest.raises(AuthenticationError, match=r"You must have an Nvidia GPU cloud token to use it\..*nvidia/torch"):
        client.search("torch")


def test_a_tag_of_an_unknown_repository_is_no_search_for_repositories(client: Client, server: Scripted) -> None:
    server.routes["/v2/nvidia/torch/tags/list"] = Reply(404, json_errors("NAME_UNKNOWN"))
    with pytest.raises(RegistryError, match="has no image nvidia/torch"):
        client.search("torch:1*")
    assert len(server.asked) == 1


def test_a_registry_in_trouble_is_not_asked_for_its_repositories(client: Client, server: Scripted) -> None:
    server.routes["/v2/nvidia/torch/tags/list"] = Reply(503, b"", [("Retry-After", "0")])
    with pytest.raises(UnavailableError, match="try again later"):
        client.search("torch")
    assert "/v2/_catalog" not in {path.partition("?")[0] for path in server.paths()}


# -- the command


@pytest.fixture
def command(environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SREGISTRY_CLIENT", raising=False)
    monkeypatch.delenv("SREGISTRY_NVIDIA_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("command")
def test_names_stand_alone_on_stdout(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["search", "nvidia/pytorch:24.*-py3"]) == 0
    out, err = capsys.readouterr()
    assert out == "nvidia/pytorch:24.01-py3\nnvidia/pytorch:24.02-py3\nnvidia/pytorch:24.10-py3\n"
    assert err == f"[client|nvidia] [database|{tmp_path}/database/sregistry.json]\n"
    assert main(["--quiet", "search", "*torch*"]) == 0
    assert capsys.readouterr() == ("nvidia/pytorch\norg/torch\ntorchvision\n", "")
    assert not (tmp_path / "cache").exists() and not (tmp_path / "database").exists()


@pytest.mark.usefixtures("command")
def test_json_and_a_limit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", "--json", "--limit", "2", "pytorch:24*"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == ["nvidia/pytorch:24.02-py3", "nvidia/pytorch:24.10-py3"]
    assert err.splitlines()[1:] == ["The last 2 of 4."]
    assert main(["search", "--limit", "9", "pytorch:24*"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 4 and len(err.splitlines()) == 1
    assert main(["--quiet", "search", "--limit", "1", "pytorch:24*"]) == 0
    assert capsys.readouterr() == ("nvidia/pytorch:24.10-py3\n", "")


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_nothing_is_an_error(capsys: pytest.CaptureFixture[str], options: list[str]) -> None:
    assert main(["--quiet", "search", *options, "nvidia/pytorch:99.*"]) == 1
    assert capsys.readouterr() == ("", "error: nvidia/pytorch:99.*: nothing matches; a word, or a pattern with '*', matches more\n")


@pytest.mark.usefixtures("command")
def test_a_registry_that_refuses_is_one_line(capsys: pytest.CaptureFixture[str], server: Scripted) -> None:
    server.routes["/v2/_catalog"] = Reply(404)
    assert main(["--quiet", "search", "nvidia/*"]) == 1
    said = f"error: {server.host} does not have a list of its repositories (404 Not Found); many registries list them to nobody"
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"{said}: name a repository, and its tags are listed\n")


@pytest.mark.usefixtures("command")
@pytest.mark.parametrize("arguments", [[], ["x", "--limit", "0"], ["x", "--limit", "-1"], ["x", "--limit", "y"]])
def test_bad_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["search", *arguments])
    assert caught.value.code == 2


# -- without certificate checks


@pytest.mark.parametrize(("https", "count"), [("no", 1), ("yes", 0)], ids=["https", "http"])
def test_unchecked_certificates_are_warned_of(
    https: str, count: int, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in {**environ, "SREGISTRY_NVIDIA_NOHTTPS": https, "SREGISTRY_HTTPS_NOVERIFY": "yes"}.items():
        monkeypatch.setenv(name, value)
    main(["search", "nvidia/pytorch"])  # no registry answers in TLS here
    assert capfd.readouterr().err.count("WARNING SREGISTRY_HTTPS_NOVERIFY: certificates are not checked") == count
