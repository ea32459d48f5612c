"""The Python client: what the commands do, for programs.

>>> from sregistry import get_client
>>> client = get_client()
>>> container = client.pull("nvidia/caffe2:17.10")
>>> container
<Container 'nvidia/caffe2:17.10'>
>>> container.image
'/.../.singularity/shub/nvidia-caffe2:17.10.sif'

All errors are of `sregistry.errors`: an `SregistryError` has a `message`, often a `hint`, and the command's `exit_code`.
In the examples, nvidia/caffe2:17.10 was pulled, and `client` is what `get_client` returns.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from sregistry.catalog.container import Container
from sregistry.catalog.local_images import LocalImages
from sregistry.config import options
from sregistry.config.own_config import foreign, load_local
from sregistry.config.secrets_file import overlay
from sregistry.config.settings import UNVERIFIED, RegistrySettings, registry, unverified
from sregistry.errors import ConfigError, InvalidReference, PullError, UsageError
from sregistry.system import logs

if TYPE_CHECKING:
    from sregistry.pipeline.progress.displays import Display
    from sregistry.pipeline.pull import PullResult
    from sregistry.registry.client import RegistryClient

__all__ = ["Client", "Container", "get_client"]


class Client(LocalImages):
    """One user's view: the images on record (catalog/local_images.py), and those of registries."""

    def __repr__(self) -> str:
        return f"<Client {self.settings.client} {self.catalog.path}>"

    def announce(self) -> None:
        """Say on stderr which client and catalog are used."""
        print(f"[client|{self.settings.client}] [database|{self.catalog.path}]", file=sys.stderr)

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
            force: build again what is there, also in the place of another image.
            no_cache: keep no layers.
            platform: os/architecture[/variant].
            format: sif, simg or sandbox.
            refresh: else what a tag meant the last time still counts.
            progress: shows how far it is, such as `progress.displays.display()`; nothing does by default.

        Returns:
            The record of one, or a list for several, in their order.

        Raises:
            PullError: some could not be made, such as one whose file holds another image; `errors` says why, `pulled`
                holds those that were.
            UsageError: a reference or a setting is wrong.

        >>> client.pull(["nvidia/caffe2:17.10", "nvidia/tensorflow:17.11"])
        [<Container 'nvidia/caffe2:17.10'>, <Container 'nvidia/tensorflow:17.11'>]
        >>> client.pull("nvidia/caffe2:0.0")
        Traceback (most recent call last):
        sregistry.errors.PullError: ...
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
    ) -> list[PullResult]:
        """As `pull`, but return what became of each image, failures too."""
        from sregistry.pipeline import pull
        from sregistry.pipeline.progress.displays import Silent

        if name is not None and len(uris) != 1:
            raise UsageError("a name is for one image", hint="pull the others by themselves")
        given = {"name": name, "platform": platform, "format": format}
        entry = {key: value for key, value in given.items() if value is not None}
        return pull.run(
            [{"uri": uri, **entry} for uri in uris],
            replace(self._all_settings(), refresh=refresh),
            environ=self._environ,
            force=force,
            no_cache=no_cache,
            shown=progress or Silent(sys.stderr),
        )

    def search(self, query: str) -> list[str]:
        """Return what the registry has, named so that `pull` takes it, the newest version last.

        Args:
            query: ``nvidia/pytorch`` or ``nvidia/pytorch:24.*-py3``: tags; a pattern such as ``nvidia/*torch*``, or a word:
                repositories, where the registry lists them.

        Raises:
            RegistryError: unreachable; no such repository; no list of repositories. AuthenticationError: refused.
            DocumentError: what the registry sends is malformed.
            UsageError: what can't be looked for.

        >>> client.search("nvidia/caffe2")
        ['nvidia/caffe2:17.10', 'nvidia/caffe2:17.12']
        """
        from sregistry.registry.search import Search

        meant = Search.parse(query, self._all_settings().client, overlay(self._environ))
        with self._connect(meant.settings) as connection:
            return meant.run(connection)

    def record(self, uri: str, *, platform: str | None = None) -> Container:
        """Record an image without pulling it: its manifests are fetched, and `get` says where it is.

        Args:
            uri: as `pull` takes it.
            platform: which one, where the image is for several; that of the settings without.

        Raises:
            RegistryError, AuthenticationError, DigestMismatch, DocumentError: it can't be had.
            InvalidReference, ConfigError: the text names no image or no platform; the catalog is turned off.
            CatalogError: it can't be written.

        >>> client.record("nvidia/caffe2:17.12").location
        'http.../v2/nvidia/caffe2/manifests/17.12'
        """
        return self.add_remote(uri, platform=platform)[0]

    def add_remote(self, uri: str, *, platform: str | None = None) -> tuple[Container, bool]:
        """As `record`; and say whether it is new."""
        from sregistry.catalog.remote import record_remote
        from sregistry.config.targets import locate
        from sregistry.config.temporary import writable_store

        if self._all_settings().disable:
            raise ConfigError("SREGISTRY_DISABLE is set: nothing is recorded", hint="unset it")
        wanted = options.platform(platform, "platform") if platform else self.settings.platform
        settings, reference = locate(uri, self.settings.client, overlay(self._environ))
        if reference.version:
            raise InvalidReference(f"{uri!r} names one build of an image, which no registry has", hint="leave out what follows '@'")
        with self._connect(settings) as connection, writable_store(self.settings, self._environ) as store:
            kept, new = record_remote(self.catalog, connection, reference, wanted, store, now=datetime.now(UTC))
        return Container.of(kept, self.catalog), new

    def _connect(self, settings: RegistrySettings) -> RegistryClient:
        """Return a client of a registry, for somebody who waits."""
        from sregistry.registry.client import connect
        from sregistry.registry.http import IMPATIENT
        from sregistry.store.store import Store

        environ = overlay(self._environ)
        if settings.https and unverified(environ):
            logs.logger().warning(UNVERIFIED)
        return connect(settings, environ, Store(self.settings.store), patience=IMPATIENT)


def get_client(environ: Mapping[str, str] = os.environ) -> Client:
    """Return the client that *environ*, the secrets file and config/config.yaml describe. Raises ConfigError.

    >>> get_client()
    <Client nvidia /.../.singularity/sregistry.json>
    """
    known = overlay(environ)
    settings, wrong = load_local(known)
    client = Client(settings, environ, wrong=wrong)
    for warning in filter(None, (foreign(), wrong)):
        logs.logger().warning("%s", warning)
    if logs.shown(logs.Level.DEBUG):
        token = registry(client.settings.client, known).token
        logs.logger().debug("Headers found: %s", "Accept,Authorization" if token else "Accept")
        logs.logger().debug("Database located at %s", client.catalog.path)
    return client
