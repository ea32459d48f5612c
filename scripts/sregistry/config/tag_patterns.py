"""Images that are asked for by a pattern of their tags, and which tags of a repository it means.

```
{uri: nvidia/pytorch, tags: "24.*-py3", newest: 3} ─▶ Pattern ─┐
                              tag list of the repository ──────┴─▶ 24.12-py3, 24.11-py3, 24.10-py3 ─▶ [Entry, …]
```

`tags` is a glob (``*``, ``?``, ``[…]``; case counts) that a whole tag must match. `newest` takes the last N in
the order of versions, in which numbers count as numbers and a pre-release comes before what it leads
to. Unless the glob spells such a word out, `newest` passes pre-releases over.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from sregistry.config.requested import Entry
from sregistry.config.settings import Settings
from sregistry.config.targets import locate
from sregistry.errors import ConfigError, InvalidReference, RegistryError
from sregistry.oci.reference import DEFAULT_TAG, Reference
from sregistry.oci.versions import pre_releases, version, words_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Pattern:
    """Tags of one repository; `key` names their list in the results, `newest` is None for all that match."""

    client: str
    reference: Reference
    tags: str
    newest: int | None
    key: str
    entry: Entry

    @classmethod
    def of(cls, entry: Entry, settings: Settings, environ: Mapping[str, str]) -> Pattern:
        """Return the pattern that an entry with `tags` asks for.

        Raises:
            ConfigError: a bad value; the message begins with its option.
            InvalidReference: the uri names no repository.
        """
        owner, reference = locate(entry.uri, settings.client, environ)
        if reference.digest or reference.version or reference.tag != DEFAULT_TAG or entry.uri.endswith(f":{DEFAULT_TAG}"):
            raise InvalidReference(f"{entry.uri!r} names a tag beside `tags`", hint="leave out what follows the name")
        if entry.options.get("name"):
            raise ConfigError("name: a pattern may stand for several images, which can't have one name", hint="leave it out")
        tags, newest = str(entry.options["tags"]), entry.options.get("newest")
        if not tags:
            raise ConfigError("tags: this pattern matches nothing", hint="such as '24.*-py3', or '*' for all")
        if newest is not None and not re.fullmatch(r"[1-9][0-9]{0,5}", str(newest)):
            raise ConfigError(f"newest: expected a number from 1, got {newest}")
        number = None if newest is None else int(newest)
        decides = [f"{reference.registry}/{reference.repository}", tags, number]
        return cls(
            client=owner.client,
            reference=reference,
            tags=tags,
            newest=number,
            key=f"{reference.repository.replace('/', '-')[:80]}-{hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:8]}",
            entry=entry,
        )

    @property
    def repository(self) -> str:
        """The repository with its registry."""
        return f"{self.reference.registry}/{self.reference.repository}"

    @property
    def described(self) -> str:
        """The pattern as people are told of it."""
        return f"{self.repository}:{self.tags}" + ("" if self.newest is None else f" (newest {self.newest})")

    def entries(self, tags: Iterable[str]) -> list[Entry]:
        """Return an entry for each of *tags*."""
        shared: dict[str, Any] = {option: value for option, value in self.entry.options.items() if option not in ("uri", "tags", "newest")}
        return [replace(self.entry, options={**shared, "uri": f"{self.repository}:{tag}"}) for tag in tags]


def choose(offered: Sequence[str], tags: str, newest: int | None) -> list[str]:
    """Return those of the *offered* tags that a pattern means, the newest first. Raises RegistryError: there is none."""
    found = sorted((tag for tag in offered if fnmatchcase(tag, tags)), key=version, reverse=True)
    chosen = found
    if newest is not None:
        spelt = words_of(tags)
        chosen = [tag for tag in found if pre_releases(tag) <= spelt][:newest]
    if not chosen:
        there = ", ".join(sorted(offered, key=version, reverse=True)[:5])
        only = " but pre-releases" if found else ""
        hint = f"it has {len(offered)} tags: {there}{', …' if len(offered) > 5 else ''}" if offered else "it has no tags at all"
        raise RegistryError(f"no tag matches {tags!r}{only}", hint=hint)
    return chosen
