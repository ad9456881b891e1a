"""LARS as the LAMB paper has it, against the formula, optax, torch's momentum and numbers worked out by hand.

Truths: the numpy oracle in float64; closed forms; optax's transforms chained; torch's SGD for the unadapted momentum.
Breaks that turn this file red (each was tried): the decay after the momentum instead of in it, the momentum without
1 - beta, the ratio with ||g|| instead of ||m||, the direction without its momentum, a momentum that a direction
overwrites, ratio 0 at a zero norm, a pass of the kernel that is not launched or runs twice.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_lamb.optim import Lars
from tests.optim.cases import (
    DECAY,
    DTYPES,
    FUSED,
    IMPLEMENTATIONS,
    LARS_VARIANTS,
    LR,
    TOLERANCES,
    device_of,
    distance,
    make_tensors,
    optax_run,
    parameters,
    run,
    train,
    truth,
)

EAGER = ["reference", "foreach"]


def vector(values, implementation):
    return torch.tensor(values, dtype=DTYPES[implementation], device=device_of(implementation))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_golden_two_steps(implementation):
    """w = (3, 4), g = (0.6, -0.8), then g = 0; decay 0.1, beta 0.9, lr 0.5.

    m = 0.1 (0.9, -0.4), of norm 0.1 sqrt(0.97), so w = (3, 4) - 2.5 (0.9, -0.4) / sqrt(0.97). Then m = 0.9 m + 0.01 w.
    """
    w = torch.nn.Parameter(vector([3.0, 4.0], implementation))
    optimizer = Lars([w], lr=0.5, beta=0.9, weight_decay=0.1, implementation=implementation)
    w.grad = vector([0.6, -0.8], implementation)
    optimizer.step()
    once = np.array([3 - 2.25 / 0.97**0.5, 4 + 1 / 0.97**0.5])
    np.testing.assert_allclose(w.detach().cpu(), once, rtol=TOLERANCES[implementation])
    w.grad = vector([0.0, 0.0], implementation)
    optimizer.step()
    m = 0.9 * np.array([0.09, -0.04]) + 0.01 * once
    np.testing.assert_allclose(optimizer.state[w]["exp_avg"].cpu(), m, rtol=TOLERANCES[implementation])
    ratio = np.hypot(*once) / np.hypot(*m)
    np.testing.assert_allclose(w.detach().cpu(), once - 0.5 * ratio * m, rtol=2 * TOLERANCES[implementation])
    (record,) = optimizer.last_norms
    found = [float(record.param_norm), float(record.update_norm), float(record.trust_ratio)]
    np.testing.assert_allclose(found, [np.hypot(*once), np.hypot(*m), ratio], rtol=2 * TOLERANCES[implementation])


@pytest.mark.parametrize("variant", LARS_VARIANTS)
@pytest.mark.parametrize("implementation", EAGER)
def test_each_variant_equals_the_oracle_over_20_steps(implementation, variant):
    """In float64; the kernels have this test, with more shapes, in test_optim_fused.py."""
    options = LARS_VARIANTS[variant]
    found, _ = run(Lars, make_tensors(), 20, implementation=implementation, **options)
    expected, _ = truth(Lars, make_tensors(), 20, **options)
    # clipped: the gradients' multiplier is a float32 number
    assert distance(found, expected) < (1e-6 if "max_grad_norm" in options else TOLERANCES[implementation])


def test_each_variant_differs_from_every_other():
    """After 3 steps any two are 100 times the widest tolerance from each other."""
    results = [truth(Lars, make_tensors(), 3, **options)[0] for options in LARS_VARIANTS.values()]
    assert min(distance(a, b) for i, a in enumerate(results) for b in results[:i]) > 1e-4


@pytest.mark.parametrize("implementation", EAGER)
def test_parity_with_optax(optax, implementation):
    """Decay, an average that is not debiased, the trust ratio: three of optax's transforms in the paper's order."""
    transform = optax.chain(
        optax.add_decayed_weights(DECAY),
        optax.ema(0.9, debias=False),
        optax.scale_by_trust_ratio(),
        optax.scale(-LR),
    )
    found, _ = run(Lars, make_tensors(), 6, implementation=implementation)
    assert distance(found, optax_run(transform, make_tensors(), 6)) < 1e-9


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_unadapted_lars_is_momentum(implementation):
    """torch's SGD with dampening, once its momentum buffer has a beginning at 0 (it would begin at the gradient)."""
    tensors = make_tensors(DTYPES[implementation])
    found, _ = run(Lars, tensors, 5, implementation=implementation, adapt=False)
    params = parameters(make_tensors(DTYPES[implementation]))
    sgd = torch.optim.SGD(params, lr=LR, momentum=0.9, dampening=1 - (1 - 0.9), weight_decay=DECAY)
    for p in params:
        sgd.state[p]["momentum_buffer"] = torch.zeros_like(p)
    train(sgd, params, range(5))
    assert distance(found, params) < TOLERANCES[implementation]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_group_has_its_own_switches(implementation):
    tensors = make_tensors(DTYPES[implementation], shapes=[(7, 5)])
    params = parameters(tensors, device_of(implementation))
    own = {"beta": 0.5, "weight_decay": 0.5, "lr": 0.25}
    train(Lars([{"params": params, **own}], lr=LR, implementation=implementation), params, range(2))
    expected, _ = truth(Lars, tensors, 2, **own)
    assert distance(params, expected) < TOLERANCES[implementation]
    for name in own:
        others, _ = truth(Lars, tensors, 2, **{key: value for key, value in own.items() if key != name})
        assert distance(others, expected) > 1e-4


@settings(max_examples=30, deadline=None)
@given(
    implementation=st.sampled_from(EAGER),
    scale=st.floats(1e-3, 1e3),
    gradient_scale=st.floats(1e-2, 1e4),
    lr=st.floats(1e-4, 0.5),
    seed=st.integers(0, 1000),
)
def test_a_step_moves_by_lr_times_the_norm(implementation, scale, gradient_scale, lr, seed):
    """The defining property, for LARS with decay too, since the decay is in the momentum: ||dw|| = lr ||w||."""
    random = torch.Generator().manual_seed(seed)
    w = torch.nn.Parameter(scale * torch.randn(3, 4, generator=random, dtype=torch.float64))
    optimizer = Lars([w], lr=lr, weight_decay=0.1, implementation=implementation)
    for _ in range(3):
        w.grad = gradient_scale * torch.randn(3, 4, generator=random, dtype=torch.float64)
        before = w.detach().clone()
        optimizer.step()
        torch.testing.assert_close((w.detach() - before).norm(), lr * before.norm(), rtol=1e-9, atol=0)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_zero_norms_have_ratio_one(implementation):
    """A zero weight moves by lr m = lr (1 - beta) g; a zero momentum leaves the weight where it is; nothing is NaN."""
    zero_weight = torch.nn.Parameter(vector([0.0] * 4, implementation))
    zero_update = torch.nn.Parameter(vector([1.0] * 4, implementation))
    zero_weight.grad, zero_update.grad = vector([2.0] * 4, implementation), vector([0.0] * 4, implementation)
    optimizer = Lars([zero_weight, zero_update], lr=0.5, weight_decay=0.0, implementation=implementation)
    optimizer.step()
    np.testing.assert_allclose(zero_weight.detach().cpu(), np.full(4, -0.1), rtol=TOLERANCES[implementation])
    np.testing.assert_array_equal(zero_update.detach().cpu(), np.ones(4))
    np.testing.assert_array_equal(optimizer.last_norms[0].trust_ratio.cpu(), [1.0, 1.0])


@pytest.mark.parametrize("beta", [-0.1, 1.0])
def test_beta_out_of_range_is_refused(beta):
    with pytest.raises(ValueError, match="beta="):
        Lars([torch.nn.Parameter(torch.ones(1))], lr=0.1, beta=beta)


@pytest.mark.parametrize("implementation", ["foreach", FUSED])
def test_the_state_is_one_momentum(implementation):
    """No second moment is held."""
    _, optimizer = run(Lars, make_tensors(DTYPES[implementation]), 1, implementation=implementation)
    assert {name for state in optimizer.state.values() for name in state} == {"step", "exp_avg"}
