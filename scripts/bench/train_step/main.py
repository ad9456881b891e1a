"""The command: settings, candidates, and the order of events."""

import argparse
import gc
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from kit import CHECKOUT
from kit.random_shards import make_shards
from kit.results import write_result
from kit.rounds import in_turns
from kit.surroundings import surroundings

import train_step
from bert_lamb.engine.launch import Process, process_group
from bert_lamb.engine.memory import Peak, peak_of
from bert_lamb.errors import UserError
from train_step.ceiling import matrix_product_flops
from train_step.flops import flops_of_ours, flops_of_transformers
from train_step.ours import LAMB, Ours, Settings
from train_step.peers import HuggingFaceTrainer, PlainLoop
from train_step.report import report
from train_step.workload import Workload, make_workload

FULL_SHARES = {128: 0.8, 512: 0.5}  # of random rows: fill about 0.90 and 0.75, as the demo's
TOKENS = 8_000_000  # of random rows of each length
RESULTS = CHECKOUT / "scripts" / "bench" / "results"
PRESETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "models": ["small"],
        "micro_batch_sizes": [32, 8],
        "accumulation": 2,
        "rounds": 5,
        "precision": "fp32",
    },
    "gpu": {
        "models": ["bert_base", "bert_large"],
        "micro_batch_sizes": [256, 64],
        "accumulation": 4,
        "rounds": 10,
        "precision": "bf16",
    },
}
CANDIDATES: dict[str, Callable[..., Any]] = {
    "transformers Trainer": partial(HuggingFaceTrainer, compiled=False),
    "transformers Trainer, compiled": partial(HuggingFaceTrainer, compiled=True),
    "plain loop": PlainLoop,
    "ours, padded": partial(Ours, settings=Settings(attention="sdpa")),
    "ours": partial(Ours, settings=Settings()),
    "ours, compiled": partial(Ours, settings=Settings(compile="layers")),
    "ours, LAMB": partial(Ours, settings=Settings(optimizer=LAMB)),
    "ours, LAMB, ZeRO 1": partial(Ours, settings=Settings(engine="deepspeed", optimizer=LAMB)),
    "ours, LAMB, fsdp": partial(Ours, settings=Settings(engine="fsdp", optimizer=LAMB)),
}
REFERENCE = "transformers Trainer"
MODELS = ("small", *sorted(file.stem for file in (CHECKOUT / "conf" / "model").glob("*.yaml")))


def main() -> None:
    try:
        run(parse())
    except UserError as error:
        sys.exit(f"train_step: {error}")


def run(settings: argparse.Namespace) -> None:
    """Measure every workload, write the result and print its tables."""
    torch.set_num_threads(settings.threads)
    warnings.filterwarnings("ignore", module="transformers")
    process = Process(0, 0, 1, torch.device(settings.device))
    about = surroundings(settings, packages=("transformers", "deepspeed", "triton", "accelerate"))
    about["ceiling"] = matrix_product_flops(process.device, settings.precision)
    results = []
    with ExitStack() as held:
        if any(name.endswith(("ZeRO 1", "fsdp")) for name in settings.candidates):
            held.enter_context(process_group(process))
        folders = settings.shards
        if folders is None:
            folders = [Path(held.enter_context(TemporaryDirectory())) / "random_rows"]
            folders[0].mkdir()
            make_shards(folders[0], {length: FULL_SHARES.get(length, 0.5) for length in settings.lengths}, TOKENS)
        for shards in folders:
            for model in settings.models:
                for length, micro_batch_size in zip(settings.lengths, settings.micro_batch_sizes, strict=True):
                    workload = make_workload(
                        shards,
                        model=model,
                        dropout=settings.dropout,
                        max_seq_length=length,
                        micro_batch_size=micro_batch_size,
                        accumulation=settings.accumulation,
                    )
                    results.append(measure(workload, process, settings, model))
                    result = {**about, "workloads": results}
                    write_result(settings.out, result)  # what there is, should a later one end it
    print(report(result))


def measure(workload: Workload, process: Process, settings: argparse.Namespace, model: str) -> dict[str, Any]:
    """All candidates in turns: in each round every one takes the same step."""
    candidates = {
        name: CANDIDATES[name](workload, process=process, precision=settings.precision) for name in settings.candidates
    }
    peaks: dict[str, float | None] = dict.fromkeys(candidates)
    first_losses = {}
    for name, candidate in candidates.items():  # which warms up
        is_counted = "compiled" not in name  # whose graphs are not seen operator by operator
        with peak_of(process.device) if is_counted else nullcontext(Peak()) as peak:
            first_losses[name] = candidate.step(1)["loss"]
        peaks[name] = peak.bytes / 1e9 if is_counted else None
    for name in candidates:
        if "compiled" in name:
            candidates[name].step(2)  # shapes that differ from the first are symbols from here on
    numbers = {name: iter(range(3, 3 + settings.rounds)) for name in candidates}

    def sample(name: str) -> dict[str, float]:
        taken: dict[str, float] = candidates[name].step(next(numbers[name]))
        return taken

    samples = in_turns([partial(sample, name) for name in candidates], num_rounds=settings.rounds)
    steps = [workload.micro_batches(number) for number in range(3, 3 + settings.rounds)]
    num_tokens = sum(len(batch.input_ids) for step in steps for batch in step)
    num_rows = workload.batches.global_batch_size * settings.rounds
    needed = sum(flops_of_ours(workload, step) for step in steps) / settings.rounds
    padded = sum(flops_of_transformers(workload, step) for step in steps) / settings.rounds
    rows = []
    for name, of_one in zip(candidates, samples, strict=True):
        seconds = [one["seconds"] for one in of_one]
        rows.append(
            {
                "candidate": name,
                "seconds": seconds,
                "median_seconds": median(seconds),
                "sequences_per_second": workload.batches.global_batch_size / median(seconds),
                "useful_flops_per_second": needed / median(seconds),
                "data_share": (
                    sum(one["data_seconds"] for one in of_one) / sum(seconds) if "data_seconds" in of_one[0] else None
                ),
                "peak_memory_gb": peaks[name],
                "first_loss": first_losses[name],
            }
        )
    by_name = {row["candidate"]: row for row in rows}
    for row in rows:
        reference = by_name.get(REFERENCE)
        row["ratio"] = (
            median(a / b for a, b in zip(reference["seconds"], row["seconds"], strict=True)) if reference else None
        )
    candidates.clear()
    gc.collect()
    return {
        "model": {"name": model, **workload.model},
        "shards": workload.name,
        "max_seq_length": workload.max_seq_length,
        "dropout": workload.dropout,
        "micro_batch_size": workload.batches.micro_batch_size,
        "global_batch_size": workload.batches.global_batch_size,
        "fill_of_shards": workload.mean_fill,
        "fill": num_tokens / (num_rows * workload.max_seq_length),
        "flops_per_step": needed,
        "flops_ratio": padded / needed,
        "rows": rows,
    }


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The settings, with those filled in that the preset decides."""
    parser = argparse.ArgumentParser(description=train_step.__doc__.splitlines()[0])
    parser.add_argument(
        "--shards", nargs="+", type=Path, help="folders made by bert-lamb prepare; default: random rows"
    )
    parser.add_argument("--preset", choices=tuple(PRESETS), help="default: gpu where there is one, else cpu")
    parser.add_argument("--models", nargs="+", choices=MODELS, help="small has hidden size 256 and 4 layers")
    parser.add_argument("--lengths", nargs="+", type=int, default=[128, 512])
    parser.add_argument("--micro-batch-sizes", nargs="+", type=int, help="sequences, one for each length")
    parser.add_argument("--accumulation", type=int, help="micro-batches of a step")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--precision", choices=("fp32", "bf16"))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch on the CPU")
    parser.add_argument("--candidates", nargs="+", choices=tuple(CANDIDATES), metavar="NAME")
    parser.add_argument("--out", type=Path, help="default: scripts/bench/results/train_step_PRESET.json")
    settings = parser.parse_args(arguments)
    if settings.preset is None:
        settings.preset = "gpu" if torch.cuda.is_available() else "cpu"
    settings.device = "cuda" if settings.preset == "gpu" else "cpu"
    for name, value in PRESETS[settings.preset].items():
        if getattr(settings, name) is None:
            setattr(settings, name, value)
    if settings.device == "cuda" and not torch.cuda.is_available():
        parser.error("--preset gpu needs a GPU that torch can use")
    if len(settings.lengths) != len(settings.micro_batch_sizes):
        parser.error(f"{len(settings.micro_batch_sizes)} micro-batch sizes for {len(settings.lengths)} lengths")
    if settings.candidates is None:  # compiling takes minutes on a CPU, and is measured when asked for
        settings.candidates = [name for name in CANDIDATES if settings.preset == "gpu" or "compiled" not in name]
    if settings.out is None:
        settings.out = RESULTS / f"train_step_{settings.preset}.json"
    return settings
