"""An export is loaded again, as its users will load it, and must compute what the trained weights compute."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from transformers import BertConfig, BertForPreTraining

from bert_lamb.errors import UserError

NUM_SEQUENCES, NUM_TOKENS, SEED = 2, 16, 1904_00962
# Of the largest logit: the trained model's output layer has rows that pad the vocabulary, which changes the order of
# additions; a single weight of a tiny model that is off by 1% shows as more.
TOLERANCE = 1e-5


def check_export(folder: Path, trained: Iterable[tuple[str, Tensor]], config: BertConfig) -> None:
    """Refuse a folder whose logits, as transformers loads it, differ from those of the trained weights.

    trained: the weights by transformers' names, with the rows that pad the vocabulary. config: the exported model's.
    """
    weights = dict(trained)
    num_rows = weights["bert.embeddings.word_embeddings.weight"].shape[0]
    original = BertForPreTraining._from_config(BertConfig(**{**config.to_dict(), "vocab_size": num_rows}))
    original.load_state_dict(weights, strict=False)
    original.tie_weights()
    exported = BertForPreTraining.from_pretrained(folder)
    batch = random_batch(config)
    wanted, found = logits(original, batch, config.vocab_size), logits(exported, batch, config.vocab_size)
    for name, ours, theirs in zip(("masked-LM", "sentence"), wanted, found, strict=True):
        difference, limit = float((ours - theirs).abs().max()), TOLERANCE * float(ours.abs().max())
        if not difference <= limit:
            raise UserError(
                found=f"{name} logits of the export that differ from the trained model's by {difference:.2g}",
                expected=f"at most {limit:.2g}, for random tokens",
                fix="report this, with the versions in the run's environment; nothing was exported",
            )


def random_batch(config: BertConfig) -> dict[str, Tensor]:
    """A few sequences of random tokens, the same in every call."""
    generator = torch.Generator().manual_seed(SEED)
    shape = (NUM_SEQUENCES, min(NUM_TOKENS, config.max_position_embeddings))
    ids = torch.randint(config.vocab_size, shape, generator=generator)
    types = torch.randint(config.type_vocab_size, shape, generator=generator)
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": torch.ones_like(ids)}


@torch.no_grad()
def logits(model: BertForPreTraining, batch: dict[str, Tensor], vocab_size: int) -> tuple[Tensor, Tensor]:
    """Of the masked LM, without padding of the vocabulary, and of the sentence task."""
    out = model.float().eval()(**batch)
    return out.prediction_logits[..., :vocab_size], out.seq_relationship_logits
