"""`bert-lamb plan`: the words of `pretrain` and the devices -> a plan on the screen, and as json."""

import json
import math
from pathlib import Path
from typing import Any

from bert_lamb.config.plan import PlanConfig
from bert_lamb.engine.settings import RuntimeSettings
from bert_lamb.errors import UserError
from bert_lamb.model.sizes import BertSizes
from bert_lamb.outputs.plain import to_plain
from bert_lamb.planner import report
from bert_lamb.planner.calibration import read_efficiencies
from bert_lamb.planner.comparison import compare, nearest
from bert_lamb.planner.hardware import gpu_of
from bert_lamb.planner.plan import Measured, Plan, PlannedPhase, Run, machine_of, plan_run
from bert_lamb.planner.published import read_published
from bert_lamb.pretraining.scaling import settled
from bert_lamb.train.settings import CheckpointSettings

VOCABULARY_SIZE = 30_522  # of bert-base-uncased, where there are no shards
# Mean length / max_seq_length of Wikipedia's articles as `prepare` cuts them, where no shards say it: 22 MB of them,
# scripts/bench/results/train_step_epyc_2cpu.json. Between the two by the logarithm; beyond them the nearer one's.
FILLS = {128: 0.895, 512: 0.640}
NEAREST = 6  # published rows that are shown
SIZES_OF_A_FOLDER = {
    "num_layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_position_embeddings": "max_position_embeddings",
}


def plan_command(config: PlanConfig) -> None:
    """Print the plan; raises UserError before anything is written."""
    plain = settled(to_plain(config))
    settings = {name: value for name, value in plain.items() if name not in ("output", "if_exists")}
    output = Path(config.output) if config.output is not None else None
    is_new = output is not None and report.is_to_be_written(output, settings, if_exists=config.if_exists.value)
    plan = plan_of(plain)
    compared = compare(read_published(), read_efficiencies())
    print(report.text(plan, nearest(compared, plan.machine.gpu.generation, plan.machine.gpus, count=NEAREST)))
    if output is not None and is_new:
        report.write(output, plan, settings)


def plan_of(plain: dict[str, Any]) -> Plan:
    """From a configuration as a plain tree; raises UserError."""
    planner = plain["planner"]
    run, gpu = run_of(plain), gpu_of(planner["gpu"])
    measured: Measured | None = None
    if planner["measure"]:
        from bert_lamb.planner.measure import measure

        measured = measure(run, plain["model"], gpu, gpus=planner["gpus"])
    machine = machine_of(
        gpu,
        run.runtime,
        read_efficiencies(),
        gpus=planner["gpus"],
        gpus_per_node=planner["gpus_per_node"],
        network_gbit=planner["network_gbit"],
        watts=planner["watts"],
        price_per_gpu_hour=planner["price_per_gpu_hour"],
        compute=planner["compute_efficiency"],
        network=planner["network_efficiency"],
        measured=measured,
    )
    return plan_run(run, machine)


def run_of(plain: dict[str, Any]) -> Run:
    model = dict(plain["model"])
    if plain["initial_weights"] is not None:
        model |= sizes_in(Path(plain["initial_weights"]))
        plain["model"] = model
    vocabulary_size, phases = VOCABULARY_SIZE, []
    for name, phase in plain["phases"].items():
        length = phase["max_seq_length"]
        has_sentence_task, mean_length = True, length * default_fill(length)
        shards = phase["shards"] or plain["shards"]
        if shards is not None:
            vocabulary_size, mean_length, has_sentence_task = facts_of_shards(Path(shards), length)
        if plain["planner"]["fill"] is not None:
            mean_length = length * plain["planner"]["fill"]
        phases.append(
            PlannedPhase(
                name,
                length,
                phase["max_predictions_per_seq"],
                phase["global_batch_size"],
                phase["total_steps"],
                mean_length,
                has_sentence_task,
                mean_mask_prob(phase, plain["masking"]["mask_prob"]),
            )
        )
    return Run(
        sizes=BertSizes.of_model(model, vocab_size=vocabulary_size),
        phases=phases,
        runtime=RuntimeSettings(**plain["runtime"]),
        optimizer=plain["optimizer"]["name"],
        checkpoint=CheckpointSettings(**plain["checkpoint"]),
    )


def mean_mask_prob(phase: dict[str, Any], otherwise: float) -> float:
    """Of a phase whose rate goes along a line from mask_prob to mask_prob_end."""
    first = otherwise if phase["mask_prob"] is None else phase["mask_prob"]
    last = first if phase["mask_prob_end"] is None else phase["mask_prob_end"]
    return float(first + last) / 2


def default_fill(max_seq_length: int) -> float:
    """Of Wikipedia's rows, by FILLS."""
    (short, high), (long, low) = FILLS.items()
    where = (math.log(max_seq_length) - math.log(short)) / (math.log(long) - math.log(short))
    return high + (low - high) * min(1.0, max(0.0, where))


def facts_of_shards(folder: Path, max_seq_length: int) -> tuple[int, float, bool]:
    """(size of the vocabulary, mean length of training rows, whether there is a sentence task); raises UserError."""
    from bert_lamb.shards.manifest import NO_SENTENCE_TASK, read_manifest

    manifest = read_manifest(folder)
    for one in manifest.instance_sets:
        if one.split == "train" and one.max_seq_length == max_seq_length and one.num_instances:
            mean_length = one.num_tokens / one.num_instances
            return manifest.vocabulary.size, mean_length, manifest.sentence_task != NO_SENTENCE_TASK
    lengths = sorted({one.max_seq_length for one in manifest.instance_sets if one.split == "train"})
    raise UserError(
        found=f"shards of length {', '.join(map(str, lengths))} in {folder}",
        expected=f"some of length {max_seq_length}",
        fix="set shards, or prepare that length",
    )


def sizes_in(folder: Path) -> dict[str, int]:
    """The sizes in config.json of a model's folder, by the names of the group `model`; raises UserError."""
    try:
        found = json.loads((folder / "config.json").read_bytes())
        return {name: int(found[theirs]) for name, theirs in SIZES_OF_A_FOLDER.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            found=f"no sizes of a BERT in {folder}/config.json ({type(error).__name__})",
            expected="a folder with a Hugging Face BERT",
            fix="set initial_weights",
        ) from error
