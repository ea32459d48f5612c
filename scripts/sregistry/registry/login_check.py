"""What a registry would be sent, by name, and whether it accepts it.

```
client | host[:port] | reference ─▶ GET /v2/ or /v2/<repository>/tags/list ─▶ challenge ─▶ login ─▶ Check
```
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sregistry.config.settings import RegistrySettings, client_of, clients, registry
from sregistry.config.targets import locate
from sregistry.errors import ConfigError, RegistryError
from sregistry.oci.reference import is_host
from sregistry.registry.client import RegistryClient
from sregistry.registry.credentials import KINDS, Credentials, Keyring
from sregistry.registry.http import IMPATIENT, Patience
from sregistry.registry.tokens import Login

_MAY_BE_HOST = re.compile(r"localhost|[^/@]*\.[^/@]*|[^/@]*:[0-9]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What came of one login; error is None if it was accepted."""

    settings: RegistrySettings
    repository: str
    credentials: Credentials | None
    login: Login | None
    error: RegistryError | None

    def json(self) -> dict[str, object]:
        """Return all of it but secrets."""
        return {
            "client": self.settings.client,
            "registry": self.settings.base,
            "https": self.settings.https,
            "repository": self.repository or None,
            "credentials": self.credentials.source if self.credentials else None,
            "kind": KINDS[type(self.credentials)] if self.credentials else None,
            "challenge": self.login.scheme if self.login else None,
            "realm": self.login.realm_host if self.login else None,
            "accepted": self.error is None,
            "error": str(self.error) if self.error else None,
        }

    def lines(self) -> list[str]:
        """Return the same for a reader."""
        sent = f"{self.credentials.source} ({KINDS[type(self.credentials)]})" if self.credentials else "anonymous"
        asked = "-" if self.error else "no login"
        if self.login:
            asked = self.login.scheme.capitalize() + (f" of {self.login.realm_host}" if self.login.realm else "")
        return [
            f"registry     {self.settings.base} (client {self.settings.client})",
            f"repository   {self.repository or '-'}",
            f"credentials  {sent}",
            f"asks for     {asked}",
            f"accepted     {'no' if self.error else 'yes'}",
        ]


def check(text: str, client: str, environ: Mapping[str, str], patience: Patience = IMPATIENT) -> Check:
    """Log in at a registry.

    Args:
        text: a client's name, host[:port], or a reference, whose pull scope is asked for then.
        client: whose registry a reference means that names none.
        environ: holds the credentials, or says where they are.
        patience: how long to try.

    Raises:
        ConfigError, InvalidReference: the text means no registry, or credentials can't be read.
    """
    settings, repository = _meant(text, client, environ)
    keyring = Keyring(settings, environ)
    error = None
    with RegistryClient(settings, patience=patience, keyring=keyring) as connection:
        try:
            connection.log_in(repository)
        except RegistryError as refused:
            error = refused
        login = connection.wanted
    return Check(
        settings=settings,
        repository=repository,
        credentials=keyring.find(settings.base, repository) if login or error else None,
        login=login,
        error=error,
    )


def _meant(text: str, client: str, environ: Mapping[str, str]) -> tuple[RegistrySettings, str]:
    """Return the registry, and the repository or ""."""
    if text in clients():
        settings = registry(text, environ)
        if not settings.base:
            raise ConfigError(f"client {text} is for any host", hint="name one: host[:port], or host/name")
        return settings, ""
    if _MAY_BE_HOST.fullmatch(text) and is_host(text):
        return registry(client_of(text, environ), environ, fallback=text), ""
    settings, reference = locate(text, client, environ)
    return settings, reference.repository
