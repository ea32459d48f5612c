"""The lock file: what each reference meant, so that a later run makes the same images of the same bytes.

```
# comment
version: 1
images:
- {uri: host/name:tag, platform: os/architecture, digest: sha256:…, name, format, compression: {…}}
tags:
- {uri: host/name, tags: glob, newest: N, found: [tag, …]}
```

`digest` is of what the tag named, an index or a manifest; with the platform it leads to one manifest.
With a lock no registry is asked what a tag means: a digest says it, and what a digest names never changes.

Each run adds to the file of its folder what it resolved. What earlier runs resolved stays in it, but for images that a
pattern meant then and no longer means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sregistry.config.requested import Entry
from sregistry.config.schema_check import check
from sregistry.config.yaml_lines import Marks, read_yaml, shown
from sregistry.errors import ConfigError, refuse
from sregistry.oci.digest import Digest

if TYPE_CHECKING:
    from sregistry.config.tag_patterns import Pattern
    from sregistry.config.targets import Target

#: Its name among the results.
NAME = "lock.yaml"

_VERSION = 1
_TEXT = {"type": "string"}
#: What a lock file must hold, as a JSON schema; what else stands there is passed over.
_SCHEMA: dict[str, Any] = {
    "title": "a lock file",
    "type": "object",
    "required": ["version", "images"],
    "properties": {
        "version": {"title": str(_VERSION), "type": "integer", "minimum": _VERSION, "maximum": _VERSION},
        "images": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["uri", "platform", "digest", "name", "format"],
                "properties": {
                    **dict.fromkeys(("uri", "platform", "name", "format"), _TEXT),
                    "digest": {"title": "a sha256 or sha512 digest", "type": "string", "format": "digest"},
                    "compression": {"type": "object"},
                },
            },
        },
        "tags": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["uri", "tags", "found"],
                "properties": {
                    **dict.fromkeys(("uri", "tags"), _TEXT),
                    "newest": {"title": "a number from 1", "type": ["integer", "null"], "minimum": 1},
                    "found": {"type": "array", "items": _TEXT},
                },
            },
        },
    },
}
_HEAD = """\
# What each reference meant when a run of this folder asked last. The same again, of the same bytes:
#
#     snakemake --config locked=FILE
#
# Copy it to where you keep such files: later runs add to this one, and `refresh=true` changes it.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Locked:
    """An image: what its reference meant, and how the image was made."""

    uri: str
    platform: str
    digest: Digest
    name: str
    format: str
    compression: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str, str]:
        """What tells it from others; the name is the file's, with its ending."""
        return self.uri, self.platform, self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class LockedTags:
    """A pattern, and the tags that it meant."""

    uri: str
    tags: str
    newest: int | None
    found: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str, int]:
        """What tells it from others; 0 stands for all that match."""
        return self.uri, self.tags, self.newest or 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Lock:
    """The contents of a lock file; the order in which it was asked for does not matter."""

    path: Path
    images: Mapping[tuple[str, str, str], Locked]
    tags: Mapping[tuple[str, str, int], LockedTags]

    @classmethod
    def read(cls, path: Path) -> Lock:
        """Read a lock file. Raises ConfigError that names the file, and the key of what is wrong in it."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"can't read the lock file {shown(path)}: {error.strerror}", hint="a run leaves results/lock.yaml") from None
        try:
            value = read_yaml(data, path)
        except ConfigError as error:
            raise ConfigError(error.message, hint=_REMEDY) from None
        refuse(check(value, _SCHEMA, Marks([path], value), nowhere=shown(path), hint=_REMEDY))
        images = [
            Locked(
                **{name: item[name] for name in ("uri", "platform", "name", "format")},
                digest=Digest(item["digest"]),
                compression=item.get("compression", {}),
            )
            for item in value["images"]
        ]
        lists = [
            LockedTags(uri=item["uri"], tags=item["tags"], newest=item.get("newest"), found=tuple(item["found"]))
            for item in value.get("tags", [])
        ]
        return cls(path=path, images={image.key: image for image in images}, tags={item.key: item for item in lists})

    @property
    def entries(self) -> list[Entry]:
        """The images, as they are configured."""
        names = ("uri", "platform", "name", "format", "compression")
        return [Entry(options={name: getattr(image, name) for name in names}, place=shown(self.path)) for image in self.images.values()]

    @property
    def patterns(self) -> list[Entry]:
        """The patterns, as they are configured."""
        names = ("uri", "tags", "newest")
        return [Entry(options={name: getattr(item, name) for name in names}, place=shown(self.path)) for item in self.tags.values()]

    def pin(self, targets: Iterable[Target]) -> list[Target]:
        """Return *targets* with the digests that their tags meant. Raises ConfigError: some are not in the lock; the first is named."""
        pinned = [replace(target, locked=target.reference.digest or self._digest(target)) for target in targets]
        missing = [f"{target.uri} ({target.platform})" for target in pinned if target.locked is None]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise self._lacks(f"{missing[0]}{more}")
        return pinned

    def find(self, pattern: Pattern) -> tuple[str, ...]:
        """Return the tags that a pattern meant. Raises ConfigError: it is not in the lock."""
        found = self.tags.get((pattern.repository, pattern.tags, pattern.newest or 0))
        if found is None:
            raise self._lacks(pattern.described)
        return found.found

    def merged(self, images: Sequence[tuple[Target, Digest]], patterns: Sequence[tuple[Pattern, Sequence[str]]]) -> Lock:
        """Return this lock with what a run resolved.

        Args:
            images: each with the digest of what its tag named.
            patterns: each with its tags.
        """
        new = [
            Locked(
                uri=target.uri,
                platform=str(target.platform),
                digest=digest,
                name=target.path.name,
                format=target.format,
                compression=target.compression.words(),
            )
            for target, digest in images
        ]
        lists = [LockedTags(uri=p.repository, tags=p.tags, newest=p.newest, found=tuple(found)) for p, found in patterns]
        past = {
            f"{item.uri}:{tag}" for item in lists if item.key in self.tags for tag in self.tags[item.key].found if tag not in item.found
        }
        return replace(
            self,
            images={key: image for key, image in self.images.items() if image.uri not in past} | {image.key: image for image in new},
            tags={**self.tags, **{item.key: item for item in lists}},
        )

    def encode(self) -> bytes:
        """Return the file; equal locks give equal bytes."""
        import yaml

        document: dict[str, Any] = {
            "version": _VERSION,
            "images": [
                {
                    "uri": image.uri,
                    "platform": image.platform,
                    "digest": str(image.digest),
                    "name": image.name,
                    "format": image.format,
                    "compression": dict(image.compression),
                }
                for _, image in sorted(self.images.items())
            ],
        }
        if self.tags:
            document["tags"] = [
                {
                    "uri": item.uri,
                    "tags": item.tags,
                    **({} if item.newest is None else {"newest": item.newest}),
                    "found": list(item.found),
                }
                for _, item in sorted(self.tags.items())
            ]
        return _HEAD.encode() + yaml.dump(document, Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True, width=200).encode()

    def _digest(self, target: Target) -> Digest | None:
        """Return what a tag meant for the same file, else for any, where all agree."""
        uri, platform = target.uri, str(target.platform)
        same = self.images.get((uri, platform, target.path.name))
        meant = {image.digest for image in ([same] if same else self.images.values()) if (image.uri, image.platform) == (uri, platform)}
        return meant.pop() if len(meant) == 1 else None

    def _lacks(self, what: str) -> ConfigError:
        return ConfigError(f"{shown(self.path)} lacks {what}", hint="run once without `locked`, which adds it to results/lock.yaml")


_REMEDY = "repair or remove that file: a run without `locked` writes a whole results/lock.yaml"
