"""The weights that two runs ended with, compared."""

from pathlib import Path

import torch

from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.outputs.run_dir import RunDir


def largest_difference(run_dir: Path, other: Path) -> float:
    """Over all elements of all parameters; both runs must be at the same step."""
    mine, others = (Checkpoint(RunDir(each).checkpoint("latest")) for each in (run_dir, other))
    assert (mine.position.phase, mine.position.step) == (others.position.phase, others.position.step)
    pairs = zip(mine.weights(), others.weights(), strict=True)
    return max(float((a - b).abs().max()) for (_, a), (_, b) in pairs)


def are_equal(run_dir: Path, other: Path) -> bool:
    """Bit for bit."""
    mine, others = (Checkpoint(RunDir(each).checkpoint("latest")) for each in (run_dir, other))
    pairs = zip(mine.weights(), others.weights(), strict=True)
    return all(name == other_name and torch.equal(a, b) for (name, a), (other_name, b) in pairs)
