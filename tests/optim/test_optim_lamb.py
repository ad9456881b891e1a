"""LAMB against hand-worked numbers, two libraries, float64 and its own defining property.

Truths: golden numbers worked out on paper; optax.lamb; timm's Lamb; the numpy oracle in float64.
Breaks that turn this file red: dropping bias correction, moving it into the step size, eps inside the root, decay after
the norm, ratio 0 at a zero norm, a step counter off by one, adapting exempt parameters.
"""

import copy
import importlib
import importlib.util
import pickle
import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_lamb.optim import Lamb, Segments, parameter_groups
from tests.oracles.lamb import LambOracle

IMPLEMENTATIONS = ["reference", "foreach"]
BETAS, EPS, LR, DECAY = (0.9, 0.999), 1e-6, 0.01, 0.01


def make_tensors(dtype=torch.float64, seed=0):
    random = torch.Generator().manual_seed(seed)
    shapes = [(7, 5), (11,), (1,), (3, 4, 2), ()]
    return [torch.randn(shape, generator=random, dtype=torch.float64).to(dtype) for shape in shapes]


def gradients(step, like):
    random = torch.Generator().manual_seed(100 + step)
    return [torch.randn(t.shape, generator=random, dtype=torch.float64).to(t.dtype) for t in like]


def run(tensors, num_steps, **options):
    params = [torch.nn.Parameter(t.clone()) for t in tensors]
    options = {"lr": LR, "betas": BETAS, "eps": EPS, "weight_decay": DECAY, **options}
    optimizer = Lamb(params, **options)
    for step in range(num_steps):
        for p, g in zip(params, gradients(step, params), strict=True):
            p.grad = g
        optimizer.step()
    return [p.detach() for p in params], optimizer


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_golden_first_step(implementation):
    """w = (3, 4), g = (0.6, -0.8), decay 0.1, lr 0.5, eps 0: r = (1, -1), u = (1.3, -0.6), ratio = 5 / sqrt(2.05)."""
    w = torch.nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    w.grad = torch.tensor([0.6, -0.8], dtype=torch.float64)
    Lamb([w], lr=0.5, eps=0.0, weight_decay=0.1, implementation=implementation).step()
    ratio = 5 / 2.05**0.5
    np.testing.assert_allclose(w.detach(), [3 - 0.5 * ratio * 1.3, 4 + 0.5 * ratio * 0.6], rtol=1e-12)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_golden_without_bias_correction(implementation):
    """m = 0.1 g, v = 0.001 g^2, so r = 0.1 / sqrt(0.001) = sqrt(10) in size; no decay, so u = sqrt(10) sign(g)."""
    w = torch.nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
    w.grad = torch.tensor([0.6, -0.8], dtype=torch.float64)
    optimizer = Lamb([w], lr=0.5, eps=0.0, weight_decay=0.0, bias_correction=False, implementation=implementation)
    optimizer.step()
    np.testing.assert_allclose(optimizer.last_norms[0].update_norm, [20**0.5], rtol=1e-12)
    np.testing.assert_allclose(w.detach(), [3 - 0.5 * 5 / 2**0.5, 4 + 0.5 * 5 / 2**0.5], rtol=1e-12)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("bias_correction", [True, False])
def test_oracle_in_float64(implementation, bias_correction):
    tensors = make_tensors()
    found, _ = run(tensors, 20, implementation=implementation, bias_correction=bias_correction)
    oracle = LambOracle(betas=BETAS, eps=EPS, bias_correction=bias_correction)
    params = {str(i): t.numpy().copy() for i, t in enumerate(tensors)}
    for step in range(20):
        grads = {str(i): g.numpy() for i, g in enumerate(gradients(step, tensors))}
        oracle.step(params, grads, lr=LR, weight_decay=lambda name: DECAY, is_adapted=lambda name: True)
    for index, tensor in enumerate(found):
        np.testing.assert_allclose(tensor, params[str(index)], rtol=1e-11)


def test_foreach_equals_reference_in_float32():
    """Same stages, other kernels: rounding of a few units in the last place over 20 steps."""
    first, _ = run(make_tensors(torch.float32), 20, implementation="reference")
    second, _ = run(make_tensors(torch.float32), 20, implementation="foreach")
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_norms_of_millions_of_elements(implementation):
    """fp32 sums are off by 1e-4 at this size, and differently for every cut; a trust ratio must not be."""
    w = torch.randn(4_200_000, generator=torch.Generator().manual_seed(0))
    math = importlib.import_module(f"bert_lamb.optim.{implementation}")
    expected = np.square(w.numpy(), dtype=np.float64).sum()
    np.testing.assert_allclose(math.partial_norms([w], "l2"), [expected], rtol=1e-9)
    np.testing.assert_allclose(math.partial_norms(list(w.split(1_234_567)), "l2").sum(), expected, rtol=1e-9)


@pytest.fixture(scope="module")
def timm_lamb():
    """timm's Lamb without timm's models, which need torchvision."""
    specification = importlib.util.find_spec("timm")
    if specification is None:
        pytest.skip("timm is not installed (make test installs it)")
    root = next(iter(specification.submodule_search_locations))
    for name, path in (("timm", root), ("timm.optim", f"{root}/optim")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [path]
    yield importlib.import_module("timm.optim.lamb").Lamb
    for name in [name for name in sys.modules if name == "timm" or name.startswith("timm.")]:
        del sys.modules[name]


def test_parity_with_timm(timm_lamb):
    """timm corrects the moments as the paper's v5 does; always_adapt, since it leaves undecayed groups unadapted."""
    found, _ = run(make_tensors(), 10)
    params = [torch.nn.Parameter(t.clone()) for t in make_tensors()]
    optimizer = timm_lamb(
        params, lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY, max_grad_norm=None, always_adapt=True
    )
    for step in range(10):
        for p, g in zip(params, gradients(step, params), strict=True):
            p.grad = g
        optimizer.step()
    for a, b in zip(found, params, strict=True):
        torch.testing.assert_close(a, b.detach(), rtol=1e-6, atol=1e-9)


def test_parity_with_optax():
    """optax.lamb: Adam with corrected moments, decay added, then the trust ratio with guards at zero norms."""
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    jax.config.update("jax_enable_x64", True)
    tensors = make_tensors()
    found, _ = run(tensors, 10)
    transform = optax.lamb(LR, b1=BETAS[0], b2=BETAS[1], eps=EPS, weight_decay=DECAY)
    params = [jax.numpy.asarray(t.numpy()) for t in tensors]
    state = transform.init(params)
    for step in range(10):
        grads = [jax.numpy.asarray(g.numpy()) for g in gradients(step, tensors)]
        updates, state = transform.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    for a, b in zip(found, params, strict=True):
        np.testing.assert_allclose(a, np.asarray(b), rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    implementation=st.sampled_from(IMPLEMENTATIONS),
    shape=st.sampled_from([(1,), (5,), (3, 7), (2, 3, 4)]),
    scale=st.floats(1e-3, 1e3),
    gradient_scale=st.floats(1e-2, 1e4),
    lr=st.floats(1e-4, 0.5),  # at 1 a single element lands on 0, where the ratio is 1 by definition
    seed=st.integers(0, 1000),
)
def test_a_step_moves_by_lr_times_the_norm(implementation, shape, scale, gradient_scale, lr, seed):
    """The defining property: without decay, ||dw|| = lr ||w|| for every adapted tensor, at every step."""
    random = torch.Generator().manual_seed(seed)
    w = torch.nn.Parameter(scale * torch.randn(shape, generator=random, dtype=torch.float64))
    optimizer = Lamb([w], lr=lr, weight_decay=0.0, implementation=implementation)
    for _ in range(3):
        w.grad = gradient_scale * torch.randn(shape, generator=random, dtype=torch.float64)
        before = w.detach().clone()
        optimizer.step()
        torch.testing.assert_close((w.detach() - before).norm(), lr * before.norm(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_zero_norms_have_ratio_one(implementation):
    """A zero weight moves as Adam would move it; a zero update leaves the weight where it is, and nothing is NaN."""
    zero_weight = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
    zero_update = torch.nn.Parameter(torch.ones(4, dtype=torch.float64))
    zero_weight.grad, zero_update.grad = torch.full((4,), 2.0, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)
    optimizer = Lamb([zero_weight, zero_update], lr=0.1, weight_decay=0.0, implementation=implementation)
    optimizer.step()
    np.testing.assert_allclose(zero_weight.detach(), np.full(4, -0.1), rtol=1e-5)
    np.testing.assert_array_equal(zero_update.detach(), np.ones(4))
    np.testing.assert_array_equal(optimizer.last_norms[0].trust_ratio, [1.0, 1.0])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_exempt_parameters_are_neither_decayed_nor_adapted(implementation):
    """A bias moves exactly as torch's Adam moves it."""
    named = [("dense.weight", (4, 3)), ("dense.bias", (4,)), ("LayerNorm.weight", (4,))]
    random = torch.Generator().manual_seed(1)
    params = {name: torch.nn.Parameter(torch.randn(shape, generator=random)) for name, shape in named}
    twins = {name: torch.nn.Parameter(p.detach().clone()) for name, p in params.items()}
    groups = parameter_groups(params.items(), weight_decay=DECAY)
    assert [group["adapt"] for group in groups] == [True, False]
    lamb = Lamb(groups, lr=LR, betas=BETAS, eps=EPS, implementation=implementation)
    adam = torch.optim.Adam(twins.values(), lr=LR, betas=BETAS, eps=EPS)
    for step in range(5):
        for name, g in zip(params, gradients(step, list(params.values())), strict=True):
            params[name].grad, twins[name].grad = g, g.clone()
        lamb.step()
        adam.step()
    torch.testing.assert_close(params["dense.bias"], twins["dense.bias"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(params["LayerNorm.weight"], twins["LayerNorm.weight"], rtol=1e-5, atol=1e-6)
    assert (params["dense.weight"] - twins["dense.weight"]).abs().max() > 1e-3
    assert [record.names for record in lamb.last_norms] == [("dense.weight",)]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_segments_equal_whole_parameters(implementation):
    """Three parameters laid end to end in two flat tensors, one cut in the middle, padding between: the same result."""
    tensors = [t.view(-1) for t in make_tensors()[:3]]
    expected, _ = run(tensors, 6, implementation=implementation)
    sizes = [t.numel() for t in tensors]
    names = ("a", "b", "c")
    cut = sizes[1] // 2
    pad = torch.full((4,), float("nan"), dtype=torch.float64)  # ZeRO 3 leaves whatever memory held there
    flats = [
        torch.nn.Parameter(torch.cat([tensors[0], tensors[1][:cut]])),
        torch.nn.Parameter(torch.cat([tensors[1][cut:], pad, tensors[2]])),
    ]
    shared = {}

    def reducer(index):
        """The sum over both flat tensors, as an all-reduce gives it; what this one brings must be right itself."""

        def reduce_norms(squared, operation):
            torch.testing.assert_close(squared, shared[index], rtol=1e-10, atol=0)
            return sum(shared.values())

        return reduce_norms

    optimizer = Lamb(flats, lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY, implementation=implementation)
    for step in range(6):
        whole = gradients(step, make_tensors())[:3]
        whole = [g.view(-1) for g in whole]
        flats[0].grad = torch.cat([whole[0], whole[1][:cut]])
        flats[1].grad = torch.cat([whole[1][cut:], torch.zeros(4, dtype=torch.float64), whole[2]])
        if step == 0:
            optimizer.bind(
                [
                    (flats[0], Segments(names, (0, 1), (sizes[0], cut), reducer(0))),
                    (flats[1], Segments(names, (1, -1, 2), (sizes[1] - cut, 4, sizes[2]), reducer(1))),
                ]
            )
        shared.update({index: share_of_norms(optimizer, flat) for index, flat in enumerate(flats)})
        optimizer.step()
    found = [flats[0][: sizes[0]], torch.cat([flats[0][sizes[0] :], flats[1][: sizes[1] - cut]]), flats[1][-sizes[2] :]]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.detach(), b, rtol=1e-10, atol=0)


def share_of_norms(optimizer, flat):
    """What this flat tensor alone contributes to the squared norms at its next step, by the numpy formulas."""
    segments = optimizer._cut_of(flat)
    state = {key: value.numpy().copy() for key, value in optimizer.state[flat].items()}
    t, w, g = int(state["step"]) + 1, flat.detach().numpy(), flat.grad.numpy()
    m = BETAS[0] * state["exp_avg"] + (1 - BETAS[0]) * g
    v = BETAS[1] * state["exp_avg_sq"] + (1 - BETAS[1]) * g * g
    u = (m / (1 - BETAS[0] ** t)) / (np.sqrt(v / (1 - BETAS[1] ** t)) + EPS) + DECAY * w
    squared = torch.zeros(2, len(segments.names), dtype=torch.float64)
    start = 0
    for slot, size in zip(segments.slots, segments.sizes, strict=True):
        if slot >= 0:
            squared[0, slot] += float(np.square(w[start : start + size]).sum())
            squared[1, slot] += float(np.square(u[start : start + size]).sum())
        start += size
    return squared


def test_swapped_parameters_are_refused():
    """What ZeRO does to an unaware optimizer: the parameters it was built with are gone."""
    params = [torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(2))]
    optimizer = Lamb(params, lr=0.1)
    flat = torch.nn.Parameter(torch.ones(5))
    flat.grad = torch.ones(5)
    optimizer.param_groups[0]["params"] = [flat]
    with pytest.raises(RuntimeError, match=r"call bind\(\)"):
        optimizer.step()
    assert torch.equal(flat.detach(), torch.ones(5))


def test_awaiting_binding_ignores_zero_gradients_only():
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = Lamb([parameter], lr=0.1, awaits_binding=True)
    parameter.grad = torch.zeros(3)
    optimizer.step()
    assert torch.equal(parameter.detach(), torch.ones(3))
    assert not optimizer.state
    parameter.grad = torch.ones(3)
    with pytest.raises(RuntimeError, match="awaits binding"):
        optimizer.step()


def test_segments_that_do_not_cover_are_refused():
    flat = torch.nn.Parameter(torch.ones(5))
    with pytest.raises(ValueError, match="4 elements for a tensor of 5"):
        Lamb([flat], lr=0.1).bind([(flat, Segments(("a",), (0,), (4,)))])


@pytest.mark.parametrize(
    "options",
    [
        {"lr": -1},
        {"lr": float("nan")},
        {"betas": (1.0, 0.9)},
        {"eps": -1e-9},
        {"weight_decay": -0.1},
        {"implementation": "magic"},
    ],
)
def test_values_out_of_range_are_refused(options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=name):
        Lamb([torch.nn.Parameter(torch.ones(1))], **{"lr": 0.1, **options})


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_and_state_dicts_continue_alike(copy_of):
    """A copy, and a fresh optimizer with the loaded state, take the same next step as the original."""
    params = [torch.nn.Parameter(t) for t in make_tensors()]
    optimizer = Lamb(params, lr=LR)
    for step in range(3):
        for p, g in zip(params, gradients(step, params), strict=True):
            p.grad = g
        optimizer.step()
    twin_params, twin = copy_of((params, optimizer))
    fresh_params = [torch.nn.Parameter(p.detach().clone()) for p in params]
    fresh = Lamb(fresh_params, lr=123.0)
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for held, opt in ((params, optimizer), (twin_params, twin), (fresh_params, fresh)):
        for p, g in zip(held, gradients(9, held), strict=True):
            p.grad = g
        opt.step()
    for a, b, c in zip(params, twin_params, fresh_params, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


def test_closure_and_missing_gradients():
    used, unused = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    optimizer = Lamb([used, unused], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (used**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0
    assert torch.equal(unused.detach(), torch.ones(2))
    assert not torch.equal(used.detach(), torch.ones(2))
