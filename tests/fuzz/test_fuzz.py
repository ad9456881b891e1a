"""Wrong words, environments and files: a refusal in lines of ours, or a whole result. README.md lists what was found.

A few of the cases of a seed here, which need no run and no model; all of them with -m slow.
"""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from bert_lamb.config.door import SCHEMAS
from tests.fuzz import verdict
from tests.fuzz.cases import OF_EACH_COMMAND, group, make_cases, run_case
from tests.fuzz.environments import AT_THE_START
from tests.fuzz.material import JOBS, make_inputs
from tests.fuzz.runner import TIMEOUT, Outcome
from tests.launch import CHECKOUT

SEED = 0
NUM_QUICK = 40
QUICK = ("verify", "inspect", "score", "score-v2")  # a tenth of a second each, and no library that a child would import


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return make_inputs(tmp_path_factory.mktemp("fuzz") / "material")


def test_some_of_the_cases(inputs, tmp_path):
    cases = [case for case in make_cases(SEED) if case.job in QUICK][:NUM_QUICK]
    results = [run_case(case, SEED, inputs, tmp_path) for case in cases]
    assert {key: [one.case.number for one in found] for key, found in group(results).items()} == {}
    statuses = [one.outcome.status for one in results]
    assert statuses.count(2) > NUM_QUICK / 4  # the rest was harmless, or a check that said no
    assert set(statuses) <= {0, 1, 2}
    assert {one.case.kind.split(":")[0] for one in results} == {"value", "words", "environment", "file"}


def test_a_seed_gives_the_same_cases():
    cases = make_cases(7)
    assert cases == make_cases(7)
    assert cases != make_cases(8)
    assert len(make_cases(SEED)) >= 2000
    assert {JOBS[case.job].command for case in cases} == {JOBS[name].command for name in OF_EACH_COMMAND}


def test_the_committed_result_is_large_and_has_nothing_open():
    """Of the commit that it names: keys that have come since make other cases of the same seed."""
    result = json.loads((CHECKOUT / "tests" / "fuzz" / "result.json").read_text())
    assert result["num_cases"] >= 2000
    assert result["not_as_they_should_be"] == []
    assert sum(result["by_command"].values()) == sum(result["by_exit_status"].values()) == result["num_cases"]


def test_every_command_has_cases():
    cases = make_cases(0)
    assert len(cases) >= 2000
    assert Counter(JOBS[case.job].command for case in cases).keys() == SCHEMAS.keys()


LINE = "bert-lamb score: found x; expected y; fix: z\n"


@pytest.mark.parametrize(
    ("outcome", "fault"),
    [
        (Outcome(2, "", LINE * 2), None),
        (Outcome(0, '{"f1": 1.0}', ""), None),
        (Outcome(0, '{"f1": NaN}', ""), "no strict json"),
        (Outcome(2, "", ""), "silence"),
        (Outcome(2, "", "found x\n" + LINE), "none of ours"),
        (Outcome(2, "", "bert-lamb verify: found x; expected y; fix: z\n"), "no line of ours"),
        (Outcome(2, "", LINE.replace("d x", "d \x1b[31m")), "control characters"),
        (Outcome(2, "", LINE.replace("d x", "d " + "x" * 9999)), "a line of"),
        (Outcome(1, "", "Traceback (most recent call last):\nKeyError: 3\n"), "traceback: KeyError"),
        (Outcome(2, "", LINE + "x.py:3: UserWarning: odd\n"), "a library's warning"),
        (Outcome(TIMEOUT, "", ""), "does not end"),
        (Outcome(-111, "", ""), "status -111"),
    ],
)
def test_what_is_no_refusal_is_seen(tmp_path, outcome, fault):
    """The judge itself: without it every case passes."""
    (tmp_path / ".begun").touch()
    job = JOBS["score"]
    found = list(verdict.faults(job, job.words, outcome, tmp_path, tmp_path, is_sealed=False))
    assert any(fault in one for one in found) if fault else found == []


def test_a_refusal_that_leaves_a_result_is_seen(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").touch()
    (tmp_path / ".begun").touch()
    job, refused = JOBS["prepare-text"], Outcome(2, "", LINE.replace("score", "prepare"))
    found = list(verdict.faults(job, job.words, refused, tmp_path, tmp_path, is_sealed=False))
    assert found == ["refused, and out/manifest.json is there"]
    sealed = list(verdict.faults(JOBS["verify"], ("verify",), Outcome(0, "", ""), tmp_path, tmp_path, is_sealed=True))
    assert sealed == ["accepted, though its bytes are under a hash"]


@pytest.mark.slow
def test_all_cases(tmp_path):
    command = [sys.executable, "-m", "tests.fuzz", "--seed", str(SEED), "--out", str(tmp_path / "result.json")]
    ended = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout[-5000:]
    assert json.loads((tmp_path / "result.json").read_text())["num_cases"] >= 2000


@pytest.mark.slow
@pytest.mark.parametrize("name", AT_THE_START)
def test_variables_that_are_read_at_the_start(inputs, tmp_path, name):
    """In a process of its own: the figures, or a refusal, which for some values is Python's own."""
    for value in AT_THE_START[name]:
        ended = subprocess.run(
            [sys.executable, "-m", "bert_lamb", *JOBS["score"].words],
            cwd=inputs,
            env={**os.environ, "PYTHONPATH": str(CHECKOUT), name: value},
            capture_output=True,
            text=True,
            errors="replace",
        )
        assert ended.returncode in (0, 1, 2), (value, ended.stderr)
        assert "Traceback" not in ended.stderr, (value, ended.stderr)
