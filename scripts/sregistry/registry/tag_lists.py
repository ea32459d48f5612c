"""What a registry lists: the tags of a repository, and its repositories where it tells them.

```
/v2/<repository>/tags/list?n=…  {"name": …, "tags": […]}      ┐  Link: <…>; rel="next" ─▶ the next page ─▶ …
/v2/_catalog?n=…                {"repositories": […]}         ┘  └ of the same host, not read before, not for ever
```

OCI distribution-spec 1.1, "Listing Tags"; docker/distribution's HTTP API, "Listing Repositories". Link: RFC 8288. What leads to
the next page is the registry's own business (Quay's and ECR's addresses can't be made up): only where a page is
full and nothing leads on, the specification's `last` is tried.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING
from urllib.parse import quote

from sregistry.errors import DocumentError, RegistryError, TransferError, UnavailableError
from sregistry.oci.address import Address, from_header
from sregistry.oci.json_fields import listed, wrong
from sregistry.oci.reference import Reference, is_repository, is_tag
from sregistry.oci.versions import version
from sregistry.registry.client import PAGE
from sregistry.registry.tokens import CATALOG
from sregistry.system import limits

if TYPE_CHECKING:
    from sregistry.registry.client import Page, RegistryClient

_TARGET = re.compile(r"[\s,]*<([^>]*)>")
_PARAMETER = re.compile(
    r"""\s*;\s*(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*)))?)?""",
    re.DOTALL,
)
#: A tag of what belongs to an image, and is none: a signature, an SBOM (distribution-spec, "Referrers Tag Schema"; cosign).
_BELONGS = re.compile(r"sha(256|512)-[0-9a-f]{64,128}(\..*)?")


def tags(client: RegistryClient, reference: Reference) -> list[str]:
    """Return the tags of a repository, the newest version last.

    What is no tag by the grammar, nobody can pull: it is left out, as are tags of signatures and the like.

    Raises:
        RegistryError: no such repository, unreachable, a list that does not end.
        AuthenticationError: refused.
        DocumentError: the list is malformed; the message names the key.
    """
    return sorted((tag for tag in _names(client, reference, "tags", is_tag) if not _BELONGS.fullmatch(tag)), key=version)


def repositories(client: RegistryClient) -> list[str]:
    """Return the repositories of a registry that lists them, in the order of `version`. Raises as `tags`; most registries refuse."""
    reference = Reference(registry=client.settings.base, repository=CATALOG, tag=None)
    try:
        return sorted(_names(client, reference, "repositories", is_repository), key=version)
    except (UnavailableError, TransferError):
        raise
    except RegistryError as error:
        hint = "many registries list them to nobody: name a repository, and its tags are listed"
        raise type(error)(error.message, hint=hint) from error


def next_of(headers: Iterable[str]) -> str | None:
    """Return the target of the first link of relation `next` in Link headers (RFC 8288, 3), None when there is none.

    Of a link's relations the first `rel` counts. What breaks the grammar ends its header; the links before it count.
    """
    for text in headers:
        position = 0
        while target := _TARGET.match(text, position):
            position, relations = target.end(), None
            while parameter := _PARAMETER.match(text, position):
                position = parameter.end()
                name, quoted, bare = parameter.groups()
                if relations is None and name and name.lower() == "rel":
                    relations = re.sub(r"\\(.)", r"\1", quoted or bare or "").lower().split()
            if relations and "next" in relations:
                return target[1]
    return None


def _names(client: RegistryClient, reference: Reference, key: str, valid: Callable[[str], bool]) -> set[str]:
    """Read a list to its end and return those of its names that are *valid*."""
    found: set[str] = set()
    asked: set[str] = set()
    following: str | None = None
    where = reference.registry if reference.repository == CATALOG else f"{reference.registry}/{reference.repository}"
    until = client.patience.clock() + limits.LIST_SECONDS
    idle = 0
    for _ in range(limits.LIST_PAGES):
        try:
            page = client.get_page(reference, following)
            names = _read(page, key)
        except DocumentError as error:
            raise DocumentError(f"{where}: {error.message}", hint="check that this host is a registry") from error
        before = len(found)
        found.update(filter(valid, names))
        idle = 0 if len(found) > before else idle + 1
        if len(found) > limits.LIST_NAMES or idle > limits.LIST_IDLE_PAGES or client.patience.clock() > until:
            break
        following = _following(client, reference, page, names if len(found) > before else [])
        if following is None:
            return found
        if following in asked:
            raise RegistryError(f"{where}: its list leads back to a page that was read", hint="the registry is broken")
        asked.add(following)
    raise RegistryError(f"{where}: its list does not end after {len(found)} names", hint="the registry is broken")


def _read(page: Page, key: str) -> list[str]:
    """Return the names on a page. Raises DocumentError that names the key."""
    if key in page.document and page.document[key] is None:
        return []  # how docker-registry says that there are none
    names = listed(page.document.get(key), key)
    for i, name in enumerate(names):
        if not isinstance(name, str):
            wrong(f"{key}[{i}]", "a string", name)
    return list(names)


def _following(client: RegistryClient, reference: Reference, page: Page, new: list[str]) -> str | None:
    """Return the address of the next page, None after the last.

    Args:
        new: the names of this page, none if all were there before.
    """
    target = next_of(page.links)
    if target is not None:
        try:
            return Address.parse(page.url).join(from_header(target)).url
        except ValueError:
            raise RegistryError(f"{reference.registry} goes on with its list at no web address", hint="this is refused") from None
    if len(new) >= PAGE:
        return f"{client.list_url(reference)}?n={PAGE}&last={quote(new[-1], safe='')}"
    return None
