"""The formula of the model's operations against what torch counts while transformers' padded model runs.

Truth: torch.utils.flop_counter on rows of equal length, which have no padding; the numbers must be equal. Attention is
eager, since torch counts none of SDPA's products on a CPU: there the formula without sequences is the truth's equal.
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertForPreTraining, BertForQuestionAnswering, BertForSequenceClassification

from bert_lamb.model.flops import (
    classification_flops,
    encoder_forward_flops,
    pretraining_flops,
    question_answering_flops,
)
from tests.model.rows import make_config

B, S, M = 3, 20, 7  # sequences, tokens of each, masked tokens
TOKENS = {"num_tokens": B * S, "sum_squared_lengths": B * S * S}
CONFIG = make_config(num_layers=3, intermediate_size=72)
INPUTS = {"input_ids": torch.full((B, S), 5), "attention_mask": torch.ones((B, S), dtype=torch.long)}


def forward_and_backward(loss):
    with FlopCounterMode(display=False) as forward:
        value = loss()
    with FlopCounterMode(display=False) as backward:
        value.backward()
    assert backward.get_total_flops() == 2 * forward.get_total_flops()
    return forward.get_total_flops() + backward.get_total_flops()


@pytest.mark.parametrize("has_sentence_task", [True, False])
def test_pretraining(has_sentence_task):
    """Only masked tokens go through the vocabulary's matrix, as in ours."""
    model = BertForPreTraining._from_config(CONFIG, attn_implementation="eager")
    if not has_sentence_task:
        model.bert.pooler = None

    def loss():
        encoded = model.bert(**INPUTS)
        masked = encoded.last_hidden_state.flatten(0, 1)[torch.arange(M) * 8]
        total = model.cls.predictions(masked).sum()
        return total + model.cls.seq_relationship(encoded.pooler_output).sum() if has_sentence_task else total

    formula = pretraining_flops(
        CONFIG, num_sequences=B, num_predictions=M, has_sentence_task=has_sentence_task, **TOKENS
    )
    assert forward_and_backward(loss) == formula


def test_question_answering():
    model = BertForQuestionAnswering._from_config(CONFIG, attn_implementation="eager")

    def loss():
        output = model(**INPUTS)
        return output.start_logits.sum() + output.end_logits.sum()

    assert forward_and_backward(loss) == question_answering_flops(CONFIG, **TOKENS)


def test_classification():
    model = BertForSequenceClassification._from_config(CONFIG, attn_implementation="eager")
    expected = classification_flops(CONFIG, num_sequences=B, num_classes=2, **TOKENS)
    assert forward_and_backward(lambda: model(**INPUTS).logits.sum()) == expected


def test_sdpa_has_the_same_linear_layers():
    model = BertForQuestionAnswering._from_config(CONFIG, attn_implementation="sdpa")
    with FlopCounterMode(display=False) as counter:
        model(**INPUTS)
    by_operation = {str(name): count for name, count in counter.get_flop_counts()["Global"].items()}
    linear = encoder_forward_flops(CONFIG, num_tokens=B * S, sum_squared_lengths=0) + B * S * 4 * CONFIG.hidden_size
    assert by_operation["aten.addmm"] == linear


def test_the_published_form():
    """24 H^2 a token and 4 l^2 H a sequence, a layer: BERT-Large, one full sequence of 512 tokens; 1,005 GFLOP."""
    large = make_config(hidden_size=1024, intermediate_size=4096, num_layers=24, num_heads=16)
    found = encoder_forward_flops(large, num_tokens=512, sum_squared_lengths=512**2)
    assert found == 24 * (24 * 1024**2 * 512 + 4 * 512**2 * 1024)
    assert 3 * found == pytest.approx(1005e9, rel=1e-3)
