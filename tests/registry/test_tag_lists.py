"""What registries list: pages and what leads from one to the next, registries that lie, and the order of versions."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sregistry.errors import AuthenticationError, DocumentError, RegistryError, UnavailableError
from sregistry.oci.documents import Descriptor, Digest, MediaType
from sregistry.oci.json_fields import MAX_DOCUMENT
from sregistry.oci.reference import Reference, is_repository, is_tag
from sregistry.oci.versions import version
from sregistry.registry.client import PAGE
from sregistry.registry.tag_lists import next_of, repositories, tags
from sregistry.registry.tokens import CATALOG
from sregistry.store.store import Store
from sregistry.system import limits
from tests.support.registry import get, serving
from tests.support.scripted import TOKEN, Answer, Asked, Reply, Scripted, bearer, client, json_errors

TAGS = "/v2/demo/tiny/tags/list"


@pytest.fixture
def server() -> Iterator[Scripted]:
    with Scripted() as script:
        yield script


def body(names: object, key: str = "tags") -> bytes:
    return json.dumps({"name": "demo/tiny", key: names}).encode()


def page(names: Sequence[str], link: str | None = None, key: str = "tags") -> Reply:
    return Reply(200, body(names, key), [("Link", link)] if link else [])


def listed(host: str, **options: Any) -> list[str]:
    with client(host, **options) as it:
        return tags(it, Reference(registry=host, repository="demo/tiny", tag=None))


def catalog(host: str, **options: Any) -> list[str]:
    with client(host, **options) as it:
        return repositories(it)


def query(asked: Asked) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(asked.path).query).items()}


# -- pages


@pytest.mark.parametrize(
    "link",
    [
        '<{path}?page=2>; rel="next"',
        '<http://{host}{path}?page=2>; rel="next"',
        "<{path}?page=2>;rel=next",
        '<?page=2>; rel="next"',
        '<list?page=2>; title="a, <b>; rel=prev"; REL="prev Next"',
        '<{path}?page=9>; rel="prev", <{path}?page=2>; rel="next"',
        "<//{host}{path}?page=2> ; rel = next ; n = 1",
        "<HTTP://{host}{path}?page=2>;rel=next;rel=prev",
    ],
)
def test_all_forms_of_a_link_are_followed(server: Scripted, link: str) -> None:
    def reply(asked: Asked) -> Reply:
        return page(["2"]) if query(asked).get("page") == "2" else page(["1"], link.format(path=TAGS, host=server.host))

    server.routes[TAGS] = reply
    assert listed(server.host) == ["1", "2"]
    assert server.paths() == [f"{TAGS}?n={PAGE}", f"{TAGS}?page=2"]


@pytest.mark.parametrize(
    "link",
    [
        '<{path}?page=2>; rel="prev"',
        '<{path}?page=2>; rel="nextpage"',
        '<{path}?page=2>; rel=prev; rel="next"',
        '<{path}?page=2>; title="rel=next"',
        "<{path}?page=2>",
        "{path}?page=2; rel=next",
        '<{path}?page=2; rel="next"',
        "",
    ],
)
def test_what_is_no_link_to_a_next_page(server: Scripted, link: str) -> None:
    server.routes[TAGS] = page(["1"], link.format(path=TAGS))
    assert listed(server.host) == ["1"]
    assert len(server.asked) == 1


def test_links_in_several_headers(server: Scripted) -> None:
    links = [("Link", f"<{TAGS}?page=9>; rel=prev"), ("Link", f"<{TAGS}?page=2>; rel=next")]
    server.routes[TAGS] = [Reply(200, body(["1"]), links), page(["2"])]
    assert listed(server.host) == ["1", "2"]


RELATION = st.sampled_from(["prev", "first", "last", "https://example.org/next", "up"])
TARGET = st.text(st.characters(blacklist_characters="<>\r\n", max_codepoint=255), max_size=20)
QUOTED = st.text(st.characters(blacklist_characters="\r\n", max_codepoint=255), max_size=10)


@st.composite
def parameters(draw: st.DrawFn, relations: Sequence[str]) -> str:
    """Return a link's parameters with *relations*, in any of the forms that RFC 8288 allows, others around."""
    rel = " ".join(relations)
    words = [f'rel="{rel}"' if len(relations) != 1 or draw(st.booleans()) else f"REL={rel}"]
    for name in draw(st.lists(st.sampled_from(["title", "type", "hreflang"]), max_size=2)):
        value = draw(QUOTED).replace("\\", "\\\\").replace('"', '\\"')
        words.insert(draw(st.integers(0, len(words))), f'{name}="{value}"')
    space = draw(st.sampled_from(["", " ", "  "]))
    return "".join(f"{space};{space}{word}" for word in words)


@given(st.data())
def test_the_next_link_is_found_among_others(data: st.DataObject) -> None:
    others = st.lists(st.builds("<{}>{}".format, TARGET, st.lists(RELATION, max_size=2).flatmap(parameters)), max_size=3)
    wanted = data.draw(TARGET)
    relations = data.draw(st.permutations(["next", *data.draw(st.lists(RELATION, max_size=1))]))
    link = f"<{wanted}>{data.draw(parameters(relations))}"
    links = [*data.draw(others), link, *data.draw(others)]
    cut = data.draw(st.integers(0, len(links)))
    headers = [", ".join(part) for part in (links[:cut], links[cut:])]
    assert next_of(headers) == wanted
    assert next_of([", ".join(item for item in links if item != link)]) is None


@given(st.lists(st.text('<>;, ="\\relnxt/?\t', max_size=60) | st.text(max_size=40), max_size=3))
def test_any_header_is_read(headers: list[str]) -> None:
    found = next_of(headers)
    assert found is None or any(f"<{found}>" in text for text in headers)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    names=st.sets(st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,9}", fullmatch=True), max_size=40),
    size=st.integers(1, 9),
    absolute=st.booleans(),
)
def test_a_list_in_any_parts_is_the_list(server: Scripted, names: set[str], size: int, absolute: bool) -> None:
    ordered = sorted(names)

    def reply(asked: Asked) -> Reply:
        start = int(query(asked).get("start", "0"))
        link = f"<{server.url if absolute else ''}{TAGS}?start={start + size}>; rel=next" if start + size < len(ordered) else None
        return page(ordered[start : start + size], link)

    server.routes[TAGS] = reply
    server.asked.clear()
    assert listed(server.host) == sorted(names, key=version)
    assert len(server.asked) == max(1, -(-len(names) // size))


def test_a_registry_without_links_is_asked_for_what_follows_a_full_page(server: Scripted) -> None:
    names = [f"t{number:05}" for number in range(2 * PAGE + 1)]

    def reply(asked: Asked) -> Reply:
        rest = [name for name in names if name > query(asked).get("last", "")]
        return page(rest[: int(query(asked)["n"])])

    server.routes[TAGS] = reply
    assert listed(server.host) == names
    assert server.paths() == [TAGS + "?n=1000", TAGS + "?n=1000&last=t00999", TAGS + "?n=1000&last=t01999"]


def test_a_registry_that_sends_all_at_once_whatever_it_is_asked(server: Scripted) -> None:
    names = [f"t{number:05}" for number in range(PAGE + 200)]
    server.routes[TAGS] = page(names)
    assert listed(server.host) == names
    assert len(server.asked) == 2


@pytest.mark.parametrize("names", [None, []])
def test_a_repository_without_tags(server: Scripted, names: object) -> None:
    server.routes[TAGS] = Reply(200, body(names))
    assert listed(server.host) == []


def test_a_registry_whose_pages_are_smaller_than_asked_for(server: Scripted) -> None:
    server.routes["/v2/_catalog"] = lambda asked: (
        Reply(400, json_errors("PAGINATION_NUMBER_INVALID")) if "n" in query(asked) else page(["a/b"], key="repositories")
    )
    assert catalog(server.host) == ["a/b"]
    assert server.paths() == ["/v2/_catalog?n=1000", "/v2/_catalog"]


def test_names_that_nobody_can_pull_are_left_out(server: Scripted) -> None:
    digest = "sha256-" + "0" * 64
    server.routes[TAGS] = page(["ok", "a b", "-x", "\x1b[31m", "x" * 129, "", digest, f"{digest}.sig", f"{digest[:-1]}.sig"])
    assert listed(server.host) == ["ok", f"{digest[:-1]}.sig"]
    server.routes["/v2/_catalog"] = page(["a/b", "UPPER/x", "../etc", "a//b", "x" * 256, "\n"], key="repositories")
    assert catalog(server.host) == ["a/b"]


# -- our own server


@pytest.fixture
def many(tmp_path: Path) -> Store:
    """A layout with more names than a page has, in one repository and as repositories."""
    store = Store(tmp_path / "layout")
    manifest = Descriptor(media_type=MediaType.OCI_MANIFEST, digest=Digest.of(b""), size=0)
    names = [f"demo/tiny:t{n:04}" for n in range(PAGE + 5)] + [f"h.example/demo/r{n:04}:1" for n in range(PAGE + 5)]
    store.root.mkdir()
    store.write_entries([{**manifest.json(), "annotations": {"org.opencontainers.image.ref.name": name}} for name in names])
    return store


def test_our_own_server_sends_pages(many: Store) -> None:
    with serving(many) as server:
        assert listed(server.address) == [f"t{n:04}" for n in range(PAGE + 5)]
        assert catalog(server.address) == [*(f"demo/r{n:04}" for n in range(PAGE + 5)), "demo/tiny"]
        status, headers, sent = get(server, f"{TAGS}?n=2&last=t0007")
        assert (status, json.loads(sent)) == (200, {"name": "demo/tiny", "tags": ["t0008", "t0009"]})
        assert headers["Link"] == f'<{TAGS}?n=2&last=t0009>; rel="next"'
        for complete in (TAGS, f"{TAGS}?n=0", f"{TAGS}?n=5&last=t0999", f"{TAGS}?n=9999"):
            assert "Link" not in get(server, complete)[1]
        assert json.loads(get(server, "/v2/_catalog?n=1")[2]) == {"repositories": ["demo/r0000"]}


# -- registries that lie


def endless(server: Scripted) -> Answer:
    return lambda asked: page([], f"<{TAGS}?token={random.getrandbits(64)}>; rel=next")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(page(["1"], f"<{TAGS}?x=1>; rel=next"), "leads back to a page that was read", id="loop"),
        pytest.param(page(["1"], "<https://evil.example/v2/>; rel=next"), r"goes on with its list at evil\.example; this", id="host"),
        pytest.param(page(["1"], "<//evil.example/v2/>; rel=next"), r"at evil\.example; this is refused", id="host-relative"),
        pytest.param(page(["1"], "<http://HOST@evil.example/>; rel=next"), r"at evil\.example; this is refused", id="user"),
        pytest.param(page(["1"], "<http://evil.example\\@HOST/>; rel=next"), "at no web address; this is refused", id="backslash"),
        pytest.param(page(["1"], "<https://HOST/v2/>; rel=next"), "this is refused", id="scheme"),
        pytest.param(page(["1"], "<file:///etc/passwd>; rel=next"), "at no web address; this is refused", id="file"),
        pytest.param(page(["1"], "<http://[::1/>; rel=next"), "at no web address; this is refused", id="no-address"),
        pytest.param(Reply(200, b" " * (MAX_DOCUMENT + 1)), "more than 4194304 bytes", id="giant-page"),
        pytest.param(Reply(503), "has trouble giving demo/tiny", id="trouble"),
        pytest.param(Reply(400), "does not give demo/tiny over plain http", id="400"),
    ],
)
def test_lists_that_are_refused(server: Scripted, answer: Reply, words: str) -> None:
    headers = [(name, value.replace("HOST", server.host)) for name, value in answer.headers]
    server.routes[TAGS] = Reply(answer.status, answer.body, headers)
    with pytest.raises(RegistryError, match=words) as caught:
        listed(server.host)
    assert len(str(caught.value).splitlines()) == 1
    assert {path.partition("?")[0] for path in server.paths()} == {TAGS}


def test_a_list_without_end(server: Scripted) -> None:
    server.routes[TAGS] = endless(server)
    with pytest.raises(RegistryError, match=f"{server.host}/demo/tiny: its list does not end after 0 names"):
        listed(server.host)
    assert len(server.asked) == limits.LIST_IDLE_PAGES + 1


def test_a_list_that_goes_on_by_one_name(server: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LIST_PAGES", 5)

    def reply(asked: Asked) -> Reply:
        number = int(query(asked).get("page", "0"))
        return page([f"{number}"], f"<{TAGS}?page={number + 1}>; rel=next")

    server.routes[TAGS] = reply
    with pytest.raises(RegistryError, match="does not end after 5 names"):
        listed(server.host)
    assert len(server.asked) == 5


def test_the_pages_of_a_list_have_a_time_together(server: Scripted) -> None:
    ticks = iter(range(0, 10**9, 400))

    def reply(asked: Asked) -> Reply:
        number = int(query(asked).get("page", "0"))
        return page([f"{number}"], f"<{TAGS}?page={number + 1}>; rel=next")

    server.routes[TAGS] = reply
    with client(server.host) as it:
        it.patience = replace(it.patience, clock=lambda: next(ticks))
        with pytest.raises(RegistryError, match="does not end after 3 names"):
            tags(it, Reference(registry=server.host, repository="demo/tiny", tag=None))


def test_empty_pages_between_others(server: Scripted) -> None:
    """A registry may filter what it lists after it was cut into pages."""

    def reply(asked: Asked) -> Reply:
        number = int(query(asked).get("page", "0"))
        return page([f"{number}"] if number % 9 == 0 else [], f"<{TAGS}?page={number + 1}>; rel=next" if number < 18 else None)

    server.routes[TAGS] = reply
    assert listed(server.host) == ["0", "9", "18"]


def test_a_list_of_too_many_names(server: Scripted) -> None:
    def reply(asked: Asked) -> Reply:
        start = int(query(asked).get("start", "0"))
        return page([f"{number}" for number in range(start, start + 300_000)], f"<{TAGS}?start={start + 300_000}>; rel=next")

    server.routes[TAGS] = reply
    with pytest.raises(RegistryError, match="does not end after 600000 names"):
        listed(server.host)
    assert len(server.asked) == 2 and limits.LIST_NAMES < 600_000


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"<html>", "list: no JSON"),
        (b"[]", "list: expected an object"),
        (b"{}", "tags: missing, expected a list"),
        (b'{"tags": "1"}', "tags: expected a list, got '1'"),
        (b'{"tags": {}}', "tags: expected a list"),
        (b'{"tags": ["1", 5]}', r"tags\[1\]: expected a string, got '5'"),
        (b'{"tags": [null]}', r"tags\[0\]: missing, expected a string"),
    ],
)
def test_malformed_lists_name_the_key(server: Scripted, sent: bytes, words: str) -> None:
    server.routes[TAGS] = Reply(200, sent)
    with pytest.raises(DocumentError, match=f"^{server.host}/demo/tiny: {words}"):
        listed(server.host)
    server.routes["/v2/_catalog"] = Reply(200, sent.replace(b"tags", b"repositories"))
    with pytest.raises(DocumentError, match=f"^{server.host}: {words.replace('tags', 'repositories')}"):
        catalog(server.host)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.recursive(st.none() | st.integers() | st.text(max_size=4), lambda inner: st.lists(inner, max_size=3), max_leaves=5),
    st.text("<>;rel=next", max_size=9),
)
def test_odd_lists_are_refused_in_one_line(server: Scripted, value: object, link: str) -> None:
    server.routes[TAGS] = Reply(200, body(value), [("Link", link)])
    try:
        assert all(map(is_tag, listed(server.host)))
    except (DocumentError, RegistryError) as error:
        assert len(str(error).splitlines()) == 1


def test_a_list_that_breaks_off_is_asked_for_again(server: Scripted) -> None:
    whole = body(["1"])
    server.routes[TAGS] = [Reply(200, whole[:9], length=len(whole)), Reply(200, whole)]
    assert listed(server.host) == ["1"]


# -- login


def guarded(server: Scripted, scope: str, answer: Callable[[Asked], Reply], /, **challenge: str) -> Answer:
    """Answer who brings the realm's token, which is given for *scope* alone."""

    def realm(asked: Asked) -> Reply:
        return Reply(200, b'{"token": "t"}') if query(asked).get("scope") == scope else Reply(401)

    def reply(asked: Asked) -> Reply:
        if asked.authorization == "Bearer t":
            return answer(asked)
        return Reply(401, json_errors("UNAUTHORIZED"), list(bearer(f"{server.url}/token", **challenge).items()))

    server.routes["/token"] = realm
    return reply


@pytest.mark.parametrize("challenge", [{}, {"scope": "repository:demo/tiny:pull"}])
def test_tags_want_the_repository_s_pull_scope_on_every_page(server: Scripted, challenge: dict[str, str]) -> None:
    pages = {None: page(["1"], f"<{TAGS}?page=2>; rel=next"), "2": page(["2"])}
    server.routes[TAGS] = guarded(server, "repository:demo/tiny:pull", lambda asked: pages[query(asked).get("page")], **challenge)
    assert listed(server.host) == ["1", "2"]
    assert [asked.authorization for asked in server.asked] == [None, None, "Bearer t", "Bearer t"]


@pytest.mark.parametrize("challenge", [{}, {"scope": "registry:catalog:*"}])
def test_repositories_want_the_catalog_s_scope(server: Scripted, challenge: dict[str, str]) -> None:
    server.routes["/v2/_catalog"] = guarded(server, "registry:catalog:*", lambda _: page(["a/b"], key="repositories"), **challenge)
    assert catalog(server.host) == ["a/b"]


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        (Reply(401), AuthenticationError, "You must have an Nvidia GPU cloud token to use it. HOST refuses a list of its repositories"),
        (Reply(403, json_errors("DENIED")), AuthenticationError, "refuses a list of its repositories without one .403 Forbidden: DENIED"),
        (Reply(404), RegistryError, r"HOST does not have a list of its repositories \(404 Not Found\)"),
        (Reply(405, json_errors("UNSUPPORTED")), RegistryError, r"HOST does not give a list of its repositories \(405 .*UNSUPPORTED"),
        (Reply(501), RegistryError, "HOST does not give a list of its repositories"),
    ],
)
def test_most_registries_list_no_repositories(server: Scripted, reply: Reply, kind: type[RegistryError], words: str) -> None:
    server.routes["/v2/_catalog"] = reply
    with pytest.raises(kind, match=words.replace("HOST", re.escape(server.host))) as caught:
        catalog(server.host)
    assert str(caught.value).endswith("; many registries list them to nobody: name a repository, and its tags are listed")


def test_a_token_that_opens_no_catalog_is_named(server: Scripted) -> None:
    server.routes["/v2/_catalog"] = guarded(server, "something else", lambda _: Reply(200))
    with pytest.raises(AuthenticationError, match="with the token of SREGISTRY_NVIDIA_TOKEN") as caught:
        catalog(server.host, token=TOKEN)
    assert TOKEN not in str(caught.value)


def test_trouble_is_no_refusal(server: Scripted) -> None:
    server.routes["/v2/_catalog"] = Reply(503)
    with pytest.raises(UnavailableError, match="try again later"):
        catalog(server.host)


def test_no_repository_is_called_as_the_catalog_is() -> None:
    assert not is_repository(CATALOG)


def test_an_unknown_repository(server: Scripted) -> None:
    server.routes[TAGS] = Reply(404, json_errors("NAME_UNKNOWN"))
    with pytest.raises(RegistryError, match=r"has no image demo/tiny .*NAME_UNKNOWN.*; check the name"):
        listed(server.host)


def test_the_address_of_a_next_page_is_kept_as_it_is(server: Scripted) -> None:
    """Quay's and ECR's are opaque; what is in them may look like anything."""
    token = urlencode({"next_page": "gAAA==/+ä", "n": "50"})
    server.routes[TAGS] = [page(["1"], f"<{TAGS}?{token}>; rel=next"), page(["2"])]
    assert listed(server.host) == ["1", "2"]
    assert server.paths()[1] == f"{TAGS}?{token}"
