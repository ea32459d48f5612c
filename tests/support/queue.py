#!/usr/bin/env python3
"""A small queue of files and processes that behaves as the documentation of PBS or Grid Engine says.

Called as qsub, qstat, qacct or qdel. The folder of this file's link holds `N.pid` while job N runs, then `N.code`.
As with the real ones, a job starts in the home folder with the variables of `-v` alone.
"""

import os
import pwd
import signal
import subprocess
import sys
from pathlib import Path

FOLDER = Path(sys.argv[0]).parent
KIND = (FOLDER / "kind").read_text()
arguments = sys.argv[1:]


def qsub() -> None:
    names = arguments[arguments.index("-v") + 1].split(",")
    with (FOLDER / "calls").open("a") as calls:
        calls.write(" ".join(arguments) + "\n")
    number = len((FOLDER / "calls").read_text().splitlines())
    environment = {name: os.environ[name] for name in names} | {"JOB_ID": str(number), "PBS_JOBID": f"{number}.server"}
    folder = environment["HOME"]
    if KIND == "sge":  # with -cwd; the real one has HOME from the system, whatever -v says
        environment["HOME"], folder = pwd.getpwuid(os.getuid()).pw_dir, os.getcwd()
    code = FOLDER / f"{number}.code"
    command = f'/bin/sh "$0"; echo $? > {code}.part; mv {code}.part {code}'
    copy = FOLDER / f"{number}.script"
    copy.write_text(Path(arguments[-1]).read_text())
    with (FOLDER / f"{number}.log").open("w") as log:
        job = subprocess.Popen(
            ["/bin/sh", "-c", command, copy], cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    (FOLDER / f"{number}.pid").write_text(str(job.pid))
    print(f"{number}.server" if KIND == "pbs" else number)


def qstat() -> None:
    if arguments == []:  # Grid Engine's list: two lines of headings, then a job a line
        print("job-ID prior name user state\n---")
        for path in FOLDER.glob("*.pid"):
            print(path.stem, "0.5", "sregistry", "user", "r")
        return
    number = arguments[-1].partition(".")[0]
    code = FOLDER / f"{number}.code"
    if not (FOLDER / f"{number}.pid").exists():
        sys.exit(f"qstat: Unknown Job Id {arguments[-1]}" if KIND == "pbs" else f"Following jobs do not exist:\n{number}")
    if KIND == "pbs":
        print(f"Job Id: {number}.server\n    Job_Name = sregistry")
        print(f"    job_state = F\n    Exit_status = {code.read_text().strip()}" if code.exists() else "    job_state = R")
    elif code.exists():
        sys.exit(f"Following jobs do not exist:\n{number}")


def qacct() -> None:
    code = FOLDER / f"{arguments[-1]}.code"
    if not code.exists():
        sys.exit(f"error: job id {arguments[-1]} not found")
    print(f"{'=' * 62}\nqname        all.q\nfailed       0\nexit_status  {code.read_text().strip()}")


def qdel() -> None:
    for job in arguments:
        number = job.partition(".")[0]
        os.killpg(int((FOLDER / f"{number}.pid").read_text()), signal.SIGTERM)
        (FOLDER / f"{number}.code").write_text("271\n")


{"qsub": qsub, "qstat": qstat, "qacct": qacct, "qdel": qdel}[Path(sys.argv[0]).name]()
