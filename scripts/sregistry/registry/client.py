"""The client of a registry: manifests and blobs over HTTP, with retries and clear errors.

```
RegistryClient ── get_manifest ─▶ /v2/<repository>/manifests/<tag | digest>   bytes, Content-Type
               ├─ get_schema1 ──▶ the same, asked for once, as schema 1       bytes, if there are any
               ├─ get_page ─────▶ /v2/<repository>/tags/list, /v2/_catalog    a page, and what leads to the next
               ├─ get_document ─▶ /v2/<repository>/blobs/<digest>             a small blob, verified
               └─ get_blob ─────▶ /v2/<repository>/blobs/<digest> ─▶ 307 ─▶ storage   a stream, or a part of it
```

OCI distribution-spec 1.1, "Pull" and "Content Discovery"; ranges: RFC 9110, 14. urllib3 retries requests without an answer or
with a status in `RETRIED`; a truncated body is retried, or resumed, by its reader. Requests and logins are a `Connection`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

import requests

from sregistry.config.settings import RegistrySettings
from sregistry.errors import DigestMismatch, DocumentError, RegistryError, TransferError
from sregistry.oci.address import host_of, same_origin
from sregistry.oci.documents import Descriptor, Digest, MediaType
from sregistry.oci.json_fields import MAX_DOCUMENT, load_json
from sregistry.oci.reference import Reference
from sregistry.oci.schema1 import payload
from sregistry.registry.bodies import Part, drain, entire, range_of, ranged, read, read_blob
from sregistry.registry.connection import Connection
from sregistry.registry.credentials import Keyring
from sregistry.registry.http import Patience
from sregistry.registry.rate_limit import Pace
from sregistry.registry.tokens import CATALOG, Login
from sregistry.store.store import Store
from sregistry.system import limits

#: Names that a page of a list should have: what all known registries grant, or cut down to less.
PAGE = 1000

T = TypeVar("T")


class ManifestBytes(NamedTuple):
    """A manifest's bytes as sent, and the Content-Type without parameters (a hint, no more)."""

    data: bytes
    media_type: str


class Page(NamedTuple):
    """A page of a list, where it was in the end, and its Link headers."""

    document: dict[str, Any]
    url: str
    links: list[str]


def connect(settings: RegistrySettings, environ: Mapping[str, str], store: Store, patience: Patience | None = None) -> RegistryClient:
    """Return a client with the user's credentials, which keeps to the pace that all processes with this store share."""
    pace = Pace(store, settings.base, settings.rate)
    return RegistryClient(settings, patience=patience, pace=pace, keyring=Keyring(settings, environ))


class RegistryClient:
    """Reads images from registries; a context manager that closes its connections. Threads may share it.

    Args:
        settings: base host, scheme, API version and credentials of the client.
        session: made by `new_session`, and closed by who made it; without one the client makes its own.
        patience: time-outs, and repetitions of bodies that broke off.
        pace: keeps the requests to the registry apart.
        keyring: the user's credentials; those of the process's environment without one.
    """

    def __init__(
        self,
        settings: RegistrySettings,
        session: requests.Session | None = None,
        patience: Patience | None = None,
        pace: Pace | None = None,
        keyring: Keyring | None = None,
    ) -> None:
        self.settings = settings
        self.patience = patience or Patience()
        self._connection = Connection(settings, session, self.patience, pace, keyring)

    def __enter__(self) -> RegistryClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of the client's own session."""
        self._connection.close()

    def manifest_url(self, reference: Reference, digest: Digest | None = None) -> str:
        """Return the address of a manifest."""
        return f"{self._repository_url(reference)}/manifests/{digest or reference.target}"

    def get_manifest(self, reference: Reference, digest: Digest | None = None) -> ManifestBytes:
        """Get a manifest or an index, as it is; of a signed schema 1 manifest, what its digest is of.

        Args:
            reference: what to ask for, and where.
            digest: of an index's entry; else the reference's digest or tag is asked for.

        Raises:
            DigestMismatch: asked by digest, and other bytes came.
            RegistryError: unknown image, unreachable, no registry.
            AuthenticationError: refused.
        """
        digest = digest or reference.digest
        what = f"{reference.repository}@{digest}" if digest else reference.uri
        url = self.manifest_url(reference, digest)

        def get() -> ManifestBytes:
            response = self._connection.get(reference, url, {"Accept": MediaType.ACCEPT}, what)
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            return ManifestBytes(read(response, reference.registry, what, MAX_DOCUMENT), media_type)

        document = self._repeat(get)
        if digest is None or not digest.matches(document.data):
            document = document._replace(data=payload(document.data))
        if digest and not digest.matches(document.data):
            raise DigestMismatch(f"{reference.registry} sends another manifest than {what}", hint="the registry or a proxy is broken")
        if document.data.lstrip()[:1] != b"{":
            kind = document.media_type or "something"
            raise RegistryError(
                f"{reference.registry} answers {kind} in place of the manifest of {what}", hint="check that this host is a registry"
            )
        return document

    def get_schema1(self, reference: Reference) -> bytes | None:
        """Ask for the schema 1 manifest that old registries make of a tag beside its own.

        Returns:
            What its digest is of, unread; None where none came, whatever the reason.
        """
        accept = {"Accept": f"{MediaType.SCHEMA1_SIGNED}, {MediaType.SCHEMA1}"}
        try:
            data = self._connection.get_if_easy(reference, self.manifest_url(reference), accept, MAX_DOCUMENT)
            return None if data is None else payload(data)
        except (RegistryError, DocumentError):
            return None

    def list_url(self, reference: Reference) -> str:
        """Return the address of the list of a repository's tags, or, for CATALOG, of the registry's repositories."""
        url = self._repository_url(reference)
        return url if reference.repository == CATALOG else f"{url}/tags/list"

    def get_page(self, reference: Reference, url: str | None = None) -> Page:
        """Get a page of the list of `list_url`.

        Args:
            reference: whose tags, or CATALOG for a repository.
            url: of the page; the first one without.

        Raises:
            RegistryError: as `get_manifest`; or *url* is not the registry's: what is sent there is meant for nobody else.
            AuthenticationError: refused.
            DocumentError: no JSON object.
        """
        first = self.list_url(reference)
        what = "a list of its repositories" if reference.repository == CATALOG else reference.repository
        if url is not None and not same_origin(url, first):
            raise RegistryError(f"{reference.registry} goes on with its list at {host_of(url) or 'no web address'}", hint="this is refused")
        accept = {"Accept": "application/json"}

        def get() -> Page:
            response = self._connection.get(reference, url or f"{first}?n={PAGE}", accept, what, also=() if url else (400,))
            if response.status_code == 400:  # docker-registry since 2.8.2, where its own limit is lower
                drain(response)
                response = self._connection.get(reference, first, accept, what)
            data = read(response, reference.registry, what, MAX_DOCUMENT)
            return Page(load_json(data, "list"), response.url, response.raw.headers.getlist("Link"))

        return self._repeat(get)

    def log_in(self, repository: str) -> Login | None:
        """Log in as a pull of *repository* would, or without one ("") as far as the registry's API.

        Returns:
            What the registry asked for, None for nothing.

        Raises:
            RegistryError, AuthenticationError: as `get_manifest`.
        """
        host = self.settings.base
        # distribution-spec, "Checking if the registry supports the API" and "Listing Tags": neither needs a tag
        url = f"{self._connection.root(host)}/" + (f"{repository}/tags/list?n=1" if repository else "")
        reference = Reference(registry=host, repository=repository, tag=None)
        drain(self._connection.get(reference, url, {}, repository or "its API"))
        return self.wanted

    @property
    def wanted(self) -> Login | None:
        """The login that the registry asked for last, whether it was accepted or not."""
        return self._connection.wanted

    def get_document(self, reference: Reference, blob: Descriptor) -> bytes:
        """Get a small blob such as an image config, verified. Raises as `get_manifest`, DocumentError."""
        if (blob.size or 0) > MAX_DOCUMENT:
            raise DocumentError(f"{blob.digest}: {blob.size} bytes, over the limit of {MAX_DOCUMENT} for a document")

        def get() -> bytes:
            response = self._connection.get(reference, self._blob_url(reference, blob), {}, f"{reference.repository}@{blob.digest}")
            return read_blob(response, blob, reference.registry, MAX_DOCUMENT)

        return self._repeat(get)

    def get_blob(self, reference: Reference, blob: Descriptor) -> Iterator[bytes]:
        """Yield a blob's bytes, exactly `blob.size` of them if that is known; the digest is the reader's to check. Raises as `get_part`."""
        return self.get_part(reference, blob).chunks

    def get_part(self, reference: Reference, blob: Descriptor, start: int = 0, end: int | None = None, *, decode: bool = False) -> Part:
        """Ask for a blob from byte *start* on, up to *end* if there is one; all of it, if it is to be decoded.

        Returns:
            What comes: that part, or less at its end, or the whole blob from a server that can't do parts, or that
            says of this one what can't be.

        Raises:
            TransferError: the body ended early; another try may help.
            DigestMismatch: the body is longer than its descriptor says, or the blob has another size now.
            RegistryError, AuthenticationError: as `get_manifest`.
        """
        url = self._blob_url(reference, blob)
        what = f"{reference.repository}@{blob.digest}"
        if not decode and (start or end is not None):
            part = ranged(
                self._connection.get(reference, url, range_of(start, end), what, also=(206, 416)), blob, reference.registry, start, end
            )
            if part is not None:
                return part
        return entire(self._connection.get(reference, url, {}, what), blob, reference.registry, decode=decode)

    def get_foreign(self, blob: Descriptor, start: int = 0, *, decode: bool = False) -> Part:
        """Ask the addresses of a foreign layer's descriptor for it, without credentials; the first few, if there are many.

        Raises: as `get_part`; the last address' error when all fail.
        """
        problem = RegistryError(f"{blob.digest}: the descriptor names no usable address")
        usable = list(dict.fromkeys(url for url in blob.urls if host_of(url)))
        for url in usable[: limits.FOREIGN_ADDRESSES]:
            host = host_of(url)
            try:
                if start and not decode:
                    response = self._connection.get_foreign(url, range_of(start, None))
                    part = ranged(response, blob, host, start, None) if response.status_code in (200, 206, 416) else None
                    if part is not None:
                        return part
                    response.close()
                response = self._connection.get_foreign(url, {})
                if response.status_code == 200:
                    return entire(response, blob, host, decode=decode)
                problem = self._connection.failure(response, host, str(blob.digest))
            except RegistryError as error:
                problem = error
        if len(usable) > limits.FOREIGN_ADDRESSES:
            problem.message += f" (the first {limits.FOREIGN_ADDRESSES} of {len(usable)} addresses were tried)"
        raise problem

    def _blob_url(self, reference: Reference, blob: Descriptor) -> str:
        return f"{self._repository_url(reference)}/blobs/{blob.digest}"

    def _repository_url(self, reference: Reference) -> str:
        return f"{self._connection.root(reference.registry)}/{reference.repository}"

    def _repeat(self, get: Callable[[], T]) -> T:
        """Call *get* until its body is whole, as often as patience allows."""
        attempts = self.patience.attempts()
        while True:
            try:
                return get()
            except TransferError as error:
                attempts.again(error)
