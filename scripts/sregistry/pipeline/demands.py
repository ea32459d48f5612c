"""What jobs ask of a machine: threads, connections, memory, time, and which of them run as one job of a cluster."""

from __future__ import annotations

import math
import os
from typing import Any

from sregistry.config import temporary
from sregistry.pipeline.graph import Graph
from sregistry.pipeline.host import ALL_CONNECTIONS

#: Bytes below which a layer is not worth another connection.
CONNECTION_SIZE = 256 << 20
#: Bytes of a layer that is worth a job of its own.
LARGE_LAYER = 128 << 20


class Demands:
    """Functions for `threads`, `resources` and `group`. They read the gathering file and never wait for a checkpoint."""

    def __init__(self, graph: Graph) -> None:
        self._graph, self._host, self._settings = graph, graph.host, graph.settings
        # A profile can't say this: `transfer` is a partition of Slurm, a queue of LSF or of the others.
        names = ("slurm_partition", "lsf_queue", "queue") if self._settings.transfer else ()
        self._transfer = dict.fromkeys(names, self._settings.transfer)
        #: Jobs that talk to a registry run where Snakemake does, because compute nodes often have no network.
        self.network_here = not self._transfer
        #: Here they leave the cores to others; no scheduler gives less than one. Where nothing else limits them, cores do.
        self.network_threads = 0 if self.network_here and self._host.network is not None else 1

    def light(self, **more: object) -> dict[str, object]:
        """Return the resources of a job that takes seconds, with what it needs *more*."""
        return {"mem_mb": 500, "runtime": 10, "disk_mb": 100, "tmpdir": self.tmpdir, **more}

    def networked(self, **more: object) -> dict[str, object]:
        """Return the resources of a job that talks to a registry by one connection, with what it needs *more*."""
        return self.light(**{"network": self._share(1), "runtime": 20, **self._transfer, **more})

    @property
    def connections(self) -> int:
        """Connections at a time; a limit of the command line or of a profile goes before the setting."""
        limit = self._host.network
        return self._settings.connections if limit in (None, ALL_CONNECTIONS) else limit

    def layer_connections(self, wildcards: Any) -> int:
        """Connections by the layer's share of all bytes: small layers come side by side, a huge one by several."""
        known = self._graph.known()
        size = known.sizes.get(wildcards.digest) or 0
        share = size / max(1, known.bytes)
        return max(1, min(math.ceil(self.connections * share), math.ceil(size / CONNECTION_SIZE), self.connections))

    def layer_network(self, wildcards: Any) -> int:
        """The same as the resource."""
        return self._share(self.layer_connections(wildcards))

    def all_network(self, wildcards: object) -> int:
        """All connections, as the resource."""
        return self._share(self.connections)

    def _share(self, connections: int) -> int:
        return max(1, (self._host.network or self.connections) * connections // self.connections)

    def explode_threads(self, wildcards: Any) -> int:
        """Threads by the layer's share of all bytes; one of unknown size counts as those that are known do on average.

        Small layers side by side keep all cores busy without sharing an interpreter; a layer that would still run when the
        others are done gets more.
        """
        known, cores = self._graph.known(), self._host.cores
        size = known.sizes.get(wildcards.digest)
        return max(1, min(cores, math.ceil(6 * cores * (known.usual if size is None else size) / max(1, known.total))))

    def image_threads(self, wildcards: object) -> int:
        """The native builder copies, others compress."""
        return 1 if self._settings.builder == "native" else self._host.cores

    def image_group(self, wildcards: Any) -> str | None:
        """The job of an image's last steps: they take seconds, and a job of a cluster costs more than they do."""
        return self._group(wildcards.image)

    def layer_group(self, wildcards: Any) -> str | None:
        """The job of the image that alone needs a small layer.

        A job of a cluster fails with any of its parts: no other image may have to fail with this one, so a layer that several
        images share is a job of its own.
        """
        known = self._graph.known()
        size = known.sizes.get(wildcards.digest)
        images = known.images.get(wildcards.digest, ())
        return self._group(images[0]) if size is not None and size <= LARGE_LAYER and len(images) == 1 else None

    def _group(self, image: str) -> str | None:
        # Without a cluster Snakemake passes over groups, but a dry run would show them.
        return f"image-{image}" if self._host.executes and not self._host.local else None

    def tmpdir(self, wildcards: object) -> str:
        """Where the node that asks keeps temporary files: a job's own folder there, if it has one."""
        return temporary.node(os.environ)

    def explode_memory(self, wildcards: object, threads: int, attempt: int) -> int:
        """Megabytes: the interpreters, and blocks on their way for each thread. 150 was seen with two."""
        return (500 + 150 * threads) * attempt

    def tree_memory(self, wildcards: object, attempt: int) -> int:
        """Megabytes: the interpreters, and half a kilobyte for each of a million entries."""
        return 1000 * attempt

    def transfer_time(self, wildcards: Any, attempt: int) -> int:
        """Minutes, at 2 MB a second."""
        return math.ceil(20 + 9 * self._gigabytes(wildcards)) * attempt

    def explode_time(self, wildcards: Any, attempt: int) -> int:
        """Minutes, on one slow core at the level `small`: 15 s for a layer of 250 MB uncompressed were seen."""
        return math.ceil(10 + 10 * self._gigabytes(wildcards)) * attempt

    def image_time(self, wildcards: Any, attempt: int) -> int:
        """Minutes, for copying at 20 MB a second; other builders compress all of it once more."""
        return math.ceil(10 + (1 if self._settings.builder == "native" else 20) * self._gigabytes(wildcards)) * attempt

    def image_disk(self, wildcards: Any) -> int:
        """Megabytes of temporary files on the node: the native builder has none there, others may unpack the image."""
        return 100 if self._settings.builder == "native" else math.ceil(1000 + 5 * 1024 * self._gigabytes(wildcards))

    def _gigabytes(self, wildcards: Any) -> float:
        """Compressed gigabytes of the layer, or of the image's layers; one of unknown size counts as one. 0 until layers are known."""
        known = self._graph.known()
        digests = [wildcards.digest] if hasattr(wildcards, "digest") else known.layers.get(wildcards.image, ())
        sizes = (known.sizes.get(digest) for digest in digests)
        return sum((1 << 30) if size is None else size for size in sizes) / (1 << 30)
