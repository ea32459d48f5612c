"""Credentials: which ones are for a host, and where they are from.

```
SREGISTRY_<CLIENT>_TOKEN                                      the client's own registry
SREGISTRY_DOCKERHUB_USERNAME + _PASSWORD, …_SECRETS           Docker Hub
APPTAINER_, SINGULARITY_, DOCKER_USERNAME + _PASSWORD         any registry but those with a user name of their own
~/.docker/config.json, auth.json, docker-config.json          hosts that they name ─▶ docker-credential-<name>
~/.netrc                                                      hosts that it names
```

The first that has something for a host wins. Nothing is read or run before a registry asks for a login,
and only the names of sources show up in messages.

Files: docker/cli's config.json and containers-auth.json(5). Helpers: docker-credential-helpers' protocol.
"""

from __future__ import annotations

import base64
import binascii
import json
import netrc
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, quote_plus

from sregistry.config.registries import OWN, PAIRS, owners, packaged, rows, variable, without_secrets
from sregistry.config.settings import RegistrySettings
from sregistry.errors import ConfigError
from sregistry.system import limits
from sregistry.terminal import printable

#: Seconds that a credential helper may take: it may ask for a passphrase.
HELPER_TIME = 60.0

#: Docker Hub's name in configuration files, and one of the hosts that it stands for.
_HUB, _HUB_HOST = "https://index.docker.io/v1/", "index.docker.io"
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# And halves of characters, which is how Python reads bytes that are no UTF-8.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_VISIBLE = re.compile(r"[\x21-\x7e]+")
#: The user name that stands for an identity token in a helper's answer.
_IDENTITY = "<token>"
_NOT_FOUND = "credentials not found"


@dataclass(frozen=True, kw_only=True, slots=True)
class Password:
    """A user name with a password or an API key: Basic, at the registry or its realm."""

    source: str
    username: str
    password: str = field(repr=False)

    @property
    def basic(self) -> str:
        """The value of an Authorization header (RFC 7617)."""
        return f"Basic {_base64(self.username, self.password)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class IdentityToken:
    """A refresh token for the realm (docker/distribution, "Oauth2 Token Authentication")."""

    source: str
    username: str = ""
    token: str = field(repr=False)

    @property
    def basic(self) -> str:
        """What a realm gets that knows no OAuth2."""
        return f"Basic {_base64(self.username, self.token)}"


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistryToken:
    """A Bearer token for the registry, sent as it is."""

    source: str
    token: str = field(repr=False)


Credentials = Password | IdentityToken | RegistryToken

#: How messages call them.
KINDS: Mapping[type[Credentials], str] = {
    Password: "user name and password",
    IdentityToken: "identity token",
    RegistryToken: "registry token",
}


def secrets(credentials: Credentials) -> list[str]:
    """Return what must not show up, in each form that is sent."""
    if isinstance(credentials, Password):
        plain, sent = credentials.password, [_base64(credentials.username, credentials.password)]
    else:
        plain = credentials.token
        sent = [_base64(credentials.username, plain)] if isinstance(credentials, IdentityToken) else []
    return [plain, quote(plain, safe=""), quote_plus(plain), *sent]


class Keyring:
    """Finds the credentials for a host; asks no source twice.

    Args:
        settings: of the client; their token is for the host `settings.base` only.
        environ: names the sources. What is in the home folder counts only with HOME.
        limit: seconds for a credential helper.
    """

    def __init__(self, settings: RegistrySettings, environ: Mapping[str, str], *, limit: float = HELPER_TIME) -> None:
        self._settings, self._environ, self._limit = settings, environ, limit
        self._found: dict[tuple[str, str], Credentials | None] = {}
        self._documents: dict[Path, dict[str, Any]] = {}
        self._answers: dict[tuple[str, str], Credentials | None] = {}
        self._problems: dict[str, None] = {}

    def find(self, host: str, repository: str = "") -> Credentials | None:
        """Return what is to be sent to *host*, None for nothing.

        Raises:
            ConfigError: a source is broken; the message names it and shows nothing of it.
        """
        key = host, repository
        if self._settings.exposed and host == self._settings.base:
            switch = variable(self._settings.client, "NOHTTPS")
            self._problems[f"nothing secret is sent over plain http because of {OWN}: export {switch}=yes"] = None
            return None
        if key not in self._found:
            sources = (self._own(host), self._hub(host), self._pair(host), self._stored(host, repository), self._netrc(host))
            self._found[key] = next((found for source in sources for found in source), None)
        return self._found[key]

    def known(self, host: str, repository: str = "") -> Credentials | None:
        """Return what `find` returned before, or would without reading anything."""
        return self._found.get((host, repository)) or next(self._own(host), None)

    @property
    def problems(self) -> tuple[str, ...]:
        """What kept credentials from being given: it matters when a registry refuses."""
        return (*([self._settings.withheld] if self._settings.withheld else []), *self._problems)

    def secrets(self) -> list[str]:
        """Return everything found so far that must not show up."""
        found = [*self._found.values(), next(self._own(self._settings.base), None)]
        return [secret for credentials in found if credentials for secret in secrets(credentials)]

    def _own(self, host: str) -> Iterator[Credentials]:
        settings = self._settings
        if settings.token and host == settings.base and not settings.exposed:
            yield _password(settings.token_variable, settings.username or "token", settings.token)

    def _hub(self, host: str) -> Iterator[Credentials]:
        if self._is_hub(host):
            yield from self._variables("SREGISTRY_DOCKERHUB_")

    def _pair(self, host: str) -> Iterator[Credentials]:
        """A user name that is one registry's by definition goes there only, and no other goes there: an NGC key is not Docker Hub's.

        A row of the working folder can't have a name that the package gives to another registry.
        """
        fixed = {row.username for row in packaged().values() if row.username}
        mine = [*(row for row in packaged().values() if host in row.names), *owners(host, self._environ)]
        literal = {row.username for row in mine if row.username and not (row.own and row.username in fixed)}
        taken = fixed | {row.username for row in rows().values() if row.username}
        for prefix in PAIRS:
            for found in self._variables(prefix):
                if found.username in literal if literal else found.username not in taken:
                    yield found

    def _variables(self, prefix: str) -> Iterator[Password]:
        """A pair counts only whole."""
        names = f"{prefix}USERNAME", f"{prefix}PASSWORD"
        username, password = (self._environ.get(name) or "" for name in names)
        if username and password:
            for name, value in zip(names, (username, password), strict=True):
                if _CONTROL.search(value):
                    raise ConfigError(f"{name}: holds a character that can't be sent", hint="export it again, without line ends")
            yield _password(f"{names[0]}, {names[1]}", username, password)

    def _stored(self, host: str, repository: str) -> Iterator[Credentials]:
        for path in self._files(host):
            yield from self._from_file(path, host, repository)

    def _files(self, host: str) -> Iterator[Path]:
        """Docker's file, then containers' (podman, skopeo), then Apptainer's and SingularityCE's."""
        environ = self._environ
        if self._is_hub(host) and (named := environ.get("SREGISTRY_DOCKERHUB_SECRETS")):
            if not Path(named).is_file():
                raise ConfigError(f"SREGISTRY_DOCKERHUB_SECRETS: {named} is no file")
            yield Path(named)
            return
        home = environ.get("HOME")
        if folder := environ.get("DOCKER_CONFIG") or (home and f"{home}/.docker"):
            yield Path(folder) / "config.json"
        if file := environ.get("REGISTRY_AUTH_FILE"):
            yield Path(file)
        if folder := environ.get("XDG_RUNTIME_DIR"):
            yield Path(folder) / "containers/auth.json"
        if home:
            for name in (".config/containers/auth.json", ".apptainer/docker-config.json", ".singularity/docker-config.json"):
                yield Path(home) / name

    def _from_file(self, path: Path, host: str, repository: str) -> Iterator[Credentials]:
        """The helper of the host, then what is in the file, then the helper of all hosts."""
        if path not in self._documents:
            self._documents[path] = _read(path)
        document = self._documents[path]
        helpers, auths = _table(document, "credHelpers", path), _table(document, "auths", path)
        for key in self._matching(helpers, host, repository):
            yield from self._helper(helpers[key], host, path)
        for key in self._matching(auths, host, repository):
            if found := _entry(auths[key], path, key):
                yield found
        if document.get("credsStore"):
            yield from self._helper(document["credsStore"], host, path)

    def _matching(self, table: Mapping[str, Any], host: str, repository: str) -> list[str]:
        """Return the keys that mean this host, what is closest to the repository first.

        Docker's keys are hosts or `https://host/v1/`; containers' may be `host/organisation`, and count for
        what is below (containers-auth.json(5)).
        """
        names, below = self._names(host), f"{repository}/"
        found = []
        for key in table:
            address = re.sub(r"^https?://", "", key, flags=re.IGNORECASE)
            name, _, path = address.partition("/")
            path = "" if address != key or path.strip("/") in ("v1", "v2") else path.strip("/")
            if name in names and (not path or below.startswith(f"{path}/")):
                found.append((-len(path), names.index(name), key))
        return [key for _, _, key in sorted(found)]

    def _names(self, host: str) -> list[str]:
        """Return all names of a host's registry: Docker Hub has three. What a row of the working folder calls a host opens nothing."""
        more = [name for row in packaged().values() if host in row.names for name in row.names]
        return list(dict.fromkeys([host, *more]))

    def _is_hub(self, host: str) -> bool:
        known = (*packaged()["docker"].names, self._environ.get(variable("docker", "BASE")))
        return self._settings.client == "docker" and host == self._settings.base and host in known

    def _helper(self, name: object, host: str, path: Path) -> Iterator[Credentials]:
        """Ask a credential helper; what goes wrong is kept for the case that nothing else helps."""
        if not isinstance(name, str) or not _HELPER.fullmatch(name):
            raise ConfigError(f"{path}: {str(name)[:40]!r} is no name of a credential helper")
        server = _HUB if _HUB_HOST in self._names(host) else host
        if (name, server) not in self._answers:
            try:
                self._answers[name, server] = _ask_helper(f"docker-credential-{name}", server, self._environ, self._limit)
            except _HelperError as error:
                self._answers[name, server] = None
                self._problems[str(error)] = None
        if found := self._answers[name, server]:
            yield found

    def _netrc(self, host: str) -> Iterator[Credentials]:
        """Only machines that are named count: `default` would send a password to whoever asks."""
        home = self._environ.get("HOME")
        name = self._environ.get("NETRC") or (home and f"{home}/.netrc")
        if not name:
            return
        path = Path(name)
        try:
            machines = netrc.netrc(path).hosts if path.is_file() else {}
        except netrc.NetrcParseError as error:  # its own text quotes the file
            raise ConfigError(f"{path}: line {error.lineno} is no netrc") from None
        except ValueError:
            raise ConfigError(f"{path}: this is no netrc: it is not UTF-8") from None
        except OSError as error:
            raise ConfigError(f"can't read {path}: {error.strerror}") from None
        names = self._names(host)
        for machine in [*names, *(re.sub(r":\d+$", "", name) for name in names)]:
            if machine != "default" and (entry := machines.get(machine)) and entry[0] and entry[2]:
                yield _checked(f"{path}", f"machine {machine}", entry[0], entry[2])
                return


def _base64(username: str, password: str) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode()


def _password(source: str, username: str, password: str) -> Password:
    if ":" in username:  # RFC 7617, 2: it would end the user name
        raise ConfigError(f"{source}: a user name can't hold a colon")
    return Password(source=source, username=username, password=password)


def _checked(source: str, where: str, username: str, password: str) -> Password:
    if _CONTROL.search(username + password):
        raise ConfigError(f"{source}: {where}: a user name or password holds a character that can't be sent")
    return _password(source, username, password)


class _HelperError(Exception):
    """A helper that gives no credentials for another reason than that it has none."""


def _ask_helper(program: str, server: str, environ: Mapping[str, str], limit: float) -> Credentials | None:
    """Run ``docker-credential-<name> get`` with the server on its standard input."""
    where = shutil.which(program, path=environ.get("PATH"))
    if where is None:
        raise _HelperError(f"{program} is not on PATH")
    theirs = without_secrets(environ)
    try:
        done = subprocess.run([where, "get"], input=server.encode(), capture_output=True, env=theirs, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        raise _HelperError(f"{program} gave no answer in {limit:g} s") from None
    except OSError as error:
        raise _HelperError(f"{program} can't be started: {error.strerror}") from None
    if done.returncode:
        # The protocol has the reason on stdout.
        said = (done.stdout.strip() or done.stderr.strip()).decode(errors="replace")
        if _NOT_FOUND in said:
            return None
        words = printable(" ".join(said.split()))[:120]
        raise _HelperError(f"{program} failed ({done.returncode})" + (f": {words}" if words else ""))
    try:
        answer = json.loads(done.stdout)
        username, secret = answer["Username"], answer["Secret"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _HelperError(f"{program} gave no user name and secret") from None
    if not isinstance(username, str) or not isinstance(secret, str) or _CONTROL.search(username + secret) or ":" in username:
        raise _HelperError(f"{program} gave a user name or a secret that can't be sent")
    if not secret:
        return None
    return IdentityToken(source=program, token=secret) if username == _IDENTITY else _password(program, username, secret)


def _read(path: Path) -> dict[str, Any]:
    """Read a configuration file, {} if there is none. Errors show nothing of its content."""
    try:
        with path.open("rb") as file:
            data = file.read(limits.OWN_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from None
    try:
        document = json.loads(data) if len(data) <= limits.OWN_FILE else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: this is no JSON of credentials", hint="repair it or log in again")
    return document


def _table(document: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = document.get(key) or {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: {key}: expected a table of hosts")
    return cast(dict[str, Any], value)


def _entry(entry: object, path: Path, key: str) -> Credentials | None:
    """Read one of `auths`; an empty one says that a helper has it."""
    where, source = f"auths[{key[:80]!r}]", f"{path} (auths)"
    if not isinstance(entry, dict):
        raise ConfigError(f"{path}: {where}: expected a table")
    fields = {name: entry.get(name) or "" for name in ("auth", "username", "password", "identitytoken", "registrytoken")}
    for name, value in fields.items():
        if not isinstance(value, str) or _CONTROL.search(value):
            raise ConfigError(f"{path}: {where}.{name}: expected text without characters that can't be sent")
    username, password = fields["username"], fields["password"]
    if fields["auth"]:
        try:
            username, colon, password = base64.b64decode(fields["auth"], validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            colon = ""
        if not colon:
            raise ConfigError(f"{path}: {where}.auth: expected base64 of a user name, a colon and a password") from None
        password = password.rstrip("\0")  # as docker/cli does
    if fields["registrytoken"]:
        if not _VISIBLE.fullmatch(fields["registrytoken"]):
            raise ConfigError(f"{path}: {where}.registrytoken: holds characters that no token has")
        return RegistryToken(source=source, token=fields["registrytoken"])
    if fields["identitytoken"]:
        return IdentityToken(source=source, username="" if username == _IDENTITY else username, token=fields["identitytoken"])
    if username and password:
        return _checked(source, where, username, password)
    return None
