"""A SLURM of two nodes on this machine, and scripts/launch/slurm.sh on it as it is but for its size; prints json.

usage, as root: unshare --mount python tests/scripts/slurm_story.py FOLDER SHARDS [key=value ...]

The two slurmd claim more cores than there are. The mount namespace gives the nodes their names in /etc/hosts.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
CONFIGURATION = """
ClusterName=one
SlurmctldHost=localhost
SlurmctldPort=16817
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdSpoolDir={folder}/spool.%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port=17001 CPUs=8 RealMemory=2000 State=UNKNOWN
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port=17002 CPUs=8 RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 State=UP
"""


def call(*command: str) -> str:
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


def start(folder: Path) -> list[subprocess.Popen[bytes]]:
    """munged, slurmctld and two slurmd; the caller ends them."""
    (folder / "hosts").write_text("127.0.0.1 localhost n1 n2\n")
    call("mount", "--bind", str(folder / "hosts"), "/etc/hosts")
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    for name in ("state", "spool.n1", "spool.n2"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    files = [f"--{kind}-file={folder}/munge.{kind}" for kind in ("key", "log", "pid", "seed")]
    commands = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", "n1"],
        ["slurmd", "-D", "-N", "n2"],
    ]
    daemons = []
    with (folder / "daemons.log").open("w") as log:
        for command in commands:
            daemons.append(subprocess.Popen(command, stdout=log, stderr=log))
            time.sleep(0.5)
    await_that(lambda: set(call("sinfo", "-h", "-N", "-o", "%T").split()) == {"idle"}, 60, "nodes are idle")
    return daemons


def await_that(is_so: Callable[[], bool], seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {seconds:.0f} s until {what}")
        time.sleep(0.2)


def state(job: str) -> tuple[str, int, str]:
    """(state, restarts, exit status) of a job."""
    shown = call("scontrol", "show", "job", job)
    found = {name: re.search(rf"\b{name}=(\S+)", shown) for name in ("JobState", "Restarts", "ExitCode")}
    name, restarts, status = (match.group(1) if match else "" for match in found.values())
    return name, int(restarts), status


def is_over(job: str) -> bool:
    """Whether the job has ended, or has come back to the queue."""
    name, restarts, _ = state(job)
    return restarts > 0 or name in ("FAILED", "COMPLETED")


def num_steps(run_dir: Path) -> int:
    metrics = run_dir / "metrics.jsonl"
    return metrics.read_text().count('"kind": "step"') if metrics.exists() else 0


def main(folder: Path, shards: str, settings: list[str]) -> int:
    seen: dict[str, object] = {}
    daemons = start(folder)
    started_at = time.monotonic()

    def submit(name: str, *more: str) -> str:
        size = ["--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=0", "--cpus-per-task=1", "--time=30"]
        output = f"--output={folder}/{name}.log"
        script = str(CHECKOUT / "scripts" / "launch" / "slurm.sh")
        words = [*settings, f"shards={shards}", f"run_dir={folder}/{name}", *more]
        return call("sbatch", "--parsable", f"--chdir={CHECKOUT}", *size, output, script, *words)

    def reaches(job: str, *names: str) -> None:
        await_that(lambda: state(job)[0] in names, 180, f"job {job} is {' or '.join(names)}")

    try:
        job = submit("run")
        await_that(lambda: num_steps(folder / "run") >= 3, 180, "it trains")
        call("scancel", "--batch", "--signal=USR1", job)
        reaches(job, "PENDING")
        seen["asked"] = state(job)[:2]
        seen["saved"] = sorted(path.name for path in (folder / "run" / "checkpoints").iterdir())
        reaches(job, "COMPLETED", "FAILED")
        seen["resumed"] = state(job)
        early = submit("early")
        reaches(early, "RUNNING")
        call("scancel", "--batch", "--signal=USR1", early)
        await_that(lambda: is_over(early), 180, "it comes back")
        seen["early"] = state(early)[:2]
        call("scancel", early)
        mistakes = ["optimizer.eps=-1", "shards=/nowhere", "runtime.deepspeed_overrides.optimizer.type=Adam"]
        jobs = [submit(f"mistake{number}", mistake) for number, mistake in enumerate(mistakes)]
        for each in jobs:
            await_that(lambda job=each: is_over(job), 180, "it ends")
        seen["mistakes"] = [state(each) for each in jobs]
        seen["seconds"] = round(time.monotonic() - started_at)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait()
    print(json.dumps(seen))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:]))
