"""Docker's first kind of manifest, "Image Manifest Version 2, Schema 1".

```
{"fsLayers": [{"blobSum": …}, …], "history": [{"v1Compatibility": "{…}"}, …],     newest first, of equal length
 "signatures": [{"protected": base64url({"formatLength": n, "formatTail": …})}]}

payload = the first n bytes | formatTail        what the digest is of
```

It gives neither sizes nor diff_ids, and the config is what the newest entry of the history says.
Sections named "§" are those of the project's specification, oci-to-sif.md.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sregistry.oci.documents import Descriptor, Digest, MediaType
from sregistry.oci.json_fields import limited, listed, load_json, table, text, wrong
from sregistry.system import limits

#: A layer of nothing, as Docker packed it for years: named many times in old images.
EMPTY = Digest("sha256:a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4")

#: What an entry says of the layer alone, not of the image (§14).
_LAYER_KEYS = {"id", "parent", "parent_id", "layer_id", "throwaway", "Size"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Schema1:
    """A schema 1 manifest: layers from the lowest, without those that hold nothing; `config` is made of its history."""

    media_type: str
    layers: tuple[Descriptor, ...]
    config: bytes

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Schema1:
        """Read a manifest. Raises DocumentError that names the key."""
        layers, history = listed(document.get("fsLayers"), "fsLayers"), listed(document.get("history"), "history")
        if not layers or len(layers) != len(history):
            wrong("history", f"an entry a layer ({len(layers)}), and one at least", f"{len(history)}")
        limited("fsLayers", len(layers), "IMAGE_LAYERS", limits.IMAGE_LAYERS)
        steps = [(_blob(layer, i), _compatibility(entry, i)) for i, (layer, entry) in enumerate(zip(layers, history, strict=True))]
        # Of consecutive entries of one id all but the oldest are the same once more (§14).
        older = [entry.get("id") for _, entry in steps[1:]] + [None]
        steps = [step for step, other in zip(steps, older, strict=True) if other is None or step[1].get("id") != other]
        newest = steps[0][1]
        config = {
            "architecture": document.get("architecture"),
            **{key: value for key, value in newest.items() if key not in _LAYER_KEYS},
            "rootfs": {"type": "layers", "diff_ids": []},
        }
        return cls(
            media_type=MediaType.SCHEMA1,
            layers=tuple(
                Descriptor(media_type=MediaType.DOCKER_LAYER, digest=digest, size=None)
                for digest, entry in reversed(steps)
                if digest != EMPTY and entry.get("throwaway") is not True
            ),
            config=json.dumps(config).encode(),
        )


def payload(data: bytes) -> bytes:
    """Return what the digest of the manifest *data* is of: of a signed schema 1, what was signed; else all of it.

    Only this may be read: what stands around it, nobody vouches for. The signatures are those of throw-away keys
    and say nothing.

    Raises:
        DocumentError: a signed manifest whose payload can't be told.
    """
    if b'"signatures"' not in data:
        return data
    document = load_json(data, "manifest")
    if document.get("schemaVersion") != 1 or "signatures" not in document:
        return data
    found = {_signed(data, item, f"signatures[{i}]") for i, item in enumerate(listed(document["signatures"], "signatures"))}
    if len(found) != 1:
        wrong("signatures", "signatures of one payload", f"{len(found)} payloads")
    return found.pop()


def _signed(data: bytes, signature: object, key: str) -> bytes:
    protected = load_json(_decode(table(signature, key), "protected", key), f"{key}.protected")
    length = protected.get("formatLength")
    if type(length) is not int or not 0 < length <= len(data):
        wrong(f"{key}.protected.formatLength", f"a number of bytes up to {len(data)}", length)
    return data[:length] + _decode(protected, "formatTail", f"{key}.protected")


def _decode(item: Mapping[str, Any], name: str, key: str) -> bytes:
    """Return a base64url field, which has no padding (RFC 7515, section 2)."""
    value = text(item, name, key)
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), altchars=b"-_", validate=True)
    except ValueError:
        wrong(f"{key}.{name}", "base64url", value)


def _blob(layer: object, i: int) -> Digest:
    key = f"fsLayers[{i}]"
    return Digest.parse(text(table(layer, key), "blobSum", key), f"{key}.blobSum")


def _compatibility(entry: object, i: int) -> dict[str, Any]:
    key = f"history[{i}]"
    return load_json(text(table(entry, key), "v1Compatibility", key).encode(errors="replace"), f"{key}.v1Compatibility")
