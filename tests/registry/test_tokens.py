"""Challenges by grammar; tokens fetched, kept and renewed; errors that say what to export and nothing secret."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sregistry.errors import AuthenticationError, ConfigError, RegistryError, SregistryError, UnavailableError
from sregistry.registry.credentials import Keyring
from sregistry.registry.tokens import Answer, Authenticator, Challenge, parse_challenges
from tests.support.scripted import TOKEN, settings

REALM = "https://auth.example/token"
BASIC = "Basic " + base64.b64encode(f"$oauthtoken:{TOKEN}".encode()).decode()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(
            ['Bearer realm="https://nvcr.io/proxy_auth",scope="repository:nvidia/cuda:pull"'],
            [("bearer", {"realm": "https://nvcr.io/proxy_auth", "scope": "repository:nvidia/cuda:pull"})],
            id="nvcr-without-service",
        ),
        pytest.param(
            ['Bearer scope="a b", service = reg , REALM="r"'],
            [("bearer", {"scope": "a b", "service": "reg", "realm": "r"})],
            id="any-order",
        ),
        pytest.param(['bEaReR realm="r"'], [("bearer", {"realm": "r"})], id="case"),
        pytest.param(
            ["Bearer realm=https://h/t,scope=repository:a/b:pull"],
            [("bearer", {"realm": "https://h/t", "scope": "repository:a/b:pull"})],
            id="bare",
        ),
        pytest.param(
            ["Bearer realm=https://h/t?scope=repository:a:pull&x=1"],
            [("bearer", {"realm": "https://h/t?scope=repository:a:pull&x=1"})],
            id="bare-query",
        ),
        pytest.param(['Basic realm="a", Bearer realm="b"'], [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})], id="joined"),
        pytest.param(['Basic realm="a"', 'Bearer realm="b"'], [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})], id="two-headers"),
        pytest.param(['Bearer realm="b, Basic realm=\\"x\\""'], [("bearer", {"realm": 'b, Basic realm="x"'})], id="commas-and-escapes"),
        pytest.param(["Negotiate", 'Basic realm=""'], [("negotiate", {}), ("basic", {"realm": ""})], id="no-parameters"),
        pytest.param(["Negotiate YIIB/+a==, Basic realm=x"], [("negotiate", {}), ("basic", {"realm": "x"})], id="token68"),
        pytest.param(
            ["Negotiate, Basic, Bearer realm=x"], [("negotiate", {}), ("basic", {}), ("bearer", {"realm": "x"})], id="bare-schemes"
        ),
        pytest.param([', ,Bearer realm="a",,scope="b",'], [("bearer", {"realm": "a", "scope": "b"})], id="empty-elements"),
        pytest.param(['Bearer realm="a" scope="b"'], [("bearer", {"realm": "a", "scope": "b"})], id="blank-for-comma"),
        pytest.param(['Bearer realm="a",realm="b"'], [("bearer", {"realm": "a"})], id="first-counts"),
        pytest.param(['Basic realm="a", Bearer realm="open'], [("basic", {"realm": "a"}), ("bearer", {"realm": ""})], id="open-quote"),
        pytest.param(["", "   ", "=x", '"quoted"'], [], id="nothing"),
        pytest.param(
            ["Bearer realm=https://h/t,scope=repository:a/b:pull,push,service=s, Basic realm=x"],
            [("bearer", {"realm": "https://h/t", "scope": "repository:a/b:pull", "service": "s"}), ("push", {}), ("basic", {"realm": "x"})],
            id="bare-comma",
        ),
        pytest.param(['Bearer ,realm="a" , scope="b"'], [("bearer", {"realm": "a", "scope": "b"})], id="empty-first-element"),
        pytest.param(["Bearer\trealm=a,\tBASIC\trealm=b"], [("bearer", {"realm": "a"}), ("basic", {"realm": "b"})], id="tabs"),
        pytest.param(['Bearer realm="\\a\\\\b"'], [("bearer", {"realm": "a\\b"})], id="backslashes"),
        pytest.param(
            ['Digest qop="auth, auth-int", nonce=abc==, Bearer realm="r"'],
            [("digest", {"qop": "auth, auth-int", "nonce": "abc=="}), ("bearer", {"realm": "r"})],
            id="digest-first",
        ),
    ],
)
def test_challenges(headers: list[str], expected: list[tuple[str, dict[str, str]]]) -> None:
    assert parse_challenges(headers) == [Challenge(scheme, parameters) for scheme, parameters in expected]


TOKENS = st.text("abcdefghijklmnopqrstuvwxyzABC019!#$%&'*+.^_`|~-", min_size=1, max_size=12)
PARAMETERS = st.dictionaries(TOKENS.map(str.lower), st.text(st.characters(codec="latin-1"), max_size=30), min_size=1, max_size=4)


@given(st.lists(st.tuples(TOKENS, PARAMETERS), max_size=4), st.sampled_from([",", ", ", " ,\t", ",,"]))
def test_what_the_grammar_writes_is_read(challenges: list[tuple[str, dict[str, str]]], comma: str) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = comma.join(f"{scheme} " + comma.join(f"{name}={quoted(value)}" for name, value in ps.items()) for scheme, ps in challenges)
    assert parse_challenges([header]) == [Challenge(scheme.lower(), parameters) for scheme, parameters in challenges]


@given(st.lists(st.one_of(st.text(), st.text('Bearer ,="\\realm \t', max_size=60)), max_size=3))
def test_any_text_is_survived(headers: list[str]) -> None:
    for challenge in parse_challenges(headers):
        assert challenge.scheme == challenge.scheme.lower()


@given(st.one_of(st.text(), st.text('Bearer Basic,="\\realm \t', max_size=60)), st.booleans())
def test_what_follows_does_not_change_the_first_challenge(junk: str, joined: bool) -> None:
    first = 'Bearer realm="https://h/t",service="s",scope="x"'
    found = parse_challenges([f"{first}, {junk}"] if joined else [first, junk])
    assert found[0].scheme == "bearer"
    assert {"realm": "https://h/t", "service": "s", "scope": "x"}.items() <= found[0].parameters.items()


class Realm:
    """A token service: what it was asked, and what it answers."""

    def __init__(self, answer: Callable[[str, str | None], Answer] | None = None) -> None:
        self.asked: list[tuple[str, str | None]] = []
        self.forms: list[Mapping[str, str] | None] = []
        self._answer = answer

    def __call__(self, url: str, header: str | None, form: Mapping[str, str] | None = None) -> Answer:
        self.asked.append((url, header))
        self.forms.append(form)
        if self._answer:
            return self._answer(url, header)
        return Answer(200, json.dumps({"token": f"t{len(self.asked)}"}).encode())


def login(
    realm: Realm,
    *,
    token: str | None = None,
    client: str = "nvidia",
    clock: Callable[[], float] = lambda: 0.0,
    base: str = "nvcr.io",
    https: bool = True,
    environ: Mapping[str, str] | None = None,
) -> Authenticator:
    meant = settings(base, token=token, client=client, https=https)
    return Authenticator(meant, realm, Keyring(meant, environ or {}), clock)


def ask(auth: Authenticator, *headers: str, host: str = "nvcr.io", attempt: int = 0) -> str:
    return auth.answer(host, "nvidia/cuda", headers, attempt=attempt, what="nvidia/cuda:1")


@pytest.mark.parametrize(
    ("challenge", "url"),
    [
        (f'Bearer realm="{REALM}"', f"{REALM}?scope=repository%3Anvidia%2Fcuda%3Apull"),
        (f'Bearer realm="{REALM}",scope=""', f"{REALM}?scope=repository%3Anvidia%2Fcuda%3Apull"),
        (f'Bearer realm="{REALM}",service="a b",scope="x"', f"{REALM}?service=a+b&scope=x"),
        (f'Bearer realm="{REALM}?scope=y"', f"{REALM}?scope=y"),
        (f'Bearer realm="{REALM}?scope=y",service=s,scope=z', f"{REALM}?scope=y&service=s"),
        (f'Bearer realm="{REALM}?service=q#part",scope=z', f"{REALM}?service=q&scope=z"),
    ],
)
def test_the_realm_is_asked_for_service_and_scope(challenge: str, url: str) -> None:
    realm = Realm()
    assert ask(login(realm), challenge) == "Bearer t1"
    assert realm.asked == [(url, None)]


def test_nvidia_sends_its_literal_user_name_and_the_token() -> None:
    realm = Realm()
    ask(login(realm, token=TOKEN), f'Bearer realm="{REALM}"')
    assert realm.asked[0][1] == BASIC


def test_credentials_are_for_the_own_registry_only() -> None:
    realm = Realm()
    auth = login(realm, token=TOKEN)
    assert ask(auth, f'Bearer realm="{REALM}"', host="evil.example") == "Bearer t1"
    assert realm.asked[0][1] is None
    with pytest.raises(AuthenticationError, match=r"evil.example refuses"):
        ask(login(realm, token=TOKEN), "Basic realm=x", host="evil.example")


def test_bearer_goes_before_basic_and_basic_works_alone() -> None:
    assert ask(login(Realm(), token=TOKEN), "Basic realm=x", f"Bearer realm={REALM}") == "Bearer t1"
    auth = login(Realm(), token=TOKEN)
    assert ask(auth, "Basic realm=x") == BASIC
    assert auth.header("nvcr.io", "nvidia/cuda") == BASIC
    assert auth.header("nvcr.io", "nvidia/other") is None


def test_a_token_is_kept_a_scope_and_renewed_before_its_end() -> None:
    now = 0.0
    realm = Realm(lambda url, _: Answer(200, json.dumps({"access_token": f"t{len(realm.asked)}", "expires_in": 300}).encode()))
    auth = login(realm, clock=lambda: now)
    ask(auth, f"Bearer realm={REALM}")
    now = 290
    assert auth.header("nvcr.io", "nvidia/cuda") == "Bearer t1"
    now = 296
    assert auth.header("nvcr.io", "nvidia/cuda") == "Bearer t2"
    assert auth.header("nvcr.io", "nvidia/cuda") == "Bearer t2"


@pytest.mark.parametrize("expires", [None, 1, -5, "soon", True, [], 59.5])
def test_a_token_lives_sixty_seconds_at_least(expires: object) -> None:
    now = 0.0
    auth = login(Realm(lambda *_: Answer(200, json.dumps({"token": "t", "expires_in": expires}).encode())), clock=lambda: now)
    ask(auth, f"Bearer realm={REALM}")
    now = 54
    auth._ask = Realm(lambda *_: pytest.fail("asked too early"))
    assert auth.header("nvcr.io", "nvidia/cuda") == "Bearer t"


def test_a_renewal_uses_the_first_realm() -> None:
    realm = Realm()
    auth = login(realm)
    ask(auth, f"Bearer realm={REALM},scope=s")
    assert ask(auth, 'Bearer realm="https://authn.nvidia.com/token",service="registry",error="invalid_token"') == "Bearer t2"
    assert realm.asked[0] == realm.asked[1] == (f"{REALM}?scope=s", None)


def test_a_wider_scope_is_asked_for_once() -> None:
    realm = Realm()
    auth = login(realm)
    ask(auth, f"Bearer realm={REALM},scope=s")
    wider = f'Bearer realm={REALM},scope="s t",error="insufficient_scope"'
    assert ask(auth, wider, attempt=1) == "Bearer t2"
    assert realm.asked[1][0] == f"{REALM}?scope=s+t"
    with pytest.raises(AuthenticationError):
        ask(auth, wider, attempt=2)


@pytest.mark.parametrize(
    ("headers", "attempt"),
    [
        pytest.param(["Basic realm=x"], 0, id="basic"),
        pytest.param([], 0, id="no-challenge"),
        pytest.param(["Negotiate"], 0, id="unknown-scheme"),
        pytest.param(["Bearer scope=x"], 0, id="bearer-without-realm"),
    ],
)
def test_without_a_token_nvidia_says_the_sentence(headers: list[str], attempt: int) -> None:
    with pytest.raises(AuthenticationError) as caught:
        ask(login(Realm()), *headers, attempt=attempt)
    assert "You must have an Nvidia GPU cloud token to use it." in caught.value.message
    assert "export SREGISTRY_NVIDIA_TOKEN=" in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
def test_a_realm_that_refuses(status: int) -> None:
    auth = login(Realm(lambda *_: Answer(status, b"")))
    with pytest.raises(AuthenticationError, match=r"You must have an Nvidia GPU cloud token to use it\..*export SREGISTRY_NVIDIA_TOKEN"):
        ask(auth, f"Bearer realm={REALM}")
    auth = login(Realm(lambda *_: Answer(status, b"")), token=TOKEN)
    with pytest.raises(AuthenticationError, match="with the token of SREGISTRY_NVIDIA_TOKEN") as caught:
        ask(auth, f"Bearer realm={REALM}")
    assert TOKEN not in str(caught.value)
    assert "You must have" not in str(caught.value)


@pytest.mark.parametrize(
    ("client", "named"),
    [("quay", "SREGISTRY_QUAY_TOKEN"), ("docker", "SREGISTRY_DOCKERHUB_PASSWORD"), ("oci", "DOCKER_USERNAME and DOCKER_PASSWORD")],
)
def test_other_clients_name_their_variable(client: str, named: str) -> None:
    with pytest.raises(AuthenticationError, match=f"export .*{named}") as caught:
        ask(login(Realm(), client=client), "Basic realm=x")
    assert "Nvidia" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no json",
        b"[]",
        b"{}",
        b'{"token": ""}',
        b'{"token": 5}',
        b'{"token": "a b"}',
        b'{"token": "a\\r\\nX: y"}',
        b'{"token": "\\u20ac"}',
        b"[" * 9999,
    ],
)
def test_answers_without_a_token(body: bytes) -> None:
    with pytest.raises(RegistryError, match=r"auth\.example"):
        ask(login(Realm(lambda *_: Answer(200, body))), f"Bearer realm={REALM}")


@pytest.mark.parametrize(("status", "passing"), [(500, True), (503, True), (429, True), (400, False), (404, False), (302, False)])
def test_a_realm_in_trouble(status: int, passing: bool) -> None:
    with pytest.raises(RegistryError, match=rf"auth\.example of nvcr\.io gives no token \({status}\)") as caught:
        ask(login(Realm(lambda *_: Answer(status, b""))), f"Bearer realm={REALM}")
    assert isinstance(caught.value, UnavailableError) == passing


@pytest.mark.parametrize("realm", ["relative/path", "ftp://h/x", "file:///etc/passwd", "http://[::1", "https://"])
def test_a_realm_that_is_no_address(realm: str) -> None:
    asked = Realm()
    with pytest.raises(RegistryError, match="no address"):
        ask(login(asked, token=TOKEN), f'Bearer realm="{realm}"')
    assert not asked.asked


def test_credentials_never_leave_tls() -> None:
    asked = Realm()
    with pytest.raises(RegistryError, match="plain http"):
        ask(login(asked, token=TOKEN), 'Bearer realm="http://auth.example/token"')
    assert not asked.asked


def test_no_credential_shows() -> None:
    auth = login(Realm(), token=TOKEN)
    ask(auth, f"Bearer realm={REALM}")
    ask(auth, f"Bearer realm={REALM}")
    said = auth.redact(f"{TOKEN} nvapi-s3cret%2Ftok%2Ben {BASIC} t1 t2 fine")
    assert said == "*** *** Basic *** *** *** fine"
    assert TOKEN not in repr(auth._settings)


@given(st.lists(st.text(max_size=80), max_size=2), st.integers(0, 3), st.integers(0, 999), st.binary(max_size=80))
def test_only_our_errors_escape(headers: list[str], attempt: int, status: int, body: bytes) -> None:
    auth = login(Realm(lambda *_: Answer(status, body)), token=TOKEN)
    for header in (headers, [f'Bearer realm="{text}"' for text in headers], [f"Bearer realm={REALM}"]):
        try:
            auth.answer("nvcr.io", "a/b", header, attempt=attempt, what="a/b:1")
        except SregistryError as error:
            assert TOKEN not in str(error)


# -- the user's credentials ------------------------------------------------------------------------------


def stored(folder: Path, **entry: str) -> dict[str, str]:
    """Write a config.json for nvcr.io and registry.example; return the environment that names it."""
    (folder / "config.json").write_text(json.dumps({"auths": {"nvcr.io": entry, "registry.example": entry}}))
    return {"DOCKER_CONFIG": str(folder)}


def other(realm: Realm, environ: Mapping[str, str], **more: Any) -> Authenticator:
    return login(realm, client="oci", base="registry.example", environ=environ, **more)


def ask_other(auth: Authenticator, *headers: str, attempt: int = 0) -> str:
    return ask(auth, *headers, host="registry.example", attempt=attempt)


def test_a_password_of_a_file_goes_to_the_realm_or_the_registry(tmp_path: Path) -> None:
    environ = stored(tmp_path, username="me", password="pass:word")
    basic = "Basic " + base64.b64encode(b"me:pass:word").decode()
    realm = Realm()
    assert ask_other(other(realm, environ), f"Bearer realm={REALM}") == "Bearer t1"
    assert realm.asked[0][1] == basic
    assert ask_other(other(Realm(), environ), "Basic realm=x") == basic
    realm = Realm()
    ask(other(realm, environ), f"Bearer realm={REALM}", host="evil.example")
    assert realm.asked[0][1] is None


def test_nothing_is_read_before_a_registry_asks(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("broken")
    auth = other(Realm(), {"DOCKER_CONFIG": str(tmp_path)})
    assert auth.header("registry.example", "nvidia/cuda") is None
    assert "without a login" in str(auth.refusal("registry.example", "a/b:1", "403", "a/b"))
    assert auth.redact("text") == "text"
    with pytest.raises(ConfigError, match=r"config\.json"):
        ask_other(auth, f"Bearer realm={REALM}")


def test_an_identity_token_is_exchanged_by_post(tmp_path: Path) -> None:
    realm = Realm(lambda *_: Answer(200, b'{"access_token": "a1", "expires_in": 300, "refresh_token": "other"}'))
    auth = other(realm, stored(tmp_path, identitytoken="identity"))
    assert ask_other(auth, f'Bearer realm="{REALM}",service="s"') == "Bearer a1"
    assert realm.asked == [(REALM, None)]
    assert realm.forms == [
        {
            "grant_type": "refresh_token",
            "client_id": "sregistry",
            "service": "s",
            "scope": "repository:nvidia/cuda:pull",
            "refresh_token": "identity",
        }
    ]
    assert auth.redact("identity a1") == "*** ***"


@pytest.mark.parametrize(("status", "asked"), [(404, 2), (405, 2), (400, 1), (401, 1), (500, 1)])
def test_a_realm_without_oauth2_is_asked_by_get(tmp_path: Path, status: int, asked: int) -> None:
    realm = Realm()
    realm._answer = lambda *_: Answer(status if realm.forms[-1] else 200, b'{"token": "t"}')
    auth = other(realm, stored(tmp_path, identitytoken="identity", username="me"))
    if asked == 2:
        assert ask_other(auth, f"Bearer realm={REALM},service=s") == "Bearer t"
        basic = "Basic " + base64.b64encode(b"me:identity").decode()
        assert realm.asked[1] == (f"{REALM}?service=s&scope=repository%3Anvidia%2Fcuda%3Apull", basic)
    else:
        with pytest.raises(RegistryError):
            ask_other(auth, f"Bearer realm={REALM}")
    assert len(realm.asked) == asked


def test_an_identity_token_is_no_password(tmp_path: Path) -> None:
    with pytest.raises(AuthenticationError, match=r"config\.json \(auths\) \(401, it wants no identity token but a password\)"):
        ask_other(other(Realm(), stored(tmp_path, identitytoken="identity")), "Basic realm=x")


@pytest.mark.parametrize("challenge", [f"Bearer realm={REALM}", "Basic realm=x"])
def test_a_registry_token_is_sent_as_it_is(tmp_path: Path, challenge: str) -> None:
    realm = Realm()
    auth = other(realm, stored(tmp_path, registrytoken="registry"))
    assert ask_other(auth, challenge) == "Bearer registry"
    assert auth.header("registry.example", "nvidia/cuda") == "Bearer registry"
    assert realm.asked == []
    with pytest.raises(AuthenticationError, match=r"config\.json"):
        ask_other(auth, challenge, attempt=1)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("entry", [{"username": "me", "password": "pa55word"}, {"identitytoken": "pa55word"}])
def test_refused_credentials_are_named_and_nothing_goes_anonymous(tmp_path: Path, status: int, entry: dict[str, str]) -> None:
    realm = Realm(lambda _, header: Answer(status, b"") if header or realm.forms[-1] else Answer(200, b'{"token": "anonymous"}'))
    with pytest.raises(AuthenticationError, match=r"with the credentials of .*/config\.json \(auths\) .*check them") as caught:
        ask_other(other(realm, stored(tmp_path, **entry)), f"Bearer realm={REALM}")
    assert "pa55word" not in str(caught.value)
    assert len(realm.asked) == 1


def test_refused_variables_are_named(tmp_path: Path) -> None:
    environ = {"DOCKER_USERNAME": "me", "DOCKER_PASSWORD": "pa55word"}
    with pytest.raises(AuthenticationError, match="credentials of DOCKER_USERNAME, DOCKER_PASSWORD") as caught:
        ask_other(other(Realm(lambda *_: Answer(401, b"")), environ), f"Bearer realm={REALM}")
    assert "pa55word" not in str(caught.value)


def test_a_helper_that_failed_is_in_the_hint(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"credsStore": "gone"}')
    environ = {"DOCKER_CONFIG": str(tmp_path), "PATH": "/none"}
    assert ask_other(other(Realm(), environ), f"Bearer realm={REALM}") == "Bearer t1"  # anonymous is enough
    for auth in (other(Realm(lambda *_: Answer(401, b"")), environ), login(Realm(lambda *_: Answer(401, b"")), environ=environ)):
        with pytest.raises(AuthenticationError, match="docker-credential-gone is not on PATH"):
            auth.answer(auth._settings.base, "a/b", [f"Bearer realm={REALM}"], attempt=0, what="a/b:1")


def test_a_token_of_one_host_is_not_anothers() -> None:
    """Another host may name the realm of ours: it gets what that gives to strangers."""
    realm = Realm()
    auth = login(realm, token=TOKEN)
    challenge = f'Bearer realm="{REALM}",scope="s"'
    assert ask(auth, challenge) == "Bearer t1"
    assert ask(auth, challenge, host="evil.example") == "Bearer t2"
    assert [header for _, header in realm.asked] == [BASIC, None]
    assert auth.header("nvcr.io", "nvidia/cuda") == "Bearer t1"


@pytest.mark.parametrize(
    ("base", "https", "realm", "allowed"),
    [
        ("registry.example", True, "http://auth.example/t", False),
        ("registry.example", True, "http://127.0.0.1:9/t", False),
        ("registry.example", True, "HTTP://auth.example/t", False),
        ("registry.example", False, "http://auth.example/t", True),
        ("127.0.0.1:5000", True, "http://127.0.0.1:5001/t", True),
        ("localhost:5000", True, "http://localhost/t", True),
        ("127.0.0.1:5000", True, "http://auth.example/t", False),
        ("127.0.0.1:5000", False, "http://auth.example/t", True),
        ("127.0.0.1:5000", True, "https://auth.example/t", True),
    ],
)
def test_where_plain_http_is_allowed(base: str, https: bool, realm: str, allowed: bool) -> None:
    asked = Realm()
    auth = login(asked, token=TOKEN, client="quay", base=base, https=https)
    if allowed:
        assert ask(auth, f'Bearer realm="{realm}"', host=base) == "Bearer t1"
    else:
        with pytest.raises(RegistryError, match="plain http"):
            ask(auth, f'Bearer realm="{realm}"', host=base)
        assert not asked.asked


def test_a_login_without_a_repository_asks_for_no_scope() -> None:
    realm = Realm()
    auth = login(realm)
    assert auth.answer("nvcr.io", "", [f'Bearer realm="{REALM}",scope=""'], attempt=0, what="its API") == "Bearer t1"
    assert realm.asked == [(REALM, None)]
    assert auth.wanted is not None and (auth.wanted.scheme, auth.wanted.realm_host) == ("bearer", "auth.example")


@pytest.mark.parametrize(
    ("realm", "words"),
    [
        ("HTTP://auth.example/t", "wants the login sent over plain http to auth.example; this is refused"),
        ("http://nvcr.io@evil.example/t", "wants the login sent over plain http to evil.example"),
        ("http://127.0.0.1/t", "wants the login sent over plain http to 127.0.0.1"),
        ("http://evil.example\\\\@127.0.0.1/t", "names a login service that is no address"),
        ("https://evil.example\\\\@nvcr.io/t", "names a login service that is no address"),
        ("https://nvcr.io%2eevil.example/t", "names a login service that is no address"),
        ("ftp://nvcr.io/t", "names a login service that is no address"),
        ("//nvcr.io/t", "names a login service that is no address"),
        ("/t", "names a login service that is no address"),
        ("https://[fe80::1%25lo]/t", "names a login service that is no address"),
        ("https://nvcr.io\t.evil.example/t", "names a login service that is no address"),
        ("https://ｎvcr.io/t", "names a login service that is no address"),
    ],
)
def test_realms_that_get_no_secret(realm: str, words: str) -> None:
    asked = Realm()
    with pytest.raises(RegistryError, match=re.escape(words)):
        ask(login(asked, token=TOKEN), f'Bearer realm="{realm}"')
    assert asked.asked == []


@pytest.mark.parametrize(
    ("realm", "url"),
    [
        ("HTTPS://Auth.Example:443/t%7e?a=%2f", "https://auth.example/t%7e?a=%2f&scope=repository%3Anvidia%2Fcuda%3Apull"),
        ("https://user:word@auth.example/t", "https://auth.example/t?scope=repository%3Anvidia%2Fcuda%3Apull"),
    ],
)
def test_a_realm_is_asked_at_the_address_that_it_is(realm: str, url: str) -> None:
    asked = Realm()
    ask(login(asked), f'Bearer realm="{realm}"')
    assert asked.asked == [(url, None)]
