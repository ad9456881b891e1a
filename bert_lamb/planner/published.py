"""Published runs of BERT-Large (published.csv), and what the planner's arithmetic says of each."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bert_lamb.model.sizes import BertSizes, num_parameters, padded_vocab_size
from bert_lamb.planner.hardware import GPUS, Gpu, peak_flops
from bert_lamb.planner.stacks import STACKS, Stack
from bert_lamb.planner.step import Rank, Shape, StepTime, step_time
from bert_lamb.planner.traffic import Network

FILE = Path(__file__).with_name("published.csv")
BERT_LARGE = BertSizes(24, 1024, 4096, 16, padded_vocab_size(30_522, 8), 512)
NUM_PARAMETERS = num_parameters(BERT_LARGE)
PREDICTIONS = {128: 20, 512: 80}  # masked tokens of a full row, in all of them
GBIT = 1e9 / 8


@dataclass(frozen=True)
class PublishedPhase:
    max_seq_length: int
    global_batch_size: int
    total_steps: int
    accumulation: int


@dataclass(frozen=True)
class Published:
    """A row. unit: seq/s, of all GPUs together, or hours, of all phases."""

    name: str
    stack: Stack
    gpu: Gpu
    gpus: int
    gpus_per_node: int
    network_gbit: float
    phases: tuple[PublishedPhase, ...]
    unit: str
    value: float
    source: str


@dataclass(frozen=True)
class Efficiencies:
    """compute: of the peak of matrix products, by stack and GPU generation. network: by generation."""

    compute: Mapping[tuple[str, str], float]
    network: Mapping[str, float]


def read_published() -> list[Published]:
    """The rows, in the file's order."""
    with FILE.open(newline="") as file:
        return [
            Published(
                name=row["name"],
                stack=STACKS[row["stack"]],
                gpu=GPUS[row["gpu"]],
                gpus=int(row["gpus"]),
                gpus_per_node=int(row["gpus_per_node"]),
                network_gbit=float(row["network_gbit"]),
                phases=_phases(row["phases"], row["accumulation"]),
                unit=row["unit"],
                value=float(row["value"]),
                source=row["source"],
            )
            for row in csv.DictReader(file)
        ]


def _phases(phases: str, accumulation: str) -> tuple[PublishedPhase, ...]:
    """From "LENGTH x BATCH [x STEPS] + ..." and "N + ..."."""
    numbers = [[int(number) for number in phase.split("x")] for phase in phases.split("+")]
    counts = [int(number) for number in accumulation.split("+")]
    return tuple(
        PublishedPhase(length, batch, steps[0] if steps else 1, count)
        for (length, batch, *steps), count in zip(numbers, counts, strict=True)
    )


def predict(row: Published, efficiencies: Efficiencies) -> float:
    """The row's value by arithmetic."""
    seconds = sum(phase.total_steps * phase_step_time(row, phase, efficiencies).seconds for phase in row.phases)
    if row.unit == "hours":
        return seconds / 3600
    return sum(phase.total_steps * phase.global_batch_size for phase in row.phases) / seconds


def phase_step_time(row: Published, phase: PublishedPhase, efficiencies: Efficiencies) -> StepTime:
    length, stack = phase.max_seq_length, row.stack
    tokens = stack.mean_tokens.get(length, float(length))
    shape = Shape(
        rows=phase.global_batch_size / row.gpus / phase.accumulation,
        micro_steps=phase.accumulation,
        num_tokens=tokens,
        sum_squared_lengths=mean_squared_length(tokens, length),
        num_predictions=PREDICTIONS[length] * tokens / length,
    )
    rank = Rank(
        peak_flops(row.gpu, stack.precision),
        row.gpu.memory_gbytes * 1e9,
        efficiencies.compute[stack.name, row.gpu.generation],
    )
    network = Network(
        row.gpus,
        row.gpus_per_node,
        link=row.gpu.link_gbytes * 1e9,
        node=row.network_gbit * GBIT,
        efficiency=efficiencies.network[row.gpu.generation],
    )
    return step_time(BERT_LARGE, NUM_PARAMETERS, shape, stack.method, rank, network)


def mean_squared_length(mean_tokens: float, max_seq_length: int) -> float:
    """Of rows of which only the mean length is known: between all alike and either full or empty, half-way.

    Of full and partly full rows of the demo, 0.875 and 0.675 of max_seq_length^2 were counted, where this says 0.876
    and 0.646.
    """
    share = mean_tokens / max_seq_length
    return max_seq_length**2 * (share + share**2) / 2
