"""What a configuration asks for: one Entry an image, or a pattern of images, in the order of the file.

```
uri: ref | [ref, …] ────────────────────────────────┐              ┌─ without `tags` ─▶ Target
images: [ref | {uri: ref, …} | {ref: {…}}, …] ──────┼─▶ [Entry, …] ┤
groups: {name: {platform, …, images: [as above]}} ──┘              └─ with `tags` ─▶ Pattern
```

An image's options are name, platform, format, compression, tags and newest. What a group says counts for each of
its images that does not say it itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sregistry.config.options import SHARED
from sregistry.config.yaml_lines import Key

#: The keys that ask for images.
KEYS = ("uri", "images", "groups")
#: The options of an image.
OPTIONS = ("uri", "name", *SHARED, "tags", "newest")


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One image, or a pattern; `key` is where in the configuration, `group` where what it shares is said; else `place` tells it."""

    options: Mapping[str, Any]
    key: Key = ()
    group: Key = ()
    place: str = ""

    @property
    def uri(self) -> str:
        """The image, as it was written."""
        return str(self.options["uri"])


def entries(source: Mapping[str, Any]) -> list[Entry]:
    """Return the entries of *source*, whose types were checked."""
    uris = source.get("uri") or []
    found = [Entry(key=("uri",), options={"uri": uris})] if isinstance(uris, str) else [*_entries(uris, ("uri",))]
    found += _entries(source.get("images") or [], ("images",))
    for name, group in (source.get("groups") or {}).items():
        shared = {option: group[option] for option in SHARED if group.get(option)}
        found += _entries(group.get("images") or [], ("groups", name, "images"), shared, ("groups", name))
    return found


def _entries(items: list[Any], key: Key, shared: Mapping[str, Any] | None = None, group: Key = ()) -> Iterator[Entry]:
    beneath = shared or {}
    for i, item in enumerate(items):
        place: Key = (*key, i)
        own: Mapping[str, Any] = {"uri": item} if isinstance(item, str) else item
        if len(own) == 1 and not own.keys() & set(OPTIONS):
            ((uri, said),) = own.items()
            place, own = (*place, uri), {**said, "uri": uri}
        options: dict[str, Any] = {**beneath, **{option: value for option, value in own.items() if value is not None}}
        if "compression" in options:  # its keys are settings of their own
            options["compression"] = {**beneath.get("compression", {}), **(own.get("compression") or {})}
        yield Entry(key=place, options=options, group=group)
