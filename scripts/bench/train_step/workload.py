"""What is trained on: a model's sizes, and global batches of real shards, made before the clock runs.

Letters: G rows of a global batch, B of a micro-batch, S the phase's length.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from kit import CHECKOUT
from torch import Tensor

from bert_lamb.data.batches import MicroBatch, TrainingBatches
from bert_lamb.data.masking import MaskingRule
from bert_lamb.model.bert import bert_config
from bert_lamb.shards import open_instances

MAX_PREDICTIONS = {128: 20, 512: 80}  # as in the recipes
SEED = 1
SMALL = {"num_layers": 4, "hidden_size": 256, "num_heads": 4, "intermediate_size": 1024}
SIZES = ("num_layers", "hidden_size", "num_heads", "intermediate_size")


@dataclass(frozen=True)
class Workload:
    """One setting that all candidates are measured in. name: of the shards' folder."""

    name: str
    model: dict[str, int]  # SIZES
    dropout: float
    max_seq_length: int
    batches: TrainingBatches

    @property
    def mean_fill(self) -> float:
        """Tokens over positions, of all rows of the shards."""
        return float(self.batches.instances.lengths.mean()) / self.max_seq_length

    def config(self) -> Any:
        """transformers' BertConfig."""
        vocabulary = self.batches.instances.manifest.vocabulary
        return bert_config(
            vocab_size=vocabulary.size,
            vocab_size_multiple=64,
            **self.model,
            dropout=self.dropout,
            max_position_embeddings=512,
            init_std=0.02,
            pad_token_id=vocabulary.pad_id,
        )

    def micro_batches(self, step: int) -> list[MicroBatch]:
        """Those of a step, 1 for the first."""
        accumulation = self.batches.gradient_accumulation_steps
        return self.batches.masked((step - 1) * accumulation, step * accumulation).micro_batches()


def make_workload(
    shards: Path, *, model: str, dropout: float, max_seq_length: int, micro_batch_size: int, accumulation: int
) -> Workload:
    """model: small, or a name of conf/model."""
    instances = open_instances(shards, max_seq_length=max_seq_length, split="train")
    vocabulary = instances.manifest.vocabulary
    rule = MaskingRule(
        mask_prob=0.15,
        mask_token_prob=0.8,
        random_token_prob=0.1,
        masking_copies=0,
        max_predictions_per_seq=MAX_PREDICTIONS.get(max_seq_length, max_seq_length // 6),
        vocab_size=vocabulary.size,
        mask_token_id=vocabulary.mask_id,
        special_token_ids=(vocabulary.cls_id, vocabulary.sep_id),
    )
    batches = TrainingBatches(
        instances,
        rule=rule,
        seed=SEED,
        global_batch_size=micro_batch_size * accumulation,
        micro_batch_size=micro_batch_size,
        gradient_accumulation_steps=accumulation,
        rank=0,
        world_size=1,
    )
    return Workload(shards.name, sizes_of(model), dropout, max_seq_length, batches)


def sizes_of(model: str) -> dict[str, int]:
    if model == "small":
        return SMALL
    sizes = yaml.safe_load((CHECKOUT / "conf" / "model" / f"{model}.yaml").read_text())
    return {name: sizes[name] for name in SIZES}


def as_transformers_takes_it(batch: MicroBatch, pad_token_id: int) -> dict[str, Tensor]:
    """The same rows padded to S, with labels at the masked positions: BertForPreTraining's arguments."""
    num_rows, length = len(batch.cu_seqlens) - 1, batch.max_length
    rows = torch.repeat_interleave(torch.arange(num_rows), batch.cu_seqlens.diff().long())
    labels = torch.full_like(batch.input_ids, -100).index_copy(0, batch.masked_positions, batch.masked_labels)
    padded = {}
    for name, values, padding in (
        ("input_ids", batch.input_ids, pad_token_id),
        ("token_type_ids", batch.token_type_ids, 0),
        ("attention_mask", torch.ones_like(batch.input_ids), 0),
        ("labels", labels, -100),
    ):
        padded[name] = torch.full((num_rows, length), padding).index_put((rows, batch.position_ids), values)
    assert batch.sentence_labels is not None
    return {**padded, "next_sentence_label": batch.sentence_labels}
