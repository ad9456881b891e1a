"""The meter against a clock that the test turns: rates, shares and utilization worked out by hand; and a real trace.

Truths: arithmetic; the losses of the same run without a profile, bit for bit.
"""

import json
from dataclasses import dataclass

import pytest
import torch

from bert_lamb.cli.compose import compose
from bert_lamb.engine.launch import Process
from bert_lamb.pretraining.command import pretrain
from bert_lamb.train import meter as meter_module
from bert_lamb.train import peak as peak_module
from bert_lamb.train.batch_plan import plan_batch
from bert_lamb.train.clock import HostClock, StreamClock
from bert_lamb.train.meter import Meter
from bert_lamb.train.peak import measured_peak_tflops
from bert_lamb.train.schedule import Schedule
from bert_lamb.train.settings import MeterSettings
from bert_lamb.train.task import Stage
from tests.pretraining.test_pretrain import arguments
from tests.synthetic import make_shards

CPU = torch.device("cpu")
SIZES = {"global_batch_size": 8, "max_micro_batch_size": 8, "world_size": 2, "total_steps": 9, "max_seq_length": 16}
STAGE = Stage("phase1", 0, plan_batch(key="k", **SIZES), Schedule(9, 1e-3, 0.1), num_instances=80)


@dataclass
class Counts:
    num_sequences: int
    num_tokens: int


class TurnedClock:
    """A host's clock, and a device's that is `late` seconds after it: its marks pass when that time is over."""

    def __init__(self, late=0.0):
        self.now, self.late = 100.0, late

    def perf_counter(self):
        return self.now

    def mark(self):
        return self.now + self.late

    def has_passed(self, mark):
        return mark <= self.now

    def seconds_between(self, first, second):
        return second - first


@pytest.fixture
def turned(monkeypatch):
    def make(late=0.0, rank=0):
        clock = TurnedClock(late)
        monkeypatch.setattr(meter_module, "time", clock)
        monkeypatch.setattr(meter_module, "clock_of", lambda device: clock)
        meter = Meter(Process(rank, rank, 2, CPU), MeterSettings("fp32", 0.5, 0))
        return meter, clock

    return make


def spend(meter, clock, **seconds):
    for part, of_part in seconds.items():
        meter.enter(part)
        clock.now += of_part


def test_the_figures_by_hand(turned):
    meter, clock = turned()
    assert meter.start(STAGE) == {"peak_tflops": 0.5, "is_peak_measured": False}
    for _ in range(2):
        spend(meter, clock, data=1, forward_backward=4, optimizer=2, agreement=1)
        meter.enter("logging")
        meter.count(Counts(8, 96), flops=4 * 10**12)
    found = meter.read()
    assert found.pop("peak_rss_bytes") > 10**7
    assert found == pytest.approx(
        {
            "seconds": 8,
            "sequences_per_second": 1,
            "tokens_per_second": 12,
            "positions_per_second": 16,
            "fill": 0.75,
            "model_tflops": 0.25,  # 8 TFLOP in 16 seconds on two devices
            "mfu": 0.5,
            "data_share": 1 / 8,
            "forward_backward_share": 4 / 8,
            "optimizer_share": 2 / 8,
            "agreement_share": 1 / 8,
        }
    )


def test_pauses_have_a_share_and_no_part_in_the_rates(turned):
    meter, clock = turned()
    meter.start(STAGE)
    spend(meter, clock, logging=1, evaluation=4, checkpoint=2, data=1, forward_backward=2)
    meter.enter("logging")
    meter.count(Counts(8, 64), flops=0)
    found = meter.read()
    assert (found["seconds"], found["sequences_per_second"]) == (4, 2)
    shares = {name: value for name, value in found.items() if name.endswith("_share")}
    assert shares.pop("evaluation_share") == pytest.approx(0.4)
    assert shares.pop("checkpoint_share") == pytest.approx(0.2)
    assert sum(shares.values()) == pytest.approx(0.4)
    clock.now += 3  # the line is written
    spend(meter, clock, forward_backward=1)
    meter.enter("logging")
    meter.count(Counts(8, 64), flops=0)
    assert meter.read()["logging_share"] == pytest.approx(0.75)


def test_what_the_device_has_not_finished_is_in_the_next_line(turned):
    meter, clock = turned(late=2)
    meter.start(STAGE)
    spend(meter, clock, data=3, forward_backward=3, optimizer=1)
    meter.enter("logging")
    meter.count(Counts(8, 64), flops=0)
    found = meter.read()
    assert (found["data_share"], found.get("forward_backward_share")) == (1, None)
    assert found["seconds"] == 7  # the host has waited for the sums of the batch: its clock is right
    clock.now += 2
    meter.enter("agreement")
    meter.count(Counts(8, 64), flops=0)
    assert meter.read()["forward_backward_share"] == pytest.approx(0.75)


def test_other_ranks_measure_nothing(turned):
    meter, clock = turned(rank=1)
    assert meter.start(STAGE) == {}
    spend(meter, clock, data=1, logging=1)
    meter.count(Counts(8, 64), flops=1)
    meter.stop()


def test_the_peak_is_that_of_a_product(monkeypatch):
    """Truth: products that the test counts and a clock that it turns. The global generator stays as it is."""
    clock, done = TurnedClock(), []

    def product(left, right):
        done.append(2 * left.shape[0] * left.shape[1] * right.shape[1])
        clock.now += done[-1] / 30e9
        return torch.empty(0)

    monkeypatch.setattr(peak_module, "time", clock)
    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    state = torch.get_rng_state()
    measured_peak_tflops.cache_clear()
    assert measured_peak_tflops(CPU, "fp32") == pytest.approx(0.03)
    assert torch.equal(torch.get_rng_state(), state)
    assert sum(done) / 30e9 < 0.2, "a fraction of a second"
    num_products = len(done)
    assert measured_peak_tflops(CPU, "fp32") == pytest.approx(0.03)
    assert len(done) == num_products, "measured once in a process"
    measured_peak_tflops.cache_clear()


def test_a_sample_that_the_machine_interrupted_does_not_lower_the_peak(monkeypatch):
    """The first product, and every fourth, takes a tenth of a second more; small ones do not reach 30 GFLOP/s."""
    clock, done = TurnedClock(), []

    def product(left, right):
        done.append(left.shape[0])
        clock.now += 2 * left.shape[0] * right.numel() / (30e9 * min(1, left.shape[0] / 256))
        clock.now += 0.1 * (len(done) % 4 == 1)
        return torch.empty(0)

    monkeypatch.setattr(peak_module, "time", clock)
    monkeypatch.setattr(peak_module, "MAX_SECONDS", 2.0)
    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    measured_peak_tflops.cache_clear()
    assert measured_peak_tflops(CPU, "fp32") == pytest.approx(0.03)
    assert max(done) >= 256
    measured_peak_tflops.cache_clear()


def test_a_step_faster_than_the_measured_peak_says_no_utilization(turned, monkeypatch):
    """The peak of a machine that had other work is measured again, and what is still above it is not told."""
    meter, clock = turned()
    monkeypatch.setattr(meter, "settings", MeterSettings("fp32", None, 0))
    peaks = iter([0.25, 0.5, 0.5])  # and no fourth time: the machine may be busy for ever
    monkeypatch.setattr(meter_module, "measured_peak_tflops", lambda device, precision: 0.125)
    monkeypatch.setattr(meter_module, "measure_peak_tflops", lambda device, precision: next(peaks))
    meter.start(STAGE)
    told = []
    for flops in (0.1, 0.375, 0.375, 0.375, 0.75, 0.75, 0.25):  # times 2e12, in a second on two devices
        spend(meter, clock, forward_backward=1)
        meter.enter("logging")
        meter.count(Counts(8, 96), flops=int(flops * 2e12))
        told.append(meter.read().get("mfu"))
    assert told == [pytest.approx(0.8), None, pytest.approx(0.75), pytest.approx(0.75), None, None, pytest.approx(0.5)]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("shards") / "s")


def lines_of(run_dir, kind):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_a_profile_opens_in_a_browser_and_changes_nothing(shards, tmp_path, capsys):
    words = ["runtime.engine=torch", "runtime.peak_tflops=2", "runtime.micro_batch_size.phase1=16"]
    words.append("phases.phase1.total_steps=5")
    for name, num_steps in (("without", 0), ("with", 2)):
        pretrain(compose("pretrain", arguments(shards, tmp_path / name, *words, f"runtime.profile={num_steps}")))
    exact = ("loss", "grad_norm", "trust_ratio_median")
    without, with_profile = (
        [[line[name] for name in exact] for line in lines_of(tmp_path / run, "step")] for run in ("without", "with")
    )
    assert with_profile == without
    assert not (tmp_path / "without" / "profile").exists()
    file = tmp_path / "with" / "profile" / "steps_4_to_5.json"
    assert f"profile  {file}: open it in https://ui.perfetto.dev" in capsys.readouterr().err
    events = json.loads(file.read_text())["traceEvents"]
    times = {name: sum(event.get("name") == name for event in events if event.get("ph") == "X") for name in PARTS}
    assert times == {"forward_backward": 8, "optimizer": 2, "aten::addmm": times["aten::addmm"]}
    assert times["aten::addmm"] >= 8
    assert [line["peak_tflops"] for line in lines_of(tmp_path / "with", "phase_start")] == [2, 2]


PARTS = ("forward_backward", "optimizer", "aten::addmm")


def test_shares_of_a_run_add_up(shards, tmp_path):
    words = ["runtime.engine=torch", "evaluation.interval_steps=2", "checkpoint.interval_steps=3"]
    pretrain(compose("pretrain", arguments(shards, tmp_path / "run", *words, "logging.interval_steps=2")))
    lines = lines_of(tmp_path / "run", "step")
    assert [(line["phase"], line["step"]) for line in lines] == [("phase1", 2), ("phase1", 4), ("phase2", 2)]
    for line in lines:
        shares = {name: value for name, value in line.items() if name.endswith("_share")}
        assert sum(shares.values()) == pytest.approx(1)
        assert 0 < line["fill"] < 1
        assert line["tokens_per_second"] == pytest.approx(line["fill"] * line["positions_per_second"])
    of_second = lines[1].keys()
    assert {"evaluation_share", "checkpoint_share", "logging_share"} <= of_second
    assert lines_of(tmp_path / "run", "phase_start")[0]["is_peak_measured"] is True


@pytest.mark.gpu
def test_events_see_what_the_device_does():
    """Sleeping kernels take three quarters of the stream's time."""
    clock = StreamClock()
    marks = [clock.mark()]
    for cycles in (100_000_000, 300_000_000):
        torch.cuda._sleep(cycles)
        marks.append(clock.mark())
    assert not clock.has_passed(marks[2])
    torch.cuda.synchronize()
    first, second = (clock.seconds_between(*marks[i : i + 2]) for i in (0, 1))
    assert second / (first + second) == pytest.approx(0.75, abs=0.05)


def test_the_hosts_clock_runs():
    clock = HostClock()
    first = clock.mark()
    assert clock.has_passed(first)
    assert clock.seconds_between(first, clock.mark()) >= 0
