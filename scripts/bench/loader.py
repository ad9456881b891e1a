"""Instances a second that one loader process makes: read, masked and collated to the micro-batches of the model.

    python scripts/bench/loader.py                        # lengths 128 and 512; in-process, 1 and 2 workers
    python scripts/bench/loader.py --micro-batch-size 64 --workers 0 4 --out scripts/bench/results/NAME.json

The shards are made first, in a temporary folder: 30,522 entries, 90 % full rows, 15 % of the tokens continue a word.
All rows take turns, one sample each a round. README.md explains the columns.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from kit.random_shards import make_shards
from kit.results import write_result
from kit.rounds import in_turns
from kit.surroundings import surroundings
from kit.table import Column, number, table

from bert_lamb.data.batches import MicroBatch, TrainingBatches, micro_batch
from bert_lamb.data.masking import MaskingRule, continuations
from bert_lamb.shards import Instances, open_instances

FULL_SHARE = 0.9  # of the rows; the others are of any length, as short_seq_prob 0.1 makes them
TOKENS_PER_SET = 8_000_000  # more than the caches hold: rows are read from all over the file
MAX_PREDICTIONS = {128: 20, 512: 80}  # as in the recipes
GLOBAL_BATCH_SIZE = 32_768
TARGETS = {128: 50_000, 512: 12_000}  # instances a second and process


@dataclass
class Row:
    """One way to load, its stream of micro-batches, and what was measured."""

    max_seq_length: int
    whole_word: bool
    num_workers: int
    stream: Iterator[MicroBatch]
    seconds: list[float] = field(default_factory=list)  # of a sample
    per_second: list[float] = field(default_factory=list)  # instances of all workers


def rule_of(instances: Instances, *, whole_word: bool) -> MaskingRule:
    vocabulary = instances.manifest.vocabulary
    return MaskingRule(
        mask_prob=0.15,
        mask_token_prob=0.8,
        random_token_prob=0.1,
        masking_copies=0,
        max_predictions_per_seq=MAX_PREDICTIONS.get(instances.max_seq_length, instances.max_seq_length // 6),
        vocab_size=vocabulary.size,
        mask_token_id=vocabulary.mask_id,
        special_token_ids=(vocabulary.cls_id, vocabulary.sep_id),
        is_continuation=continuations(instances.vocabulary_path) if whole_word else None,
    )


def make_row(
    instances: Instances, *, whole_word: bool, num_workers: int, micro_batch_size: int, num_batches: int
) -> Row:
    batches = TrainingBatches(
        instances,
        rule=rule_of(instances, whole_word=whole_word),
        seed=1,
        global_batch_size=GLOBAL_BATCH_SIZE,
        micro_batch_size=micro_batch_size,
        gradient_accumulation_steps=GLOBAL_BATCH_SIZE // micro_batch_size,
        rank=0,
        world_size=1,
    )
    total_steps = -(-num_batches * micro_batch_size // GLOBAL_BATCH_SIZE)
    stream = batches.loader(first_step=1, last_step=total_steps, num_workers=num_workers, pin_memory=False)
    return Row(instances.max_seq_length, whole_word, num_workers, stream)


def sample(row: Row, seconds: float) -> tuple[float, float]:
    """Load for about so long: (seconds it took, instances a second)."""
    start, num_instances, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < seconds:
        num_instances += len(next(row.stream).cu_seqlens) - 1
        elapsed = time.perf_counter() - start
    return elapsed, num_instances / elapsed


def sample_after_prefetched(row: Row, seconds: float) -> tuple[float, float]:
    """A sample without the batches that the workers had ready when it began."""
    num_ahead = 2 * row.num_workers  # DataLoader's prefetch_factor
    for _ in islice(row.stream, num_ahead):
        pass
    return sample(row, seconds)


def measure(instances: Instances, settings: argparse.Namespace) -> list[Row]:
    """The rows of one length, sampled in turns."""
    rows = [
        make_row(
            instances,
            whole_word=whole_word,
            num_workers=num_workers,
            micro_batch_size=settings.micro_batch_size,
            num_batches=1_000_000,
        )
        for num_workers in settings.workers
        for whole_word in (False, True)
    ]
    for row in rows:
        sample(row, settings.seconds)  # does not count: workers start, files are read for the first time
    measurements = [partial(sample_after_prefetched, row, settings.seconds) for row in rows]
    for row, samples in zip(rows, in_turns(measurements, num_rounds=settings.rounds), strict=True):
        row.seconds = [seconds for seconds, _ in samples]
        row.per_second = [rate for _, rate in samples]
    return rows


def parts_of_a_batch(instances: Instances, settings: argparse.Namespace) -> dict[str, float]:
    """Microseconds an instance, median over the rounds: read alone, then all of one micro-batch made by itself."""
    random = np.random.default_rng(0)
    rules = {name: rule_of(instances, whole_word=name == "whole_word") for name in ("plain", "whole_word")}
    found: dict[str, list[float]] = {"read": [], **{name: [] for name in rules}}
    for _ in range(20 * settings.rounds):
        indices = random.integers(0, len(instances), settings.micro_batch_size)
        start = time.perf_counter()
        instances.take(indices)
        found["read"].append(time.perf_counter() - start)
        for name, rule in rules.items():
            start = time.perf_counter()
            micro_batch(instances, indices, np.zeros_like(indices), rule=rule, seed=1)
            found[name].append(time.perf_counter() - start)
    return {name: 1e6 * median(seconds) / settings.micro_batch_size for name, seconds in found.items()}


def record(row: Row) -> dict[str, Any]:
    per_process = median(row.per_second) / max(1, row.num_workers)
    target = TARGETS.get(row.max_seq_length)
    return {
        "max_seq_length": row.max_seq_length,
        "whole_word": row.whole_word,
        "num_workers": row.num_workers,
        "instances_per_second": median(row.per_second),
        "instances_per_second_per_process": per_process,
        "min": min(row.per_second),
        "max": max(row.per_second),
        "target_per_process": target,
        "of_target": None if target is None else per_process / target,
        "samples": row.per_second,
        "seconds": row.seconds,
    }


COLUMNS = (
    Column("length", lambda r: str(r["max_seq_length"])),
    Column("masking", lambda r: "whole word" if r["whole_word"] else "plain", is_text=True),
    Column("workers", lambda r: number(r["num_workers"] or None, "d")),
    Column("inst/s", lambda r: number(r["instances_per_second"], ",.0f")),
    Column("min", lambda r: number(r["min"], ",.0f")),
    Column("max", lambda r: number(r["max"], ",.0f")),
    Column("/process", lambda r: number(r["instances_per_second_per_process"], ",.0f")),
    Column("of target", lambda r: number(r["of_target"], ".0%")),
)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="0: in the training process")
    parser.add_argument("--micro-batch-size", type=int, default=32, help="a divisor of 32,768")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of one sample")
    parser.add_argument("--tokens", type=int, default=TOKENS_PER_SET, help="of the shards of one length")
    parser.add_argument("--out", type=Path, help="a JSON file for every sample and the surroundings")
    settings = parser.parse_args(arguments)
    if GLOBAL_BATCH_SIZE % settings.micro_batch_size:
        parser.error(
            f"found --micro-batch-size {settings.micro_batch_size}; expected a divisor of {GLOBAL_BATCH_SIZE:,}"
        )
    settings.device = "cpu"
    return settings


def main() -> None:
    settings = parse()
    torch.set_num_threads(1)
    rows: list[Row] = []
    parts = {}
    with tempfile.TemporaryDirectory(prefix="bert-lamb-bench-") as folder:
        make_shards(Path(folder), dict.fromkeys(settings.lengths, FULL_SHARE), settings.tokens)
        for length in settings.lengths:
            instances = open_instances(Path(folder), max_seq_length=length, split="train")
            parts[length] = parts_of_a_batch(instances, settings)
            rows += measure(instances, settings)
    result = {
        **surroundings(settings, packages=("numpy", "pyarrow")),
        "load_average": os.getloadavg(),
        "rows": [record(row) for row in rows],
    }
    result["microseconds_per_instance"] = parts
    if settings.out:
        write_result(settings.out, result)
    for length, of_length in parts.items():
        text = ", ".join(f"{name} {microseconds:.1f}" for name, microseconds in of_length.items())
        print(f"length {length}, microseconds an instance: {text}")
    print(table(COLUMNS, result["rows"]))


if __name__ == "__main__":
    main()
