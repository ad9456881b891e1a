"""What a device can do by its data sheet: one table, each row with its source.

TFLOP/s are of dense matrix products (a sheet's figure "with sparsity" is twice that); bandwidths in GB/s (10^9).
Marks: [V] read in the source named while this was written; [R] from a data sheet as recalled.
"""

import difflib
from dataclasses import dataclass

from bert_lamb.errors import UserError

GB = 10**9


@dataclass(frozen=True)
class Gpu:
    """One device.

    generation: whose efficiencies it shares. tflops: by precision; one that is absent the device does not have.
    link_gbytes: to its neighbours within a node, each way. network_gbit: of a node, each way, in Gbit/s.
    has_flash: whether attention runs without padding there (compute capability 8.0 or more, or a CPU). watts: of the
    board, or of the share of a CPU.
    """

    name: str
    generation: str
    tflops: dict[str, float]
    memory_bytes: int
    memory_gbytes: float  # GB/s
    link_gbytes: float
    gpus_per_node: int
    network_gbit: float
    watts: float
    source: str
    has_flash: bool = True
    is_cpu: bool = False
    runs_bert_lamb: bool = True  # else it is here for the published rows


_V100 = {"fp16": 125.0, "fp32": 15.7}
_A100 = {"bf16": 312.0, "fp16": 312.0, "tf32": 156.0, "fp32": 19.5}
_HOPPER = {"bf16": 989.4, "fp16": 989.4, "tf32": 494.7, "fp32": 67.0, "fp8": 1979.0}
_B200 = {"bf16": 2250.0, "fp16": 2250.0, "tf32": 1125.0, "fp32": 75.0, "fp8": 4500.0}
_OF_V100 = "V100 SXM data sheet [R]; DGX-1: 4 x 100 Gbit/s [R]"
_OF_A100 = "A100 SXM data sheet [R]; DGX A100: 8 x 200 Gbit/s [R]"

GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("v100_16", "v100", _V100, 16 * GB, 900, 150, 8, 400, 300, _OF_V100, has_flash=False),
        Gpu("v100_32", "v100", _V100, 32 * GB, 900, 150, 8, 400, 300, _OF_V100, has_flash=False),
        Gpu("a100_40", "a100", _A100, 40 * GB, 1555, 300, 8, 1600, 400, _OF_A100),
        Gpu("a100_80", "a100", _A100, 80 * GB, 2039, 300, 8, 1600, 400, _OF_A100),
        Gpu("h100", "h100", _HOPPER, 80 * GB, 3350, 450, 8, 3200, 700, "H100 SXM data sheet [R]; DGX H100 [R]"),
        Gpu("h200", "h200", _HOPPER, 141 * GB, 4800, 450, 8, 3200, 700, "H200 SXM data sheet [R]; as DGX H100 [R]"),
        Gpu("b200", "b200", _B200, 180 * GB, 7700, 900, 8, 3200, 1000, "HGX B200 data sheet [R]"),
        # All-reduce bandwidth of a pod of 1,024 chips: 340 TB/s, or 332 GB/s a chip, taken as both ways together.
        Gpu(
            "tpu_v3",
            "tpu_v3",
            {"bf16": 123.0},
            32 * 2**30,
            900,
            166,
            1024,
            1300 * 1024,
            262,
            "cloud.google.com/tpu/docs/v3 [V]",
            runs_bert_lamb=False,
        ),
        # A rank of two cores. Peak: of a matrix product, measured; the rest is a guess.
        Gpu(
            "cpu",
            "cpu",
            {"fp32": 0.113},
            8 * GB,
            20,
            5,
            8,
            10,
            60,
            "two cores of an AMD EPYC, scripts/bench/results/train_step_epyc_2cpu.json",
            is_cpu=True,
        ),
    )
}
ALIASES = {"v100": "v100_32", "a100": "a100_80"}


def gpu_of(name: str) -> Gpu:
    """The device of that name; raises UserError."""
    found = GPUS.get(ALIASES.get(name, name))
    if found is None:
        near = difflib.get_close_matches(name, [*ALIASES, *GPUS], n=2)
        raise UserError(
            found=f"planner.gpu={name}",
            expected=f"one of {', '.join([*GPUS, *ALIASES])}",
            fix=f"set planner.gpu={near[0]}" if near else "set planner.gpu, or planner.measure=true on that machine",
        )
    return found


def peak_flops(gpu: Gpu, precision: str) -> float:
    """FLOP/s of dense matrix products in a precision; raises UserError where the device has no such units."""
    if precision not in gpu.tflops:
        raise UserError(
            found=f"runtime.precision={precision} on planner.gpu={gpu.name}",
            expected=f"one of {', '.join(gpu.tflops)}",
            fix="set runtime=cpu" if gpu.is_cpu else f"set runtime.precision={next(iter(gpu.tflops))} or planner.gpu",
        )
    return gpu.tflops[precision] * 1e12
