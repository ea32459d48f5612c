"""The documents of OCI and Docker images, as frozen dataclasses with one `parse` each.

```
Index    ── manifests: Descriptor + Platform ──▶ Index | Manifest
Manifest ── config: Descriptor ──▶ ImageConfig
         └─ layers: Descriptor … ──▶ blobs (tar streams)
```

Sources: OCI image-spec 1.1 (descriptor.md, image-index.md, manifest.md, config.md) and Docker's
"Image Manifest Version 2, Schema 2". A parse error names the key:
``layers[3].size: expected an integer, got 'x'``.
"""

from __future__ import annotations

import hashlib
import json
import platform as _platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from sregistry.errors import ConfigError, DocumentError

#: Largest manifest, index or config that is read, in bytes (distribution-spec: at least 4 MiB).
MAX_DOCUMENT = 4 << 20

_DIGEST_LENGTHS = {"sha256": 64, "sha512": 128}
_DIGEST = re.compile(r"(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """``sha256:`` + 64 or ``sha512:`` + 128 lower-case hexadecimal digits (image-spec, descriptor.md)."""

    text: str

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.text):
            raise DocumentError(f"{self.text!r} is no digest (sha256: and 64 hexadecimal digits, lower case)")

    def __str__(self) -> str:
        return self.text

    @property
    def algorithm(self) -> str:
        return self.text.partition(":")[0]

    @property
    def hex(self) -> str:
        return self.text.partition(":")[2]

    def hasher(self) -> hashlib._Hash:
        """Return a new hash object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    def matches(self, data: bytes) -> bool:
        """Tell whether *data* has this digest."""
        return hashlib.new(self.algorithm, data).hexdigest() == self.hex

    @classmethod
    def of(cls, data: bytes) -> Digest:
        """Return the sha256 digest of *data*."""
        return cls("sha256:" + hashlib.sha256(data).hexdigest())


class MediaType:
    """Media types by role (image-spec, media-types.md; Docker's schema 2)."""

    OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
    OCI_INDEX = "application/vnd.oci.image.index.v1+json"
    OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
    OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
    DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
    DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
    DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
    DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"

    MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
    INDEXES = (OCI_INDEX, DOCKER_LIST)
    CONFIGS = (OCI_CONFIG, DOCKER_CONFIG)

    #: One header for every manifest request: some registries answer an index only when it is asked for.
    ACCEPT = ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST))


#: What a layer's type must contain to be a tar stream; the compression itself is told by content.
_LAYER_TYPE = re.compile(
    r"application/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.tar|docker\.image\.rootfs\.(foreign\.)?diff\.tar)([.+](gzip|zstd))?"
)

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "i386": "386",
    "i686": "386",
    "aarch64": "arm64",
    "armhf": "arm",
    "armel": "arm",
    "armv7l": "arm",
    "armv6l": "arm",
    "loongarch64": "loong64",
}
_VARIANTS = {"armhf": "v7", "armel": "v6", "armv7l": "v7", "armv6l": "v6"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Platform:
    """Operating system, architecture and variant, in Go's names (image-spec, image-index.md)."""

    os: str = "linux"
    architecture: str
    variant: str | None = None

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @classmethod
    def parse(cls, text: str) -> Platform:
        """Read ``architecture``, ``os/architecture`` or ``os/architecture/variant``.

        Machine names (``x86_64``, ``aarch64``, ``armhf``) become Go's, by containerd's rules.

        Raises:
            ConfigError: the text has another shape.
        """
        parts = text.strip().split("/")
        if len(parts) == 1:
            parts = ["linux", *parts]
        if not all(re.fullmatch(r"[A-Za-z0-9_.-]+", part) for part in parts) or len(parts) > 3:
            raise ConfigError(f"platform {text!r}: expected os/architecture[/variant]", hint="such as linux/amd64 or linux/arm64")
        given = parts[1].lower()
        variant = parts[2].lower() if len(parts) == 3 else _VARIANTS.get(given)
        if variant and variant.isdigit():
            variant = "v" + variant
        architecture = _ARCHITECTURES.get(given, given)
        if (architecture, variant) == ("arm64", "v8"):
            variant = None
        return cls(os=parts[0].lower(), architecture=architecture, variant=variant)

    @classmethod
    def host(cls) -> Platform:
        """Return the platform of this machine."""
        return cls.parse(_platform.machine() or "amd64")

    def rank(self, offered: Platform) -> int | None:
        """Say how well *offered* serves this request: lower is better, None is not at all.

        An equal variant is best; amd64 and arm64 then accept any; 32-bit arm accepts the highest
        variant that is not above the requested one (spec: containerd's platform order).
        """
        if (self.os, self.architecture) != (offered.os, offered.architecture):
            return None
        if self.variant == offered.variant:
            return 0
        if self.architecture != "arm":
            return 1
        wanted, given = _arm(self.variant or "v7"), _arm(offered.variant or "v7")
        return None if given > wanted else 1 + wanted - given


#: What an index entry without a platform counts as, by go-containerregistry's rule.
UNNAMED = Platform(architecture="amd64")


def _arm(variant: str) -> int:
    digits = re.sub(r"\D", "", variant)
    return int(digits) if digits else 7


@dataclass(frozen=True, kw_only=True, slots=True)
class Descriptor:
    """A typed, sized, digested pointer (image-spec, descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    urls: tuple[str, ...] = ()
    platform: Platform | None = None
    artifact_type: str | None = None

    @classmethod
    def parse(cls, value: object, key: str = "descriptor") -> Descriptor:
        """Read a descriptor object. Raises DocumentError that names the key."""
        item = _object(value, key)
        digest = _string(item, "digest", key)
        if not _DIGEST.fullmatch(digest):
            _fail(f"{key}.digest", "a sha256 or sha512 digest", digest)
        size = item.get("size")
        if type(size) is not int or size < 0:
            _fail(f"{key}.size", "a size in bytes", size)
        urls = _array(item.get("urls") or [], f"{key}.urls")
        platform = item.get("platform")
        return cls(
            media_type=_media_type(_string(item, "mediaType", key)),
            digest=Digest(digest),
            size=size,
            urls=tuple(str(url) for url in urls),
            platform=None if platform is None else _platform_of(platform, f"{key}.platform"),
            artifact_type=_optional(item, "artifactType", key),
        )

    def json(self) -> dict[str, Any]:
        """Return the descriptor as its JSON object (without platform and urls)."""
        return {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """An OCI image index or a Docker manifest list."""

    media_type: str
    manifests: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Index:
        items = _array(document.get("manifests"), "manifests")
        return cls(
            media_type=_media_type(document.get("mediaType") or MediaType.OCI_INDEX),
            manifests=tuple(Descriptor.parse(item, f"manifests[{i}]") for i, item in enumerate(items)),
        )

    def choose(self, wanted: Platform) -> list[Descriptor]:
        """Return the entries that may serve *wanted*, best first, else in list order.

        An entry without a platform counts as UNNAMED; nested
        indexes without a platform come last, to be looked into. Attestations carry unknown/unknown
        and so never match.
        """
        ranked: list[tuple[int, int, Descriptor]] = []
        for position, entry in enumerate(self.manifests):
            if entry.media_type in MediaType.INDEXES and entry.platform is None:
                ranked.append((1000, position, entry))
                continue
            rank = wanted.rank(entry.platform or UNNAMED)
            if rank is not None and entry.media_type in (*MediaType.MANIFESTS, *MediaType.INDEXES):
                ranked.append((rank, position, entry))
        return [entry for _, _, entry in sorted(ranked, key=lambda item: item[:2])]

    def platforms(self) -> list[str]:
        """Return the platforms that the index offers, for messages."""
        found = {str(entry.platform) for entry in self.manifests if entry.platform and entry.platform.os != "unknown"}
        return sorted(found)


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """An OCI or Docker schema 2 image manifest."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Manifest:
        """Read a manifest.

        Raises:
            DocumentError: malformed, or an artifact that is no image (Helm chart, signature, SBOM …).
        """
        config = Descriptor.parse(document.get("config"), "config")
        layers = _array(document.get("layers"), "layers")
        artifact = _optional(document, "artifactType", "") or ""
        # manifest.md: artifactType says that the manifest is no image, whatever its config's type
        if config.media_type not in MediaType.CONFIGS or (artifact and artifact not in MediaType.CONFIGS):
            raise DocumentError(f"not a container image but an artifact of type {artifact or config.media_type}", hint="name an image")
        parsed = tuple(Descriptor.parse(item, f"layers[{i}]") for i, item in enumerate(layers))
        for i, layer in enumerate(parsed):
            if not _LAYER_TYPE.fullmatch(layer.media_type):
                raise DocumentError(f"layers[{i}]: type {layer.media_type} is no layer of a container image")
        return cls(
            media_type=_media_type(document.get("mediaType") or MediaType.OCI_MANIFEST),
            config=config,
            layers=parsed,
        )


def parse_manifest(data: bytes) -> Index | Manifest:
    """Read a manifest or an index, told by content, not by Content-Type.

    Raises:
        DocumentError: no JSON object, schema 1, both `layers` and `manifests` (image-spec's guard
            against type confusion), or neither.
    """
    document = load_json(data, "manifest")
    version = document.get("schemaVersion")
    if version == 1:
        raise DocumentError("the registry offers only a schema 1 manifest, which is not supported yet", hint="ask for a newer tag")
    if type(version) is not int or version != 2:
        _fail("schemaVersion", "2", version)
    declared = document.get("mediaType")
    has_layers, has_manifests = "layers" in document, "manifests" in document
    if has_layers == has_manifests:
        raise DocumentError("manifest: expected either layers or manifests, got " + ("both" if has_layers else "neither"))
    allowed = MediaType.MANIFESTS if has_layers else MediaType.INDEXES
    if declared is not None and _media_type(declared) not in allowed:
        _fail("mediaType", " or ".join(allowed), declared)
    return Manifest.parse(document) if has_layers else Index.parse(document)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageConfig:
    """What of an image config matters here (image-spec, config.md).

    `env` keeps its order, entries as published. `entrypoint` and `cmd` are None when absent or
    empty. `config` is the config's own `config` object, unchanged.
    """

    platform: Platform | None
    created: str | None
    diff_ids: tuple[Digest, ...]
    env: tuple[str, ...]
    entrypoint: tuple[str, ...] | None
    cmd: tuple[str, ...] | None
    labels: Mapping[str, str]
    config: Mapping[str, Any]

    @classmethod
    def parse(cls, data: bytes) -> ImageConfig:
        """Read an image config. Raises DocumentError that names the key."""
        document = load_json(data, "config")
        rootfs = _object(document.get("rootfs"), "rootfs")
        if rootfs.get("type") not in (None, "layers"):
            _fail("rootfs.type", "'layers'", rootfs.get("type"))
        diff_ids = _array(rootfs.get("diff_ids") or [], "rootfs.diff_ids")
        for i, item in enumerate(diff_ids):
            if not isinstance(item, str) or not _DIGEST.fullmatch(item):
                _fail(f"rootfs.diff_ids[{i}]", "a digest", item)
        inner = _object(document.get("config") or {}, "config")
        labels = _object(inner.get("Labels") or {}, "config.Labels")
        architecture = _optional(document, "architecture", "")
        platform = None
        if architecture:
            platform = _platform_of(
                {"os": document.get("os") or "linux", "architecture": architecture, "variant": document.get("variant")}, "config"
            )
        return cls(
            platform=platform,
            created=_optional(document, "created", ""),
            diff_ids=tuple(Digest(item) for item in diff_ids),
            env=_words(inner, "Env") or (),
            entrypoint=_words(inner, "Entrypoint"),
            cmd=_words(inner, "Cmd"),
            labels={name: value if isinstance(value, str) else json.dumps(value) for name, value in labels.items()},
            config=inner,
        )


def load_json(data: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object. Raises DocumentError."""
    if len(data) > MAX_DOCUMENT:
        raise DocumentError(f"{what}: {len(data)} bytes, over the limit of {MAX_DOCUMENT}")
    try:
        document = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{what}: no JSON: {error}") from None
    return _object(document, what)


def _words(item: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    value = item.get(key)
    if isinstance(value, str):  # old configs carry a plain string in place of a list
        value = [value]
    words = _array(value or [], f"config.{key}")
    for i, word in enumerate(words):
        if not isinstance(word, str):
            _fail(f"config.{key}[{i}]", "a string", word)
        if "\0" in word:
            _fail(f"config.{key}[{i}]", "a string without NUL", word)
    return tuple(words) or None


def _platform_of(value: object, key: str) -> Platform:
    item = _object(value, key)
    return Platform(
        os=_string(item, "os", key),
        architecture=_string(item, "architecture", key),
        variant=_optional(item, "variant", key) or None,
    )


def _media_type(value: object) -> str:
    """Return a media type in lower case, without parameters (RFC 9110, 8.3.1)."""
    if not isinstance(value, str):
        _fail("mediaType", "a string", value)
    return value.partition(";")[0].strip().lower()


def _object(value: object, key: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _fail(key, "an object", value)
    return value


def _array(value: object, key: str) -> Sequence[Any]:
    if not isinstance(value, list):
        _fail(key, "a list", value)
    return value


def _string(item: Mapping[str, Any], name: str, key: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        _fail(f"{key}.{name}", "a string", value)
    return value


def _optional(item: Mapping[str, Any], name: str, key: str) -> str | None:
    value = item.get(name)
    if value is not None and not isinstance(value, str):
        _fail(f"{key}.{name}".lstrip("."), "a string", value)
    return value


def _fail(key: str, expected: str, got: object) -> NoReturn:
    raise DocumentError(f"{key}: expected {expected}, got {str(got)[:80]!r}" if got is not None else f"{key}: missing, expected {expected}")
