"""What travels between ranks in a step, and how long that takes.

A collective over n ranks moves, through the link of each, k (n - 1) / n times its bytes: k = 2 for an all-reduce, 1 for
a reduce-scatter, a gather or a broadcast. Within a node that goes over the rank's own link, each way; between nodes the
ranks of a node share its network. Rings run through both at once, so the slower one counts. With each call goes a
latency, for 2 log2 n hops. bandwidth x efficiency is what is reached; the efficiency is calibrated (calibration.py).
"""

import math
from dataclasses import dataclass
from typing import Literal

from bert_lamb.engine.settings import RuntimeSettings

FP32, HALF = 4, 2  # bytes
HOP_SECONDS = {"node": 3e-6, "network": 8e-6}  # of one hop: a guess, of the order of what NCCL's tests show
# Parameters that no layer has, of BERT-Large a tenth (engine/README.md). They come first and last: nothing hides them.
OUTSIDE_LAYERS = 0.1

Kind = Literal["all_reduce", "reduce_scatter", "all_gather", "reduce"]
FACTORS: dict[Kind, int] = {"all_reduce": 2, "reduce_scatter": 1, "all_gather": 1, "reduce": 1}
When = Literal["exposed", "backward", "forward"]  # what of it is hidden: nothing, or what fits behind this part


@dataclass(frozen=True)
class Collective:
    """parameter_bytes: moved for each parameter. num_calls: into which it is cut. when: see `When`; for OUTSIDE_LAYERS
    of it there is nothing to hide behind. in_every_micro_step: or once a step."""

    what: str
    kind: Kind
    parameter_bytes: float
    when: When = "exposed"
    num_calls: int = 1
    in_every_micro_step: bool = False


@dataclass(frozen=True)
class Network:
    """n ranks, so many on a node; bytes/s each way: of a rank's link, and of a node's network; efficiency in 0..1.

    reduces_on_the_way: switches add up, so that an all-reduce sends its bytes once.
    """

    num_gpus: int
    gpus_per_node: int
    link: float
    node: float
    efficiency: float
    reduces_on_the_way: bool = False

    @property
    def num_nodes(self) -> int:
        return -(-self.num_gpus // self.gpus_per_node)

    def seconds(self, collective: Collective, num_parameters: int) -> float:
        """Of one of it, hidden or not."""
        if self.num_gpus == 1:
            return 0.0
        factor = 1 if self.reduces_on_the_way else FACTORS[collective.kind]
        moved = factor * (self.num_gpus - 1) / self.num_gpus * collective.parameter_bytes * num_parameters
        is_alone = self.num_nodes == 1
        bandwidth = self.link if is_alone else min(self.link, self.node)
        hop = HOP_SECONDS["node" if is_alone else "network"]
        hops = 2 * math.ceil(math.log2(self.num_gpus))
        return moved / (bandwidth * self.efficiency) + collective.num_calls * hops * hop


def collectives_of(runtime: RuntimeSettings, *, num_layers: int) -> tuple[Collective, ...]:
    """What our engines send in a step, as counted in engine/README.md, "Which engine"."""
    weight = FP32 if runtime.precision == "fp32" else HALF
    if runtime.engine == "torch":
        return ()
    if runtime.engine == "fsdp":
        return (
            Collective("gradients", "reduce_scatter", FP32, "backward", num_layers + 1),
            Collective("weights", "all_gather", weight, "forward", num_layers + 1),
        )
    zero = runtime.deepspeed_overrides.get("zero_optimization", {})
    stage, overlaps = runtime.zero_stage, bool(zero.get("overlap_comm", False))
    if stage == 0:
        return (Collective("gradients", "all_reduce", FP32),)
    if stage == 1:
        hides = overlaps and runtime.precision != "bf16" and "reduce_bucket_size" in zero
        gradients = Collective("gradients", "all_reduce", FP32, "backward" if hides else "exposed")
        return (gradients, Collective("weights", "all_gather", weight))
    if stage == 2:
        when: When = "backward" if overlaps else "exposed"
        gradients = Collective("gradients", "all_reduce", FP32, when, in_every_micro_step=True)
        return (gradients, Collective("weights", "all_gather", weight))
    return (
        Collective("gradients", "reduce_scatter", FP32, num_calls=num_layers, in_every_micro_step=True),
        Collective("weights, forward", "all_gather", weight, num_calls=num_layers, in_every_micro_step=True),
        Collective("weights, backward", "all_gather", weight, num_calls=num_layers, in_every_micro_step=True),
    )


def exposed_seconds(
    collective: Collective, seconds: float, *, backward_seconds: float, forward_seconds: float
) -> float:
    """What of a collective's seconds adds to the step: all, or what the layers' computing does not cover."""
    if collective.when == "exposed":
        return seconds
    cover = backward_seconds if collective.when == "backward" else forward_seconds
    return max(OUTSIDE_LAYERS * seconds, seconds - cover)
