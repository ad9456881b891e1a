"""Bytes of the state that an engine keeps on a rank, by arithmetic; which share of a device may be filled. No torch."""

from bert_lamb.engine.settings import RuntimeSettings

# What a training may fill. The rest of a GPU is for CUDA's context, NCCL and gaps between tensors; on a CPU others live
# in the same memory, and there is less to gain.
USABLE_SHARES = {"cuda": 0.9, "cpu": 0.5}
FP32, HALF = 4, 2  # bytes
REDUCE_BUCKET_SIZE = 500_000_000  # elements; DeepSpeed's default


def reduce_bucket_size(num_parameters: int) -> int:
    """Elements of DeepSpeed's bucket of gradients, unless an override says otherwise: all, up to its default."""
    return min(REDUCE_BUCKET_SIZE, num_parameters)


def state_bytes(runtime: RuntimeSettings, num_parameters: int, world_size: int) -> float:
    """Weights, gradients, masters, moments and buffers on one rank in the middle of a step; at most."""
    return sum(state_parts(runtime, num_parameters, world_size).values())


def state_parts(runtime: RuntimeSettings, num_parameters: int, world_size: int) -> dict[str, float]:
    """`state_bytes` part by part.

    In fp32 on one device a parameter has its weight 4, gradient 4 and moments 8. Engines for several ranks keep the
    weight of the forward pass (2 in half precision), a micro-batch's gradient (2), the accumulated one (4), and a
    rank's share of masters 4, moments 8 and, but for ZeRO in half precision, the reduced gradient 4. ZeRO stages 2 and
    3 are given what stage 1 needs. Every stage but 1 in bf16 has a buffer for gradients, as large as
    `reduce_bucket_size` says: stage 1 during each backward pass. With `offload_optimizer` masters and moments are
    elsewhere.
    """
    if runtime.engine == "torch" or (runtime.engine == "deepspeed" and runtime.zero_stage == 0):
        return {
            "weights": FP32 * num_parameters,
            "gradients": FP32 * num_parameters,
            "moments": 2 * FP32 * num_parameters,
        }
    is_fp32 = runtime.precision == "fp32"
    share = num_parameters / world_size
    parts: dict[str, float] = {"weights": (FP32 if is_fp32 else HALF) * num_parameters}
    if not is_fp32:
        parts["gradients of a micro-batch"] = HALF * num_parameters
    parts["accumulated gradients"] = FP32 * num_parameters
    if not runtime.offload_optimizer:
        parts["masters"], parts["moments"] = FP32 * share, 2 * FP32 * share
    if runtime.offload_optimizer or runtime.engine == "fsdp" or is_fp32:
        parts["reduced gradients"] = FP32 * share
    is_bf16_stage_1 = runtime.zero_stage == 1 and runtime.precision == "bf16" and not runtime.offload_optimizer
    if runtime.engine == "deepspeed" and not is_bf16_stage_1:
        zero = runtime.deepspeed_overrides.get("zero_optimization", {})
        bucket = int(zero.get("reduce_bucket_size", reduce_bucket_size(num_parameters)))
        num_buckets = 2 if zero.get("overlap_comm", runtime.zero_stage == 3) else 1
        parts["buffers"] = num_buckets * bucket * (FP32 if is_fp32 or runtime.zero_stage == 1 else HALF)
    return parts
