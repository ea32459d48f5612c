"""Snakemake: what the rules read of the running one, and a run through its public API in a process of its own.

```
sregistry pull ──▶ python -m sregistry.pipeline.engine        a session, a working folder and an environment of its own
   stdin   one line: the request, JSON ───────▶      then open for as long as the run is wanted
   stdout  ◀── events: {"scheduling": true} {"complaint": …} {"failed": …}, a line each
```

When stdin closes, whoever asked is gone or has changed its mind: the process ends its jobs and itself. So neither
Ctrl-C nor a kill of the asking process leaves a job behind, and nothing of that process is changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sregistry.results.paths import RESULTS

#: Seconds that interrupted jobs have until they get SIGTERM, and until they get SIGKILL.
_GRACE, _PATIENCE = 0.5, 1.5


class Engine:
    """A run of the workflow in the folder *state*.

    Args:
        state: where results and logs go.
        config: all keys of the configuration.
        environ: of Snakemake and the jobs.
        force: build images again that are there.
    """

    def __init__(self, state: Path, config: Mapping[str, Any], environ: Mapping[str, str], *, force: bool) -> None:
        self._request = json.dumps({"state": str(state), "config": config, "force": force})
        # Snakemake makes a folder of sources there, whatever it is asked for.
        self._environ = {**environ, "XDG_CACHE_HOME": str(state / ".snakemake")}
        self._state = state
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""
        self.complaints: list[str] = []
        self.scheduling = False
        self.failed = False

    def start(self) -> None:
        """Begin."""
        self._process = subprocess.Popen(
            # -P: the folder that the process works in is no place for modules.
            [sys.executable, "-P", "-m", "sregistry.pipeline.engine"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=self._state,
            env=self._environ,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{self._request}\n".encode())
            self._process.stdin.flush()

    def wait(self, seconds: float) -> bool:
        """Wait so long at most, or until something happens; tell whether it has ended."""
        assert self._process is not None and self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return False
        data = os.read(self._process.stdout.fileno(), 1 << 16)
        if not data:
            self._end()
            return True
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            event = json.loads(line)
            self.scheduling |= "scheduling" in event
            self.failed |= "failed" in event
            self.complaints += [event[key] for key in ("complaint", "failed") if key in event]
        return False

    def stop(self) -> None:
        """Start no more jobs, end those that run, and wait for them."""
        if self._process is None or self._process.stdin is None:
            return
        self._end()

    def complaint(self) -> str:
        """Return in one line what Snakemake has against it."""
        text = " ".join(" ".join(self.complaints[:1]).split()) or "it was not made, and nothing says why"
        status = re.search(r"returned non-zero exit status (\d+)|died with <Signals\.(\w+)", text)
        if status:
            return f"a job ended by itself, with {status[1] or status[2]}; was it killed, for want of memory?"
        return text[:400]

    def _end(self) -> None:
        """Reap the process; what is left of its session goes with it."""
        assert self._process is not None
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            code = self._process.wait(_PATIENCE + _GRACE)
        except subprocess.TimeoutExpired:
            code = None
        if code == 0:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self.failed = True
        how = "did not end" if code is None else f"ended with {code}" if code > 0 else f"was ended by signal {-code}"
        self.complaints.append(f"Snakemake {how}")


class Host:
    """The running Snakemake, as the rules see it: the only place that touches its `workflow` object.

    Documented: `cores`, `main_snakefile` and `executor_plugin` (interface of executor plugins). Undocumented, and only read:

    ```
    is_main_process                     modifier.modify_path     config_settings.configfiles
    global_resources["network"].value   executor_settings        current_basedir
    ```

    Args:
        workflow, checkpoints: the globals of that name, in a rule file of `workflow/rules`.
    """

    def __init__(self, workflow: Any, checkpoints: Any) -> None:
        self._workflow, self._checkpoints = workflow, checkpoints
        # What follows is another matter once the rule file has been read.
        self._rules = workflow.current_basedir
        self.top = Path(workflow.modifier.modify_path(RESULTS)).parent
        snakefile = self._rules.join("../Snakefile").get_path_or_uri(secret_free=False)
        self.own: bool = os.path.normpath(snakefile) == os.path.normpath(workflow.main_snakefile)
        self.first: bool = workflow.is_main_process

    @property
    def files(self) -> list[str]:
        """Files of configuration on the command line, those that weigh most first."""
        return [str(path) for path in reversed(self._workflow.config_settings.configfiles)]

    @property
    def executes(self) -> bool:
        """As in `host.Host`, like all that follows."""
        return self._workflow.executor_plugin is not None

    @property
    def runs(self) -> bool:
        plugin = self._workflow.executor_plugin
        return self.first and plugin is not None and not (plugin.common_settings.dryrun_exec or plugin.common_settings.touch_exec)

    @property
    def local(self) -> bool:
        return self.executes and not self._workflow.executor_plugin.common_settings.non_local_exec

    @property
    def cores(self) -> int:
        from snakemake.exceptions import WorkflowError

        try:
            return int(self._workflow.cores)
        except WorkflowError:  # nobody has said how many
            return os.cpu_count() or 1

    @property
    def network(self) -> int | None:
        resources = self._workflow.global_resources
        return resources["network"].value or None if "network" in resources else None

    @property
    def lost_program(self) -> str | None:
        # By a relative profile with --directory: each job would fail with "not found".
        settings = self._workflow.executor_settings
        for name, value in vars(settings).items() if settings else ():
            if name.endswith("_cmd") and value and "/" in value and not os.path.exists(value.split()[0]):
                return str(value)
        return None

    def checkpoint(self, name: str) -> Path:
        return Path(getattr(self._checkpoints, name).get().output[0])

    def caption(self, name: str) -> object:
        """Return the text of a page of the report, as `report(caption=…)` takes it from a function."""
        return self._rules.join(f"../report/{name}.rst")


def workflow() -> Path:
    """Return the folder of the Snakefile."""
    here = Path(__file__).parents[1]
    # In the package in a wheel; in the repository, which an editable install points to, beside it.
    return next(f for f in (here / "data" / "workflow", here.parents[1] / "workflow") if f.is_dir())


# -- in the process of its own


def main() -> int:
    """Run what stdin asks for; return 0 however it ended, for the events say it."""
    # What comes to all of the session is for the jobs. They inherit no handler, and no ignored signal.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    request = json.loads(sys.stdin.buffer.readline())
    events = os.fdopen(os.dup(1), "w", buffering=1)  # not inherited; jobs have nothing to say on stdout
    os.dup2(2, 1)
    told = threading.Lock()

    def tell(**event: object) -> None:
        with told:
            print(json.dumps(event), file=events)

    threading.Thread(target=_watch, daemon=True).start()
    try:
        _run(Path(request["state"]), request["config"], force=request["force"], tell=tell)
    except SystemExit as error:
        tell(failed=f"the workflow ended with {error.code}")
    except Exception as error:  # noqa: BLE001 - whatever Snakemake has to say is reported, as the image's fault
        tell(failed=str(error) or type(error).__name__)
    return 0


def _watch() -> None:
    """End the session when stdin does."""
    while os.read(0, 1 << 10):
        pass
    _end_jobs()


def _end_jobs() -> None:
    """Interrupt all jobs, as Ctrl-C does; those that do not end are ended harder. Then this process ends, too."""
    # Snakemake is not asked: its state is nobody else's, and what it leaves is made again.
    begun = time.monotonic()
    for number, until in ((signal.SIGINT, _GRACE), (signal.SIGTERM, _PATIENCE), (signal.SIGKILL, 2 * _PATIENCE)):
        os.killpg(0, number)
        while time.monotonic() - begun < until:
            try:
                if os.waitpid(-1, os.WNOHANG) == (0, 0):
                    time.sleep(0.01)
            except ChildProcessError:
                os._exit(0)


def _run(state: Path, config: Mapping[str, Any], *, force: bool, tell: Callable[..., None]) -> None:
    import logging

    from snakemake.api import SnakemakeApi
    from snakemake.logging import logger
    from snakemake.scheduling.greedy import SchedulerSettings
    from snakemake.settings.enums import Quietness, RerunTrigger
    from snakemake.settings.types import (
        ConfigSettings,
        DAGSettings,
        ExecutionSettings,
        OutputSettings,
        ResourceSettings,
        SchedulingSettings,
    )
    from snakemake_interface_logger_plugins.common import LogEvent

    from sregistry.pipeline.host import ALL_CONNECTIONS
    from sregistry.system import cores

    class Events(logging.Handler):
        """Passes on what Snakemake itself has to complain of, and that jobs begin; nothing else of its log is shown."""

        begun = False

        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR and isinstance(record.msg, str) and record.msg:
                tell(complaint=record.msg)
            if not self.begun and getattr(record, "event", None) == LogEvent.RUN_INFO:
                self.begun = True
                tell(scheduling=True)

    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL}, enable_file_logging=False)) as api:
        logger.addHandler(Events())
        logger.propagate = False
        flow = api.workflow(
            snakefile=workflow() / "Snakefile",
            workdir=state,
            config_settings=ConfigSettings(config=config),
            resource_settings=ResourceSettings(cores=cores.usable(), resources={"network": ALL_CONNECTIONS}),
        )
        # As workflow/profiles/default has it. The lease is the lock.
        graph = flow.dag(
            DAGSettings(
                force_incomplete=True,
                rerun_triggers=frozenset({RerunTrigger.MTIME, RerunTrigger.PARAMS}),
                forcerun=frozenset({"image"} if force else ()),
            )
        )
        graph.execute_workflow(
            executor="local",
            execution_settings=ExecutionSettings(keep_going=True, lock=False, no_hooks=True),
            scheduling_settings=SchedulingSettings(scheduler="greedy", subsample=100, max_jobs_per_timespan=None),
            scheduler_settings=SchedulerSettings(),
            greedy_scheduler_settings=SchedulerSettings(),
        )


if __name__ == "__main__":
    # Nothing is left to be tidied up, which takes Snakemake's modules a tenth of a second.
    os._exit(main())
