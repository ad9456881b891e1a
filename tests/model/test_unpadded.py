"""Unpadded execution against padded transformers: the same losses and gradients, whatever is laid end to end.

Truth: transformers' BertForPreTraining on rows padded by hand, with its own loss, in eager attention.
"""

import pytest
import torch
from transformers import BertForPreTraining

from bert_lamb.model.bert import BertPretrainingModel
from bert_lamb.model.encoder import Execution
from bert_lamb.train.meter import compiled_graphs
from tests.model.rows import LONGEST, lay_out, make_config, make_rows

LENGTHS = {
    "mixed": [24, 1, 7, 24, 7, 13, 2],
    "one row": [9],
    "ones": [1, 1, 1],
    "all full": [24, 24],
    "all alike": [11, 11, 11, 11],
    "random": torch.randint(1, 25, (12,), generator=torch.Generator().manual_seed(4)).tolist(),
}


def padded_loss(model, rows, has_sentence_task=True):
    """transformers' loss (a sum of two means) of the rows padded to LONGEST."""
    ids = torch.zeros(len(rows), LONGEST, dtype=torch.long)
    types, mask, labels = torch.zeros_like(ids), torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, (row_ids, row_types, masked, row_labels, _) in enumerate(rows):
        ids[row, : len(row_ids)], types[row, : len(row_ids)], mask[row, : len(row_ids)] = row_ids, row_types, 1
        labels[row, masked] = row_labels
    output = model(input_ids=ids, token_type_ids=types, attention_mask=mask)
    loss = torch.nn.functional.cross_entropy(output.prediction_logits.flatten(0, 1), labels.flatten())
    if has_sentence_task:
        sentences = torch.cat([row[-1] for row in rows])
        loss = loss + torch.nn.functional.cross_entropy(output.seq_relationship_logits, sentences)
    return loss


def twins(dtype, attention="varlen", **options):
    """(ours, transformers' with the same weights)."""
    ours = BertPretrainingModel(make_config(), seed=1, execution=Execution(attention, **options)).to(dtype)
    theirs = BertForPreTraining._from_config(make_config(), attn_implementation="eager").to(dtype)
    theirs.load_state_dict(ours.bert.state_dict())
    return ours, theirs


def gradients(loss, module):
    module.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def assert_equal(ours, theirs, rows, tolerance, has_sentence_task=True):
    """Losses and every gradient, relative to the largest of a parameter's, or to a thousandth of the model's.

    What is zero by mathematics has a gradient of rounding: biases of keys, queries of sequences of one token.
    """
    sums = ours(*lay_out(rows, has_sentence_task))
    num_masked = sum(len(row[3]) for row in rows)
    loss = sums.mlm_loss / num_masked + sums.nsp_loss / len(rows)
    expected_loss = padded_loss(theirs, rows, has_sentence_task)
    assert loss.item() == pytest.approx(expected_loss.item(), rel=tolerance)
    found, expected = gradients(loss, ours.bert), gradients(expected_loss, theirs)
    assert found.keys() >= expected.keys()
    floor = 1e-3 * max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in expected.items():
        error = (found[name] - gradient).abs().max() / gradient.abs().max().clamp(min=floor)
        assert error < tolerance, (name, error)


WAYS = [
    {},
    {"has_whole_weights": False},
    {"attention": "sdpa"},
    {"attention": "eager"},
    {"activation_checkpointing": True},
]


@pytest.mark.parametrize("options", WAYS, ids=str)
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_equals_padded_transformers(lengths, options):
    """float64, where rounding leaves 1e-15: one token that sees a neighbour's shows at 1e-3."""
    ours, theirs = twins(torch.float64, **options)
    assert_equal(ours, theirs, make_rows(lengths), 1e-12)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
def test_equals_padded_transformers_in_fp32(lengths):
    ours, theirs = twins(torch.float32)
    assert_equal(ours, theirs, make_rows(lengths), 1e-5)


@pytest.mark.parametrize("attention", ["varlen", "sdpa"])
def test_order_and_company_do_not_matter(attention):
    """The same rows in another order and in two micro-batches: the same sums of losses, hits and gradients."""
    model, _ = twins(torch.float64, attention)
    rows = make_rows(LENGTHS["mixed"])
    whole = model(*lay_out(rows))
    expected = gradients(whole.mlm_loss + whole.nsp_loss, model)
    pieces = [model(*lay_out(part)) for part in (rows[::-2], [*rows[5::-2]])]
    found = gradients(sum(piece.mlm_loss + piece.nsp_loss for piece in pieces), model)
    for name in whole._fields:
        assert sum(getattr(piece, name).item() for piece in pieces) == pytest.approx(getattr(whole, name).item())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-12, msg=name)


def test_without_a_sentence_task():
    ours, theirs = twins(torch.float64)
    assert_equal(ours, theirs, make_rows(LENGTHS["mixed"]), 1e-12, has_sentence_task=False)


def test_hits_are_counted_as_the_logits_say():
    """Labels that are half of them the model's own guesses, over several chunks of the vocabulary's product."""
    ours, theirs = twins(torch.float64)
    rows = make_rows([24] * 5)
    with torch.no_grad():
        guesses = [
            theirs(ids[None], token_type_ids=types[None]).prediction_logits[0].argmax(-1) for ids, types, *_ in rows
        ]
        rows = [
            (ids, types, masked, guess[masked] if i % 2 else labels, sentence)
            for i, ((ids, types, masked, labels, sentence), guess) in enumerate(zip(rows, guesses, strict=True))
        ]
        expected = sum(int((guess[row[2]] == row[3]).sum()) for row, guess in zip(rows, guesses, strict=True))
        assert ours(*lay_out(rows)).mlm_correct == expected >= 8


def test_chunks_of_logits_add_up(monkeypatch):
    """Chunks of two rows of logits against all at once: losses, hits and gradients."""
    ours, theirs = twins(torch.float64)
    monkeypatch.setattr("bert_lamb.model.masked_lm.ROWS_PER_CHUNK", 2)
    assert_equal(ours, theirs, make_rows(LENGTHS["mixed"]), 1e-12)


def test_checkpointed_activations_see_the_same_dropout():
    """With dropout, from one seed: the same losses and gradients to the last bit, layers being run twice."""
    found = []
    for is_checkpointed in (False, True):
        execution = Execution(activation_checkpointing=is_checkpointed)
        model = BertPretrainingModel(make_config(dropout=0.2), seed=1, execution=execution).train()
        runs = []
        for layer in model.bert.bert.encoder.layer:
            layer.attention.output.dense.register_forward_hook(lambda *_, runs=runs: runs.append(1))
        torch.manual_seed(8)
        sums = model(*lay_out(make_rows(LENGTHS["mixed"])))
        found.append((sums.mlm_loss, gradients(sums.mlm_loss + sums.nsp_loss, model), len(runs)))
    (loss, expected, num_runs), (same_loss, same, num_runs_again) = found
    assert (num_runs, num_runs_again) == (2, 4)
    assert loss == same_loss
    for name, gradient in expected.items():
        assert torch.equal(gradient, same[name]), name


@pytest.fixture
def dynamo():
    """torch.compile as a process finds it, and leaves it to other tests."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


@pytest.mark.parametrize("what", ["layers", pytest.param("model", marks=pytest.mark.slow)])
def test_compiled_equals_eager_without_compiling_again(dynamo, monkeypatch, what):
    """Dynamo's graphs, run by PyTorch's own kernels: no new one for other lengths, the same losses and gradients.

    What Inductor makes of the graphs is not tried here: its compiler takes minutes on a small machine.
    """
    compile = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda module, **options: compile(module, backend="aot_eager", **options)
    )
    ours, theirs = twins(torch.float32, compile=what)
    num_graphs = []
    for seed, lengths in enumerate(([24, 1, 7], [5, 9, 24, 3], [3, 8, 3], [24, 24, 24])):
        assert_equal(ours, theirs, make_rows(lengths, seed), 1e-5)
        num_graphs.append(compiled_graphs()["num_graphs"])
    assert num_graphs[0] > 0
    assert len(set(num_graphs[1:])) == 1
