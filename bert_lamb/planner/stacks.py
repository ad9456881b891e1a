"""The programs whose results were published, as `Method`s: what is known of how each computes.

A stack has its own compute efficiency, since software of three years differs by 40 % on the same GPU; the efficiency of
the network is the GPU generation's. Bytes are [est], counted by reading: an error in them goes into the efficiency.
"""

from dataclasses import dataclass, field, replace

from bert_lamb.planner.step import Method
from bert_lamb.planner.traffic import HALF, Collective

# Bytes between matrix products a token and layer, in units of hidden_size, forward and backward, half precision: bias,
# dropout, residual, LayerNorm and GELU, each read and written by itself; or joined by a compiler or by hand.
SEPARATE, FUSED = 142.0, 88.0
# Of an attention score in half precision: written, masked, softmax, dropout, and the like backward, where a kernel for
# each keeps them (16 passes of 2 bytes); none where one kernel does it all.
KEPT_SCORES, NO_SCORES = 32.0, 0.0
GRADIENT_FP16 = Collective("gradients", "all_reduce", HALF)  # after accumulation, as DLE's scripts set it
GRADIENT_FP32 = Collective("gradients", "all_reduce", 2 * HALF)
HIDDEN_FP16 = (  # a reduce-scatter while layers compute, then a gather of weights: MLPerf's distributed LAMB
    Collective("gradients", "reduce_scatter", HALF, "backward", 25),
    Collective("weights", "all_gather", HALF, "forward", 25),
)


@dataclass(frozen=True)
class Stack:
    """precision: of the matrix products. mean_tokens: of a row as computed, by max_seq_length, where not all of it."""

    name: str
    precision: str
    method: Method
    mean_tokens: dict[int, float] = field(default_factory=dict)
    note: str = ""


def _method(elementwise: float, scores: float, *collectives: Collective, sharded: bool = False) -> Method:
    return Method(elementwise, scores, 6.0, 46.0, sharded, collectives)


def _in_fp32(elementwise: float, scores: float) -> Method:
    return Method(2 * elementwise, 2 * scores, 12.0, 46.0, False, (GRADIENT_FP32,))


# Mean real tokens of Wikipedia's rows at 512: 254 (MLPerf's packing); DLE of 2022 pads to the next multiple of 64.
PACKED, BINNED = {512: 254.0}, {512: 254.0 + 32.0}

STACKS = {
    stack.name: stack
    for stack in (
        Stack("dle_2019", "fp16", _method(SEPARATE, KEPT_SCORES, GRADIENT_FP16), note="NVIDIA DLE, container 19.07"),
        Stack(
            "dle_2019_16gb",
            "fp16",
            _method(SEPARATE, KEPT_SCORES, replace(GRADIENT_FP16, in_every_micro_step=True)),
            note="the same on 16 GB; taken to reduce in each micro-step, since accumulation does not speed it up",
        ),
        Stack("dle_2020", "fp16", _method(SEPARATE, KEPT_SCORES, GRADIENT_FP16), note="NVIDIA DLE, container 20.06"),
        Stack("dle_2020_fp32", "fp32", _in_fp32(SEPARATE, KEPT_SCORES), note="the same in fp32"),
        Stack("dle_2020_tf32", "tf32", _in_fp32(SEPARATE, KEPT_SCORES), note="the same in TF32"),
        Stack("dle_2022", "fp16", _method(FUSED, KEPT_SCORES, GRADIENT_FP16), BINNED, "NVIDIA DLE, container 21.11"),
        Stack("dle_2022_fp32", "fp32", _in_fp32(FUSED, KEPT_SCORES), BINNED, "the same in fp32"),
        Stack("dle_2022_tf32", "tf32", _in_fp32(FUSED, KEPT_SCORES), BINNED, "the same in TF32"),
        Stack("deepspeed", "fp16", _method(FUSED, KEPT_SCORES, GRADIENT_FP16), note="DeepSpeed's kernels, 2020"),
        Stack("mlperf", "fp8", _method(FUSED, NO_SCORES, *HIDDEN_FP16, sharded=True), PACKED, "MLPerf, NVIDIA, FP8"),
        Stack("lamb_paper", "bf16", _method(FUSED, KEPT_SCORES, GRADIENT_FP32), note="the LAMB paper, TensorFlow"),
    )
}
