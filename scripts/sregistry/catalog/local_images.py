"""Images on record: the verbs that ask no registry, as methods (`Client` adds those that do)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sregistry.catalog.catalog import Catalog
from sregistry.catalog.container import Container, labelled
from sregistry.config.secrets_file import overlay
from sregistry.config.settings import Settings
from sregistry.errors import CatalogError, ConfigError

if TYPE_CHECKING:
    from sregistry.catalog.image_files import Removal
    from sregistry.catalog.imports.records import Imported
    from sregistry.catalog.rebuild import Rebuild
    from sregistry.catalog.sharing import Sharing


class LocalImages:
    """One user's images: the settings, the catalog, and what can be done with both.

    *environ* is what the jobs of a pull inherit; the secrets file is read where it counts. *wrong* is what the
    configuration file has against all that needs more of it than the names of client and catalog.
    """

    def __init__(self, settings: Settings, environ: Mapping[str, str], *, wrong: ConfigError | None = None) -> None:
        self.settings = settings
        self._wrong = wrong
        self.catalog = Catalog(settings.database)
        self.interactive = False
        self._environ = environ

    def _all_settings(self) -> Settings:
        """Return the settings, all of which count. Raises ConfigError: the configuration file is wrong."""
        if self._wrong is not None:
            raise self._wrong
        return self.settings

    def images(self, query: Iterable[str] = (), *, where: str | Sequence[str] | None = None) -> list[Container]:
        """Return the records in whose client and uri all words of *query* occur, oldest first.

        Args:
            query: words, in any case.
            where: a filter that they must satisfy too, such as ``cuda>=12.4`` (catalog/filters.py), or several.

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
        filters = [parse(text) for text in ([where] if isinstance(where, str) else where or ())]
        found = (r for r in self.catalog.records() if all(word in f"{r.client}://{r.label}".lower() for word in words))
        found = (record for record in found if all(satisfies(record) for satisfies in filters))
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
    ) -> Imported:
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
        from sregistry.catalog.imports import folder, original_database
        from sregistry.catalog.imports.records import import_records
        from sregistry.config.temporary import working

        place = Path.cwd() / Path(source).expanduser()
        if not place.is_dir():
            return import_records(self.catalog, original_database.read(place, working=working(self._environ)), dry_run=dry_run)
        settings, environ = self._all_settings(), overlay(self._environ)
        found = folder.records(self.catalog, place, settings, environ, collection=collection, say=say)
        return import_records(self.catalog, found, dry_run=dry_run)

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
        from sregistry.catalog.lookup import named

        found = self._find(uri, platform, format, change=True)
        return Container.of(
            image_files.rename(
                self.catalog, found, named(new, found, self.settings.client, overlay(self._environ)), self.settings.filename
            ),
            self.catalog,
        )

    def tag(self, uri: str, new: str, *, platform: str | None = None, format: str | None = None) -> Container:
        """Give an image one more name, without another file. Raises as `rename`.

        >>> client.tag("nvidia/caffe2:17.10", "nvidia/caffe2:stable")
        <Container 'nvidia/caffe2:stable'>
        """
        from sregistry.catalog import image_files
        from sregistry.catalog.lookup import named

        found = self._find(uri, platform, format, change=True)
        kept, _ = image_files.tag(
            self.catalog, found, named(new, found, self.settings.client, overlay(self._environ)), now=datetime.now(UTC)
        )
        return Container.of(kept, self.catalog)

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

        engine_links.check(engine)
        container = self.get(uri, platform=platform, format=format)
        place = Path.cwd() / Path(folder).expanduser()
        return engine_links.link(self.catalog, container, uri, engine, place, force=force)

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
        return labelled(self.images(), key, value)

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
