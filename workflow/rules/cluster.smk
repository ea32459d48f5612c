# Where jobs run, which of them run as one, and what they ask of a node. Profiles are in ../profiles.

# Jobs that talk to a registry run where Snakemake does, as compute nodes often have no network; with
# `transfer` in that partition of Slurm, queue of LSF, or queue of the others. A profile cannot say that.
TRANSFER = {name: SETTINGS.transfer for name in ("slurm_partition", "lsf_queue", "queue")} if SETTINGS.transfer else {}
NETWORK_HERE = not TRANSFER
# Here they leave the cores to others; no scheduler gives less than one.
NETWORK_THREADS = 0 if NETWORK_HERE else 1

# Bytes of a layer that is worth a job of its own.
LARGE_LAYER = 128 << 20


def refuse_lost_programs():
    """End where a profile's program is named as seen from another folder: by a relative --profile, with --directory.

    Each job would fail with "not found".
    """
    for name, value in vars(workflow.executor_settings).items() if workflow.executor_settings else ():
        if name.endswith("_cmd") and value and "/" in value and not os.path.exists(value.split()[0]):
            refuse(f"the profile's program {value} is not found from {os.getcwd()}; say --profile with the full path of its folder")


def limit_cores():
    """Take the profile's `max-threads` for the most cores of a job; without a limit a group would ask for those of all its jobs.

    Before the graph is built, nobody knows whether jobs run elsewhere.
    """
    global CORES
    if not workflow.local_exec and workflow.resource_settings.max_threads:
        CORES = workflow.resource_settings.max_threads
        # Not for the scheduler, which may have begun: it would let all jobs together have no more.
        workflow.global_resources["_cores"] = CORES


def group_of_image(wildcards):
    """An image's last steps take seconds, and a job of a cluster costs more than they do: they are one."""
    return None if workflow.local_exec else f"image-{wildcards.image}"


def group_of_layer(wildcards):
    """The small layers of the same images; how many of them make a job, `group-components` says.

    A job waits for all its layers and fails with any of them, and so does each of these images: no other
    image may have to.
    """
    size = known("sizes").get(wildcards.digest)
    if workflow.local_exec or size is None or size > LARGE_LAYER:
        return None
    images = known("images")[wildcards.digest]
    name = f"layers-{hashlib.sha256(' '.join(sorted(images)).encode()).hexdigest()[:16]}"
    workflow.parent_groupids[name] = "layers"
    return name


def tmpdir(wildcards):
    """Where the node that asks keeps temporary files: a job's own folder there, if it has one."""
    return scratch.node(os.environ)


def explode_memory(wildcards, threads, attempt):
    """Megabytes: the interpreters, and blocks on their way for each thread. 150 was seen with two."""
    return (500 + 150 * threads) * attempt


def tree_memory(wildcards, attempt):
    """Megabytes: the interpreters, and half a kilobyte for each of a million entries."""
    return 1000 * attempt


def gigabytes(wildcards):
    """Compressed gigabytes of the layer, or of the image's layers; one of unknown size counts as one.

    0 before they are gathered.
    """
    sizes = known("sizes")
    digests = [wildcards.digest] if "digest" in wildcards.keys() else known("layers").get(wildcards.image, [])
    return sum((1 << 30) if sizes.get(digest) is None else sizes[digest] for digest in digests) / (1 << 30)


def transfer_time(wildcards, attempt):
    """Minutes, at 2 MB a second."""
    return math.ceil(20 + 9 * gigabytes(wildcards)) * attempt


def explode_time(wildcards, attempt):
    """Minutes, on one slow core at the level `small`: 15 s for a layer of 250 MB uncompressed were seen."""
    return math.ceil(10 + 10 * gigabytes(wildcards)) * attempt


def image_time(wildcards, attempt):
    """Minutes, for copying at 20 MB a second; other builders compress all of it once more."""
    return math.ceil(10 + (1 if SETTINGS.builder == "native" else 20) * gigabytes(wildcards)) * attempt


def image_disk(wildcards):
    """Megabytes of temporary files on the node: ours has none there, others may unpack the image."""
    return 100 if SETTINGS.builder == "native" else math.ceil(1000 + 5 * 1024 * gigabytes(wildcards))
