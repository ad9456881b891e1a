"""What is examined, and how one check after the other is taken on every rank; each ends in one finding."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from bert_lamb.doctor.finding import Finding, SkippedError, failed, name_ranks, skipped
from bert_lamb.doctor.ranks import MissingRanksError, Ranks
from bert_lamb.doctor.report import Report
from bert_lamb.doctor.watch import Watch
from bert_lamb.engine.build import RuntimeSettings
from bert_lamb.engine.launch import Process
from bert_lamb.errors import UserError
from bert_lamb.model.bert import BertConfig, BertPretrainingModel, bert_config
from bert_lamb.pretraining.admission import Phase
from bert_lamb.pretraining.initial_weights import InitialWeights
from bert_lamb.pretraining.recipe import Recipe
from bert_lamb.shards import read_manifest
from bert_lamb.train.settings import CheckpointSettings

VOCABULARY_SIZE = 30_522  # of bert-base-uncased, where there are no shards


@dataclass
class Examination:
    """One rank's view of what `pretrain` would run with, as plain values; what checks have found for later ones.

    recipe: without phases where none was chosen. process: on the CPU where why_no_device says what was asked for and
    is not there. initial: the weights to start from, or why they cannot be read. all_reduce_bytes: None for the whole
    gradient.
    """

    recipe: Recipe
    runtime: RuntimeSettings
    checkpoint: CheckpointSettings
    shards: Path | None
    run_dir: Path | None
    if_exists: str
    process: Process
    ranks: Ranks
    hosts: list[str]  # of every rank, by rank
    why_no_device: UserError | None = None
    initial: InitialWeights | UserError | None = None
    all_reduce_bytes: int | None = None
    takes_step: bool = True
    is_connected: bool = False  # there is a process group of all ranks
    phases: list[Phase] = field(default_factory=list)  # that were admitted

    @property
    def world_size(self) -> int:
        return self.process.world_size

    @cached_property
    def model_config(self) -> BertConfig:
        """Sizes of the recipe or of the initial weights, with the vocabulary of the shards."""
        sizes = self.recipe.model
        if isinstance(self.initial, InitialWeights):
            sizes = {**sizes, **self.initial.sizes()}
        vocabulary_size = VOCABULARY_SIZE
        if self.shards is not None:
            with suppress(UserError):  # the check of the shards says it
                vocabulary_size = read_manifest(self.shards).vocabulary.size
        return bert_config(vocab_size=vocabulary_size, pad_token_id=0, **sizes)

    @cached_property
    def num_parameters(self) -> int:
        """Of the model with both heads; nothing is allocated."""
        with torch.device("meta"):
            model = BertPretrainingModel(self.model_config, seed=0)
        return sum(parameter.numel() for parameter in model.parameters())

    def needs_all_ranks_connected(self) -> None:
        """Raise SkippedError where ranks cannot compute together, or not on what the runtime asks for."""
        if self.why_no_device is not None:
            raise SkippedError("the device that runtime asks for does not exist here")
        if self.world_size > 1 and not self.is_connected:
            raise SkippedError("the ranks have no process group")


@dataclass(frozen=True)
class Check:
    """collect: this rank's facts, as json takes them, without waiting for others; of a check that `is_collective`, the
    function that gives them together with the others. judge: every rank's facts -> the finding, the same on each rank.

    Either may raise UserError, SkippedError, or anything else, which is the check's failure.
    """

    name: str
    collect: Callable[[Examination], Any]
    judge: Callable[[Examination, list[Any]], Finding]
    is_collective: bool = False


def examine(checks: Sequence[Check], examination: Examination, report: Report) -> None:
    """Take the checks in order; every rank calls it."""
    for check in checks:
        try:
            report.add(check.name, take(check, examination, report))
        except MissingRanksError as missing:
            found = f"nothing came from {name_ranks(missing.ranks, examination.hosts)}"
            fix = "see whether these ranks live, and what they printed"
            report.add_last(check.name, failed(found, fix=fix))
            examination.is_connected = False  # without them the group cannot be left either
            return


def take(check: Check, examination: Examination, report: Report) -> Finding:
    """One check; whatever it raises is its failure and no other's. Raises MissingRanksError. Every rank calls it."""
    ranks = examination.ranks
    with Watch(check.name, ranks, report) if check.is_collective else nullcontext() as watch:
        facts, own = _tried(lambda: check.collect(examination))
        if watch is not None:
            finding = finding_of_outcomes(ranks.gather(f"{check.name}/ready", own), examination.hosts)
            if finding is not None:
                return finding
            facts, own = _tried(facts)
            if own:
                watch.fail(f"{own['found']}")
            watch.back()
        gathered = ranks.gather(check.name, {"outcome": own, "facts": facts})
    finding = finding_of_outcomes([one["outcome"] for one in gathered], examination.hosts)
    if finding is not None:
        return finding
    judged, outcome = _tried(lambda: check.judge(examination, [one["facts"] for one in gathered]))
    return judged if outcome is None else finding_of_outcomes([outcome], examination.hosts[:1]) or judged


def _tried(call: Callable[[], Any]) -> tuple[Any, dict[str, str] | None]:
    """(what it returned, None), or (None, how it ended otherwise)."""
    try:
        return call(), None
    except MissingRanksError:
        raise
    except SkippedError as reason:
        return None, {"is": "skipped", "found": str(reason), "fix": ""}
    except UserError as error:
        if complaints := getattr(error, "complaints", None):
            error = complaints[0]
        return None, {"is": "failed", "found": f"{error.found}; expected {error.expected}", "fix": error.fix}
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        line = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
        return None, {"is": "failed", "found": line, "fix": ""}


def finding_of_outcomes(outcomes: Sequence[dict[str, str] | None], hosts: Sequence[str]) -> Finding | None:
    """The finding where any rank failed, with its name; or where any had nothing to examine; else None."""
    by_text: dict[tuple[str, str], list[int]] = {}
    for rank, outcome in enumerate(outcomes):
        if outcome is not None and outcome["is"] == "failed":
            by_text.setdefault((outcome["found"], outcome["fix"]), []).append(rank)
    if by_text:
        named = [
            found if len(ranks) == len(outcomes) else f"{found} (on {name_ranks(ranks, hosts)})"
            for (found, _), ranks in by_text.items()
        ]
        fixes = dict.fromkeys(fix for _, fix in by_text if fix)
        return failed("; ".join(named), fix="; ".join(fixes))
    reasons = [outcome["found"] for outcome in outcomes if outcome is not None]
    return skipped(reasons[0]) if reasons else None
