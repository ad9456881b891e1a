"""The fine-tuning loop against transformers' own loss and schedule; its batches against the definition of an epoch.

Mutations that must turn it red: the loss averaged per micro-batch, padding inside the softmax, decay on bias and
LayerNorm, a schedule one step late, clipping after the step, the same order in every epoch.
"""

import copy
import math
from collections import Counter

import pytest
import torch
from squad_material import tiny_config, where_questions
from transformers import BertForQuestionAnswering

from bert_lamb.errors import UserError
from bert_lamb.finetuning.squad.features import answer_positions, make_features, pad
from bert_lamb.finetuning.squad.fine_tune import (
    batch_indices,
    fine_tune,
    linear_warmup_decay,
    make_optimizer,
    num_steps,
)


@pytest.fixture
def material(tokenizer, pieces):
    """A model, features of several lengths and their labels."""
    examples = where_questions()
    features = make_features(examples, pieces, max_seq_length=14, doc_stride=3, max_query_length=5)
    positions = [answer_positions(feature, examples[feature.example_index].answers[0]) for feature in features]
    torch.manual_seed(1)
    return BertForQuestionAnswering(tiny_config(tokenizer)), features, positions


def train(model, features, positions, **changes):
    records = []
    arguments = {
        "batch_size": 8,
        "micro_batch_size": 8,
        "peak_lr": 1e-3,
        "warmup_proportion": 0.25,
        "num_epochs": 2.0,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "pad_token_id": 0,
        "device": torch.device("cpu"),
        "autocast_dtype": None,
        "seed": 3,
        "record": records.append,
    }
    fine_tune(model, features, positions, **{**arguments, **changes})
    return records


def largest_difference(left, right):
    pairs = zip(left.parameters(), right.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize("micro_batch_size", [1, 3, 100])
def test_the_micro_batch_does_not_change_the_weights(material, micro_batch_size):
    """1e-5 is rounding of fp32 gradients over four AdamW steps of 1e-3; a wrong loss is off by more than 1e-3."""
    model, features, positions = material
    whole, cut = copy.deepcopy(model), copy.deepcopy(model)
    once = train(whole, features, positions, max_grad_norm=0.01)
    in_parts = train(cut, features, positions, max_grad_norm=0.01, micro_batch_size=micro_batch_size)
    for name in ("loss", "grad_norm"):
        expected = [getattr(record, name) for record in once]
        assert [getattr(record, name) for record in in_parts] == pytest.approx(expected, rel=1e-4)
    assert largest_difference(whole, cut) < 1e-5
    assert largest_difference(whole, model) > 1e-3


def test_one_step_equals_transformers_loss_and_torch_written_out(material):
    model, features, positions = material
    ours, theirs = copy.deepcopy(model), copy.deepcopy(model).train()
    (record,) = train(ours, features[:8], positions[:8], num_epochs=1.0, warmup_proportion=0.0, max_grad_norm=0.5)

    # One by one, since transformers' loss counts padding as a place where the answer could be.
    loss = torch.zeros(())
    for feature, (first, last) in zip(features[:8], positions[:8], strict=True):
        labels = {"start_positions": torch.tensor([first]), "end_positions": torch.tensor([last])}
        loss = loss + theirs(**pad([feature], 0), **labels).loss / 8
    loss.backward()
    norm = math.sqrt(sum(parameter.grad.square().sum().item() for parameter in theirs.parameters()))
    assert record.loss == pytest.approx(loss.item(), rel=1e-6)
    assert record.grad_norm == pytest.approx(norm, rel=1e-5)
    assert (record.step, record.lr) == (1, 1e-3)
    assert norm > 0.5  # clipping is at work
    for name, parameter in theirs.named_parameters():
        gradient = parameter.grad * 0.5 / norm
        is_decayed = not (name.endswith("bias") or "LayerNorm" in name)
        with torch.no_grad():
            # AdamW's first step: both moments, corrected, are the gradient and its square.
            parameter -= 1e-3 * (0.01 * parameter * is_decayed + gradient / (gradient.abs() + 1e-6))
    # A step is 1e-3; where |gradient| is near eps, its rounding is not divided away: 1 % of a step.
    assert largest_difference(ours, theirs) < 1e-5


def test_bias_and_layer_norm_are_not_decayed(material):
    model, *_ = material
    decayed, plain = make_optimizer(model, 0.01).param_groups
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.01, 0.0)
    assert all("bias" in names[id(one)] or "LayerNorm" in names[id(one)] for one in plain["params"])
    assert not any("bias" in names[id(one)] or "LayerNorm" in names[id(one)] for one in decayed["params"])
    assert len(plain["params"]) + len(decayed["params"]) == len(names)


def test_schedule_by_hand():
    assert [linear_warmup_decay(step, 10, 0.2) for step in range(10)] == pytest.approx(
        [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )
    assert [linear_warmup_decay(step, 4, 0.0) for step in range(4)] == pytest.approx([1, 3 / 4, 2 / 4, 1 / 4])
    assert [linear_warmup_decay(step, 4, 1.0) for step in range(4)] == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1])


def test_the_loop_follows_the_schedule(material):
    """24 features in batches of 8, 4 epochs: 12 steps, 3 of them warm-up."""
    model, features, positions = material
    records = train(model, (features * 3)[:24], (positions * 3)[:24], num_epochs=4.0)
    shares = [1 / 3, 2 / 3, 1, *(left / 9 for left in range(9, 0, -1))]
    assert [record.step for record in records] == list(range(1, 13))
    assert [record.lr for record in records] == pytest.approx([1e-3 * share for share in shares])


def test_every_epoch_shows_every_feature_once_in_another_order():
    num_features, batch_size = 10, 4
    assert num_steps(num_features, batch_size, 2.0) == 5
    order = [i for step in range(5) for i in batch_indices(num_features, batch_size, step, seed=7)]
    first, second = order[:10], order[10:]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert order[:4] != batch_indices(num_features, batch_size, 0, seed=8)
    # A batch larger than the data takes features of several epochs.
    assert Counter(batch_indices(3, 6, 0, seed=7)) == Counter({0: 2, 1: 2, 2: 2})


def test_dropout_is_a_function_of_the_seed(material):
    model, features, positions = material
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    once, again, other = (copy.deepcopy(model) for _ in range(3))
    losses = [[one.loss for one in train(once, features, positions)]]
    torch.manual_seed(999)  # the state of the world around must not matter
    losses.append([one.loss for one in train(again, features, positions)])
    losses.append([one.loss for one in train(other, features, positions, seed=4)])
    assert losses[0] == losses[1] != losses[2]
    assert largest_difference(once, again) == 0


def test_bf16_stays_near_fp32(material):
    """Autocast rounds activations to 8 bits of mantissa: the loss agrees to 1 %, the parameters stay fp32."""
    model, features, positions = material
    exact, rounded = copy.deepcopy(model), copy.deepcopy(model)
    fp32 = train(exact, features, positions)
    bf16 = train(rounded, features, positions, autocast_dtype=torch.bfloat16)
    assert [one.loss for one in bf16] == pytest.approx([one.loss for one in fp32], rel=1e-2)
    assert fp32[0].loss != bf16[0].loss
    assert all(parameter.dtype is torch.float32 for parameter in rounded.parameters())


def test_a_loss_that_is_not_finite_stops_the_run(material):
    model, features, positions = material
    torch.nn.init.constant_(model.qa_outputs.bias, math.nan)
    records = []
    with pytest.raises(UserError, match="loss nan at step 1"):
        train(model, features, positions, record=records.append)
    assert records == []
