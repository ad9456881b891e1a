"""From the configuration to the optimizer: every switch arrives where it acts.

Breaks that turn this file red: a switch left out of build_optimizer, groups exchanged, awaits_binding forgotten.
"""

from dataclasses import replace

import pytest
import torch

from bert_lamb.cli.compose import compose
from bert_lamb.engine import build as engine_build
from bert_lamb.engine.build import RuntimeSettings
from bert_lamb.engine.launch import Process
from bert_lamb.errors import UserError
from bert_lamb.model.encoder import Execution, choose_attention, choose_execution
from bert_lamb.optim import Lamb, Lars, fused
from bert_lamb.optim.build import build_optimizer
from bert_lamb.outputs.plain import to_plain
from bert_lamb.pretraining.command import recipe_of

TABLE = "word_embeddings.weight"
NAMED = {TABLE: (4, 4), "dense.weight": (4, 4), "dense.bias": (4,), "LayerNorm.weight": (4,)}


class Model(torch.nn.Module):
    def named_parameters(self, *args, **kwargs):
        return [(name, torch.nn.Parameter(torch.ones(shape))) for name, shape in NAMED.items()]


def settings(*overrides):
    """The plain values that the command makes of the configuration."""
    plain = to_plain(compose("pretrain", ["recipe=lamb_32k", "shards=/s", "run_dir=/r", *overrides]))
    return recipe_of(plain).optimizer, RuntimeSettings(**plain["runtime"])


def check_kernels(overrides, process):
    optimizer, runtime = settings(*overrides)
    engine_build.check_kernels(optimizer.implementation, runtime, process)


def build(*overrides):
    optimizer, runtime = settings(*overrides)
    return build_optimizer(Model(), optimizer, awaits_binding=runtime.engine == "deepspeed")


def test_lamb_by_default():
    optimizer = build()
    assert type(optimizer) is Lamb
    assert [(g["weight_decay"], g["adapt"]) for g in optimizer.param_groups] == [(0.01, True), (0.0, False)]
    assert optimizer.param_groups[0]["param_names"] == [TABLE, "dense.weight"]
    assert (optimizer.implementation, optimizer.awaits_binding, optimizer.skip_nonfinite) == ("auto", True, False)


@pytest.mark.parametrize(
    ("override", "read", "expected"),
    [
        ("optimizer.betas=[0.8,0.9]", lambda o: tuple(o.param_groups[0]["betas"]), (0.8, 0.9)),
        ("optimizer.eps=1e-5", lambda o: o.param_groups[1]["eps"], 1e-5),
        ("optimizer.bias_correction=false", lambda o: o.param_groups[0]["bias_correction"], False),
        ("optimizer.nesterov=first", lambda o: o.param_groups[0]["nesterov"], "first"),
        ("optimizer.weight_decay=0.3", lambda o: [g["weight_decay"] for g in o.param_groups], [0.3, 0.0]),
        ("optimizer.adapt_undecayed=true", lambda o: o.param_groups[1]["adapt"], True),
        ("optimizer.exempt_embeddings=true", lambda o: TABLE in o.param_groups[1]["param_names"], True),
        ("optimizer.norm=linf", lambda o: o.trust_ratio.norm, "linf"),
        ("optimizer.param_norm_bounds=[0,10]", lambda o: o.trust_ratio.param_norm_bounds, [0, 10]),
        ("optimizer.trust_ratio_bounds=[0.01,0.3]", lambda o: o.trust_ratio.ratio_bounds, [0.01, 0.3]),
        ("optimizer.implementation=reference", lambda o: o.implementation, "reference"),
        ("runtime.engine=torch", lambda o: o.awaits_binding, False),
    ],
)
def test_switches_of_lamb(override, read, expected):
    assert read(build()) != expected
    assert read(build(override)) == expected


def test_lars():
    optimizer = build("optimizer=lars", "optimizer.beta=0.8", "optimizer.norm=l1")
    assert type(optimizer) is Lars
    assert (optimizer.param_groups[0]["beta"], optimizer.trust_ratio.norm, optimizer.awaits_binding) == (
        0.8,
        "l1",
        True,
    )
    assert [(g["weight_decay"], g["adapt"]) for g in optimizer.param_groups] == [(0.01, True), (0.0, False)]


def test_adamw():
    optimizer = build("optimizer=adamw", "optimizer.eps=1e-8")
    assert type(optimizer) is torch.optim.AdamW
    assert [(g["weight_decay"], g["eps"]) for g in optimizer.param_groups] == [(0.01, 1e-8), (0.0, 1e-8)]


GPU = Process(rank=1, local_rank=0, world_size=2, device=torch.device("cuda", 0))
NO_COMPILER = "a kernel cannot be compiled and launched (RuntimeError: Failed to find C compiler)"


@pytest.mark.parametrize(
    ("overrides", "reason", "said"),
    [
        ((), None, ""),
        ((), NO_COMPILER, f"optimizer.implementation=auto takes foreach, which is slower: {NO_COMPILER}\n"),
        (("optimizer.implementation=foreach",), NO_COMPILER, ""),
        (("optimizer=adamw",), NO_COMPILER, ""),
    ],
)
def test_auto_says_that_it_takes_foreach(monkeypatch, capsys, overrides, reason, said):
    monkeypatch.setattr(fused, "why_no_launch", lambda device: reason)
    check_kernels(overrides, GPU)
    assert capsys.readouterr().err == said
    check_kernels(overrides, replace(GPU, device=torch.device("cpu")))
    assert capsys.readouterr().err == ""


def test_kernels_are_tried_where_the_masters_are(monkeypatch):
    """Not on the GPU where the optimizer's state is in the memory of the CPU."""
    tried = []
    monkeypatch.setattr(fused, "why_no_launch", lambda device: tried.append(device.type))
    for offload, device in ((False, GPU.device), (True, GPU.device), (False, torch.device("cpu"))):
        check_kernels([f"runtime.offload_optimizer={str(offload).lower()}"], replace(GPU, device=device))
    assert tried == ["cuda", "cpu", "cpu"]


def test_fused_is_refused_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(fused, "why_no_launch", lambda device: NO_COMPILER)
    with pytest.raises(UserError, match="implementation=fused where a kernel cannot be compiled"):
        check_kernels(["optimizer.implementation=fused"], GPU)


def test_a_micro_batch_in_tokens_in_sequences_or_both():
    """By hand: 1,000 tokens of rows of 110 on average are nine; given both, the smaller holds."""

    def size(*overrides, mean_length=110.0):
        return settings(*overrides)[1].max_micro_batch_size("phase1", mean_length=mean_length)

    assert size("runtime.micro_batch_tokens=1000") == 9
    assert size("runtime.micro_batch_tokens=512", mean_length=511.9) == 1
    assert size("runtime=cpu") == 32
    assert size("runtime=cpu", "runtime.micro_batch_tokens=1000") == 9
    assert size("runtime.micro_batch_tokens=1000", "runtime.micro_batch_size.phase1=4") == 4


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], Execution("varlen", True, None, False)),
        (["runtime.zero_stage=3"], Execution("varlen", False, None, False)),
        (["runtime.engine=fsdp", "runtime.zero_stage=3"], Execution("varlen", True, None, False)),
        (["runtime.attention=sdpa", "runtime.compile=layers"], Execution("sdpa", True, "layers", False)),
        (["runtime.compile=model"], Execution("varlen", True, "model", False)),
        (["runtime.activation_checkpointing=true"], Execution("varlen", True, None, True)),
    ],
)
def test_how_the_model_is_computed(overrides, expected):
    """On a CPU."""
    assert choose_execution(torch.device("cpu"), **settings(*overrides)[1].of_model("cpu")) == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("runtime=gpu", ("layers", None)),
        ("runtime=gpu runtime.engine=fsdp", ("layers", None)),
        ("runtime=gpu runtime.zero_stage=3", (None, None)),
        ("runtime=gpu runtime.precision=fp32", (None, None)),
        ("runtime=gpu runtime.compile=false", (None, None)),
        ("runtime=gpu runtime.compile=model", ("model", "model")),
        ("runtime=cpu", (None, None)),
    ],
)
def test_what_is_compiled_on_a_gpu_and_on_a_cpu(words, expected):
    runtime = settings(*words.split())[1]
    assert (runtime.compiled_on("cuda"), runtime.compiled_on("cpu")) == expected


@pytest.mark.parametrize(
    ("asked_for", "precision", "capability", "expected"),
    [
        ("auto", "bf16", (9, 0), "varlen"),
        ("auto", "fp16", (7, 0), "sdpa"),
        ("auto", "fp32", (9, 0), "sdpa"),
        ("varlen", "bf16", (8, 0), "varlen"),
        ("eager", "bf16", (9, 0), "eager"),
    ],
)
def test_attention_of_a_gpu(monkeypatch, asked_for, precision, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_attention(asked_for, torch.device("cuda"), precision) == expected


def test_varlen_without_a_kernel_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "V100")
    with pytest.raises(UserError, match=r"runtime\.attention=varlen with bf16 on V100"):
        choose_attention("varlen", torch.device("cuda"), "bf16")
