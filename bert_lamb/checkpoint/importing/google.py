"""The names of Google's BERT (google-research/bert, modeling.py) -> those of transformers.

A kernel of TensorFlow is [in, out], a weight of PyTorch [out, in]; `output_weights` is [out, in] in both.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from bert_lamb.checkpoint.folder.stored import Stored

HEADS = {
    "cls/predictions/output_bias": "cls.predictions.bias",
    "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
    "cls/seq_relationship/output_bias": "cls.seq_relationship.bias",
}
LAST_PARTS = {"kernel": "weight", "gamma": "weight", "beta": "bias"}
COUNTERS = {"global_step", "beta1_power", "beta2_power"}


def from_google(found: Sequence[Stored]) -> list[Stored]:
    """The weights under transformers' names and in its orientation; state of the optimizer is left out.

    A variable below another one (bert/pooler/dense/kernel/adam_m) is a slot of the optimizer, whichever that was.
    """
    keys = {one.key for one in found}
    weights = [one for one in found if one.key not in COUNTERS and one.key.rpartition("/")[0] not in keys]
    return [_transposed(one) if one.key.endswith("/kernel") else replace(one, key=our_key(one.key)) for one in weights]


def our_key(key: str) -> str:
    """bert/encoder/layer_0/output/LayerNorm/gamma -> bert.encoder.layer.0.output.LayerNorm.weight."""
    if key in HEADS:
        return HEADS[key]
    *parts, last = re.sub(r"/layer_(\d+)/", r"/layer/\1/", key).split("/")
    name = ".".join([*parts, LAST_PARTS.get(last, last)])
    return f"{name}.weight" if last.endswith("_embeddings") else name


def _transposed(one: Stored) -> Stored:
    return replace(one, key=our_key(one.key), shape=one.shape[::-1], read=lambda: one.read().T)
