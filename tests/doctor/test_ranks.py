"""Several ranks: as threads around a store where that is enough, and once as processes under torchrun.

Breaks that turn this file red are in mutations.txt.
"""

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from bert_lamb.doctor import storage
from bert_lamb.doctor.examination import Check, examine
from bert_lamb.doctor.finding import ok
from bert_lamb.doctor.ranks import MissingRanksError, Ranks
from bert_lamb.doctor.report import Report
from bert_lamb.doctor.watch import Watch
from tests.doctor.test_checks import examined
from tests.launch import run_ranks


def stores(count):
    """A store of its own for each of so many threads, all of one server."""
    first = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    more = [
        torch.distributed.TCPStore("127.0.0.1", first.port, is_master=False, timeout=timedelta(seconds=30))
        for _ in range(count - 1)
    ]
    return [first, *more]


def on_ranks(count, call):
    """call(Ranks) on so many threads; the results, by rank."""
    all_ranks = [Ranks(rank, count, 60.0, store) for rank, store in enumerate(stores(count))]
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, all_ranks))


def test_every_rank_gets_every_value():
    assert on_ranks(3, lambda ranks: ranks.gather("a", {"of": ranks.rank})) == [[{"of": 0}, {"of": 1}, {"of": 2}]] * 3


def test_a_rank_that_does_not_come_is_named_on_all_others():
    def call(ranks):
        ranks.timeout_seconds = 0.5
        if ranks.rank == 1:
            return "away"
        if ranks.rank == 0:
            ranks.store.wait(["a/2"])  # whose thread may be slow to start
        with pytest.raises(MissingRanksError) as missing:
            ranks.gather("a", 1)
        return missing.value.ranks

    assert on_ranks(3, call) == [[1], "away", [1]]


def test_a_fault_of_one_rank_is_named_and_ends_no_other_check(monkeypatch, tmp_path):
    """Two ranks that see different file systems, and one that fails where the other does not."""
    run_dir = tmp_path / "run"
    comes = storage._comes

    def explode(examination):
        if examination.ranks.rank == 1:
            raise ZeroDivisionError("only here")
        return 1

    checks = [
        Check("exploding", explode, lambda *_: ok("")),
        Check("file system", storage.collect_shared, storage.judge_shared),
        Check("joint", lambda _: lambda: 5, lambda _, facts: ok(str(facts)), is_collective=True),
        Check("not ready", lambda e: explode(e) and (lambda: 1), lambda *_: ok(""), is_collective=True),
    ]

    prepared = {}  # before the threads start: Hydra composes in one at a time

    def call(ranks):
        examination = prepared[ranks.rank]
        examination.ranks = ranks
        report = Report([check.name for check in checks], examination.hosts, is_shown=False)
        examine(checks, examination, report)
        return [(row["verdict"], row["found"]) for row in report.rows]

    for is_blind in (False, True):
        monkeypatch.setattr(storage, "_comes", lambda path, is_blind=is_blind: not is_blind and comes(path))
        prepared.update({rank: examined(f"run_dir={run_dir}", hosts=["h1", "h2"]) for rank in (0, 1)})
        both = on_ranks(2, call)
        assert both[0] == both[1]
        assert both[0][0] == ("failed", "ZeroDivisionError: only here (on rank 1 (h2))")
        verdict, found = both[0][1]
        assert verdict == ("failed" if is_blind else "ok")
        assert not is_blind or "did not see" in found
        assert both[0][2] == ("ok", "[5, 5]")
        assert both[0][3] == both[0][0]
    assert list(tmp_path.iterdir()) == []


def test_a_check_without_an_answer_ends_with_the_ranks_that_are_missing(monkeypatch):
    left = threading.Event()
    monkeypatch.setattr("bert_lamb.doctor.watch.os._exit", lambda status: left.set())
    (store,) = stores(1)
    report = Report(["joint", "later"], ["h1", "h2"], is_shown=False)
    with Watch("joint", Ranks(0, 2, 0.2, store), report) as watch:
        watch.back()
        assert left.wait(60)
    assert [row["verdict"] for row in report.rows] == ["failed", "skipped"]
    assert report.rows[0]["found"] == "no answer in 0.2 s; still inside: rank 1 (h2)"


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Two examinations under torchrun: one sound, one in whose step rank 1 fails while rank 0 waits for it."""
    folder = tmp_path_factory.mktemp("doctor")
    worker = str(Path(__file__).with_name("doctor_worker.py"))
    return folder, run_ranks(2, worker, str(folder))


def test_two_ranks_are_examined_and_rank_0_prints(launched):
    folder, ended = launched
    content = json.loads((folder / "sound.json").read_text())
    verdicts = {row["name"]: row["verdict"] for row in content["checks"]}
    assert content["verdict"] == "ok", ended.stdout[-3000:]
    for name in ("versions", "gpu", "run_dir", "file system", "memory", "process group", "all-reduce", "pairs", "step"):
        assert verdicts[name] == "ok", ended.stdout[-3000:]
    found = {row["name"]: row["found"] for row in content["checks"]}
    assert re.search(r"1\.0 MB of fp32, of the [\d.]+ MB of the gradient", found["all-reduce"])
    assert "all pairs of ranks" in found["pairs"]
    assert "ranks 0 and 1" in found["pairs"]
    assert ended.stdout.count("all pairs of ranks") == 2, "once for each examination, by rank 0 alone"
    assert "status 0" in ended.stdout


def test_a_rank_that_fails_inside_a_step_does_not_hold_up_the_report(launched):
    folder, ended = launched
    content = json.loads((folder / "broken.json").read_text())
    row = content["checks"][-1]
    assert (row["name"], row["verdict"]) == ("step", "failed")
    assert "ZeroDivisionError: inside the step (on rank 1 (" in row["found"]
    assert content["verdict"] == "failed"
    assert ended.returncode != 0
