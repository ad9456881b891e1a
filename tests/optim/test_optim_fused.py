"""The Triton kernels: in Triton's interpreter on the CPU, natively where there is a GPU.

Truths: the numpy oracle in float64 on the very numbers the kernels were given (rounded gradients and all); for masters
and their copies torch's rounding, bit for bit; for the table of chunks a loop over single elements.
Breaks that turn this file red (each was tried): a chunk that begins at its first element instead of a multiple of 16,
ends a block early or late, or is whole when it is not; masks without `low` or `high`; padding in the norms; norms of
squares in float32; w read for g or m for v; a row of the tables off by one; coefficients of the tensor beside; the
Nesterov gradient without its multiplier; a copy not written, or written from the old master; gradients in another
order than their parameter; a second, missing or always skipped launch; a look at a number on the device.
"""

import contextlib
import math
import subprocess
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from bert_lamb.optim import Lamb, Lars, Segments
from bert_lamb.optim.segments import Layout
from tests.optim.cases import (
    DECAY,
    IMPLEMENTATIONS,
    LAMB_VARIANTS,
    LARS_VARIANTS,
    LR,
    TOLERANCES,
    device_of,
    distance,
    gradients,
    make_tensors,
    oracle_of,
    parameters,
    run,
    train,
    truth,
)
from tests.optim.conftest import kernel_files

pytest.importorskip("triton", reason="triton is not installed")
from bert_lamb.optim import fused, fused_kernels, fused_norm_kernels, fused_tables

pytestmark = [
    pytest.mark.usefixtures("small_chunks"),
    pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning"),  # the interpreter computes what is masked
]

DEVICE = device_of("fused")
TOLERANCE = TOLERANCES["fused"]
BOTH = pytest.mark.parametrize("optimizer_class", [Lamb, Lars])
VARIANTS = [
    *[pytest.param(Lamb, options, id=f"Lamb-{name}") for name, options in LAMB_VARIANTS.items()],
    *[pytest.param(Lars, options, id=f"Lars-{name}") for name, options in LARS_VARIANTS.items()],
]
GUARD = 32  # elements before and after a tensor that is watched


@pytest.mark.parametrize(("optimizer_class", "options"), VARIANTS)
def test_each_variant_equals_the_oracle(optimizer_class, options):
    """Over 2 steps: one tensor of less than a block, one with a whole chunk and a rest, one that is a number."""
    tensors = make_tensors(torch.float32, shapes=[(5, 3), (130,), ()])
    found, _ = run(optimizer_class, tensors, 2, implementation="fused", skip_nonfinite=False, **options)
    expected, _ = truth(optimizer_class, tensors, 2, **options)
    assert distance(found, expected) < TOLERANCE


@BOTH
def test_shapes(optimizer_class):
    """Sizes around a block, a chunk and the alignment; numbers, empty tensors and tensors of several chunks."""
    shapes = [
        (),
        (0,),
        (1,),
        (1, 1),
        (15,),
        (16,),
        (17,),
        (31,),
        (33,),
        (127,),
        (128,),
        (129,),
        (3, 0),
        (8, 16),
        (300,),
    ]
    tensors = make_tensors(torch.float32, shapes=shapes)
    found, optimizer = run(optimizer_class, tensors, 2, implementation="fused")
    expected, oracle = truth(optimizer_class, tensors, 2)
    assert distance(found, expected) < TOLERANCE
    (record,) = optimizer.last_norms
    for index, norms in oracle.norms.items():
        found = [float(row[index]) for row in (record.param_norm, record.update_norm, record.trust_ratio)]
        np.testing.assert_allclose(found, norms, rtol=TOLERANCE)


@BOTH
def test_tensors_that_are_all_empty(optimizer_class):
    """No program works on them, and still a step is counted."""
    params, optimizer = run(optimizer_class, [torch.zeros(0), torch.zeros(2, 0)], 2, implementation="fused")
    assert [int(optimizer.state[p]["step"]) for p in params] == [2, 2]
    assert optimizer.last_norms[0].trust_ratio.tolist() == [1.0, 1.0]


def test_400_tensors_in_a_step():
    """More programs of count_steps than one, and a step for each tensor: every 50th has had one more than the rest."""
    tensors = make_tensors(torch.float32, shapes=[(1 + index % 3,) for index in range(400)])
    params = parameters(tensors, DEVICE)
    grads = gradients(0, tensors)
    options = {"lr": LR, "weight_decay": DECAY, "adapt": False, "skip_nonfinite": False}
    optimizer = Lamb(params, implementation="fused", **options)
    ahead, others = slice(0, 400, 50), [index for index in range(400) if index % 50]
    for p, g in zip(params[ahead], grads[ahead], strict=True):
        p.grad = g.to(DEVICE)
    optimizer.step()
    assert [int(optimizer.state[p]["step"]) for p in params[ahead]] == [1] * 8
    for p, g in zip(params, grads, strict=True):
        p.grad = g.to(DEVICE)
    optimizer.step()
    for chosen, num_steps in ((range(400)[ahead], 2), (others, 1)):
        oracle = oracle_of(Lamb)
        expected = {index: tensors[index].double().numpy().copy() for index in chosen}
        arrays = {index: grads[index].double().numpy() for index in chosen}
        for _ in range(num_steps):
            oracle.step(expected, arrays, lr=LR, weight_decay=lambda _: DECAY, is_adapted=lambda _: False)
        assert distance([params[index] for index in chosen], expected.values()) < TOLERANCE
        assert {int(optimizer.state[params[index]]["step"]) for index in chosen} == {num_steps}


@BOTH
def test_layouts_of_parameters_and_gradients(optimizer_class):
    """Transposed parameters, and gradients in another order than theirs or with no memory of their own."""
    dense, gradient = (t.to(DEVICE) for t in make_tensors(torch.float32, shapes=[(9, 15), (9, 15)]))
    expected = {0: dense.cpu().double().numpy().copy()}
    oracle = oracle_of(optimizer_class)
    columns = torch.nn.Parameter(dense.t().contiguous().t())
    assert not columns.is_contiguous()
    optimizer = optimizer_class([columns], lr=LR, weight_decay=DECAY, implementation="fused")
    one = torch.full((), 0.5, device=DEVICE).expand(9, 15)
    for grad in (gradient, gradient.t().contiguous().t(), one):
        columns.grad = grad
        optimizer.step()
        oracle.step(
            expected,
            {0: grad.cpu().double().numpy()},
            lr=LR,
            weight_decay=lambda _: DECAY,
            is_adapted=lambda _: True,
        )
    assert distance([columns], expected.values()) < TOLERANCE
    assert columns.stride() == (1, 9)


@BOTH
def test_state_of_another_layout(optimizer_class):
    """State saved from a contiguous parameter and loaded for a transposed one: each moment stays with its element."""
    (values,) = make_tensors(torch.float32, shapes=[(9, 15)])
    expected, _ = truth(optimizer_class, [values], 4)
    first, saved = run(optimizer_class, [values], 2, implementation="fused")
    columns = torch.nn.Parameter(first[0].detach().t().contiguous().t())
    optimizer = optimizer_class([columns], lr=LR, weight_decay=DECAY, implementation="fused")
    optimizer.load_state_dict(saved.state_dict())
    train(optimizer, [columns], range(2, 4))
    assert distance([columns], expected) < TOLERANCE
    state = optimizer.state[columns]
    state["exp_avg"] = state["exp_avg"].contiguous()  # put there by hand: refused, and not taken for what it is not
    before = columns.detach().clone()
    with pytest.raises(RuntimeError, match="moments or masters that do not lie in memory as their parameters do"):
        train(optimizer, [columns], [4])
    assert torch.equal(columns, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gaps_between_elements_are_refused(dtype):
    """A column block of a matrix is no stretch of memory; the columns beside it are not ours."""
    matrix = torch.ones(6, 8, dtype=dtype, device=DEVICE)
    block = torch.nn.Parameter(matrix[:, 2:5])
    block.grad = torch.ones(6, 3, dtype=dtype, device=DEVICE)
    with pytest.raises(RuntimeError, match="implementation='fused' cannot do this step: a parameter with gaps"):
        Lamb([block], lr=LR, implementation="fused").step()
    assert bool((matrix == 1).all())


def test_what_the_kernels_cannot_do_is_refused(monkeypatch):
    """With a sentence that says what to use instead, and nothing has changed."""
    double = torch.nn.Parameter(torch.ones(3, dtype=torch.float64, device=DEVICE))
    double.grad = torch.ones_like(double)
    with pytest.raises(RuntimeError, match=r"parameters of torch\.float64; use 'foreach', or 'auto'"):
        Lamb([double], lr=LR, implementation="fused").step()
    assert bool((double == 1).all())
    odd = torch.nn.Parameter(torch.ones(3, device=DEVICE))
    odd.grad_dtype = torch.float64
    odd.grad = torch.ones(3, dtype=torch.float64, device=DEVICE)
    with pytest.raises(RuntimeError, match=r"gradients of torch\.float64"):
        Lamb([odd], lr=LR, implementation="fused").step()
    import triton

    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    fused._why_no_triton.cache_clear()
    on_cpu = torch.nn.Parameter(torch.ones(3))
    on_cpu.grad = torch.ones(3)
    try:
        with pytest.raises(RuntimeError, match=r"the tensors are on the CPU, .*TRITON_INTERPRET=1"):
            Lamb([on_cpu], lr=LR, implementation="fused").step()
    finally:
        fused._why_no_triton.cache_clear()


def test_auto_leaves_the_cpu_to_foreach():
    """Also where the interpreter could run the kernels."""
    (parameter,) = parameters(make_tensors(torch.float32, shapes=[(5,)]))
    optimizer = train(Lamb([parameter], lr=LR), [parameter], range(1))
    assert not optimizer.fused_memory
    assert int(optimizer.state[parameter]["step"]) == 1


# -- memory that is not ours ---------------------------------------------------------------------------------------


class Watched:
    """A tensor in the middle of memory that is full of 7s; `begin` elements more before it, to put it off alignment."""

    def __init__(self, values, begin):
        self.memory = torch.full((2 * GUARD + begin + values.numel(),), 7.0, dtype=values.dtype, device=values.device)
        self.first, self.size = GUARD + begin, values.numel()
        self.tensor = self.memory[self.first : self.first + self.size].view(values.shape)
        self.tensor.copy_(values)

    def is_intact(self):
        around = torch.cat([self.memory[: self.first], self.memory[self.first + self.size :]])
        return bool((around == 7).all())


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("adapt", [True, False])
def test_nothing_around_the_tensors_is_touched(optimizer_class, dtype, adapt):
    """Guards around parameters, masters, moments and gradients stay as they are, at aligned and unaligned addresses."""
    tensors = make_tensors(dtype, shapes=[(130,), (5,)])
    for begin in (0, 1):
        watched = [Watched(t.to(DEVICE), begin) for t in tensors]
        params = [torch.nn.Parameter(w.tensor) for w in watched]
        assert params[0].data_ptr() == watched[0].tensor.data_ptr()
        options = {"lr": LR, "weight_decay": DECAY, "adapt": adapt, "max_grad_norm": 2.0}
        optimizer = optimizer_class(params, implementation="fused", **options)
        for p in params:
            state = optimizer.state_of(p)
            for name in set(state) - {"step"}:
                watched.append(Watched(state[name], begin))
                state[name] = watched[-1].tensor
        for step in range(2):
            for p, g in zip(params, gradients(step, params), strict=True):
                watched.append(Watched(g, begin))
                p.grad = watched[-1].tensor
            before = [p.grad.clone() for p in params]
            optimizer.step()
            assert all(torch.equal(p.grad, g) for p, g in zip(params, before, strict=True))
        assert all(w.is_intact() for w in watched)
        expected, _ = truth(optimizer_class, tensors, 2, adapt=adapt, max_grad_norm=2.0)
        masters = [optimizer.state[p].get("master", p) for p in params]
        assert distance(masters, expected) < TOLERANCE


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@BOTH
@pytest.mark.parametrize("adapt", [True, False])
def test_partitions(implementation, optimizer_class, adapt):
    """Segments that begin anywhere in a flat tensor, beside NaN padding that is not counted, moved or skipped for.

    "nowhere" has no element here and "empty" a segment without any: their norms are 0. The clipping sees the gradients
    of the segments and nothing else. The kernels leave even the moments of the padding at the 7 they were.
    """
    device = device_of(implementation)
    segments = {"a": 19, "pad1": 3, "b": 1, "c": 140, "empty": 0, "pad2": 18, "d": 40, "pad3": 2}
    names = ("d", "b", "nowhere", "c", "empty", "a")
    slots = tuple(names.index(name) if name in names else -1 for name in segments)
    held = dict(zip("abcd", make_tensors(torch.float32, shapes=[(19,), (1,), (140,), (40,)]), strict=True))
    held["empty"] = torch.zeros(0)

    def flat(values):
        pads = {name: torch.full((size,), torch.nan) for name, size in segments.items() if name.startswith("pad")}
        return torch.cat([{**values, **pads}[name] for name in segments]).to(device)

    parameter = torch.nn.Parameter(flat(held))
    is_padding = torch.isnan(parameter.detach())
    optimizer = optimizer_class(
        [parameter], lr=LR, weight_decay=DECAY, adapt=adapt, max_grad_norm=2.0, implementation=implementation
    )
    optimizer.bind([(parameter, Segments(names, slots, tuple(segments.values())))])
    for name in optimizer.MOMENTS:
        optimizer.state[parameter][name][is_padding] = 7.0
    tensors = list(held.values())
    for step in range(3):
        parameter.grad = flat(dict(zip(held, gradients(step, tensors), strict=True)))
        optimizer.step()
    expected, oracle = truth(optimizer_class, tensors, 3, adapt=adapt, max_grad_norm=2.0)
    found = dict(zip(segments, parameter.detach().split(list(segments.values())), strict=True))
    assert distance([found[name] for name in held], expected) < TOLERANCE
    assert bool(found["pad1"].isnan().all() & found["pad2"].isnan().all() & found["pad3"].isnan().all())
    assert optimizer.num_skipped_steps == 0
    for name in optimizer.MOMENTS if implementation == "fused" else ():
        assert bool((optimizer.state[parameter][name][is_padding] == 7).all())
    if adapt:
        (record,) = optimizer.last_norms
        norms = dict(zip(held, oracle.norms.values(), strict=True)) | {"nowhere": (0.0, 0.0, 1.0)}
        rows = torch.stack([record.param_norm, record.update_norm, record.trust_ratio]).cpu()
        np.testing.assert_allclose(rows, np.array([norms[name] for name in names]).T, rtol=TOLERANCE)


def twin(partial, operation):
    """The reducer of two ranks that hold the same numbers."""
    return 2 * partial if operation == "sum" else partial.clone()


RATIO_VARIANTS = ("plain", "l1", "linf", "phi", "ratio_bounds")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("variant", RATIO_VARIANTS)
@BOTH
def test_norms_that_are_made_global_between_the_kernels(implementation, variant, optimizer_class):
    """Half of each parameter beside a rank that holds the like: whole parameters of both halves, one by one."""
    options = (LAMB_VARIANTS if optimizer_class is Lamb else LARS_VARIANTS)[variant]
    halves = make_tensors(torch.float32, shapes=[(140,), (3,), ()])
    flat = torch.nn.Parameter(torch.cat([half.flatten() for half in halves]).to(device_of(implementation)))
    lr = torch.tensor(LR, device=flat.device)
    optimizer = optimizer_class([flat], lr=lr, weight_decay=DECAY, implementation=implementation, **options)
    sizes = tuple(half.numel() for half in halves)
    optimizer.bind([(flat, Segments(("a", "b", "c"), (0, 1, 2), sizes, twin))])
    oracle = oracle_of(optimizer_class, **options)
    expected = {index: np.tile(half.double().numpy().flatten(), 2) for index, half in enumerate(halves)}
    for step in range(2):
        grads = gradients(step, halves)
        flat.grad = torch.cat([g.flatten() for g in grads]).to(flat.device)
        optimizer.step()
        arrays = {index: np.tile(g.double().numpy().flatten(), 2) for index, g in enumerate(grads)}
        oracle.step(expected, arrays, lr=LR, weight_decay=lambda _: DECAY, is_adapted=lambda _: True)
    found = flat.detach().split(sizes)
    assert distance(found, [whole[: len(whole) // 2] for whole in expected.values()]) < TOLERANCE
    (record,) = optimizer.last_norms
    rows = torch.stack([record.param_norm, record.update_norm, record.trust_ratio]).cpu()
    np.testing.assert_allclose(rows, np.array(list(oracle.norms.values())).T, rtol=TOLERANCE)


# -- numbers -------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_huge_and_tiny_values(optimizer_class, norm):
    """Weights of 1e30 and 1e-30, whose squares float32 does not hold, with gradients of 1e15 (LARS 1e5) and 1e-30.

    A ratio must itself fit into float32, which that of LARS would not with 1e-30 over 1e15.
    """
    shapes, large = [(40,)] * 5, 1e15 if optimizer_class is Lamb else 1e5
    weights = zip(make_tensors(shapes=shapes), (1e30, 1e30, 1e-30, 1e-30, 1.0), strict=True)
    tensors = [(scale * t).float() for t, scale in weights]
    grads = zip(gradients(0, tensors), (large, 1e-30, large, 1e-30, 1e-30), strict=True)
    grads = [scale * g for g, scale in grads]
    params = parameters(tensors, DEVICE)
    optimizer = optimizer_class(params, lr=LR, weight_decay=DECAY, norm=norm, implementation="fused")
    oracle = oracle_of(optimizer_class, norm=norm)
    expected = {index: t.double().numpy() for index, t in enumerate(tensors)}
    for _ in range(2):
        for p, g in zip(params, grads, strict=True):
            p.grad = g.to(DEVICE)
        optimizer.step()
        arrays = {index: g.double().numpy() for index, g in enumerate(grads)}
        oracle.step(expected, arrays, lr=LR, weight_decay=lambda _: DECAY, is_adapted=lambda _: True)
    assert distance(params, expected.values()) < TOLERANCE


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("optimizer_class", "options"), [(Lamb, {}), (Lamb, {"nesterov": "both"}), (Lars, {})])
def test_gradients_of_less_precision(implementation, optimizer_class, options):
    """fp32 parameters with gradients of three dtypes in one group: each used as it is, none rounded again."""
    dtypes = [torch.float32, torch.bfloat16, torch.float16, torch.bfloat16]
    device = device_of(implementation)
    params = parameters(make_tensors(torch.float32, shapes=[(20,), (33,), (5,), ()]), device)
    optimizer = optimizer_class(params, lr=LR, weight_decay=DECAY, implementation=implementation, **options)
    oracle = oracle_of(optimizer_class, **options)
    expected = {index: p.detach().cpu().double().numpy().copy() for index, p in enumerate(params)}
    for step in range(2):
        grads = [g.to(dtype) for g, dtype in zip(gradients(step, params), dtypes, strict=True)]
        for p, g in zip(params, grads, strict=True):
            p.grad_dtype = g.dtype
            p.grad = g
        optimizer.step()
        arrays = {index: g.cpu().double().numpy() for index, g in enumerate(grads)}
        oracle.step(expected, arrays, lr=LR, weight_decay=lambda _: DECAY, is_adapted=lambda _: True)
    assert distance(params, expected.values()) < TOLERANCE


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("optimizer_class", "options"), [(Lamb, {}), (Lamb, {"adapt": False}), (Lars, {}), (Lars, {"adapt": False})]
)
def test_parameters_of_low_precision_follow_their_masters(implementation, dtype, optimizer_class, options):
    """The master is what float32 would have become; the parameter is the master rounded by torch, bit for bit.

    Steps of 2^-10 of a weight: a parameter that were updated in its own precision would not move at all.
    """
    options = {"lr": 2.0**-10, **options}
    tensors = make_tensors(dtype, shapes=[(140,), ()])
    params, optimizer = run(optimizer_class, tensors, 2, implementation=implementation, **options)
    expected, _ = truth(optimizer_class, tensors, 2, **options)
    masters = [optimizer.state[p]["master"] for p in params]
    assert distance(masters, expected) < TOLERANCE
    assert distance(masters, tensors) > 100 * TOLERANCE
    for p, master in zip(params, masters, strict=True):
        assert (p.dtype, master.dtype) == (dtype, torch.float32)
        assert torch.equal(p, master.to(dtype))


@settings(max_examples=25, deadline=None)
@given(
    implementation=st.sampled_from(["reference", "foreach", "fused"]),
    optimizer_class=st.sampled_from([Lamb, Lars]),
    shapes=st.lists(
        st.one_of(
            st.just(()),
            st.tuples(st.integers(0, 140)),
            st.tuples(st.integers(1, 9), st.integers(1, 9)),
        ),
        min_size=1,
        max_size=3,
    ),
    scale=st.floats(-6, 6).map(lambda exponent: 10**exponent),
    decay=st.sampled_from([0.0, 0.01, 0.5]),
    adapt=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_any_shapes_and_scales(implementation, optimizer_class, shapes, scale, decay, adapt, seed):
    """All three in float32 against float64: what differs is rounding, relative to the largest weight on the way.

    A step may overshoot zero (lr x decay above 1) and the next come back: relative to what is left, rounding is large.
    """
    tensors = [(scale * t).float() for t in make_tensors(seed=seed, shapes=shapes)]
    options = {"weight_decay": decay, "adapt": adapt, "lr": LR if adapt else LR * scale / 100}
    found, _ = run(optimizer_class, tensors, 2, implementation=implementation, **options)
    way = [[t.double().numpy() for t in tensors], *(truth(optimizer_class, tensors, n, **options)[0] for n in (1, 2))]
    for p, *weights in zip(found, *way, strict=True):
        largest = max((np.abs(w).max(initial=0.0) for w in weights), default=0.0)
        np.testing.assert_allclose(p.detach().cpu().double(), weights[-1], rtol=0, atol=TOLERANCE * largest)


@BOTH
def test_whatever_memory_held_before(optimizer_class, monkeypatch):
    """The same bits in two runs, the second with NaN in all memory that the kernels are given to write to."""
    tensors = make_tensors(torch.bfloat16, shapes=[(140,), (0,), (3,)])
    options = {"max_grad_norm": 2.0, "implementation": "fused"}
    first, _ = run(optimizer_class, tensors, 2, **options)
    empty = torch.empty

    def full_of_nan(*shape, **keywords):
        tensor = empty(*shape, **keywords)
        return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch, "empty", full_of_nan)
    second, _ = run(optimizer_class, tensors, 2, **options)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# -- launches ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer_class", "options", "expected"),
    [
        (Lamb, {}, "gradient_squares gather_chunks count_steps lamb_advance trust_ratios lamb_apply"),
        (Lamb, {"skip_nonfinite": False}, "count_steps lamb_advance trust_ratios lamb_apply"),
        (Lamb, {"skip_nonfinite": False, "adapt": False}, "count_steps lamb_advance"),
        (Lars, {}, "gradient_squares gather_chunks count_steps lars_pass trust_ratios lars_pass"),
        (Lars, {"skip_nonfinite": False, "adapt": False}, "count_steps lars_pass"),
    ],
)
def test_as_many_launches_for_400_tensors_as_for_one(launches, optimizer_class, options, expected):
    """And one program for each chunk: 400 tensors of 129 elements have 800."""
    for num_tensors in (1, 400):
        launches.clear()
        run(optimizer_class, [torch.ones(129)] * num_tensors, 1, implementation="fused", **options)
        assert [kernel.__name__ for kernel, _, _ in launches] == expected.split()
        per_chunk = {grid for _, grid, arguments in launches if "CHUNK" in arguments}
        assert per_chunk == {(2 * num_tensors,)}


class Operators(TorchDispatchMode):
    """Keeps the names of what PyTorch is asked for, beside what its profiler is told."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function.namespace == "aten":
            self.names.append(str(function.overloadpacket).removeprefix("aten."))
        return function(*arguments, **(keywords or {}))


@BOTH
@pytest.mark.parametrize("lr", [LR, torch.tensor(LR)])
def test_a_step_on_partitions_is_our_kernels_and_the_reducer(launches, optimizer_class, lr):
    """Nothing is launched by PyTorch in between: on few elements each launch costs more than it moves."""
    lr = lr.to(DEVICE) if isinstance(lr, torch.Tensor) else lr
    params = parameters(make_tensors(torch.float32, shapes=[(40,), (5,)]), DEVICE)
    groups = [{"params": params[:1]}, {"params": params[1:], "adapt": False}]
    optimizer = optimizer_class(groups, lr=lr, implementation="fused")
    reduced = []

    def reducer(partial, operation):
        reduced.append((len(launches), partial.shape, operation))
        return partial

    cuts = [Segments((str(index),), (0,), (p.numel(),), reducer) for index, p in enumerate(params)]
    optimizer.bind(zip(params, cuts, strict=True))
    train(optimizer, params, [0])
    launches.clear(), reduced.clear()
    with Operators() as seen:
        optimizer.step()
    pass_1, pass_3 = ("lamb_advance", "lamb_apply") if optimizer_class is Lamb else ("lars_pass", "lars_pass")
    names = [kernel.__name__ for kernel, _, _ in launches]
    assert names == f"count_steps {pass_1} gather_chunks trust_ratios {pass_3} count_steps {pass_1}".split()
    assert reduced == [(3, (2, 1), "sum")]
    assert set(seen.names) <= {"empty", "slice", "alias", "unbind"}  # memory, and views of it


@pytest.mark.parametrize(("num_elements", "chunk"), [(8 * 256, 256), (8 * 256 - 1, 128), (1, 128)])
def test_chunks_are_shorter_where_there_are_few(launches, monkeypatch, num_elements, chunk):
    """Eight long ones for each multiprocessor, or short ones; elements are counted without padding."""
    tiling = fused_tables.Tiling(block=64, num_warps=2, chunks=(256, 128))
    monkeypatch.setattr(fused, "num_multiprocessors", lambda device: 1)
    parameter = torch.nn.Parameter(torch.ones(num_elements + 5000, device=DEVICE))
    parameter.grad = torch.ones_like(parameter)
    optimizer = Lamb([parameter], lr=LR, implementation="fused")
    optimizer.tiling = tiling
    optimizer.bind([(parameter, Segments(("a",), (0, -1), (num_elements, 5000)))])
    optimizer.step()
    per_chunk = [(grid, arguments) for _, grid, arguments in launches if "CHUNK" in arguments]
    assert len(per_chunk) == 3
    for grid, arguments in per_chunk:
        assert grid == (math.ceil(num_elements / chunk),)
        assert (arguments["CHUNK"], arguments["BLOCK"], arguments["num_warps"]) == (chunk, 64, 2)


def test_chunks_of_bert_large_on_an_h100():
    """335.9 million elements on 1 to 128 ranks, 132 multiprocessors."""
    tiling = fused_tables.Tiling()
    chunks = [tiling.chunk_for(335_900_000 // num_ranks, 132) for num_ranks in (1, 8, 16, 32, 128)]
    assert chunks == [16_384, 16_384, 16_384, 4_096, 4_096]


@BOTH
def test_one_unaligned_address_ends_the_aligned_loads(launches, optimizer_class):
    """What kernels are promised: every tensor begins at a multiple of 16 bytes. A GPU crashes on a false promise."""
    (values,) = make_tensors(torch.bfloat16, shapes=[(40,)])
    for off in (None, "param", "grad", "master", *optimizer_class.MOMENTS):
        launches.clear()
        at = {name: Watched(values.to(DEVICE), int(name == off)).tensor for name in ("param", "grad")}
        parameter = torch.nn.Parameter(at["param"])
        parameter.grad = at["grad"]
        optimizer = optimizer_class([parameter], lr=LR, implementation="fused")
        state = optimizer.state_of(parameter)
        for name in ("master", *optimizer.MOMENTS):
            state[name] = Watched(state[name], int(name == off)).tensor
        optimizer.step()
        promised = {
            (arguments["IS_ALIGNED"], arguments["IS_GRAD_ALIGNED"])
            for _, _, arguments in launches
            if "IS_ALIGNED" in arguments
        }
        assert promised == {(off in (None, "grad"), off != "grad")}, off


@BOTH
def test_a_step_writes_where_the_step_before_has_written(optimizer_class):
    """A captured graph repeats its writes at the addresses of one step: state that moved would stand still for it."""
    params = parameters(make_tensors(torch.bfloat16, shapes=[(40,), ()]), DEVICE)
    optimizer = optimizer_class(params, lr=LR, max_grad_norm=2.0, implementation="fused")
    addresses = []
    for step in range(2):
        train(optimizer, params, [step])
        kept = [t for p in params for t in (p, *optimizer.state[p].values())]
        addresses.append([t.data_ptr() for t in (*kept, optimizer._gatekeeper.num_skipped)])
    assert addresses[0] == addresses[1]


class NoLook(TorchDispatchMode):
    """Raises where Python would see a number of a tensor, for which a GPU must be waited for."""

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            raise AssertionError("a number was read back from the device")
        return function(*arguments, **(keywords or {}))


@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_reads_nothing_back(optimizer_class, dtype):
    """With clipping, skipping, a scaled gradient and lr in a tensor; foreach shows that the watch is awake."""
    for implementation in ("fused", "foreach"):
        params = parameters(make_tensors(dtype, shapes=[(40,), (3,)]), DEVICE)
        lr = torch.tensor(LR, device=DEVICE)
        groups = [{"params": params[:1]}, {"params": params[1:], "adapt": False}]
        optimizer = optimizer_class(groups, lr=lr, max_grad_norm=2.0, implementation=implementation)
        optimizer.grad_scale, optimizer.found_inf = torch.full((1,), 8.0), torch.zeros(1)
        train(optimizer, params, range(1))
        if implementation == "fused":
            with NoLook():
                train(optimizer, params, range(1, 3))
        else:
            with pytest.raises(AssertionError, match="read back"), NoLook():
                train(optimizer, params, range(1, 3))


# -- tables --------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    cuts=st.lists(
        st.lists(st.tuples(st.integers(0, 70), st.booleans()), min_size=1, max_size=6), min_size=1, max_size=3
    )
)
def test_chunks_cover_every_element_of_a_parameter_once(cuts):
    """And no padding; they begin at multiples of 16 elements, hold 64 at most, and lie in the order of their slots."""
    layout = []
    for cut in cuts:
        is_parameter = [is_one for _, is_one in cut]
        slots = [sum(is_parameter[:index]) if is_one else -1 for index, is_one in enumerate(is_parameter)]
        names = tuple(map(str, range(sum(is_parameter))))
        layout.append(Segments(names, tuple(slots), tuple(size for size, _ in cut)))
    layout = Layout(tuple(layout))
    table = fused_tables.ChunkTable(layout, torch.device("cpu"), chunk=64)
    owners, first_slot = {}, 0
    for tensor, cut in enumerate(layout.cuts):
        position = 0
        for slot, size in zip(cut.slots, cut.sizes, strict=True):
            owners |= {(tensor, position + index): first_slot + slot for index in range(size) if slot >= 0}
            position += size
        first_slot += len(cut.names)
    covered = {}
    for tensor, first, low, high, slot in table.chunks.T.tolist():
        assert first % 16 == 0
        assert 0 <= low < high <= 64
        for element in range(first + low, first + high):
            assert (tensor, element) not in covered
            covered[tensor, element] = slot
    assert covered == owners
    for slot, (first, count) in enumerate(table.ranges.T.tolist()):
        assert (table.chunks[4, first : first + count] == slot).all()
        assert count == int((table.chunks[4] == slot).sum())
    assert (table.num_chunks, table.num_slots) == (table.chunks.shape[1], len(layout.names))


@pytest.mark.parametrize("norm", ["l2", "l1", "linf"])
def test_many_chunks_of_a_parameter_are_gathered(norm):
    """More than the 256 that are taken at once; none of the neighbour's, and nothing in a skipped step."""
    random = np.random.default_rng(0)
    partial = random.uniform(0, 1, (2, 600))
    starts, counts = [0, 3, 3, 590], [3, 0, 587, 10]
    parts = [partial[:, start : start + count] for start, count in zip(starts, counts, strict=True)]
    expected = [[(row.max(initial=0) if norm == "linf" else row.sum()) for row in part] for part in parts]
    table = torch.tensor([starts, counts], device=DEVICE)
    for is_skipped in (None, 0, 1):
        flag = None if is_skipped is None else torch.tensor(is_skipped, dtype=torch.int32, device=DEVICE)
        out = torch.full((2, 4), torch.nan, dtype=torch.float64, device=DEVICE)
        kernel = fused_norm_kernels.gather_chunks[(4, 2)]
        kernel(torch.from_numpy(partial).to(DEVICE), 600, table, 4, flag, out, NORM=norm, BLOCK=256)
        wanted = np.zeros((2, 4)) if is_skipped else np.array(expected).T
        np.testing.assert_allclose(out.cpu(), wanted, rtol=1e-13)


@pytest.mark.parametrize("nesterov", ["none", "first", "both"])
def test_corrections_of_the_moments(nesterov):
    """m^ = a1 m + b1 g and v^ = a2 v + b2 g^2 after each tensor's own number of steps, beside Python's float64.

    To 2e-7, float32's rounding and that of log beta. An update would not show as much: a factor common to all elements
    nearly cancels in the trust ratio.
    """
    beta1, beta2, counts = 0.9, 0.999, [0.0, 1.0, 9.0, 999.0] * 40
    steps = torch.tensor(counts, device=DEVICE)
    addresses = torch.zeros(6, len(counts), dtype=torch.int64)
    addresses[5] = steps.data_ptr() + steps.element_size() * torch.arange(len(counts))
    memory = torch.full((4 * len(counts) + GUARD,), torch.nan, device=DEVICE)
    fused_kernels.count_steps[(2,)](
        addresses.to(DEVICE), len(counts), memory, None, math.log(beta1), math.log(beta2), beta1, 1 - beta1, beta2,
        1 - beta2, HAS_BIAS_CORRECTION=True, NESTEROV=nesterov, BLOCK=128,
    )  # fmt: skip
    assert steps.tolist() == [count + 1 for count in counts]
    a1, b1, a2, b2 = memory[:-GUARD].cpu().double().view(4, -1)
    assert bool(memory[-GUARD:].isnan().all())
    expected = []
    for t in (count + 1 for count in counts):
        now1, now2, next1, next2 = (1 - beta**power for power in (t, t + 1) for beta in (beta1, beta2))
        ahead1, ahead2 = ((beta1 / next1, (1 - beta1) / now1), (beta2 / next2, (1 - beta2) / now2))
        second = {"none": (1 / now2, 0.0), "first": (beta2 / now2, 0.0), "both": ahead2}[nesterov]
        expected.append([*((1 / now1, 0.0) if nesterov == "none" else ahead1), *second])
    np.testing.assert_allclose(torch.stack([a1, b1, a2, b2]).T, expected, rtol=2e-7)


@BOTH
@pytest.mark.parametrize("adapt", [True, False])
def test_every_launch_is_on_the_tensors_device(launches, monkeypatch, optimizer_class, adapt):
    """Triton launches on the current GPU: whatever happens between the first and the last launch, on theirs."""
    entered = []

    @contextlib.contextmanager
    def enter(device):
        entered.append(device)
        yield
        entered.pop()

    class OnDevice(list):
        def append(self, launch):
            assert [device.type for device in entered] == [DEVICE], launch[0]
            super().append(launch)

    monkeypatch.setattr(fused, "on_device", enter)
    seen = OnDevice()
    for module, name in kernel_files():
        monkeypatch.setattr(getattr(module, name), "seen", seen)
    params = parameters(make_tensors(torch.bfloat16, shapes=[(40,), (5,)]), DEVICE)
    optimizer = optimizer_class(params, lr=LR, adapt=adapt, max_grad_norm=1.0, implementation="fused")
    train(optimizer, params, range(1))
    assert len(seen) >= 4
    assert entered == []


def test_one_launch_is_tried_beforehand():
    assert fused.why_no_launch(torch.device(DEVICE)) is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("Failed to find C compiler. Please specify via CC environment variable"), "Failed to find C"),
        (subprocess.CalledProcessError(1, ["gcc", "main.c"]), "'gcc', 'main.c'"),
        (OSError("Python.h: No such file or directory\ncompilation terminated."), "Python.h"),
    ],
    ids=["no compiler", "no headers", "two lines"],
)
def test_a_launch_that_cannot_be_made_is_one_line_that_says_what_triton_needs(monkeypatch, error, said):
    class Broken:
        def __getitem__(self, grid):
            raise error

    language, kernels, norm_kernels = fused._triton()
    broken = types.SimpleNamespace(**{**vars(kernels), "count_steps": Broken()})
    monkeypatch.setattr(fused, "_triton", lambda: (language, broken, norm_kernels))
    reason = fused.why_no_launch.__wrapped__(torch.device(DEVICE))
    assert said in reason
    assert "Triton needs a C compiler (gcc) and Python's header files (python3-dev)" in reason
    assert "\n" not in reason


def test_addresses_are_sent_again_only_when_one_has_moved():
    table = fused_tables.AddressTable()
    device = torch.device(DEVICE)
    addresses = [[16, 32], [48, 64]]
    first = table.on(device, addresses)
    assert table.on(device, [row.copy() for row in addresses]) is first
    assert table.on(device, [[16, 32], [48, 80]]).tolist() == [[16, 32], [48, 80]]
    assert table.on(device, addresses).tolist() == addresses
