"""A connection to a registry: requests with the user's login, at the registry's pace, and an error for each refusal.

```
get ─▶ pace ─▶ Authorization, if one is known ─▶ GET ─▶ 401 ─▶ login ─▶ GET ─▶ answer, or an error that says what to do
```

One request and its redirects are an `Exchange`.
"""

from __future__ import annotations

import http.client
import os
import threading
from collections.abc import Mapping

import requests

from sregistry.config.registries import variable
from sregistry.config.settings import RegistrySettings
from sregistry.errors import DocumentError, RegistryError, UnavailableError
from sregistry.oci.address import host_of, is_loopback, same_origin
from sregistry.oci.json_fields import load_json
from sregistry.oci.reference import Reference
from sregistry.registry.bodies import drain, read, read_error
from sregistry.registry.credentials import Keyring
from sregistry.registry.exchange import Exchange
from sregistry.registry.http import RETRIED, Patience, new_session
from sregistry.registry.rate_limit import Pace, limit_of
from sregistry.registry.tokens import Answer, Authenticator, Login
from sregistry.system import limits

#: Seconds that are given to what is only good to know.
_BRIEF = 3.0
_UNKNOWN_IMAGE = {"NAME_UNKNOWN", "MANIFEST_UNKNOWN", "NOT_FOUND"}


class Connection:
    """Sends requests to a registry; threads may share it. Arguments as for RegistryClient."""

    def __init__(
        self,
        settings: RegistrySettings,
        session: requests.Session | None,
        patience: Patience,
        pace: Pace | None,
        keyring: Keyring | None,
    ) -> None:
        self.settings, self.patience = settings, patience
        self._pace = pace
        self._login = threading.Lock()
        self._own = session is None
        self._session = session or new_session(patience)
        self._http = Exchange(self._session, settings, patience)
        self._auth = Authenticator(settings, self._ask_realm, keyring or Keyring(settings, os.environ))

    def close(self) -> None:
        """Close the connections of a session of one's own."""
        if self._own:
            self._session.close()

    @property
    def wanted(self) -> Login | None:
        """The login that the registry asked for last, whether it was accepted or not."""
        return self._auth.wanted

    def root(self, host: str) -> str:
        """Return the address of a registry's API: plain http only where it was asked for, or on this machine."""
        plain = not self.settings.https and (host == self.settings.base or is_loopback(f"//{host}"))
        return f"{'http' if plain else 'https'}://{host}/{self.settings.version}"

    def get(self, reference: Reference, url: str, headers: dict[str, str], what: str, also: tuple[int, ...] = ()) -> requests.Response:
        """Send a GET to the registry, logging in when asked to, and return the answer, of status 200 or one of *also*."""
        host = reference.registry
        if self._pace:
            self._pace.wait()
        with self._login:
            header = self._auth.header(host, reference.repository)
        for attempt in range(4):
            response = self._http.follow(url, headers, header)
            # only the registry's own 401 is answered; a storage service gets no credentials
            if response.status_code != 401 or not same_origin(response.url, url):
                break
            drain(response)
            challenges = response.raw.headers.getlist("WWW-Authenticate")
            with self._login:
                header = self._auth.answer(host, reference.repository, challenges, attempt=attempt, what=what)
        if self._pace:
            self._pace.note_limits(response.headers)
        if response.status_code == 200 or response.status_code in also:
            return response
        if response.status_code in (401, 403) and same_origin(response.url, url):
            raise self._auth.refusal(host, what, self._detail(response)[1], reference.repository)
        raise self.failure(response, host, what)

    def get_if_easy(self, reference: Reference, url: str, headers: Mapping[str, str], limit: int) -> bytes | None:
        """Return what is only good to know: one attempt with a short timeout, skipped under a rate limit.

        Raises:
            RegistryError: no answer, or its body has more than *limit* bytes.
        """
        if self._pace and self._pace.scarce:
            return None
        with self._login:
            header = self._auth.header(reference.registry, reference.repository)
        response = self._http.send(url, headers, header, brief=min(_BRIEF, self.patience.read))
        if response.status_code != 200:
            response.close()
            return None
        return read(response, reference.registry, reference.uri, limit)

    def get_foreign(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        """Send a GET to any address, without credentials."""
        return self._http.follow(url, headers, None)

    def _ask_realm(self, url: str, header: str | None, form: Mapping[str, str] | None = None) -> Answer:
        """Send a GET, or a POST of *form*, to a token service; a form follows no redirect, because it holds a secret."""
        accept = {"Accept": "application/json"}
        response = self._http.follow(url, accept, header) if form is None else self._http.send(url, accept, header, form)
        return Answer(response.status_code, read(response, host_of(url), "a token", limits.TOKEN_BYTES))

    def failure(self, response: requests.Response, host: str, what: str) -> RegistryError:
        """Return the error for an answer that is neither 200 nor a refused login."""
        status, answered = response.status_code, host_of(response.url)
        codes, detail = self._detail(response)
        if answered != host:
            return RegistryError(f"{answered}, where {host} keeps its data, does not give {what} ({detail})", hint="try again")
        if status == 404 and "BLOB_UNKNOWN" in codes:
            return RegistryError(f"{host} does not have {what}, which the manifest names", hint="the image is incomplete in the registry")
        if status == 404 and codes & _UNKNOWN_IMAGE:
            return RegistryError(f"{host} has no image {what} ({detail})", hint="check the name and the tag")
        if status == 404:
            return RegistryError(f"{host} does not have {what} ({detail})", hint="check the name, and that this host is a registry")
        if status == 429:
            return UnavailableError(
                f"{host} limits the rate of requests{limit_of(response.headers)} ({detail})", hint="try again later or log in"
            )
        if status in RETRIED:
            return UnavailableError(f"{host} has trouble giving {what} ({detail})", hint="try again later")
        if status == 400 and (response.url or "").startswith("http:"):  # how a TLS server answers plain http
            hint = f"if it wants https, unset {variable(self.settings.client, 'NOHTTPS')}"
            return RegistryError(f"{host} does not give {what} over plain http ({detail})", hint=hint)
        return RegistryError(f"{host} does not give {what} ({detail})", hint="check that this host is a registry")

    def _detail(self, response: requests.Response) -> tuple[set[str], str]:
        """Return the codes of an error answer, and status, code and message as words.

        distribution-spec, "Error codes": `{"errors": [{"code", "message", "detail"}]}`.
        """
        words = [f"{response.status_code} {http.client.responses.get(response.status_code, '')}".strip()]
        codes: set[str] = set()
        try:
            body = load_json(read_error(response), "error")
            errors = body.get("errors")
            for item in errors if isinstance(errors, list) else []:
                if isinstance(item, dict):
                    code, message = item.get("code"), item.get("message")
                    codes |= {code} if isinstance(code, str) else set()
                    words += [word for word in (code, message) if isinstance(word, str) and word]
        except (RegistryError, DocumentError):
            pass
        text = self._auth.redact(": ".join(words))
        return codes, text[:200].strip()
