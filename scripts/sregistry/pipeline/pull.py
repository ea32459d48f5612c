"""The pipeline from within: the same Snakefile, run by Snakemake's API, as `sregistry pull` does.

```
images, settings ─▶ key ─▶ <state>/pulls/<key>/ {results, logs, .snakemake}   under a lease: one pull of the same at a time
                           └ Snakemake, in a process of its own ─▶ jobs ─▶ receipts, logs ─▶ [PullResult]
```

The state folder is the user's own, whatever the cache is: `$XDG_STATE_HOME/sregistry`, by default
`~/.local/state/sregistry`. What is in it only saves work; folders that nobody used for long are removed.

Nothing of the calling process changes: its environment, its folder and its signals are its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sregistry._version import __version__
from sregistry.catalog import occupant
from sregistry.catalog.catalog import Catalog
from sregistry.catalog.record import Record, record
from sregistry.config import requested, temporary
from sregistry.config.options import DISABLE_CACHE, flag
from sregistry.config.registries import OWN, own_file
from sregistry.config.secrets_file import overlay
from sregistry.config.settings import Settings
from sregistry.config.targets import Target, targets
from sregistry.errors import ConfigError, SregistryError, StoreError, from_oserror
from sregistry.image import programs
from sregistry.pipeline import writable
from sregistry.pipeline.engine import Engine
from sregistry.pipeline.progress.displays import Display
from sregistry.pipeline.progress.tracker import LOOK, Tracker
from sregistry.results import receipts
from sregistry.results.failures import BUG
from sregistry.results.job_logs import Job, JobLogs
from sregistry.results.paths import BENCHMARKS, FAILED, GATHERED, IMAGE, LOGS, MANIFEST, RECORD, SANDBOX, Results
from sregistry.results.resolved import Resolved
from sregistry.store import maintenance
from sregistry.store.store import Store
from sregistry.system import heartbeat, logs
from sregistry.system.locks import lease

#: How many state folders are kept, and for how many seconds after their last use.
KEPT, FORGOTTEN = 32, 30 * 86_400
#: Variables that name files or folders, seen from where the user is.
_PATHS = (
    *("SREGISTRY_TMPDIR", "SREGISTRY_CLIENT_SECRETS", "SREGISTRY_DOCKERHUB_SECRETS", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE"),
    *("NETRC", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "TMPDIR"),
)
#: Settings that make no difference to a receipt.
_PASSING = ("connections", "layer_limit", "refresh", "force")


@dataclass(frozen=True, kw_only=True, slots=True)
class PullResult:
    """What became of one image.

    `record` is what the catalog has of it, None if it failed, and `errors` say why; `change` is "new" or
    "update", None if there was nothing to do.
    """

    target: Target
    record: Record | None
    change: str | None
    errors: tuple[str, ...] = ()


def run(
    entries: Sequence[Mapping[str, Any]],
    settings: Settings,
    *,
    environ: Mapping[str, str] = os.environ,
    force: bool = False,
    no_cache: bool = False,
    shown: Display,
) -> list[PullResult]:
    """Have images made and recorded.

    Args:
        entries: as the key `images` of the configuration.
        settings: of the caller, paths absolute.
        environ: for the jobs; tokens come from here.
        force: build images again that are there, and in the place of others, as the setting does.
        no_cache: keep layers in a temporary folder, for as long as this lasts.
        shown: is told how far it is.

    Returns:
        One a target, in the order of the entries.

    Raises:
        UsageError: entries or settings are wrong. ImageError: a builder's program is missing.
        StoreError: the state can't be written.
        KeyboardInterrupt, or what else comes in between: after the jobs have ended.
    """
    merged = overlay(environ)
    settings = replace(settings, force=settings.force or force)
    made = targets(requested.entries({"images": entries}), settings, merged)
    programs.find(settings.builder)
    no_cache = no_cache or flag(merged.get(DISABLE_CACHE, ""), DISABLE_CACHE)
    with contextlib.ExitStack() as stack:
        root = _root(environ)
        if not root.is_dir():
            writable.refuse({"XDG_STATE_HOME": root, **_places(settings, no_cache=no_cache)})
        display = stack.enter_context(shown)
        state = stack.enter_context(_state(_key(entries, settings, no_cache=no_cache), environ, display.say))
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sregistry-pulse-", ignore_cleanup_errors=True)))
            if no_cache:
                cache = tempfile.TemporaryDirectory(prefix="sregistry-cache-", dir=temporary.working(environ), ignore_cleanup_errors=True)
                settings = replace(settings, cache=Path(stack.enter_context(cache)).absolute())
        except OSError as error:
            raise from_oserror(error, StoreError, "can't make a temporary folder") from error
        place = Results(state)
        _forget_records(place, made, settings)
        before = {target.key: _time(place, target, settings) for target in made}
        if None in before.values():
            writable.refuse(_places(settings, no_cache=no_cache))
        store = Store(settings.store)
        stack.enter_context(maintenance.session(store))
        refused = occupant.refusals(made, settings, merged, place)
        if len(refused) == len(made):  # nothing is asked for then, and nothing fetched
            return [PullResult(target=target, record=None, change=None, errors=(str(refused[target.key]),)) for target in made]
        tracker = Tracker(place, [target.key for target in made], settings.compression.variant, store, folder)
        given = {**environ, **_absolute(environ), **logs.exported(), DISABLE_CACHE: "no", heartbeat.VARIABLE: str(folder)}
        engine = Engine(state, _config(entries, settings), given, force=force)
        try:
            engine.start()
            while not engine.wait(LOOK):
                if engine.scheduling:
                    display.show(tracker.look())
            display.show(tracker.look())
        except BaseException:
            engine.stop()
            raise
        found = [_result(place, target, settings, before[target.key], engine) for target in made]
        if engine.failed and not any(result.errors for result in found):
            found = [replace(result, record=None, errors=(f"{result.target.uri}: {engine.complaint()}",)) for result in found]
        return found


# -- the state folder


def _root(environ: Mapping[str, str]) -> Path:
    """Return where state folders are (XDG Base Directory Specification: what is not absolute does not count)."""
    named = environ.get("XDG_STATE_HOME", "")
    try:
        return (Path(named) if os.path.isabs(named) else Path("~/.local/state").expanduser()) / "sregistry" / "pulls"
    except RuntimeError:
        raise ConfigError("no home folder", hint="set XDG_STATE_HOME") from None


def _places(settings: Settings, *, no_cache: bool) -> dict[str, Path]:
    """Return the variables that name the folders which a pull writes to."""
    named = {} if settings.disable else {"SREGISTRY_STORAGE": settings.storage, "SREGISTRY_DATABASE": settings.database}
    return named if no_cache else {**named, "SINGULARITY_CACHEDIR": settings.cache}


def _key(entries: Sequence[Mapping[str, Any]], settings: Settings, *, no_cache: bool) -> str:
    """Name what is asked for, and how: whatever makes a difference to a receipt."""
    config = {key: value for key, value in _config(entries, settings).items() if key not in _PASSING}
    if no_cache:
        config["cache"] = None
    config["images"] = sorted(json.dumps(dict(entry), sort_keys=True) for entry in entries)
    own = (own_file() or b"").decode(errors="replace")
    text = json.dumps([__version__, config, settings.disable, own], sort_keys=True)
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:20]


@contextlib.contextmanager
def _state(key: str, environ: Mapping[str, str], say: Callable[[str], object]) -> Iterator[Path]:
    """Hold the state folder *key*; old ones are removed afterwards."""
    root = _root(environ)
    state = root / key
    own = own_file()
    with contextlib.ExitStack() as stack:
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not stack.enter_context(lease(root / f"{key}.lock", wait=False)):
                say("waiting for another pull of the same")
                stack.enter_context(lease(root / f"{key}.lock"))
            (state / OWN.parent).mkdir(parents=True, exist_ok=True)
            if own is not None:
                (state / OWN).write_bytes(own)
                (state / OWN).chmod(0o644)  # whatever the umask: what others may write is not obeyed
            shutil.rmtree(state / LOGS, ignore_errors=True)
            os.utime(state)
        except OSError as error:
            problem = from_oserror(error, StoreError, "can't keep the state of a pull:")
            problem.hint = "set XDG_STATE_HOME to a folder that you can write"
            raise problem from error
        yield state
        for name in (BENCHMARKS, ".snakemake/log", ".snakemake/locks"):
            shutil.rmtree(state / name, ignore_errors=True)
        for image in state.glob(IMAGE.format(image="*")):  # an index is as large as the image has files, and soon made again
            Results(state).at(SANDBOX, image=image.parent.name).unlink(missing_ok=True)
    _prune(root, key)


def _prune(root: Path, key: str) -> None:
    """Remove state folders that nobody used for long, and those beyond the number that is kept; *key* stays."""
    found = []
    with contextlib.suppress(OSError):
        for path in root.iterdir():
            if path.is_dir() and path.name != key:
                found.append((path.stat().st_mtime, path))
    found.sort(reverse=True)
    now = time.time()
    for number, (used, path) in enumerate(found, 1):
        if number >= KEPT or now - used > FORGOTTEN:
            with contextlib.suppress(OSError), lease(root / f"{path.name}.lock", wait=False) as held:
                if held:
                    shutil.rmtree(path, ignore_errors=True)


# -- what Snakemake is given


def _config(entries: Sequence[Mapping[str, Any]], settings: Settings) -> dict[str, Any]:
    """Return all settings as keys of the configuration: nothing is left to the environment or a file."""
    compression = settings.compression
    return {
        "images": [dict(entry) for entry in entries],
        "client": settings.client,
        "platform": str(settings.platform),
        "format": settings.format,
        "compression": {"codec": compression.codec.name.lower(), "level": compression.level, "block_size": compression.block_size},
        "builder": settings.builder,
        "storage": str(settings.storage),
        "filename": str(settings.filename),
        "force": settings.force,
        "database": str(settings.database),
        "cache": str(settings.cache),
        "cache_from": [str(folder) for folder in settings.cache_from],
        "connections": settings.connections,
        "layer_limit": settings.layer_limit,
        "refresh": settings.refresh,
        "docker_cmd": settings.docker_cmd,
    }


def _absolute(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that name a place seen from here, as seen from anywhere."""
    named = {name: environ[name] for name in _PATHS if environ.get(name)}
    return {name: str(Path.cwd() / path) for name, path in named.items() if not path.startswith(("/", "~"))}


# -- what became of it


def _last(place: Results, target: Target, settings: Settings) -> Path:
    """Return the receipt that is there when all is done."""
    return place.at(IMAGE if settings.disable else RECORD, image=target.key)


def _time(place: Results, target: Target, settings: Settings) -> int | None:
    with contextlib.suppress(OSError):
        return _last(place, target, settings).stat().st_mtime_ns
    return None


def _forget_records(place: Results, made: Sequence[Target], settings: Settings) -> None:
    """Discard receipts of records that the catalog has no longer: they were removed or renamed since."""
    ids = {record.id for record in Catalog(settings.database).records()}
    for target in made:
        path = place.at(RECORD, image=target.key)
        with contextlib.suppress(SregistryError):
            if path.exists() and receipts.Recorded.read(path).id not in ids:
                path.unlink()


def _result(place: Results, target: Target, settings: Settings, before: int | None, engine: Engine) -> PullResult:
    now = _time(place, target, settings)
    errors = _errors(place, target, settings)
    if now is None and not errors:
        errors = (f"{target.uri}: {engine.complaint()}",)
    if errors:
        return PullResult(target=target, record=None, change=None, errors=errors)
    kept, new = _record(place, target, settings)
    is_new = before is None if new is None else new
    return PullResult(target=target, record=kept, change=None if now == before else "new" if is_new else "update")


def _record(place: Results, target: Target, settings: Settings) -> tuple[Record, bool | None]:
    """Return an image's record, and whether it replaced none; without a catalog, what would be in it, and None."""
    if not settings.disable:
        recorded = receipts.Recorded.read(place.at(RECORD, image=target.key))
        return next(kept for kept in Catalog(settings.database).records() if kept.id == recorded.id), recorded.new
    resolved = Resolved.read(place.at(MANIFEST, image=target.key))
    return record(resolved, receipts.Image.read(place.at(IMAGE, image=target.key)), now=datetime.now(UTC)), None


def _errors(place: Results, target: Target, settings: Settings) -> tuple[str, ...]:
    """Return why the jobs of this run failed that an image needs, each reason once."""
    job_logs = JobLogs(place)
    jobs = job_logs.jobs(target.key, settings.compression.variant, receipts.layer_digests(place.at(MANIFEST, image=target.key)))
    # A job that gathers has no image's name.
    jobs += [Job("manifests", path.stem, path) for path in place.at(GATHERED, batch="_").parent.glob(f"*{FAILED}")]
    failures = filter(None, (job_logs.trace(job).failure for job in jobs))
    return tuple(dict.fromkeys(f"{target.uri}: {failure}" if failure.cause == BUG else str(failure) for failure in failures))
