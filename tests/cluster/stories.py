"""What all stories on several hosts do: launch a small training, wait for it to train, and read how it ended."""

import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.hosts import Host, await_that
from tests.launch import CHECKOUT
from tests.pretraining.test_pretrain import SMALL

TIMEOUT_SECONDS = 10
# Whatever is lost, the job ends within the timeout and a minute; the rest is for a machine that others use too.
BOUND_SECONDS = TIMEOUT_SECONDS + 60 + 60
START_SECONDS = 240
SETTINGS = [
    *SMALL,
    "phases.phase1.total_steps=250",
    "phases.phase1.global_batch_size=16",
    "checkpoint.interval_steps=20",
    f"runtime.collective_timeout_seconds={TIMEOUT_SECONDS}",
]


@dataclass
class Story:
    """One run and its launchers. overrides: of the configuration."""

    folder: Path
    hosts: list[Host]
    shards: Path
    overrides: list[str] = field(default_factory=lambda: ["runtime.engine=fsdp"])

    def __post_init__(self) -> None:
        self.run_dir = self.folder / "run"
        self.launchers: dict[str, subprocess.Popen[bytes]] = {}

    def words(self) -> list[str]:
        return ["pretrain", *SETTINGS, *self.overrides, f"shards={self.shards}", f"run_dir={self.run_dir}",
                "if_exists=resume"]  # fmt: skip

    def start(self, host: Host, *command: str, **variables: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(CHECKOUT)}
        with (self.folder / f"{host.name}.log").open("ab") as log:
            self.launchers[host.name] = subprocess.Popen(
                host.command(*command),
                env={**environment, **variables},
                cwd=CHECKOUT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def trains(self, num_steps: int = 70) -> "Story":
        """Wait until it has trained so far; a checkpoint is then behind it."""
        metrics = self.run_dir / "metrics.jsonl"

        def is_so() -> bool:
            ended = [name for name, launcher in self.launchers.items() if launcher.poll() is not None]
            assert not ended, self.said()
            return metrics.exists() and metrics.read_text().count('"kind": "step"') >= num_steps

        await_that(is_so, START_SECONDS, f"{num_steps} steps are trained")
        return self

    def ended(self, seconds: float = START_SECONDS, among: list[str] | None = None) -> dict[str, int]:
        """By host, the status of each launcher (of those on the hosts `among`), which must end in time."""
        since = time.monotonic()
        found: dict[str, int] = {}
        for name in among or list(self.launchers):
            found[name] = self.launchers[name].wait(max(0.1, since + seconds - time.monotonic()))
            took = time.monotonic() - since
            print(f"{name} ended after {took:.0f} s, status {found[name]}", *self.own_lines(name), sep="\n    ")
        return found

    def said(self, host: str | None = None) -> str:
        """What a host's launcher and ranks said; all of them together without a host."""
        logs = [self.folder / f"{host}.log"] if host else sorted(self.folder.glob("host*.log"))
        return "\n".join(log.read_text(errors="replace") for log in logs if log.exists())

    def own_lines(self, host: str) -> list[str]:
        return [line for line in self.said(host).splitlines() if "bert-lamb pretrain:" in line]

    def repair(self) -> None:
        """All hosts on and plugged in, nothing left of the run on them; its logs begin again."""
        for host in self.hosts:
            if host.is_on():
                host.plug_in()
            else:
                host.boot()
            host.call("pkill", "-KILL", "-f", "bert_lamb")
        for launcher in self.launchers.values():
            launcher.wait(60)
        self.launchers.clear()
        for log in self.folder.glob("host*.log"):
            log.rename(log.with_suffix(".before"))


def torchrun(story: Story) -> Story:
    """As scripts/README.md has it for several machines: the same line on each, with its own number."""
    port = str(random.randint(20_000, 29_999))
    for number, host in enumerate(story.hosts):
        launch = ["-m", "torch.distributed.run", "--nnodes", str(len(story.hosts)), "--node-rank", str(number)]
        meet = ["--master-addr", "host1", "--master-port", port, "--nproc-per-node", "1"]
        story.start(host, sys.executable, *launch, *meet, "-m", "bert_lamb", *story.words())
    return story


def hostfile(story: Story, names: tuple[str, ...] = ("host1", "host2")) -> Story:
    """scripts/launch/hostfile.sh on host1."""
    (story.folder / "hosts").write_text("".join(f"{name} slots=1\n" for name in names))
    script = str(CHECKOUT / "scripts" / "launch" / "hostfile.sh")
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    story.start(
        story.hosts[0], script, *story.words()[1:],
        HOSTFILE=str(story.folder / "hosts"), MASTER_ADDR="host1", PATH=path,
    )  # fmt: skip
    return story
