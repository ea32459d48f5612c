"""The stages as commands: one subcommand a rule, each of them can be run by hand.

```
python -m sregistry.stages tags | targets | pattern | manifest | manifests | layer | explode | metadata | sandbox | image | catalog
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
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sregistry.errors import DigestMismatch, SregistryError, StoreError, UsageError, from_oserror, report
from sregistry.system import logs
from sregistry.system.heartbeat import say
from sregistry.terminal import printable

if TYPE_CHECKING:
    from sregistry.catalog.occupant import Identity
    from sregistry.config.settings import RegistrySettings
    from sregistry.image.merge import Sandbox
    from sregistry.layers.compression import Compression
    from sregistry.registry.client import RegistryClient
    from sregistry.results.resolved import Layer, Resolved
    from sregistry.store.store import Store

_INTERRUPTED = 130  # as a shell has it: 128 + SIGINT
#: The stages that may fail because of what was published, which is marked.
_OF_PUBLISHED = ("layer", "explode", "metadata", "sandbox", "image")


class _Unresolved(SregistryError):
    """What the manifest stage wrote down in place of a manifest: the tag is asked again anyway, or was pinned before and is good."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one stage and return its exit code."""
    options = _parser().parse_args(arguments)
    try:
        logs.set_up(os.environ)
        options.run(options)
        if options.stage in _OF_PUBLISHED:
            from sregistry.results import failures

            failures.forget([options.output])
    except SregistryError as error:
        if options.stage in _OF_PUBLISHED and not isinstance(error, _Unresolved):
            from sregistry.results import failures

            failures.note(options.output, error)
        return report(error)
    except OSError as error:
        return report(from_oserror(error, StoreError, options.stage))
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def _tags(options: argparse.Namespace) -> None:
    """Ask which tags of a repository a pattern means. A refusal is written down: images go on, `pattern` reports it."""
    from sregistry.results import receipts

    output: Path = options.output
    pinned = _pinned(output)
    try:
        chosen = _chosen(options)
    except SregistryError as error:
        known = json.loads(pinned)["tags"] if pinned else []
        receipts.write(output, {"uri": options.uri, "tags": known, "error": str(error), "pinned": pinned})
        return
    receipts.write(output, {"uri": options.uri, "tags": chosen})


def _chosen(options: argparse.Namespace) -> list[str]:
    """Return the tags that a pattern means now."""
    from sregistry.config.secrets_file import overlay
    from sregistry.config.tag_patterns import choose
    from sregistry.config.targets import locate
    from sregistry.registry.tag_lists import tags

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
    from sregistry.results import receipts

    values = {path.stem: receipts.read(path) for path in options.lists}
    failed = {key: value["error"] for key, value in values.items() if "error" in value}
    receipts.write(options.output, {"tags": {key: value["tags"] for key, value in values.items()}, "failed": failed})


def _pattern(options: argparse.Namespace) -> None:
    """Report why a pattern has no tags; its list is discarded, so that the next run asks again."""
    from sregistry.errors import RegistryError
    from sregistry.results import receipts

    value = receipts.read(options.list)
    receipts.discard(options.list, value)
    raise RegistryError(value.get("error", f"{options.list} has tags"))


def _manifest(options: argparse.Namespace) -> None:
    """Resolve a reference. A refusal is written down: other images go on, `metadata` reports it."""
    from sregistry.catalog.occupant import Identity
    from sregistry.config.secrets_file import overlay
    from sregistry.config.targets import locate
    from sregistry.oci.documents import Digest, Platform
    from sregistry.registry.resolve import resolve
    from sregistry.results import failures, receipts

    output: Path = options.output
    pinned = _pinned(output)
    try:
        environ = overlay(os.environ)
        settings, reference = locate(options.uri, options.client, environ)
        store, platform = _store(options), Platform.parse(options.platform)
        locked = Digest(options.locked) if options.locked else None
        guarded = options.target is not None and not receipts.vouches(output.with_name("image.json"), options.target)
        if guarded:  # before anything is asked, and once more when the platform is known
            _guard(options, Identity.of_reference(reference, platform, options.format))()
        with _client(settings, store, environ) as client:
            resolved = resolve(client, reference, platform, store, locked=locked)
        if guarded:
            _guard(options, Identity.of_resolved(resolved, options.format))()
    except SregistryError as error:
        receipts.write(output, {"uri": options.uri, "error": str(error), "pinned": pinned})
        return
    resolved.write(output)
    failures.forget(failures.outputs(output.parent))
    for line in resolved.warnings:
        say(f"warning: {resolved.uri}: {line}")


def _guard(options: argparse.Namespace, wanted: Identity) -> Callable[[], None]:
    """Return what raises ImageError where another image, or somebody's work, has the name that an image is to get."""
    from sregistry.catalog.catalog import Catalog
    from sregistry.catalog.occupant import refusal
    from sregistry.config.secrets_file import overlay

    def guard() -> None:
        records = Catalog(options.database).records if options.database is not None else list
        error = refusal(options.target, wanted, records, overlay(os.environ), force=options.force)
        if error is not None:
            raise error

    return guard


def _change(options: argparse.Namespace) -> None:
    """Ask what a reference means now, and compare. Nothing of it is kept; a refusal is written down, and `refresh` reports it."""
    import tempfile

    from sregistry.config import temporary
    from sregistry.config.secrets_file import overlay
    from sregistry.config.targets import locate
    from sregistry.oci.documents import Platform
    from sregistry.registry.resolve import resolve
    from sregistry.results import receipts
    from sregistry.results.changes import Change
    from sregistry.results.resolved import Resolved
    from sregistry.store.store import Store

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
            tempfile.TemporaryDirectory(prefix="sregistry-change-", dir=temporary.working(environ)) as folder,
            _client(settings, store, environ) as client,
        ):
            aside = Store(Path(folder), (store.root, *options.cache_from))
            after = resolve(client, reference, Platform.parse(options.platform), aside)
            change = Change.of(**image, manifest=known, after=after, store=store)
    except SregistryError as error:
        change = Change(**image, after=None, error=str(error))
    receipts.write(options.output, change.json())


def _tagchange(options: argparse.Namespace) -> None:
    """Ask which tags a pattern means now, and compare. A refusal is written down, and `refresh` reports it."""
    from sregistry.results import receipts
    from sregistry.results.changes import TagChange

    described = f"{options.uri}:{options.tags}" + (f" (newest {options.newest})" if options.newest else "")
    before = json.loads(options.before)
    try:
        change = TagChange(uri=described, before=before, after=_chosen(options))
    except SregistryError as error:
        change = TagChange(uri=described, before=before, after=None, error=str(error))
    receipts.write(options.output, change.json())


def _refresh(options: argparse.Namespace) -> None:
    """Tell what changed, on stdout and as JSON. Raises RegistryError: a registry did not tell everything."""
    from sregistry.errors import RegistryError
    from sregistry.results import receipts
    from sregistry.results.changes import FAILED, Change, TagChange, told

    values = [receipts.read(path) for path in options.changes]
    # What becomes several files is told once.
    images = list(dict.fromkeys(Change.parse(value) for value in values if "platform" in value))
    patterns = [TagChange.parse(value) for value in values if "platform" not in value]
    value = {"version": 1, "images": [item.json() for item in images], "patterns": [item.json() for item in patterns]}
    receipts.write(options.output, value)
    print("\n".join(map(printable, told(images, patterns))), flush=True)
    errors = [item.error for item in patterns if item.status == FAILED] + [item.error for item in images if item.status == FAILED]
    if errors:
        more = f" (and {len(errors) - 1} more, above)" if len(errors) > 1 else ""
        raise RegistryError(f"{errors[0]}{more}")


def _pinned(path: Path) -> str | None:
    """Return what an earlier run resolved: a failed refresh gives it back."""
    from sregistry.results import receipts

    try:
        value = receipts.read(path)
        return value.get("pinned") if "error" in value else path.read_text()
    except (SregistryError, OSError):
        return None


def _manifests(options: argparse.Namespace) -> None:
    """Gather the layers of all images, and which are SIFs; an image that could not be resolved has none."""
    from collections import Counter

    from sregistry.registry.claims import key
    from sregistry.results import receipts

    layers = {}
    sizes: dict[str, list[int]] = {}
    sources: dict[str, dict[tuple[str, ...], str]] = {}
    sifs = []
    for path in options.manifests:
        value = receipts.read(path)
        image = path.parent.name
        found = {layer["digest"]: layer for layer in value.get("layers", ())}
        layers[image] = list(found)
        for digest, layer in found.items():
            sources.setdefault(digest, {}).setdefault(key(value, layer), image)
            sizes.setdefault(digest, []).extend([] if layer["size"] is None else [layer["size"]])
        if value.get("kind") == "sif":
            sifs.append(image)
    receipts.write(
        options.output,
        {
            "layers": layers,
            # One manifest may know the size that another, of schema 1, does not; and one may be wrong.
            "sizes": {digest: Counter(said).most_common(1)[0][0] if said else None for digest, said in sizes.items()},
            "sources": {digest: list(images.values()) for digest, images in sources.items()},
            "sifs": sifs,
        },
    )


def _layer(options: argparse.Namespace) -> None:
    """Download one blob into the store, as one of the images that name it leads to it."""
    from sregistry.config.options import DEFAULTS
    from sregistry.config.secrets_file import overlay
    from sregistry.config.settings import registry
    from sregistry.layers.inflate import is_estargz
    from sregistry.oci.documents import Digest
    from sregistry.registry import claims
    from sregistry.results import receipts
    from sregistry.store.beneath import opened

    digest, store = Digest(options.digest), _store(options)
    environ = overlay(os.environ)

    def connect(resolved: Resolved) -> RegistryClient:
        return _client(registry(resolved.client, environ, fallback=resolved.registry), store, environ)

    found = claims.read(options.manifest, digest)
    was = any(store.has(digest, claim.layer.blob.size) for claim in found)
    start = time.monotonic()
    try:
        made = claims.fetch(found, store, connect, connections=options.connections, limit=options.limit or DEFAULTS["layer_limit"])
        path = Path(made["holds"][0]["path"])
        with opened(path, depth=3) as file:
            estargz = is_estargz(file)
    except FileNotFoundError as error:
        raise StoreError(f"{error.filename} was removed meanwhile", hint="run again to fetch it anew") from error
    diff_id = claims.agreed(found)
    receipts.write(
        options.output, {**made, "diff_id": None if diff_id is None else str(diff_id), "estargz": estargz, "store": str(store.root)}
    )
    there = was or store.root not in path.parents
    say(f"layer {_short(options.digest)}: {_amount(made['size']) + ', there already' if there else _rated(made['size'], start)}")


def _explode(options: argparse.Namespace) -> None:
    """Inflate a layer and compress it as squashfs blocks."""
    from sregistry.layers.explode import explode, unlike
    from sregistry.oci.documents import Digest
    from sregistry.registry import claims
    from sregistry.results import receipts
    from sregistry.store import diff_id_proofs
    from sregistry.system.cores import usable

    layer = receipts.read(options.layer)
    store = _store(options)
    digest = Digest(layer["digest"])
    diff_id = Digest(layer["diff_id"]) if layer["diff_id"] else None
    if options.manifest:  # the receipt may be older than some of them
        diff_id = claims.agreed(claims.read(options.manifest, digest))
    threads = min(options.threads, usable())
    path = Path(layer["holds"][0]["path"])
    compression = _compression(options)
    begun: list[bool] = []
    start = time.monotonic()
    how: dict[str, Any] = {"path": path, "limit": options.limit, "begun": lambda: begun.append(True)}
    made = explode(store, digest, diff_id, compression, threads, **how)
    if diff_id is not None and not begun and not diff_id_proofs.known(store, digest, diff_id):
        # What was there may be another layer's, whose diff_id the config says: the bytes decide.
        made = explode(store, digest, None, compression, threads, **how)
        if made["diff_id"] != str(diff_id):
            raise unlike(f"layer {digest}", made["diff_id"], diff_id)
    diff_id_proofs.keep(store, digest, Digest(made["diff_id"]))
    kept = {"digest": layer["digest"], "size": layer["size"], "estargz": layer.get("estargz", False), "store": str(store.root)}
    receipts.write(options.output, {**made, **kept})
    said = _rated(layer["size"], start) if begun else f"{_amount(layer['size'])}, there already"
    say(f"explode {_short(layer['digest'])}: {said}")


def _metadata(options: argparse.Namespace) -> None:
    """Make the metadata tar of a config and explode it, and the base environment."""
    from sregistry.image.metadata import creation_time, environment_tar, metadata_tar
    from sregistry.layers.explode import explode_tar
    from sregistry.results import receipts

    resolved = _resolved(options.manifest)
    store, compression = _store(options), _compression(options)
    config = resolved.parsed_config()
    created = creation_time(config, _epoch())
    tar = metadata_tar(config, reference=_name(resolved), docker_cmd=options.docker_cmd, created=created)
    environment, metadata = explode_tar(store, environment_tar(), compression), explode_tar(store, tar, compression)
    receipts.publish(options.tar, tar)
    receipts.write(
        options.output,
        {
            "environment": environment["path"],
            "metadata": metadata["path"],
            "variant": compression.variant,
            "indexes": [environment["index"], metadata["index"]],
            "docker_cmd": options.docker_cmd,
            "created": created,
            "store": str(store.root),
            "holds": [*environment["holds"], *metadata["holds"]],
        },
    )


def _sandbox(options: argparse.Namespace) -> None:
    """Merge base environment, layers and metadata."""
    from sregistry.image.merge import merge
    from sregistry.results import receipts
    from sregistry.stages.remake import Sources, repairing

    resolved, metadata = _resolved(options.manifest), receipts.read(options.metadata)
    exploded = {value["digest"]: value for value in map(receipts.read, options.layers)}
    layers: list[tuple[str, str]] = []
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
        _sized(resolved, layer, made.get("size"))
        layers.append((made["path"], made["index"]))
        if layer.blob.estargz or made.get("estargz"):
            estargz.append(len(layers))  # the environment is below
    first, last = metadata["indexes"]
    layers = [(metadata["environment"], first), *layers, (metadata["metadata"], last)]
    known = {number: (Path(path), bytes.fromhex(digest)) for number, (path, digest) in enumerate(layers)}

    def merged(remade: Mapping[int, tuple[Path, bytes]]) -> Sandbox:
        folders, digests = zip(*({**known, **remade}).values(), strict=True)
        return merge(folders, estargz, digests)

    sources = Sources(resolved, options.manifest.parent.parent, options.metadata)
    repairing([folder for folder, _ in known.values()], sources, merged).write(options.output)


def _sized(resolved: Resolved, layer: Layer, size: int | None) -> None:
    """Compare the size that an image says of a layer with that of the blob, None where it is not known. Raises DigestMismatch."""
    if size is not None and layer.blob.size not in (None, size):
        raise DigestMismatch(f"{resolved.uri}: layer {layer.blob.digest} has {size} bytes, not {layer.blob.size} as its manifest says")


def _image(options: argparse.Namespace) -> None:
    """Assemble the image, or let another tool, and publish it under its final name; what that can't keep goes to stdout."""
    from sregistry.catalog.occupant import Identity
    from sregistry.image.merge import Sandbox
    from sregistry.image.metadata import sif_objects
    from sregistry.results import receipts
    from sregistry.results.resolved import SIF
    from sregistry.stages.remake import Sources, repairing

    resolved = _resolved(options.manifest)
    start = time.monotonic()
    guard = _guard(options, Identity.of_resolved(resolved, options.format))
    guard()
    if resolved.kind == SIF:
        made = _taken(options, resolved, guard)
        receipts.write(options.output, {**made, "manifest": str(resolved.digest), "holds": [receipts.hold(options.target)]})
        say(f"image {resolved.uri}: {_rated(made['size'], start)}, {options.target}")
        return
    if options.metadata is None or options.sandbox is None:
        raise UsageError(f"{resolved.uri} is made of layers: --metadata and --sandbox are needed")
    metadata = receipts.read(options.metadata)
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
        "guard": guard,
    }
    sandbox = Sandbox.read(options.sandbox)

    def build(remade: Mapping[int, tuple[Path, bytes]]) -> dict[str, Any]:
        sandbox.replace(remade)
        return _built(options, sandbox, wanted)

    made = repairing(sandbox.folders, Sources(resolved, options.manifest.parent.parent, options.metadata), build)
    if made.get("lost"):
        who = "a sandbox here" if options.builder == "native" else f"builder: {options.builder}"
        say(f"warning: {resolved.uri}: {who} can't keep: {'; '.join(made['lost'])}")
    receipts.write(options.output, {**made, "manifest": str(resolved.digest), "holds": [receipts.hold(options.target)]})
    say(f"image {resolved.uri}: {_rated(made['size'], start)}, {options.target}")


def _built(options: argparse.Namespace, sandbox: Sandbox, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Build the image with the builder that is asked for."""
    if options.builder == "native":
        from sregistry.image.assemble import build

        return build(sandbox, **wanted)
    from sregistry.config import temporary
    from sregistry.image import other_builders
    from sregistry.system.cores import usable

    return other_builders.build(
        sandbox,
        builder=options.builder,
        level=options.level,
        threads=min(options.threads, usable()),
        scratch=temporary.working(os.environ),
        **wanted,
    )


def _taken(options: argparse.Namespace, resolved: Resolved, guard: Callable[[], None]) -> dict[str, Any]:
    """Publish a SIF as it is. Raises ImageError that names the image."""
    from sregistry.errors import ImageError
    from sregistry.image.assemble import take
    from sregistry.results import receipts

    if options.format != "sif":
        raise ImageError(f"{resolved.uri} is a SIF in the registry already, and can't become {options.format}", hint="choose format: sif")
    if options.sif is None:
        raise UsageError(f"{resolved.uri} is a SIF in the registry: --sif is needed")
    layer = receipts.read(options.sif)
    _sized(resolved, resolved.layers[0], layer["size"])
    blob = Path(layer["holds"][0]["path"])
    ours = Path(layer["store"]) in blob.parents
    try:
        return take(blob, resolved.layers[0].blob.digest, ours=ours, target=options.target, platform=resolved.platform, guard=guard)
    except ImageError as error:
        raise ImageError(f"{resolved.uri}: {error.message}", hint=error.hint) from error


def _catalog(options: argparse.Namespace) -> None:
    """Record an image; what happened goes to stdout."""
    from datetime import UTC, datetime

    from sregistry.catalog.catalog import Catalog
    from sregistry.catalog.image_facts import facts
    from sregistry.catalog.rebuild import made
    from sregistry.catalog.record import record
    from sregistry.errors import ImageError
    from sregistry.oci.json_fields import load_json
    from sregistry.results import receipts
    from sregistry.results.resolved import SIF

    resolved, image = _resolved(options.manifest), receipts.read(options.image)
    if receipts.stale(image):
        raise ImageError(f"{image['path']} was replaced or removed meanwhile, and is not recorded as {resolved.uri}", hint="run again")
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
    receipts.write(options.output, {"id": kept.id, "uri": kept.uri, "new": new, "version": kept.version, "holds": [held, *image["holds"]]})
    say(f"[container][{'new' if new else 'update'}] {kept.uri}")
    say(f"Success! {kept.image}")


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
    from sregistry.results import receipts
    from sregistry.results.resolved import Resolved

    try:
        return Resolved.read(path)
    except SregistryError as error:
        value = receipts.read(path)
        if "error" not in value:
            raise
        receipts.discard(path, value)
        raise _Unresolved(error.message, hint=error.hint) from error


def _store(options: argparse.Namespace) -> Store:
    from sregistry.config.settings import store_root
    from sregistry.store import trust
    from sregistry.store.store import Store

    return Store(store_root(options.cache), options.cache_from, trust.users(options.trust))


def _client(settings: RegistrySettings, store: Store, environ: Mapping[str, str]) -> RegistryClient:
    from sregistry.registry.client import RegistryClient
    from sregistry.registry.credentials import Keyring
    from sregistry.registry.rate_limit import Pace

    return RegistryClient(settings, pace=Pace(store, settings.base, settings.rate), keyring=Keyring(settings, environ))


def _compression(options: argparse.Namespace) -> Compression:
    from sregistry.layers.compression import Compression

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
    parser = argparse.ArgumentParser(prog="python -m sregistry.stages", description="One stage of the pipeline.")
    stages = parser.add_subparsers(dest="stage", required=True, metavar="STAGE")

    cache = argparse.ArgumentParser(add_help=False)
    cache.add_argument("--cache", type=Path, required=True, metavar="DIR", help="the store is in its folder docker")
    cache.add_argument("--cache-from", type=Path, action="append", default=[], metavar="DIR", help="a further store, to read")
    cache.add_argument("--trust", default="", metavar="USER:…", help="whose exploded layers are used, as SREGISTRY_TRUST has it")
    output = argparse.ArgumentParser(add_help=False)
    output.add_argument("--output", type=Path, required=True, metavar="FILE")
    manifest = argparse.ArgumentParser(add_help=False)
    manifest.add_argument("--manifest", type=Path, required=True, metavar="FILE", help="manifest.json")
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--database", type=Path, metavar="DIR", help="the catalog, which knows what image a file is")
    place.add_argument("--force", action="store_true", help="take the place of another image")
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

    stage = stages.add_parser("manifest", parents=[cache, output, place], help="resolve a reference")
    stage.add_argument("--uri", required=True)
    stage.add_argument("--client", required=True)
    stage.add_argument("--platform", required=True)
    stage.add_argument("--locked", metavar="DIGEST", help="what the tag is to mean")
    stage.add_argument("--format", default="sif", help="of the image")
    stage.add_argument("--target", type=Path, metavar="PATH", help="the image: refuse at once if another one is there")
    stage.set_defaults(run=_manifest)

    stage = stages.add_parser("manifests", parents=[output], help="gather the layers of all images")
    stage.add_argument("manifests", type=Path, nargs="*", metavar="FILE")
    stage.set_defaults(run=_manifests)

    stage = stages.add_parser("layer", parents=[cache, output], help="download a layer")
    stage.add_argument("--manifest", type=Path, required=True, nargs="+", metavar="FILE", help="manifest.json of images that name it")
    stage.add_argument("--digest", required=True)
    stage.add_argument("--connections", type=int, default=1, metavar="N", help="at a time, for a large layer")
    stage.add_argument("--limit", type=int, metavar="BYTES", help="of the layer uncompressed")
    stage.set_defaults(run=_layer)

    stage = stages.add_parser("explode", parents=[cache, compression, output], help="inflate and recompress a layer")
    stage.add_argument("--layer", type=Path, required=True, metavar="FILE", help="receipt of the layer")
    stage.add_argument("--manifest", type=Path, nargs="*", default=[], metavar="FILE", help="manifest.json of images that name it")
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

    stage = stages.add_parser("image", parents=[manifest, output, place], help="assemble the image")
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


def program() -> int:
    """Run as a process of its own, and return its exit code."""
    import gc
    import signal

    # So that what a cancelled job has begun is removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # What a stage imports is no garbage: looking for some in it, at the start and at the end, took a sixth of a small job's time.
    gc.set_threshold(100_000)
    code = main()
    gc.freeze()
    return code


if __name__ == "__main__":
    sys.exit(program())
