"""A plan against arithmetic by hand, against the engine's own formula, and by what must hold for every plan.

Breaks that turn this file red are in mutations.txt.
"""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_lamb.cli import main as cli
from bert_lamb.cli.compose import compose
from bert_lamb.config.checks import IfExists
from bert_lamb.engine.settings import RuntimeSettings
from bert_lamb.engine.state_size import state_bytes
from bert_lamb.errors import UserError
from bert_lamb.outputs.plain import to_plain
from bert_lamb.planner import measure
from bert_lamb.planner.command import default_fill, plan_command, plan_of
from bert_lamb.planner.hardware import GPUS
from bert_lamb.planner.ours import optimizer_bytes
from bert_lamb.planner.plan import Measured
from bert_lamb.planner.published import BERT_LARGE
from bert_lamb.planner.report import text
from bert_lamb.planner.step import Shape
from bert_lamb.planner.traffic import Collective, Network, collectives_of, exposed_seconds
from bert_lamb.shards import open_instances
from tests.launch import CHECKOUT
from tests.synthetic import make_shards

CONFIG = to_plain(compose("plan", ["recipe=lamb_32k"]))
N = 336_226_108 + 6 * 1025  # parameters of BERT-Large with the vocabulary padded to 30,528
WIDE = {"phases.phase1.max_predictions_per_seq": 120}
E = {"planner.compute_efficiency": 0.5, "planner.network_efficiency": 0.8}


def planned(changes=None, base=CONFIG):
    """The plan of lamb_32k with these dotted keys changed; composing takes longer than planning."""
    plain = json.loads(json.dumps(base))
    for key, value in (changes or {}).items():
        *groups, name = key.split(".")
        tree = plain
        for group in groups:
            tree = tree[group]
        assert name in tree, key
        tree[name] = value
    return plan_of(plain)


def test_the_flops_of_a_padded_row_are_those_published():
    """0.2406 TFLOP at 128 with 20 predictions and 1.02 at 512 with 80: both heads, forward and backward."""
    assert Shape(1, 1, 128, 128**2, 20).flops(BERT_LARGE) == pytest.approx(0.2406e12, rel=1e-3)
    assert Shape(1, 1, 512, 512**2, 80).flops(BERT_LARGE) == pytest.approx(1.02e12, rel=2e-3)


def test_a_step_by_hand():
    """lamb_32k on 64 H100, full rows, DeepSpeed's stage 1 in bf16: 512 rows a rank, twice 256 and 8 times 64."""
    plan = planned({"planner.gpus": 64, "planner.fill": 1.0, **E})
    first, second = plan.phases
    assert (first.batch.micro_batch_size, first.batch.gradient_accumulation_steps) == (256, 2)
    assert (second.batch.micro_batch_size, second.batch.gradient_accumulation_steps) == (64, 8)
    memory = 0.85 * 3350e9  # bytes/s
    parts = first.step.parts
    masked = 0.15 * 128  # of a row, below the 20 it may have
    flops = 512 * 3 * (24 * (24 * 1024**2 * 128 + 4 * 128**2 * 1024) + masked * 2 * (1024**2 + 1024 * 30_528))
    flops += 512 * 3 * 2 * (1024**2 + 2 * 1024)
    assert parts["products"] == pytest.approx(flops / (989.4e12 * 0.5), rel=1e-6)
    assert parts["elementwise"] == pytest.approx(88 * 1024 * 24 * 512 * 128 / memory)
    assert parts["scores"] == 0
    assert parts["accumulation"] == pytest.approx(2 * 26 * N / memory)
    assert parts["host"] == 0
    assert parts["optimizer"] == pytest.approx((46 * N / 64 + 56 * N) / memory)
    # 8 nodes of 400 GB/s: the whole gradient in fp32 twice, the weights in bf16 once; 2 x 6 hops each.
    network = 63 / 64 * (2 * 4 * N + 2 * N) / (400e9 * 0.8) + 2 * 12 * 8e-6
    assert parts["network"] == pytest.approx(network)
    seconds = 14_063 * first.step.seconds + 1_562 * second.step.seconds
    assert plan.hours == pytest.approx(seconds / 3600)
    assert plan.kilowatt_hours == pytest.approx(64 * 0.7 * plan.hours)
    assert plan.gpu_hours == pytest.approx(64 * plan.hours)
    assert first.sequences_per_second == pytest.approx(32_768 / first.step.seconds)
    assert first.model_flops_utilization == pytest.approx(flops / first.step.seconds / 989.4e12, rel=1e-6)
    assert plan.num_parameters == N
    assert plan.checkpoint_bytes == 12 * N


def test_the_memory_of_a_rank_by_hand():
    """8 bytes a parameter and 12 over the ranks; 34 bytes a token, layer and hidden unit, and 16 a logit."""
    first = planned({"planner.gpus": 64, "planner.fill": 1.0}).phases[0]
    assert sum(first.memory.values()) - first.memory["activations"] == pytest.approx(8 * N + 12 * N / 64)
    row = 34 * 24 * 1024 * 128 + 16 * 30_528 * 0.15 * 128
    assert first.memory["activations"] == pytest.approx(256 * row)
    assert first.fitting_micro_batch == int((0.9 * 80e9 - 8 * N - 12 * N / 64) / row)


@pytest.mark.parametrize(
    ("engine", "stage", "precision"),
    [("deepspeed", 1, "bf16"), ("deepspeed", 3, "fp16"), ("deepspeed", 0, "fp32"), ("fsdp", 1, "bf16")],
)
def test_memory_is_that_of_the_engine(engine, stage, precision):
    """engine/state_size.py's own sum, which tests/engine holds against DeepSpeed's and FSDP2's tensors."""
    changes = {"runtime.engine": engine, "runtime.zero_stage": stage, "runtime.precision": precision}
    plan = planned({**changes, "runtime.micro_batch_size": "auto", "runtime.micro_batch_tokens": None})
    memory = plan.phases[0].memory
    state = sum(value for part, value in memory.items() if part != "activations")
    assert state == pytest.approx(state_bytes(plan.run.runtime, N, 8))
    assert sum(memory.values()) <= plan.machine.usable_bytes


def test_gradients_travel_as_each_engine_sends_them():
    """The table "What travels in a step of G micro-steps" of engine/README.md."""

    def of(engine, stage=1, precision="bf16", **zero):
        runtime = RuntimeSettings(
            **{**CONFIG["runtime"], "engine": engine, "zero_stage": stage, "precision": precision},
        )
        runtime.deepspeed_overrides.clear()
        runtime.deepspeed_overrides.update({"zero_optimization": zero} if zero else {})
        gradients = next((one for one in collectives_of(runtime, num_layers=24) if one.what == "gradients"), None)
        return gradients and (gradients.kind, gradients.when, gradients.in_every_micro_step)

    assert of("torch") is None
    assert of("fsdp") == ("reduce_scatter", "backward", False)
    assert of("deepspeed", 1) == ("all_reduce", "exposed", False)
    assert of("deepspeed", 1, overlap_comm=True, reduce_bucket_size=20_000) == ("all_reduce", "exposed", False)
    assert of("deepspeed", 1, "fp32", overlap_comm=True, reduce_bucket_size=20_000)[1] == "backward"
    assert of("deepspeed", 2) == ("all_reduce", "exposed", True)
    assert of("deepspeed", 2, overlap_comm=True) == ("all_reduce", "backward", True)
    assert of("deepspeed", 3) == ("reduce_scatter", "exposed", True)


def test_what_layers_hide_of_the_traffic():
    """A tenth of the parameters is outside of layers; more than the layers take shows."""
    hidden = Collective("gradients", "reduce_scatter", 4, "backward")
    seen = [exposed_seconds(hidden, seconds, backward_seconds=2.0, forward_seconds=1.0) for seconds in (1.0, 2.0, 5.0)]
    assert seen == pytest.approx([0.1, 0.2, 3.0])
    assert exposed_seconds(Collective("", "all_gather", 2, "forward"), 3.0, backward_seconds=9, forward_seconds=1) == 2
    assert exposed_seconds(Collective("", "all_gather", 2), 3.0, backward_seconds=9, forward_seconds=1) == 3


def test_a_network_by_hand():
    """16 ranks on two nodes: 15/16 of the bytes twice through the node's 100 GB/s; alone nothing travels."""
    network = Network(16, 8, link=300e9, node=100e9, efficiency=0.5)
    one = Collective("gradients", "all_reduce", 4)
    assert network.seconds(one, 10**9) == pytest.approx(2 * 15 / 16 * 4e9 / 50e9 + 8 * 8e-6)
    within = Network(8, 8, link=300e9, node=100e9, efficiency=0.5)
    assert within.seconds(one, 10**9) == pytest.approx(2 * 7 / 8 * 4e9 / 150e9 + 6 * 3e-6)
    assert Network(1, 8, 300e9, 100e9, 0.5).seconds(one, 10**9) == 0


def test_the_optimizers_bytes():
    """The table of optim/README.md: 22 + 16 + copy 2 + norm 2 = 42 with bf16 gradients, so 4 more with fp32 ones."""
    assert optimizer_bytes("lamb", has_copy=True) == 42 + 2 + 2
    assert optimizer_bytes("lars", has_copy=True) == optimizer_bytes("lamb", has_copy=True) - 12
    assert optimizer_bytes("adamw", has_copy=False) == 4 + 28


DIVISORS = [2**k for k in range(11)]


@given(
    st.sampled_from(DIVISORS),
    st.sampled_from(DIVISORS),
    st.sampled_from([("deepspeed", 1), ("deepspeed", 2), ("deepspeed", 3), ("fsdp", 1)]),
    st.sampled_from(["h100", "a100_80", "b200"]),
)
@settings(max_examples=40, deadline=None)
def test_more_gpus_never_need_more_memory_each_nor_more_hours(one, other, engine, gpu):
    few, many = sorted((one, other))
    changes = {"runtime.engine": engine[0], "runtime.zero_stage": engine[1], "planner.gpu": gpu}
    small, large = (planned({**changes, "planner.gpus": count}) for count in (few, many))
    for before, after in zip(small.phases, large.phases, strict=True):
        assert sum(after.memory.values()) <= sum(before.memory.values()) * (1 + 1e-12)
        assert after.fitting_micro_batch >= before.fitting_micro_batch
        assert after.step.parts["products"] <= before.step.parts["products"] * (1 + 1e-12)
    if few > 1 and engine != (
        "deepspeed",
        3,
    ):  # one GPU has no traffic; stage 3 has more of it a micro-step than it saves
        assert large.hours <= small.hours * (1 + 1e-9)


@given(st.floats(0.01, 100), st.floats(1, 2000), st.floats(0.3, 1.0))
@settings(max_examples=30, deadline=None)
def test_cost_and_energy_are_in_proportion(price, watts, fill):
    changes = {"planner.price_per_gpu_hour": price, "planner.watts": watts, "planner.fill": fill}
    one = planned(changes)
    twice = planned({**changes, "planner.price_per_gpu_hour": 2 * price, "planner.watts": 2 * watts})
    assert twice.cost == pytest.approx(2 * one.cost)
    assert twice.kilowatt_hours == pytest.approx(2 * one.kilowatt_hours)
    assert twice.hours == one.hours
    assert planned({**changes, "planner.fill": fill / 2}).hours < one.hours
    assert planned().cost is None


def test_checkpointing_takes_time_and_gives_memory():
    plain, again = planned(), planned({"runtime.activation_checkpointing": True})
    assert again.phases[0].memory["activations"] < plain.phases[0].memory["activations"] / 5
    assert again.phases[0].step.parts["products"] == pytest.approx(4 / 3 * plain.phases[0].step.parts["products"])


def test_padding_is_computed_where_attention_has_no_kernel_for_less():
    full, short = planned({"planner.fill": 1.0}), planned({"planner.fill": 0.5})
    padded = planned({"planner.fill": 0.5, "runtime.attention": "sdpa"})
    assert padded.phases[1].step.parts["elementwise"] == full.phases[1].step.parts["elementwise"]
    assert short.phases[1].step.parts["elementwise"] == pytest.approx(full.phases[1].step.parts["elementwise"] / 2)
    on_volta = {"planner.gpu": "v100_32", "runtime.precision": "fp16", "runtime.micro_batch_tokens": 8192}
    assert planned(on_volta).phases[0].computes_padding
    assert not planned().phases[0].computes_padding


def test_what_the_hours_leave_out_is_said():
    assert "left out: evaluation, saving, start and end\n" in text(planned(), []) + "\n"
    offloaded = text(planned({"runtime.offload_optimizer": True}), [])
    assert "the optimizer's step on the host" in offloaded
    assert "no published run of this device" in offloaded
    assert "(fitted to rows of h100)" in text(planned(), [])
    assert "fitted to rows of h100, for want of its own" in text(planned({"planner.gpu": "b200"}), [])
    assert "does not run there" in text(planned({"planner.gpu": "tpu_v3", "runtime.micro_batch_tokens": 4096}), [])


def test_the_default_fill_is_that_of_measured_shards():
    assert (default_fill(128), default_fill(512), default_fill(64), default_fill(1024)) == (0.895, 0.64, 0.895, 0.64)
    assert 0.64 < default_fill(256) < 0.895


def test_an_unknown_gpu_and_a_precision_that_it_lacks():
    with pytest.raises(UserError) as unknown:
        planned({"planner.gpu": "h10"})
    assert unknown.value.fix.startswith("set planner.gpu=h100")
    assert all(name in unknown.value.expected for name in GPUS)
    with pytest.raises(UserError) as lacking:
        planned({"planner.gpu": "v100"})
    assert lacking.value.found == "runtime.precision=bf16 on planner.gpu=v100_32"
    assert "fp16, fp32" in lacking.value.expected


@pytest.mark.parametrize("tokens", [True, False])
def test_a_micro_batch_that_does_not_fit_says_what_would(tokens):
    sizes = {"phase1": 4096, "phase2": 8}
    asked = {"runtime.micro_batch_tokens": 400_000} if tokens else {"runtime.micro_batch_tokens": None}
    asked["runtime.micro_batch_size"] = {} if tokens else sizes
    with pytest.raises(UserError) as refused:
        planned(asked)
    fix = refused.value.fix.split(",")[0].removeprefix("set ")
    key, value = fix.split("=")
    if tokens:
        assert key == "runtime.micro_batch_tokens"
        fitting = {"runtime.micro_batch_tokens": int(value)}
    else:
        assert key == "runtime.micro_batch_size.phase1"
        fitting = {**asked, "runtime.micro_batch_size": {**sizes, "phase1": int(value)}}
    plan = planned(fitting)
    assert sum(plan.phases[0].memory.values()) <= plan.machine.usable_bytes
    auto = planned({"runtime.micro_batch_size": "auto"})
    assert auto.phases[0].batch.max_micro_batch_size == auto.phases[0].fitting_micro_batch


def test_what_no_micro_batch_makes_fit():
    small = {"planner.gpu": "v100_16", "runtime.precision": "fp32", "planner.gpus": 1}
    large = {**CONFIG["model"], "num_layers": 96}
    with pytest.raises(UserError, match="weights, gradients and moments") as refused:
        planned({**small, "model": large})
    assert "planner.gpus" in refused.value.fix


def test_gpus_that_do_not_divide_the_batch():
    with pytest.raises(UserError) as refused:
        planned({"planner.gpus": 24})
    assert refused.value.found == "phases.phase1.global_batch_size=32768, which planner.gpus=24 do not share evenly"
    assert refused.value.fix.startswith("set planner.gpus=16 ")
    with pytest.raises(UserError, match="one process"):
        planned({"runtime.engine": "torch"})


def test_what_is_measured_takes_the_place_of_the_table(monkeypatch):
    """Micro-steps at 40 of a product's 80 TFLOP/s on a machine with 50 GB; nothing is added for memory traffic."""
    found = Measured(80e12, 40e12, 50e9, "this machine")
    monkeypatch.setattr(measure, "measure", lambda *arguments, **others: found)
    plan = planned({"planner.measure": True, "planner.gpus": 64, "planner.fill": 1.0})
    step = plan.phases[0].step
    assert step.parts["products"] == pytest.approx(step.flops / 40e12)
    assert step.parts["elementwise"] == step.parts["accumulation"] == 0
    assert plan.machine.usable_bytes == 50e9
    assert plan.machine.compute.source == "measured: this machine"


def test_measuring_runs_the_models_own_micro_step():
    words = ["recipe=demo", "runtime=cpu", "planner.gpu=cpu", "planner.gpus=2", "planner.measure=true"]
    plan = plan_of(to_plain(compose("plan", words)))
    found = plan.machine.measured
    assert found.reached > 0
    assert found.peak > 0
    assert math.isfinite(plan.hours)
    wanted = to_plain(compose("plan", [*words, "planner.gpu=h100"]))
    if measure.torch.cuda.is_available():
        return
    with pytest.raises(UserError, match="torch sees no GPU"):
        plan_of(wanted)


def test_rows_of_shards_are_as_long_as_they_are(tmp_path):
    folder = make_shards(tmp_path / "shards", max_seq_lengths=(128, 512), vocab_size=97)
    plan = planned({"shards": str(folder)})
    for phase in plan.phases:
        lengths = open_instances(folder, max_seq_length=phase.phase.max_seq_length, split="train").lengths
        assert phase.phase.mean_length == pytest.approx(lengths.mean())
    assert plan.run.sizes.vocab_size == 104
    with pytest.raises(UserError, match="shards of length 128, 512"):
        planned({"shards": str(folder), "phases.phase1.max_seq_length": 64})


def test_sizes_come_from_initial_weights(tmp_path):
    sizes = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 512}
    (tmp_path / "config.json").write_text(json.dumps({**sizes, "max_position_embeddings": 512}))
    assert planned({"initial_weights": str(tmp_path)}).run.sizes.num_hidden_layers == 2
    with pytest.raises(UserError, match="no sizes of a BERT"):
        planned({"initial_weights": str(tmp_path / "nowhere")})


def test_the_command_prints_and_writes(tmp_path, capsys):
    file = tmp_path / "plan.json"
    words = ["plan", "recipe=lamb_32k", "planner.gpu=h100", "planner.gpus=64", f"output={file}"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    for title in ("machine", "batch", "memory of a rank", "step", "run", "checkpoints", "published"):
        assert title in said
    assert "mlperf-h100-64" in said
    written = json.loads(file.read_text())
    plan = planned({"planner.gpus": 64})
    assert written["hours"] == pytest.approx(plan.hours)
    assert written["phases"][1]["memory_bytes"] == pytest.approx(plan.phases[1].memory)


def test_a_file_is_kept_replaced_or_refused_by_the_protocol(tmp_path):
    file = tmp_path / "plan.json"
    config = compose("plan", ["recipe=lamb_32k", f"output={file}"])

    def run(if_exists, watts=None):
        config.if_exists, config.planner.watts = IfExists(if_exists), watts
        plan_command(config)

    run("refuse")
    before = file.read_bytes()
    with pytest.raises(UserError, match="a plan of `bert-lamb plan`"):
        run("refuse")
    run("resume")
    assert file.read_bytes() == before
    with pytest.raises(UserError, match="watts"):
        run("resume", watts=500.0)
    assert file.read_bytes() == before
    run("restart", watts=500.0)
    assert json.loads(file.read_text())["machine"]["watts"] == 500
    for foreign in ("mine", "[]", '{"format": "bert_lamb shards"}'):
        file.write_text(foreign)
        with pytest.raises(UserError, match="never deleted"):
            run("restart")
        assert file.read_text() == foreign
    config.output = str(tmp_path / "no" / "plan.json")
    with pytest.raises(UserError, match="whose folder does not exist"):
        run("refuse")


OF_IMAGES = ("resnet50_", "mnist_")  # recipes of `vision`, which has no plan


@pytest.mark.parametrize(
    "name",
    sorted(p.stem for p in (CHECKOUT / "conf" / "recipe").glob("*.yaml") if not p.stem.startswith(OF_IMAGES)),
)
def test_every_recipe_has_a_plan(name, capsys):
    """Steps that a recipe leaves to a rule too; each phase has its rows, and an hour count."""
    words = ["plan", f"recipe={name}", "planner.gpu=h200", "planner.gpus=8"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert all(f"  {phase}" in said for phase in compose("plan", words[1:]).phases)
    assert "GPU hours" in said


def test_a_phase_is_planned_at_its_own_masking_rate():
    """The middle of a line from 30 to 10 % predicts as many words as 20 % do."""
    line = planned({"phases.phase1.mask_prob": 0.3, "phases.phase1.mask_prob_end": 0.1, **WIDE})
    even = planned({"masking.mask_prob": 0.2, **WIDE})
    less = planned({"masking.mask_prob": 0.1, **WIDE})
    assert line.phases[0].step.seconds == pytest.approx(even.phases[0].step.seconds, rel=1e-12)
    assert less.phases[0].step.seconds < even.phases[0].step.seconds


def test_without_a_recipe_there_is_nothing_to_plan(capsys):
    assert cli.main(["plan", "planner.gpus=0", "planner.fill=2"]) == 2
    said = capsys.readouterr().err
    assert "phases={}" in said
    assert "planner.gpus=0" in said
    assert "planner.fill=2" in said
