"""A real SLURM on the hosts of tests/cluster/hosts.py: the last one has its controller, the others are its nodes.

Nodes claim more cores than there are, since nothing is bound to any.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.hosts import Host, await_that
from tests.launch import CHECKOUT

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "scontrol", "scancel", "sinfo", "munged")
PACKAGES = "slurm-wlm, munge"
PYTHONPATH = os.pathsep.join([str(CHECKOUT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
NODE_LOST_SECONDS = 30  # SLURM's own default is 300
# cred_expire cuts the wait before a job that came back starts again from two minutes to seconds.
CONFIGURATION = """
ClusterName=one
SlurmctldHost={controller}
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
SlurmdTimeout={node_lost_seconds}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdSpoolDir={folder}/spool.%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=60 State=UP
"""


def why_not() -> str | None:
    """Why there can be no SLURM here, or None; hosts.why_not comes first."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"needs {', '.join(missing)} (Debian: {PACKAGES})" if missing else None


class Slurm:
    """The cluster, as seen from its controller."""

    def __init__(self, folder: Path, hosts: list[Host]) -> None:
        self.folder, self.nodes, self._controller = folder, hosts[:-1], hosts[-1]
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
        self._environment = {**os.environ, "PATH": path, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1",
                             "DS_ACCELERATOR": "cpu", "SLURM_CONF": str(folder / "slurm.conf")}  # fmt: skip

    def start(self, host: Host, *daemon: str) -> None:
        """A daemon that lives as long as its host."""
        with (self.folder / "daemons.log").open("ab") as log:
            subprocess.Popen(
                host.command(*daemon), env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def start_node(self, host: Host) -> None:
        (self.folder / f"spool.{host.name}").mkdir(exist_ok=True)
        self.start(host, "slurmd", "-D", "-N", host.name)

    def is_idle(self) -> bool:
        return set(self.call("sinfo", "-h", "-N", "-o", "%T").split()) == {"idle"}

    def call(self, *command: str) -> str:
        """What it prints; SLURM's complaints (of a job that is over, say) are left out."""
        ended = subprocess.run(
            self._controller.command(*command), env=self._environment, capture_output=True, text=True, check=False
        )
        return ended.stdout.strip()

    def submit(self, name: str, *words: str, options: tuple[str, ...] = ("--time=30",)) -> str:
        """scripts/launch/slurm.sh with a rank on each node; returns the job's number. What it says is in NAME.log."""
        size = [f"--nodes={len(self.nodes)}", "--ntasks-per-node=1", "--gpus-per-node=0", "--cpus-per-task=1"]
        script = str(CHECKOUT / "scripts" / "launch" / "slurm.sh")
        output = f"--output={self.folder}/{name}.log"
        job = self.call("sbatch", "--parsable", f"--chdir={CHECKOUT}", *size, *options, output, script, *words)
        assert job.isdigit(), job
        return job

    def said(self, name: str) -> str:
        log = self.folder / f"{name}.log"
        return log.read_text(errors="replace") if log.exists() else ""

    def state(self, job: str) -> tuple[str, int, str]:
        """(state, restarts, exit status) of a job."""
        shown = self.call("scontrol", "show", "job", job)
        found = {name: re.search(rf"\b{name}=(\S+)", shown) for name in ("JobState", "Restarts", "ExitCode")}
        name, restarts, status = (match.group(1) if match else "" for match in found.values())
        return name, int(restarts or 0), status

    def reaches(self, job: str, *names: str, seconds: float = 180) -> tuple[str, int, str]:
        """Its state, when that is one of `names`."""
        await_that(lambda: self.state(job)[0] in names, seconds, f"job {job} is {' or '.join(names)}")
        return self.state(job)

    def is_over(self, job: str) -> bool:
        """Whether it has ended, or has come back to the queue."""
        name, restarts, _ = self.state(job)
        return restarts > 0 or name in ("FAILED", "COMPLETED", "CANCELLED", "NODE_FAIL", "TIMEOUT")


@contextmanager
def slurm_on(hosts: list[Host], folder: Path) -> Iterator[Slurm]:
    """munged for all, slurmctld on the last host and slurmd on the others; idle when it is yielded."""
    for name in ("state", "munge"):
        (folder / name).mkdir(parents=True)
    nodes = [
        f"NodeName={host.name} NodeAddr={host.address} CPUs=8 RealMemory=2000 State=UNKNOWN" for host in hosts[:-1]
    ]
    (folder / "slurm.conf").write_text(
        CONFIGURATION.format(
            folder=folder, controller=hosts[-1].name, nodes="\n".join(nodes), node_lost_seconds=NODE_LOST_SECONDS
        )
    )
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
    key = folder / "munge" / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    slurm = Slurm(folder, hosts)
    files = [f"--{kind}-file={folder}/munge/{kind}" for kind in ("key", "log", "pid", "seed")]
    slurm.start(hosts[-1], "munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files)
    await_that((folder / "munge.socket").exists, 20, "munged listens")
    slurm.start(hosts[-1], "slurmctld", "-D")
    for host in slurm.nodes:
        slurm.start_node(host)
    await_that(slurm.is_idle, 60, "nodes are idle")
    yield slurm
