"""What tags mean now against what they meant: the answer to a refresh.

```
lock file, else manifest.json ─▶ before ─┐
registry ────────────────────▶ after ────┴▶ Change ── unchanged | changed | new | failed
tag list then, tag list now ─────────────▶ TagChange ── tags that came, tags that went
```
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sregistry.oci.documents import Descriptor
from sregistry.results.resolved import Resolved
from sregistry.store.store import Store
from sregistry.system.units import amount, table

#: The states of an image. `new` is one that nothing is known of from before.
UNCHANGED, CHANGED, NEW, FAILED = "unchanged", "changed", "new", "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """What a tag meant and means: digests and compressed sizes, layers that came and went, bytes to fetch.

    `after` is None where the registry does not tell, for the reason in `error`. Sizes and layers of before are None where
    only the digest is known.
    """

    uri: str
    platform: str
    before: str | None
    after: str | None
    size_before: int | None = None
    size_after: int | None = None
    added: int | None = None
    removed: int | None = None
    fetch: int | None = None
    error: str | None = None

    @classmethod
    def of(cls, *, uri: str, platform: str, before: str | None, manifest: Resolved | None, after: Resolved, store: Store) -> Change:
        """Compare.

        Args:
            before: the digest of before, None where the image is new.
            manifest: the manifest of before, None where only the digest is known.
            after: what the registry says now.
            store: tells what needs no fetching.
        """
        old, new = {} if manifest is None else _layers(manifest), _layers(after)
        missing = [blob for blob in new.values() if not store.has(blob.digest, blob.size) and not any(store.elsewhere(blob.digest))]
        return cls(
            uri=uri,
            platform=platform,
            before=before,
            after=str(after.named),
            size_before=None if manifest is None else _size(old.values()),
            size_after=_size(new.values()),
            added=None if manifest is None else len(new.keys() - old.keys()),
            removed=None if manifest is None else len(old.keys() - new.keys()),
            fetch=_size(missing),
        )

    @classmethod
    def parse(cls, value: dict[str, Any]) -> Change:
        """Read what `json` returned."""
        return cls(**{name: value[name] for name in cls.__slots__})

    @property
    def status(self) -> str:
        """One of the states."""
        return FAILED if self.after is None else NEW if self.before is None else UNCHANGED if self.before == self.after else CHANGED

    def json(self) -> dict[str, Any]:
        """Return it as it stands in refresh.json and summary.json."""
        return {**asdict(self), "status": self.status}

    def row(self) -> list[str]:
        """Return it as a row of a table."""
        if self.after is None:
            return [self.status, self.uri, "", "", "", self.error or ""]
        digests = _short(self.after) if self.before is None else f"{_short(self.before)} → {_short(self.after)}"
        layers = "" if self.added is None else f"+{self.added} −{self.removed} layers"
        sizes = amount(self.size_after) if self.size_before is None else f"{amount(self.size_before)} → {amount(self.size_after)}"
        return [self.status, self.uri, digests, layers, sizes, f"{amount(self.fetch)} to fetch"]


@dataclass(frozen=True, kw_only=True, slots=True)
class TagChange:
    """Which tags a pattern meant and means; `before` is None for a pattern that is new, `after` where the registry does not tell."""

    uri: str
    before: list[str] | None
    after: list[str] | None
    error: str | None = None

    @classmethod
    def parse(cls, value: dict[str, Any]) -> TagChange:
        """Read what `json` returned."""
        return cls(**{name: value[name] for name in cls.__slots__})

    @property
    def came(self) -> list[str]:
        """The tags that it did not mean before; of a new pattern all."""
        return [tag for tag in self.after or () if tag not in (self.before or ())]

    @property
    def went(self) -> list[str]:
        """The tags that it no longer means."""
        return [] if self.after is None else [tag for tag in self.before or () if tag not in self.after]

    @property
    def status(self) -> str:
        """One of the states."""
        if self.after is None:
            return FAILED
        return NEW if self.before is None else CHANGED if self.came or self.went else UNCHANGED

    def json(self) -> dict[str, Any]:
        """Return it as it stands in refresh.json."""
        return {**asdict(self), "status": self.status, "came": self.came, "went": self.went}

    def row(self) -> list[str]:
        """Return it as a row of a table."""
        if self.after is None:
            return [self.status, self.uri, "", "", "", self.error or ""]
        tags = [*(f"+{tag}" for tag in self.came), *(f"−{tag}" for tag in self.went)]
        return [self.status, self.uri, " ".join(tags), "", "", ""]


def as_table(images: Sequence[Change], patterns: Sequence[TagChange] = ()) -> list[str]:
    """Return what changed as lines for people: a table, and how many of how many."""
    states = [*(image.status for image in images), *(pattern.status for pattern in patterns)]
    counts = ", ".join(f"{states.count(status)} {status}" for status in (CHANGED, NEW, FAILED, UNCHANGED) if status in states)
    tables = (table([item.row() for item in items if item.status != UNCHANGED]) for items in (patterns, images))
    return [*(line for lines in tables for line in lines), f"refresh: {counts or 'nothing was asked for'}"]


def _layers(resolved: Resolved) -> dict[str, Descriptor]:
    return {str(layer.blob.digest): layer.blob for layer in resolved.layers}


def _size(blobs: Iterable[Descriptor]) -> int:
    """Return the bytes of blobs; those of schema 1, which does not say it, count as none."""
    return sum(blob.size or 0 for blob in blobs)


def _short(digest: str) -> str:
    return digest[:19]
