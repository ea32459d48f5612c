"""Ask what tags mean now, and compare with what they meant; tell all changes of a run."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sregistry.errors import SregistryError
from sregistry.stages import arguments
from sregistry.stages.tags import meant_tags
from sregistry.terminal import printable

if TYPE_CHECKING:
    from sregistry.stages.arguments import Stages


def register(stages: Stages) -> None:
    """Add the commands."""
    stage = stages.add_parser("tagchange", help="compare what a pattern means and meant")
    arguments.add_store(stage)
    arguments.add_output(stage)
    arguments.add_pattern(stage)
    stage.add_argument("--before", default="null", metavar="JSON", help="the tags that it meant")
    stage.set_defaults(run=_tagchange)

    stage = stages.add_parser("change", help="compare what a reference means and meant")
    arguments.add_store(stage)
    arguments.add_output(stage)
    stage.add_argument("--uri", required=True)
    stage.add_argument("--client", required=True)
    stage.add_argument("--platform", required=True)
    stage.add_argument("--locked", metavar="DIGEST", help="what the tag meant")
    stage.add_argument("--pinned", type=Path, required=True, metavar="FILE", help="manifest.json of before, if it is there")
    stage.set_defaults(run=run)

    stage = stages.add_parser("refresh", help="tell all changes")
    arguments.add_output(stage)
    stage.add_argument("changes", type=Path, nargs="+", metavar="FILE")
    stage.set_defaults(run=_refresh)


def run(options: argparse.Namespace) -> None:
    """Ask what a reference means now, and compare. Nothing of it is kept; a refusal is written down, and `refresh` reports it."""
    import tempfile

    from sregistry.config import temporary
    from sregistry.config.secrets_file import overlay
    from sregistry.config.targets import locate
    from sregistry.oci.documents import Platform
    from sregistry.registry.resolve import resolve
    from sregistry.results import receipts
    from sregistry.results.changes import Change
    from sregistry.results.resolved import Resolved
    from sregistry.store.store import Store

    try:
        known = Resolved.read(options.pinned)
    except SregistryError:
        known = None
    before = options.locked or (None if known is None else str(known.named))
    if known is not None and str(known.named) != before:
        known = None
    image = {"uri": options.uri, "platform": options.platform, "before": before}
    store = arguments.store(options)
    try:
        environ = overlay(os.environ)
        settings, reference = locate(options.uri, options.client, environ)
        with (
            tempfile.TemporaryDirectory(prefix="sregistry-change-", dir=temporary.working(environ)) as folder,
            arguments.registry_client(settings, store, environ) as client,
        ):
            aside = Store(Path(folder), (store.root, *options.cache_from))
            after = resolve(client, reference, Platform.parse(options.platform), aside)
            change = Change.of(**image, manifest=known, after=after, store=store)
    except SregistryError as error:
        change = Change(**image, after=None, error=str(error))
    receipts.write(options.output, change.json())


def _tagchange(options: argparse.Namespace) -> None:
    """Ask which tags a pattern means now, and compare. A refusal is written down, and `refresh` reports it."""
    from sregistry.results import receipts
    from sregistry.results.changes import TagChange

    described = f"{options.uri}:{options.tags}" + (f" (newest {options.newest})" if options.newest else "")
    before = json.loads(options.before)
    try:
        change = TagChange(uri=described, before=before, after=meant_tags(options))
    except SregistryError as error:
        change = TagChange(uri=described, before=before, after=None, error=str(error))
    receipts.write(options.output, change.json())


def _refresh(options: argparse.Namespace) -> None:
    """Tell what changed, on stdout and as JSON. Raises RegistryError: a registry did not tell everything."""
    from sregistry.errors import RegistryError
    from sregistry.results import receipts
    from sregistry.results.changes import FAILED, Change, TagChange, told

    values = [receipts.read(path) for path in options.changes]
    # What becomes several files is told once.
    images = list(dict.fromkeys(Change.parse(value) for value in values if "platform" in value))
    patterns = [TagChange.parse(value) for value in values if "platform" not in value]
    value = {"version": 1, "images": [item.json() for item in images], "patterns": [item.json() for item in patterns]}
    receipts.write(options.output, value)
    print("\n".join(map(printable, told(images, patterns))), flush=True)
    errors = [item.error for item in patterns if item.status == FAILED] + [item.error for item in images if item.status == FAILED]
    if errors:
        more = f" (and {len(errors) - 1} more, above)" if len(errors) > 1 else ""
        raise RegistryError(f"{errors[0]}{more}")
