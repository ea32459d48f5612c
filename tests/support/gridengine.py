"""A Grid Engine of one machine: Debian's programs, unpacked and not installed, all their state in one folder.

```
$SREGISTRY_TESTS_CACHE/gridengine/   packages, unpacked by tests/real/provision
/tmp/ge-XXXXXXXXXXX/                 SGE_ROOT: programs, default/common, spool; sge_qmaster and sge_execd, on ports of their own
```

`/usr/lib/gridengine` is compiled into the programs. A root whose name is as long takes its place in them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import CACHE

UNPACKED = CACHE / "gridengine"
_COMPILED = "/usr/lib/gridengine"
#: Slots of the one queue.
SLOTS = 2


@dataclass(frozen=True, kw_only=True)
class GridEngine:
    """A running Grid Engine."""

    root: Path
    ports: tuple[int, int]

    @property
    def environment(self) -> dict[str, str]:
        """What its commands need."""
        return {
            "SGE_ROOT": str(self.root),
            "SGE_CELL": "default",
            "SGE_ARCH": "lx-amd64",
            "SGE_QMASTER_PORT": str(self.ports[0]),
            "SGE_EXECD_PORT": str(self.ports[1]),
            "LD_LIBRARY_PATH": str(self.root / "lib/lx-amd64"),
        }

    @property
    def commands(self) -> Path:
        return self.root / "bin/lx-amd64"

    def run(self, name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run one of its commands."""
        command = [self.commands / name, *arguments]
        environ = {**os.environ, **self.environment, "PATH": f"{self.commands}:{os.environ['PATH']}"}
        return subprocess.run(command, env=environ, cwd=self.root, capture_output=True, text=True, timeout=60, check=False)

    def must(self, name: str, *arguments: str | Path) -> str:
        """Run one of its commands, which must succeed, and return what it prints."""
        done = self.run(name, *arguments)
        assert done.returncode == 0, f"{name} {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def file(self, name: str, text: str) -> Path:
        path = self.root / name
        path.write_text(text)
        return path


def wait_until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.2)


def _ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return one.getsockname()[1], two.getsockname()[1]


def _unpack(root: Path) -> None:
    """Copy the programs to *root* and have them look there."""
    library = UNPACKED / "usr/lib"
    programs = root / "bin/lx-amd64"
    shutil.copytree(library / "gridengine", programs, symlinks=True)
    for path in programs.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.write_bytes(path.read_bytes().replace(_COMPILED.encode(), os.fsencode(root)))
            path.chmod(0o755)
    (root / "utilbin").symlink_to("bin")
    shutil.copytree(UNPACKED / "usr/share/gridengine/util", root / "util")
    libraries = root / "lib/lx-amd64"
    libraries.mkdir(parents=True)
    for pattern in ("libhwloc.so*", "libjemalloc.so*", "libmunge.so*"):
        for path in (library / "x86_64-linux-gnu").glob(pattern):
            shutil.copy2(path, libraries / path.name)
    for path in programs.glob("libspool*.so"):
        shutil.copy2(path, libraries / path.name)
    shutil.copy2(programs / "libspoolc.so", root)


def _set_up(grid: GridEngine, host: str) -> None:
    """Write the files that sge_qmaster begins with."""
    root = grid.root
    for folder in ("default/common", "spool/qmaster/job_scripts", "spool/execd"):
        (root / folder).mkdir(parents=True)
    params = f"{root}/default/common;{root}/spool/qmaster"
    grid.file("default/common/act_qmaster", f"{host}\n")
    grid.file("default/common/host_aliases", f"{host} localhost\n")
    grid.file(
        "default/common/bootstrap",
        f"admin_user none\ndefault_domain none\nignore_fqdn true\nspooling_method classic\nspooling_lib libspoolc\n"
        f"spooling_params {params}\nbinary_path {root}/bin\nqmaster_spool_dir {root}/spool/qmaster\nsecurity_mode none\n"
        "listener_threads 2\nworker_threads 2\nscheduler_threads 1\njvm_threads 0\n",
    )
    grid.must("spoolinit", "classic", "libspoolc", params, "init")
    configuration = "\n".join(
        [
            f"execd_spool_dir {root}/spool/execd",
            *("mailer /bin/true", "xterm /bin/true", "load_sensor none", "prolog none", "epilog none", "shell_start_mode posix_compliant"),
            *("login_shells sh,bash", "min_uid 0", "min_gid 0", "user_lists none", "xuser_lists none", "projects none", "xprojects none"),
            *(
                "enforce_project false",
                "enforce_user auto",
                "load_report_time 00:00:01",
                "max_unheard 00:05:00",
                "reschedule_unknown 00:00:00",
            ),
            *("loglevel log_warning", "administrator_mail none", "set_token_cmd none", "pag_cmd none", "token_extend_time none"),
            *("shepherd_cmd none", "qmaster_params none", "execd_params none"),
            # Accounts at once; stock, every 15 s.
            "reporting_params accounting=true reporting=false flush_time=00:00:01 joblog=false sharelog=00:00:00"
            " accounting_flush_time=00:00:00",
            *("finished_jobs 0", "gid_range 20000-20100", "qlogin_command builtin", "qlogin_daemon builtin", "rlogin_command builtin"),
            *("rlogin_daemon builtin", "rsh_command builtin", "rsh_daemon builtin", "max_aj_instances 2000", "max_aj_tasks 75000"),
            *("max_u_jobs 0", "max_jobs 0", "max_advance_reservations 0", "auto_user_oticket 0", "auto_user_fshare 0"),
            *("auto_user_default_project none", "auto_user_delete_time 86400", "delegated_file_staging false", "reprioritize 0", ""),
        ]
    )
    grid.must("spooldefaults.bin", "configuration", grid.file("configuration", configuration))
    complexes = root / "util/resources/centry"
    memory = complexes / "h_vmem"
    # With a default of 0, a job that asks for none is killed at once.
    memory.write_text(memory.read_text().replace("consumable  NO", "consumable  YES").replace("default     0", "default     1G"))
    grid.must("spooldefaults.bin", "complexes", complexes)
    grid.must("spooldefaults.bin", "usersets", root / "util/resources/usersets")
    grid.must("spooldefaults.bin", "managers", "root")


def _start(stack: contextlib.ExitStack, grid: GridEngine, name: str) -> None:
    environ = {"PATH": "/usr/bin:/bin", "SGE_ND": "1", **grid.environment}
    with (grid.root / f"{name}.log").open("w") as log:
        process = subprocess.Popen([grid.commands / name], env=environ, cwd=grid.root, stdout=log, stderr=log)
    stack.callback(_stop, process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def running() -> Iterator[GridEngine]:
    """Run Grid Engine with one queue, all.q, of `SLOTS` slots."""
    root = Path("/tmp") / f"ge-{os.urandom(6).hex()[:11]}"
    assert len(str(root)) == len(_COMPILED)
    root.mkdir(mode=0o755)
    host = socket.gethostname()
    grid = GridEngine(root=root, ports=_ports())
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, root, ignore_errors=True)
        _unpack(root)
        _set_up(grid, host)
        _start(stack, grid, "sge_qmaster")
        wait_until(lambda: grid.run("qconf", "-sm").returncode == 0, "sge_qmaster does not answer")
        grid.must("qconf", "-as", host)
        name = grid.must("qconf", "-ss").split()[0]
        fields = {"hostname": name, "load_scaling": "NONE", "complex_values": "h_vmem=16G", "user_lists": "NONE", "xuser_lists": "NONE"}
        fields |= {"projects": "NONE", "xprojects": "NONE", "usage_scaling": "NONE", "report_variables": "NONE"}
        known = grid.run("qconf", "-se", name).returncode == 0
        grid.must("qconf", "-Me" if known else "-Ae", grid.file("host", "".join(f"{key} {value}\n" for key, value in fields.items())))
        grid.must("qconf", "-Ap", root / "util/resources/pe/smp")
        queue = grid.must("qconf", "-sq")
        for key, value in {"qname": "all.q", "hostlist": name, "slots": str(SLOTS), "pe_list": "smp", "load_thresholds": "NONE"}.items():
            queue = "\n".join(f"{key} {value}" if line.split()[:1] == [key] else line for line in queue.splitlines()) + "\n"
        grid.must("qconf", "-Aq", grid.file("queue", queue.replace("rerun                 FALSE", "rerun                 TRUE")))
        schedule = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
        scheduler = grid.must("qconf", "-ssconf").splitlines()
        scheduler = [f"{words[0]} {schedule[words[0]]}" if (words := line.split())[0] in schedule else line for line in scheduler]
        grid.must("qconf", "-Msconf", grid.file("scheduler", "\n".join(scheduler) + "\n"))
        _start(stack, grid, "sge_execd")
        # The sixth word of the queue's line is its state: none when it is well.
        ready = lambda: any(line.startswith("all.q@") and len(line.split()) == 5 for line in grid.run("qstat", "-f").stdout.splitlines())  # noqa: E731
        wait_until(ready, "the queue does not become ready")
        try:
            yield grid
        finally:
            grid.run("qdel", "-u", "*")
            with contextlib.suppress(AssertionError):
                wait_until(lambda: not grid.run("qstat", "-u", "*").stdout.strip(), "jobs stay")
