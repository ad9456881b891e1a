"""Fine-tuning on the loop against transformers' own loss and a plain PyTorch loop; its batches against an epoch.

Mutations that must turn it red: the loss averaged per micro-batch, padding inside the softmax, decay on bias and
LayerNorm, a schedule one step late, the same order in every epoch, a rank that trains on another's features.
"""

import copy
import json
import math
from dataclasses import replace

import pytest
import torch
from squad_material import as_transformers_takes_it, where_questions
from transformers import BertConfig, BertForQuestionAnswering

from bert_lamb.checkpoint.position import Position
from bert_lamb.engine.build import RuntimeSettings, build_engine
from bert_lamb.engine.launch import Process
from bert_lamb.errors import UserError
from bert_lamb.finetuning.squad.features import answer_positions, make_features
from bert_lamb.finetuning.squad.task import SquadTask
from bert_lamb.finetuning.task import num_steps
from bert_lamb.model.span import SpanModel
from bert_lamb.optim.build import OptimizerSettings
from bert_lamb.outputs.run_dir import RunDir
from bert_lamb.sampling.sampler import global_batch
from bert_lamb.train.batch_plan import plan_batch
from bert_lamb.train.keeper import Keeper
from bert_lamb.train.loop import train_stage
from bert_lamb.train.recorder import Recorder
from bert_lamb.train.schedule import Schedule
from bert_lamb.train.settings import (
    CheckpointSettings,
    GuardSettings,
    LoggingSettings,
    MeterSettings,
    TrackerSettings,
)
from bert_lamb.train.stop import StopFlag
from bert_lamb.train.task import Stage
from tests.tiny_bert import tiny_config

CPU = Process(0, 0, 1, torch.device("cpu"))
ADAMW = OptimizerSettings("adamw", weight_decay=0.01, betas=(0.9, 0.999), eps=1e-6)
PLAIN = RuntimeSettings("torch", "cpu", "fp32", 1, False, {}, None, False, 0, None, 0)


@pytest.fixture
def material(tokenizer, pieces):
    """A model, features of several lengths and their labels."""
    examples = where_questions()
    features = make_features(examples, pieces, max_seq_length=14, doc_stride=3, max_query_length=5)
    positions = [answer_positions(feature, examples[feature.example_index].answers[0]) for feature in features]
    torch.manual_seed(1)
    return SpanModel(BertForQuestionAnswering(tiny_config(tokenizer))), features, positions


@pytest.fixture
def train(tmp_path):
    """Fine-tune a model in place on the real loop; returns the lines of its steps."""
    runs = []

    def run(
        model, features, positions, *, batch=8, micro_batch=8, epochs=2.0, warmup=0.25, peak_lr=1e-3, clip=1.0, **more
    ):
        seed, runtime = more.get("seed", 3), replace(PLAIN, precision=more.get("precision", "fp32"))
        total_steps = num_steps(len(features), batch, epochs)
        sizes = {"global_batch_size": batch, "max_micro_batch_size": micro_batch, "world_size": 1}
        plan = plan_batch(key="global_batch_size", **sizes, total_steps=total_steps, max_seq_length=14)
        schedule = Schedule(total_steps, 1e-3, warmup, decay_end="after_last_step")
        stage = Stage("fine_tuning", 0, plan, schedule, num_instances=len(features))
        place = {"rank": 0, "world_size": 1, "device": CPU.device}
        task = SquadTask(features, positions, stage, model_config=model.bert.config, seed=seed, **place)
        engine = build_engine(
            model.train(),
            ADAMW,
            runtime,
            CPU,
            micro_batch_size=plan.micro_batch_size,
            gradient_accumulation_steps=plan.gradient_accumulation_steps,
            max_grad_norm=clip,
            loss_scale=None,
        )
        folder = tmp_path / str(len(runs))
        runs.append(folder)
        folder.mkdir()
        run_dir = RunDir(folder)
        watched = {"logging": LoggingSettings(1, 0), "tracker": TrackerSettings("none", "p", "offline")}
        watched["meter"] = MeterSettings("fp32", 1.0, 0)
        with Recorder(run_dir, CPU, **watched, config={}) as recorder:
            train_stage(
                stage,
                task,
                engine,
                Position("fine_tuning", 0, 0),
                seed=seed,
                guards=GuardSettings(50, "stop", 2.0, 10, 0),
                keeper=Keeper(run_dir, CPU, CheckpointSettings(0, 0, 1, 0, True), about={}),
                recorder=recorder,
                stop=StopFlag(),
                evaluation_interval_steps=0,
            )
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [line for line in lines if line["kind"] == "step"]

    return run


def largest_difference(left, right):
    pairs = zip(left.named_parameters(), right.named_parameters(), strict=True)
    return max((a - b).abs().max().item() for (name, a), (_, b) in pairs if not is_without_gradient(name))


def is_without_gradient(name):
    """Shifts of all logits alike, and biases of keys: a softmax does not see them, and Adam moves them by rounding."""
    return name.endswith("key.bias") or name in ("qa_outputs.bias", "bert.encoder.layer.1.output.LayerNorm.bias")


@pytest.mark.parametrize("micro_batch", [1, 3, 100])
def test_the_micro_batch_does_not_change_the_weights(material, train, micro_batch):
    """1e-5 is rounding of fp32 gradients over four AdamW steps of 1e-3; a wrong loss is off by more than 1e-3."""
    model, features, positions = material
    whole, cut = copy.deepcopy(model), copy.deepcopy(model)
    once = train(whole, features, positions, clip=0.01)
    in_parts = train(cut, features, positions, clip=0.01, micro_batch=micro_batch)
    for name in ("loss", "grad_norm"):
        expected = [line[name] for line in once]
        assert [line[name] for line in in_parts] == pytest.approx(expected, rel=1e-4)
    assert largest_difference(whole, cut) < 1e-5
    assert largest_difference(whole, model) > 1e-3


def test_the_loop_equals_plain_pytorch(tokenizer, material, train):
    """Transformers' loss one feature at a time, torch's clipping, AdamW and LambdaLR, over the sampler's batches."""
    model, features, positions = material
    ours, theirs = copy.deepcopy(model), BertForQuestionAnswering(tiny_config(tokenizer)).train()
    theirs.load_state_dict(model.state_dict())
    lines = train(ours, features, positions, batch=5, micro_batch=2, epochs=3.0, warmup=0.3, clip=0.5)
    named = list(theirs.named_parameters())
    is_plain = [name.endswith("bias") or "LayerNorm" in name for name, _ in named]
    groups = [
        {"params": [p for (_, p), plain in zip(named, is_plain, strict=True) if plain is kind], "weight_decay": decay}
        for kind, decay in ((False, 0.01), (True, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-6)
    total, warm = len(lines), int(len(lines) * 0.3)
    assert (total, warm) == (math.ceil(3 * len(features) / 5), int(0.3 * total))
    shares = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: (done + 1) / warm if done < warm else (total - done) / (total - warm)
    )
    for step, line in enumerate(lines, 1):
        batch, _ = global_batch(step, global_batch_size=5, num_instances=len(features), seed=3)
        loss = torch.zeros(())
        for i in batch.tolist():
            labels = {
                "start_positions": torch.tensor([positions[i][0]]),
                "end_positions": torch.tensor([positions[i][1]]),
            }
            loss = loss + theirs(**as_transformers_takes_it(features[i]), **labels).loss / 5
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        assert (line["loss"], line["grad_norm"]) == pytest.approx((loss.item(), norm.item()), rel=1e-5)
        assert line["lr"] == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        shares.step()
    assert lines[0]["grad_norm"] > 0.5  # clipping is at work
    assert largest_difference(ours, theirs) < 5e-6  # steps are 1e-3, of which fp32 keeps six digits or so
    assert largest_difference(ours, model) > 1e-3


def test_every_epoch_shows_every_feature_once_in_another_order(material):
    _, features, positions = material
    features, positions = (features * 2)[:10], (positions * 2)[:10]
    assert num_steps(10, 4, 2.0) == 5
    orders = {}
    for seed in (7, 8):
        task = task_of(features, positions, seed=seed)
        order = [i for step in range(1, 6) for i in task.global_batch(step).tolist()]
        assert sorted(order) == sorted([*range(10), *range(10)])
        orders[seed] = [task.global_batch(step) for step in range(1, 6)]
    assert sorted(orders[7][0]) != sorted(orders[8][0])


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_share_a_global_batch(material, world_size):
    """Together the ranks see the step's features once each, and a rank that resumes sees what it would have seen."""
    _, features, positions = material
    features, positions = (features * 2)[:10], (positions * 2)[:10]
    task = task_of(features, positions)
    tasks = [task_of(features, positions, world_size=world_size, rank=rank) for rank in range(world_size)]
    seen = [list(of_rank.micro_batches(1, 5)) for of_rank in tasks]
    accumulation = 4 // world_size
    for step in range(1, 6):
        rows = sorted(
            tuple(targets.flatten().tolist())
            for of_rank in seen
            for _, targets in of_rank[(step - 1) * accumulation : step * accumulation]
        )
        assert rows == sorted(tuple(positions[i]) for i in task.global_batch(step))
        counts = task.counts(step)
        lengths = [
            length
            for of_rank in seen
            for inputs, _ in of_rank[(step - 1) * accumulation : step * accumulation]
            for length in inputs.cu_seqlens.diff().tolist()
        ]
        assert (counts.num_sequences, counts.num_tokens) == (4, sum(lengths))
        assert counts.sum_squared_lengths == sum(length**2 for length in lengths)
    again = list(tasks[0].micro_batches(3, 5))
    for (inputs, targets), (expected, of) in zip(again, seen[0][2 * accumulation :], strict=True):
        assert torch.equal(targets, of)
        assert torch.equal(inputs.input_ids, expected.input_ids)


def task_of(features, positions, *, seed=7, rank=0, world_size=1):
    sizes = {"global_batch_size": 4, "max_micro_batch_size": 1, "world_size": world_size}
    plan = plan_batch(key="global_batch_size", **sizes, total_steps=5, max_seq_length=14)
    stage = Stage("fine_tuning", 0, plan, Schedule(5, 1e-3, 0.1), num_instances=len(features))
    place = {"rank": rank, "world_size": world_size, "device": CPU.device}
    return SquadTask(features, positions, stage, model_config=BertConfig(), seed=seed, **place)


def test_dropout_is_a_function_of_the_seed(material, train):
    model, features, positions = material
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    once, again, other = (copy.deepcopy(model) for _ in range(3))
    losses = [[line["loss"] for line in train(once, features, positions)]]
    torch.manual_seed(999)  # the state of the world around must not matter
    losses.append([line["loss"] for line in train(again, features, positions)])
    losses.append([line["loss"] for line in train(other, features, positions, seed=4)])
    assert losses[0] == losses[1] != losses[2]
    assert largest_difference(once, again) == 0


def test_bf16_stays_near_fp32(material, train):
    """Autocast rounds activations to 8 bits of mantissa: the loss agrees to 1 %, the parameters stay fp32."""
    model, features, positions = material
    exact, rounded = copy.deepcopy(model), copy.deepcopy(model)
    fp32 = train(exact, features, positions)
    bf16 = train(rounded, features, positions, precision="bf16")
    assert [line["loss"] for line in bf16] == pytest.approx([line["loss"] for line in fp32], rel=1e-2)
    assert fp32[0]["loss"] != bf16[0]["loss"]
    assert all(parameter.dtype is torch.float32 for parameter in rounded.parameters())


def test_a_run_without_a_finite_gradient_is_stopped(material, train):
    model, features, positions = material
    torch.nn.init.constant_(model.qa_outputs.bias, math.nan)
    with pytest.raises(UserError, match=r"2 steps in a row with a gradient that is not finite \(fine_tuning, step 2\)"):
        train(model, features, positions, epochs=1.0, batch=8)
