"""Two hosts: how a run starts there, and how it ends when one of them is lost.

Truths: which host was lost; the undisturbed run, bit for bit after a resume on as many ranks.
Breaks that turn this file red: groups that keep torch's half hour, ssh without keep-alive, a host that is not named.
"""

import pytest

from tests.cluster.hosts import await_that
from tests.cluster.stories import BOUND_SECONDS, Story, hostfile, torchrun
from tests.cluster.weights import are_equal, largest_difference

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


@pytest.fixture
def story(tmp_path, hosts, shards):
    story = Story(tmp_path, hosts, shards)
    yield story
    story.repair()


def stop_rank(host):
    host.call("pkill", "-STOP", "-f", "python[^ ]* -u -m bert_lamb ", check=True)


def power_off(host):
    host.power_off()


def cut(host):
    host.unplug()


LOST = "found no sign of life from rank 1 (host2), last heard at phase1 step "
GONE = "found neither the other ranks nor rank 0's store (host1:"


@pytest.mark.parametrize(
    ("launch", "lose", "lost", "found"),
    [
        (torchrun, power_off, 1, LOST),
        (torchrun, cut, 1, LOST),
        (torchrun, stop_rank, 1, LOST),
        (torchrun, power_off, 0, GONE),
        (hostfile, power_off, 1, LOST),
        (hostfile, cut, 1, LOST),
        (hostfile, stop_rank, 1, LOST),
    ],
    ids=lambda value: getattr(value, "__name__", None) if not isinstance(value, str) else "",
)
def test_whoever_is_lost_the_job_ends_and_says_who(story, whole, launch, lose, lost, found):
    """And what is started again on all hosts learns what the undisturbed run did, bit for bit."""
    launch(story).trains()
    survivor = story.hosts[1 - lost].name
    lose(story.hosts[lost])
    statuses = story.ended(BOUND_SECONDS, among=[survivor])
    assert statuses[survivor] != 0
    assert len(story.own_lines(survivor)) == 1, story.said(survivor)
    assert found in story.own_lines(survivor)[0]
    story.repair()
    assert set(launch(story).ended().values()) == {0}, story.said()
    assert "resume   the run continues after phase1 step" in story.said()
    assert are_equal(story.run_dir, whole)


def test_both_sides_of_a_cut_link_end(story):
    """The host that is cut off too, whose ranks see neither the others nor the store."""
    torchrun(story).trains()
    story.hosts[1].unplug()
    statuses = story.ended(BOUND_SECONDS)
    assert 0 not in statuses.values()
    assert GONE in story.said("host2")


def test_the_hostfile_story_learns_what_torchrun_does_with_deepspeed_too(story, whole):
    """Tolerance: 253 steps in which the engines add the same gradients in another order; 2.4e-7 was seen."""
    story.overrides = ["runtime.engine=deepspeed"]
    assert hostfile(story).ended() == {"host1": 0}, story.said()
    print(f"largest difference to fsdp: {largest_difference(story.run_dir, whole):.1e}")
    assert largest_difference(story.run_dir, whole) < 1e-6


def test_a_host_that_does_not_answer_is_said_and_does_not_hold_up_the_job(story):
    hostfile(story, names=("host1", "nobody"))
    await_that(lambda: "nobody" in story.said() and "ssh" in story.said(), 60, "it is said")
    statuses = story.ended(BOUND_SECONDS)
    assert statuses["host1"] != 0
    assert "found 2 ranks that do not meet at host1:" in story.said("host1")
