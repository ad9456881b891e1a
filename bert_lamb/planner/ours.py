"""This framework as a `Method`, by its runtime, and the efficiencies that are taken for it.

One row of it was measured on a GPU (README.md); published programs' efficiencies stand for its own, until
`planner.measure=true`.
"""

from dataclasses import dataclass

from bert_lamb.engine.settings import RuntimeSettings
from bert_lamb.planner.hardware import Gpu, peak_flops
from bert_lamb.planner.published import Efficiencies
from bert_lamb.planner.stacks import FUSED, NO_SCORES, SEPARATE
from bert_lamb.planner.step import Method
from bert_lamb.planner.traffic import collectives_of

# (generation, precision) -> the published stack, and the generation, whose efficiency of products is taken.
TAKEN_FROM = {
    ("v100", "fp16"): ("dle_2022", "v100"),
    ("v100", "fp32"): ("dle_2022_fp32", "v100"),
    ("a100", "fp16"): ("dle_2022", "a100"),
    ("a100", "bf16"): ("dle_2022", "a100"),
    ("a100", "tf32"): ("dle_2022_tf32", "a100"),
    ("tpu_v3", "bf16"): ("lamb_paper", "tpu_v3"),
}
# Later generations are published in FP8 alone. For them A100's share of the peak is taken, but no more FLOP/s than the
# generation's FP8 run reaches.
HALF_OF_LATER, TF32_OF_LATER, FP32_OF_LATER = ("dle_2022", "a100"), ("dle_2022_tf32", "a100"), ("dle_2022_fp32", "v100")
OF_LATER = {"fp16": HALF_OF_LATER, "bf16": HALF_OF_LATER, "tf32": TF32_OF_LATER, "fp32": FP32_OF_LATER}
CPU_EFFICIENCY = 0.6  # all of a micro-step, of the product's rate: scripts/bench/results/train_step_epyc_2cpu.json
HOST_SECONDS_PER_LAYER = 1.25e-3  # launching forward and backward of 24 layers takes 30 ms of Python; counted on a CPU
# Bytes a parameter. DeepSpeed's BF16_Optimizer zeroes and adds in bf16, casts, and adds in fp32 in each micro-step, and
# concatenates, casts and copies once a step [read]; other engines add in fp32.
BF16_ACCUMULATION, BF16_ENGINE, ACCUMULATION = 26.0, 56.0, 12.0


@dataclass(frozen=True)
class Chosen:
    """An efficiency and where it is from."""

    value: float
    source: str


def precision_of_products(runtime: RuntimeSettings) -> str:
    return "tf32" if runtime.precision == "fp32" and runtime.tf32 else runtime.precision


def compute_efficiency(gpu: Gpu, precision: str, efficiencies: Efficiencies) -> Chosen:
    """What of the peak of matrix products is taken for a device and a precision."""
    if gpu.is_cpu:
        return Chosen(CPU_EFFICIENCY, "of a small BERT on two cores of an AMD EPYC")
    key = TAKEN_FROM.get((gpu.generation, precision))
    if key is not None:
        return Chosen(efficiencies.compute[key], f"fitted to {key[0]} on {key[1]}")
    key = OF_LATER[precision]
    value, source = efficiencies.compute[key], f"fitted to {key[0]} on {key[1]}: no {precision} run of {gpu.generation}"
    in_fp8 = efficiencies.compute.get(("mlperf", gpu.generation))
    if in_fp8 is not None and precision in ("bf16", "fp16"):
        limit = in_fp8 * peak_flops(gpu, "fp8") / peak_flops(gpu, precision)
        if limit < value:
            return Chosen(limit, f"as many FLOP/s as {gpu.generation}'s FP8 run in MLPerf")
    return Chosen(value, source)


def method_of(runtime: RuntimeSettings, *, optimizer: str, num_layers: int, gpu: Gpu, is_measured: bool) -> Method:
    """is_measured: compute efficiency is of a whole micro-step, so what is between products is in it; so on a CPU."""
    is_inside = is_measured or gpu.is_cpu
    units = SEPARATE if runtime.compiled_on("cpu" if gpu.is_cpu else "cuda") is None else FUSED
    width = 2 if runtime.precision == "fp32" else 1
    is_bf16_optimizer = runtime.engine == "deepspeed" and runtime.precision == "bf16"
    return Method(
        elementwise_units=0.0 if is_inside else width * units,
        score_bytes=NO_SCORES,
        accumulation_bytes=0.0 if is_measured else BF16_ACCUMULATION if is_bf16_optimizer else ACCUMULATION,
        optimizer_bytes=optimizer_bytes(optimizer, has_copy=runtime.precision != "fp32"),
        is_optimizer_sharded=runtime.engine == "fsdp" or (runtime.engine == "deepspeed" and runtime.zero_stage > 0),
        collectives=collectives_of(runtime, num_layers=num_layers),
        engine_bytes=BF16_ENGINE if is_bf16_optimizer else 0.0,
        host_seconds=0.0 if is_inside else HOST_SECONDS_PER_LAYER * num_layers,
        computes_forward_again=runtime.activation_checkpointing and not is_measured,
    )


def optimizer_bytes(name: str, *, has_copy: bool) -> float:
    """A parameter and step, fp32 gradients, weights and moments, of an adapted parameter (optim/README.md, "A step").

    norm          g 4
    LAMB, LARS    g 4 + w 4 + moments 8 each      pass 1
                  w 8 + moments 4 each            pass 3
    AdamW         g 4 + w 8 + moments 8 each
    copy          2                               weights of the forward pass
    """
    moments = {"lamb": 2, "lars": 1, "adamw": 2}[name]
    passes = 4 + 8 + 8 * moments if name == "adamw" else 4 + 4 + 8 * moments + 8 + 4 * moments
    return 4.0 + passes + (2.0 if has_copy else 0.0)
