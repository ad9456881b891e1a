"""`study`: a grid of runs of `pretrain`, by optimizer, batch and seed, on the same number of sequences."""

import re
from dataclasses import dataclass, field

from bert_lamb.config.checks import MAX_SEED, Complaints, IfExists, check_if_positive, check_names
from bert_lamb.config.pretrain import PretrainConfig, check_pretrain
from bert_lamb.config.schedule import no_value

_TUNED = re.compile(r"[^=\s]+=[^,=\s]+(,[^,=\s]+)*")


@dataclass
class VariantConfig:
    """One line of the figure: what its runs have beyond the words of the study."""

    words: list[str] = field(default_factory=list)  # of `pretrain`: optimizer=lars, phases.*.peak_lr=1e-3 (every phase)
    batches: list[int] | None = None  # sequences; None: study.batches
    # KEY=VALUE,VALUE,...: each combination runs with the first seed, and the one with the lowest held-out loss with
    # the other seeds; at every batch for itself, or with tune_at at that batch for all of them.
    tune: list[str] = field(default_factory=list)
    tune_at: int | None = None


@dataclass
class StudySettings:
    variants: dict[str, VariantConfig] = field(default_factory=dict)  # by name, in the order of the table
    batches: list[int] = field(default_factory=list)  # global batch sizes of every phase, sequences
    seeds: list[int] = field(default_factory=lambda: [1, 2])
    parallel_runs: int = 1  # at once
    launch: str = ""  # words before each run, such as torchrun --standalone --nproc-per-node 8 --no-python
    keep_checkpoints: bool = False  # else they go when a run is done
    cell: str | None = None  # run this one alone; how the study starts its runs
    words: list[str] = field(default_factory=list)  # the command line as typed, which fills this in
    jobs: list[str] = field(default_factory=list)  # its words of Hydra's launcher; each run is a job of it


@dataclass
class StudyConfig(PretrainConfig):
    """`bert-lamb study`: many runs compared; the words of `pretrain`, which all of them share."""

    study: StudySettings = field(default_factory=StudySettings)
    if_exists: IfExists = IfExists.resume


def check_study(config: StudyConfig) -> Complaints:
    """The study itself, whose variants may be what completes the words of `pretrain`; check_cell has the rest."""
    complaints, study = Complaints(), config.study
    complaints.unless(bool(study.variants), "study.variants", "{}", "at least one (choose a preset: study=NAME)")
    check_names(complaints, "study.variants", study.variants)
    check_if_positive(complaints, "study.", study, "parallel_runs")
    complaints.unless(bool(study.seeds), "study.seeds", "[]", "at least one")
    for seed in study.seeds:
        complaints.unless(0 <= seed <= MAX_SEED, "study.seeds", seed, "0 to 2^63 - 1")
    complaints.unless(len(set(study.seeds)) == len(study.seeds), "study.seeds", study.seeds, "each once")
    for name, variant in study.variants.items():
        prefix, batches = f"study.variants.{name}.", study.batches if variant.batches is None else variant.batches
        complaints.unless(bool(batches), f"{prefix}batches", batches, "at least one, here or in study.batches")
        complaints.unless(
            min(batches, default=1) > 0 and len(set(batches)) == len(batches),
            f"{prefix}batches",
            batches,
            "each once, above 0",
        )
        for word in variant.words:
            complaints.unless("=" in word, f"{prefix}words", word, "KEY=VALUE")
        for word in variant.tune:
            is_right = _TUNED.fullmatch(word) is not None
            complaints.unless(is_right, f"{prefix}tune", word, "KEY=VALUE,VALUE,... without blanks")
        is_known = variant.tune_at is None or (bool(variant.tune) and variant.tune_at in batches)
        complaints.unless(is_known, f"{prefix}tune_at", variant.tune_at, "one of the variant's batches, with tune")
    complaints.unless(bool(config.phases), "phases", "{}", "at least one phase (choose a recipe)")
    for name, phase in config.phases.items():
        if phase.total_steps is None and phase.num_sequences is None:
            complaints.append(no_value(f"phases.{name}.num_sequences"))
    return complaints


def check_cell(config: StudyConfig) -> Complaints:
    """A run of a study, whose words are complete: all that `pretrain` asks for."""
    return check_pretrain(config)
