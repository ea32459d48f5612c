"""`sregistry link --for snakemake|nextflow DIR URI…`: workflow engines find the images as if they had pulled them."""

from __future__ import annotations

import argparse

from sregistry.cli.arguments import add_uri, each, open_client, selection
from sregistry.terminal import printable, result

#: Those of catalog/engine_links.py, which is imported when it is needed.
ENGINES = ("nextflow", "snakemake")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.description = (
        "Place links to images under the names that an engine looks for: Snakemake in --apptainer-prefix, Nextflow in"
        " NXF_SINGULARITY_CACHEDIR. It then pulls nothing. After a tag has moved and was pulled again, link it again."
    )
    command.add_argument("--for", dest="engine", choices=ENGINES, required=True, help="whose names")
    command.add_argument("--force", action="store_true", help="replace files of those names, not only links")
    command.add_argument("folder", metavar="DIR", help="where the engine keeps its images")
    add_uri(command, nargs="+", help="an image on record; best as the workflow names it, such as docker://ubuntu:22.04")


def run(options: argparse.Namespace) -> int:
    """Link each image; one that fails is reported, and the others go on."""
    client = open_client(options)

    def link(uri: str) -> None:
        for path in client.link(uri, options.folder, engine=options.engine, force=options.force, **selection(options)):
            print(result(str(path)) if options.quiet else printable(f"[link] {path} => {path.readlink()}"), flush=True)

    return each(options.uri, link)
