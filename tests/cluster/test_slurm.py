"""scripts/launch/slurm.sh under a real SLURM of two nodes: when a job comes back to the queue, and when it does not.

Truths: SLURM's own state of the job; the undisturbed run, bit for bit.
Breaks that turn this file red: a requeue decided by srun's status, a script that does not hand on the signal.
"""

import sys
import time

import pytest

from tests.cluster import hosts as machines
from tests.cluster import slurm as clusters
from tests.cluster.hosts import await_that
from tests.cluster.stories import BOUND_SECONDS, SETTINGS, START_SECONDS
from tests.cluster.weights import are_equal
from tests.pretraining.test_pretrain import SMALL

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
ENDLESS = "phases.phase1.total_steps=1000000"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    reason = machines.why_not() or clusters.why_not()
    if reason:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    with machines.network(folder / "network", 3) as hosts, clusters.slurm_on(hosts, folder / "slurm") as slurm:
        yield slurm


@pytest.fixture
def submit(slurm, shards):
    """Submit a run of this name; whatever is left of the test's jobs is cancelled."""
    jobs = []

    def submit(name, *more, **options):
        words = [*SETTINGS, "runtime.engine=fsdp", f"shards={shards}", f"run_dir={slurm.folder}/{name}", *more]
        jobs.append(slurm.submit(name, *words, **options))
        return jobs[-1]

    yield submit
    for job in jobs:
        slurm.call("scancel", "--signal=KILL", "--full", job)
        slurm.call("scancel", job)
    await_that(slurm.is_idle, 120, "nodes are idle again")


def trains(slurm, name, num_steps=70):
    metrics = slurm.folder / name / "metrics.jsonl"
    await_that(
        lambda: metrics.exists() and metrics.read_text().count('"kind": "step"') >= num_steps,
        START_SECONDS,
        f"{name} has trained {num_steps} steps: {slurm.said(name)}",
    )


def checkpoints(slurm, name):
    return sorted(path.name for path in (slurm.folder / name / "checkpoints").iterdir())


def test_the_runs_of_a_study_are_jobs_of_two_ranks(slurm, shards):
    """Truth: the same study with torchrun's two ranks on one machine, byte for byte."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="needs the extra bert-lamb[slurm]")
    words = [*SMALL, "runtime.engine=fsdp", f"shards={shards}", "study.batches=[8,4]", "study.seeds=[1]"]
    words += ["study.variants.lamb.words=[scaling=none]", "study.variants.lamb.tune=['phases.*.peak_lr=1e-3,1e-2']"]
    words += ["study.variants.lamb.tune_at=8", "phases.phase1.total_steps=8"]
    jobs = ["spread=study/slurm", "hydra.launcher.tasks_per_node=2", "hydra.launcher.cpus_per_task=1"]
    jobs += [f"hydra.sweep.dir={slurm.folder}/jobs", "hydra.launcher.timeout_min=30"]
    one = ["study.launch=torchrun --standalone --nproc-per-node 2 --no-python"]
    for name, more in (("jobs-of-study", jobs), ("one-machine", one)):
        said = slurm.call(sys.executable, "-m", "bert_lamb", "study", *words, *more, f"run_dir={slurm.folder}/{name}")
        assert "3/3 runs" in said, said
    texts = {(slurm.folder / name / "study.json").read_bytes() for name in ("jobs-of-study", "one-machine")}
    assert len(texts) == 1
    begun = [path.read_text() for path in slurm.folder.glob("jobs-of-study/cells/*/metrics.jsonl")]
    assert ['"world_size": 2' in lines for lines in begun] == [True] * 3


def test_a_job_that_is_asked_to_stop_comes_back_and_resumes(slurm, submit, whole):
    job = submit("asked")
    trains(slurm, "asked")
    slurm.call("scancel", "--batch", "--signal=USR1", job)
    assert slurm.reaches(job, "PENDING")[1] == 1
    assert slurm.reaches(job, "COMPLETED", "FAILED") == ("COMPLETED", 1, "0:0")
    assert "resume   the run continues after phase1 step" in slurm.said("asked")
    assert are_equal(slurm.folder / "asked", whole)


def test_the_time_limit_is_a_request_to_stop(slurm, submit):
    """SLURM looks at limits twice a minute and asks up to a minute early."""
    job = submit("limited", ENDLESS, options=("--time=2", "--signal=B:USR1@60"))
    trains(slurm, "limited", 5)
    await_that(lambda: slurm.is_over(job), 240, "it comes back")
    assert slurm.state(job)[1] == 1
    assert "continue with if_exists=resume" in slurm.said("limited")


def test_a_job_that_is_asked_while_it_starts_comes_back_and_mistakes_do_not(slurm, submit):
    early = submit("early")
    slurm.reaches(early, "RUNNING")
    slurm.call("scancel", "--batch", "--signal=USR1", early)
    await_that(lambda: slurm.is_over(early), 180, "it comes back")
    assert slurm.state(early)[1] == 1
    slurm.call("scancel", early)
    for number, mistake in enumerate(["optimizer.eps=-1", "shards=/nowhere", "runtime.engine=torch"]):
        job = submit(f"mistake{number}", mistake)
        await_that(lambda job=job: slurm.is_over(job), 180, "it ends")
        assert slurm.state(job)[:2] == ("FAILED", 0), slurm.said(f"mistake{number}")


def test_a_cancelled_job_saves_and_stays_away(slurm, submit):
    job = submit("cancelled", ENDLESS)
    trains(slurm, "cancelled")
    slurm.call("scancel", job)
    assert slurm.reaches(job, "CANCELLED")[1] == 0
    await_that(slurm.is_idle, 60, "its ranks have left")
    assert "continue with if_exists=resume" in slurm.said("cancelled")


def test_a_rank_that_is_stopped_ends_the_job(slurm, submit):
    """FAILED: whether to try again is for whoever finds out why."""
    job = submit("stopped", ENDLESS)
    trains(slurm, "stopped")
    slurm.nodes[1].call("pkill", "-STOP", "-f", "bert-lamb pretrain", check=True)
    since = time.monotonic()
    await_that(lambda: slurm.is_over(job), BOUND_SECONDS, "it ends")
    print(f"job ended {time.monotonic() - since:.0f} s after a rank was stopped")
    assert slurm.state(job)[:2] == ("FAILED", 0)
    assert "found no sign of life from rank 1 (host2), last heard at phase1 step " in slurm.said("stopped")


def test_a_lost_node_sends_the_job_back_and_it_resumes(slurm, submit, whole):
    job = submit("lost")
    trains(slurm, "lost")
    slurm.nodes[1].power_off()
    await_that(lambda: slurm.is_over(job), 60 + clusters.NODE_LOST_SECONDS + 60, "the loss is noticed")
    slurm.nodes[1].boot()
    slurm.start_node(slurm.nodes[1])
    assert slurm.state(job)[1] == 1
    assert slurm.reaches(job, "COMPLETED", "FAILED") == ("COMPLETED", 1, "0:0")
    assert are_equal(slurm.folder / "lost", whole)
