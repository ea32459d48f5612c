"""What a run leaves behind for people: how each image ended, and what a refresh changed.

```
begin ─▶ what is there ─┐                      ┌─▶ a table on stderr (of several images)
end ───▶ what is there ─┴─▶ done | unchanged | failed | left ───▶ results/summary.json
         manifests ──────────────────────────────────────────▶ results/lock.yaml
```

Why an image failed, its jobs and those of its layers say (results/job_logs.py). What an earlier run left does not count.
The files belong to the run that ended last in this folder.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TextIO

from sregistry.config.lock_file import Lock
from sregistry.config.plan import Plan
from sregistry.config.targets import Target
from sregistry.errors import SregistryError, StoreError, from_oserror
from sregistry.pipeline import pinned
from sregistry.results import receipts
from sregistry.results.changes import Change, as_table
from sregistry.results.job_logs import Job, JobLogs
from sregistry.results.paths import IMAGE, LOCK, MANIFEST, RECORD, SUMMARY, Results
from sregistry.results.receipts import Image
from sregistry.results.resolved import Resolved
from sregistry.store.store import Store
from sregistry.system import logs
from sregistry.system.locks import lease
from sregistry.system.units import amount, table
from sregistry.terminal import printable

#: The last one is of a run that was told to make something else, such as `--until manifests`.
DONE, UNCHANGED, FAILED, LEFT = "done", "unchanged", "failed", "left"

_NOT_REACHED = "not reached: the run ended before"


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageStatus:
    """How an image ended.

    `digest` is the manifest's, `version` the hash of the file, `size` its bytes; `seconds` are those of all jobs of
    this run that the image needed, layers shared with others included. `before` is what was there when
    the run began, by version and size.
    """

    uri: str
    platform: str
    format: str
    path: str
    status: str
    reason: str | None
    digest: str | None
    version: str | None
    size: int | None
    seconds: float
    before: dict[str, Any] | None


class Summary:
    """Watches the images of one run; workflow/schemas/summary.schema.yaml describes what it writes.

    Args:
        place: the run's working folder.
        out: where the tables go; stderr without it.
    """

    def __init__(self, place: Results, out: TextIO | None = None) -> None:
        self._place, self._out = place, out
        self._logs = JobLogs(self._place)
        self._plan: Plan | None = None
        self._targets: Sequence[Target] = ()
        self._tags: dict[str, list[str]] = {}
        self._images: dict[str, Image | None] = {}
        self._manifests: dict[str, Resolved | None] = {}
        self._changes: list[Change] | None = None
        self._closed = False

    @property
    def begun(self) -> bool:
        """Whether there is a run to tell of."""
        return self._plan is not None and not self._closed

    def begin(self, plan: Plan) -> None:
        """Note when the run begins, by the clock of the results' file system. Only the first call counts.

        Raises:
            StoreError: the results can't be written.
            ConfigError: the lock file there is damaged.
        """
        if self._plan is None:
            self._plan = plan
            try:
                self._place.folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=self._place.folder) as file:
                    file.write(b"now")
                    file.flush()
                    self._logs = JobLogs(self._place, os.fstat(file.fileno()).st_mtime_ns)
            except OSError as error:
                raise from_oserror(error, StoreError, "can't write") from error
            self._tags = pinned.tags(plan, self._place)
            if plan.settings.locked is None:
                self._locked()  # what it can't be added to is told before anything is done

    def expect(self, targets: Sequence[Target]) -> None:
        """Note what is there of the run's images, before it makes any; those of patterns become known later."""
        self._targets = targets
        for target in targets:
            if target.key not in self._images:
                self._images[target.key] = self._image(target)
                if self._plan is not None and self._plan.settings.refresh:
                    self._manifests[target.key] = self._manifest(target)

    def gathered(self) -> None:
        """All manifests are there: after a refresh, tell what has changed, before it is fetched."""
        if not self.begun or self._changes is not None or self._plan is None or not self._plan.settings.refresh:
            return
        store = Store(self._plan.settings.store, self._plan.settings.cache_from)
        self._changes = []
        for target in self._targets:
            before, after = self._manifests.get(target.key), self._manifest(target)
            uri, platform, named = target.uri, str(target.platform), None if before is None else str(before.named)
            if after is not None:
                self._changes.append(Change.of(uri=uri, platform=platform, before=named, manifest=before, after=after, store=store))
            elif (error := self._refusal(target)) is not None:
                self._changes.append(Change(uri=uri, platform=platform, before=named, after=None, error=error))
        self._changes = list(dict.fromkeys(self._changes))  # what becomes several files is told once
        self._print(as_table(self._changes))

    def close(self, *, failed: bool = False, patterns: Mapping[str, str] | None = None) -> None:
        """Tell how all ended, once: the table, summary.json and lock.yaml.

        Args:
            failed: some job did.
            patterns: why patterns failed, by their keys.

        Raises:
            StoreError: a file can't be written.
        """
        if not self.begun or self._plan is None:
            return
        self.gathered()
        self._closed = True
        manifests = {target.key: self._manifest(target) for target in self._targets}
        statuses = [self._status(target, manifests[target.key], failed=failed) for target in self._targets]
        lists = self._lists(patterns or {}, failed=failed)
        # A pattern counts by its images, or, without any, as what failed.
        states = [*(image.status for image in statuses), *(FAILED for item in lists if item["status"] == FAILED)]
        counts = {status: states.count(status) for status in (DONE, UNCHANGED, FAILED, LEFT)}
        value = {
            "version": 1,
            "images": [asdict(image) for image in statuses],
            "patterns": lists,
            "changes": None if self._changes is None else [change.json() for change in self._changes],
            "counts": counts,
        }
        path = self._place.at(SUMMARY)
        receipts.write(path, value)
        self._lock(manifests)
        if len(states) > 1:
            rows = [_row(image) for image in statuses]
            rows += [[FAILED, item["uri"], "", "", item["reason"]] for item in lists if item["status"] == FAILED]
            self._print(table(rows))
            counted = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
            self._print([f"{len(states)} asked for: {counted}; {path} has more"])

    def _lock(self, manifests: Mapping[str, Resolved | None]) -> None:
        """Add what resolved to the lock file; a run with a lock has nothing new to say."""
        if self._plan is None or self._plan.settings.locked is not None:
            return
        images = [(target, found.named) for target in self._targets if (found := manifests[target.key]) is not None]
        tags = pinned.tags(self._plan, self._place)
        lists = [(pattern, tags[pattern.key]) for pattern in self._plan.patterns if tags.get(pattern.key)]
        if not images and not lists:
            return
        path = self._place.at(LOCK)
        try:
            with lease(path.with_name(f".{path.name}.lock")):  # another run in this folder may end now
                data = self._locked().merged(images, lists).encode()
                if not path.exists() or path.read_bytes() != data:
                    receipts.publish(path, data)
        except OSError as error:
            raise from_oserror(error, StoreError, "can't write") from error

    def _locked(self) -> Lock:
        """Return what earlier runs resolved. Raises ConfigError."""
        path = self._place.at(LOCK)
        return Lock.read(path) if path.exists() else Lock(path=path, images={}, tags={})

    def _status(self, target: Target, manifest: Resolved | None, *, failed: bool) -> ImageStatus:
        assert self._plan is not None
        image, before = self._image(target), self._images[target.key]
        last = IMAGE if self._plan.settings.disable else RECORD
        whole = image is not None and self._place.at(last, image=target.key).is_file()
        reason = self._problem(target, manifest) or (None if whole else _NOT_REACHED) if failed else None
        status = FAILED if reason else LEFT if not whole else UNCHANGED if image == before else DONE
        jobs = self._jobs(target, manifest)
        return ImageStatus(
            uri=target.uri,
            platform=str(target.platform),
            format=target.format,
            path=str(target.path),
            status=status,
            reason=reason,
            digest=None if manifest is None else str(manifest.digest),
            version=None if image is None else image.version,
            size=None if image is None else image.size,
            seconds=0.0 if status == UNCHANGED else round(sum(self._logs.trace(job).seconds for job in jobs), 3),
            before=None if before is None else {"version": before.version, "size": before.size},
        )

    def _lists(self, failed_patterns: Mapping[str, str], *, failed: bool) -> list[dict[str, Any]]:
        """Return what became of the patterns."""
        assert self._plan is not None
        tags = pinned.tags(self._plan, self._place)
        rows = []
        for pattern in self._plan.patterns:
            found, before = tags.get(pattern.key), self._tags.get(pattern.key)
            reason = failed_patterns.get(pattern.key) or (_NOT_REACHED if failed and found is None else None)
            status = FAILED if reason else LEFT if found is None else UNCHANGED if found == before else DONE
            rows.append({"uri": pattern.described, "status": status, "reason": reason, "tags": found, "before": before})
        return rows

    def _image(self, target: Target) -> Image | None:
        """Return the receipt of an image that is there."""
        try:
            value = Image.read(self._place.at(IMAGE, image=target.key))
        except SregistryError:
            return None
        return None if receipts.stale(value.holds) else value

    def _manifest(self, target: Target) -> Resolved | None:
        try:
            return Resolved.read(self._place.at(MANIFEST, image=target.key))
        except SregistryError:
            return None

    def _refusal(self, target: Target) -> str | None:
        """Return why an image could not be resolved, where its manifest.json says so."""
        try:
            return receipts.Vouched.read(self._place.at(MANIFEST, image=target.key)).error
        except SregistryError:
            return None

    def _problem(self, target: Target, manifest: Resolved | None) -> str | None:
        """Return why an image was not made in this run: an error, or a job that ended without one."""
        jobs = self._jobs(target, manifest)
        failure = next((failure for job in jobs if (failure := self._logs.trace(job).failure) is not None), None)
        if failure is not None:
            return str(failure)
        cut = next((job for job in jobs if self._logs.trace(job).ran and not job.output.is_file()), None)
        return None if cut is None else f"{cut.rule}: the job was cut short; its log is {self._logs.log(cut)}"

    def _jobs(self, target: Target, manifest: Resolved | None) -> list[Job]:
        digests = [] if manifest is None else dict.fromkeys(str(layer.blob.digest) for layer in manifest.layers)
        return self._logs.jobs(target.key, target.compression.variant, digests)

    def _print(self, lines: Iterable[str]) -> None:
        if logs.shown(logs.Level.INFO):
            for line in lines:
                print(printable(line), file=self._out or sys.stderr, flush=True)


def _row(image: ImageStatus) -> list[str]:
    if image.status == FAILED:
        return [FAILED, image.uri, "", "", image.reason or ""]
    seconds = f"{image.seconds:.1f} s" if image.status == DONE else ""
    return [image.status, image.uri, amount(image.size), seconds, image.path]
