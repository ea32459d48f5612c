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

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sregistry.catalog.catalog import Catalog
from sregistry.catalog.record import Record
from sregistry.catalog.record import record as new_record
from sregistry.config.own_config import foreign, load_local
from sregistry.config.secrets_file import overlay
from sregistry.config.settings import UNVERIFIED, RegistrySettings, Settings, registry, unverified
from sregistry.config.settings import platform as parse_platform
from sregistry.errors import CatalogError, ConfigError, InvalidReference, PullError, SregistryError, UsageError
from sregistry.oci.reference import Reference, split_scheme
from sregistry.store.store import Store
from sregistry.system import logs

if TYPE_CHECKING:
    from sregistry.catalog.image_files import Removal
    from sregistry.catalog.imports.records import Intake
    from sregistry.catalog.rebuild import Rebuild
    from sregistry.catalog.sharing import Sharing
    from sregistry.pipeline.progress.displays import Display
    from sregistry.pipeline.pull import PullResult
    from sregistry.registry.client import RegistryClient


class Container(Record):
    """An image on record, with its catalog at hand; its fields are those of `Record`.

    >>> container = client.get("nvidia/caffe2:17.10")
    >>> container.client, container.collection, container.name, container.tag
    ('nvidia', 'nvidia', 'caffe2', '17.10')
    """

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
        """Return all that is known of it, all manifests included, as JSON has it.

        `sharing` is what it has in common with other images, `rebuild` the command that makes it again, null
        where the record does not say how it was made. Raises CatalogError.

        >>> found = client.get("nvidia/caffe2:17.10").inspect()
        >>> sorted(found["metrics"])
        ['2', 'selfLink']
        >>> found["facts"]["versions"]
        {'cuda': '9.0.176'}
        """
        from sregistry.catalog.rebuild import rebuild

        try:
            command = rebuild(self).json()
        except SregistryError:
            command = None
        found = {**self.json(), "metrics": self._catalog.metrics(self), "sharing": self.sharing().json(), "rebuild": command}
        del found["manifests"]  # how the catalog keeps them
        return found

    def sharing(self) -> Sharing:
        """Return its sizes and the layers that it shares with other images. Raises CatalogError.

        >>> client.get("nvidia/caffe2:17.10").sharing().layers
        2
        """
        from sregistry.catalog.sharing import sharing

        return sharing(self, self._catalog.records(), self._catalog.metrics)


class Client:
    """One user's view: the settings, the catalog, and what can be done with both.

    *environ* is what the jobs of a pull inherit; the secrets file is read where it counts. *wrong* is what the
    configuration file has against all that needs more of it than the names of client and catalog.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str], *, wrong: ConfigError | None = None) -> None:
        self.settings = settings
        self._wrong = wrong
        self.catalog = Catalog(settings.database)
        self.interactive = False
        self._environ = environ

    def __repr__(self) -> str:
        return f"<Client {self.settings.client} {self.catalog.path}>"

    def _all_settings(self) -> Settings:
        """Return the settings, all of which count. Raises ConfigError: the configuration file is wrong."""
        if self._wrong is not None:
            raise self._wrong
        return self.settings

    def announce(self) -> None:
        """Say on stderr which client and catalog are used."""
        print(f"[client|{self.settings.client}] [database|{self.catalog.path}]", file=sys.stderr)

    def images(self, query: Iterable[str] = (), *, where: str | None = None) -> list[Container]:
        """Return the records in whose client and uri all words of *query* occur, oldest first.

        Args:
            query: words, in any case.
            where: a filter that they must satisfy too, such as ``cuda>=12.4`` (catalog/filters.py).

        Raises:
            CatalogError: the catalog can't be read.
            UsageError: the filter is malformed.

        >>> client.images(["caffe2"])
        [<Container 'nvidia/caffe2:17.10'>]
        >>> client.images(where="cuda>=12.4")
        []
        """
        from sregistry.catalog.filters import parse

        words = [word.lower() for word in query]
        satisfies = parse(where) if where is not None else lambda record: True
        found = (r for r in self.catalog.records() if all(word in f"{r.client}://{r.label}".lower() for word in words) and satisfies(r))
        return [Container.of(record, self.catalog) for record in found]

    def find(self, uri: str, *, platform: str | None = None, format: str | None = None) -> Container:
        """Return the record that *uri* means: what `pull` would make of it (catalog/lookup.py).

        Args:
            uri: as `pull` takes it or `images` shows it, ``uri@version``, or the path of a file.
            platform, format: which one, where there are several of a name.

        Raises:
            CatalogError: there is none; or several, which are listed.
            InvalidReference, ConfigError: no name of an image, a platform or a format.

        >>> client.find("caffe2:17.10").uri
        'nvidia/caffe2:17.10'
        """
        return self._find(uri, platform, format)

    def _find(self, uri: str, platform: str | None, format: str | None, *, change: bool = False) -> Container:
        """As `find`; with *change*, what is meant is no other registry's than `pull` would ask."""
        from sregistry.catalog.lookup import Lookup

        lookup = Lookup.of(self.catalog, self.settings, overlay(self._environ), platform_=platform, format_=format)
        return Container.of(lookup.find(uri, change=change), self.catalog)

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
        from sregistry.pipeline import pull as pipeline
        from sregistry.pipeline.progress.displays import Silent

        if name is not None and len(uris) != 1:
            raise UsageError("a name is for one image", hint="pull the others by themselves")
        given = {"name": name, "platform": platform, "format": format}
        entry = {key: value for key, value in given.items() if value is not None}
        return pipeline.run(
            [{"uri": uri, **entry} for uri in uris],
            replace(self._all_settings(), refresh=refresh),
            environ=self._environ,
            force=force,
            no_cache=no_cache,
            shown=progress or Silent(sys.stderr),
        )

    def add(self, file: str | Path, name: str, *, copy: bool = False, force: bool = False) -> Container:
        """Take an image file, or a sandbox, into the storage folder as *name*. Raises ImageError, CatalogError, InvalidReference.

        Args:
            file: moved, unless *copy*.
            name: as `pull` takes it.
            force: replace a file that has its place.

        >>> client.add(client.get("nvidia/caffe2:17.10").location, "lab/caffe2:1", copy=True)
        <Container 'lab/caffe2:1'>
        """
        from sregistry.catalog import image_files
        from sregistry.config.targets import locate

        owner, reference = locate(name, self.settings.client, overlay(self._environ))
        place = Path.cwd() / Path(file).expanduser()
        kept, _ = image_files.add(
            self.catalog,
            place,
            self._all_settings().storage,
            client=owner.client,
            reference=reference,
            template=self.settings.filename,
            copy=copy,
            force=force,
            now=datetime.now(UTC),
        )
        return Container.of(kept, self.catalog)

    def import_(
        self, source: str | Path, *, collection: str | None = None, dry_run: bool = False, say: Callable[[str], None] = lambda line: None
    ) -> Intake:
        """Record the containers of the original sregistry's database, or the image files in a folder; no file is touched.

        Args:
            source: the database, or the folder, whose subfolders count too.
            collection: what images of a folder belong to whose origin can't be told; they are skipped without.
            dry_run: keep nothing.
            say: is told which file is read.

        Returns:
            What is new on record, what was there already, and what was skipped, and why.

        Raises:
            UsageError: neither a folder nor such a database; a bad collection.
            SregistryError: it can't be read. CatalogError: the catalog can't be written.

        >>> done = client.import_("~/.singularity/shub")
        >>> len(done.new), len(done.there), len(done.skipped)
        (0, 1, 0)
        """
        from sregistry.catalog.imports import folder as inventory
        from sregistry.catalog.imports import original_database
        from sregistry.catalog.imports.records import take_in
        from sregistry.config.temporary import working
        from sregistry.oci.reference import is_repository

        place = Path.cwd() / Path(source).expanduser()
        if not place.is_dir():
            return take_in(self.catalog, original_database.read(place, working=working(self._environ)), dry_run=dry_run)
        if collection is not None and not is_repository(collection):
            raise UsageError(f"--collection {collection!r} is no name of a collection", hint="small letters and digits, such as lab")
        recorded = {record.image for record in self.catalog.records()}
        files = [file for file in inventory.images(place) if str(file) not in recorded]
        known = [record for record in self.catalog.records() if record.image and Path(record.image).is_relative_to(place)]

        def reading() -> Iterator[Path]:
            for number, file in enumerate(files, 1):
                say(f"[{number}/{len(files)}] reading {file}")
                yield file

        found = inventory.read(reading(), self._all_settings(), overlay(self._environ), collection=collection)
        return take_in(self.catalog, [*known, *found], dry_run=dry_run)

    def mv(self, uri: str, path: str | Path, *, platform: str | None = None, format: str | None = None) -> Container:
        """Move an image's file to *path*, a folder or a new name. Raises as `find`; ImageError.

        >>> client.mv("nvidia/caffe2:17.10", "~/caffe2.sif").image
        '/.../caffe2.sif'
        """
        from sregistry.catalog import image_files

        found = self._find(uri, platform, format, change=True)
        return Container.of(image_files.move(self.catalog, found, Path(path).expanduser()), self.catalog)

    def rename(self, uri: str, new: str, *, platform: str | None = None, format: str | None = None) -> Container:
        """Give an image another name. Raises as `find`; ImageError; CatalogError: the name is taken.

        It stays an image of its registry: a new name that says another one is a UsageError.

        >>> client.rename("nvidia/caffe2:17.10", "lab/caffe2:1")
        <Container 'lab/caffe2:1'>
        """
        from sregistry.catalog import image_files

        found = self._find(uri, platform, format, change=True)
        return Container.of(image_files.rename(self.catalog, found, self._given(new, found), self.settings.filename), self.catalog)

    def tag(self, uri: str, new: str, *, platform: str | None = None, format: str | None = None) -> Container:
        """Give an image one more name, without another file. Raises as `rename`.

        >>> client.tag("nvidia/caffe2:17.10", "nvidia/caffe2:stable")
        <Container 'nvidia/caffe2:stable'>
        """
        from sregistry.catalog import image_files

        found = self._find(uri, platform, format, change=True)
        kept, _ = image_files.tag(self.catalog, found, self._given(new, found), now=datetime.now(UTC))
        return Container.of(kept, self.catalog)

    def _given(self, new: str, record: Record) -> Reference:
        """Read a name that an image is to get. Raises UsageError: it says another registry than the image's."""
        from sregistry.catalog.occupant import canonical
        from sregistry.config.targets import locate

        owner, reference = locate(new, self.settings.client, overlay(self._environ))
        scheme, rest = split_scheme(new)
        says = scheme is not None or Reference.parse(rest, registry="", collection="").registry
        if says and record.registry and canonical(record.registry) != canonical(owner.base):
            hint = "leave the registry out of the new name"
            raise UsageError(f"{new!r} is a name at {owner.base}, and {record.uri} is an image of {record.registry}", hint=hint)
        return reference

    def link(
        self,
        uri: str,
        folder: str | Path,
        *,
        engine: str,
        force: bool = False,
        platform: str | None = None,
        format: str | None = None,
    ) -> list[Path]:
        """Place links to an image under the names that a workflow engine looks for, and return them.

        Args:
            uri: with its scheme, it is also taken as the workflow's own words.
            folder: where the engine keeps its images.
            engine: snakemake or nextflow.
            force: replace files of those names, and links to other images.
            platform, format: as for `find`.

        Raises:
            CatalogError: no such image, several, or only in the registry; InvalidReference.
            ImageError: a file, or a link to another image, has the name; the folder can't be written.
            UsageError: an unknown engine; nothing says what a workflow calls the image.

        >>> client.link("docker://caffe2:17.10", "~/images", engine="nextflow")[0].name
        Traceback (most recent call last):
        sregistry.errors.CatalogError: docker://caffe2:17.10: no such image ...
        >>> client.link("nvidia://caffe2:17.10", "~/images", engine="nextflow")[0].name
        'caffe2-17.10.img'
        """
        from sregistry.catalog import engine_links

        if engine not in engine_links.RULES:
            raise UsageError(f"engine {engine!r} is unknown", hint=f"one of {', '.join(engine_links.RULES)}")
        container = self.get(uri, platform=platform, format=format)
        if container.image is None:
            raise CatalogError(f"{container.uri} is in the registry only", hint=f"`sregistry pull {uri}`")
        names = [*([uri.strip()] if split_scheme(uri)[0] else []), *engine_links.urls(container)]
        if not names:
            raise UsageError(f"{uri}: nothing says what a workflow calls this image", hint="write it as the workflow does: docker://…")
        place = Path.cwd() / Path(folder).expanduser()
        others = {
            record.image: f"{record.registry}/{record.uri}"
            for record in self.catalog.records()
            if record.image and (record.registry, record.repository) != (container.registry, container.repository)
        }
        return list(engine_links.place(engine, place, Path(container.image).absolute(), names, others, force=force))

    def check(self, *, deep: bool = False) -> list[tuple[Container, str]]:
        """Return the images whose files are gone or changed, and what is wrong. Raises CatalogError; ImageError: a file can't be read.

        Args:
            deep: read the files and compare their SHA-256; without, their sizes.

        >>> client.check(deep=True)
        []
        """
        from sregistry.catalog import image_files

        found = [(container, image_files.wrong(container, deep=deep)) for container in self.images()]
        return [(container, what) for container, what in found if what]

    def rm(self, uri: str, *, platform: str | None = None, format: str | None = None) -> None:
        """Remove an image: its record, and its file unless another record needs it. Raises as `removals`.

        >>> client.rm("nvidia/caffe2:17.10")
        >>> client.images()
        []
        """
        list(self.removals([uri], platform=platform, format=format))

    def removals(
        self, uris: Sequence[str], *, dry_run: bool = False, platform: str | None = None, format: str | None = None
    ) -> Iterator[Removal]:
        """Remove images, and yield what went with each: nothing does before all are found.

        Args:
            uris, platform, format: as for `find`, but of no other registry than `pull` would ask.
            dry_run: remove nothing, yield what would go.

        Raises:
            As `find`. ImageError: what has the file's name is no image any more; or it can't be removed.

        >>> [(removal.record.uri, removal.file.name) for removal in client.removals(["caffe2:17.10"], dry_run=True)]
        [('nvidia/caffe2:17.10', 'nvidia-caffe2:17.10.sif')]
        """
        from sregistry.catalog import image_files

        found = {record.id: record for record in (self._find(uri, platform, format, change=True) for uri in uris)}
        planned = image_files.removals(self.catalog, list(found.values()))
        for removal in planned:
            if not dry_run:
                image_files.remove(self.catalog, removal.record)
            yield removal

    def labels(self, key: str | None = None, value: str | None = None) -> list[tuple[str, str, Container]]:
        """Return the labels of images as key, value and image, sorted; those of a key, or of a key and a value. Raises CatalogError.

        >>> client.labels("maintainer")
        [('maintainer', 'NVIDIA', <Container 'nvidia/caffe2:17.10'>)]
        """
        found = [
            (name, text, container)
            for container in self.images()
            for name, text in container.facts.get("labels", {}).items()
            if key in (None, name) and value in (None, text)
        ]
        return sorted(found, key=lambda item: (item[0], item[1], item[2].label))

    def sharing(self, uri: str) -> Sharing:
        """Return the sizes of an image, and the layers that it shares with others. Raises as `find`.

        >>> client.sharing("nvidia/caffe2:17.10").shared
        ()
        """
        return self.find(uri).sharing()

    def rebuild(self, uri: str) -> Rebuild:
        """Return the command that makes an image again. Raises as `find`; CatalogError: the record does not say how it was made.

        >>> client.rebuild("nvidia/caffe2:17.10").command[:2]
        ('snakemake', '--config')
        """
        from sregistry.catalog.rebuild import rebuild

        return rebuild(self.find(uri))

    def get(self, uri: str, *, platform: str | None = None, format: str | None = None) -> Container:
        """Return what `find` does; in a shell (`interactive`), print where it is as well. Raises CatalogError also if its file is gone.

        >>> client.get("nvidia/caffe2:17.10").location
        '/.../.singularity/shub/nvidia-caffe2:17.10.sif'
        >>> client.get("nvidia/caffe2:0.0")
        Traceback (most recent call last):
        sregistry.errors.CatalogError: nvidia/caffe2:0.0: no such image in ...
        """
        container = self.find(uri, platform=platform, format=format)
        if container.image is not None and not os.path.lexists(container.image):
            raise CatalogError(f"{container.uri} was at {container.image}, but is gone", hint="pull it again")
        if self.interactive:
            print(container.location)
        return container

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
        from sregistry.catalog.image_facts import facts
        from sregistry.config.targets import locate
        from sregistry.oci.json_fields import load_json
        from sregistry.registry.resolve import resolve
        from sregistry.results.resolved import SIF

        if self._all_settings().disable:
            raise ConfigError("SREGISTRY_DISABLE is set: nothing is recorded", hint="unset it")
        wanted = parse_platform(platform, "platform") if platform else self.settings.platform
        settings, reference = locate(uri, self.settings.client, overlay(self._environ))
        if reference.version:
            raise InvalidReference(f"{uri!r} names one build of an image, which no registry has", hint="leave out what follows '@'")
        with self._connect(settings) as connection, self._store() as store:
            resolved = resolve(connection, reference, wanted, store)
        for line in resolved.warnings:
            logs.logger().warning("%s: %s", resolved.uri, line)
        config = {} if resolved.kind == SIF else load_json(resolved.image_config.encode(), "config")
        written = new_record(resolved, None, now=datetime.now(UTC), facts=facts(config, str(resolved.platform)))
        kept, new = self.catalog.add(written)
        return Container.of(kept, self.catalog), new

    def _connect(self, settings: RegistrySettings) -> RegistryClient:
        """Return a client of a registry, for somebody who waits."""
        from sregistry.registry.client import RegistryClient
        from sregistry.registry.credentials import Keyring
        from sregistry.registry.login_check import PATIENCE
        from sregistry.registry.rate_limit import Pace

        if settings.https and unverified(overlay(self._environ)):
            logs.logger().warning(UNVERIFIED)
        pace = Pace(Store(self.settings.store), settings.base, settings.rate)
        return RegistryClient(settings, patience=PATIENCE, pace=pace, keyring=Keyring(settings, overlay(self._environ)))

    @contextlib.contextmanager
    def _store(self) -> Iterator[Store]:
        """Give the store, or, where it can't be written, one that is thrown away and reads it."""
        from sregistry.config.temporary import working

        mine = Store(self.settings.store, self.settings.cache_from)
        try:
            writable = os.access(mine.folder(mine.root / "ingest"), os.W_OK)
        except OSError:
            writable = False
        if writable:
            yield mine
            return
        with tempfile.TemporaryDirectory(prefix="sregistry-", dir=working(self._environ)) as folder:
            yield Store(Path(folder), (self.settings.cache, *self.settings.cache_from))


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
