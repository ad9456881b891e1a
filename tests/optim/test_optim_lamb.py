"""LAMB against hand-worked numbers, two libraries, float64 and its own defining property.

Truths: golden numbers worked out on paper; optax.lamb; timm's Lamb; the numpy oracle in float64.
Breaks that turn this file red: dropping bias correction, moving it into the step size, eps inside the root, decay after
the norm, ratio 0 at a zero norm, a step counter off by one, adapting exempt parameters.
"""

import importlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_lamb.optim import Lamb, Segments, parameter_groups
from tests.optim.cases import (
    DECAY,
    DTYPES,
    IMPLEMENTATIONS,
    LR,
    TOLERANCES,
    device_of,
    distance,
    gradients,
    make_tensors,
    optax_run,
    parameters,
    run,
    train,
    truth,
)

# Triton's interpreter also computes what is masked, where with eps = 0 it divides 0 by 0.
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")

EAGER = ["reference", "foreach"]
BETAS, EPS = (0.9, 0.999), 1e-6


def vector(values, implementation):
    return torch.tensor(values, dtype=DTYPES[implementation], device=device_of(implementation))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_golden_first_step(implementation):
    """w = (3, 4), g = (0.6, -0.8), decay 0.1, lr 0.5, eps 0: r = (1, -1), u = (1.3, -0.6), ratio = 5 / sqrt(2.05)."""
    w = torch.nn.Parameter(vector([3.0, 4.0], implementation))
    w.grad = vector([0.6, -0.8], implementation)
    Lamb([w], lr=0.5, eps=0.0, weight_decay=0.1, implementation=implementation).step()
    ratio = 5 / 2.05**0.5
    expected = [3 - 0.5 * ratio * 1.3, 4 + 0.5 * ratio * 0.6]
    np.testing.assert_allclose(w.detach().cpu(), expected, rtol=TOLERANCES[implementation])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_golden_without_bias_correction(implementation):
    """m = 0.1 g, v = 0.001 g^2, so r = 0.1 / sqrt(0.001) = sqrt(10) in size; no decay, so u = sqrt(10) sign(g)."""
    w = torch.nn.Parameter(vector([3.0, 4.0], implementation))
    w.grad = vector([0.6, -0.8], implementation)
    optimizer = Lamb([w], lr=0.5, eps=0.0, weight_decay=0.0, bias_correction=False, implementation=implementation)
    optimizer.step()
    tolerance = TOLERANCES[implementation]
    np.testing.assert_allclose(optimizer.last_norms[0].update_norm.cpu(), [20**0.5], rtol=tolerance)
    np.testing.assert_allclose(w.detach().cpu(), [3 - 0.5 * 5 / 2**0.5, 4 + 0.5 * 5 / 2**0.5], rtol=tolerance)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("bias_correction", [True, False])
def test_oracle_in_float64(implementation, bias_correction):
    """Over 20 steps, of the kernels over 5; every variant has this test in test_optim_variants.py, over fewer steps."""
    num_steps = 5 if implementation == "fused" else 20
    tensors = make_tensors(DTYPES[implementation])
    found, _ = run(Lamb, tensors, num_steps, implementation=implementation, bias_correction=bias_correction)
    expected, _ = truth(Lamb, tensors, num_steps, bias_correction=bias_correction)
    assert distance(found, expected) < TOLERANCES[implementation]


@pytest.mark.parametrize("implementation", EAGER)
@pytest.mark.parametrize("options", [{}, {"bias_correction": False}, {"eps": 0.5}])
def test_transposed_parameters(implementation, options):
    """Which foreach takes another way than contiguous ones; the gradients are contiguous."""
    tensors = [t.mT for t in make_tensors(shapes=[(7, 5), (3, 4, 2)])]
    found, _ = run(Lamb, tensors, 5, implementation=implementation, **options)
    assert not any(p.is_contiguous() for p in found)
    expected, _ = truth(Lamb, tensors, 5, **options)
    assert distance(found, expected) < TOLERANCES[implementation]


def test_reference_and_foreach_in_float32():
    """Both against float64: rounding of a few units in the last place over 20 steps."""
    tensors = make_tensors(torch.float32)
    expected, _ = truth(Lamb, tensors, 20)
    for implementation in EAGER:
        found, _ = run(Lamb, tensors, 20, implementation=implementation)
        assert distance(found, expected) < 2e-6


@pytest.mark.parametrize("implementation", EAGER)
def test_norms_of_millions_of_elements(implementation):
    """fp32 sums are off by 1e-4 at this size, and differently for every cut; a trust ratio must not be."""
    w = torch.randn(4_200_000, generator=torch.Generator().manual_seed(0))
    math = importlib.import_module(f"bert_lamb.optim.{implementation}")
    expected = np.square(w.numpy(), dtype=np.float64).sum()
    np.testing.assert_allclose(math.partial_norms([w], "l2"), [expected], rtol=1e-9)
    np.testing.assert_allclose(math.partial_norms(list(w.split(1_234_567)), "l2").sum(), expected, rtol=1e-9)


def test_parity_with_timm(timm_lamb):
    """timm corrects the moments as the paper's v5 does; always_adapt, since it leaves undecayed groups unadapted."""
    found, _ = run(Lamb, make_tensors(), 10, implementation="auto")
    params = parameters(make_tensors())
    optimizer = timm_lamb(
        params, lr=LR, betas=BETAS, eps=EPS, weight_decay=DECAY, max_grad_norm=None, always_adapt=True
    )
    train(optimizer, params, range(10))
    assert distance(found, params) < 1e-6  # timm counts its steps in float32


def test_parity_with_optax(optax):
    """optax.lamb: Adam with corrected moments, decay added, then the trust ratio with guards at zero norms."""
    found, _ = run(Lamb, make_tensors(), 10, implementation="auto")
    transform = optax.lamb(LR, b1=BETAS[0], b2=BETAS[1], eps=EPS, weight_decay=DECAY)
    assert distance(found, optax_run(transform, make_tensors(), 10)) < 1e-9


@settings(max_examples=40, deadline=None)
@given(
    implementation=st.sampled_from(EAGER),
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
    zero_weight = torch.nn.Parameter(vector([0.0] * 4, implementation))
    zero_update = torch.nn.Parameter(vector([1.0] * 4, implementation))
    zero_weight.grad, zero_update.grad = vector([2.0] * 4, implementation), vector([0.0] * 4, implementation)
    optimizer = Lamb([zero_weight, zero_update], lr=0.1, weight_decay=0.0, implementation=implementation)
    optimizer.step()
    np.testing.assert_allclose(zero_weight.detach().cpu(), np.full(4, -0.1), rtol=1e-5)  # 1 / (1 + eps / 2)
    np.testing.assert_array_equal(zero_update.detach().cpu(), np.ones(4))
    np.testing.assert_array_equal(optimizer.last_norms[0].trust_ratio.cpu(), [1.0, 1.0])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_exempt_parameters_are_neither_decayed_nor_adapted(implementation):
    """A bias moves exactly as torch's Adam moves it."""
    named = {"dense.weight": (4, 3), "dense.bias": (4,), "LayerNorm.weight": (4,)}
    tensors = make_tensors(torch.float32, shapes=named.values())
    params = dict(zip(named, parameters(tensors, device_of(implementation)), strict=True))
    groups = parameter_groups(params.items(), weight_decay=DECAY)
    assert [group["adapt"] for group in groups] == [True, False]
    lamb = Lamb(groups, lr=LR, betas=BETAS, eps=EPS, implementation=implementation)
    train(lamb, params.values(), range(5))
    twins = dict(zip(named, parameters(tensors), strict=True))
    train(torch.optim.Adam(twins.values(), lr=LR, betas=BETAS, eps=EPS), twins.values(), range(5))
    for name in ("dense.bias", "LayerNorm.weight"):
        assert distance([params[name]], [twins[name]]) < 2e-6  # both round in float32
    assert distance([params["dense.weight"]], [twins["dense.weight"]]) > 1e-3
    assert [record.names for record in lamb.last_norms] == [("dense.weight",)]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("norm", ["l2", "l1", "linf"])
def test_segments_equal_whole_parameters(implementation, norm):
    """Three parameters laid end to end in two flat tensors, one cut in the middle, padding between: the same result.

    Each flat tensor has another rank's place: its reducer hands out the norms of the whole parameters as the oracle has
    them, and what the two have brought must make these up.
    """
    dtype, device = DTYPES[implementation], device_of(implementation)
    tensors = [t.view(-1) for t in make_tensors(dtype)[:3]]
    (a, b, c), cut, pad = (t.numel() for t in tensors), 5, 4
    nan = torch.full((pad,), torch.nan, dtype=dtype)  # ZeRO 3 leaves whatever memory held there

    def flat(parts):
        halves = [torch.cat([parts[0], parts[1][:cut]]), torch.cat([parts[1][cut:], nan, parts[2]])]
        return [half.to(device) for half in halves]

    whole, shares, operations = [], {}, set()

    def reducer(index):
        def reduce_norms(partial, operation):
            shares[index] = partial.cpu().numpy().copy()
            operations.add(operation)
            return torch.from_numpy(whole[-1]).to(device)

        return reduce_norms

    flats = [torch.nn.Parameter(half) for half in flat(tensors)]
    optimizer = Lamb(flats, lr=LR, weight_decay=DECAY, norm=norm, implementation=implementation)
    names = ("a", "b", "c")
    cuts = [
        Segments(names, (0, 1), (a, cut), reducer(0)),
        Segments(names, (1, -1, 2), (b - cut, pad, c), reducer(1)),
    ]
    optimizer.bind(zip(flats, cuts, strict=True))
    for step in range(1, 4):
        grads = gradients(step - 1, tensors)
        for half, gradient in zip(flats, flat(grads), strict=True):
            half.grad = gradient
        expected, oracle = truth(Lamb, tensors, step, norm=norm)
        whole.append(np.array([norms[:2] for norms in oracle.norms.values()]).T ** (2 if norm == "l2" else 1))
        optimizer.step()
        brought = np.maximum(shares[0], shares[1]) if norm == "linf" else shares[0] + shares[1]
        np.testing.assert_allclose(brought, whole[-1], rtol=10 * TOLERANCES[implementation])
        assert shares[0][0, 2] == shares[1][0, 0] == 0
    found = [flats[0][:a], torch.cat([flats[0][a:], flats[1][: b - cut]]), flats[1][b - cut + pad :]]
    assert distance(found, expected) < TOLERANCES[implementation]
    assert operations == {"max" if norm == "linf" else "sum"}


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
