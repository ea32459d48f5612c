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
from sregistry.config.yaml_lines import shown
from sregistry.errors import ConfigError, DocumentError, SregistryError
from sregistry.oci.documents import Digest
from sregistry.oci.json_fields import listed, table, text

if TYPE_CHECKING:
    from sregistry.config.tag_patterns import Pattern
    from sregistry.config.targets import Target

#: Its name among the results.
NAME = "lock.yaml"

_VERSION = 1
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
        import yaml

        try:
            value = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 -- a safe one
        except OSError as error:
            raise ConfigError(f"can't read the lock file {shown(path)}: {error.strerror}", hint="a run leaves results/lock.yaml") from None
        except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: of a date that is none
            raise ConfigError(f"{shown(path)} is no YAML, so no lock file", hint=_REMEDY) from None
        try:
            return cls._parse(path, table(value, "lock file"))
        except SregistryError as error:
            raise ConfigError(f"{shown(path)}: {error.message}", hint=_REMEDY) from None

    @classmethod
    def _parse(cls, path: Path, value: dict[str, Any]) -> Lock:
        if value.get("version") != _VERSION:
            raise DocumentError(f"version: expected {_VERSION}, got {value.get('version')!r}")
        images = [_image(table(item, f"images[{i}]"), f"images[{i}]") for i, item in enumerate(listed(value.get("images"), "images"))]
        lists = [_tags(table(item, f"tags[{i}]"), f"tags[{i}]") for i, item in enumerate(listed(value.get("tags", []), "tags"))]
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


def _image(item: dict[str, Any], key: str) -> Locked:
    return Locked(
        **{name: text(item, name, key) for name in ("uri", "platform", "name", "format")},
        digest=Digest.parse(text(item, "digest", key), f"{key}.digest"),
        compression=table(item.get("compression", {}), f"{key}.compression"),
    )


def _tags(item: dict[str, Any], key: str) -> LockedTags:
    newest = item.get("newest")
    if newest is not None and (not isinstance(newest, int) or isinstance(newest, bool) or newest < 1):
        raise DocumentError(f"{key}.newest: expected a number from 1, got {newest!r}")
    found = tuple(text({"tag": tag}, "tag", f"{key}.found[{i}]") for i, tag in enumerate(listed(item.get("found"), f"{key}.found")))
    return LockedTags(uri=text(item, "uri", key), tags=text(item, "tags", key), newest=newest, found=found)
