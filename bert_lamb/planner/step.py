"""Seconds of an optimizer step on one rank: a roofline with two calibrated efficiencies, each part a line.

    products      FLOPs of the matrix products (model/flops.py) / (peak x compute efficiency)
    elementwise   bytes of what is between them / memory bandwidth
    scores        bytes of attention scores, where the kernel keeps them / memory bandwidth
    accumulation  bytes of adding a micro-batch's gradient to the others' / memory bandwidth
    host          what launching a micro-step takes; only where that is longer than all of the above
    optimizer     bytes of the optimizer's passes over this rank's share, and of what the engine does around it, of all
                  parameters / memory bandwidth
    network       what of the collectives nothing hides (traffic.py)

The parts are added up: they run one after the other. Memory bandwidth is the data sheet's x MEMORY_EFFICIENCY.
"""

from dataclasses import dataclass

from bert_lamb.model.flops import pretraining_flops
from bert_lamb.model.sizes import Sizes
from bert_lamb.planner.traffic import Collective, Network, exposed_seconds

MEMORY_EFFICIENCY = 0.85  # of what a copy reaches on GPUs; a guess that few results depend on
FORWARD_SHARE = 1 / 3  # of a micro-step


@dataclass(frozen=True)
class Shape:
    """A rank's part of a step: micro_steps times so many rows.

    num_tokens, sum_squared_lengths: of a row on average, as computed, padding included where it is computed.
    """

    rows: float
    micro_steps: int
    num_tokens: float
    sum_squared_lengths: float
    num_predictions: float
    has_sentence_task: bool = True

    def flops(self, sizes: Sizes) -> float:
        """Of a micro-step."""
        scale = 1_000  # the formula counts whole tokens
        whole = pretraining_flops(
            sizes,
            num_sequences=round(scale * self.rows),
            num_tokens=round(scale * self.rows * self.num_tokens),
            sum_squared_lengths=round(scale * self.rows * self.sum_squared_lengths),
            num_predictions=round(scale * self.rows * self.num_predictions),
            has_sentence_task=self.has_sentence_task,
        )
        return whole / scale


@dataclass(frozen=True)
class Method:
    """How a program computes.

    elementwise_units: bytes a token and layer between matrix products, in units of hidden_size. score_bytes: of each
    attention score (head, query, key) and layer, in all passes. accumulation_bytes: a parameter and micro-step.
    optimizer_bytes: a parameter and step. is_optimizer_sharded: a rank has its share of it. engine_bytes: a parameter
    and step, on every rank. host_seconds: of a micro-step. computes_forward_again: in the backward pass.
    """

    elementwise_units: float
    score_bytes: float
    accumulation_bytes: float
    optimizer_bytes: float
    is_optimizer_sharded: bool
    collectives: tuple[Collective, ...]
    engine_bytes: float = 0.0
    host_seconds: float = 0.0
    computes_forward_again: bool = False


@dataclass(frozen=True)
class Rank:
    """peak: FLOP/s; memory: bytes/s, of the data sheet; compute_efficiency in 0..1."""

    peak: float
    memory: float
    compute_efficiency: float


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step by part, and of each collective, hidden or not."""

    parts: dict[str, float]
    collectives: dict[str, float]
    flops: float  # of this rank

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())


def step_time(
    sizes: Sizes, num_parameters: int, shape: Shape, method: Method, rank: Rank, network: Network
) -> StepTime:
    """The step of every rank: they do alike."""
    memory, count = rank.memory * MEMORY_EFFICIENCY, shape.micro_steps
    layers, hidden = sizes.num_hidden_layers, sizes.hidden_size
    tokens, squares = shape.rows * shape.num_tokens, shape.rows * shape.sum_squared_lengths
    flops = shape.flops(sizes)
    micro = {
        "products": flops / (rank.peak * rank.compute_efficiency),
        "elementwise": method.elementwise_units * hidden * layers * tokens / memory,
        "scores": method.score_bytes * sizes.num_attention_heads * layers * squares / memory,
    }
    if method.computes_forward_again:
        micro = {name: seconds * (1 + FORWARD_SHARE) for name, seconds in micro.items()}
    computing = sum(micro.values())
    accumulation = method.accumulation_bytes * num_parameters / memory
    micro["accumulation"] = accumulation
    micro["host"] = max(0.0, method.host_seconds - computing - accumulation)
    parts = {name: count * seconds for name, seconds in micro.items()}
    share = num_parameters / network.num_gpus if method.is_optimizer_sharded else num_parameters
    parts["optimizer"] = (method.optimizer_bytes * share + method.engine_bytes * num_parameters) / memory
    collectives, exposed = {}, 0.0
    for one in method.collectives:
        times = count if one.in_every_micro_step else 1
        seconds = network.seconds(one, num_parameters)
        collectives[one.what] = times * seconds
        exposed += times * exposed_seconds(
            one,
            seconds,
            backward_seconds=computing * (1 - FORWARD_SHARE),
            forward_seconds=computing * FORWARD_SHARE,
        )
    parts["network"] = exposed
    return StepTime(parts, collectives, count * flops)
