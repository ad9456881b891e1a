"""From study.json to the lines of its figure: for each variant and batch what the runs of all seeds came to. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from bert_lamb.study.definition import variants_of
from bert_lamb.study.grid import Cell, Variant, chosen, known_cells


@dataclass(frozen=True)
class Point:
    """The runs of a variant at one batch. losses: held-out, nats, of the seeds that did not diverge, in their order.

    tuned: values that were tuned. diverged: for each run that did, why and where; where a whole grid did, its runs.
    """

    batch: int
    tuned: dict[str, str]
    losses: list[float]
    diverged: list[str]
    num_steps: int
    peak_lr: float | None
    names: list[str]  # of the cells, in results

    @property
    def mean(self) -> float | None:
        """Over seeds; None where a run diverged, since the others alone would flatter it."""
        return fmean(self.losses) if self.losses and not self.diverged else None


@dataclass(frozen=True)
class Trial:
    """A run with one combination of values that were tuned; its loss is None where it diverged."""

    tuned: dict[str, str]
    batch: int
    loss: float | None
    is_chosen: bool


@dataclass(frozen=True)
class Line:
    variant: Variant
    points: list[Point]  # by batch
    trials: list[Trial]

    @property
    def label(self) -> str:
        """Its name, and whether it was tuned at every batch, which the others were not."""
        is_tuned = bool(self.variant.tune) and self.variant.tune_at is None
        return f"{self.variant.name}, tuned at each batch" if is_tuned else self.variant.name

    @property
    def about(self) -> str:
        """What was tuned, over what and where, as a sentence; which rule its words say."""
        words = ", ".join(word for word in self.variant.words) or "the words of the study"
        if not self.variant.tune:
            return f"{self.variant.name}: {words}; nothing tuned"
        grids = " x ".join(f"{key} over {', '.join(values)}" for key, values in self.variant.tune)
        where = "at each batch" if self.variant.tune_at is None else f"at batch {self.variant.tune_at:,} alone"
        return f"{self.variant.name}: {words}; tuned {where}: {grids}"


@dataclass(frozen=True)
class Study:
    """What study.json says."""

    lines: list[Line]
    seeds: list[int]
    results: Mapping[str, Any]
    num_sequences: dict[str, int]  # by phase
    unigram_cross_entropy: float | None  # nats, of guessing by word frequency
    num_done: int
    num_known: int  # runs that are known to be asked for; those that wait for a tuned value are not

    @property
    def is_finished(self) -> bool:
        return self.num_done == self.num_known


def read_study(content: Mapping[str, Any]) -> Study:
    """content: study.json."""
    study, results = content["definition"]["study"], content["results"]
    variants, seeds = variants_of(study), study["seeds"]
    known = [cell.name for cell in known_cells(variants, seeds, results)]
    phases = content["definition"]["phases"]
    unigrams = [one["unigram_cross_entropy"] for one in results.values() if one["unigram_cross_entropy"] is not None]
    return Study(
        lines=[_line(variant, seeds, results) for variant in variants],
        seeds=seeds,
        results=results,
        num_sequences={
            name: phase["num_sequences"] or phase["total_steps"] * phase["global_batch_size"]
            for name, phase in phases.items()
        },
        unigram_cross_entropy=unigrams[0] if unigrams else None,
        num_done=sum(name in results for name in known),
        num_known=len(known),
    )


def _line(variant: Variant, seeds: list[int], results: Mapping[str, Any]) -> Line:
    points, trials = [], []
    for batch in sorted(variant.batches):
        choice = chosen(variant, batch, seeds[0], results)
        of_grid = [Cell(variant, one, batch, seeds[0]) for one in variant.choices()] if variant.tune else []
        if variant.tune_at in (None, batch):
            trials += [
                Trial(cell.tuned, batch, results[cell.name]["heldout_loss"], cell.choice == choice)
                for cell in of_grid
                if cell.name in results
            ]
        is_lost = choice is None and bool(of_grid) and all(cell.name in results for cell in of_grid)
        cells = of_grid if is_lost else []
        if choice is not None:
            cells = [Cell(variant, choice, batch, seed) for seed in seeds]
        done = [cell for cell in cells if cell.name in results]
        if done:
            points.append(_point(batch, done, results))
    return Line(variant, points, trials)


def _point(batch: int, cells: list[Cell], results: Mapping[str, Any]) -> Point:
    of_cells = [results[cell.name] for cell in cells]
    diverged = [f"seed {one['seed']}, {_where(one['diverged'])}" for one in of_cells if one["diverged"]]
    return Point(
        batch=batch,
        tuned=cells[0].tuned,
        losses=[one["heldout_loss"] for one in of_cells if one["heldout_loss"] is not None],
        diverged=diverged,
        num_steps=max(one["num_steps"] for one in of_cells),
        peak_lr=max((one["peak_lr"] for one in of_cells if one["peak_lr"] is not None), default=None),
        names=[cell.name for cell in cells],
    )


def _where(diverged: Mapping[str, Any]) -> str:
    return f"{diverged['phase']} step {diverged['step']}"
