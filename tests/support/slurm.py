"""A Slurm of one machine: Debian's munged, slurmctld and two slurmd, in a temporary folder, on ports of their own.

```
host's network                                     a network of its own, one cable, no route
┌ registry, snakemake, munged, slurmctld ┐  veth   ┌──────────────────────────────┐
│ slurmd "dtn": partition transfer       │─────────│ slurmd "node": partition cpu │
└────────────────────────────────────────┘         └──────────────────────────────┘
```

As on many clusters, compute nodes reach the controller and the shared folders and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.real.conftest import tool

#: Of RFC 2544's block for tests of network devices, which nobody routes; another pair for each process.
_PAIR = f"198.18.{os.getpid() >> 6 & 255}", (os.getpid() & 63) * 4
_HOST, _NODE = f"{_PAIR[0]}.{_PAIR[1] + 1}", f"{_PAIR[0]}.{_PAIR[1] + 2}"


@dataclass(frozen=True, kw_only=True)
class Slurm:
    """A running Slurm."""

    folder: Path
    network: str

    @property
    def environment(self) -> dict[str, str]:
        """What Slurm's own commands need to find it; the plugin takes all variables of Slurm from srun, hence our own."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}

    @property
    def state(self) -> Path:
        """What the controller keeps: jobs, their scripts and environments. Readable for it alone."""
        return self.folder / "state"

    def command(self, *command: str) -> str:
        """Run a command of Slurm that must succeed and return what it prints."""
        done = subprocess.run(command, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def on_the_compute_node(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command with the compute node's network."""
        return subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.network}", *command], capture_output=True, text=True, timeout=30, check=False
        )

    def jobs(self) -> list[tuple[str, str, str]]:
        """Return id, state and partition of the jobs that wait or run."""
        lines = self.command("squeue", "--noheader", "--format=%i %T %P", "--states=PENDING,RUNNING").splitlines()
        return [(words[0], words[1], words[2]) for words in map(str.split, lines)]

    def known(self) -> str:
        """Return what the controller tells of all jobs, those that ended not long ago among them, a line each."""
        return self.command("scontrol", "--oneliner", "show", "job")

    def logs(self) -> str:
        """Return the ends of the daemons' logs, for a test's failure."""
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in sorted(self.folder.glob("*.log")))


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Slurm]:
    """Run Slurm with all its files in *folder*, whose path must be short: sockets are in it."""
    folder.chmod(0o755)
    for name in ("state", "spool-node", "spool-dtn", "munge"):
        (folder / name).mkdir(mode=0o755)
    network = f"sreg{os.getpid()}"
    slurm = Slurm(folder=folder, network=network)
    _configure(folder)
    (folder / "bin").mkdir()
    (folder / "bin/srun").write_text(f'#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {shutil.which("srun")} "$@"\n')
    (folder / "bin/srun").chmod(0o755)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_own_network(network))
        munge = pwd.getpwnam("munge")
        key = folder / "munge/key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        for path in (folder / "munge", key):
            os.chown(path, munge.pw_uid, munge.pw_gid)
        munged = ["runuser", "-u", "munge", "--", "munged", "--foreground", f"--key-file={key}", f"--socket={folder}/munge/socket"]
        munged += [f"--pid-file={folder}/munge/pid", f"--log-file={folder}/munge/log", f"--seed-file={folder}/munge/seed"]
        _start(stack, munged, folder / "munged.log", slurm)
        wait_until((folder / "munge/socket").exists, "munged makes no socket", slurm)
        _start(stack, ["slurmctld", "-D"], folder / "slurmctld.log", slurm)
        _start(stack, ["slurmd", "-D", "-N", "dtn"], folder / "slurmd-dtn.log", slurm)
        _start(stack, ["nsenter", f"--net=/run/netns/{network}", "slurmd", "-D", "-N", "node"], folder / "slurmd-node.log", slurm)
        wait_until(lambda: _states(slurm) == ["idle", "idle"], "the nodes do not become idle", slurm)
        try:
            yield slurm
        finally:
            with contextlib.suppress(AssertionError):
                slurm.command("scancel", "--user=root")
                wait_until(lambda: not slurm.jobs(), "jobs stay", slurm)


def _configure(folder: Path) -> None:
    controller, dtn, node = _ports(3)
    host = socket.gethostname().partition(".")[0]
    (folder / "slurm.conf").write_text(
        f"""\
ClusterName=test
SlurmctldHost={host}({_HOST})
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=1000
KillWait=2
MpiDefault=none
ReturnToService=2
NodeName=node NodeHostname={host} NodeAddr={_NODE} Port={node} CPUs=16 RealMemory=64000
NodeName=dtn NodeHostname={host} NodeAddr={_HOST} Port={dtn} CPUs=16 RealMemory=64000
PartitionName=cpu Nodes=node Default=YES MaxTime=INFINITE State=UP
PartitionName=transfer Nodes=dtn MaxTime=INFINITE State=UP
SlurmdParameters=config_overrides
"""
    )


@contextlib.contextmanager
def _own_network(name: str) -> Iterator[None]:
    """Make a network that has one cable to this one and nothing else."""
    cable, end = f"{name}a", f"{name}b"
    tool("ip", "netns", "add", name)
    try:
        tool("ip", "link", "add", cable, "type", "veth", "peer", "name", end, "netns", name)
        tool("ip", "address", "add", f"{_HOST}/30", "dev", cable)
        tool("ip", "link", "set", cable, "up")
        tool("ip", "-netns", name, "address", "add", f"{_NODE}/30", "dev", end)
        tool("ip", "-netns", name, "link", "set", end, "up")
        tool("ip", "-netns", name, "link", "set", "lo", "up")
        yield
    finally:
        subprocess.run(["ip", "link", "delete", cable], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def _start(stack: contextlib.ExitStack, command: list[str], log: Path, slurm: Slurm) -> None:
    with log.open("ab") as output:
        server = subprocess.Popen(command, env={**os.environ, **slurm.environment}, stdout=output, stderr=output)

    def stop() -> None:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(10)

    stack.callback(stop)


def _states(slurm: Slurm) -> list[str]:
    done = subprocess.run(
        ["sinfo", "--noheader", "--Node", "--format=%T"],
        env={**os.environ, **slurm.environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout.split()


def wait_until(condition: Callable[[], object], otherwise: str, slurm: Slurm, seconds: float = 30) -> None:
    """Wait for a condition; fail with the daemons' logs if it does not come about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{otherwise}\n{slurm.logs()}"
        time.sleep(0.1)


def _ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
