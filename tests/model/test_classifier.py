"""The unpadded classifier against padded transformers: the same loss and gradients for classes and for numbers.

Truth: transformers' BertForSequenceClassification on rows padded by hand, with its own loss, in eager attention.
"""

import pytest
import torch
from transformers import BertForSequenceClassification

from bert_lamb.model.classifier import SequenceClassifier, classification_loss_sum, regression_loss_sum
from bert_lamb.model.encoder import Execution
from tests.model.rows import LONGEST, lay_out, make_config, make_rows

LENGTHS = [24, 1, 7, 24, 7, 13, 2]
CLASSES, SCORES = torch.tensor([0, 2, 1, 1, 0, 2, 0]), torch.tensor([0.0, 5.0, 2.5, 3.25, 1.0, 4.0, 0.4])


def twins(num_labels, dropout=0.0, **options):
    """(ours, transformers' with the same weights), float64; its loss is of num_labels as transformers guesses."""
    configs = [make_config(dropout=dropout) for _ in range(2)]
    for config in configs:
        config.num_labels = num_labels
    torch.manual_seed(1)
    theirs = BertForSequenceClassification._from_config(configs[0], attn_implementation="eager").double()
    ours = BertForSequenceClassification._from_config(configs[1]).double()
    ours.load_state_dict(theirs.state_dict())
    return SequenceClassifier(ours, Execution(**options)), theirs


def padded(rows):
    ids = torch.zeros(len(rows), LONGEST, dtype=torch.long)
    types, mask = torch.zeros_like(ids), torch.zeros_like(ids)
    for row, (row_ids, row_types, *_) in enumerate(rows):
        ids[row, : len(row_ids)], types[row, : len(row_ids)], mask[row, : len(row_ids)] = row_ids, row_types, 1
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}


@pytest.mark.parametrize("options", [{}, {"attention": "sdpa"}, {"has_whole_weights": False}], ids=str)
@pytest.mark.parametrize("num_labels", [3, 1])
def test_equals_padded_transformers(num_labels, options):
    """float64: 1e-12 of a parameter's largest gradient, or of a thousandth of the model's where that is rounding."""
    ours, theirs = twins(num_labels, **options)
    rows = make_rows(LENGTHS)
    targets = CLASSES if num_labels > 1 else SCORES.double()
    loss_sum = classification_loss_sum if num_labels > 1 else regression_loss_sum
    loss = loss_sum(ours(*lay_out(rows)[:5]), targets) / len(rows)
    expected = theirs(**padded(rows), labels=targets).loss
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    loss.backward()
    expected.backward()
    found = dict(ours.named_parameters())
    gradients = {name: p.grad for name, p in theirs.named_parameters()}
    assert found.keys() == gradients.keys()
    floor = 1e-3 * max(gradient.abs().max() for gradient in gradients.values())
    for name, gradient in gradients.items():
        error = (found[name].grad - gradient).abs().max() / gradient.abs().max().clamp(min=floor)
        assert error < 1e-12, (name, error)


@pytest.mark.parametrize(("loss_sum", "targets"), [(classification_loss_sum, CLASSES), (regression_loss_sum, SCORES)])
def test_losses_are_sums_in_fp32(loss_sum, targets):
    """So that the caller divides by the global batch; bf16 logits are widened before the softmax."""
    answers = torch.randn(
        7, 3 if loss_sum is classification_loss_sum else 1, generator=torch.Generator().manual_seed(1)
    )
    parts = loss_sum(answers[:3], targets[:3]) + loss_sum(answers[3:], targets[3:])
    torch.testing.assert_close(parts, loss_sum(answers, targets))
    assert loss_sum(answers.bfloat16(), targets).dtype is torch.float32


def test_dropout_before_the_head_is_at_work():
    """In training alone, and with the share that config.json gives."""
    model, _ = twins(3, dropout=0.5)
    inputs = lay_out(make_rows([5, 5]))[:5]
    assert torch.equal(model.eval()(*inputs), model(*inputs))
    model.train()
    for layer in (model.bert.embeddings, model.bert.encoder):
        layer.eval()
    torch.manual_seed(3)
    assert not torch.equal(model(*inputs), model(*inputs))
    assert model.dropout.p == 0.5
