"""Two hosts for all stories, the shards they train on, and what an undisturbed run of theirs learns."""

import pytest

from tests.cluster import hosts as machines
from tests.cluster.stories import Story, torchrun
from tests.synthetic import make_shards


@pytest.fixture(scope="session")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("shards") / "s")


@pytest.fixture(scope="session")
def hosts(tmp_path_factory):
    reason = machines.why_not()
    if reason:
        pytest.skip(reason)
    with machines.network(tmp_path_factory.mktemp("hosts") / "network", 2) as made:
        yield made


@pytest.fixture(scope="session")
def whole(hosts, shards, tmp_path_factory):
    """The folder of an undisturbed run under torchrun on both hosts."""
    story = Story(tmp_path_factory.mktemp("whole"), hosts, shards)
    assert torchrun(story).ended() == {"host1": 0, "host2": 0}, story.said()
    return story.run_dir
