"""The kernels compile for an A100 and an H100, whether or not there is one.

Truth: Triton's compiler and NVIDIA's ptxas, which comes with it, on the launches that real steps make. The interpreter
is more tolerant than they are: it lets a variable change its type between two branches, for one.
Breaks that turn this file red (each was tried): a loop variable that begins as another type than it ends, a promise of
alignment left out or made where there is none, a store that cuts instead of rounding, more registers than there are,
or than 40 warps of a multiprocessor can have.
"""

import inspect
import json
import math
import os
import re
import subprocess
import sys

import pytest
import torch

from bert_lamb.optim import Lamb, Lars, Segments
from tests.launch import CHECKOUT
from tests.optim.cases import device_of

pytest.importorskip("triton", reason="triton is not installed")

A100, H100 = 80, 90
POINTERS = {torch.float32: "*fp32", torch.float64: "*fp64", torch.int32: "*i32", torch.int64: "*i64"}

# id: what a step is made of, for which GPU. Between them every switch that a kernel is compiled for is on and off.
WHOLE = {"betas": (0, 0), "eps": 1, "weight_decay": 0}  # numbers that are no floats to Triton
BOUNDS = {"param_norm_bounds": (0.0, 10.0), "trust_ratio_bounds": (0, 0.3)}
OPEN = {"param_norm_bounds": (0.5, math.inf)}
STEPS = {
    "Lamb": (A100, Lamb, {}),
    "Lamb, long chunks": (H100, Lamb, {"sizes": (140_000, 70)}),
    "Lamb, one chunk": (H100, Lamb, {"dtype": torch.bfloat16, "max_grad_norm": 1.0, "sizes": (5,)}),
    "Lamb, not adapted": (H100, Lamb, {"dtype": torch.float16, "adapt": False}),
    "Lamb, unaligned gradient": (H100, Lamb, {"begin_of_gradient": 1, "max_grad_norm": 1.0}),
    "Lamb, unaligned": (A100, Lamb, {"begin": 1, "skip_nonfinite": False, "bias_correction": False, **WHOLE}),
    "N-LAMB, l1": (A100, Lamb, {"nesterov": "first", "norm": "l1", "dtype": torch.bfloat16}),
    "Lamb, sharded": (H100, Lamb, {"is_sharded": True, "lr": torch.tensor(0.1), **BOUNDS}),
    "NN-LAMB, linf": (H100, Lamb, {"nesterov": "both", "norm": "linf", "max_grad_norm": 1.0}),
    "Lars": (H100, Lars, {"max_grad_norm": 1.0, "lr": torch.tensor(0.1, dtype=torch.float64), **OPEN}),
    "Lars, not adapted": (
        A100,
        Lars,
        {"dtype": torch.bfloat16, "adapt": False, "skip_nonfinite": False, "beta": 0, "weight_decay": 1},
    ),
}


def step(
    optimizer_class,
    *,
    dtype=torch.float32,
    begin=0,
    begin_of_gradient=0,
    sizes=(40_000, 70),
    lr=0.1,
    is_sharded=False,
    **options,
):
    """One step whose kernels are only written down; `begin` elements put tensors off their alignment."""
    device = device_of("fused")
    params = [torch.nn.Parameter(torch.ones(begin + size, dtype=dtype, device=device)[begin:]) for size in sizes]
    for p in params:
        first = begin or begin_of_gradient
        p.grad = torch.ones(first + p.numel(), dtype=dtype, device=device)[first:]
    lr = lr.to(device) if isinstance(lr, torch.Tensor) else lr
    optimizer = optimizer_class(params, lr=lr, implementation="fused", **options)
    if is_sharded:
        cuts = [Segments((str(index),), (0,), (p.numel(),), lambda x, _: x) for index, p in enumerate(params)]
        optimizer.bind(zip(params, cuts, strict=True))
    optimizer.step()


def as_compiled(kernel, arguments):
    """What Triton would compile for these arguments: it takes None and 1 for constants, as it does constexprs."""
    annotated = {
        name for name, p in inspect.signature(kernel.fn).parameters.items() if "constexpr" in str(p.annotation)
    }
    signature, constants = {}, {}
    num_warps = arguments.pop("num_warps", 4)  # Triton's own default
    for name, value in arguments.items():
        if isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
        elif name in annotated or value is None or (isinstance(value, int) and value == 1):
            constants[name] = value if isinstance(value, int | float | str | None) else {"dtype": value.name}
        else:
            signature[name] = "i32" if isinstance(value, int) else "fp32"
    return {"kernel": kernel.__name__, "signature": signature, "constants": constants, "num_warps": num_warps}


@pytest.fixture(scope="module")
def kernels():
    """(step and GPU, launch, what became of it) for every launch of STEPS; what two of them share, for one GPU."""
    from tests.optim.conftest import recorded_launches

    labels, launches = [], []
    for label, (capability, optimizer_class, options) in STEPS.items():
        with recorded_launches() as seen:
            step(optimizer_class, **options)
        for kernel, _, arguments in seen:
            launch = as_compiled(kernel, arguments)
            if launch not in launches:
                labels.append((label, capability))
                launches.append(launch)
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    finished = subprocess.run(
        [sys.executable, "-m", "tests.optim.compile_kernels"],
        input=json.dumps([{**launch, "capability": c} for (_, c), launch in zip(labels, launches, strict=True)]),
        env={**environment, "PYTHONPATH": os.pathsep.join([str(CHECKOUT), environment.get("PYTHONPATH", "")])},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return list(zip(labels, launches, json.loads(finished.stdout), strict=True))


def test_every_launch_compiles(kernels):
    """And what is compiled is every kernel there is, each with every value of its switches."""
    values = {}
    for _, launch, made in kernels:
        assert made["ptx"].count(".entry") == 1
        for name, value in launch["constants"].items():
            values.setdefault((launch["kernel"], name), set()).add(json.dumps(value))
    both = {"true", "false"}
    assert {kernel for kernel, _ in values} == {
        "count_steps",
        "gather_chunks",
        "gradient_squares",
        "lamb_advance",
        "lamb_apply",
        "lars_pass",
        "trust_ratios",
    }
    for kernel in ("lamb_advance", "lamb_apply"):
        assert values[kernel, "IS_NESTEROV"] == values[kernel, "HAS_COPY"] == values[kernel, "IS_ALIGNED"] == both
    assert values["lamb_advance", "IS_GRAD_ALIGNED"] == values["gradient_squares", "IS_GRAD_ALIGNED"] == both
    assert values["lamb_advance", "CHUNK"] == {"4096", "16384"}
    assert values["lamb_advance", "IS_ADAPTED"] == values["lars_pass", "APPLIES"] == both
    assert values["trust_ratios", "HIGHEST_PHI"] == {"null", "10.0", "Infinity"}
    assert values["trust_ratios", "HIGHEST_RATIO"] == {"null", "0.3"}
    assert "null" in values["trust_ratios", "chunk_ranges"]
    assert values["count_steps", "NESTEROV"] == {'"none"', '"first"', '"both"'}
    assert values["lamb_advance", "NORM"] == {'"l2"', '"l1"', '"linf"'}
    assert len(values["lamb_advance", "GRAD"]) == 3


def test_nothing_spills(kernels):
    """What does not fit into registers would go to memory, several times for each element."""
    spilled = [(label, launch["kernel"]) for label, launch, made in kernels if made["resources"]["STACK"] > 0]
    assert spilled == []
    assert all(made["resources"]["REG"] > 0 for _, _, made in kernels)


def occupancy(registers, num_warps):
    """Warps of 64 that a multiprocessor of an A100 or an H100 holds: it deals 65,536 registers out by 256 to a warp."""
    of_a_warp = math.ceil(registers * 32 / 256) * 256
    return min(64, 65_536 // of_a_warp // num_warps * num_warps)


def test_enough_warps_to_hide_the_memory(kernels):
    """40 of 64 on an H100, which 48 registers a thread allow; 32 on an A100, which 64 do.

    The limit is what was chosen with `Tiling`, not what a GPU was seen to need.
    """
    for label, launch, made in kernels:
        wanted = {H100: 40, A100: 32}[label[1]]
        found = occupancy(made["resources"]["REG"], launch["num_warps"])
        assert found >= wanted, (
            f"{launch['kernel']} ({label[0]}, sm_{label[1]}): {made['resources']['REG']} registers in each thread of"
            f" {launch['num_warps']} warps leave {found} of 64 warps on a multiprocessor; expected {wanted} or more"
        )
    assert occupancy(48, 8) == 40
    assert occupancy(94, 4) == 20


def test_full_chunks_move_16_bytes_at_a_time(kernels):
    """Where, and only where, addresses are aligned; else a warp's load takes four times as many instructions.
    A gradient that is not, as engines hand them over, leaves the other streams as they are.

    A thread has 4 elements of a block: one move of 16 bytes in float32, of 8 in 16 bits.
    """
    read = {"lamb_advance": "wgmv", "lamb_apply": "wmv", "gradient_squares": "g"}
    written = {"lamb_advance": "mv", "lamb_apply": "w", "gradient_squares": ""}
    seen = set()
    for label, launch, made in kernels:
        kernel, constants = launch["kernel"], launch["constants"]
        if "IS_ALIGNED" not in constants:
            continue
        wide = [len(re.findall(rf"{move}\.global\.v4\.b32", made["ptx"])) for move in ("ld", "st")]
        loads = read.get(kernel, "wgm" if constants.get("ADVANCES") else "wm")
        stores = written.get(kernel, "m" if constants.get("ADVANCES") else "")
        if constants.get("IS_NESTEROV") and kernel == "lamb_apply":
            loads += "g"
        if constants.get("IS_ADAPTED") is False or constants.get("APPLIES"):
            stores += "w"
        if not constants["IS_ALIGNED"]:
            loads = stores = ""
        elif not constants["IS_GRAD_ALIGNED"] or constants["GRAD"] != {"dtype": "fp32"}:
            loads = loads.replace("g", "")
        for found, expected in zip(wide, (len(loads), len(stores)), strict=True):  # or more: a loop may be unrolled
            assert found % expected == 0 < found if expected else found == 0, (label, kernel, wide)
        seen.add((kernel, constants["IS_ALIGNED"], constants["IS_GRAD_ALIGNED"]))
    assert len(seen) >= 8


def test_copies_are_rounded_to_the_nearest(kernels):
    """The interpreter is made to in these tests; the compiled kernels do so by themselves."""
    for dtype, conversion in (("bf16", r"cvt\.rn\.bf16"), ("fp16", r"cvt\.rn\.f16")):
        copying = [
            made["ptx"]
            for _, launch, made in kernels
            if launch["constants"].get("HAS_COPY")
            and launch["constants"]["COPY"] == {"dtype": dtype}
            and launch["constants"].get("IS_ADAPTED", launch["kernel"] == "lars_pass") is not True
        ]
        assert copying
        for ptx in copying:
            assert re.search(conversion, ptx)
            assert not re.search(r"cvt\.rz\.b?f16", ptx)
