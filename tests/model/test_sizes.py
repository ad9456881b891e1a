"""Parameters by formula, against transformers' model and the published count."""

import pytest
import torch

from bert_lamb.model.bert import BertPretrainingModel
from bert_lamb.model.sizes import BertSizes, num_parameters
from tests.model.rows import make_config


@pytest.mark.parametrize("changes", [{}, {"num_layers": 3, "intermediate_size": 72, "hidden_size": 48}])
def test_the_parameters_of_the_model(changes):
    config = make_config(**changes)
    with torch.device("meta"):
        model = BertPretrainingModel(config, seed=0)
    assert num_parameters(config) == sum(parameter.numel() for parameter in model.parameters())


def test_bert_large_as_published():
    """336,226,108 with both heads and the 30,522 tokens of bert-base-uncased."""
    model = {"num_layers": 24, "hidden_size": 1024, "num_heads": 16, "intermediate_size": 4096}
    model |= {"vocab_size_multiple": 1, "max_position_embeddings": 512}
    assert num_parameters(BertSizes.of_model(model, vocab_size=30_522)) == 336_226_108
    assert BertSizes.of_model({**model, "vocab_size_multiple": 8}, vocab_size=30_522).vocab_size == 30_528
