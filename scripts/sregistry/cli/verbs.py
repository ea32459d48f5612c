"""The verbs of the command `sregistry`: a table, whose modules are imported when their verb is parsed.

```
name ─▶ (module of sregistry.cli.commands, help)
            add_arguments(command)    the description and the arguments
            run(options)              results on stdout, all else on stderr; returns an exit code or nothing
```

A shell waits for `sregistry get`, for `sregistry --help`, and for every press of the Tab key.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Collection
from typing import Any

#: Verb → its module and its line in the help, in the order of the help; without a line the verb is not listed.
VERBS: dict[str, tuple[str, str | None]] = {
    "pull": ("pull", "build images of a registry"),
    "search": ("search", "list tags or repositories of a registry"),
    "record": ("record", "record images without pulling them"),
    "images": ("images", "list images"),
    "inspect": ("inspect", "show an image's record"),
    "get": ("get", "say where an image is"),
    "add": ("add", "take in an image file"),
    "import": ("import_", "record what another sregistry, or a folder, holds"),
    "mv": ("mv", "move an image's file"),
    "rename": ("rename", "give an image another name"),
    "tag": ("tag", "give an image one more name"),
    "rm": ("rm", "remove images"),
    "link": ("link", "give images to Snakemake or Nextflow"),
    "labels": ("labels", "list labels of images"),
    "shell": ("shell", "work with the client in Python"),
    "login-check": ("login_check", "try the login at a registry"),
    "backend": ("backend", "choose a registry, and keep its settings"),
    "config": ("config", "show the settings in effect"),
    "store": ("store", "check and clean the store of layers"),
    "serve": ("serve", "serve an OCI image layout"),
    "completion": ("completion", "complete commands and images by the Tab key"),
    "version": ("version", "print the version"),
    **dict.fromkeys(("push", "delete", "share", "build"), ("refused", None)),
}


class VerbParser(argparse.ArgumentParser):
    """The parser of a verb, which gets its arguments when it is needed."""

    module: str | None = None

    def load(self) -> None:
        """Have the module of the verb add its arguments, once."""
        module, self.module = self.module, None
        if module is not None:
            found = importlib.import_module(f"sregistry.cli.commands.{module}")
            self.set_defaults(run=found.run)
            found.add_arguments(self)

    def parse_known_args(self, *args: Any, **options: Any) -> Any:
        """Parse, as argparse calls it for the verb that was chosen."""
        self.load()
        return super().parse_known_args(*args, **options)


def add_verbs(commands: argparse._SubParsersAction[VerbParser], *, loaded: Collection[str] = ()) -> None:
    """Add a parser for each verb; the modules of those that are to be *loaded* at once are imported, no other."""
    for name, (module, help) in VERBS.items():
        parser = commands.add_parser(name, help=help) if help else commands.add_parser(name)
        parser.module = module
        if name in loaded:
            parser.load()
