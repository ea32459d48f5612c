"""`sregistry backend …`: which backend is active, and the settings of each that are kept in the secrets file."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sregistry.cli.arguments import add_json, print_json
from sregistry.terminal import printable

if TYPE_CHECKING:
    from sregistry.config.registries import Row

_STDIN = "-"


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the verbs of the verb."""
    command.description = "The settings of registries that are kept, in ~/.sregistry or the file that SREGISTRY_CLIENT_SECRETS names."
    verbs = command.add_subparsers(dest="verb", metavar="VERB", required=True)
    named = argparse.ArgumentParser(add_help=False)
    named.add_argument("name", metavar="NAME", help="such as nvidia or docker")
    one = argparse.ArgumentParser(add_help=False)
    one.add_argument("variable", metavar="VAR", help="such as SREGISTRY_NVIDIA_BASE, or BASE for short")

    verb = verbs.add_parser("ls", help="list what is kept", description="List what is kept; secrets are not shown.")
    verb.add_argument("name", nargs="?", metavar="NAME", help="of one backend only")
    add_json(verb)
    verbs.add_parser("status", help="say which backend is active")
    verbs.add_parser("activate", parents=[named], help="make this the default registry for names without a host")
    verbs.add_parser("deactivate", help="have no backend active")
    verb = verbs.add_parser(
        "add",
        parents=[named, one],
        help="keep a setting",
        description="Keep a setting of a backend. Without a value, or for -, it is read from the terminal, unseen, or from a pipe: "
        "a token then stands neither in the list of processes nor in the shell's history.",
    )
    verb.add_argument("value", nargs="?", default=_STDIN, metavar="VALUE", help="its value; read from stdin without one")
    verbs.add_parser("remove", parents=[named, one], help="forget a setting")
    verbs.add_parser("delete", parents=[named], help="forget all settings of a backend")


def run(options: argparse.Namespace) -> None:
    """Run a verb of the verb."""
    verbs = {
        "ls": _ls,
        "status": _status,
        "activate": _activate,
        "deactivate": _deactivate,
        "add": _add,
        "remove": _remove,
        "delete": _delete,
    }
    verbs[options.verb](options)


def _file() -> Path:
    from sregistry.config.secrets_file import path_of
    from sregistry.errors import ConfigError

    path = path_of(os.environ)
    if path is None:
        raise ConfigError("there is no home folder for ~/.sregistry", hint="set SREGISTRY_CLIENT_SECRETS")
    return path


def _row(name: str) -> Row:
    """Return the row of a backend. Raises ConfigError: it is unknown."""
    from sregistry.config.registries import rows
    from sregistry.errors import ConfigError

    known = rows()
    if name not in known:
        raise ConfigError(f"backend {name!r} is unknown", hint="one of " + ", ".join(known))
    return known[name]


def _variable(row: Row, name: str) -> str:
    """Return a backend's variable, which may go without its prefix. Raises ConfigError: the backend has none such."""
    from sregistry.config.registries import variable
    from sregistry.config.secrets_file import variables
    from sregistry.errors import ConfigError

    word, known = name.upper(), variables(row)
    for full in (word, variable(row.client, word), row.token if word == "TOKEN" else ""):
        if full in known:
            return full
    # What was given is not repeated: it may be a token, in the wrong place.
    raise ConfigError(f"that is no variable of {row.client}", hint="one of " + ", ".join(known))


def _ls(options: argparse.Namespace) -> None:
    """Print the backends that have settings, and their variables."""
    from sregistry.config import secrets_file
    from sregistry.config.registries import rows
    from sregistry.errors import ConfigError

    path = _file()
    document = secrets_file.read(path) or {}
    names = secrets_file.backends(document)
    if options.name is not None and options.name not in names:
        if options.name not in rows():
            raise ConfigError(f"backend {options.name!r} is unknown", hint="one of " + ", ".join(dict.fromkeys([*rows(), *names])))
        names = []
    elif options.name is not None:
        names = [options.name]
    found = {
        name: {key: secrets_file.shown(name, key, value) for key, value in secrets_file.table(document, name).items()} for name in names
    }
    if options.json:
        print_json({"active": document.get(secrets_file.ACTIVE) or None, "backends": found}, sort_keys=True)
        return
    if not found:
        print(f"Nothing is kept for {options.name or 'any backend'} in {path}.", file=sys.stderr)
    for name, values in found.items():
        marks = [*(["active"] if name == document.get(secrets_file.ACTIVE) else []), *([] if name in rows() else ["not used"])]
        print(printable(name) + (f" ({', '.join(marks)})" if marks else ""))
        for key, value in sorted(values.items()):
            print(printable(f"  {key}={value}"))


def _status(_: argparse.Namespace) -> None:
    """Print how many backends have settings, and which is active."""
    from sregistry.config import secrets_file

    document = secrets_file.read(_file()) or {}
    print("[backend status]")
    print(f"There are {len(secrets_file.backends(document))} clients found in secrets.")
    print(printable(f"active: {document.get(secrets_file.ACTIVE) or 'none'}"))
    if os.environ.get(secrets_file.ACTIVE):
        print(printable(f"{secrets_file.ACTIVE}={os.environ[secrets_file.ACTIVE]} in the environment goes before it."), file=sys.stderr)


def _activate(options: argparse.Namespace) -> None:
    """Keep which backend is active."""
    from sregistry.config import secrets_file

    row = _row(options.name)
    with secrets_file.changing(_file()) as document:
        document[secrets_file.ACTIVE] = row.client
    print(f"[activate] {row.client}")


def _deactivate(_: argparse.Namespace) -> None:
    """Forget which backend is active."""
    from sregistry.config import secrets_file

    with secrets_file.changing(_file()) as document:
        active = document.pop(secrets_file.ACTIVE, None)
    if active:
        print(f"[deactivate] {active}")
    else:
        print("No backend is active.", file=sys.stderr)


def _add(options: argparse.Namespace) -> None:
    """Keep a variable of a backend."""
    from sregistry.config import secrets_file
    from sregistry.config.registries import variable
    from sregistry.errors import ConfigError
    from sregistry.system import logs

    row = _row(options.name)
    key = _variable(row, options.variable)
    given = options.value != _STDIN
    value = secrets_file.check(row, key, options.value if given else _ask(key))
    if not value:
        raise ConfigError(f"{key}: nothing was given", hint=f"sregistry backend remove {row.client} {key} forgets it")
    if given and secrets_file.shown(row.client, key, value) == secrets_file.MASK:
        logs.logger().warning("%s stood in the list of processes, and is in your shell's history: leave the value out to be asked", key)
    with secrets_file.changing(_file()) as document:
        kept = {**secrets_file.table(document, row.client), key: value}
        if row.own and row.base and key == row.token:  # a row of that name in another folder has it go nowhere else
            kept.setdefault(variable(row.client, "BASE"), row.base)
        document[row.client] = kept
    print(f"[add] {row.client} {key}")


def _ask(key: str) -> str:
    """Read a value: unseen from a terminal, one line from a pipe."""
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\r\n")
    from getpass import getpass

    return getpass(f"{key}: ", stream=sys.stderr)


def _remove(options: argparse.Namespace) -> None:
    """Forget a variable of a backend; one that is in the file may be of another client than those known here."""
    from sregistry.config import secrets_file
    from sregistry.errors import SregistryError

    path = _file()
    with secrets_file.changing(path) as document:
        values = dict(secrets_file.table(document, options.name))
        key = options.variable if options.variable in values else _variable(_row(options.name), options.variable)
        if key not in values:
            raise SregistryError(f"{path} has no {key} for {options.name}", hint=f"sregistry backend ls {options.name}")
        del values[key]
        document[options.name] = values
        if not values:
            del document[options.name]
    print(f"[remove] {options.name} {key}")


def _delete(options: argparse.Namespace) -> None:
    """Forget a backend; what has no settings can't be active by them."""
    from sregistry.config import secrets_file
    from sregistry.errors import SregistryError

    path = _file()
    with secrets_file.changing(path) as document:
        if options.name not in secrets_file.backends(document):
            _row(options.name)
            raise SregistryError(f"{path} has nothing of {options.name}", hint="sregistry backend ls")
        del document[options.name]
        active = document.get(secrets_file.ACTIVE) == options.name
        if active:
            del document[secrets_file.ACTIVE]
    print(f"[delete] {options.name}")
    if active:
        print(f"[deactivate] {options.name}")
