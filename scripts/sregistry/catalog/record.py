"""What is known of one image.

```
manifest.json + receipt of the image ─▶ record ─▶ Record ─▶ the catalog (catalog/catalog.py)
```
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from sregistry.errors import CatalogError, DocumentError
from sregistry.oci.documents import Digest
from sregistry.oci.json_fields import load_json
from sregistry.oci.reference import Reference

if TYPE_CHECKING:
    from sregistry.results.receipts import Image
    from sregistry.results.resolved import Resolved

#: How a record writes a time, which is UTC.
TIME = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What is known of one image.

    `digest` is the manifest's, `version` the sha256 of the built file (empty for a sandbox), `image`
    its path; `size` is the file's, `compressed_size` that of the layers, both in bytes (0 where a
    manifest of schema 1 does not say it); `created_at` is UTC. `facts` are what the config says (catalog/image_facts.py), `made` is what
    a rebuild needs (catalog/rebuild.py).

    `metrics` are all manifests fetched, by schema version. A record of the catalog has none: it names them, in
    `manifests`, and `Catalog.metrics` reads them.
    """

    client: str
    collection: str
    name: str
    tag: str | None
    uri: str
    url: str
    registry: str
    digest: str
    version: str
    image: str | None
    size: int
    compressed_size: int
    created_at: str
    format: str
    platform: str
    id: int = 0
    collection_id: int = 0
    metrics: dict[str, Any] = field(default_factory=dict, repr=False)
    manifests: str = field(default="", repr=False)
    facts: dict[str, Any] = field(default_factory=dict, repr=False)
    made: dict[str, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Record:
        """Read a record; a key that it lacks is empty. Raises CatalogError: no record at all."""
        if not isinstance(document.get("uri"), str):
            raise CatalogError("the catalog holds a record without uri")
        return cls(**{name: document.get(name, empty) for name, empty in _EMPTY.items()})

    @classmethod
    def of_file(
        cls,
        file: Path,
        *,
        client: str,
        reference: Reference,
        version: str,
        size: int,
        created: datetime,
        format: str,
        platform: str,
        facts: Mapping[str, Any] | None = None,
    ) -> Record:
        """Return the record of an image file that no pull made."""
        return cls(
            client=client,
            collection=reference.collection,
            name=reference.name,
            tag=reference.tag,
            uri=reference.uri,
            url="",
            registry=reference.registry,
            digest=str(reference.digest or ""),
            version=version,
            image=str(file),
            size=size,
            compressed_size=0,
            created_at=created.astimezone(UTC).strftime(TIME),
            format=format,
            platform=platform,
            facts=dict(facts or {}),
        )

    def json(self) -> dict[str, Any]:
        """Return the record as JSON has it."""
        return asdict(self)

    @property
    def label(self) -> str:
        """The uri, with the version of a local image."""
        return f"{self.uri}@{self.version}" if self.version else self.uri

    @property
    def repository(self) -> str:
        """What the registry calls the image: it may have another name here by now."""
        path = urlsplit(self.url).path.strip("/").partition("/")[2]
        return path.rpartition("/manifests/")[0] or f"{self.collection}/{self.name}".rstrip("/")

    @property
    def origin(self) -> tuple[str | None, str]:
        """The tag, else None and the digest, by which the registry was asked."""
        asked = urlsplit(self.url).path.rpartition("/manifests/")[2] or self.uri.partition("@")[2] or self.tag or ""
        return (None, asked) if ":" in asked else (asked or None, "")

    @property
    def reference(self) -> Reference:
        """What it is called here, in its registry."""
        repository = f"{self.collection}/{self.name}".rstrip("/")
        digest = None
        with contextlib.suppress(DocumentError):
            digest = Digest(self.uri.partition("@")[2])
        return Reference(registry=self.registry, repository=repository, tag=self.tag, digest=digest)

    @property
    def is_renamed(self) -> bool:
        """Whether its name was given here: its registry has it under another one, or is not known."""
        tag, digest = self.origin
        asked = f"{self.repository}@{digest}" if digest else f"{self.repository}:{tag}"
        return not self.registry or asked != self.uri

    @property
    def location(self) -> str:
        """Path of a local image, else the address of the manifest."""
        return self.image or self.url

    @property
    def created(self) -> datetime:
        """When the image was recorded."""
        try:
            return datetime.strptime(self.created_at, TIME).replace(tzinfo=UTC)
        except ValueError:
            return datetime.fromtimestamp(0, UTC)


_NOTHING: dict[str, Any] = {"str": "", "int": 0, "dict[str, Any]": {}}
#: What a record has in a field that is not told.
_EMPTY = {field.name: _NOTHING.get(str(field.type)) for field in fields(Record)}


def record(
    resolved: Resolved,
    image: Image | None,
    *,
    now: datetime,
    facts: Mapping[str, Any] | None = None,
    made: Mapping[str, Any] | None = None,
) -> Record:
    """Return the record of an image.

    Args:
        resolved: where it came from.
        image: receipt of the image stage; None for an image that is in the registry only.
        now: time of the record.
        facts: what the image's config says.
        made: what a rebuild needs.
    """
    sizes = [layer.blob.size for layer in resolved.layers]
    return Record(
        client=resolved.client,
        collection=resolved.reference.collection,
        name=resolved.reference.name,
        tag=resolved.tag,
        uri=resolved.uri,
        url=resolved.url,
        registry=resolved.registry,
        digest=str(resolved.digest),
        version=image.version if image else "",
        image=image.path if image else None,
        size=image.size if image else 0,
        compressed_size=0 if None in sizes else sum(size or 0 for size in sizes),
        created_at=now.astimezone(UTC).strftime(TIME),
        format=image.format if image else "",
        platform=str(resolved.platform),
        metrics=_metrics(resolved),
        facts=dict(facts or {}),
        made=dict(made or {}),
    )


def _metrics(resolved: Resolved) -> dict[str, Any]:
    """All manifests fetched, a manifest as its schema version, "1" or "2", an index as "index", then "index1" …"""
    folder = resolved.url.rpartition("/")[0]
    metrics: dict[str, Any] = {"selfLink": folder}
    depth = 0
    for document in resolved.documents:
        value = load_json(document.text.encode(), "manifest")
        version = str(value["schemaVersion"])
        key = version if version == "1" or document is resolved.documents[-1] else f"index{depth or ''}"
        metrics[key] = {**value, "selfLink": f"{folder}/{document.descriptor.digest}" if depth else resolved.url}
        depth += version != "1"
    return metrics
