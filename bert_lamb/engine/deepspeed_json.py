"""DeepSpeed's configuration, made from ours, and which of its settings a user may override."""

import math
from collections.abc import Iterator
from typing import Any

from bert_lamb.engine.state_size import reduce_bucket_size
from bert_lamb.errors import UserError, UserErrors

REASONS = {  # why an override is refused, where there is more to say than that it is not on the list
    "train_batch_size": "it follows from phases.*.global_batch_size",
    "train_micro_batch_size_per_gpu": "it follows from runtime.micro_batch_size",
    "gradient_accumulation_steps": "it follows from the batch sizes",
    "gradient_clipping": "it follows from max_grad_norm",
    "optimizer": "it follows from optimizer=...",
    "scheduler": "it follows from phases.*",
    "bf16.enabled": "it follows from runtime.precision",
    "fp16.enabled": "it follows from runtime.precision",
    "zero_optimization.stage": "it follows from runtime.zero_stage",
    "managed_gradient_accumulation": "the engine counts micro-steps as DeepSpeed does by default",
    "data_types": "gradients are accumulated in fp32",
    "communication_data_type": "gradients are summed over ranks in fp32",
    "gradient_allreduce_op": "losses arrive as shares of the global batch, so gradients are summed",
    "bf16.bf16_master_weights_and_grads": "masters are fp32",
    "bf16.bf16_optimizer_states": "moments are fp32",
    "fp16.fp16_master_weights_and_grads": "masters are fp32",
    "fp16.auto_cast": "the model takes token ids, which must not be cast",
    "torch_autocast": "it follows from runtime.precision",
    "zero_optimization.offload_optimizer.device": "it follows from runtime.offload_optimizer",
    "zero_optimization.zero_quantized_gradients": "gradients are summed over ranks in fp32",
    "zero_optimization.zero_quantized_weights": "weights travel as they are",
    "zero_optimization.compute_grad_norm": "clipping and the log need the norm",
    "zero_optimization.round_robin_gradients": "DeepSpeed's own parameter map is wrong with it",
    "zero_optimization.elastic_checkpoint": "broken in DeepSpeed 0.19.8; checkpoints here change world size anyway",
}
# What may be overridden changes speed, memory or what DeepSpeed prints, never the update. A name allows all below it.
ALLOWED_OVERRIDES = {
    "activation_checkpointing",
    "aio",
    "comms_logger",
    "disable_python_gc",
    "dump_state",
    "flops_profiler",
    "fp16.consecutive_hysteresis",
    "fp16.hysteresis",
    "fp16.initial_scale_power",
    "fp16.loss_scale",
    "fp16.loss_scale_window",
    "fp16.min_loss_scale",
    "memory_breakdown",
    "steps_per_print",
    "timers",
    "wall_clock_breakdown",
    *(
        f"zero_optimization.{name}"
        for name in (
            "allgather_bucket_size",
            "allgather_partitions",
            "contiguous_gradients",
            "enable_sanity_checks",
            "log_trace_cache_warnings",
            "memory_efficient_linear",
            "offload_optimizer.buffer_count",
            "offload_optimizer.fast_init",
            "offload_optimizer.pin_memory",
            "offload_param.buffer_count",
            "offload_param.buffer_size",
            "offload_param.device",
            "offload_param.max_in_cpu",
            "offload_param.pin_memory",
            "overlap_comm",
            "parameter_alignment",
            "reduce_bucket_size",
            "reduce_scatter",
            "stage3_allgather_sequential",
            "stage3_max_live_parameters",
            "stage3_max_reuse_distance",
            "stage3_model_persistence_threshold",
            "stage3_module_granularity_threshold",
            "stage3_param_persistence_threshold",
            "stage3_prefetch_bucket_size",
            "stage3_use_all_reduce_for_fetch_params",
            "sub_group_size",
            "use_multi_rank_bucket_allreduce",
        )
    ),
}


def deepspeed_json(
    *,
    num_parameters: int,
    micro_batch_size: int,
    gradient_accumulation_steps: int,
    world_size: int,
    precision: str,
    zero_stage: int,
    offload_optimizer: bool,
    max_grad_norm: float,
    initial_loss_scale: float | None,
    overrides: dict[str, Any],
) -> dict[str, Any]:
    """DeepSpeed's configuration from ours; `overrides` is merged last, key by key.

    Gradients are accumulated and summed over ranks in fp32: left to itself DeepSpeed rounds them to the weights' dtype
    on the way, even on one rank. Stages 0 to 2 sum them, since they would divide them by the number of ranks before
    they leave the weights' dtype; stage 3 can only average (see `DeepSpeedEngine.backward`). DeepSpeed's buffer for
    gradients, as large as `reduce_bucket_size` however small the model, is no larger than all `num_parameters` need.
    Raises UserError for overrides that are not known to leave the update as it is, and for stage 0 with a precision
    other than fp32, where DeepSpeed accumulates in the weights' dtype.
    """
    check_overrides(overrides)
    if precision != "fp32" and zero_stage == 0:
        raise UserError(
            found=f"ZeRO stage 0 with {precision}",
            expected="fp32 there: DeepSpeed accumulates gradients in the weights' precision",
            fix="set runtime.zero_stage=1, which is the same on one rank",
        )
    config: dict[str, Any] = {
        "train_batch_size": micro_batch_size * gradient_accumulation_steps * world_size,
        "train_micro_batch_size_per_gpu": micro_batch_size,
        "gradient_accumulation_steps": gradient_accumulation_steps,
        "gradient_clipping": max_grad_norm,
        "zero_optimization": {"stage": zero_stage, "reduce_bucket_size": reduce_bucket_size(num_parameters)},
        "zero_allow_untested_optimizer": True,  # LAMB is not on DeepSpeed's list; read_layout and bind make it exact
        "zero_force_ds_cpu_optimizer": False,
        "communication_data_type": "fp32",
        "gradient_allreduce_op": "mean" if averages_gradients(zero_stage) else "sum",
        "steps_per_print": None,
        "wall_clock_breakdown": False,
        "timers": {"throughput": {"enabled": False}},  # it waits for the GPU twice in every micro-step
    }
    if offload_optimizer:
        config["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
    if precision == "bf16":
        config["bf16"] = {"enabled": True}
        if (
            zero_stage == 1
        ):  # the only one that knows it: a gradient is added to the fp32 sum at once, not first in bf16
            config["bf16"]["immediate_grad_update"] = True
    if precision == "fp16":
        # Gradients that are summed are smaller before they meet than those that are to be averaged.
        start = 16 if averages_gradients(zero_stage) else 16 + math.ceil(math.log2(world_size))
        power = start if initial_loss_scale is None else int(math.log2(initial_loss_scale))
        config["fp16"] = {"enabled": True, "initial_scale_power": power}
    if precision != "fp32":
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return _merge(config, overrides)


def check_overrides(overrides: dict[str, Any]) -> None:
    """Raise UserErrors, one for each override that is not known to leave the update as it is."""
    complaints = [
        UserError(
            found=f"runtime.deepspeed_overrides.{key}",
            expected=f"no such override: {_reason(key)}",
            fix="remove it, or set the key of ours that decides it (bert-lamb pretrain --cfg job prints them)",
        )
        for key in _leaves(overrides)
        if not _is_allowed(key)
    ]
    if complaints:
        raise UserErrors(complaints)


def averages_gradients(zero_stage: int) -> bool:
    """Whether DeepSpeed can only average gradients over ranks in this stage, and not sum them."""
    return zero_stage == 3


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def _is_allowed(key: str) -> bool:
    parts = key.split(".")
    return any(".".join(parts[:length]) in ALLOWED_OVERRIDES for length in range(1, len(parts) + 1))


def _reason(key: str) -> str:
    parts = key.split(".")
    known = (REASONS.get(".".join(parts[:length])) for length in range(1, len(parts) + 1))
    return next(filter(None, known), "it is not among those that are known to leave the update as it is")


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        is_subtree = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _merge(base[key], value) if is_subtree else value
    return merged
