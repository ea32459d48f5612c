"""`sregistry store check | clean`: the store of layers: is it sound, and what may go."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sregistry.cli.arguments import add_dry_run, add_json, days, print_json, size
from sregistry.terminal import printable

if TYPE_CHECKING:
    from sregistry.store.store import Store


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the verbs of the verb."""
    command.description = "The store of layers."
    verbs = command.add_subparsers(dest="verb", metavar="VERB", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--cache", type=Path, metavar="DIR", help="the store is in its folder docker; the configured one by default")
    add_dry_run(common, "only tell")
    add_json(common)
    verbs.add_parser(
        "check",
        parents=[common],
        help="re-hash all, and remove what is damaged",
        description="Check all; what is damaged is removed.",
    )
    verb = verbs.add_parser(
        "clean",
        parents=[common],
        help="remove what is not needed",
        description="Remove layers, never what a running workflow uses. What is removed is fetched again when it is needed.",
    )
    verb.add_argument("--unreachable", action="store_true", help="layers that no pulled image uses")
    verb.add_argument("--older-than", type=days, metavar="DAYS", help="layers not used for DAYS days")
    verb.add_argument(
        "--keep",
        type=size,
        metavar="SIZE",
        help="delete the least recently used layers until the store is at most SIZE, e.g. 50G (10⁹ bytes) or 50GiB (2³⁰)",
    )


def run(options: argparse.Namespace) -> int:
    """Run a verb of the verb."""
    return _check(options) if options.verb == "check" else _clean(options)


def _store(options: argparse.Namespace) -> Store:
    from sregistry.config.own_config import load_own
    from sregistry.config.secrets_file import overlay
    from sregistry.config.settings import store_root
    from sregistry.store.store import Store

    return Store(store_root(options.cache) if options.cache else load_own(overlay(os.environ)).store)


def _check(options: argparse.Namespace) -> int:
    """Check a store; 1 if something is wrong and stays so."""
    from sregistry.layers import verify
    from sregistry.store import maintenance

    store = _store(options)
    count = 0

    def say(name: str) -> None:
        nonlocal count
        count += 1
        if sys.stderr.isatty():
            print(f"\r{count} objects\x1b[K", end="", file=sys.stderr, flush=True)

    findings = maintenance.check(store, wrong_layer=verify.wrong, dry_run=options.dry_run, say=say)
    if count and sys.stderr.isatty():
        print(file=sys.stderr)
    if options.json:
        print_json([finding.json() for finding in findings])
    else:
        for finding in findings:
            print(printable(f"{finding.what}: {'repaired' if finding.repaired else 'left as it is'}"))
        print(f"{store.root}: {count} objects checked, {len(findings)} findings")
    return int(any(not finding.repaired for finding in findings))


def _clean(options: argparse.Namespace) -> int:
    """Remove what a store need not keep."""
    from sregistry.errors import UsageError
    from sregistry.store import maintenance

    if not options.unreachable and options.older_than is None and options.keep is None:
        raise UsageError("store clean: nothing is chosen", hint="say --unreachable, --older-than DAYS or --keep SIZE")
    store = _store(options)
    age = None if options.older_than is None else options.older_than * 86_400
    removed = maintenance.clean(store, unreachable=options.unreachable, older_than=age, keep=options.keep, dry_run=options.dry_run)
    if options.json:
        print_json([{"name": item.name, "path": str(item.path), "size": item.size} for item in removed])
        return 0
    verb = "would be removed" if options.dry_run else "removed"
    for item in removed:
        print(printable(f"{item.name}: {verb} ({item.size / 1e6:.1f} MB)"))
    print(f"{store.root}: {len(removed)} objects {verb}, {sum(item.size for item in removed) / 1e6:.1f} MB")
    return 0
