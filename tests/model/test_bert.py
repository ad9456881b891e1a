"""The model's sizes, its sums without pairs, and its independence of global random state; see test_unpadded.py."""

import pytest
import torch
from transformers import BertForPreTraining

from bert_lamb.model.bert import BertPretrainingModel, is_of_sentence_head
from tests.model.rows import make_config


@pytest.fixture
def batch():
    """Rows of 20, 15 and 20 tokens."""
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 101, (55,), generator=random)
    bounds = torch.tensor([0, 20, 35, 55])
    places = torch.cat([torch.arange(length) for length in bounds.diff()])
    masked, labels = torch.tensor([3, 7, 22, 30, 41]), torch.randint(5, 101, (5,), generator=random)
    return ids, (places >= 9).long(), places, bounds.int(), 20, masked, labels, torch.tensor([0, 1, 0])


def test_without_pairs_only_masked_tokens_count(batch):
    model = BertPretrainingModel(make_config(), seed=1)
    with_pairs, without = model(*batch), model(*batch[:-1], None)
    assert torch.equal(with_pairs.mlm_loss, without.mlm_loss)
    assert without.nsp_loss.item() == 0.0
    (without.mlm_loss + without.nsp_loss).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert is_of_sentence_head(name) == (not parameter.grad.any()), name


def test_weights_depend_on_the_seed_alone():
    torch.manual_seed(11)
    first = BertPretrainingModel(make_config(), seed=1)
    state = torch.get_rng_state()
    second = BertPretrainingModel(make_config(), seed=1)
    assert torch.equal(torch.get_rng_state(), state), "building a model must leave the global generator alone"
    other = BertPretrainingModel(make_config(), seed=2)
    pairs = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert not torch.equal(
        first.bert.cls.predictions.transform.dense.weight, other.bert.cls.predictions.transform.dense.weight
    )


def test_vocabulary_is_padded_to_the_multiple():
    assert make_config().vocab_size == 104
    assert make_config(vocab_size_multiple=1).vocab_size == 101
    assert make_config(vocab_size=104).vocab_size == 104


def test_bert_large_has_the_published_size():
    """336,226,108 parameters in 398 tensors with both heads at a vocabulary of 30,522."""
    config = make_config(
        vocab_size=30_522,
        vocab_size_multiple=1,
        num_layers=24,
        hidden_size=1024,
        num_heads=16,
        intermediate_size=4096,
        max_position_embeddings=512,
    )
    with torch.device("meta"):
        model = BertForPreTraining(config)
    parameters = list(model.parameters())
    assert sum(p.numel() for p in parameters) == 336_226_108
    assert len(parameters) == 398
