"""Measuring in rounds: a drift of the machine, or another job on it, affects everything that is compared alike."""

import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

Sample = TypeVar("Sample")


def in_turns(measurements: Sequence[Callable[[], Sample]], *, num_rounds: int) -> list[list[Sample]]:
    """Take one sample of each measurement in every round; returns a list of samples, by round, for each measurement."""
    samples: list[list[Sample]] = [[] for _ in measurements]
    for number in range(1, num_rounds + 1):
        print(f"round {number} of {num_rounds} ...", file=sys.stderr, flush=True)
        for of_one, measure in zip(samples, measurements, strict=True):
            of_one.append(measure())
    return samples
