"""Each check with its fault injected: the facts of every rank are plain values, so no second process is needed.

Breaks that turn this file red are in mutations.txt.
"""

import errno
import json
import os
import shutil

import pytest
import torch

from bert_lamb.cli import main as cli
from bert_lamb.cli.compose import compose
from bert_lamb.doctor import hosts, machine, network, storage, training
from bert_lamb.doctor.command import CHECKS, examination_of, process_of
from bert_lamb.doctor.examination import Check, examine, take
from bert_lamb.doctor.finding import Verdict, name_ranks, ok
from bert_lamb.doctor.ranks import Ranks
from bert_lamb.doctor.report import Report
from bert_lamb.errors import UserError
from bert_lamb.model.activations import activation_bytes
from bert_lamb.outputs.run_dir import RunDir
from bert_lamb.train.settings import CheckpointSettings
from tests.pretraining.test_pretrain import SMALL
from tests.synthetic import make_shards

OK, WARNING, FAILED, SKIPPED = Verdict.ok, Verdict.warning, Verdict.failed, Verdict.skipped
TWO_HOSTS = ["host1", "host1", "host2", "host2"]


def examined(*words, hosts=("host1",)):
    """The examination of these words as rank 0 of so many ranks, whose facts a test makes up."""
    config = compose("doctor", ["runtime=cpu", *words])
    process, why = process_of(config)
    examination = examination_of(config, process, Ranks(0, 1, 5.0), why)
    examination.hosts = list(hosts)
    examination.process = type(process)(0, 0, len(hosts), process.device)
    return examination


def check_of(name):
    return next(check for check in CHECKS if check.name == name)


def take_alone(name, examination):
    """The finding of a check as one rank takes it."""
    return take(check_of(name), examination, Report([name], examination.hosts, is_shown=False))


def test_ranks_are_named_with_their_hosts():
    assert name_ranks([2], TWO_HOSTS) == "rank 2 (host2)"
    assert name_ranks([3, 0, 1], TWO_HOSTS) == "ranks 0-1, 3 (host1, host2)"
    many = [f"h{rank}" for rank in range(9)]
    assert name_ranks(range(9), many) == "ranks 0-8 (h0, h1, h2, h3 and 5 more)"


def test_versions_that_differ_are_named_with_their_ranks():
    examination = examined("runtime.engine=torch", hosts=TWO_HOSTS)
    own = machine.collect_versions(examination)
    assert own["torch"] == torch.__version__
    alike = machine.judge_versions(examination, [own] * 4)
    assert alike.verdict is OK
    assert f"torch {torch.__version__}" in alike.found
    older = {**own, "numpy": "1.0"}
    found = machine.judge_versions(examination, [own, own, own, older])
    assert found.verdict is FAILED
    assert found.found == f"numpy: {own['numpy']} on ranks 0-2 (host1, host2), 1.0 on rank 3 (host2)"
    without = {**own, "deepspeed": machine.NOT_INSTALLED}
    assert machine.judge_versions(examination, [without] * 4).verdict is OK
    assert machine.judge_versions(examined(), [without]).verdict is FAILED


GPU = {"name": "A", "bytes": 80e9, "capability": "9.0", "has_bf16": True, "driver": "550.1", "uuid": ""}


def test_a_missing_gpu_fails_where_one_is_asked_for():
    assert take_alone("gpu", examined()).verdict is OK
    assert take_alone("gpu", examined("runtime=any")).verdict is WARNING
    with_gpus = examined("runtime=gpu")
    if with_gpus.process.device.type == "cpu":
        found = take_alone("gpu", with_gpus)
        assert found.verdict is FAILED
        assert found.fix
        assert take_alone("step", with_gpus).verdict is SKIPPED


def test_gpus_that_differ_or_lack_what_the_precision_needs():
    hosts = TWO_HOSTS
    asked = examined("recipe=demo", "runtime.device=auto", "runtime.precision=bf16", hosts=hosts)
    assert machine.judge_gpus(asked, [GPU] * 4).verdict is OK
    found = machine.judge_gpus(asked, [GPU, GPU, GPU, {**GPU, "driver": "530.2"}])
    assert found.verdict is WARNING
    assert "driver 530.2 on rank 3 (host2)" in found.found
    assert "none on rank 1 (host1)" in machine.judge_gpus(asked, [GPU, None, GPU, GPU]).found
    old = {**GPU, "has_bf16": False, "capability": "7.0"}
    assert machine.judge_gpus(asked, [GPU, GPU, old, old]).verdict is FAILED
    asked.runtime = examined("recipe=demo", "runtime.device=auto").runtime  # fp32
    assert machine.judge_gpus(asked, [old] * 4).verdict is OK
    twice = [{**GPU, "uuid": "x"}, {**GPU, "uuid": "x"}, {**GPU, "uuid": "x"}, {**GPU, "uuid": "y"}]
    assert machine.judge_gpus(asked, twice).found == "one GPU for ranks 0-1 (host1)"


@pytest.mark.parametrize(
    ("words", "reason", "verdict", "said"),
    [
        ([], None, OK, "lamb runs as fused (Triton)"),
        ([], "no compiler", WARNING, "lamb runs as foreach, which is slower"),
        (["optimizer.implementation=fused"], "no compiler", FAILED, "no compiler"),
        (["optimizer.implementation=reference"], "no compiler", OK, "lamb runs as reference"),
        (["optimizer=adamw"], "no compiler", OK, "adamw runs as torch's own"),
    ],
)
def test_which_lamb_runs_depends_on_the_kernels(words, reason, verdict, said):
    found = machine.judge_kernels(examined(*words), [reason])
    assert found.verdict is verdict
    assert said in found.found
    assert take_alone("kernels", examined()).verdict is SKIPPED


def test_kernels_that_run_on_some_ranks_alone():
    found = machine.judge_kernels(examined(hosts=TWO_HOSTS), [None, None, "no compiler", None])
    assert found.verdict is FAILED
    assert "no compiler on rank 2 (host2)" in found.found


MACHINE = {"shm_bytes": 8 << 30, "open_files": 4096, "cores": [0, 1, 2, 3], "threads": 2, "OMP_NUM_THREADS": "2"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, None),
        ({"threads": 3}, "6 threads and loader processes of 2 ranks for 4 cores on host2"),
        ({"shm_bytes": 64 << 20}, "67 MB of /dev/shm on host2"),
        ({"open_files": 256}, "256 open files on host2 where 1024 may be needed"),
    ],
)
def test_what_the_ranks_of_a_machine_share(change, said):
    examination = examined(hosts=TWO_HOSTS)
    facts = [MACHINE, MACHINE, {**MACHINE, **change}, {**MACHINE, **change}]
    examination.runtime = examined("runtime.loader_workers=0").runtime
    if "shm_bytes" in change:
        assert machine.judge_resources(examination, facts).verdict is OK, "nothing uses it without loaders"
        facts = [{**one, "threads": 1} for one in facts]
        examination.runtime = examined("runtime.loader_workers=1").runtime
    found = machine.judge_resources(examination, facts)
    assert found.verdict is (WARNING if said else OK)
    assert not said or (said in found.found and "host1" not in found.found)
    bound = [{**MACHINE, "cores": [2 * rank, 2 * rank + 1]} for rank in (0, 1)]
    assert machine.judge_resources(examined(hosts=["h", "h"]), bound).verdict is OK, "each has cores of its own"


NAMED = {"addresses": ["10.0.0.1"], "interfaces": {"eth0": "10.0.0.1"}, "interface": "eth0", "GLOO_SOCKET_IFNAME": None}
LOOPBACK = {**NAMED, "addresses": ["127.0.1.1"]}


@pytest.mark.parametrize(
    ("facts", "verdict", "said"),
    [
        (NAMED, OK, "host2 by eth0"),
        (LOOPBACK, FAILED, "host2 resolves its own name to 127.0.1.1"),
        ({**NAMED, "addresses": ["::1"]}, FAILED, "::1"),
        ({**LOOPBACK, "GLOO_SOCKET_IFNAME": "eth0"}, OK, "2 hosts"),
        ({**NAMED, "GLOO_SOCKET_IFNAME": "ib0"}, FAILED, "host2, which has no interface ib0"),
        ({**NAMED, "addresses": []}, FAILED, "host2 does not resolve its own name"),
    ],
)
def test_a_name_that_means_the_loopback_is_no_address_for_others(facts, verdict, said):
    examination = examined(hosts=TWO_HOSTS)
    found = hosts.judge_host_names(examination, [NAMED, NAMED, facts, facts])
    assert found.verdict is verdict
    assert said in found.found
    if verdict is FAILED:
        assert "GLOO_SOCKET_IFNAME=eth0" in found.fix
    assert hosts.judge_host_names(examined(), [facts]).verdict is OK, "one host meets itself there"


def test_this_machine_has_a_loopback_interface():
    """The ioctl answers as the system does: an independent truth is in /sys."""
    assert hosts.interface_addresses().get("lo") == "127.0.0.1"


def test_a_clock_counts_as_off_by_what_the_way_cannot_explain():
    examination = examined(hosts=["host1", "host2"])
    found = hosts.judge_clocks(examination, [[100.0, 100.1, 100.4], [105.3, 105.4, 105.6]])
    assert found.verdict is WARNING
    assert "rank 1 (host2) is 5.0 s off" in found.found
    assert hosts.judge_clocks(examination, [[100.0, 100.1, 103.0], [101.0, 102.9, 103.5]]).verdict is OK
    behind = hosts.judge_clocks(examination, [[100.0, 100.1, 100.4], [96.9, 97.0, 97.2]])
    assert "is 3.0 s off" in behind.found


def test_a_sum_over_ranks_is_checked_element_by_element():
    """The sum is made here rank by rank in integers."""
    tensor, total = torch.empty(1000), torch.zeros(1000, dtype=torch.int64)
    for rank in range(15):
        network.fill(tensor, scale=network.share_of(rank))
        total += tensor.long()
    summed = total.float()
    assert network.first_wrong(summed, 15) is None
    assert network.first_wrong(summed, 14) is not None, "a rank less"
    summed[617] += 1
    assert network.first_wrong(summed, 15) == [617.0, float(total[617]) + 1, float(total[617])]
    largest = max(network.share_of(rank) for rank in range(4096)) * 7 * 4096
    assert largest < 2**24, "exact in fp32 on thousands of ranks"


def test_a_wrong_sum_fails_with_its_ranks():
    examination = examined(hosts=TWO_HOSTS)
    right = {"bytes": 4_000_000, "seconds": 0.5, "wrong": None}
    wrong = {**right, "wrong": [3.0, 17.0, 18.0]}
    found = network.judge_all_reduce(examination, [right, right, wrong, right])
    assert found.verdict is FAILED
    assert "rank 2 (host2): 17 at element 3 where 18 is right" in found.found
    slow = {**right, "seconds": 1.0}
    found = network.judge_all_reduce(examination, [right, slow, right, right])
    assert found.verdict is OK
    assert "1,000.0 ms" in found.found, "the slowest rank's"
    # Each of 2 ranks sends and receives half of it twice: 1 byte a byte.
    assert network.bus_bandwidth(1000, 2.0, 2) == 500.0
    assert network.bus_bandwidth(1000, 1.0, 4) == 1500.0


def test_which_pairs_are_tried():
    assert network.pairs_to_try(["a", "a", "b"]) == ("all pairs of ranks", [(0, 1), (0, 2), (1, 2)])
    of_hosts, pairs = network.pairs_to_try(["a"] * 8 + ["b"] * 8 + ["c"] * 8)
    assert "first ranks" in of_hosts
    assert pairs == [(0, 8), (0, 16), (8, 16)]
    ring, pairs = network.pairs_to_try([f"h{rank // 2}" for rank in range(40)])
    assert "ring of hosts" in ring
    assert pairs == [*((2 * n, 2 * n + 2) for n in range(19)), (0, 38)]
    ring, pairs = network.pairs_to_try(["a"] * 10)
    assert "ring of ranks" in ring
    assert len(pairs) == 10


def test_the_slowest_pair_is_named_and_judged_beside_its_kind():
    hosts = ["h1", "h1", "h1", "h1", "h2"]
    examination = examined(hosts=hosts)
    _, pairs = network.pairs_to_try(hosts)
    seconds = {pair: 0.01 if hosts[pair[0]] == hosts[pair[1]] else 0.05 for pair in pairs}
    facts = [[[a, b, seconds[a, b]] for a, b in pairs if a == rank] for rank in range(5)]
    assert network.judge_pairs(examination, facts).verdict is OK, "links between hosts are slower than within"
    facts[1] = [[a, b, 0.2 if b == 4 else s] for a, b, s in facts[1]]
    found = network.judge_pairs(examination, facts)
    assert found.verdict is WARNING
    assert "slowest between hosts ranks 1 and 4 (h1, h2)" in found.found
    assert "ranks 1 and 4 (h1, h2)" in found.fix


def test_a_full_disk_fails_before_the_run_does(tmp_path, monkeypatch):
    run_dir = tmp_path / "deep" / "run"
    examination = examined(*SMALL, f"run_dir={run_dir}")
    facts = storage.collect_run_dir(examination)
    assert storage.judge_run_dir(examination, [facts]).verdict is OK
    needed = storage.checkpoint_bytes(examination.num_parameters, "lamb") * 5
    settings = examination.checkpoint
    assert storage.checkpoints_at_once([60, 60], settings) == 5
    full = storage.judge_run_dir(examination, [{**facts, "free": needed - 1, "held": 0}])
    assert full.verdict is FAILED
    assert storage.judge_run_dir(examination, [{**facts, "free": needed - 100, "held": 100}]).verdict is OK, "a resume"
    crawling = storage.judge_run_dir(examination, [{**facts, "seconds": 1e6}])
    assert crawling.verdict is WARNING

    def refuse(handle, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", refuse)
    found = take_alone("run_dir", examination)
    assert found.verdict is FAILED
    assert "No space left on device" in found.found
    assert list(tmp_path.iterdir()) == [], "nothing is left, and run_dir was not made"


def test_a_checkpoint_is_as_large_as_it_is_reckoned(tmp_path):
    """Beside what training writes: the same run's checkpoint of every optimizer."""
    from bert_lamb.checkpoint.position import Position
    from bert_lamb.checkpoint.writing import save_checkpoint
    from bert_lamb.engine.build import build_engine
    from bert_lamb.model.bert import BertPretrainingModel

    for optimizer in ("lamb", "lars", "adamw"):
        examination = examined(*SMALL, "runtime.engine=torch", f"optimizer={optimizer}")
        model = BertPretrainingModel(examination.model_config, seed=0)
        assert examination.num_parameters == sum(p.numel() for p in model.parameters())
        engine = build_engine(
            model,
            examination.recipe.optimizer,
            examination.runtime,
            examination.process,
            micro_batch_size=1,
            gradient_accumulation_steps=1,
            max_grad_norm=0,
            loss_scale=None,
        )
        folder = tmp_path / optimizer
        save_checkpoint(engine, folder, position=Position("phase1", step=0, optimizer_step=0), about={})
        (file,) = folder.glob("*.safetensors")
        expected = storage.checkpoint_bytes(examination.num_parameters, optimizer)
        assert expected <= file.stat().st_size < 1.1 * expected + 20_000  # the header, names and offsets as text


@pytest.mark.parametrize("keep_every", [0, 20])
@pytest.mark.parametrize(("interval_steps", "interval_minutes"), [(10, 0), (0, 10), (10, 10)])
def test_no_more_checkpoints_are_kept_than_reckoned(tmp_path, interval_steps, interval_minutes, keep_every):
    """Two phases of six steps, a save after each, by steps and by the clock in turn, as the run's folder keeps them."""
    settings = CheckpointSettings(interval_steps, interval_minutes, 2, keep_every, is_asynchronous=True)
    run_dir, most = RunDir(tmp_path), 0
    for phase in (1, 2):
        for step in range(1, 7):
            kinds = [False] if interval_steps or step == 6 else []
            kinds += [True] if interval_minutes and step < 6 else []
            for is_by_clock in kinds:
                folder = run_dir.checkpoint_dir(f"phase{phase}", 10 * step + is_by_clock)
                folder.mkdir(parents=True)
                total = 100 * phase + 10 * step + is_by_clock
                (folder / "checkpoint.json").write_text(json.dumps({"total_step": total, "is_by_clock": is_by_clock}))
                most = max(most, len(run_dir.checkpoints()))
                run_dir.remove_old_checkpoints(f"phase{phase}", keep_last=2, keep_every=keep_every)
    too_many = 1 + (6 if keep_every else 0)  # kept for ever, and among the last; multiples that the clock did not meet
    assert most <= storage.checkpoints_at_once([60, 60], settings) <= most + too_many


def test_nothing_of_run_dir_is_changed(tmp_path):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    (run_dir / "metrics.jsonl").touch()
    os.utime(run_dir, (1_000_000_000, 1_000_000_000))
    examination = examined(*SMALL, f"run_dir={run_dir}", "if_exists=resume")
    assert take_alone("run_dir", examination).verdict is OK
    assert run_dir.stat().st_mtime == 1_000_000_000
    assert [path.name for path in run_dir.iterdir()] == ["metrics.jsonl"]
    (run_dir / "thesis.tex").touch()
    found = take_alone("run_dir", examination)
    assert found.verdict is FAILED
    assert "thesis.tex in the way" in found.found


def test_a_file_system_without_nameless_files_keeps_nothing_either(tmp_path, monkeypatch):
    opened = os.open

    def without_tmpfile(path, flags, *rest, **more):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "not supported")
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", without_tmpfile)
    assert storage.seconds_to_write(tmp_path, 1 << 20) > 0
    assert list(tmp_path.iterdir()) == []


def test_shards_and_batch_are_admitted_as_pretraining_does(tmp_path):
    shards = make_shards(tmp_path / "s")
    examination = examined(*SMALL, f"shards={shards}")
    found = take_alone("shards", examination)
    assert found.verdict is OK
    assert "phase1: 200 instances of length 16, phase2: 200 instances of length 32" in found.found
    examination.process = type(examination.process)(0, 0, 3, torch.device("cpu"))
    found = take_alone("batch plan", examination)
    assert found.verdict is FAILED
    assert "global_batch_size=64, which 3 ranks do not share evenly" in found.found
    damaged = shutil.copytree(shards, tmp_path / "damaged")
    next((damaged / "seq16").glob("train-*")).write_bytes(b"")
    found = take_alone("shards", examined(*SMALL, f"shards={damaged}"))
    assert found.verdict is FAILED
    missing = take_alone("shards", examined(*SMALL, "shards=/nowhere"))
    assert missing.found.startswith("no manifest.json in /nowhere; expected ")
    assert take_alone("shards", examined(*SMALL)).verdict is SKIPPED
    assert take_alone("batch plan", examined()).verdict is SKIPPED
    assert take_alone("initial weights", examined("initial_weights=/nowhere")).verdict is FAILED


def test_memory_that_the_state_does_not_fit_in(tmp_path):
    examination = examined("recipe=lamb_32k", "runtime=gpu", "runtime.device=auto")
    # The estimate of conf/runtime/gpu.yaml: 27 GB of activations and 2 GB of logits, 9 GB of state on one rank.
    predictions = 32_768 // 512 * 80
    estimate = activation_bytes(
        examination.model_config,
        precision="bf16",
        activation_checkpointing=False,
        num_tokens=32_768,
        num_predictions=predictions,
    )
    assert estimate == pytest.approx(29e9, rel=0.1)
    assert training.judge_memory(examination, [80 * 10**9]).verdict is OK
    assert training.judge_memory(examination, [80 * 10**9, 30 * 10**9]).verdict is WARNING
    assert training.judge_memory(examination, [5 * 10**9]).verdict is FAILED
    assert training.step_shape(examination)[1:] == (256, 128, 20) or training.step_shape(examination)[1] * 512 == 32_768


def test_a_step_that_is_not_finite_fails(monkeypatch):
    examination = examined(*SMALL, "runtime.engine=torch")
    found = take_alone("step", examination)
    assert found.verdict is OK, found
    facts = check_of("step").collect(examination)()
    # Weights of N(0, 0.02): every token is about as likely as any other.
    import math

    chance = math.log(examination.model_config.vocab_size) + math.log(2)
    assert facts["loss"] == pytest.approx(chance, abs=0.3)
    assert training.judge_step(examination, [facts, {**facts, "loss": None}]).verdict is FAILED
    assert training.judge_step(examination, [{**facts, "is_applied": False}]).verdict is FAILED
    assert take_alone("step", examined("step=false")).verdict is SKIPPED


def test_an_exception_is_the_failure_of_its_check_alone(capsys):
    def explode(examination):
        raise ZeroDivisionError("a defect\nof two lines")

    def refuse(examination):
        raise UserError(found="this", expected="that", fix="do so")

    checks = [
        Check("collecting", explode, lambda *_: ok("")),
        Check("judging", lambda _: 1, lambda *_: explode(None)),
        Check("joint", lambda _: lambda: explode(None), lambda *_: ok(""), is_collective=True),
        Check("refusing", refuse, lambda *_: ok("")),
        Check("sound", lambda _: 7, lambda _, facts: ok(f"{facts}")),
    ]
    examination = examined()
    report = Report([check.name for check in checks], examination.hosts, is_shown=True)
    examine(checks, examination, report)
    report.finish()
    assert [row["verdict"] for row in report.rows] == ["failed", "failed", "failed", "failed", "ok"]
    assert {row["found"] for row in report.rows[:3]} == {"ZeroDivisionError: a defect"}
    assert (report.rows[3]["found"], report.rows[3]["fix"]) == ("this; expected that", "do so")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "failed   collecting  ZeroDivisionError: a defect"
    assert lines[-1] == "1 ok, 0 warning, 4 failed, 0 skipped"


def test_the_command_line_says_ok_failed_or_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["doctor", "runtime=single", "step=false", "output=found.json"]) == 0
    content = json.loads((tmp_path / "found.json").read_text())
    assert [row["name"] for row in content["checks"]] == [check.name for check in CHECKS]
    assert content["verdict"] == "ok"
    assert len(capsys.readouterr().out.splitlines()) > len(CHECKS)
    words = ["recipe=continue", "shards=/nowhere", "step=false", "runtime=cpu", "output=found.json"]
    assert cli.main(["doctor", *words]) == 1
    failed = [
        row["name"] for row in json.loads((tmp_path / "found.json").read_text())["checks"] if row["verdict"] == "failed"
    ]
    assert failed == ["shards"]
    assert cli.main(["doctor", "output=none/found.json"]) == 2
    assert "found output=none/found.json, whose folder does not exist" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["found.json"]
