"""The command `sregistry`: what is there, where it is, what is known of it.

```
sregistry images [QUERY …] [--json]     the records, oldest first
sregistry inspect URI                   one record, as JSON
sregistry get URI                       path of a local image, address of a remote one
sregistry login-check [REGISTRY]        what would be sent to a registry, and whether it accepts it
sregistry store check | clean           the store of layers: is it sound, and what may go
sregistry serve DIR                     an OCI image layout as a registry
sregistry version
```

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 bad usage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sregistry.errors import SregistryError, from_oserror, report

if TYPE_CHECKING:
    from sregistry.catalog import Catalog, Record
    from sregistry.settings import Settings
    from sregistry.store import Store

_INTERRUPTED = 130  # as a shell has it: 128 + SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    try:
        code = int(options.run(options) or 0)
        sys.stdout.flush()
        return code
    except SregistryError as error:
        return report(error)
    except BrokenPipeError:
        # Who reads has seen enough. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        return report(from_oserror(error, SregistryError, options.command))
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def _images(options: argparse.Namespace) -> None:
    """List the records in whose client and uri all QUERY words occur."""
    catalog, _ = _open()
    words = [word.lower() for word in options.query]
    found = [record for record in catalog.records() if all(word in f"{record.client}://{record.label}".lower() for word in words)]
    if options.json:
        print(json.dumps([record.json() for record in found], indent=4, sort_keys=True))
    elif not found:
        print("No image matches." if words else "No images yet.", file=sys.stderr)
    else:
        print("Containers:   [date]    [client]\t[uri]")
        for number, record in enumerate(found, 1):
            print(f"{number}  {record.created:%B %d, %Y}\t[{record.client}]\t{record.label}")


def _inspect(options: argparse.Namespace) -> None:
    """Print a record: uri, place, then all of it."""
    record = _find(options.uri)
    print(f"{record.uri}\n{record.location}\n{json.dumps(record.json(), indent=4, sort_keys=True)}")


def _get(options: argparse.Namespace) -> None:
    """Print where an image is."""
    record = _find(options.uri)
    if record.image is not None and not os.path.lexists(record.image):
        from sregistry.errors import CatalogError

        raise CatalogError(f"{record.uri} was at {record.image}, but is gone", hint="pull it again")
    print(record.location)


def _login_check(options: argparse.Namespace) -> None:
    """Print what would be sent, names only, and what the registry says to it; a refusal is an error."""
    from sregistry.login import check
    from sregistry.settings import Settings, from_file

    client = Settings.load(file=from_file(), environ=os.environ).client
    found = check(options.registry or client, client, os.environ)
    print(json.dumps(found.json(), indent=4) if options.json else "\n".join(found.lines()))
    if found.error:
        sys.stdout.flush()
        raise found.error


def _serve(options: argparse.Namespace) -> None:
    """Serve a layout until Ctrl-C."""
    from sregistry.serve import run

    run(options.directory, options.host, options.port)


def _store(options: argparse.Namespace) -> Store:
    from sregistry.settings import Settings, from_file, store_root
    from sregistry.store import Store

    return Store(store_root(options.cache) if options.cache else Settings.load(file=from_file(), environ=os.environ).store)


def _store_check(options: argparse.Namespace) -> int:
    """Check a store; 1 if something is wrong and stays so."""
    from sregistry import upkeep

    store = _store(options)
    count = 0

    def say(name: str) -> None:
        nonlocal count
        count += 1
        if sys.stderr.isatty():
            print(f"\r{count} objects\x1b[K", end="", file=sys.stderr, flush=True)

    findings = upkeep.check(store, dry_run=options.dry_run, say=say)
    if count and sys.stderr.isatty():
        print(file=sys.stderr)
    if options.json:
        print(json.dumps([finding.json() for finding in findings], indent=4))
    else:
        for finding in findings:
            print(f"{finding.what}: {'repaired' if finding.repaired else 'left as it is'}")
        print(f"{store.root}: {count} objects checked, {len(findings)} findings")
    return int(any(not finding.repaired for finding in findings))


def _store_clean(options: argparse.Namespace) -> None:
    """Remove what a store need not keep."""
    from sregistry import upkeep
    from sregistry.errors import UsageError

    if not options.unreachable and options.older_than is None and options.keep is None:
        raise UsageError("store clean: nothing is chosen", hint="say --unreachable, --older-than DAYS or --keep SIZE")
    store = _store(options)
    age = None if options.older_than is None else options.older_than * 86_400
    removed = upkeep.clean(store, unreachable=options.unreachable, older_than=age, keep=options.keep, dry_run=options.dry_run)
    if options.json:
        print(json.dumps([{"name": item.name, "path": str(item.path), "size": item.size} for item in removed], indent=4))
        return
    verb = "would be removed" if options.dry_run else "removed"
    for item in removed:
        print(f"{item.name}: {verb} ({item.size / 1e6:.1f} MB)")
    print(f"{store.root}: {len(removed)} objects {verb}, {sum(item.size for item in removed) / 1e6:.1f} MB")


def _days(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


def _size(text: str) -> int:
    """Read bytes, or such with K, M, G or T (powers of 1000)."""
    units = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
    number = text.upper().removesuffix("B").rstrip("KMGT")
    return int(float(number) * units[text.upper().removesuffix("B")[len(number) :]])


def _version(_: argparse.Namespace) -> None:
    from sregistry import __version__

    print(__version__)


def _open() -> tuple[Catalog, Settings]:
    """Open the catalog that the environment or the configuration file names, and announce it."""
    from sregistry.catalog import Catalog
    from sregistry.settings import Settings, from_file

    settings = Settings.load(file=from_file(), environ=os.environ)
    catalog = Catalog(settings.database)
    print(f"[client|{settings.client}] [database|{catalog.path}]", file=sys.stderr)
    return catalog, settings


def _find(uri: str) -> Record:
    from sregistry.settings import registry

    catalog, settings = _open()
    meant = registry(settings.client, os.environ)
    return catalog.find(uri, registry=meant.base, collection=meant.collection)


def _parser() -> argparse.ArgumentParser:
    from sregistry import __version__

    parser = argparse.ArgumentParser(
        prog="sregistry",
        description="Images that were made of registry images, and where they are.",
        epilog="An image is made by: snakemake --config uri=nvidia/caffe2:17.10",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    command = commands.add_parser("images", help="list images", description="List the images on record, oldest first.")
    command.add_argument("query", nargs="*", metavar="QUERY", help="words that client or uri must hold")
    command.add_argument("--json", action="store_true", help="all that is known, as JSON")
    command.set_defaults(run=_images)

    command = commands.add_parser("inspect", help="show an image's record", description="Show all that is known of an image.")
    command.add_argument("uri", metavar="URI")
    command.set_defaults(run=_inspect)

    command = commands.add_parser("get", help="say where an image is", description="Print the path of an image.")
    command.add_argument("uri", metavar="URI")
    command.set_defaults(run=_get)

    command = commands.add_parser(
        "login-check",
        help="try the login at a registry",
        description="Say which credentials a registry would get, by name, and whether it accepts them.",
    )
    command.add_argument(
        "registry", nargs="?", metavar="REGISTRY", help="a client, host[:port], or a reference such as nvcr.io/nvidia/cuda"
    )
    command.add_argument("--json", action="store_true", help="the same as JSON")
    command.set_defaults(run=_login_check)

    command = commands.add_parser(
        "serve", help="serve an OCI image layout", description="Serve an OCI image layout as a read-only registry."
    )
    command.add_argument("directory", type=Path, metavar="DIR")
    command.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    command.add_argument("--port", type=int, default=5000, help="0 takes a free one (%(default)s)")
    command.set_defaults(run=_serve)

    command = commands.add_parser("store", help="check and clean the store of layers", description="The store of layers.")
    verbs = command.add_subparsers(dest="verb", metavar="VERB", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--cache", type=Path, metavar="DIR", help="the store is in its folder docker; the configured one by default")
    common.add_argument("--dry-run", action="store_true", help="only tell")
    common.add_argument("--json", action="store_true", help="as JSON")
    verb = verbs.add_parser(
        "check",
        parents=[common],
        help="re-hash all, and remove what is damaged",
        description="Check all; what is damaged is removed.",
    )
    verb.set_defaults(run=_store_check)
    verb = verbs.add_parser(
        "clean",
        parents=[common],
        help="remove what is not needed",
        description="Remove layers, never what a running workflow uses. What is removed is fetched again when it is needed.",
    )
    verb.add_argument("--unreachable", action="store_true", help="what no image that was pulled leads to")
    verb.add_argument("--older-than", type=_days, metavar="DAYS", help="what was not used for so long")
    verb.add_argument("--keep", type=_size, metavar="SIZE", help="used longest ago first, until no more than this is left, such as 50G")
    verb.set_defaults(run=_store_clean)

    command = commands.add_parser("version", help="print the version")
    command.set_defaults(run=_version)

    commands.add_parser("help", help="print this help").set_defaults(run=lambda _: parser.print_help())
    return parser


if __name__ == "__main__":
    sys.exit(main())
