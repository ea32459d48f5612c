"""What several verbs take from the command line, and the client that they work with.

```
add_uri ─▶ URI (completed by the Tab key) --platform --format ─▶ selection(options) ─▶ client.get(uri, **selection)
add_json ─▶ --json        size, days, count, port ─▶ types of arguments
```
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from sregistry.errors import SregistryError, report
from sregistry.system import units

if TYPE_CHECKING:
    from sregistry.client import Client

FORMATS = ("sif", "simg", "sandbox")

_Value = TypeVar("_Value")


def _reading(reader: Callable[[str], _Value]) -> Callable[[str], _Value]:
    """Return *reader* as the `type` of an argument: argparse shows the reader's own words."""

    def read(text: str) -> _Value:
        try:
            return reader(text)
        except SregistryError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


#: Types of arguments.
size, days, count, port = _reading(units.size), _reading(units.days), _reading(units.count), _reading(units.port)


def add_json(command: argparse.ArgumentParser, help: str = "as JSON") -> None:
    """Add the switch `--json`."""
    command.add_argument("--json", action="store_true", help=help)


def add_dry_run(command: argparse.ArgumentParser, help: str) -> None:
    """Add the switch `--dry-run`."""
    command.add_argument("--dry-run", action="store_true", help=help)


def print_json(value: Any, *, sort_keys: bool = False) -> None:
    """Print a result as JSON."""
    print(json.dumps(value, indent=4, sort_keys=sort_keys))


def add_uri(
    command: argparse.ArgumentParser, *, nargs: str | None = None, help: str = "an image on record, as `sregistry images` lists it"
) -> None:
    """Add the argument `uri`, which the Tab key completes, and what tells one image of that name from others."""
    action = command.add_argument("uri", nargs=nargs, metavar="URI", help=help)
    action.completer = complete_uri  # type: ignore[attr-defined]  # argcomplete looks for it
    command.add_argument("--platform", metavar="OS/ARCH", help="which one, where images of that name are on record for several")
    command.add_argument("--format", choices=FORMATS, help="which one, where that name has several")


def selection(options: argparse.Namespace) -> dict[str, str | None]:
    """Return what `add_uri` added beside the uri, as the client's methods take it."""
    return {"platform": options.platform, "format": options.format}


def complete_uri(prefix: str, **_: object) -> list[str]:
    """Return the uris on record that begin with *prefix*: argcomplete's completer of URI."""
    from sregistry.client import get_client

    return [uri for uri in {container.uri: None for container in get_client().images()} if uri.startswith(prefix)]


def open_client(options: argparse.Namespace) -> Client:
    """Return the client that the environment and the configuration file describe, and announce it."""
    from sregistry.client import get_client

    client = get_client()
    if not options.quiet:
        client.announce()
    return client


def each(uris: Iterable[str], run: Callable[[str], None]) -> int:
    """Run something for each uri: one that fails is reported, and the others go on. Return the exit code."""
    code = 0
    for uri in uris:
        try:
            run(uri)
        except SregistryError as error:
            code = max(code, report(error))
    return code
