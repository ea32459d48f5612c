# Names and input functions that the rules share. What is configured where, and what it means, is the
# package's business: config/settings.py, config/requested.py, config/targets.py, config/tag_patterns.py, config/plan.py; what is told at the end is pipeline/summary.py's.

import atexit
import contextlib
import dataclasses
import functools
import getpass
import hashlib
import json
import math
import os
import shlex
import shutil
import sys
import time
from pathlib import Path


def refuse(line, code=2):
    """End with one line: an exception would bring Snakemake's own lines and a traceback with it."""
    print(f"error: {line}", file=sys.stderr)
    sys.exit(code)


def give_up(error):
    """End with what is wrong, a line each."""
    sys.exit(errors.report(error))


try:
    from sregistry import errors
    from sregistry._version import __version__
    from sregistry.store import trust
    from sregistry.config import plan as configuration, own_config, secrets_file as secrets, settings
    from sregistry.config import temporary as scratch
    from sregistry.image import programs as program
    from sregistry.system import cores, logs as messages, heartbeat as pulse
    from sregistry.results import receipts as receipt
    from sregistry.store import maintenance as upkeep
    from sregistry.layers.compression import Compression
    from sregistry.errors import SregistryError
    from sregistry.catalog.occupant import refusals
    from sregistry.store.store import Store
    from sregistry.pipeline.summary import Summary
    from sregistry.config.targets import locate
except ImportError as error:
    refuse(f"{error.name} is not installed in {sys.executable}; run scripts/quickstart, or pip install -e .")


@functools.cache
def hold_store():
    """Keep what this run uses from being cleaned away until this process ends, and a cache for this run no longer than that.

    `sregistry pull` does both itself.
    """
    if os.environ.get(pulse.VARIABLE):
        return
    held = contextlib.ExitStack()
    if SETTINGS.disable_cache and workflow.is_main_process:
        held.enter_context(scratch.temporary(SETTINGS.cache))
    held.enter_context(upkeep.session(Store(SETTINGS.store)))
    atexit.register(held.close)


# Snakemake asks for the user's name as soon as the graph is built; in a container, the number may have none.
try:
    getpass.getuser()
except (KeyError, OSError):
    os.environ.update(LOGNAME=str(os.getuid()))


# As a module, the config is the other workflow's to give: the file is its own, with keys of its own.
MAIN = workflow.modifier.is_main_snakefile()
if MAIN:
    try:
        settings.from_file()
    except SregistryError as error:
        give_up(error)
if MAIN and os.path.exists("config/config.yaml"):

    configfile: "config/config.yaml"


VERSION = __version__
RESULTS = "results"
# The same as it is on disk, where the `prefix` of a module goes before what rules and their functions name.
PLACE = Path(workflow.modifier.modify_path(RESULTS))


class Unwatched:
    """A value among params whose change is no reason to run a job again."""

    def __init__(self, value):
        self.value = value

    def __str__(self):
        return str(self.value)


# The interpreter that runs Snakemake: no activation is needed, and no shim, which can cost more than the job.
# Not by shell.prefix, which would be that of all rules of a workflow that has these as a module.
# -P: what lies in the working folder under a module's name is not imported.
PYTHON = Unwatched(f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH python3 -P")

try:
    messages.set_up(os.environ)
    settings.folder(Path.cwd(), "the working folder")
    PLAN = configuration.plan(
        config,
        overrides=workflow.config_settings.overwrite_config,
        schema=Path(workflow.source_path("../schemas/config.schema.yaml")),
        environ=secrets.overlay(os.environ),
        files=[*reversed(workflow.config_settings.configfiles), Path("config/config.yaml")] if MAIN else [],
    )
    SETTINGS = PLAN.settings
    PATTERNS = {pattern.key: pattern for pattern in PLAN.open}
    # One gathering checkpoint a set of images: different sets run side by side in one directory.
    BATCH = hashlib.sha256(json.dumps(sorted(target.key for target in PLAN.targets) + sorted(PATTERNS)).encode()).hexdigest()[:16]
    GATHERED = f"{RESULTS}/batch/{BATCH}.json"
    if SETTINGS.disable_cache:
        SETTINGS = dataclasses.replace(SETTINGS, cache=scratch.cache(SETTINGS, PLACE, BATCH))
        PLAN = dataclasses.replace(PLAN, settings=SETTINGS)
    CHOSEN = f"{RESULTS}/batch/{BATCH}.targets.json"
    # All images, those of patterns as far as their lists are there.
    TARGETS = {target.key: target for target in PLAN.images(PLAN.pinned(PLACE))}
    OUTDATED = configuration.outdated(list(TARGETS.values()), PLACE, refresh=SETTINGS.refresh, again=workflow.is_main_process)
    ENVIRON = secrets.overlay(os.environ)
    REFUSED = refusals(list(TARGETS.values()), SETTINGS, ENVIRON, PLACE) if workflow.is_main_process else {}
    OUTDATED.update(REFUSED)  # their manifests are asked for again, which tells
    if workflow.is_main_process:
        for line in filter(None, [own_config.foreign() if MAIN else None, *configuration.warnings(PLAN, os.environ)]):
            if messages.shown(messages.Level.WARNING):
                print(f"warning: {line}", file=sys.stderr)
        # Where jobs run elsewhere, or in an environment of their own, the job that needs the program looks for it.
        if (TARGETS or PATTERNS) and workflow.local_exec and not workflow.deployment_settings.deployment_method:
            program.find(SETTINGS.builder)
except SregistryError as error:
    give_up(error)

# A Path: Snakemake compares texts and numbers among params, no objects. Another store is no reason to
# fetch layers that no image waits for; the sweep above sees to those that one does.
CACHE = SETTINGS.cache


# Where else to look, whom to trust, and what is refused: none of them changes what is made.
CACHE_FROM = Unwatched(
    " ".join(
        [
            *(f"--cache-from {shlex.quote(str(folder))}" for folder in SETTINGS.cache_from),
            *([f"--trust {shlex.quote(':'.join(trust.words(SETTINGS.trust)))}"] if SETTINGS.trust != frozenset() else []),
        ]
    )
)
LAYER_LIMIT = Unwatched(SETTINGS.layer_limit)

# `cores: all` is what affinity allows; a quota may leave less, where jobs run in this process's cgroup.
CORES = workflow.global_resources["_cores"].value or os.cpu_count()
if workflow.local_exec and cores.usable() < CORES == len(os.sched_getaffinity(0)):
    CORES = cores.usable()
    workflow.register_resource("_cores", CORES)

# Ours copies, others compress.
BUILD_THREADS = 1 if SETTINGS.builder == "native" else CORES

# Connections at a time; a limit of the command line or a profile goes before.
if "network" not in workflow.global_resources:
    workflow.register_resource("network", SETTINGS.connections)
CONNECTIONS = max(1, workflow.global_resources["network"].value or SETTINGS.connections)
# Bytes below which a layer is not worth another connection.
CONNECTION_SIZE = 256 << 20

# What makes a manifest out of date that is to be asked again.
STAMP = f"{RESULTS}/refresh"


wildcard_constraints:
    image="[A-Za-z0-9._-]+-[0-9a-f]{8}",
    digest="sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}",
    variant="[a-z0-9-]+",
    pattern="[A-Za-z0-9._-]+-[0-9a-f]{8}",


# What is told at the end. Where nothing is to be done, Snakemake calls no handler: then it is told on the way out.
SUMMARY = Summary(PLACE)


def end(failed=False):
    """Tell what became of the images that this run was about."""
    try:
        SUMMARY.close(failed=failed, patterns=chosen()["failed"] if SUMMARY.begun else None)
    except SregistryError as error:
        code = errors.report(error)
        if not failed:
            sys.exit(code)


def end_idle():
    """Tell of a run that had nothing to do; one that was refused says so itself."""
    if not len(workflow.dag):
        end()


def runs():
    """Whether this process makes images. A dry run, a summary, a graph, a report and the like only ask: they change nothing on disk.

    The answer is there when the graph is built, which is after the Snakefile is read.
    """
    return workflow.is_main_process and workflow.executor_plugin is not None and not workflow.dryrun and not workflow.touch


@functools.cache
def sweep():
    """Before a run looks for what is there, discard the receipts that no longer count and stamp what is to be asked again.

    Each input function of a first job calls this: a target may be any of them.
    """
    if not runs():
        return
    refuse_lost_programs()
    try:
        # A cache for one run is made by who runs: another one, that is refused now, must not remove it.
        if (TARGETS or PATTERNS) and not SETTINGS.disable_cache and SETTINGS.store.is_dir():
            hold_store()
        receipt.sweep_tags(PLACE, PATTERNS, SETTINGS.store, PLACE.parent / CHOSEN)
        receipt.sweep(PLACE, variants(), SETTINGS.store, PLACE.parent / GATHERED)
        if SETTINGS.refresh or OUTDATED:
            # A new text each time: what has the same bytes as before triggers nothing.
            receipt.publish(PLACE.parent / STAMP, str(time.time_ns()).encode())
    except SregistryError as error:
        give_up(error)


def variants():
    """The images' keys, with the names of their compressions."""
    return {key: target.compression.variant for key, target in TARGETS.items()}


@functools.cache
def remade():
    """What a run would make anew because it sweeps first, in a process that only asks."""
    if runs() or not workflow.is_main_process:
        return frozenset()
    return receipt.remade(PLACE, variants(), PATTERNS, SETTINGS.store, PLACE.parent / GATHERED)


def refreshing(wildcards):
    """Whether a tag, or a list of tags, is asked again: by `refresh`, or because a lock file says another digest."""
    return SETTINGS.refresh if "pattern" in wildcards.keys() else wildcards.image in OUTDATED


def version(output, asked=None):
    """Return a params function: the version of the package, whose change makes *output* anew.

    In a process that only asks it is another text where a run would sweep *output* away or stamp it as *asked* again.
    So the job is shown, and nothing on disk is changed.
    """

    def get(wildcards):
        if runs() or not workflow.is_main_process:
            return VERSION
        anew = (asked is not None and asked(wildcards)) or PLACE.parent / output.format(**dict(wildcards.items())) in remade()
        return f"{VERSION}, made anew" if anew else VERSION

    return get


def begin():
    """Note what is there before a run.

    `sregistry pull` tells by itself what it did.
    """
    if not runs() or os.environ.get(pulse.VARIABLE) or not MAIN:
        return
    try:
        if not SUMMARY.begun:
            SUMMARY.begin(PLAN)
            atexit.register(end_idle)
        SUMMARY.expect(list(TARGETS.values()))
    except SregistryError as error:
        give_up(error)


def chosen():
    """What the lists of tags say, if there are patterns and their lists were gathered: tags and errors by pattern."""
    if not PATTERNS or not (PLACE.parent / CHOSEN).exists():
        return {"tags": {}, "failed": {}}
    return json.loads((PLACE.parent / CHOSEN).read_text())


@functools.cache
def know(time):
    """Take up the images of the patterns; *time* is that of the gathered lists."""
    try:
        known = {target.key: target for target in PLAN.images(chosen()["tags"])}
    except SregistryError as error:
        give_up(error)
    OUTDATED.update(configuration.outdated(list(known.values()), PLACE, refresh=SETTINGS.refresh))
    if workflow.is_main_process:
        OUTDATED.update(refusals(list(known.values()), SETTINGS, ENVIRON, PLACE))
    TARGETS.clear()
    TARGETS.update(known)


def images():
    """All images, those of patterns once their lists of tags are gathered."""
    sweep()
    if PATTERNS:
        know(os.stat(checkpoints.targets.get().output[0]).st_mtime_ns)
    return TARGETS


def finished(wildcards):
    """What is there when all is done: a record an image, or the image alone without a catalog."""
    if not TARGETS and not PATTERNS:
        refuse("no image is asked for; name one: snakemake --config uri=nvidia/caffe2:17.10")
    if REFUSED and not PATTERNS and len(REFUSED) == len(TARGETS):
        refuse("\nerror: ".join(dict.fromkeys(map(str, REFUSED.values()))), code=1)
    sweep()
    limit_cores()
    # Known only now: a limit of jobs a second is for the schedulers of clusters. Here a run would wait for it at its end.
    if workflow.local_exec and workflow.scheduling_settings:
        workflow.scheduling_settings.max_jobs_per_timespan = None
    begin()
    made = made_images(wildcards)
    begin()  # of the patterns' images, too
    failed = [f"{RESULTS}/tags/{pattern}.failed" for pattern in chosen()["failed"]]
    # The gathering is asked for by name: what depends on it alone is not looked at while it is missing.
    return [GATHERED, *made, *failed]


def made_images(wildcards):
    """The last receipt of each image."""
    last = "image.json" if SETTINGS.disable else "record.json"
    return [f"{RESULTS}/{image}/{last}" for image in images()]


def pinned_manifest(wildcards):
    """What the image is now, if it is there; no input, for it is asked for nothing."""
    return str(PLACE / wildcards.image / "manifest.json")


def lists_of_tags(wildcards):
    """The list of each pattern."""
    sweep()
    return [f"{RESULTS}/tags/{pattern}.json" for pattern in PATTERNS]


def targets_of_all(wildcards):
    """What says which images there are, if patterns do."""
    return [CHOSEN] if PATTERNS else []


def manifests_of_all(wildcards):
    """The manifest of each image."""
    return [f"{RESULTS}/{image}/manifest.json" for image in images()]


def fetched(wildcards):
    """What is there when all is downloaded: a receipt a layer. An image without layers may be one that was refused: its job tells."""
    layers = gathered("layers")
    failed = [f"{RESULTS}/{image}/metadata.json" for image, digests in layers.items() if not digests]
    return [*failed, *(f"{RESULTS}/layer/{digest}.json" for digest in gathered("sizes"))]


def target_of(text):
    """The image that a text of the config means, by reference or by file name; for a workflow that has these rules as a module."""
    try:
        _, wanted = locate(text, SETTINGS.client, secrets.overlay(os.environ))
    except SregistryError:
        wanted = None
    found = [target for target in TARGETS.values() if target.path.name == text or target.reference == wanted]
    if len(found) != 1:
        names = ", ".join(sorted(target.path.name for target in found or TARGETS.values())) or "none"
        refuse(f"{text!r} means {'several images' if found else 'no image'} of the config; name a file: {names}")
    return found[0]


def file_of(text):
    """The file, or folder, that an image becomes."""
    return str(target_of(text).path)


def receipt_of(text):
    """What is there when an image is made, as an input: its content changes with the image."""
    return str(PLACE / target_of(text).key / "image.json")


def refreshed(wildcards):
    """What makes a manifest or a list of tags out of date; a dry run has no stamp."""
    sweep()
    return [STAMP] if refreshing(wildcards) and (PLACE.parent / STAMP).exists() else []


def of(field, watched=True):
    """Return a params function: a field of the image's target, as text; *watched* if its change is a reason to run again."""

    def get(wildcards):
        text = str(getattr(TARGETS[wildcards.image], field))
        return text if watched else Unwatched(text)

    return get


def database(wildcards):
    """The folder of the catalog. From a function, as Snakemake takes braces in a text for a wildcard."""
    return str(SETTINGS.database)


def pattern_of(wildcards):
    """The pattern, one that a lock file settles included."""
    return next(pattern for pattern in PLAN.patterns if pattern.key == wildcards.pattern)


def of_pattern(field):
    """Return a params function: a field of the pattern, as text."""

    def get(wildcards):
        return str(getattr(pattern_of(wildcards), field))

    return get


def newest(wildcards):
    """How many of the tags that match, as the option of the stage."""
    number = pattern_of(wildcards).newest
    return "" if number is None else f"--newest {number}"


def tags_before(wildcards):
    """The tags that a pattern meant, as the option of the stage."""
    return json.dumps(PLAN.pinned(PLACE).get(wildcards.pattern))


@functools.cache
def ask_now():
    """Have all changes asked for in this run, whatever an earlier one that was cut short left."""
    stamp = f"{RESULTS}/change/now"
    if runs():
        receipt.publish(PLACE.parent / stamp, str(time.time_ns()).encode())
    return stamp if (PLACE.parent / stamp).exists() else []


def asked_now(wildcards):
    """What makes the answers of an earlier refresh out of date."""
    return ask_now()


def changes_of_all(wildcards):
    """What became of each pattern, and of each image that is known so far."""
    if not TARGETS and not PLAN.patterns:
        refuse("no image is asked for; name one: snakemake refresh --config uri=nvidia/caffe2:17.10")
    found = [f"{RESULTS}/change/{pattern.key}.tags.json" for pattern in PLAN.patterns]
    return [*found, *(f"{RESULTS}/change/{image}.json" for image in TARGETS)]


def locked(wildcards):
    """What an image's tag is to mean; the receipt tells whether it does, so that a change alone is no reason to run."""
    digest = TARGETS[wildcards.image].locked
    return Unwatched("" if digest is None else f"--locked {digest}")


def replacing(wildcards):
    """What tells the stages which image a file is that they are to replace."""
    catalog = "" if SETTINGS.disable else f"--database {shlex.quote(str(SETTINGS.database))}"
    return Unwatched(f"{catalog} {'--force' if SETTINGS.force else ''}".strip())


def compression(word):
    """Return a params function: a word of how the layer, or the image, is compressed."""

    def get(wildcards):
        if "variant" in wildcards.keys():
            return Compression.named(wildcards.variant).words()[word]
        return TARGETS[wildcards.image].compression.words()[word]

    return get


def summed(value):
    """Add to what was gathered, layers {image: [digest, …]}, sizes {digest: bytes or None}, sifs [image, …], what all layers share.

    `images` has the images that a layer is in, in their order, and `sources` those of them that say different things of it or
    would fetch it elsewhere; `bytes`, `usual` and `total` are sizes.
    """
    images = {}
    for image, digests in value["layers"].items():
        for digest in digests:
            images.setdefault(digest, []).append(image)
    sources = {**{digest: found[:1] for digest, found in images.items()}, **value.get("sources", {})}
    sizes = [size for size in value["sizes"].values() if size is not None]
    # A layer of unknown size counts as those that are known do on average.
    usual = max(1, sum(sizes) / len(sizes)) if sizes else 1
    total = sum(sizes) + usual * (len(value["sizes"]) - len(sizes))
    return {**value, "images": images, "sources": sources, "bytes": sum(sizes), "usual": usual, "total": total}


@functools.cache
def read_gathered(path, time):
    """Read a gathering file; *time* is its own, so that a new one is read anew."""
    return summed(json.loads(Path(path).read_text()))


def gathered(field):
    """What the one checkpoint gathered. Input functions wait for it."""
    sweep()
    if not MAIN and runs():
        hold_store()  # Snakemake does not run the onstart of a module
    path = str(checkpoints.manifests.get().output[0])
    value = read_gathered(path, os.stat(path).st_mtime_ns)
    if workflow.is_main_process:
        SUMMARY.gathered()
    return value[field]


def known(field):
    """The same as far as it is on disk, for threads, resources and groups: an error of Snakemake ends one that waits for a checkpoint."""
    path = PLACE.parent / GATHERED
    try:
        return read_gathered(str(path), os.stat(path).st_mtime_ns)[field]
    except FileNotFoundError:
        return summed({"layers": {}, "sizes": {}, "sifs": []})[field]


def manifest_of_image(wildcards):
    """The image's manifest, once all are gathered; one with the same bytes as before triggers nothing."""
    gathered("layers")
    return f"{RESULTS}/{wildcards.image}/manifest.json"


def manifests_of_layer(wildcards):
    """The manifests that name the layer, one for each thing that is said of it; a command line has no room for thousands."""
    return [f"{RESULTS}/{image}/manifest.json" for image in gathered("sources")[wildcards.digest][:100]]


def blob_of_layer(wildcards):
    """The receipt of the layer's blob, whose time says nothing. Of one that is fetched again, a dry run shows what follows."""
    path = f"{RESULTS}/layer/{wildcards.digest}.json"
    return path if PLACE.parent / path in remade() else ancient(path)


def exploded_layers(wildcards):
    """Receipts of the image's exploded layers, each once."""
    variant = TARGETS[wildcards.image].compression.variant
    return [f"{RESULTS}/explode/{digest}.{variant}.json" for digest in gathered("layers")[wildcards.image]]


def layer_connections(wildcards):
    """Connections by the layer's share of all bytes: small layers come side by side, a huge one by several."""
    size = known("sizes").get(wildcards.digest) or 0
    share = size / max(1, known("bytes"))
    return max(1, min(math.ceil(CONNECTIONS * share), math.ceil(size / CONNECTION_SIZE), CONNECTIONS))


def parts_of_image(wildcards):
    """What the image is made of, by the option of the stage that takes it."""
    folder = f"{RESULTS}/{wildcards.image}"
    parts = {"manifest": manifest_of_image(wildcards)}
    if wildcards.image not in gathered("sifs"):
        parts |= {"metadata": f"{folder}/metadata.json", "sandbox": f"{folder}/sandbox.index"}
    elif TARGETS[wildcards.image].format == "sif":  # the stage refuses any other: nothing is fetched for it
        parts["sif"] = f"{RESULTS}/layer/{gathered('layers')[wildcards.image][0]}.json"
    return parts


def as_options(wildcards, input):
    """Each named input as the option of its name."""
    return " ".join(f"--{name} {shlex.quote(str(path))}" for name, path in input.items())


def explode_threads(wildcards):
    """Threads by the layer's share of all bytes; one of unknown size counts as those that are known do on average.

    Small layers side by side keep all cores busy without sharing an interpreter; a layer that would
    still run when the others are done gets more.
    """
    size, usual = known("sizes").get(wildcards.digest), known("usual")
    return max(1, min(CORES, math.ceil(6 * CORES * (usual if size is None else size) / max(1, known("total")))))
