"""The math of the optimizers: no deepspeed, no configuration. README.md has the formulas and their sources."""

from bert_lamb.optim.groups import parameter_groups
from bert_lamb.optim.lamb import Lamb
from bert_lamb.optim.lars import Lars
from bert_lamb.optim.layerwise import LayerwiseOptimizer
from bert_lamb.optim.passes import NormRecord
from bert_lamb.optim.segments import Segments

__all__ = ["Lamb", "Lars", "LayerwiseOptimizer", "NormRecord", "Segments", "parameter_groups"]
