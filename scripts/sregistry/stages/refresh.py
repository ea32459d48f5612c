"""Ask what all tags and patterns mean now, compare with what they meant, and tell what changed.

```
questions ─▶ `connections` threads ─▶ registries ─▶ [TagChange], [Change] ─▶ refresh.json, lines on stdout
```
"""

from __future__ import annotations

import argparse
import itertools
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sregistry.errors import RegistryError, SregistryError
from sregistry.stages import arguments
from sregistry.stages.tags import meant_tags
from sregistry.terminal import printable

if TYPE_CHECKING:
    from sregistry.results.changes import Change, TagChange

T = TypeVar("T")


def register(stages: arguments.Stages) -> None:
    """Add the command."""
    stage = arguments.command(stages, "refresh", run, "tell what changed", "store", "output")
    stage.add_argument("--questions", type=Path, required=True, metavar="FILE", help="images and patterns, and what they meant; removed")
    stage.add_argument("--connections", type=int, default=1, metavar="N", help="at a time")


def run(options: argparse.Namespace) -> None:
    """Tell what changed, on stdout and as JSON. Raises RegistryError: a registry did not tell everything."""
    import tempfile

    from sregistry.config import temporary
    from sregistry.config.secrets_file import overlay
    from sregistry.results import receipts
    from sregistry.results.changes import FAILED, as_table

    asked = receipts.read(options.questions)
    environ = overlay(os.environ)
    with tempfile.TemporaryDirectory(prefix="sregistry-refresh-", dir=temporary.working(environ)) as folder:
        tags = [partial(_pattern, options, pattern) for pattern in asked["patterns"]]
        asides = (Path(folder, str(number)) for number in itertools.count())
        manifests = [partial(_image, options, image, aside, environ) for image, aside in zip(asked["images"], asides, strict=False)]
        found: list[Any] = answers([*tags, *manifests], options.connections)
    patterns: list[TagChange] = found[: len(tags)]
    images: list[Change] = list(dict.fromkeys(found[len(tags) :]))  # what becomes several files is told once
    value = {"version": 1, "images": [item.json() for item in images], "patterns": [item.json() for item in patterns]}
    receipts.write(options.output, value)
    options.questions.unlink(missing_ok=True)
    print("\n".join(map(printable, as_table(images, patterns))), flush=True)
    errors = [pattern.error for pattern in patterns if pattern.status == FAILED]
    errors += [image.error for image in images if image.status == FAILED]
    if errors:
        more = f" (and {len(errors) - 1} more, above)" if len(errors) > 1 else ""
        raise RegistryError(f"{errors[0]}{more}")


def _image(options: argparse.Namespace, image: Mapping[str, Any], aside: Path, environ: Mapping[str, str]) -> Change:
    """Ask what a reference means now; nothing of it is kept but in *aside*. A refusal is part of the answer."""
    from sregistry.config.targets import locate
    from sregistry.oci.documents import Platform
    from sregistry.registry.client import connect
    from sregistry.registry.resolve import resolve
    from sregistry.results.changes import Change
    from sregistry.results.resolved import Resolved
    from sregistry.store.store import Store

    try:
        known = Resolved.read(Path(image["pinned"]))
    except SregistryError:
        known = None
    before = image["locked"] or (None if known is None else str(known.named))
    if known is not None and str(known.named) != before:
        known = None
    described = {"uri": image["uri"], "platform": image["platform"], "before": before}
    store = arguments.store(options)
    try:
        settings, reference = locate(image["uri"], image["client"], environ)
        with connect(settings, environ, store) as client:
            after = resolve(client, reference, Platform.parse(image["platform"]), Store(aside, (store.root, *options.cache_from)))
            return Change.of(**described, manifest=known, after=after, store=store)
    except SregistryError as error:
        return Change(**described, after=None, error=str(error))


def _pattern(options: argparse.Namespace, pattern: Mapping[str, Any]) -> TagChange:
    """Ask which tags a pattern means now. A refusal is part of the answer."""
    from sregistry.results.changes import TagChange

    uri, tags, newest, before = (pattern[name] for name in ("uri", "tags", "newest", "before"))
    described = f"{uri}:{tags}" + (f" (newest {newest})" if newest else "")
    asked = argparse.Namespace(**{**vars(options), "uri": uri, "client": pattern["client"], "tags": tags, "newest": newest})
    try:
        return TagChange(uri=described, before=before, after=meant_tags(asked))
    except SregistryError as error:
        return TagChange(uri=described, before=before, after=None, error=str(error))


def answers(questions: Iterable[Callable[[], T]], threads: int) -> list[T]:
    """Return what *questions* return, in their order; so many *threads* ask at a time. An exception of one is raised at the end."""
    waiting = iter(enumerate(questions))
    lock = threading.Lock()
    answers: dict[int, T] = {}
    problems: list[BaseException] = []

    def ask() -> None:
        try:
            while True:
                with lock:
                    number, question = next(waiting, (None, None))
                if number is None or question is None:
                    return
                answers[number] = question()
        except BaseException as error:  # noqa: BLE001 - raised where the stage reports it
            problems.append(error)

    # Daemons: Ctrl-C waits for no registry.
    running = [threading.Thread(target=ask, daemon=True) for _ in range(max(1, threads))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if problems:
        raise problems[0]
    return [answers[number] for number in sorted(answers)]
