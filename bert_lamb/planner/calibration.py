"""Two efficiencies for each GPU generation, fitted to published rows: of matrix products (by stack), of the network.

Least squares of log(arithmetic / published) over the rows, each row alike: one efficiency after the other, by golden
section. Where the rows of a generation cannot tell its network's efficiency, that of `NETWORK_OF` stands for it.
"""

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bert_lamb.planner.published import Efficiencies, Published, predict

FILE = Path(__file__).with_name("efficiencies.json")
# One node alone in its rows (H200), one row that spends on something else than traffic (B200, below), no row (CPU).
NETWORK_OF = {"h200": "h100", "b200": "h100", "cpu": "a100"}
# The same traffic a chip in every row, which cannot be told from computing: START stands.
NETWORK_GUESSED = ("tpu_v3",)
# Fitting this row would call 5 % of a link its bandwidth. With 16 rows a GPU its step lasts 37 ms, of which traffic, by
# this arithmetic, takes 3 and products 9; what takes the rest is not published.
NOT_FITTED = ("mlperf-gb200-512",)
START, ROUNDS, BOUNDS = 0.5, 8, (0.02, 1.2)
GOLDEN = (math.sqrt(5) - 1) / 2


def error(row: Published, efficiencies: Efficiencies) -> float:
    """Of the arithmetic, relative to what was published: positive where it says faster than it was."""
    ratio = predict(row, efficiencies) / row.value
    return ratio - 1 if row.unit == "seq/s" else 1 / ratio - 1


def fit(rows: Sequence[Published]) -> Efficiencies:
    """The efficiencies that fit the rows best; those of NOT_FITTED are left out."""
    rows = [row for row in rows if row.name not in NOT_FITTED]
    compute = {(row.stack.name, row.gpu.generation): START for row in rows}
    network = {row.gpu.generation: START for row in rows}
    for generation, other in NETWORK_OF.items():
        network[generation] = network[other]
    for _ in range(ROUNDS):
        for key in compute:
            own = [row for row in rows if (row.stack.name, row.gpu.generation) == key]
            compute[key] = _best(partial(_loss_at, own, compute, network, key))
        for generation in sorted(network.keys() - NETWORK_OF.keys() - set(NETWORK_GUESSED)):
            own = [row for row in rows if row.gpu.generation == generation]
            network[generation] = _best(partial(_loss_at, own, compute, network, generation))
        for generation, other in NETWORK_OF.items():
            network[generation] = network[other]
    return Efficiencies(compute, network)


def _loss_at(
    rows: Sequence[Published],
    compute: dict[tuple[str, str], float],
    network: dict[str, float],
    key: tuple[str, str] | str,
    value: float,
) -> float:
    """With one efficiency changed: of a stack on a generation, or of a generation's network."""
    if isinstance(key, tuple):
        compute = {**compute, key: value}
    else:
        network = {**network, key: value}
    efficiencies = Efficiencies(compute, network)
    return sum(math.log(predict(row, efficiencies) / row.value) ** 2 for row in rows)


def _best(loss: Callable[[float], float]) -> float:
    """Where a function with one valley is least, to 1e-4."""
    low, high = BOUNDS
    while high - low > 1e-4:
        left, right = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return (low + high) / 2


def source_of_network(generation: str) -> str:
    """Where the efficiency of a generation's network is from."""
    if generation in NETWORK_GUESSED:
        return "a guess: no row tells it from computing"
    other = NETWORK_OF.get(generation)
    return f"fitted to rows of {generation}" if other is None else f"fitted to rows of {other}, for want of its own"


def read_efficiencies() -> Efficiencies:
    content = json.loads(FILE.read_text())
    compute = {(one["stack"], one["generation"]): one["efficiency"] for one in content["compute"]}
    return Efficiencies(compute, content["network"])
