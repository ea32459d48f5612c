"""What earlier runs resolved, read from the results: tags of patterns, digests of images.

```
results/tags/<pattern>.json ─▶ tags       results/<image>/manifest.json ─▶ outdated
lock file ───────────────────▶
```
"""

from __future__ import annotations

from collections.abc import Sequence

from sregistry.config.plan import Plan
from sregistry.config.targets import Target
from sregistry.errors import SregistryError
from sregistry.results import failures, paths, receipts
from sregistry.results.paths import Results
from sregistry.results.resolved import Resolved


def tags(plan: Plan, results: Results) -> dict[str, list[str]]:
    """Return the tags of those patterns whose lists are in the lock file or in the results, by the patterns' keys."""
    found = {key: list(listed) for key, listed in plan.settled.items()}
    for pattern in plan.open:
        try:
            found[pattern.key] = list(receipts.TagList.read(results.at(paths.TAGS, pattern=pattern.key)).tags)
        except SregistryError:
            continue
    return found


def outdated(targets: Sequence[Target], results: Results, *, refresh: bool, again: bool = False) -> set[str]:
    """Return the keys of the images whose manifests in the results are not what is asked for.

    Args:
        refresh: all tags are to be asked again. What a digest names never changes.
        again: tags are to be asked again if what they meant was never made, because of what was published.
    """
    tagged = [target for target in targets if target.reference.digest is None and target.locked is None]
    asked = [(target.key, target.compression.variant) for target in tagged]
    found = failures.unmade(results, asked) if again else set()
    found |= {target.key for target in tagged if refresh}
    for target in targets:
        if target.locked is not None and _named(results, target) not in (None, str(target.locked)):
            found.add(target.key)
    return found


def _named(results: Results, target: Target) -> str | None:
    """Return the digest that pins an image in its manifest.json; None where there is none."""
    try:
        return str(Resolved.read(results.at(paths.MANIFEST, image=target.key)).named)
    except SregistryError:
        return None
