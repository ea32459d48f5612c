"""Login to a registry: challenges, tokens, and the errors that tell what to export.

```
401 WWW-Authenticate ── parse_challenges ──▶ Bearer ──▶ realm?service=…&scope=… ──▶ token ──▶ "Bearer …"
                                         └─▶ Basic  ──▶ user name + password     ──────────▶ "Basic …"
                             Keyring.find ─▶ registry token ───────────────────────────────▶ "Bearer …"
```

Grammar of challenges: RFC 9110, 11.2, 11.3 and 11.6.1; beyond it a bare value may hold any character
but a blank, a comma and a quote, because registries send `scope=repository:a/b:pull` unquoted. Token
exchange: docker/distribution's token specification. Credentials go to the registry that they are for and
to the realm that it names, to nobody else, and into no error text.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol
from urllib.parse import parse_qs, urlencode

from sregistry.config.settings import ANY, RegistrySettings
from sregistry.errors import AuthenticationError, RegistryError, UnavailableError
from sregistry.oci.address import Address, from_header, host_of, is_loopback
from sregistry.registry.credentials import Credentials, IdentityToken, Keyring, Password, RegistryToken

#: Stands for a repository where the registry's list of them is asked for: no repository has such a name.
CATALOG = "_catalog"
#: Seconds that a token is good for when its answer does not say more (token specification).
TOKEN_LIFETIME = 60
#: Seconds before its end at which a token is not used any more.
_MARGIN = 5
_LONGEST_LIFETIME = 86_400
_CLIENT_ID = "sregistry"
#: What to export, where it is not the token of the client.
_ADVICE = {
    "docker": "SREGISTRY_DOCKERHUB_USERNAME and SREGISTRY_DOCKERHUB_PASSWORD, or use docker login",
    ANY: "DOCKER_USERNAME and DOCKER_PASSWORD, or use docker login",
}
#: Statuses that time may change, beside those of a server in trouble.
_PASSING = (408, 425, 429)
#: Statuses of a realm that knows no OAuth2 (docker/distribution, "Oauth2 Token Authentication").
_NO_OAUTH2 = (404, 405)

_SEPARATOR = re.compile(r"[\s,]*")
_BLANKS = re.compile(r"\s*")
_WORD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_EQUALS = re.compile(r"\s*=\s*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_BARE = re.compile(r'[^\s,"]*')
_TOKEN68 = re.compile(r"[A-Za-z0-9._~+/-]+=*(?=\s*(?:,|$))")
_VISIBLE = re.compile(r"[\x21-\x7e]+")


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to log in that a server offers; scheme and parameter names in lower case."""

    scheme: str
    parameters: Mapping[str, str]


def parse_challenges(headers: Iterable[str]) -> list[Challenge]:
    """Read the values of all WWW-Authenticate headers.

    Challenges may be comma-joined in one header or spread over several; of a parameter given twice the
    first counts. What breaks the grammar ends its header; the challenges before it are kept.
    """
    return [challenge for header in headers for challenge in _parse_header(header)]


def _parse_header(text: str) -> list[Challenge]:
    found: list[tuple[str, dict[str, str]]] = []
    current: dict[str, str] = {}
    position = _skip(_SEPARATOR, text, 0)
    while word := _WORD.match(text, position):
        equals = _EQUALS.match(text, word.end())
        if equals and found:
            quoted = _QUOTED.match(text, equals.end())
            bare = _BARE.match(text, equals.end())
            if quoted:
                value, position = re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL), quoted.end()
            else:
                value, position = (bare[0], bare.end()) if bare else ("", equals.end())
            current.setdefault(word[0].lower(), value)
        elif equals:
            break
        else:
            found.append((word[0].lower(), {}))
            # A scheme's parameters follow a blank. What a comma follows may be the rest of a bare value,
            # scope=repository:a/b:pull,push,service=…, and what comes then belongs where that does.
            if not current or text[word.end() : word.end() + 1] != ",":
                current = found[-1][1]
            position = _skip(_BLANKS, text, word.end())
            position = _skip_token68(text, position)
        position = _skip(_SEPARATOR, text, position)
    return [Challenge(scheme, parameters) for scheme, parameters in found]


def _skip(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position


def _skip_token68(text: str, position: int) -> int:
    """Pass over the data of schemes such as Negotiate; nothing here uses it."""
    if text[position : position + 1] in ("", ","):
        return position
    return _skip(_TOKEN68, text, position)


class Answer(NamedTuple):
    """What a realm sent back."""

    status: int
    body: bytes


class Ask(Protocol):
    """Asks a realm with this Authorization header (None: without): a GET, or a POST of a form."""

    def __call__(self, url: str, header: str | None, form: Mapping[str, str] | None = None) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Login:
    """How a repository wants to be asked, from its first challenge; without a realm credentials are sent as they are."""

    scheme: str
    realm: str | None = None
    service: str | None = None
    scope: str | None = None

    @property
    def realm_host(self) -> str | None:
        """host[:port] of the realm: all that messages show of it."""
        return host_of(self.realm) if self.realm else None


class _Token(NamedTuple):
    text: str
    until: float


class Authenticator:
    """Knows which Authorization header a repository wants; one object a client.

    Args:
        settings: of the client.
        ask: sends a request to a realm.
        keyring: the user's credentials; asked for none before a registry wants a login.
        clock: seconds that never go back.
    """

    def __init__(self, settings: RegistrySettings, ask: Ask, keyring: Keyring, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._ask, self._keyring, self._clock = settings, ask, keyring, clock
        self._logins: dict[tuple[str, str], Login] = {}
        # By host as well: a token that one registry's credentials got is none of another's business, even if it names the same realm.
        self._tokens: dict[tuple[str, Login], _Token] = {}
        self._seen: set[str] = set()
        #: What was asked for last, whether it was given or not.
        self.wanted: Login | None = None

    def header(self, host: str, repository: str) -> str | None:
        """Return the header to send without having been asked, None when none is known or needed."""
        login = self._logins.get((host, repository))
        if login is None:
            return None
        if login.realm is None:
            return self._direct(host, repository)
        token = self._tokens.get((host, login))
        if token is None or token.until <= self._clock():
            return self._fetch(host, repository, login, repository)
        return f"Bearer {token.text}"

    def answer(self, host: str, repository: str, challenges: Iterable[str], *, attempt: int, what: str) -> str:
        """Return the header to send after a 401.

        Args:
            challenges: the values of the WWW-Authenticate headers.
            attempt: how many 401s this request met before.
            what: the image, for messages.

        The FIRST challenge of a repository counts for all renewals: nvcr.io was seen to name another
        realm, of no use to anonymous users, once a token has expired. Only `insufficient_scope` changes
        the scope.

        Raises:
            AuthenticationError: login is refused, or only unknown schemes are offered.
            RegistryError: the realm is unreachable or gives no token.
            ConfigError: the user's credentials can't be read.
        """
        offered = parse_challenges(challenges)
        bearer = next((c for c in offered if c.scheme == "bearer" and c.parameters.get("realm")), None)
        login = self._logins.get((host, repository))
        if login is not None and login.realm is not None:
            wider = bearer.parameters if bearer else {}
            scope = wider.get("scope")
            if wider.get("error") == "insufficient_scope" and scope and scope != login.scope and attempt < 2:
                login = replace(login, scope=scope)
            elif attempt > 0:
                raise self.refusal(host, what, "401", repository)
        elif login is not None:
            raise self.refusal(host, what, "401", repository)
        else:
            login = self._choose(host, repository, offered, bearer)
        self.wanted = login
        if login is None:
            schemes = ", ".join(sorted({challenge.scheme for challenge in offered}))
            self._keyring.find(host, repository)
            raise self.refusal(host, what, f"401, it asks for {schemes}" if schemes else "401", repository)
        self._tokens.pop((host, login), None)
        header = self._fetch(host, repository, login, what) if login.realm else self._direct(host, repository)
        if header is None:
            useless = self._keyring.find(host, repository) is not None
            raise self.refusal(host, what, "401, it wants no identity token but a password" if useless else "401", repository)
        self._logins[host, repository] = login
        return header

    def refusal(self, host: str, what: str, detail: str, repository: str = "") -> AuthenticationError:
        """Return the error for access that *host* denied; it says what to export, never what was sent."""
        settings, variable = self._settings, self._settings.token_variable
        found = self._keyring.known(host, repository)
        if found is not None:
            name, check = f"the credentials of {found.source}", "them and that their"
            if found.source == variable:
                name, check = f"the token of {variable}", f"{variable} and that its"
            return AuthenticationError(f"{host} refuses {what} with {name} ({detail})", hint=f"check {check} owner may read this image")
        problems = "".join(f"; {problem}" for problem in self._keyring.problems)
        if settings.client == "nvidia" and host == settings.base:
            message = f"You must have an Nvidia GPU cloud token to use it. {host} refuses {what} without one ({detail})"
            return AuthenticationError(message, hint=f"export {variable}=<your NGC API key>{problems}")
        if host != settings.base:
            hint = f"the image does not exist, or it is private: the credentials of client {settings.client} are for {settings.base} only"
            return AuthenticationError(f"{host} refuses {what} ({detail})", hint=hint + problems)
        message = f"{host} refuses {what} without a login ({detail})"
        hint = f"export {_ADVICE.get(settings.client, f'{variable}=<your token>')}, or the image does not exist"
        return AuthenticationError(message, hint=hint + problems)

    def redact(self, text: str) -> str:
        """Return *text*, from a server, without any credential that it may repeat."""
        for secret in sorted({*self._seen, *self._keyring.secrets()}, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def _choose(self, host: str, repository: str, offered: list[Challenge], bearer: Challenge | None) -> Login | None:
        """Return how to log in, Bearer if it is offered; None for a host that offers nothing that is known here."""
        basic = any(challenge.scheme == "basic" for challenge in offered)
        if not bearer and not basic:
            return None
        if isinstance(self._keyring.find(host, repository), RegistryToken):
            return Login("bearer" if bearer else "basic")
        return self._bearer(host, repository, bearer) if bearer else Login("basic")

    def _bearer(self, host: str, repository: str, challenge: Challenge) -> Login:
        """Return the login that a Bearer challenge asks for; the realm's own query may hold both names."""
        realm = challenge.parameters["realm"]
        try:
            address = Address.parse(from_header(realm))
            query = parse_qs(address.target.partition("?")[2])
        except ValueError:
            raise RegistryError(f"{host} names a login service that is no address: {realm[:80]!r}", hint="this is refused") from None
        realm = address.url
        if address.scheme == "http" and not self._may_be_plain(host, realm):
            raise RegistryError(f"{host} wants the login sent over plain http to {address.netloc}", hint="this is refused")
        service = None if "service" in query else challenge.parameters.get("service")
        # an empty scope (nvcr.io on /v2/) opens nothing
        whole = f"repository:{repository}:pull" if repository else None
        if repository == CATALOG:
            whole = "registry:catalog:*"
        scope = None if "scope" in query else challenge.parameters.get("scope") or whole
        return Login("bearer", realm, service, scope)

    def _may_be_plain(self, host: str, realm: str) -> bool:
        """Tell whether a realm may be asked over plain http: the registry itself is, or both are on this machine."""
        if not self._settings.https and host == self._settings.base:
            return True
        return is_loopback(f"//{host}") and (not self._settings.https or is_loopback(realm))

    def _fetch(self, host: str, repository: str, login: Login, what: str) -> str:
        """Get a token from the realm, keep it, and return the header."""
        answer = self._exchange(login, self._keyring.find(host, repository))
        if answer.status in (401, 403):
            raise self.refusal(host, what, f"{answer.status} from the login service", repository)
        if answer.status != 200:
            message = f"the login service {login.realm_host} of {host} gives no token ({answer.status})"
            if answer.status in _PASSING or answer.status >= 500:
                raise UnavailableError(message, hint="try again later")
            raise RegistryError(message, hint="check that this host is a registry")
        text, lifetime = _read_token(answer.body)
        if text is None:
            raise RegistryError(
                f"the login service {login.realm_host} of {host} answers without a token", hint="is it behind a proxy or a portal?"
            )
        self._tokens[host, login] = _Token(text, self._clock() + lifetime - _MARGIN)
        self._seen.add(text)
        return f"Bearer {text}"

    def _exchange(self, login: Login, credentials: Credentials | None) -> Answer:
        """Ask the realm for a token: OAuth2 with an identity token, else a GET with what there is."""
        assert login.realm is not None
        wanted = {name: value for name, value in (("service", login.service), ("scope", login.scope)) if value}
        address = login.realm
        if isinstance(credentials, IdentityToken):
            form = {"grant_type": "refresh_token", "client_id": _CLIENT_ID, **wanted, "refresh_token": credentials.token}
            answer = self._ask(address, None, form)
            if answer.status not in _NO_OAUTH2:
                return answer
        if wanted:
            address += ("&" if "?" in address else "?") + urlencode(wanted)
        return self._ask(address, credentials.basic if isinstance(credentials, (Password, IdentityToken)) else None)

    def _direct(self, host: str, repository: str) -> str | None:
        """Return the user's credentials as a header; an identity token is for realms only."""
        credentials = self._keyring.find(host, repository)
        if isinstance(credentials, RegistryToken):
            return f"Bearer {credentials.token}"
        return credentials.basic if isinstance(credentials, Password) else None


def _read_token(body: bytes) -> tuple[str | None, float]:
    """Return the token of a realm's answer and its lifetime in seconds; None when there is none."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None, 0
    if not isinstance(document, dict):
        return None, 0
    text = document.get("token") or document.get("access_token")
    if not isinstance(text, str) or not _VISIBLE.fullmatch(text):  # anything else can't stand in a header
        return None, 0
    lifetime = document.get("expires_in")
    if not isinstance(lifetime, int):
        lifetime = TOKEN_LIFETIME
    return text, min(max(lifetime, TOKEN_LIFETIME), _LONGEST_LIFETIME)
