"""The math of the optimizers: no deepspeed, no torch.distributed. README.md has the formulas and their sources."""

from bert_lamb.optim.groups import parameter_groups
from bert_lamb.optim.lamb import Lamb, NormRecord
from bert_lamb.optim.segments import Segments

__all__ = ["Lamb", "NormRecord", "Segments", "parameter_groups"]
