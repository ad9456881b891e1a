"""The adapter refuses what it does not know, and the configuration what would make it wrong.

Truth: partitions made by hand. Breaks that turn this file red: skipping the element-wise check, accepting any wrapper.
"""

import pytest
import torch
import torch.distributed

from bert_lamb.engine.deepspeed_json import check_overrides, deepspeed_json
from bert_lamb.engine.launch import join_process_group, this_process
from bert_lamb.engine.zero_layout import UnknownLayoutError, read_layout
from bert_lamb.errors import UserError, UserErrors


@pytest.fixture(scope="module", autouse=True)
def process_group():
    join_process_group(this_process(device="cpu", num_threads=None))
    yield
    torch.distributed.destroy_process_group()


class DeepSpeedZeroOptimizer:
    """The private attributes of DeepSpeed's stage 1 and 2 wrapper that the adapter reads, for one rank."""

    def __init__(self, parameters, *, order=None, padding=3):
        order = order or range(len(parameters))
        flat = torch.cat([*(parameters[i].detach().view(-1) for i in order), torch.zeros(padding)])
        self.single_partition_of_fp32_groups = [flat]
        self.round_robin_bit16_groups = [list(parameters)]
        sizes = [p.numel() for p in parameters]
        self.round_robin_bit16_offsets = [[sum(sizes[:i]) for i in range(len(sizes))]]
        self.bit16_groups_flat = [flat]
        self.real_dp_process_group = [torch.distributed.group.WORLD]


@pytest.fixture
def module():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))


def read(wrapper, module):
    return read_layout(wrapper, torch.optim.SGD(module.parameters(), lr=0.1), module)


def test_a_known_layout_is_read(module):
    (partition,) = read(DeepSpeedZeroOptimizer(list(module.parameters())), module)
    cut = [(piece.name, piece.start, piece.numel) for piece in partition.pieces]
    assert cut == [("0.weight", 0, 15), ("0.bias", 0, 5), ("1.weight", 0, 10), ("1.bias", 0, 2), (None, 0, 3)]


def test_elements_in_another_place_are_refused(module):
    """What an upgrade that reorders parameters would look like: sizes fit, values do not."""
    wrapper = DeepSpeedZeroOptimizer(list(module.parameters()), order=[2, 1, 0, 3])
    with pytest.raises(UnknownLayoutError, match=r"elements 0\.\.15 of 0\.weight are not where"):
        read(wrapper, module)


def test_a_missing_parameter_is_refused(module):
    wrapper = DeepSpeedZeroOptimizer(list(module.parameters())[:-1])
    with pytest.raises(UnknownLayoutError, match=r"every element exactly once of 1\.bias"):
        read(wrapper, module)


def test_an_unknown_wrapper_is_refused(module):
    class NextYearsOptimizer(DeepSpeedZeroOptimizer):
        pass

    with pytest.raises(UnknownLayoutError, match="NextYearsOptimizer"):
        read(NextYearsOptimizer(list(module.parameters())), module)


SETTINGS = {
    "num_parameters": 1000,
    "micro_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "world_size": 3,
    "precision": "bf16",
    "zero_stage": 2,
    "offload_optimizer": False,
    "max_grad_norm": 1.0,
    "initial_loss_scale": None,
    "overrides": {},
}


@pytest.mark.parametrize(
    "overrides",
    [
        {"zero_optimization": {"round_robin_gradients": True}},
        {"zero_optimization": {"elastic_checkpoint": True}},
        {"zero_optimization": {"stage": 3}},
        {"zero_optimization": {"compute_grad_norm": False}},
        {"zero_optimization": {"zero_quantized_gradients": True}},
        {"zero_optimization": {"zero_quantized_weights": True}},
        {"zero_optimization": {"zero_hpz_partition_size": 8}},
        {"zero_optimization": {"mics_shard_size": 8}},
        {"zero_optimization": {"zenflow": {"topk_ratio": 0.1}}},
        {"zero_optimization": {"offload_optimizer": {"device": "nvme", "nvme_path": "/tmp"}}},
        {"zero_optimization": {"offload_optimizer": {"super_offload": True}}},
        {"zero_optimization": {}},
        {"zero_optimisation": {"overlap_comm": True}},  # DeepSpeed takes no notice of what it does not know
        {"optimizer": {"type": "Lamb"}},
        {"scheduler": {"type": "WarmupLR"}},
        {"gradient_clipping": 3.0},
        {"gradient_allreduce_op": "mean"},
        {"gradient_predivide_factor": 2.0},
        {"prescale_gradients": True},
        {"managed_gradient_accumulation": False},
        {"communication_data_type": "bf16"},
        {"data_types": {"grad_accum_dtype": "bf16"}},
        {"bf16": {"enabled": False}},
        {"bf16": {"bf16_master_weights_and_grads": True}},
        {"bf16": {"bf16_optimizer_states": True}},
        {"bfloat16": {"enabled": True}},
        {"fp16": {"fp16_master_weights_and_grads": True}},
        {"fp16": {"auto_cast": True}},
        {"torch_autocast": {"enabled": True, "dtype": "bfloat16"}},
        {"amp": {"enabled": True}},
        {"compression_training": {"weight_quantization": {"shared_parameters": {"enabled": True}}}},
        {"progressive_layer_drop": {"enabled": True}},
        {"sparse_gradients": True},
        {"train_batch_size": 7},
    ],
    ids=str,
)
def test_overrides_that_could_change_the_update_are_refused(overrides):
    with pytest.raises(UserError, match="no such override"):
        deepspeed_json(**{**SETTINGS, "overrides": overrides})


def test_all_overrides_are_complained_of_at_once():
    overrides = {
        "bf16": {"bf16_master_weights_and_grads": True},
        "zero_optimization": {"stage": 1, "overlap_comm": True},
    }
    with pytest.raises(UserErrors) as raised:
        check_overrides(overrides)
    assert [complaint.found for complaint in raised.value.complaints] == [
        "runtime.deepspeed_overrides.bf16.bf16_master_weights_and_grads",
        "runtime.deepspeed_overrides.zero_optimization.stage",
    ]
    assert "masters are fp32" in str(raised.value)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_stage_0_in_low_precision_is_refused(precision):
    """DeepSpeed has only the weights' precision to accumulate in there."""
    with pytest.raises(UserError, match=f"ZeRO stage 0 with {precision}"):
        deepspeed_json(**{**SETTINGS, "precision": precision, "zero_stage": 0})


def test_generated_json():
    """Written out once by hand; overrides are merged last, key by key."""
    found = deepspeed_json(**{**SETTINGS, "overrides": {"zero_optimization": {"overlap_comm": False}}})
    expected = {
        "train_batch_size": 24,
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": 2,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": 2, "reduce_bucket_size": 1000, "overlap_comm": False},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "communication_data_type": "fp32",
        "gradient_allreduce_op": "sum",
        "steps_per_print": None,
        "wall_clock_breakdown": False,
        "timers": {"throughput": {"enabled": False}},
        "bf16": {"enabled": True},
        "data_types": {"grad_accum_dtype": "fp32"},
    }
    assert found == expected
    stage_3 = deepspeed_json(**{**SETTINGS, "zero_stage": 3})
    zero = {"stage": 3, "reduce_bucket_size": 1000}
    assert stage_3 == {**expected, "zero_optimization": zero, "gradient_allreduce_op": "mean"}
    large = deepspeed_json(**{**SETTINGS, "num_parameters": 10**9})
    assert large["zero_optimization"]["reduce_bucket_size"] == 5 * 10**8  # DeepSpeed's default
    stage_1 = deepspeed_json(**{**SETTINGS, "zero_stage": 1})
    assert stage_1["bf16"] == {"enabled": True, "immediate_grad_update": True}
    fp16 = deepspeed_json(**{**SETTINGS, "precision": "fp16", "initial_loss_scale": 4096.0})
    assert fp16["fp16"] == {"enabled": True, "initial_scale_power": 12}
    # What 3 ranks sum is about a third of what they average, before they meet; a power of two next to it.
    for zero_stage, power in ((1, 18), (2, 18), (3, 16)):
        json = deepspeed_json(**{**SETTINGS, "precision": "fp16", "zero_stage": zero_stage})
        assert json["fp16"]["initial_scale_power"] == power


def test_the_throughput_timer_is_off():
    """On a GPU it would wait for the device before and after every micro-step; as DeepSpeed itself reads the json."""
    from deepspeed.utils.config import get_timers_config

    assert not get_timers_config(deepspeed_json(**SETTINGS)).enabled
