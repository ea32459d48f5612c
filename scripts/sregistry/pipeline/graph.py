"""Inputs of the rules, as methods; it imports no Snakemake.

```
workflow/rules ── host: what the running Snakemake knows ──▶ ┌ Graph ─────── inputs, here ────────────────┐
config ─▶ Plan ─▶ Images ──────────────────────────────────▶ │ Parameters ── words of commands            │
results ─▶ tags, manifests, the gathering file ────────────▶ └ Demands ───── threads, groups, memory, time┘
```

*wildcards* are anything with the attributes of a rule's wildcards. Paths that methods return are those of rules: Snakemake
puts the prefix of a module before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sregistry.config.plan import Plan
from sregistry.pipeline import gathered
from sregistry.pipeline.gathered import Gathered
from sregistry.pipeline.host import Host, in_one_line
from sregistry.pipeline.images import Images
from sregistry.pipeline.once import Run
from sregistry.results import paths, receipts


class Graph:
    """The input functions of a run, and what they share."""

    def __init__(self, host: Host, plan: Plan) -> None:
        self.host = host
        self.images = Images(host, plan)
        self.settings = self.images.settings
        self.run = Run(host, self.images)
        #: Outputs of the two checkpoints.
        self.gathering, self.choice = self.images.gathering, self.images.choice

    # -- targets of the whole workflow

    @in_one_line
    def finished(self, wildcards: object) -> list[str]:
        """All that is there at the end: a record an image, or the image alone without a catalog."""
        self.run.refuse()
        self.run.sweep()
        self.run.begin()
        last = paths.IMAGE if self.settings.disable else paths.RECORD
        made = [last.format(image=image) for image in self._all()]
        self.run.begin()  # of the patterns' images, too
        failed = [paths.NO_TAGS.format(pattern=pattern) for pattern in self.images.lists.failed]
        # By name: what waits for the gathering checkpoint alone is not looked at while that is missing.
        found = [self.gathering, *made, *failed]
        self.run.expect(found)
        return found

    def fetched(self, wildcards: object) -> list[str]:
        """A receipt for each layer. An image without layers could not be resolved; its metadata job reports why."""
        found = self.gathered()
        failed = [paths.METADATA.format(image=image) for image, digests in found.layers.items() if not digests]
        return [*failed, *(paths.LAYER.format(digest=digest) for digest in found.sizes)]

    @in_one_line
    def questions(self, wildcards: object) -> list[str]:
        """The file that tells a refresh what to ask. A run writes it now; a job on another node finds it, a dry run has none."""
        self.images.require("snakemake refresh")
        name = paths.QUESTIONS.format(batch=self.images.batch)
        if self.host.runs:
            receipts.write(self.host.top / name, self.images.questions())
        return [name] if (self.host.top / name).exists() else []

    @in_one_line
    def report_pages(self, wildcards: object) -> list[tuple[str, str, str]]:
        """Path, name and title of the report's pages, written now; none while jobs run, and none before any image was begun."""
        images, folder = self.images, self.images.results.folder
        working = self.host.executes and not self.run.ended_well
        if working or not self.host.own or not any((folder / image).is_dir() for image in images.targets):
            return []
        from sregistry.pipeline.report import data, pages

        asked = [data.Asked(key, target.uri, str(target.path), target.compression.variant) for key, target in images.targets.items()]
        found = data.read(self.host.top, asked, others=[images.batch, *images.patterns])
        return list(zip(pages.write(found, self.run.pages), pages.PAGES, pages.PAGES.values(), strict=True))

    # -- inputs of jobs; each of a first job sweeps, for a target may be any of them

    def stamp(self, wildcards: Any) -> list[str]:
        """The stamp of a manifest or list of tags that is asked again; a dry run has none."""
        self.run.sweep()
        return [paths.STAMP] if self.asks_again(wildcards) and (self.host.top / paths.STAMP).exists() else []

    def asks_again(self, wildcards: Any) -> bool:
        """Whether a tag or a list of tags is asked again: by `refresh`, or because a lock file says another digest."""
        return self.settings.refresh if hasattr(wildcards, "pattern") else wildcards.image in self.images.outdated

    def tag_lists(self, wildcards: object) -> list[str]:
        """The list of each pattern."""
        self.run.sweep()
        return [paths.TAGS.format(pattern=pattern) for pattern in self.images.patterns]

    def chosen_tags(self, wildcards: object) -> list[str]:
        """The gathered lists, if patterns decide which images there are."""
        return [self.choice] if self.images.patterns else []

    def manifests(self, wildcards: object) -> list[str]:
        """The manifest of each image."""
        return [paths.MANIFEST.format(image=image) for image in self._all()]

    def manifest(self, wildcards: Any) -> str:
        """The image's manifest, once all are gathered; one with the same bytes as before triggers nothing."""
        self.gathered()
        return paths.MANIFEST.format(image=wildcards.image)

    def manifests_of_layer(self, wildcards: Any) -> list[str]:
        """Manifests that name the layer, one for each thing that is said of it; a command line has no room for thousands."""
        return [paths.MANIFEST.format(image=image) for image in self.gathered().sources(wildcards.digest)[:100]]

    def blob(self, wildcards: Any) -> str:
        """The receipt of the layer's blob."""
        return paths.LAYER.format(digest=wildcards.digest)

    def is_fetched_again(self, wildcards: Any) -> bool:
        """Whether a run would fetch the layer's blob anew: a dry run shows what follows from that."""
        return self.host.top / self.blob(wildcards) in self.run.remade

    def exploded_layers(self, wildcards: Any) -> list[str]:
        """Receipts of the image's exploded layers, each once."""
        variant = self.images.targets[wildcards.image].compression.variant
        return [paths.EXPLODED.format(digest=digest, variant=variant) for digest in self.gathered().layers[wildcards.image]]

    def parts(self, wildcards: Any) -> dict[str, str]:
        """What the image is made of, by the option of its stage."""
        image, found = wildcards.image, self.gathered()
        named = {"manifest": self.manifest(wildcards)}
        if image not in found.sifs:
            named |= {"metadata": paths.METADATA.format(image=image), "sandbox": paths.SANDBOX.format(image=image)}
        elif self.images.targets[image].format == "sif":  # the stage refuses any other: nothing is fetched for it
            named["sif"] = paths.LAYER.format(digest=found.layers[image][0])
        return named

    # -- what is gathered

    def gathered(self) -> Gathered:
        """What the images share. Input functions wait for it."""
        self.run.sweep()
        path = self.host.checkpoint("manifests")
        self.run.gathered()
        return gathered.read(path, path.stat().st_mtime_ns)

    def known(self) -> Gathered:
        """The same as far as it is on disk, for threads, resources and groups: those must not wait for a checkpoint."""
        path = self.host.top / self.gathering
        try:
            return gathered.read(path, path.stat().st_mtime_ns)
        except FileNotFoundError:
            return Gathered()

    def _all(self) -> Sequence[str]:
        """Return the keys of all images, those of patterns once their lists of tags are gathered."""
        self.run.sweep()
        if self.images.patterns:
            self.images.take_patterns(self.host.checkpoint("targets").stat().st_mtime_ns)
        return list(self.images.targets)

    # -- for workflows that have these rules as a module

    @in_one_line
    def receipt_of(self, text: str) -> str:
        """The receipt of an image, as an input of another rule: its content changes with the image."""
        return str(self.images.results.at(paths.IMAGE, image=self.images.find(text).key))

    @in_one_line
    def file_of(self, text: str) -> str:
        """The file, or folder, that an image becomes."""
        return str(self.images.find(text).path)
