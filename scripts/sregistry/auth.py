"""Login to a registry: challenges, tokens, and the errors that tell what to export.

```
401 WWW-Authenticate ── parse_challenges ──▶ Bearer ──▶ realm?service=…&scope=… ──▶ token ──▶ "Bearer …"
                                         └─▶ Basic  ──▶ user name + token        ──────────▶ "Basic …"
```

Grammar of challenges: RFC 9110, 11.2, 11.3 and 11.6.1; beyond it a bare value may hold any character
but a blank, a comma and a quote, because registries send `scope=repository:a/b:pull` unquoted. Token
exchange: docker/distribution's token specification. Credentials go to the client's own registry and to
the realm that it names, to nobody else, and into no error text.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple
from urllib.parse import parse_qs, quote, urlencode, urlsplit

from sregistry.errors import AuthenticationError, RegistryError
from sregistry.settings import RegistrySettings

#: Seconds that a token is good for when its answer does not say more (token specification).
TOKEN_LIFETIME = 60
#: Seconds before its end at which a token is not used any more.
_MARGIN = 5
_LONGEST_LIFETIME = 86_400
_USERNAMES = {"nvidia": "$oauthtoken"}

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
            found[-1][1].setdefault(word[0].lower(), value)
        elif equals:
            break
        else:
            found.append((word[0].lower(), {}))
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


@dataclass(frozen=True, slots=True)
class _Login:
    """How a repository wants to be asked, from its first challenge: Basic when realm is None."""

    realm: str | None
    service: str | None
    scope: str | None


class _Token(NamedTuple):
    text: str
    until: float


class Authenticator:
    """Knows which Authorization header a repository wants; one object a client.

    Args:
        settings: of the client; their token is for the host `settings.base` only.
        ask: sends a GET to a realm with this Authorization header (None: without).
        clock: seconds that never go back.
    """

    def __init__(
        self, settings: RegistrySettings, ask: Callable[[str, str | None], Answer], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._ask, self._clock = settings, ask, clock
        self._logins: dict[tuple[str, str], _Login] = {}
        self._tokens: dict[_Login, _Token] = {}
        self._seen: set[str] = set()

    def header(self, host: str, repository: str) -> str | None:
        """Return the header to send without having been asked, None when none is known or needed."""
        login = self._logins.get((host, repository))
        if login is None:
            return None
        if login.realm is None:
            return self._basic(host)
        token = self._tokens.get(login)
        if token is None or token.until <= self._clock():
            return self._fetch(host, login, repository)
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
                raise self.refusal(host, what, "401")
        elif login is not None:
            raise self.refusal(host, what, "401")
        elif bearer:
            login = self._bearer(host, repository, bearer)
        elif any(challenge.scheme == "basic" for challenge in offered):
            login = _Login(None, None, None)
        else:
            schemes = ", ".join(sorted({challenge.scheme for challenge in offered}))
            raise self.refusal(host, what, f"401, it asks for {schemes}" if schemes else "401")
        self._tokens.pop(login, None)
        if login.realm is not None:
            header = self._fetch(host, login, what)
        else:
            basic = self._basic(host)
            if basic is None:
                raise self.refusal(host, what, "401")
            header = basic
        self._logins[host, repository] = login
        return header

    def refusal(self, host: str, what: str, detail: str) -> AuthenticationError:
        """Return the error for access that *host* denied; it says what to export, never what was sent."""
        settings = self._settings
        if host != settings.base:
            hint = f"the image does not exist, or it is private: the credentials of client {settings.client} are for {settings.base} only"
            return AuthenticationError(f"{host} refuses {what} ({detail})", hint=hint)
        variable = settings.token_variable
        if settings.token:
            hint = f"check {variable} and that its owner may read this image"
            return AuthenticationError(f"{host} refuses {what} with the token of {variable} ({detail})", hint=hint)
        if settings.client == "nvidia":
            message = f"You must have an Nvidia GPU cloud token to use it. {host} refuses {what} without one ({detail})"
            return AuthenticationError(message, hint=f"export {variable}=<your NGC API key>")
        message = f"{host} refuses {what} without a login ({detail})"
        return AuthenticationError(message, hint=f"export {variable}=<your token>, or the image does not exist")

    def redact(self, text: str) -> str:
        """Return *text*, from a server, without any credential that it may repeat."""
        secrets = list(self._seen)
        if self._settings.token:
            secrets += [self._settings.token, quote(self._settings.token, safe=""), self._credentials()]
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    def _bearer(self, host: str, repository: str, challenge: Challenge) -> _Login:
        """Return the login that a Bearer challenge asks for; the realm's own query may hold both names."""
        realm = challenge.parameters["realm"]
        try:
            parts = urlsplit(realm)
            query = parse_qs(parts.query)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            valid = False
        if not valid:
            raise RegistryError(f"{host} names a login service that is no address: {realm[:80]!r}")
        if parts.scheme == "http" and host == self._settings.base and self._settings.https:
            raise RegistryError(f"{host} wants the login sent over plain http to {parts.hostname}", hint="this is refused")
        service = None if "service" in query else challenge.parameters.get("service")
        # an empty scope (nvcr.io on /v2/) opens nothing
        scope = None if "scope" in query else challenge.parameters.get("scope") or f"repository:{repository}:pull"
        return _Login(realm, service, scope)

    def _fetch(self, host: str, login: _Login, what: str) -> str:
        """Get a token from the realm, keep it, and return the header."""
        assert login.realm is not None
        wanted = [(name, value) for name, value in (("service", login.service), ("scope", login.scope)) if value]
        address = login.realm.partition("#")[0]
        if wanted:
            address += ("&" if "?" in address else "?") + urlencode(wanted)
        answer = self._ask(address, self._basic(host))
        if answer.status in (401, 403):
            raise self.refusal(host, what, f"{answer.status} from the login service")
        realm_host = urlsplit(login.realm).netloc.rpartition("@")[2]
        if answer.status != 200:
            raise RegistryError(f"the login service {realm_host} of {host} gives no token ({answer.status})", hint="try again later")
        text, lifetime = _read_token(answer.body)
        if text is None:
            raise RegistryError(
                f"the login service {realm_host} of {host} answers without a token", hint="is it behind a proxy or a portal?"
            )
        self._tokens[login] = _Token(text, self._clock() + lifetime - _MARGIN)
        self._seen.add(text)
        return f"Bearer {text}"

    def _basic(self, host: str) -> str | None:
        """Return the user's credentials for *host* as a header; they belong to the client's registry only."""
        if host != self._settings.base or not self._settings.token:
            return None
        return f"Basic {self._credentials()}"

    def _credentials(self) -> str:
        name = self._settings.username or _USERNAMES.get(self._settings.client, "token")
        return base64.b64encode(f"{name}:{self._settings.token}".encode()).decode()


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
