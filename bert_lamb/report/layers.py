"""Beside the second stop: what was recorded of single parameters -> tables, parameters by steps.

Rows stand as a reader of BERT expects them, from the embeddings to the heads; a column is a step at which a record was
due. Letters: P parameters, C such steps of one phase.
"""

import math
import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bert_lamb.report.metrics import NORM_FIELDS, Phase, Run

NAME = re.compile(r"(?:bert\.)*(?:encoder\.layer\.(\d+)\.)?(.*?)(?:\.(weight|bias))?", re.DOTALL)  # fits any name
KINDS = {  # module, below `bert` or its layer -> what a plot calls it; in reading order
    "embeddings.word_embeddings": "word embeddings",
    "embeddings.position_embeddings": "position embeddings",
    "embeddings.token_type_embeddings": "token type embeddings",
    "embeddings.LayerNorm": "embeddings LayerNorm",
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention output",
    "attention.output.LayerNorm": "attention LayerNorm",
    "intermediate.dense": "intermediate",
    "output.dense": "output",
    "output.LayerNorm": "output LayerNorm",
    "pooler.dense": "pooler",
    "cls.predictions.transform.dense": "MLM transform",
    "cls.predictions.transform.LayerNorm": "MLM LayerNorm",
    "cls.predictions.decoder": "MLM decoder",
    "cls.predictions": "MLM",  # of its own it has a bias only
    "cls.seq_relationship": "next sentence",
}


class Row(NamedTuple):
    """One parameter; rows compare as they stand, from top to bottom."""

    order: tuple[int, int, int, bool]  # part of the network, layer, place in KINDS, bias after weight
    name: str  # as in the model's named_parameters
    group: str  # "embeddings", "layer 3", "pooler and heads"; "other" for what is not of BERT
    kind: str  # "query", "query bias"; a module that KINDS lacks keeps its own name

    @property
    def label(self) -> str:
        """ "layer 3 query", "pooler"."""
        return f"{self.group} {self.kind}" if self.group.startswith("layer") else self.kind


def row_of(name: str) -> Row:
    """The row of a parameter of Hugging Face's BERT; any other comes last."""
    match = NAME.fullmatch(name)
    assert match is not None
    layer, module, end = match.groups()
    if layer is not None:
        part, group = 1, f"layer {int(layer)}"
    elif module.startswith("embeddings."):
        part, group = 0, "embeddings"
    elif module.startswith(("pooler.", "cls.")):
        part, group = 2, "pooler and heads"
    else:
        part, group = 3, "other"
    place = list(KINDS).index(module) if module in KINDS else len(KINDS)
    is_bias = end == "bias"
    return Row((part, int(layer or 0), place, is_bias), name, group, KINDS.get(module, module) + " bias" * is_bias)


def rows_of(run: Run) -> list[Row]:
    """Every parameter that the run recorded, from top to bottom."""
    records = [record for phase in run.phases for record in phase.trust_ratios]
    return sorted(map(row_of, {name for record in records for quantity in NORM_FIELDS for name in record[quantity]}))


def interval_of(run: Run) -> int:
    """Steps from one due record to the next, as the records tell; 0 without any."""
    return math.gcd(*(record["step"] for phase in run.phases for record in phase.trust_ratios))


def table_of(phase: Phase, quantity: str, rows: list[Row], interval_steps: int) -> NDArray[np.float64]:
    """[P, C] of trust_ratio, param_norm or update_norm; column c is step (c + 1) * interval_steps of the phase.

    NaN where nothing was recorded, as at a skipped step.
    """
    index = {row.name: i for i, row in enumerate(rows)}
    table = np.full((len(rows), phase.num_steps // interval_steps), np.nan)
    for record in phase.trust_ratios:
        for name, value in record[quantity].items():
            table[index[name], record["step"] // interval_steps - 1] = value
    return table
