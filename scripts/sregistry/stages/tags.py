"""Ask which tags of a repository a pattern means, and report later why that could not be told."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from sregistry.errors import RegistryError, SregistryError
from sregistry.stages import arguments


def register(stages: arguments.Stages) -> None:
    """Add the commands."""
    arguments.command(stages, "tags", run, "ask which tags a pattern means", "store", "output", "pattern")

    stage = arguments.command(stages, "report-tags", report, "report a pattern that failed")
    stage.add_argument("--list", type=Path, required=True, metavar="FILE", help="its tags")


def run(options: argparse.Namespace) -> None:
    """Ask which tags of a repository a pattern means. A refusal is written down: images go on, and `report-tags` reports it."""
    from sregistry.results import receipts

    output: Path = options.output
    pinned = receipts.pinned(output)
    try:
        chosen = meant_tags(options)
    except SregistryError as error:
        known = json.loads(pinned)["tags"] if pinned else ()
        receipts.TagList(uri=options.uri, tags=known, error=str(error), pinned=pinned).write(output)
        return
    receipts.TagList(uri=options.uri, tags=tuple(chosen)).write(output)


def meant_tags(options: argparse.Namespace) -> list[str]:
    """Return the tags that a pattern means now."""
    from sregistry.config.secrets_file import overlay
    from sregistry.config.tag_patterns import choose
    from sregistry.config.targets import locate
    from sregistry.registry.client import connect
    from sregistry.registry.tag_lists import tags

    environ = overlay(os.environ)
    settings, reference = locate(options.uri, options.client, environ)
    with connect(settings, environ, arguments.store(options)) as client:
        offered = tags(client, reference)
    try:
        return choose(offered, options.tags, options.newest)
    except SregistryError as error:
        raise type(error)(f"{options.uri}: {error.message}", hint=error.hint) from None


def report(options: argparse.Namespace) -> None:
    """Report why a pattern has no tags; its list is discarded, so that the next run asks again."""
    from sregistry.results import receipts

    value = receipts.Vouched.read(options.list)
    receipts.discard(options.list, value)
    raise RegistryError(value.error or f"{options.list} has tags")
