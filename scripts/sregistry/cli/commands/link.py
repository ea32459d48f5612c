"""`sregistry link --for snakemake|nextflow DIR URI…`: workflow engines find the images as if they had pulled them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sregistry.cli.commands import open_client
from sregistry.cli.commands.completion import add_uri
from sregistry.terminal import printable, result

if TYPE_CHECKING:
    from sregistry.cli.commands import Commands

#: Those of catalog/engine_links.py, which is imported when it is needed.
ENGINES = ("nextflow", "snakemake")


def register(commands: Commands) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "link",
        help="give images to Snakemake or Nextflow",
        description="Place links to images under the names that an engine looks for: Snakemake in --apptainer-prefix, Nextflow in"
        " NXF_SINGULARITY_CACHEDIR. It then pulls nothing. After a tag has moved and was pulled again, link it again.",
    )
    command.add_argument("--for", dest="engine", choices=ENGINES, required=True, help="whose names")
    command.add_argument("--force", action="store_true", help="replace files of those names, not only links")
    command.add_argument("folder", metavar="DIR", help="where the engine keeps its images")
    add_uri(command, nargs="+", help="an image on record; best as the workflow names it, such as docker://ubuntu:22.04")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Link each image; one that fails is reported, and the others go on."""
    from sregistry.errors import SregistryError, report

    client = open_client(options)
    which = {"engine": options.engine, "force": options.force, "platform": options.platform, "format": options.format}
    code = 0
    for uri in options.uri:
        try:
            for path in client.link(uri, options.folder, **which):
                print(result(str(path)) if options.quiet else printable(f"[link] {path} => {path.readlink()}"), flush=True)
        except SregistryError as error:
            code = max(code, report(error))
    return code
