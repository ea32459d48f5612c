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
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sregistry.batch import Entry
from sregistry.document import listed, optional_text, table, text
from sregistry.errors import ConfigError, DocumentError, SregistryError
from sregistry.marks import shown
from sregistry.oci import Digest

if TYPE_CHECKING:
    from sregistry.pattern import Pattern
    from sregistry.target import Target

_VERSION = 1
_HEAD = """\
# What each reference meant when this was written, at the end of a run. The same again, of the same bytes:
#
#     snakemake --config locked=FILE
#
# Copy it to where you keep such files: the next run of another batch in this folder writes its own.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Lock:
    """A lock file that was read: digests by uri and platform, tags by repository, glob and number."""

    path: Path
    entries: tuple[Entry, ...]
    digests: Mapping[tuple[str, str], Digest]
    tags: Mapping[tuple[str, str, int | None], tuple[str, ...]]

    @classmethod
    def read(cls, path: Path) -> Lock:
        """Read a lock file. Raises ConfigError that names the file, and the key of what is wrong in it."""
        import yaml

        try:
            value = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 -- a safe one
        except OSError as error:
            raise ConfigError(f"locked: can't read {path}: {error.strerror}", hint="a run leaves one in results/lock.yaml") from None
        except yaml.YAMLError:
            raise ConfigError(f"locked: {shown(path)} is no YAML") from None
        try:
            return cls._parse(path, table(value, "lock"))
        except SregistryError as error:
            raise ConfigError(f"locked: {shown(path)}: {error.message}", hint="a run without `locked` writes a whole one") from None

    @classmethod
    def _parse(cls, path: Path, value: dict[str, Any]) -> Lock:
        if value.get("version") != _VERSION:
            raise DocumentError(f"version: expected {_VERSION}, got {value.get('version')!r}")
        entries, digests = [], {}
        for i, item in enumerate(listed(value.get("images"), "images")):
            key = f"images[{i}]"
            image = table(item, key)
            uri, platform = text(image, "uri", key), text(image, "platform", key)
            digests[uri, platform] = Digest.parse(text(image, "digest", key), f"{key}.digest")
            options = {"uri": uri, "platform": platform, "compression": table(image.get("compression", {}), f"{key}.compression")}
            options |= {name: found for name in ("name", "format") if (found := optional_text(image, name, key)) is not None}
            entries.append(Entry(key=("images", i), options=options))
        tags: dict[tuple[str, str, int | None], tuple[str, ...]] = {}
        for i, item in enumerate(listed(value.get("tags", []), "tags")):
            key = f"tags[{i}]"
            pattern = table(item, key)
            meant = tuple(str(tag) for tag in listed(pattern.get("found"), f"{key}.found"))
            tags[text(pattern, "uri", key), text(pattern, "tags", key), pattern.get("newest")] = meant
        return cls(path=path, entries=tuple(entries), digests=digests, tags=tags)

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
        found = self.tags.get((pattern.repository, pattern.tags, pattern.newest))
        if found is None:
            raise self._lacks(pattern.described)
        return found

    def _digest(self, target: Target) -> Digest | None:
        return self.digests.get((target.uri, str(target.platform)))

    def _lacks(self, what: str) -> ConfigError:
        return ConfigError(
            f"locked: {shown(self.path)} lacks {what}", hint="pull once without `locked`, which writes a new lock file, or don't ask for it"
        )


def written(images: Sequence[tuple[Target, Digest]], patterns: Sequence[tuple[Pattern, Sequence[str]]]) -> bytes:
    """Return the lock file of what was resolved; the order in which it was asked for does not matter.

    Args:
        images: each with the digest of what its tag named.
        patterns: each with its tags.
    """
    import yaml

    rows: list[dict[str, Any]] = [
        {
            "uri": target.uri,
            "platform": str(target.platform),
            "digest": str(digest),
            "name": target.path.name,
            "format": target.format,
            "compression": target.compression.words(),
        }
        for target, digest in images
    ]
    lists = {
        (pattern.repository, pattern.tags, pattern.newest): {
            "uri": pattern.repository,
            "tags": pattern.tags,
            **({} if pattern.newest is None else {"newest": pattern.newest}),
            "found": list(found),
        }
        for pattern, found in patterns
    }
    document: dict[str, Any] = {"version": _VERSION, "images": sorted(rows, key=lambda row: (row["uri"], row["platform"], row["name"]))}
    if lists:
        document["tags"] = [lists[key] for key in sorted(lists, key=lambda key: (key[0], key[1], key[2] or 0))]
    return _HEAD.encode() + yaml.dump(document, Dumper=yaml.SafeDumper, sort_keys=False, allow_unicode=True, width=200).encode()
