"""Challenges by grammar; tokens fetched, kept and renewed; errors that say what to export and nothing secret."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sregistry.auth import Answer, Authenticator, Challenge, parse_challenges
from sregistry.credentials import Keyring
from sregistry.errors import AuthenticationError, RegistryError, SregistryError
from tests.scripted import TOKEN, settings

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


def test_other_clients_name_their_variable() -> None:
    with pytest.raises(AuthenticationError, match="SREGISTRY_QUAY_TOKEN") as caught:
        ask(login(Realm(), client="quay"), "Basic realm=x")
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


def test_a_realm_in_trouble() -> None:
    with pytest.raises(RegistryError, match=r"auth\.example of nvcr\.io gives no token \(500\)"):
        ask(login(Realm(lambda *_: Answer(500, b""))), f"Bearer realm={REALM}")


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
