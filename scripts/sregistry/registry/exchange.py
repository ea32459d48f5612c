"""A request and its answer: redirects are followed, and what is secret stays with its origin.

Redirects are followed here, because the Authorization header must stay with the registry (storage services refuse it, and it is
none of their business), because their addresses must go out as they were sent, and because requests would read `~/.netrc`
for other hosts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import requests
from urllib3.exceptions import HTTPError

from sregistry.config.registries import variable
from sregistry.config.settings import RegistrySettings
from sregistry.errors import RegistryError, UnavailableError
from sregistry.oci.address import Address, from_header, is_loopback
from sregistry.registry.bodies import drain
from sregistry.registry.http import NO_TLS, Authorization, Patience, why, without_retries
from sregistry.registry.wire import Sent
from sregistry.system import limits
from sregistry.system.logs import logger

_REDIRECTS = (301, 302, 303, 307, 308)


class Exchange:
    """Sends requests as *settings* and *patience* say, by a session that `new_session` made."""

    def __init__(self, session: requests.Session, settings: RegistrySettings, patience: Patience) -> None:
        self._session, self._settings, self._patience = session, settings, patience

    def follow(self, url: str, headers: Mapping[str, str], authorization: str | None) -> requests.Response:
        """Send a GET and follow redirects; the authorization stays with the first origin.

        Raises:
            UnavailableError: no answer.
            RegistryError: a redirect that goes on for ever, to no web address, or from https to plain http.
        """
        address = first = self._address(url)
        for _ in range(limits.REDIRECTS):
            response = self._get(address, headers, authorization if address.origin == first.origin else None)
            # the first, if there are several
            location = next(iter(response.raw.headers.getlist("Location")), "")
            if response.status_code not in _REDIRECTS or not location:
                return response
            drain(response)
            host = address.netloc
            try:
                following = address.join(from_header(location))
            except ValueError:
                raise RegistryError(f"{host} redirects to something that is no web address", hint="this is refused") from None
            if following.scheme == "http" and address.scheme == "https":
                raise RegistryError(f"{host} redirects from https to plain http on {following.netloc}", hint="this is refused")
            address = following
        raise RegistryError(f"{first.netloc} redirects more often than the limit REDIRECTS of {limits.REDIRECTS}")

    def send(
        self,
        url: str,
        headers: Mapping[str, str],
        authorization: str | None,
        form: Mapping[str, str] | None = None,
        brief: float | None = None,
    ) -> requests.Response:
        """Send one GET, or a POST of *form*; the answer's body is yet to be read, and a redirect to be followed.

        Where *brief* is given there is one try, and the answer comes in so many seconds.

        Raises:
            UnavailableError: no answer.
        """
        return self._get(self._address(url), headers, authorization, form, brief)

    def _address(self, url: str) -> Address:
        try:
            return Address.parse(url)
        except ValueError as error:
            raise self._unreachable(url.partition("//")[2].partition("/")[0].rpartition("@")[2][:80], error) from None

    def _get(
        self,
        address: Address,
        headers: Mapping[str, str],
        authorization: str | None,
        form: Mapping[str, str] | None = None,
        brief: float | None = None,
    ) -> requests.Response:
        """The adapter is called directly: Session.send would read the whole body of a redirect."""
        try:
            request = self._prepared(address, headers, authorization, form)
            request.watch = self._patience.watch(brief)
            environment: Any = self._session.merge_environment_settings(address.url, {}, True, None, None)
            if is_loopback(address.url):  # no proxy reaches this machine, whatever NO_PROXY says
                environment["proxies"] = {}
            if not self._settings.verify:  # requests would let REQUESTS_CA_BUNDLE go before it
                environment["verify"] = False
            adapter = self._session.get_adapter(address.url)
            # Never a value, and no query: signed addresses hold secrets there.
            log = logger()
            log.debug("Headers found: %s", ",".join(request.headers))
            if brief is not None:
                response = without_retries(adapter).send(request, timeout=brief, **environment)
            else:
                response = adapter.send(request, timeout=(self._patience.connect, self._patience.read), **environment)
            where = f"{address.scheme}://{address.netloc}{address.target.partition('?')[0]}"
            log.debug("%s %s: %s", request.method, where, response.status_code)
            return response
        except (requests.RequestException, HTTPError, ValueError, OSError) as error:
            raise self._unreachable(address.netloc, error) from None

    def _prepared(self, address: Address, headers: Mapping[str, str], authorization: str | None, form: Mapping[str, str] | None) -> Sent:
        request = Sent()
        request.prepare(
            method="GET" if form is None else "POST",
            url=f"{address.scheme}://{address.netloc}/",
            headers={**self._session.headers, **headers, **({} if form is None else {"Content-Type": "application/x-www-form-urlencoded"})},
            data=None if form is None else urlencode(form),
            auth=Authorization(authorization),
        )
        request.url = address.url  # as it is: prepare would quote it anew
        request.address = address
        return request

    def _unreachable(self, host: str, error: BaseException) -> RegistryError:
        """Return the error for a request without an answer; the original text may hold addresses with secrets."""
        reason, hint = why(error, self._patience)
        if hint is NO_TLS:
            hint = f"if it speaks plain http, export {variable(self._settings.client, 'NOHTTPS')}=yes"
        return UnavailableError(f"can't reach {host}: {reason}", hint=hint)
