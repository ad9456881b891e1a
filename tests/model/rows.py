"""A small BERT, and rows of several lengths for it, laid end to end: what the tests of this room share."""

import torch

from bert_lamb.model.bert import bert_config

VOCAB, LONGEST = 101, 24


def make_config(**changes):
    sizes = {
        "vocab_size": VOCAB,
        "vocab_size_multiple": 8,
        "num_layers": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "intermediate_size": 48,
        "dropout": 0.0,
        "max_position_embeddings": LONGEST,
        "init_std": 0.1,
        "pad_token_id": 0,
    }
    return bert_config(**{**sizes, **changes})


def make_rows(lengths, seed=0):
    """[(ids, types, masked positions, their labels, sentence label)] of sequences of these lengths."""
    random = torch.Generator().manual_seed(seed)
    rows = []
    for length in lengths:
        ids = torch.randint(5, VOCAB, (length,), generator=random)
        types = (torch.arange(length) >= length // 2).long()
        masked = torch.randperm(length, generator=random)[: 1 + length // 7].sort().values
        labels = torch.randint(5, VOCAB, (len(masked),), generator=random)
        rows.append((ids, types, masked, labels, torch.randint(0, 2, (1,), generator=random)))
    return rows


def lay_out(rows, has_sentence_task=True):
    """The arguments of BertPretrainingModel, written down here once more."""
    ids, types, masked, labels, sentences = zip(*rows, strict=True)
    starts = torch.tensor([0, *(len(row) for row in ids)]).cumsum(0)
    return (
        torch.cat(ids),
        torch.cat(types),
        torch.cat([torch.arange(len(row)) for row in ids]),
        starts.int(),
        LONGEST,
        torch.cat([positions + start for positions, start in zip(masked, starts[:-1], strict=True)]),
        torch.cat(labels),
        torch.cat(sentences) if has_sentence_task else None,
    )
