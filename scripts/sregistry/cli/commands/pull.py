"""`sregistry pull URI…`: build images, store and record them. The pipeline, with its progress."""

from __future__ import annotations

import argparse
import sys

from sregistry.cli.arguments import FORMATS, open_client, selection
from sregistry.terminal import printable, result


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    command.description = "Fetch the layers of images, build the images, store and record them. What is there already is not made again."
    command.add_argument("uri", nargs="+", metavar="URI", help="such as nvidia/caffe2:17.10 or docker://busybox")
    command.add_argument("--name", metavar="FILE", help="name of the image's file, for one URI")
    command.add_argument("--force", action="store_true", help="build again what is there, also in the place of another image")
    command.add_argument("--no-cache", action="store_true", help="keep no layers for the next image")
    command.add_argument("--platform", metavar="OS/ARCH", help="such as linux/arm64; this machine's by default")
    command.add_argument("--format", choices=FORMATS, help="of the image")
    command.add_argument("--pinned", action="store_true", help="use the digest that the tag had at the last pull")


def run(options: argparse.Namespace) -> int:
    """Pull; what was made is told on stdout, what could not be made on stderr."""
    import signal

    from sregistry.pipeline.progress.displays import display

    # So that the jobs are ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    outcomes = open_client(options).pull_each(
        options.uri,
        name=options.name,
        force=options.force,
        no_cache=options.no_cache,
        **selection(options),
        refresh=not options.pinned,
        progress=display(quiet=options.quiet),
    )
    for outcome in outcomes:
        if outcome.record is None:
            continue
        if options.quiet:
            print(result(outcome.record.location))
            continue
        if outcome.change:
            print(printable(f"[container][{outcome.change}] {outcome.record.uri}"))
        print(printable(f"Success! {outcome.record.location}"))
    sys.stdout.flush()
    for error in dict.fromkeys(error for outcome in outcomes for error in outcome.errors):
        print(printable(f"error: {error}"), file=sys.stderr)
    return int(any(outcome.errors for outcome in outcomes))
