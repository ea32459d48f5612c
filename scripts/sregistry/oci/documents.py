"""The documents of OCI and Docker images, as frozen dataclasses with one `parse` each.

```
Index    ── manifests: Descriptor + Platform ──▶ Index | Manifest | Sif
Manifest ── config: Descriptor ──▶ ImageConfig
         └─ layers: Descriptor … ──▶ blobs (tar streams)
Sif      ── layer: Descriptor ──▶ a blob that is a whole SIF
```

Sources: OCI image-spec 1.1 (descriptor.md, image-index.md, manifest.md, config.md) and Docker's
"Image Manifest Version 2, Schema 2"; for schema 1 see oci/schema1.py. A parse error names the key:
``layers[3].size: expected an integer, got 'x'``.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sregistry.errors import DocumentError
from sregistry.oci import artifacts
from sregistry.oci.digest import Digest as Digest  # noqa: PLC0414 - a part of the documents
from sregistry.oci.json_fields import any_case, limited, listed, load_json, optional_text, table, wrong
from sregistry.oci.platforms import Platform as Platform  # noqa: PLC0414 - a part of the documents
from sregistry.system import limits


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

    #: In place of a config, in an artifact that has none (manifest.md, "Guidance for an Empty Descriptor").
    EMPTY = "application/vnd.oci.empty.v1+json"

    MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
    INDEXES = (OCI_INDEX, DOCKER_LIST)
    CONFIGS = (OCI_CONFIG, DOCKER_CONFIG)
    #: Types that say nothing of what they stand for: the content decides.
    VAGUE = ("", "application/json", "application/octet-stream", "text/plain", "text/html")

    #: One header for every manifest request: some registries answer an index only when it is asked for.
    #: Schema 1 comes last: it is for who has nothing else.
    ACCEPT = ", ".join((OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST, SCHEMA1_SIGNED, SCHEMA1))


#: What a layer's type must contain to be a tar stream; the compression itself is told by content.
_LAYER_TYPE = re.compile(
    r"application/vnd\.(oci\.image\.layer\.(nondistributable\.)?v1\.tar|docker\.image\.rootfs\.(foreign\.)?diff\.tar)([.+](gzip|zstd))?"
)

#: The types of a layer that is a SIF: Singularity before 3.7 misspelt its own, others leave out or swap a part.
_SIF_TYPE = re.compile(r"appli(c|ci)ation/vnd\.sylabs\.sif\.layer(\.v1)?[.+](sif|tar)")

#: The types of an index's entries that may lead to an image.
_IN_INDEX = (*MediaType.MANIFESTS, *MediaType.INDEXES, *MediaType.VAGUE)
#: Ranks of entries that have to be looked into, behind all that say what they are for.
_LAST = 1_000_000
#: In the annotations of an index's entry: BuildKit's attestation of another entry.
_ATTESTATION = "vnd.docker.reference.type"
#: In `os.features` of an entry that only nydus can read (oci-to-sif.md §16).
_NYDUS = "nydus.remoteimage.v1"
#: In a layer's annotations: its tar stream has entries that are no files of the image.
_STARGZ = "containerd.io/snapshot/stargz/toc.digest"


class NoImage(DocumentError):
    """A document that describes no container image: a chart, a signature, an SBOM …"""


#: What an image counts as that says nowhere what it is for, by go-containerregistry's rule.
UNNAMED = Platform(architecture="amd64")


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
        digest = Digest.parse(item.get("digest"), f"{key}.digest")
        size = item.get("size")
        if not (type(size) is int and 0 <= size <= limits.DECLARED_SIZE) and (sized or size is not None):
            wrong(f"{key}.size", "a size in bytes", size)
        urls = listed(item.get("urls") or [], f"{key}.urls")
        platform = table(item.get("platform") or {}, f"{key}.platform")
        annotations = table(item.get("annotations") or {}, f"{key}.annotations")
        return cls(
            media_type=media_type_of(item.get("mediaType") or "", f"{key}.mediaType"),
            digest=digest,
            size=size,
            urls=tuple(str(url) for url in urls),
            platform=_platform_of(platform, f"{key}.platform"),
            features=tuple(map(str, listed(platform.get("os.features") or [], f"{key}.platform.os.features"))),
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


class Unsound(NamedTuple):
    """An entry of an index that can't be read: the platform that it is for, as far as it says so, and what is wrong."""

    platform: Platform | None
    error: DocumentError


@dataclass(frozen=True, kw_only=True, slots=True)
class Index:
    """An OCI image index or a Docker manifest list; `unsound` are entries that can't be read, which harm nobody else."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    unsound: tuple[Unsound, ...] = ()

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Index:
        """Read an index. Raises DocumentError: it has no list of entries."""
        sound: list[Descriptor] = []
        unsound: list[Unsound] = []
        items = _items(document, "manifests")
        limited("manifests", len(items), "INDEX_ENTRIES", limits.INDEX_ENTRIES)
        for i, item in enumerate(items):
            try:
                sound.append(Descriptor.parse(item, f"manifests[{i}]"))
            except DocumentError as error:
                platform = None
                with contextlib.suppress(DocumentError):
                    platform = _platform_of(table(table(item, "").get("platform"), ""), "")
                unsound.append(Unsound(platform, error))
        return cls(
            media_type=media_type_of(document.get("mediaType") or MediaType.OCI_INDEX, "mediaType"),
            manifests=tuple(sound),
            unsound=tuple(unsound),
        )

    def choose(self, wanted: Platform) -> list[Descriptor]:
        """Return the entries that may serve *wanted*, best first.

        The order of the list decides between equals alone. Entries without a platform come last, as they have to be
        looked into: manifests, then indexes. Attestations carry unknown/unknown and so never match; what only nydus
        can read is passed over.
        """
        ranked: list[tuple[int, str, Descriptor]] = []
        for entry in self.manifests:
            if _NYDUS in entry.features or entry.media_type not in _IN_INDEX or _ATTESTATION in entry.annotations:
                continue
            if entry.platform is None:
                ranked.append((_LAST + (entry.media_type in MediaType.INDEXES), "", entry))
            elif (rank := wanted.rank(entry.platform)) is not None:
                ranked.append((rank, str(entry.platform), entry))
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
        items = _items(document, "layers")
        limited("layers", len(items), "IMAGE_LAYERS", limits.IMAGE_LAYERS)
        layers = tuple(Descriptor.parse(item, f"layers[{i}]") for i, item in enumerate(items))
        artifact = optional_text(document, "artifactType", "") or ""
        media_type = media_type_of(document.get("mediaType") or MediaType.OCI_MANIFEST, "mediaType")
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
    """Refuse what is no image made of layers, by its name where it is known. Raises DocumentError.

    A config of another type than an image's may be an image's all the same: `ImageConfig.parse` decides.
    """
    # manifest.md: artifactType says that the manifest is no image, whatever its config's type
    for kind in (artifact, config.media_type):
        if row := artifacts.find(kind.lower()):
            raise _refused(row)(f"not a container image but {row.what} ({kind})", hint=row.hint)
    for i, layer in enumerate(layers):
        for kind in (layer.media_type, *layer.annotations):
            if row := artifacts.find(kind):
                raise _refused(row)(f"layers[{i}] is {row.what} ({kind})", hint=row.hint)
    if config.media_type == MediaType.EMPTY or (artifact and artifact not in MediaType.CONFIGS):
        raise no_image(artifact or config.media_type)
    odd = [(i, layer.media_type or "none") for i, layer in enumerate(layers) if not _LAYER_TYPE.fullmatch(layer.media_type)]
    if odd:
        image = len(odd) < len(layers) and config.media_type in MediaType.CONFIGS
        raise (DocumentError if image else NoImage)("layers[{}]: type {} is no layer of a container image".format(*odd[0]))


def _refused(row: artifacts.Refusal) -> type[DocumentError]:
    return DocumentError if row.image else NoImage


def no_image(media_type: str) -> NoImage:
    """Return the error of an artifact whose type nobody knows."""
    return NoImage(f"not a container image but an artifact of type {media_type or 'none'}", hint="name an image")


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
    def parse(cls, data: bytes, media_type: str = MediaType.OCI_CONFIG) -> ImageConfig:
        """Read an image config.

        Args:
            data: the document.
            media_type: what its descriptor says. Registries and old Dockers say odd things of a config; what has a
                rootfs is one, whatever it is called.

        Raises:
            DocumentError: malformed; the message names the key.
            NoImage: neither its type nor its content is an image config's.
        """
        if media_type not in MediaType.CONFIGS and not _has_rootfs(data):
            raise no_image(media_type)
        document = load_json(data, "config")
        rootfs = table(document.get("rootfs"), "rootfs")
        if rootfs.get("type") not in (None, "", "layers"):
            wrong("rootfs.type", "'layers'", rootfs.get("type"))
        diff_ids = listed(rootfs.get("diff_ids") or [], "rootfs.diff_ids")
        inner = table(document.get("config") or {}, "config")
        labels = table(any_case(inner, "Labels") or {}, "config.Labels")
        created = document.get("created")
        entrypoint = _words(inner, "Entrypoint")
        return cls(
            platform=_platform_of(document, "config"),
            created=created if isinstance(created, str) else None,  # a date is no reason to refuse an image
            diff_ids=tuple(Digest.parse(item, f"rootfs.diff_ids[{i}]") for i, item in enumerate(diff_ids)),
            env=_words(inner, "Env") or (),
            # as Docker, in which [""] takes away the entrypoint of the image below
            entrypoint=None if entrypoint == ("",) else entrypoint,
            cmd=_words(inner, "Cmd"),
            labels={name: _label(value) for name, value in labels.items()},
            config=inner,
        )


def _has_rootfs(data: bytes) -> bool:
    """Tell whether a document is an image config by its content (config.md: rootfs is required)."""
    try:
        rootfs = load_json(data, "config").get("rootfs")
    except DocumentError:
        return False
    return isinstance(rootfs, dict) and isinstance(rootfs.get("diff_ids"), list)


def _label(value: object) -> str:
    """Return a label's text; as in Go, null is empty."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


def _words(item: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    """Return a list of words, None where there is none.

    Old configs have a plain text in place of a list; null among words is an empty one, as in Go.
    """
    value = any_case(item, key)
    if isinstance(value, str):
        value = [value]
    words = ["" if word is None else word for word in listed([] if value is None else value, f"config.{key}")]
    for i, word in enumerate(words):
        if not isinstance(word, str):
            wrong(f"config.{key}[{i}]", "a string", word)
        if "\0" in word:
            wrong(f"config.{key}[{i}]", "a string without NUL", word)
    return tuple(words) or None


def _items(document: Mapping[str, Any], key: str) -> Sequence[Any]:
    """Return the list of a manifest or an index; null is Go's empty list."""
    return listed([] if key in document and document[key] is None else document.get(key), key)


def _platform_of(item: Mapping[str, Any], key: str) -> Platform | None:
    """Return the platform of an object, None where it says none. Raises DocumentError that names the key."""
    os, architecture, variant = (optional_text(item, name, key) for name in ("os", "architecture", "variant"))
    if not architecture:
        if os and key != "config":  # an entry for one system and any machine serves nobody
            wrong(f"{key}.architecture", "a string", architecture)
        return None
    try:
        return Platform.of(os, architecture, variant)
    except ValueError:
        wrong(key, "a platform", "/".join(part for part in (os, architecture, variant) if part))


def media_type_of(value: object, key: str) -> str:
    """Return a media type in lower case, without parameters (RFC 9110, 8.3.1)."""
    if not isinstance(value, str):
        wrong(key, "a string", value)
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
