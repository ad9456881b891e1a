"""`bert-lamb batch`: what a run trains on in any step, as text, and the order of a whole epoch.

Nothing is replayed: sampler and masks are functions of the seed and of where they are asked for, so the step may
be past, to come, or of another machine's run.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bert_lamb.data.batches import MaskedInstances, masked_instances
from bert_lamb.engine.build import RuntimeSettings
from bert_lamb.errors import UserError
from bert_lamb.outputs.atomic import appearing_whole
from bert_lamb.outputs.metrics import error_in
from bert_lamb.outputs.read_back import NOT_AS_WRITTEN, read_text
from bert_lamb.outputs.run_dir import CONFIG_FILE, METRICS_FILE
from bert_lamb.pretraining.admission import Phase, admit_phases
from bert_lamb.pretraining.command import recipe_of
from bert_lamb.sampling.sampler import global_batch, instances_at
from bert_lamb.shards.inspect import CONTINUATION, Entries, read_entries

INSTANCES_AT_ONCE = 1 << 20
RESTORE = "restore the file as the run wrote it"
FIX = "name the run_dir of `bert-lamb pretrain`"


@dataclass(frozen=True)
class TrainedOn:
    """A phase of a run, with the seed of its order and masks."""

    run_dir: Path
    phase: Phase
    seed: int

    def number_of(self, step: int) -> int:
        """The global batch of an optimizer step: its own number, and what a rollback before it has passed over."""
        metrics = self.run_dir / METRICS_FILE
        text = read_text(metrics, expected="the metrics of a run", fix=RESTORE) if metrics.exists() else ""
        skipped = 0
        for line in text.splitlines():
            try:
                record = json.loads(line)
            except NOT_AS_WRITTEN:  # cut short by a kill
                continue
            if isinstance(record, dict) and record.get("kind") == "rollback":
                if wrong := error_in("rollback", record):
                    raise UserError(found=f"{wrong} in {metrics}", expected="the metrics of a run", fix=RESTORE)
                if record.get("phase") == self.phase.stage.name and record.get("step", step) < step:
                    skipped = record["batches_skipped"]
        return step + int(skipped)


def read_run(run_dir: Path, phase: str | None, shards: str | None) -> TrainedOn:
    """phase: by name, None for the first. shards: where the phases' shards lie now, None for where they lay.

    Raises UserError for what is no run of this version's, and for shards that are not there.
    """
    text = read_text(run_dir / CONFIG_FILE, expected="the configuration of a run", fix=FIX)
    try:
        plain = yaml.safe_load(text)
        for settings in plain["phases"].values() if shards is not None else ():
            settings["shards"] = shards
        recipe, runtime = recipe_of(plain), RuntimeSettings(**plain["runtime"])
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            found=f"{run_dir / CONFIG_FILE}, which this version does not read ({type(error).__name__}: {error})",
            expected="what `bert-lamb pretrain` of this version wrote",
            fix=FIX,
        ) from error
    phases = {one.stage.name: one for one in admit_phases(recipe, runtime, world_size=1)}
    if phase is not None and phase not in phases:
        raise UserError(found=f"phase={phase}", expected=f"one of {', '.join(phases)}", fix="set phase")
    return TrainedOn(run_dir, phases[phase or next(iter(phases))], recipe.seed)


def texts_of_step(of_run: TrainedOn, step: int, *, first: int, count: int, with_pieces: bool = False) -> list[str]:
    """Rows first..first+count-1 of a step's global batch, in the order of the sampler, as the model sees them."""
    phase = of_run.phase
    plan, instances = phase.stage.plan, phase.training
    if not 1 <= step <= plan.total_steps:
        raise UserError(
            found=f"step={step}", expected=f"1..{plan.total_steps}, the steps of {phase.stage.name}", fix="set step"
        )
    if first >= plan.global_batch_size:
        raise UserError(
            found=f"first={first}", expected=f"0..{plan.global_batch_size - 1}, the rows of a batch", fix="set first"
        )
    number = of_run.number_of(step)
    chosen, epochs = global_batch(
        number, global_batch_size=plan.global_batch_size, num_instances=len(instances), seed=of_run.seed
    )
    shown = slice(first, first + count)
    masked = masked_instances(
        instances,
        chosen[shown],
        epochs[shown],
        rule=phase.rule,
        seed=of_run.seed,
        micro_batch_size=count,
        mask_probs=np.full(len(chosen[shown]), phase.rate.of(number)),
    )
    entries = read_entries(Path(phase.settings.shards), instances.manifest.vocabulary)
    return [
        f"row {first + row} of {plan.global_batch_size:,} in batch {number:,} of {phase.stage.name}:"
        f" instance {chosen[first + row]}, epoch {epochs[first + row]}\n  {text}"
        for row, text in enumerate(rows_as_text(masked, entries, with_pieces=with_pieces))
    ]


def rows_as_text(masked: MaskedInstances, entries: Entries, *, with_pieces: bool = False) -> Iterator[str]:
    """Each row in words; what is to be predicted follows in braces after what the model sees: [MASK]{cat}.

    with_pieces: every piece with its id, instead of words.
    """
    ends = np.cumsum(masked.lengths, dtype=np.int64)
    answers = dict(zip(masked.masked_positions.tolist(), masked.masked_labels.tolist(), strict=True))

    def shown(token_id: int) -> str:
        return entries.pieces([token_id]) if with_pieces else entries.piece(token_id)

    for start, end in zip(ends - masked.lengths, ends, strict=True):
        words: list[str] = []
        may_continue = False
        for position in range(int(start), int(end)):
            piece = shown(int(masked.input_ids[position]))
            if position in answers:
                words.append(f"{piece}{{{shown(answers[position])}}}")
                may_continue = False
            elif may_continue and piece.startswith(CONTINUATION) and not with_pieces:
                words[-1] += piece.removeprefix(CONTINUATION)
            else:
                words.append(piece)
                may_continue = True
        yield " ".join(words)


def write_order(of_run: TrainedOn, epoch: int, output: Path) -> None:
    """The numbers of all training instances in the order of one epoch, [len] int64, as a .npy file."""
    size = len(of_run.phase.training)
    with appearing_whole(output) as temporary, temporary.open("wb") as stream:
        header: dict[str, Any] = {"descr": "<i8", "fortran_order": False, "shape": (size,)}
        np.lib.format.write_array_header_1_0(stream, header)
        for start in range(0, size, INSTANCES_AT_ONCE):
            positions = np.arange(start, min(start + INSTANCES_AT_ONCE, size), dtype=np.int64) + epoch * size
            instances, _ = instances_at(positions, num_instances=size, seed=of_run.seed)
            stream.write(instances.astype("<i8").tobytes())
