"""The stages as commands: one subcommand a rule, each of them can be run by hand.

```
python -m sregistry.stage tags | targets | pattern | manifest | manifests | layer | explode | metadata | sandbox | image | catalog
                          change | tagchange | refresh
```

An output is a receipt, written whole at the end. An error is one line on stderr, and its exit code.
A job starts in some 20 ms: whatever a stage needs is imported inside it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sregistry import messages
from sregistry.errors import DigestMismatch, SregistryError, StoreError, UsageError, from_oserror, report
from sregistry.pulse import say

if TYPE_CHECKING:
    from sregistry.compression import Compression
    from sregistry.manifest import Resolved
    from sregistry.registry import RegistryClient
    from sregistry.settings import RegistrySettings
    from sregistry.store import Store

_INTERRUPTED = 130  # as a shell has it: 128 + SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        messages.set_up(os.environ)
        options.run(options)
    except SregistryError as error:
        return report(error)
    except OSError as error:
        return report(from_oserror(error, StoreError, options.stage))
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def _tags(options: argparse.Namespace) -> None:
    """Ask which tags of a repository a pattern means. A refusal is written down: images go on, `pattern` reports it."""
    from sregistry import receipt

    output: Path = options.output
    pinned = _pinned(output)
    try:
        chosen = _chosen(options)
    except SregistryError as error:
        known = json.loads(pinned)["tags"] if pinned else []
        receipt.write(output, {"uri": options.uri, "tags": known, "error": str(error), "pinned": pinned})
        return
    receipt.write(output, {"uri": options.uri, "tags": chosen})


def _chosen(options: argparse.Namespace) -> list[str]:
    """Return the tags that a pattern means now."""
    from sregistry.listing import tags
    from sregistry.pattern import choose
    from sregistry.secrets import overlay
    from sregistry.target import locate

    environ = overlay(os.environ)
    settings, reference = locate(options.uri, options.client, environ)
    with _client(settings, _store(options), environ) as client:
        offered = tags(client, reference)
    try:
        return choose(offered, options.tags, options.newest)
    except SregistryError as error:
        raise type(error)(f"{options.uri}: {error.message}", hint=error.hint) from None


def _targets(options: argparse.Namespace) -> None:
    """Gather the tags of all patterns, and which patterns failed."""
    from sregistry import receipt

    values = {path.stem: receipt.read(path) for path in options.lists}
    failed = {key: value["error"] for key, value in values.items() if "error" in value}
    receipt.write(options.output, {"tags": {key: value["tags"] for key, value in values.items()}, "failed": failed})


def _pattern(options: argparse.Namespace) -> None:
    """Report why a pattern has no tags; its list is discarded, so that the next run asks again."""
    from sregistry import receipt
    from sregistry.errors import RegistryError

    value = receipt.read(options.list)
    receipt.discard(options.list, value)
    raise RegistryError(value.get("error", f"{options.list} has tags"))


def _manifest(options: argparse.Namespace) -> None:
    """Resolve a reference. A refusal is written down: other images go on, `metadata` reports it."""
    from sregistry import receipt
    from sregistry.manifest import resolve
    from sregistry.oci import Digest, Platform
    from sregistry.secrets import overlay
    from sregistry.target import locate

    output: Path = options.output
    pinned = _pinned(output)
    try:
        environ = overlay(os.environ)
        settings, reference = locate(options.uri, options.client, environ)
        store = _store(options)
        locked = Digest(options.locked) if options.locked else None
        with _client(settings, store, environ) as client:
            resolved = resolve(client, reference, Platform.parse(options.platform), store, locked=locked)
    except SregistryError as error:
        receipt.write(output, {"uri": options.uri, "error": str(error), "pinned": pinned})
        return
    resolved.write(output)


def _change(options: argparse.Namespace) -> None:
    """Ask what a reference means now, and compare. Nothing of it is kept; a refusal is written down, and `refresh` reports it."""
    import tempfile

    from sregistry import receipt, scratch
    from sregistry.change import Change
    from sregistry.manifest import Resolved, resolve
    from sregistry.oci import Platform
    from sregistry.secrets import overlay
    from sregistry.store import Store
    from sregistry.target import locate

    try:
        known = Resolved.read(options.pinned)
    except SregistryError:
        known = None
    before = options.locked or (None if known is None else str(known.named))
    if known is not None and str(known.named) != before:
        known = None
    image = {"uri": options.uri, "platform": options.platform, "before": before}
    store = _store(options)
    try:
        environ = overlay(os.environ)
        settings, reference = locate(options.uri, options.client, environ)
        with (
            tempfile.TemporaryDirectory(prefix="sregistry-change-", dir=scratch.working(environ)) as folder,
            _client(settings, store, environ) as client,
        ):
            aside = Store(Path(folder), (store.root, *options.cache_from))
            after = resolve(client, reference, Platform.parse(options.platform), aside)
            change = Change.of(**image, manifest=known, after=after, store=store)
    except SregistryError as error:
        change = Change(**image, after=None, error=str(error))
    receipt.write(options.output, change.json())


def _tagchange(options: argparse.Namespace) -> None:
    """Ask which tags a pattern means now, and compare. A refusal is written down, and `refresh` reports it."""
    from sregistry import receipt
    from sregistry.change import TagChange

    described = f"{options.uri}:{options.tags}" + (f" (newest {options.newest})" if options.newest else "")
    before = json.loads(options.before)
    try:
        change = TagChange(uri=described, before=before, after=_chosen(options))
    except SregistryError as error:
        change = TagChange(uri=described, before=before, after=None, error=str(error))
    receipt.write(options.output, change.json())


def _refresh(options: argparse.Namespace) -> None:
    """Tell what changed, on stdout and as JSON. Raises RegistryError: a registry did not tell everything."""
    from sregistry import receipt
    from sregistry.change import FAILED, Change, TagChange, told
    from sregistry.errors import RegistryError

    values = [receipt.read(path) for path in options.changes]
    # What becomes several files is told once.
    images = list(dict.fromkeys(Change.parse(value) for value in values if "platform" in value))
    patterns = [TagChange.parse(value) for value in values if "platform" not in value]
    value = {"version": 1, "images": [item.json() for item in images], "patterns": [item.json() for item in patterns]}
    receipt.write(options.output, value)
    print("\n".join(told(images, patterns)), flush=True)
    errors = [item.error for item in patterns if item.status == FAILED] + [item.error for item in images if item.status == FAILED]
    if errors:
        more = f" (and {len(errors) - 1} more, above)" if len(errors) > 1 else ""
        raise RegistryError(f"{errors[0]}{more}")


def _pinned(path: Path) -> str | None:
    """Return what an earlier run resolved: a failed refresh gives it back."""
    from sregistry import receipt

    try:
        value = receipt.read(path)
        return value.get("pinned") if "error" in value else path.read_text()
    except (SregistryError, OSError):
        return None


def _manifests(options: argparse.Namespace) -> None:
    """Gather the layers of all images, and which are SIFs; an image that could not be resolved has none."""
    from sregistry import receipt

    layers = {}
    sizes: dict[str, int | None] = {}
    sifs = []
    for path in options.manifests:
        value = receipt.read(path)
        found = {layer["digest"]: layer["size"] for layer in value.get("layers", ())}
        layers[path.parent.name] = list(found)
        # One manifest may know the size that another, of schema 1, does not.
        sizes |= {digest: size for digest, size in found.items() if sizes.get(digest) is None}
        if value.get("kind") == "sif":
            sifs.append(path.parent.name)
    receipt.write(options.output, {"layers": layers, "sizes": sizes, "sifs": sifs})


def _layer(options: argparse.Namespace) -> None:
    """Download one blob into the store."""
    from sregistry import receipt
    from sregistry.inflate import is_estargz
    from sregistry.layer import fetch
    from sregistry.oci import Digest
    from sregistry.secrets import overlay
    from sregistry.settings import registry

    resolved, store = _resolved(options.manifest), _store(options)
    environ = overlay(os.environ)
    settings = registry(resolved.client, environ, fallback=resolved.registry)
    layer = resolved.layer(Digest(options.digest))
    was = store.has(layer.blob.digest, layer.blob.size)
    start = time.monotonic()
    try:
        with _client(settings, store, environ) as client:
            made = fetch(client, resolved.reference, layer, store, connections=options.connections)
        path = Path(made["holds"][0]["path"])
        with path.open("rb") as file:
            estargz = is_estargz(file)
    except FileNotFoundError as error:
        raise StoreError(f"{error.filename} was removed meanwhile", hint="run again to fetch it anew") from error
    receipt.write(options.output, {**made, "estargz": estargz, "store": str(store.root)})
    there = was or store.root not in path.parents
    say(f"layer {_short(options.digest)}: {_amount(made['size']) + ', there already' if there else _rated(made['size'], start)}")


def _explode(options: argparse.Namespace) -> None:
    """Inflate a layer and compress it as squashfs blocks."""
    from sregistry import receipt
    from sregistry.cores import usable
    from sregistry.explode import explode
    from sregistry.oci import Digest

    layer = receipt.read(options.layer)
    store = _store(options)
    diff_id = Digest(layer["diff_id"]) if layer["diff_id"] else None
    threads = min(options.threads, usable())
    path = Path(layer["holds"][0]["path"])
    compression = _compression(options)
    there = diff_id is not None and store.find_exploded(compression.variant, diff_id) is not None
    start = time.monotonic()
    made = explode(store, Digest(layer["digest"]), diff_id, compression, threads, path=path, limit=options.limit)
    kept = {"digest": layer["digest"], "estargz": layer.get("estargz", False), "store": str(store.root)}
    receipt.write(options.output, {**made, **kept})
    say(f"explode {_short(layer['digest'])}: {_amount(layer['size']) + ', there already' if there else _rated(layer['size'], start)}")


def _metadata(options: argparse.Namespace) -> None:
    """Make the metadata tar of a config and explode it, and the base environment."""
    from sregistry import receipt
    from sregistry.explode import explode_tar
    from sregistry.metadata import creation_time, environment_tar, metadata_tar

    resolved = _resolved(options.manifest)
    store, compression = _store(options), _compression(options)
    config = resolved.parsed_config()
    created = creation_time(config, _epoch())
    tar = metadata_tar(config, reference=_name(resolved), docker_cmd=options.docker_cmd, created=created)
    environment, metadata = explode_tar(store, environment_tar(), compression), explode_tar(store, tar, compression)
    receipt.publish(options.tar, tar)
    receipt.write(
        options.output,
        {
            "environment": environment["path"],
            "metadata": metadata["path"],
            "docker_cmd": options.docker_cmd,
            "created": created,
            "store": str(store.root),
            "holds": [*environment["holds"], *metadata["holds"]],
        },
    )


def _sandbox(options: argparse.Namespace) -> None:
    """Merge base environment, layers and metadata."""
    from sregistry import receipt
    from sregistry.sandbox import merge

    resolved, metadata = _resolved(options.manifest), receipt.read(options.metadata)
    exploded = {value["digest"]: value for value in map(receipt.read, options.layers)}
    folders: list[str] = []
    estargz = []
    for layer in resolved.layers:
        made = exploded.get(str(layer.blob.digest))
        if made is None:
            raise StoreError(f"{resolved.uri}: no receipt for layer {layer.blob.digest}", hint="run again")
        if layer.diff_id is not None and made["diff_id"] != str(layer.diff_id):
            # Two images name one blob with different contents: one of the configs is wrong.
            raise DigestMismatch(
                f"{resolved.uri}: layer {layer.blob.digest} has diff_id {made['diff_id']}, not {layer.diff_id} as its config says"
            )
        folders.append(made["path"])
        if layer.blob.estargz or made.get("estargz"):
            estargz.append(len(folders))  # the environment is below
    merge([Path(path) for path in (metadata["environment"], *folders, metadata["metadata"])], estargz).write(options.output)


def _image(options: argparse.Namespace) -> None:
    """Assemble the image, or let another tool, and publish it under its final name; what that can't keep goes to stdout."""
    from sregistry import receipt
    from sregistry.manifest import SIF
    from sregistry.metadata import sif_objects
    from sregistry.sandbox import Sandbox

    resolved = _resolved(options.manifest)
    start = time.monotonic()
    if resolved.kind == SIF:
        made = _taken(options, resolved)
        receipt.write(options.output, {**made, "holds": [receipt.hold(options.target)]})
        say(f"image {resolved.uri}: {_rated(made['size'], start)}, {options.target}")
        return
    if options.metadata is None or options.sandbox is None:
        raise UsageError(f"{resolved.uri} is made of layers: --metadata and --sandbox are needed")
    metadata = receipt.read(options.metadata)
    created = int(metadata["created"])
    deffile, documents = sif_objects(
        resolved.parsed_config(), reference=_name(resolved), docker_cmd=bool(metadata["docker_cmd"]), created=created
    )
    options.target.parent.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, Any] = {
        "format": options.format,
        "target": options.target,
        "created": created,
        "deffile": deffile,
        "documents": documents,
        "architecture": resolved.platform.architecture,
    }
    sandbox = Sandbox.read(options.sandbox)
    if options.builder == "native":
        from sregistry.image import build

        made = build(sandbox, **wanted)
    else:
        from sregistry import builders, scratch
        from sregistry.cores import usable

        made = builders.build(
            sandbox,
            builder=options.builder,
            level=options.level,
            threads=min(options.threads, usable()),
            scratch=scratch.working(os.environ),
            **wanted,
        )
        if made["lost"]:
            say(f"warning: {resolved.uri}: builder: {options.builder} can't keep: {'; '.join(made['lost'])}")
    receipt.write(options.output, {**made, "holds": [receipt.hold(options.target)]})
    say(f"image {resolved.uri}: {_rated(made['size'], start)}, {options.target}")


def _taken(options: argparse.Namespace, resolved: Resolved) -> dict[str, Any]:
    """Publish a SIF as it is. Raises ImageError that names the image."""
    from sregistry import receipt
    from sregistry.errors import ImageError
    from sregistry.image import take

    if options.format != "sif":
        raise ImageError(f"{resolved.uri} is a SIF in the registry already, and can't become {options.format}", hint="choose format: sif")
    if options.sif is None:
        raise UsageError(f"{resolved.uri} is a SIF in the registry: --sif is needed")
    layer = receipt.read(options.sif)
    blob = Path(layer["holds"][0]["path"])
    ours = Path(layer["store"]) in blob.parents
    try:
        return take(blob, resolved.layers[0].blob.digest, ours=ours, target=options.target, platform=resolved.platform)
    except ImageError as error:
        raise ImageError(f"{resolved.uri}: {error.message}", hint=error.hint) from error


def _catalog(options: argparse.Namespace) -> None:
    """Record an image; what happened goes to stdout."""
    from datetime import UTC, datetime

    from sregistry import receipt
    from sregistry.catalog import Catalog
    from sregistry.document import load_json
    from sregistry.facts import facts
    from sregistry.manifest import SIF
    from sregistry.rebuild import made
    from sregistry.record import record

    resolved, image = _resolved(options.manifest), receipt.read(options.image)
    catalog = Catalog(options.database)
    config = {} if resolved.kind == SIF else load_json(resolved.image_config.encode(), "config")
    how = made(
        client=resolved.client,
        platform=str(resolved.platform),
        format=image["format"],
        builder=options.builder,
        docker_cmd=options.docker_cmd,
        compression=_compression(options),
        path=Path(image["path"]),
    )
    written = record(resolved, image, now=datetime.now(UTC), facts=facts(config, str(resolved.platform)), made=how)
    kept, new = catalog.add(written)
    held = {"path": str(catalog.path), "size": None}
    receipt.write(options.output, {"id": kept.id, "uri": kept.uri, "new": new, "version": kept.version, "holds": [held, *image["holds"]]})
    say(f"[container][{'new' if new else 'update'}] {kept.uri}\nSuccess! {kept.image}")


def _short(digest: str) -> str:
    """Cut a digest as people do, to twelve digits."""
    algorithm, _, digits = digest.partition(":")
    return f"{algorithm}:{digits[:12]}"


def _amount(size: float) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size / 1e3:,.1f} kB"


def _rated(size: int, start: float) -> str:
    """Say a size, the time since *start*, and the rate that both make."""
    seconds = max(time.monotonic() - start, 1e-3)
    return f"{_amount(size)} in {seconds:.1f} s, {_amount(size / seconds)}/s"


def _resolved(path: Path) -> Resolved:
    """Read manifest.json; one that only says why there is none is discarded, so that the next run asks again."""
    from sregistry import receipt
    from sregistry.manifest import Resolved

    try:
        return Resolved.read(path)
    except SregistryError:
        value = receipt.read(path)
        if "error" in value:
            receipt.discard(path, value)
        raise


def _store(options: argparse.Namespace) -> Store:
    from sregistry.settings import store_root
    from sregistry.store import Store

    return Store(store_root(options.cache), options.cache_from)


def _client(settings: RegistrySettings, store: Store, environ: Mapping[str, str]) -> RegistryClient:
    from sregistry.credentials import Keyring
    from sregistry.pace import Pace
    from sregistry.registry import RegistryClient

    return RegistryClient(settings, pace=Pace(store, settings.base, settings.rate), keyring=Keyring(settings, environ))


def _compression(options: argparse.Namespace) -> Compression:
    from sregistry.compression import Compression

    return Compression.parse(codec=options.codec, level=options.level, block_size=options.block_size)


def _name(resolved: Resolved) -> str:
    """The image as `docker pull` takes it."""
    return f"{resolved.registry}/{resolved.uri}"


def _epoch() -> int | None:
    """SOURCE_DATE_EPOCH, in seconds, where it is set."""
    from sregistry.errors import ConfigError

    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if text and not text.isdecimal():
        raise ConfigError(f"SOURCE_DATE_EPOCH: expected seconds since 1970, got {text!r}")
    return int(text) if text else None


@cache
def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sregistry.stage", description="One stage of the pipeline.")
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")

    cache = argparse.ArgumentParser(add_help=False)
    cache.add_argument("--cache", type=Path, required=True, metavar="DIR", help="the store is in its folder docker")
    cache.add_argument("--cache-from", type=Path, action="append", default=[], metavar="DIR", help="a further store, to read")
    output = argparse.ArgumentParser(add_help=False)
    output.add_argument("--output", type=Path, required=True, metavar="FILE")
    manifest = argparse.ArgumentParser(add_help=False)
    manifest.add_argument("--manifest", type=Path, required=True, metavar="FILE", help="manifest.json")
    compression = argparse.ArgumentParser(add_help=False)
    compression.add_argument("--codec", required=True)
    compression.add_argument("--level", required=True)
    compression.add_argument("--block-size", type=int, required=True, metavar="BYTES")

    stage = stages.add_parser("tags", parents=[cache, output], help="ask which tags a pattern means")
    stage.add_argument("--uri", required=True, help="the repository")
    stage.add_argument("--client", required=True)
    stage.add_argument("--tags", required=True, metavar="GLOB")
    stage.add_argument("--newest", type=int, metavar="N", help="the last N in the order of versions")
    stage.set_defaults(run=_tags)

    stage = stages.add_parser("targets", parents=[output], help="gather the tags of all patterns")
    stage.add_argument("lists", type=Path, nargs="+", metavar="FILE")
    stage.set_defaults(run=_targets)

    stage = stages.add_parser("pattern", help="report a pattern that failed")
    stage.add_argument("--list", type=Path, required=True, metavar="FILE", help="its tags")
    stage.set_defaults(run=_pattern)

    stage = stages.add_parser("tagchange", parents=[cache, output], help="compare what a pattern means and meant")
    stage.add_argument("--uri", required=True, help="the repository")
    stage.add_argument("--client", required=True)
    stage.add_argument("--tags", required=True, metavar="GLOB")
    stage.add_argument("--newest", type=int, metavar="N", help="the last N in the order of versions")
    stage.add_argument("--before", default="null", metavar="JSON", help="the tags that it meant")
    stage.set_defaults(run=_tagchange)

    stage = stages.add_parser("change", parents=[cache, output], help="compare what a reference means and meant")
    stage.add_argument("--uri", required=True)
    stage.add_argument("--client", required=True)
    stage.add_argument("--platform", required=True)
    stage.add_argument("--locked", metavar="DIGEST", help="what the tag meant")
    stage.add_argument("--pinned", type=Path, required=True, metavar="FILE", help="manifest.json of before, if it is there")
    stage.set_defaults(run=_change)

    stage = stages.add_parser("refresh", parents=[output], help="tell all changes")
    stage.add_argument("changes", type=Path, nargs="+", metavar="FILE")
    stage.set_defaults(run=_refresh)

    stage = stages.add_parser("manifest", parents=[cache, output], help="resolve a reference")
    stage.add_argument("--uri", required=True)
    stage.add_argument("--client", required=True)
    stage.add_argument("--platform", required=True)
    stage.add_argument("--locked", metavar="DIGEST", help="what the tag is to mean")
    stage.set_defaults(run=_manifest)

    stage = stages.add_parser("manifests", parents=[output], help="gather the layers of all images")
    stage.add_argument("manifests", type=Path, nargs="*", metavar="FILE")
    stage.set_defaults(run=_manifests)

    stage = stages.add_parser("layer", parents=[manifest, cache, output], help="download a layer")
    stage.add_argument("--digest", required=True)
    stage.add_argument("--connections", type=int, default=1, metavar="N", help="at a time, for a large layer")
    stage.set_defaults(run=_layer)

    stage = stages.add_parser("explode", parents=[cache, compression, output], help="inflate and recompress a layer")
    stage.add_argument("--layer", type=Path, required=True, metavar="FILE", help="receipt of the layer")
    stage.add_argument("--threads", type=int, default=1, metavar="N")
    stage.add_argument("--limit", type=int, metavar="BYTES", help="of the layer uncompressed")
    stage.set_defaults(run=_explode)

    stage = stages.add_parser("metadata", parents=[manifest, cache, compression, output], help="environment, runscript, labels")
    stage.add_argument("--docker-cmd", action="store_true", help="runscript from Cmd")
    stage.add_argument("--tar", type=Path, required=True, metavar="FILE")
    stage.set_defaults(run=_metadata)

    stage = stages.add_parser("sandbox", parents=[manifest, output], help="merge the layers")
    stage.add_argument("--metadata", type=Path, required=True, metavar="FILE", help="receipt of the metadata")
    stage.add_argument("layers", type=Path, nargs="*", metavar="FILE", help="receipts of exploded layers")
    stage.set_defaults(run=_sandbox)

    stage = stages.add_parser("image", parents=[manifest, output], help="assemble the image")
    stage.add_argument("--metadata", type=Path, metavar="FILE", help="receipt of the metadata")
    stage.add_argument("--sandbox", type=Path, metavar="FILE", help="sandbox.index")
    stage.add_argument("--sif", type=Path, metavar="FILE", help="receipt of the layer, in place of both, if it is a SIF")
    stage.add_argument("--format", required=True)
    stage.add_argument("--target", type=Path, required=True, metavar="PATH")
    stage.add_argument("--builder", choices=("native", "mksquashfs", "singularity"), default="native")
    stage.add_argument(
        "--level", choices=("fast", "default", "small"), default="default", help="of compression, for another builder than native"
    )
    stage.add_argument("--threads", type=int, default=1, metavar="N", help="for another builder than native")
    stage.set_defaults(run=_image)

    stage = stages.add_parser("catalog", parents=[manifest, compression, output], help="record the image")
    stage.add_argument("--builder", choices=("native", "mksquashfs", "singularity"), default="native")
    stage.add_argument("--docker-cmd", action="store_true", help="its runscript is from Cmd")
    stage.add_argument("--image", type=Path, required=True, metavar="FILE", help="receipt of the image")
    stage.add_argument("--database", type=Path, required=True, metavar="DIR")
    stage.set_defaults(run=_catalog)
    return parser


if __name__ == "__main__":
    import gc
    import signal

    # So that what a cancelled job has begun is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # What a stage imports is no garbage: looking for some in it, at the start and at the end, took a sixth of a small job's time.
    gc.set_threshold(100_000)
    code = main()
    gc.freeze()
    sys.exit(code)
