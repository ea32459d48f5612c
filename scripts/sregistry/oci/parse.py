"""A manifest or an index, read by what is in it: image-spec's, Docker's schema 2 and schema 1."""

from __future__ import annotations

from sregistry.errors import DocumentError
from sregistry.oci import artifacts
from sregistry.oci.documents import Index, Manifest, MediaType, NoImage, Sif, media_type_of
from sregistry.oci.json_fields import load_json, wrong
from sregistry.oci.schema1 import Schema1

#: Keys of a manifest or an index that decide what it means.
_MANIFEST_KEYS = frozenset(("schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests"))


def parse_manifest(data: bytes) -> Index | Manifest | Sif | Schema1:
    """Read a manifest or an index, told by content, not by Content-Type.

    Raises:
        DocumentError: no JSON object, both `layers` and `manifests` (image-spec's guard
            against type confusion), or neither.
    """
    document = load_json(data, "manifest")
    version = document.get("schemaVersion")
    if type(version) is not int or version not in (1, 2):
        wrong("schemaVersion", "1 or 2", version)
    if version == 1:
        return Schema1.parse(document)
    declared = document.get("mediaType") or None
    if isinstance(declared, str) and (row := artifacts.find(media_type_of(declared, "mediaType"))):
        raise NoImage(f"not a container image but {row.what} ({declared})", hint=row.hint)
    # Go, which reads keys in any case, would see another document.
    for key in document.keys() - _MANIFEST_KEYS:
        if any(key.lower() == known.lower() for known in _MANIFEST_KEYS):
            wrong("manifest", "keys spelled as the specification has them", key)
    has_layers, has_manifests = "layers" in document, "manifests" in document
    if has_layers == has_manifests:
        raise DocumentError("manifest: expected either layers or manifests, got " + ("both" if has_layers else "neither"))
    allowed = MediaType.MANIFESTS if has_layers else MediaType.INDEXES
    if declared is not None and media_type_of(declared, "mediaType") not in allowed:
        wrong("mediaType", " or ".join(allowed), declared)
    return Manifest.parse(document) if has_layers else Index.parse(document)
