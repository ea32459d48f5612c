"""The Python client: what the commands do, for programs.

>>> from sregistry import get_client
>>> client = get_client()
>>> client.images()
[]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from sregistry import messages
from sregistry.catalog import Catalog, Record
from sregistry.errors import CatalogError, PullError, UsageError
from sregistry.secrets import overlay
from sregistry.settings import Settings, from_file, registry

if TYPE_CHECKING:
    from sregistry.pipeline import Outcome
    from sregistry.progress import Display


class Container(Record):
    """An image on record, with its catalog at hand."""

    __slots__ = ("_catalog",)

    _catalog: Catalog

    @classmethod
    def of(cls, record: Record, catalog: Catalog) -> Container:
        """Return *record* as a Container of *catalog*."""
        made = cls(**{f.name: getattr(record, f.name) for f in fields(record)})
        object.__setattr__(made, "_catalog", catalog)
        return made

    def __repr__(self) -> str:
        return f"<Container {self.uri!r}>"

    def inspect(self) -> dict[str, Any]:
        """Return all that is known of it, all manifests included, as JSON has it."""
        return self.json()


class Client:
    """One user's view: the settings, the catalog, and what can be done with both.

    *environ* is what the jobs of a pull inherit; the secrets file is read where it counts.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str]) -> None:
        self.settings = settings
        self.catalog = Catalog(settings.database)
        self._environ = environ

    def announce(self) -> None:
        """Say on stderr which client and catalog are used."""
        print(f"[client|{self.settings.client}] [database|{self.catalog.path}]", file=sys.stderr)

    def images(self, query: Iterable[str] = ()) -> list[Container]:
        """Return the records in whose client and uri all words of *query* occur, oldest first. Raises CatalogError."""
        words = [word.lower() for word in query]
        found = (r for r in self.catalog.records() if all(word in f"{r.client}://{r.label}".lower() for word in words))
        return [Container.of(record, self.catalog) for record in found]

    def find(self, uri: str) -> Container:
        """Return the newest record that *uri* means. Raises CatalogError: there is none; InvalidReference."""
        meant = registry(self.settings.client, overlay(self._environ))
        return Container.of(self.catalog.find(uri, registry=meant.base, collection=meant.collection), self.catalog)

    def pull(
        self,
        uris: str | Sequence[str],
        *,
        name: str | None = None,
        force: bool = False,
        no_cache: bool = False,
        platform: str | None = None,
        format: str | None = None,
        refresh: bool = True,
        progress: Display | None = None,
    ) -> Container | list[Container]:
        """Have images built and recorded. The registry is asked what the tags mean now; what is there already is not built again.

        Args:
            uris: one, or several, which share layers and are made at once.
            name: of the file, for one image.
            force: build again what is there.
            no_cache: keep no layers.
            platform: os/architecture[/variant].
            format: sif, simg or sandbox.
            refresh: else what a tag meant the last time still counts.
            progress: shows how far it is, such as `progress.display()`; nothing does by default.

        Returns:
            The record of one, or a list for several, in their order.

        Raises:
            PullError: some could not be made; `errors` says why, `pulled` holds those that were.
            UsageError: a reference or a setting is wrong.
        """
        asked = [uris] if isinstance(uris, str) else list(uris)
        outcomes = self.pull_each(
            asked, name=name, force=force, no_cache=no_cache, platform=platform, format=format, refresh=refresh, progress=progress
        )
        made = [Container.of(outcome.record, self.catalog) for outcome in outcomes if outcome.record]
        errors = [error for outcome in outcomes for error in outcome.errors]
        if errors:
            raise PullError(errors, pulled=made)
        return made[0] if isinstance(uris, str) else made

    def pull_each(
        self,
        uris: Sequence[str],
        *,
        name: str | None = None,
        force: bool = False,
        no_cache: bool = False,
        platform: str | None = None,
        format: str | None = None,
        refresh: bool = True,
        progress: Display | None = None,
    ) -> list[Outcome]:
        """As `pull`, but return what became of each image, failures too."""
        from sregistry import pipeline
        from sregistry.progress import Silent

        if name is not None and len(uris) != 1:
            raise UsageError("a name is for one image", hint="pull the others by themselves")
        given = {"name": name, "platform": platform, "format": format}
        entry = {key: value for key, value in given.items() if value is not None}
        return pipeline.run(
            [{"uri": uri, **entry} for uri in uris],
            replace(self.settings, refresh=refresh),
            environ=self._environ,
            force=force,
            no_cache=no_cache,
            shown=progress or Silent(sys.stderr),
        )

    def locate(self, uri: str) -> str:
        """Return the path of a local image, the address of a remote one. Raises CatalogError: none, or its file is gone."""
        container = self.find(uri)
        if container.image is not None and not os.path.lexists(container.image):
            raise CatalogError(f"{container.uri} was at {container.image}, but is gone", hint="pull it again")
        return container.location


def get_client(environ: Mapping[str, str] = os.environ) -> Client:
    """Return the client that *environ*, the secrets file and config/config.yaml describe. Raises ConfigError."""
    known = overlay(environ)
    client = Client(Settings.load(file=from_file(), environ=known), environ)
    if messages.shown(messages.Level.DEBUG):
        token = registry(client.settings.client, known).token
        messages.logger().debug("Headers found: %s", "Accept,Authorization" if token else "Accept")
        messages.logger().debug("Database located at %s", client.catalog.path)
    return client
