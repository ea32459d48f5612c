"""What is looked for in a registry: tags of a repository, or repositories.

```
nvidia/pytorch  nvidia/pytorch:24.*-py3           ─▶ its tags, those that match     ─▶ nvidia/pytorch:24.01-py3 …
nvidia/*torch*  quay.io/*  pytorch (if there is none of that name)  ─▶ repositories ─▶ nvidia/pytorch …
```

Patterns are a shell's: `*`, `?`, `[…]`; `*` stands for `/`, too. What is found is named as the query names it, with its scheme
and its registry or without, so that `pull` takes it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from sregistry.config.settings import RegistrySettings
from sregistry.config.targets import locate
from sregistry.errors import InvalidReference, RegistryError, TransferError, UnavailableError, UsageError
from sregistry.oci.reference import Reference, split_scheme
from sregistry.registry.tag_lists import repositories, tags

if TYPE_CHECKING:
    from sregistry.registry.client import RegistryClient

_GLOB = re.compile(r"[*?\[]")
#: A repository in place of one, to learn what stands before it.
_ANY = "any/any"


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """One search.

    `prefix` is the scheme and the host that the query names, `path` what it says of repositories, a name or a
    pattern, `pattern` what it says of tags, "" for nothing. `repository` is what a path that is a name stands for.
    """

    settings: RegistrySettings
    prefix: str
    path: str
    pattern: str
    repository: Reference | None

    @classmethod
    def parse(cls, text: str, client: str, environ: Mapping[str, str]) -> Search:
        """Read a query.

        Args:
            text: a repository or a pattern, with or without a scheme, a registry and a tag.
            client: whose registry and collection are meant when the text says nothing.
            environ: may name other hosts for the clients.

        Raises:
            UsageError: what can't be looked for, or names no registry; InvalidReference, ConfigError among them.
        """
        scheme, rest = split_scheme(text)
        prefix = f"{scheme}://" if scheme else ""
        if "@" in rest:
            raise InvalidReference(f"{text!r}: only tags can be looked for", hint="leave out what follows '@'")
        settings, host, path = _registry(text, prefix, rest, client, environ)
        before, colon, pattern = path.rpartition(":")
        path, pattern = (before, pattern) if colon else (path, "")
        if not path or path.endswith("/"):
            path += "*"
        if _GLOB.search(path):
            if colon:
                raise UsageError(f"{text!r}: tags are listed of one repository", hint="name it, or leave out what follows ':'")
            return cls(settings=settings, prefix=prefix + host, path=path, pattern="", repository=None)
        _, repository = locate(prefix + host + path, client, environ)
        return cls(settings=settings, prefix=prefix + host, path=path, pattern=pattern, repository=repository)

    def run(self, client: RegistryClient) -> list[str]:
        """Return what matches, by version.

        Raises:
            RegistryError: no such repository and no list of them; unreachable; a broken list.
            AuthenticationError: refused.
            DocumentError: a list is malformed.
        """
        if self.repository is None:
            return self._repositories(client)
        try:
            found = tags(client, self.repository)
        except (UnavailableError, TransferError):
            raise
        except RegistryError as unknown:
            if self.pattern:
                raise
            try:
                return self._repositories(client)
            except RegistryError:
                hint = f"{unknown.hint}; {self.settings.base} does not list its repositories"
                raise type(unknown)(unknown.message, hint=hint) from unknown
        return [f"{self.prefix}{self.repository.repository}:{tag}" for tag in found if fnmatchcase(tag, self.pattern or "*")]

    def _repositories(self, client: RegistryClient) -> list[str]:
        return [f"{self.prefix}{name}" for name in repositories(client) if self._matches(name)]

    def _matches(self, name: str) -> bool:
        """Tell whether a repository is meant: by a pattern, with its collection or without; or by a part of its name."""
        path = self.path.lower()
        if not _GLOB.search(path):
            return path in name
        return fnmatchcase(name, path) or fnmatchcase(name.partition("/")[2], path)


def _registry(text: str, prefix: str, rest: str, client: str, environ: Mapping[str, str]) -> tuple[RegistrySettings, str, str]:
    """Return the registry that is meant, its host as the query names it with its slash ("" if it doesn't), and what follows."""
    host, slash, path = rest.partition("/")
    if slash and host and not re.search(r"[*?]", host):
        with contextlib.suppress(InvalidReference):
            settings, reference = locate(f"{prefix}{host}/{_ANY}", client, environ)
            if reference.repository == _ANY:
                return settings, f"{host}/", path
    try:
        return locate(f"{prefix}{_ANY}", client, environ)[0], "", rest
    except InvalidReference:
        raise InvalidReference(f"{text!r} names no registry", hint="write host/name") from None
