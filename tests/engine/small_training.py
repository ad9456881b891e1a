"""A training small enough to be repeated on every machine: a BERT of odd sizes, fixed batches, eight steps.

Odd sizes make parameters straddle ZeRO's partitions and make stage 3 pad.
"""

import torch

from bert_lamb.model.bert import BertPretrainingModel, bert_config

NUM_STEPS = 8
ACCUMULATION = 2
GLOBAL_BATCH = 24
SEQ_LENGTH = 16
VOCAB = 211
LR = 1e-2
BETAS = (0.9, 0.99)
EPS = (
    1e-4  # large: a gradient that nearly cancels is mostly rounding, and an eps below it would make whole steps of that
)
WEIGHT_DECAY = 0.02
MAX_GRAD_NORM = 0.3  # below the norms of these batches, so that clipping is at work


def make_model(dropout: float = 0.0) -> BertPretrainingModel:
    config = bert_config(
        vocab_size=VOCAB,
        vocab_size_multiple=1,
        num_layers=2,
        hidden_size=66,
        num_heads=3,
        intermediate_size=130,
        dropout=dropout,
        max_position_embeddings=SEQ_LENGTH + 1,
        init_std=0.05,
        pad_token_id=0,
    )
    model = BertPretrainingModel(config, seed=3)
    with torch.no_grad():  # scales as different as in a trained network, so that a wrong trust ratio shows
        matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
        for index, matrix in enumerate(matrices):
            matrix.mul_((0.3, 1.0, 3.0)[index % 3])
    return model


def sequences(step: int) -> list[tuple[torch.Tensor, ...]]:
    """The global batch of a step, sequences of several lengths: (ids, types, masked positions, labels, pair)."""
    random = torch.Generator().manual_seed(step)
    batch = []
    for index in range(GLOBAL_BATCH):
        ids = torch.randint(5, VOCAB, (1, SEQ_LENGTH), generator=random)
        types = (torch.arange(SEQ_LENGTH) >= 5 + index % 4).long()[None]
        num_masked = 1 + (index + step) % 4
        positions = torch.randperm(SEQ_LENGTH, generator=random)[:num_masked].sort().values
        labels = torch.randint(5, VOCAB, (num_masked,), generator=random)
        is_random = torch.randint(0, 2, (1,), generator=random)
        length = SEQ_LENGTH - (index + 2 * step) % 5
        positions = positions[positions < length] if (positions < length).any() else positions[:1] % length
        batch.append((ids[0, :length], types[0, :length], positions, labels[: len(positions)], is_random))
    return batch


def join(batch: list[tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor | int, ...]:
    """Single sequences as one micro-batch, in the model's order of arguments."""
    ids, types, positions, labels, is_random = zip(*batch, strict=True)
    bounds = torch.tensor([0, *(len(one) for one in ids)]).cumsum(0)
    return (
        torch.cat(ids),
        torch.cat(types),
        torch.cat([torch.arange(len(one)) for one in ids]),
        bounds.int(),
        SEQ_LENGTH,
        torch.cat([p + start for p, start in zip(positions, bounds[:-1], strict=True)]),
        torch.cat(labels),
        torch.cat(is_random),
    )


def num_predictions(batch: list[tuple[torch.Tensor, ...]]) -> int:
    return sum(len(labels) for *_, labels, _ in batch)
