"""The documents of OCI and Docker images, as frozen dataclasses with one `parse` each.

```
Index    ── manifests: Descriptor + Platform ──▶ Index | Manifest | Sif
Manifest ── config: Descriptor ──▶ ImageConfig
         └─ layers: Descriptor … ──▶ blobs (tar streams)
Sif      ── layer: Descriptor ──▶ a blob that is a whole SIF
```

Sources: OCI image-spec 1.1 (descriptor.md, image-index.md, manifest.md, config.md) and Docker's
"Image Manifest Version 2, Schema 2"; for schema 1 see schema1.py. A parse error names the key:
``layers[3].size: expected an integer, got 'x'``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform as _platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sregistry import refusal
from sregistry.document import listed, load_json, optional_text, table, text, wrong
from sregistry.errors import ConfigError, DocumentError

if TYPE_CHECKING:
    from sregistry.schema1 import Schema1

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
    def parse(cls, value: str, key: str) -> Digest:
        """Read a digest. Raises DocumentError that names the key."""
        if not _DIGEST.fullmatch(value):
            wrong(key, "a sha256 or sha512 digest", value)
        return cls(value)

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
    SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
    SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"
    SIF_CONFIG = "application/vnd.sylabs.sif.config.v1+json"
    SIF_LAYER = "application/vnd.sylabs.sif.layer.v1.sif"

    MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
    INDEXES = (OCI_INDEX, DOCKER_LIST)
    CONFIGS = (OCI_CONFIG, DOCKER_CONFIG)

    #: One header for every manifest request: some registries answer an index only when it is asked for.
    #: Schema 1 comes last: it is for who has nothing else.
    ACCEPT = ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST, SCHEMA1_SIGNED, SCHEMA1))


#: What a layer's type must contain to be a tar stream; the compression itself is told by content.
_LAYER_TYPE = re.compile(
    r"application/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.tar|docker\.image\.rootfs\.(foreign\.)?diff\.tar)([.+](gzip|zstd))?"
)

#: The types of a layer that is a SIF: Singularity before 3.7 misspelt its own, others leave out or swap a part.
_SIF_TYPE = re.compile(r"appli(c|ci)ation/vnd\.sylabs\.sif\.layer(\.v1)?[.+](sif|tar)")

#: In `os.features` of an entry that only nydus can read (oci-to-sif.md §16).
_NYDUS = "nydus.remoteimage.v1"
#: In a layer's annotations: its tar stream has entries that are no files of the image.
_STARGZ = "containerd.io/snapshot/stargz/toc.digest"

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
    """A typed, sized, digested pointer (image-spec, descriptor.md).

    `size` is None where none is published (schema 1). `data` is the content itself, checked, where the
    descriptor brings it along. `features` are those that the platform must have.
    """

    media_type: str
    digest: Digest
    size: int | None
    urls: tuple[str, ...] = ()
    platform: Platform | None = None
    features: tuple[str, ...] = ()
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, compare=False)
    data: bytes | None = field(default=None, repr=False, compare=False)

    @classmethod
    def parse(cls, value: object, key: str = "descriptor", *, sized: bool = True) -> Descriptor:
        """Read a descriptor object. Raises DocumentError that names the key.

        Args:
            value: the object.
            key: where it stands, for messages.
            sized: a size must be there, as the specification has it; manifest.json may say that none is known.
        """
        item = table(value, key)
        digest = Digest.parse(text(item, "digest", key), f"{key}.digest")
        size = item.get("size")
        if not (type(size) is int and size >= 0) and (sized or size is not None):
            wrong(f"{key}.size", "a size in bytes", size)
        urls = listed(item.get("urls") or [], f"{key}.urls")
        platform = item.get("platform")
        annotations = table(item.get("annotations") or {}, f"{key}.annotations")
        return cls(
            media_type=_media_type(text(item, "mediaType", key)),
            digest=digest,
            size=size,
            urls=tuple(str(url) for url in urls),
            platform=None if platform is None else _platform_of(platform, f"{key}.platform"),
            features=() if platform is None else tuple(map(str, listed(platform.get("os.features") or [], f"{key}.platform.os.features"))),
            artifact_type=optional_text(item, "artifactType", key),
            annotations={name: value for name, value in annotations.items() if isinstance(value, str)},
            data=_embedded(item, digest, size, key),
        )

    @property
    def estargz(self) -> bool:
        """Whether the layer says that it is laid out for lazy loading (oci-to-sif.md §16)."""
        return _STARGZ in self.annotations

    @property
    def is_sif(self) -> bool:
        """Whether the layer says that it is a SIF."""
        return _SIF_TYPE.fullmatch(self.media_type) is not None

    def json(self) -> dict[str, Any]:
        """Return the descriptor as its JSON object (type, digest and size)."""
        return {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """An OCI image index or a Docker manifest list."""

    media_type: str
    manifests: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Index:
        items = listed(document.get("manifests"), "manifests")
        return cls(
            media_type=_media_type(document.get("mediaType") or MediaType.OCI_INDEX),
            manifests=tuple(Descriptor.parse(item, f"manifests[{i}]") for i, item in enumerate(items)),
        )

    def choose(self, wanted: Platform) -> list[Descriptor]:
        """Return the entries that may serve *wanted*, best first, else in list order.

        An entry without a platform counts as UNNAMED; nested
        indexes without a platform come last, to be looked into. Attestations carry unknown/unknown
        and so never match; what only nydus can read is passed over.
        """
        ranked: list[tuple[int, int, Descriptor]] = []
        for position, entry in enumerate(self.manifests):
            if _NYDUS in entry.features:
                continue
            if entry.media_type in MediaType.INDEXES and entry.platform is None:
                ranked.append((1000, position, entry))
                continue
            rank = wanted.rank(entry.platform or UNNAMED)
            if rank is not None and entry.media_type in (*MediaType.MANIFESTS, *MediaType.INDEXES):
                ranked.append((rank, position, entry))
        return [entry for _, _, entry in sorted(ranked, key=lambda item: item[:2])]

    def platforms(self) -> list[str]:
        """Return the platforms that the index offers, for messages."""
        named = [entry for entry in self.manifests if entry.platform and entry.platform.os != "unknown"]
        return sorted({f"{entry.platform}{' for nydus alone' * (_NYDUS in entry.features)}" for entry in named})


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """An OCI or Docker schema 2 image manifest."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Manifest | Sif:
        """Read a manifest.

        Raises:
            DocumentError: malformed, or an artifact that is no image (Helm chart, signature, SBOM …).
        """
        config = Descriptor.parse(document.get("config"), "config")
        layers = tuple(Descriptor.parse(item, f"layers[{i}]") for i, item in enumerate(listed(document.get("layers"), "layers")))
        artifact = optional_text(document, "artifactType", "") or ""
        media_type = _media_type(document.get("mediaType") or MediaType.OCI_MANIFEST)
        if len(layers) == 1 and layers[0].is_sif:
            return Sif(media_type=media_type, config=config, layer=layers[0])
        _refuse(artifact, config, layers)
        return cls(media_type=media_type, config=config, layers=layers)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sif:
    """A manifest whose one layer is a SIF, as `apptainer push` to oras:// makes it. The config says nothing."""

    media_type: str
    config: Descriptor
    layer: Descriptor


def _refuse(artifact: str, config: Descriptor, layers: tuple[Descriptor, ...]) -> None:
    """Refuse what is no image made of layers, by its name where it is known. Raises DocumentError."""
    # manifest.md: artifactType says that the manifest is no image, whatever its config's type
    for kind in (artifact, config.media_type):
        if row := refusal.find(kind.lower()):
            raise DocumentError(f"not a container image but {row.what} ({kind})", hint=row.hint)
    for i, layer in enumerate(layers):
        for kind in (layer.media_type, *layer.annotations):
            if row := refusal.find(kind):
                raise DocumentError(f"layers[{i}] is {row.what} ({kind})", hint=row.hint)
    if config.media_type not in MediaType.CONFIGS or (artifact and artifact not in MediaType.CONFIGS):
        raise DocumentError(f"not a container image but an artifact of type {artifact or config.media_type}", hint="name an image")
    for i, layer in enumerate(layers):
        if not _LAYER_TYPE.fullmatch(layer.media_type):
            raise DocumentError(f"layers[{i}]: type {layer.media_type} is no layer of a container image")


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
        from sregistry.schema1 import Schema1  # stands on this module

        return Schema1.parse(document)
    declared = document.get("mediaType")
    if isinstance(declared, str) and (row := refusal.find(_media_type(declared))):
        raise DocumentError(f"not a container image but {row.what} ({declared})", hint=row.hint)
    has_layers, has_manifests = "layers" in document, "manifests" in document
    if has_layers == has_manifests:
        raise DocumentError("manifest: expected either layers or manifests, got " + ("both" if has_layers else "neither"))
    allowed = MediaType.MANIFESTS if has_layers else MediaType.INDEXES
    if declared is not None and _media_type(declared) not in allowed:
        wrong("mediaType", " or ".join(allowed), declared)
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
        rootfs = table(document.get("rootfs"), "rootfs")
        if rootfs.get("type") not in (None, "layers"):
            wrong("rootfs.type", "'layers'", rootfs.get("type"))
        diff_ids = listed(rootfs.get("diff_ids") or [], "rootfs.diff_ids")
        for i, item in enumerate(diff_ids):
            if not isinstance(item, str) or not _DIGEST.fullmatch(item):
                wrong(f"rootfs.diff_ids[{i}]", "a digest", item)
        inner = table(document.get("config") or {}, "config")
        labels = table(inner.get("Labels") or {}, "config.Labels")
        architecture = optional_text(document, "architecture", "")
        platform = None
        if architecture:
            platform = _platform_of(
                {"os": document.get("os") or "linux", "architecture": architecture, "variant": document.get("variant")}, "config"
            )
        return cls(
            platform=platform,
            created=optional_text(document, "created", ""),
            diff_ids=tuple(Digest(item) for item in diff_ids),
            env=_words(inner, "Env") or (),
            entrypoint=_words(inner, "Entrypoint"),
            cmd=_words(inner, "Cmd"),
            labels={name: value if isinstance(value, str) else json.dumps(value) for name, value in labels.items()},
            config=inner,
        )


def _words(item: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    value = item.get(key)
    if isinstance(value, str):  # old configs carry a plain string in place of a list
        value = [value]
    words = listed(value or [], f"config.{key}")
    for i, word in enumerate(words):
        if not isinstance(word, str):
            wrong(f"config.{key}[{i}]", "a string", word)
        if "\0" in word:
            wrong(f"config.{key}[{i}]", "a string without NUL", word)
    return tuple(words) or None


def _platform_of(value: object, key: str) -> Platform:
    item = table(value, key)
    return Platform(
        os=text(item, "os", key),
        architecture=text(item, "architecture", key),
        variant=optional_text(item, "variant", key) or None,
    )


def _media_type(value: object) -> str:
    """Return a media type in lower case, without parameters (RFC 9110, 8.3.1)."""
    if not isinstance(value, str):
        wrong("mediaType", "a string", value)
    return value.partition(";")[0].strip().lower()


def _embedded(item: Mapping[str, Any], digest: Digest, size: int | None, key: str) -> bytes | None:
    """Return the content that a descriptor brings along (descriptor.md, "Embedded Content"), checked; None without it."""
    encoded = optional_text(item, "data", key)
    if encoded is None:
        return None
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError:
        wrong(f"{key}.data", "base64", encoded)
    # "The decoded data MUST be identical to the referenced content"
    if len(data) != size or not digest.matches(data):
        wrong(f"{key}.data", f"the {size} bytes of {digest}", f"{len(data)} bytes of {Digest.of(data)}")
    return data
