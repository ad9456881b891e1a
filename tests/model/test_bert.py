"""The model against transformers' own loss, and its independence of global random state."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import BertForPreTraining

from bert_lamb.model.bert import BertPretrainingModel, bert_config, is_of_sentence_head


def make_config(**changes):
    sizes = {
        "vocab_size": 101,
        "vocab_size_multiple": 8,
        "num_layers": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 48,
        "dropout": 0.0,
        "max_position_embeddings": 24,
        "init_std": 0.1,
        "pad_token_id": 0,
    }
    return bert_config(**{**sizes, **changes})


@pytest.fixture
def batch():
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 101, (3, 20), generator=random)
    types = (torch.arange(20) >= 9).long().repeat(3, 1)
    mask = torch.ones_like(ids)
    mask[1, 15:] = 0
    positions = torch.tensor([3, 7, 22, 30, 41])
    labels = torch.randint(5, 101, (5,), generator=random)
    return ids, types, mask, positions, labels, torch.tensor([0, 1, 0])


def test_losses_are_transformers_losses(batch):
    """BertForPreTraining's loss is the sum of two means; ours are the sums, over the same positions."""
    model = BertPretrainingModel(make_config(), seed=1)
    ids, types, mask, positions, labels, next_sentence = batch
    sums = model(*batch)
    dense_labels = torch.full_like(ids, -100).flatten().index_put((positions,), labels).view_as(ids)
    twin = BertForPreTraining(make_config())
    twin.load_state_dict(model.bert.state_dict())
    output = twin(
        input_ids=ids,
        token_type_ids=types,
        attention_mask=mask,
        labels=dense_labels,
        next_sentence_label=next_sentence,
    )
    torch.testing.assert_close(sums.mlm_loss / 5 + sums.nsp_loss / 3, output.loss, rtol=1e-5, atol=1e-5)
    logits = output.prediction_logits.flatten(0, 1)[positions]
    assert sums.mlm_correct == (logits.argmax(-1) == labels).sum()
    torch.testing.assert_close(sums.nsp_loss, cross_entropy(output.seq_relationship_logits, next_sentence) * 3)


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
