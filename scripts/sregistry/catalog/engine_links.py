"""Links to images, under the names by which workflow engines look for what they have pulled.

```
                       docker://nvcr.io/nvidia/caffe2:17.10
snakemake   <DIR>/<md5 of that text>.simg            DIR is --apptainer-prefix, or .snakemake/singularity
nextflow    <DIR>/nvcr.io-nvidia-caffe2-17.10.img    DIR is NXF_SINGULARITY_CACHEDIR, or singularity.cacheDir
```

The engine finds its image and pulls nothing. Sources of the rules: Snakemake, `deployment/singularity.py`, `Image.path`;
Nextflow, `SingularityCache.simpleName`, and its documentation, "Containers: Singularity". Both go by what the workflow
says, letter by letter, so there is a link for each way to say it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from sregistry.catalog.catalog import Catalog
from sregistry.catalog.record import Record
from sregistry.config.filename import neighbour
from sregistry.config.registries import rows
from sregistry.errors import CatalogError, ImageError, UsageError, from_oserror
from sregistry.oci.reference import DEFAULT_TAG, split_scheme

_SCHEME = "docker://"
_HUB = "docker"


def snakemake(url: str) -> str:
    """Return the file that Snakemake looks for, for the url of a `container:` directive."""
    return hashlib.md5(url.encode(), usedforsecurity=False).hexdigest() + ".simg"


def nextflow(url: str) -> str:
    """Return the file that Nextflow looks for, for the url of a `container` directive, with or without its scheme."""
    name = url.partition("://")[2] or url
    ending = ".img"
    if ".sif:" in name:
        name, ending = name.replace(".sif:", "-"), ".sif"
    elif name.endswith(".sif"):
        name, ending = name.removesuffix(".sif"), ".sif"
    return name.replace(":", "-").replace("/", "-") + ending


#: Engine → its rule.
RULES: Mapping[str, Callable[[str], str]] = {"snakemake": snakemake, "nextflow": nextflow}


def check(engine: str) -> None:
    """Raise UsageError: an unknown engine."""
    if engine not in RULES:
        raise UsageError(f"engine {engine!r} is unknown", hint=f"one of {', '.join(RULES)}")


def link(catalog: Catalog, record: Record, uri: str, engine: str, folder: Path, *, force: bool) -> list[Path]:
    """Place links to an image on record, and return them.

    Args:
        uri: how it is called; with a scheme, the workflow may call it so, too.

    Raises:
        CatalogError: it is only in the registry. UsageError: nothing says what a workflow calls it. ImageError: as `place`.
    """
    if record.image is None:
        raise CatalogError(f"{record.uri} is in the registry only", hint=f"`sregistry pull {uri}`")
    names = [*([uri.strip()] if split_scheme(uri)[0] else []), *urls(record)]
    if not names:
        raise UsageError(f"{uri}: nothing says what a workflow calls this image", hint="write it as the workflow does: docker://…")
    others = {
        other.image: f"{other.registry}/{other.uri}"
        for other in catalog.records()
        if other.image and (other.registry, other.repository) != (record.registry, record.repository)
    }
    return list(place(engine, folder, Path(record.image).absolute(), names, others, force=force))


def urls(record: Record) -> list[str]:
    """Return the ways in which a workflow may name an image; none where its record does not say where it is from.

    Docker Hub goes without its name, and `library` without being said; so does the tag `latest`.
    """
    if not record.registry:
        return []
    hosts, repositories = [record.registry], [record.repository]
    if record.client == _HUB and record.registry == rows()[_HUB].base:
        hosts = ["", *rows()[_HUB].aliases]
        repositories = [record.repository.removeprefix("library/"), record.repository]
    ends = [f":{record.tag}"] if record.tag else []
    ends += [""] if record.tag == DEFAULT_TAG else []
    ends += [f"@{record.digest}"] if record.digest else []
    names = [f"{host}/{repository}".lstrip("/") for host in hosts for repository in dict.fromkeys(repositories)]
    return [f"{_SCHEME}{name}{end}" for name in names for end in ends]


def place(engine: str, folder: Path, image: Path, names: list[str], others: Mapping[str, str], *, force: bool = False) -> Iterator[Path]:
    """Place links to *image* in *folder*, which is made; yield each. A link to what the image was before gives way.

    Args:
        engine: one of RULES.
        names: what workflows call the image, as `urls`.
        others: path → name of other images: engines write several names as one, and a link to another image stays.
        force: replace files too, such as the engine's own, and links to other images.

    Raises:
        ImageError: a file, or a link to another image, has the name; the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in dict.fromkeys(RULES[engine](url) for url in names):
            path = folder / name
            if os.path.lexists(path) and not path.is_symlink() and not force:
                raise ImageError(f"{path} is there already, and is no link", hint="remove it, or say --force")
            other = others.get(os.path.normpath(folder / path.readlink())) if path.is_symlink() and not force else None
            if other is not None:
                raise ImageError(f"{path} is a link to {other}, another image", hint="choose another folder, or say --force")
            if not (path.is_symlink() and path.readlink() == image):
                _link(path, image)
            yield path
    except OSError as error:
        raise from_oserror(error, ImageError, "can't link") from error


def _link(path: Path, image: Path) -> None:
    """Have *path* be a link, at once: an engine that looks finds the one before or this one."""
    aside = path.with_name(f"{neighbour(path.name)}{secrets.token_hex(4)}")
    aside.symlink_to(image)
    try:
        aside.replace(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            aside.unlink()
