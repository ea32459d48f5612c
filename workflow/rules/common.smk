# Names and input functions that the rules share. What is configured where, and what it means, is the
# package's business: settings.py, target.py, config.py.

import atexit
import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import shlex
import sys
import time
from pathlib import Path


def refuse(line, code=2):
    """End with one line: an exception would bring Snakemake's own lines and a traceback with it."""
    print(f"error: {line}", file=sys.stderr)
    sys.exit(code)


try:
    from sregistry import __version__, config as configuration, cores, messages, program, pulse, receipt, scratch, secrets, upkeep
    from sregistry.errors import SregistryError
    from sregistry.store import Store
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


if os.path.exists("config/config.yaml"):

    configfile: "config/config.yaml"


VERSION = __version__
RESULTS = "results"

# `python3` in the rules is the interpreter that runs Snakemake: no activation is needed, and no shim,
# which can cost more than the job.
shell.prefix(f"PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH; ".replace("{", "{{").replace("}", "}}"))

try:
    messages.set_up(os.environ)
    SETTINGS, _targets = configuration.plan(
        config,
        overrides=workflow.config_settings.overwrite_config,
        schema=Path(workflow.source_path("../schemas/config.schema.yaml")),
        environ=secrets.overlay(os.environ),
    )
    TARGETS = {target.key: target for target in _targets}
    COMPRESSION = SETTINGS.compression
    # One gathering checkpoint a set of images: different sets run side by side in one directory.
    BATCH = hashlib.sha256(json.dumps(sorted(TARGETS)).encode()).hexdigest()[:16]
    GATHERED = f"{RESULTS}/batch/{BATCH}.json"
    if SETTINGS.disable_cache:
        SETTINGS = dataclasses.replace(SETTINGS, cache=scratch.cache(SETTINGS, Path(RESULTS), BATCH))
    if workflow.is_main_process:
        for line in configuration.warnings(SETTINGS, _targets, os.environ):
            if messages.shown(messages.Level.WARNING):
                print(f"warning: {line}", file=sys.stderr)
        # Where jobs run elsewhere, or in an environment of their own, the job that needs the program looks for it.
        if TARGETS and workflow.local_exec and not workflow.deployment_settings.deployment_method:
            program.find(SETTINGS.builder)
        # A cache for one run is made by who runs: another one, that is refused now, must not remove it.
        if TARGETS and not SETTINGS.disable_cache and SETTINGS.store.is_dir():
            hold_store()
        receipt.sweep(Path(RESULTS), TARGETS, COMPRESSION.variant, SETTINGS.store, Path(GATHERED))
except SregistryError as error:
    refuse(error, error.exit_code)

# A Path: Snakemake compares texts and numbers among params, no objects. Another store is no reason to
# fetch layers that no image waits for; the sweep above sees to those that one does.
CACHE = SETTINGS.cache


class Unwatched:
    """A value among params whose change is no reason to run a job again."""

    def __init__(self, value):
        self.value = value

    def __str__(self):
        return str(self.value)


# Where else to look, and what is refused: neither changes what is made.
CACHE_FROM = Unwatched(" ".join(f"--cache-from {shlex.quote(str(folder))}" for folder in SETTINGS.cache_from))
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

# A new text each time: what has the same bytes as before triggers nothing.
STAMP = f"{RESULTS}/refresh"
if SETTINGS.refresh and workflow.is_main_process:
    receipt.publish(Path(STAMP), str(time.time_ns()).encode())


wildcard_constraints:
    image="[A-Za-z0-9._-]+-[0-9a-f]{8}",
    digest="sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}",
    variant="[a-z0-9-]+",


def finished(wildcards):
    """What is there when all is done: a record an image, or the image alone without a catalog."""
    if not TARGETS:
        refuse("no image is asked for; name one: snakemake --config uri=nvidia/caffe2:17.10")
    limit_cores()
    # Known only now: a limit of jobs a second is for the schedulers of clusters. Here a run would wait for it at its end.
    if workflow.local_exec and workflow.scheduling_settings:
        workflow.scheduling_settings.max_jobs_per_timespan = None
    last = "image.json" if SETTINGS.disable else "record.json"
    # The gathering is asked for by name: what depends on it alone is not looked at while it is missing.
    return [GATHERED, *(f"{RESULTS}/{image}/{last}" for image in TARGETS)]


def refreshed(wildcards):
    """With `refresh`, what makes a tag's manifest out of date. What a digest names never is."""
    return [STAMP] if SETTINGS.refresh and TARGETS[wildcards.image].reference.digest is None else []


def of(field):
    """Return a params function: a field of the image's target, as text."""

    def get(wildcards):
        return str(getattr(TARGETS[wildcards.image], field))

    return get


@functools.cache
def read_gathered(path, time):
    """Read a gathering file; *time* is its own, so that a new one is read anew."""
    return json.loads(Path(path).read_text())


def gathered(field):
    """What the one checkpoint gathered: layers {image: [digest, …]}, sizes {digest: bytes or None}, sifs [image, …]."""
    path = str(checkpoints.manifests.get().output[0])
    return read_gathered(path, os.stat(path).st_mtime_ns)[field]


def manifest_of_image(wildcards):
    """The image's manifest, once all are gathered; one with the same bytes as before triggers nothing."""
    gathered("layers")
    return f"{RESULTS}/{wildcards.image}/manifest.json"


def manifest_of_layer(wildcards):
    """A manifest that names the layer."""
    image = next(image for image, digests in gathered("layers").items() if wildcards.digest in digests)
    return f"{RESULTS}/{image}/manifest.json"


def exploded_layers(wildcards):
    """Receipts of the image's exploded layers, each once."""
    return [f"{RESULTS}/explode/{digest}.{COMPRESSION.variant}.json" for digest in gathered("layers")[wildcards.image]]


def layer_connections(wildcards):
    """Connections by the layer's share of all bytes: small layers come side by side, a huge one by several."""
    size = gathered("sizes")[wildcards.digest] or 0
    share = size / max(1, sum(size or 0 for size in gathered("sizes").values()))
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
    sizes = gathered("sizes")
    known = [size for size in sizes.values() if size is not None]
    usual = max(1, sum(known) / len(known)) if known else 1
    total = sum(known) + usual * (len(sizes) - len(known))
    size = sizes[wildcards.digest]
    return max(1, min(CORES, math.ceil(6 * CORES * (usual if size is None else size) / max(1, total))))
