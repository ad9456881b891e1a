"""Which runs a study has, and which of them come next. Pure.

A cell is one run: a variant, a batch, a seed, and where something is tuned one combination of its values.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

Result = Mapping[str, Any]  # as results.py makes it; `heldout_loss` is None of a run that diverged


@dataclass(frozen=True)
class Variant:
    """words: beyond those of the study. tune: (key, its values). tune_at: a batch; None: tuned at each for itself."""

    name: str
    words: tuple[str, ...]
    batches: tuple[int, ...]
    tune: tuple[tuple[str, tuple[str, ...]], ...] = ()
    tune_at: int | None = None

    def choices(self) -> list[tuple[str, ...]]:
        """Every combination of values of `tune`, the first key slowest; one empty one where nothing is tuned."""
        return list(product(*(values for _, values in self.tune)))


@dataclass(frozen=True)
class Cell:
    variant: Variant
    choice: tuple[str, ...]  # values of variant.tune
    batch: int
    seed: int

    @property
    def name(self) -> str:
        """Of its folder; no two cells of a study have the same."""
        parts = [f"{key.rpartition('.')[2]}_{value}" for key, value in self.tuned.items()]
        return "-".join([self.variant.name, *parts, f"b{self.batch}", f"s{self.seed}"])

    @property
    def tuned(self) -> dict[str, str]:
        """Tuned key -> value."""
        return {key: value for (key, _), value in zip(self.variant.tune, self.choice, strict=True)}

    def words(self, phases: Mapping[str, int]) -> list[str]:
        """Overrides of `pretrain` that make a run of the study this cell. phases: name -> sequences to train on."""
        words = [*self.variant.words, *(f"{key}={value}" for key, value in self.tuned.items())]
        words = [one for word in words for one in of_each_phase(word, phases)]
        for phase, num_sequences in phases.items():
            words += [
                f"phases.{phase}.global_batch_size={self.batch}",
                f"phases.{phase}.num_sequences={num_sequences}",
                f"phases.{phase}.total_steps=null",
            ]
        return [*words, f"seed={self.seed}"]


def of_each_phase(word: str, phases: Iterable[str]) -> list[str]:
    """The word, or where it begins with phases.* one for each phase."""
    head = "phases.*."
    return [f"phases.{phase}.{word.removeprefix(head)}" for phase in phases] if word.startswith(head) else [word]


def later_words_win(words: Iterable[str]) -> list[str]:
    """The words without those whose key comes again, since Hydra refuses to be told twice."""
    last = {word.partition("=")[0].lstrip("+"): word for word in words}
    return list(last.values())


def best(cells: Iterable[Cell], results: Mapping[str, Result]) -> Cell | None:
    """The one with the lowest held-out loss, of equals the first; None where all diverged. All have results."""
    finished = [cell for cell in cells if results[cell.name]["heldout_loss"] is not None]
    return min(finished, key=lambda cell: results[cell.name]["heldout_loss"], default=None)


def chosen(variant: Variant, batch: int, first_seed: int, results: Mapping[str, Result]) -> tuple[str, ...] | None:
    """The values with which the variant runs at this batch; None as long as they are not known, or all diverged."""
    if not variant.tune:
        return ()
    at = batch if variant.tune_at is None else variant.tune_at
    trials = [Cell(variant, choice, at, first_seed) for choice in variant.choices()]
    if any(trial.name not in results for trial in trials):
        return None
    found = best(trials, results)
    return None if found is None else found.choice


def known_cells(variants: Iterable[Variant], seeds: list[int], results: Mapping[str, Result]) -> Iterator[Cell]:
    """Every cell that the results so far ask for, in the order in which they run.

    The first seed comes first, so that a study which is cut short has all of its lines: within it what is tuned at one
    batch, then the batches as they are listed.
    """
    variants = list(variants)
    for variant in variants:
        if variant.tune and variant.tune_at is not None:
            yield from (Cell(variant, choice, variant.tune_at, seeds[0]) for choice in variant.choices())
    batches = dict.fromkeys(batch for variant in variants for batch in variant.batches)
    for seed in seeds:
        for batch in batches:
            for variant in variants:
                if batch in variant.batches:
                    yield from _cells_at(variant, batch, seed, seeds[0], results)


def _cells_at(variant: Variant, batch: int, seed: int, first: int, results: Mapping[str, Result]) -> Iterator[Cell]:
    if variant.tune and seed == first and variant.tune_at == batch:
        return  # they came first
    if variant.tune and seed == first and variant.tune_at is None:
        yield from (Cell(variant, choice, batch, seed) for choice in variant.choices())
        return
    choice = chosen(variant, batch, first, results)
    if choice is not None:
        yield Cell(variant, choice, batch, seed)


def all_cells(variants: Iterable[Variant], seeds: list[int]) -> Iterator[Cell]:
    """Every cell that any results could ask for."""
    for variant, seed in product(variants, seeds):
        for batch, choice in product(variant.batches, variant.choices()):
            yield Cell(variant, choice, batch, seed)
