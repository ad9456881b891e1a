"""Seconds that training stands still for a checkpoint, and until it is there: written at once, and by a thread.

    python scripts/bench/checkpoint.py                          # BERT-Base with LAMB's state, in the temporary folder
    python scripts/bench/checkpoint.py --folder /scratch --optimizer adamw --out scripts/bench/results/NAME.json
    python scripts/bench/checkpoint.py --disk-rate 20 --copy-rate 25    # GB/s, for the second table

Both ways take turns, one save each a round. The second table is arithmetic: BERT-Large over many ranks, by the bytes of
a parameter and the two rates. README.md explains the columns.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from kit.results import write_result
from kit.rounds import in_turns
from kit.surroundings import surroundings
from kit.table import Column, number, table

from bert_lamb.checkpoint.position import Position
from bert_lamb.engine.launch import Process
from bert_lamb.engine.torch_engine import TorchEngine
from bert_lamb.model.bert import BertPretrainingModel, bert_config
from bert_lamb.optim import Lamb
from bert_lamb.outputs.run_dir import RunDir
from bert_lamb.train.batch_plan import plan_batch
from bert_lamb.train.keeper import Keeper
from bert_lamb.train.schedule import Schedule
from bert_lamb.train.settings import CheckpointSettings
from bert_lamb.train.task import Stage

VOCABULARY_SIZE = 30_522
SIZES = {  # layers, hidden size; as in conf/model
    "tiny": (2, 128),
    "bert_base": (12, 768),
    "bert_large": (24, 1024),
}
HEAD_SIZE = 64
OPTIMIZERS = {"lamb": partial(Lamb, lr=0.0, implementation="foreach"), "adamw": partial(torch.optim.AdamW, lr=0.0)}
BYTES_PER_PARAMETER = 12  # fp32: weight and two moments
RANKS = (8, 32, 128, 512, 1024)
LOOK_SECONDS = 0.001  # between two looks whether it is there


@dataclass(frozen=True)
class Sample:
    """Seconds of one save."""

    stopped: float
    until_there: float


@dataclass
class Row:
    """One way to save, and what was measured."""

    is_asynchronous: bool
    keeper: Keeper
    num_saves: int = 0
    num_bytes: int = 0  # of a checkpoint
    samples: list[Sample] = field(default_factory=list)


def config_of(model: str) -> Any:
    num_layers, hidden_size = SIZES[model]
    return bert_config(
        num_layers=num_layers,
        hidden_size=hidden_size,
        num_heads=hidden_size // HEAD_SIZE,
        intermediate_size=4 * hidden_size,
        dropout=0.1,
        max_position_embeddings=512,
        init_std=0.02,
        vocab_size=VOCABULARY_SIZE,
        vocab_size_multiple=8,
        pad_token_id=0,
    )


def num_parameters_of(model: str) -> int:
    """Counted without memory for them."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in BertPretrainingModel(config_of(model), seed=1).parameters())


def make_engine(model: str, optimizer: str) -> TorchEngine:
    module = BertPretrainingModel(config_of(model), seed=1)
    built = OPTIMIZERS[optimizer](list(module.parameters()))
    engine = TorchEngine(module, built, device=torch.device("cpu"), precision="fp32", max_grad_norm=1.0)
    for fragment in engine.owned_fragments():  # the moments are made here
        for tensor in fragment.tensors.values():
            tensor.normal_()
    return engine


def make_stage() -> Stage:
    sizes = {"global_batch_size": 8, "max_micro_batch_size": 8, "world_size": 1}
    plan = plan_batch(key="global_batch_size", **sizes, total_steps=10**6, max_seq_length=128)
    return Stage("phase1", 0, plan, Schedule(10**6, 1e-3, 0.0), num_instances=8)


def sample(row: Row, engine: TorchEngine, stage: Stage) -> Sample:
    """One save, while nothing else happens here: a step of training would make the thread slower, and be slower."""
    row.num_saves += 1
    position = Position(stage.name, row.num_saves, row.num_saves)
    start = time.perf_counter()
    row.keeper.save(engine, stage, position, is_by_clock=False)
    stopped = time.perf_counter() - start
    folder = row.keeper.run_dir.checkpoint_dir(stage.name, row.num_saves)
    while not folder.exists():
        is_writing, has_failed = row.keeper.known_here()
        row.keeper.heed(is_writing=is_writing, has_failed=has_failed)
        time.sleep(LOOK_SECONDS)
    until_there = time.perf_counter() - start
    row.keeper.settle()
    row.num_bytes = sum(path.stat().st_size for path in folder.iterdir())
    return Sample(stopped, until_there)


def measure(folder: Path, settings: argparse.Namespace) -> list[Row]:
    engine, stage = make_engine(settings.model, settings.optimizer), make_stage()
    process, rows = Process(0, 0, 1, torch.device("cpu")), []
    for is_asynchronous in (False, True):
        run_dir = RunDir(folder / ("thread" if is_asynchronous else "at_once"))
        run_dir.path.mkdir()
        kept = CheckpointSettings(0, 0, keep_last=1, keep_every=0, is_asynchronous=is_asynchronous)
        rows.append(Row(is_asynchronous, Keeper(run_dir, process, kept, about={})))
    for row in rows:
        sample(row, engine, stage)  # does not count: the thread's host memory is touched for the first time
    measurements = [partial(sample, row, engine, stage) for row in rows]
    for row, samples in zip(rows, in_turns(measurements, num_rounds=settings.rounds), strict=True):
        row.samples = samples
        row.keeper.finish()
    return rows


def record(row: Row) -> dict[str, Any]:
    return {
        "is_asynchronous": row.is_asynchronous,
        "num_bytes": row.num_bytes,
        "seconds_stopped": median(one.stopped for one in row.samples),
        "seconds_until_there": median(one.until_there for one in row.samples),
        "samples": [{"seconds_stopped": one.stopped, "seconds_until_there": one.until_there} for one in row.samples],
    }


def over_ranks(num_parameters: int, *, disk_rate: float, copy_rate: float) -> list[dict[str, Any]]:
    """By arithmetic. disk_rate: GB/s of the file system, for all ranks; copy_rate: of one rank to its host memory."""
    of_all = BYTES_PER_PARAMETER * num_parameters
    return [
        {
            "num_ranks": num_ranks,
            "bytes_per_rank": of_all / num_ranks,
            "seconds_stopped": of_all / num_ranks / copy_rate / 1e9,
            "seconds_until_there": of_all / num_ranks / copy_rate / 1e9 + of_all / disk_rate / 1e9,
        }
        for num_ranks in RANKS
    ]


MEASURED = (
    Column("written", lambda r: "by a thread" if r["is_asynchronous"] else "at once", is_text=True),
    Column("MB", lambda r: number(r["num_bytes"] / 1e6, ",.1f")),
    Column("stopped s", lambda r: number(r["seconds_stopped"], ".3f")),
    Column("there s", lambda r: number(r["seconds_until_there"], ".3f")),
)
CALCULATED = (
    Column("ranks", lambda r: number(r["num_ranks"], ",d")),
    Column("MB/rank", lambda r: number(r["bytes_per_rank"] / 1e6, ",.1f")),
    Column("stopped s", lambda r: number(r["seconds_stopped"], ".4f")),
    Column("there s", lambda r: number(r["seconds_until_there"], ".2f")),
)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=list(SIZES), default="bert_base")
    parser.add_argument("--optimizer", choices=list(OPTIMIZERS), default="lamb")
    parser.add_argument("--folder", type=Path, help="on the disk to measure; default: the temporary folder's")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of torch, for the copy")
    parser.add_argument("--disk-rate", type=float, default=1.0, help="GB/s of the file system, for all ranks together")
    parser.add_argument("--copy-rate", type=float, default=10.0, help="GB/s from one rank's device to its host memory")
    parser.add_argument("--out", type=Path, help="a JSON file for every sample and the surroundings")
    settings = parser.parse_args(arguments)
    settings.device = "cpu"
    return settings


def main() -> None:
    settings = parse()
    torch.set_num_threads(settings.threads)
    with tempfile.TemporaryDirectory(prefix="bert-lamb-bench-", dir=settings.folder) as folder:
        rows = measure(Path(folder), settings)
    num_parameters = num_parameters_of("bert_large")
    result = {
        **surroundings(settings, packages=("numpy", "safetensors")),
        "load_average": os.getloadavg(),
        "rows": [record(row) for row in rows],
        "num_parameters_of_bert_large": num_parameters,
        "bert_large": over_ranks(num_parameters, disk_rate=settings.disk_rate, copy_rate=settings.copy_rate),
    }
    if settings.out:
        write_result(settings.out, result)
    print(f"{settings.model}, {settings.optimizer}, measured; median of {settings.rounds}")
    print(table(MEASURED, result["rows"]))
    rates = f"{settings.disk_rate:g} GB/s to the disk in all, {settings.copy_rate:g} GB/s to each rank's host memory"
    print(f"\nbert_large, {num_parameters:,} parameters, by arithmetic: {rates}")
    print(table(CALCULATED, result["bert_large"]))


if __name__ == "__main__":
    main()
