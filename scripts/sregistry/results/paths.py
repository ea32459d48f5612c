"""Where everything is in a working folder. Rules, stages, summary and report ask here; nothing else spells these paths.

```
results/<image>/          manifest.json metadata.json metadata.tar sandbox.index image.json record.json
results/layer/            <digest>.json                 a blob in the store
results/explode/          <digest>.<variant>.json       the same, exploded
results/tags/             <pattern>.json                the tags that a pattern means; .failed beside it
results/batch/            <batch>.json                  what the images of a batch share; .targets.json with patterns,
                                                        .questions.json while a refresh asks
results/                  refresh summary.json refresh.json lock.yaml
results/report/<batch>/   pages of a report that is made with its run
<output>.failed           why a stage did not make its output
logs/<rule>/<name>.log    benchmarks/<rule>/<name>.tsv
```

Patterns have Snakemake's wildcards: `image` and `pattern` are keys of targets, `digest` a digest as text, `variant` a
compression's name, `batch` a set of images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RESULTS = "results"
MANIFEST = "results/{image}/manifest.json"
METADATA = "results/{image}/metadata.json"
METADATA_TAR = "results/{image}/metadata.tar"
SANDBOX = "results/{image}/sandbox.index"
IMAGE = "results/{image}/image.json"
RECORD = "results/{image}/record.json"
LAYER = "results/layer/{digest}.json"
EXPLODED = "results/explode/{digest}.{variant}.json"
TAGS = "results/tags/{pattern}.json"
#: A pattern's list of tags that could not be had.
NO_TAGS = "results/tags/{pattern}.failed"
GATHERED = "results/batch/{batch}.json"
TARGETS = "results/batch/{batch}.targets.json"
#: What a refresh asks, for its stage alone.
QUESTIONS = "results/batch/{batch}.questions.json"
PAGES = "results/report/{batch}"
#: Newer than a manifest or a list of tags that is to be asked again.
STAMP = "results/refresh"
SUMMARY = "results/summary.json"
CHANGES = "results/refresh.json"
LOCK = "results/lock.yaml"
#: The ending of a failure, which stands beside the output that is missing.
FAILED = ".failed"
LOG = "logs/{rule}/{name}.log"
BENCHMARK = "benchmarks/{rule}/{name}.tsv"
LOGS, BENCHMARKS = "logs", "benchmarks"


def log(rule: str, name: str) -> str:
    """Return the log of a rule's jobs; *name* may have wildcards."""
    return LOG.replace("{rule}", rule).replace("{name}", name)


def benchmark(rule: str, name: str) -> str:
    """Return the benchmark of a rule's jobs; *name* may have wildcards."""
    return BENCHMARK.replace("{rule}", rule).replace("{name}", name)


@dataclass(frozen=True, slots=True)
class Results:
    """The working folder *top*, or the folder in it that a module's `prefix` names."""

    top: Path = Path()

    @classmethod
    def around(cls, manifest: Path) -> Results:
        """Return the working folder that an image's manifest.json is in."""
        return cls(manifest.parent.parent.parent)

    @property
    def folder(self) -> Path:
        """The folder of all receipts."""
        return self.top / RESULTS

    def at(self, pattern: str, /, **wildcards: object) -> Path:
        """Return the path that a pattern of this module means."""
        return self.top / pattern.format(**wildcards)
