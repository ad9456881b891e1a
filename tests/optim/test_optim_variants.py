"""Every switch of LAMB against the paper's formulas, other libraries and numbers worked out by hand.

Truths: the numpy oracle in float64; closed forms of the first step; optax's Adam with Nesterov momentum; timm's clipped
trust ratio and clipped gradients; torch's AdamW and clip_grad_norm_.
Breaks that turn this file red (each was tried): in either implementation the exponents t and t + 1 of the Nesterov
corrections swapped or one of them off by one, beta left out of a look-ahead, the second moment of "both" used for
"first"; in the trust ratio l1 taken for l2, maxima added up, phi after the ratio or for the direction, bounds of the
ratio where it is not defined, the square root left out; in the clipping the 1e-6, the 1 it is held under, a norm for
each group; a group's own switch taken from the defaults.
"""

import itertools

import numpy as np
import pytest
import torch

from bert_lamb.optim import Lamb, foreach, reference
from tests.optim.cases import (
    DECAY,
    DTYPES,
    IMPLEMENTATIONS,
    LAMB_VARIANTS,
    LR,
    TOLERANCES,
    device_of,
    distance,
    gradients,
    make_tensors,
    optax_run,
    oracle_of,
    parameters,
    run,
    train,
    truth,
)
from tests.oracles.lamb import clipped

EAGER = ["reference", "foreach"]
CLIPPED = 1e-6  # the gradients' multiplier is a float32 number

# Triton's interpreter also computes what is masked, where with eps = 0 it divides 0 by 0.
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")


def one_step(w, g, implementation, **options):
    """(parameter, last_norms' only record) after one step on vectors of numbers."""
    device = device_of(implementation)
    parameter = torch.nn.Parameter(torch.tensor(w, dtype=DTYPES[implementation], device=device))
    parameter.grad = torch.tensor(g, dtype=parameter.dtype, device=device)
    optimizer = Lamb([parameter], implementation=implementation, **{"weight_decay": 0.0, "eps": 0.0, **options})
    optimizer.step()
    return parameter.detach().cpu().double().numpy(), next(iter(optimizer.last_norms), None)


@pytest.mark.parametrize("variant", LAMB_VARIANTS)
@pytest.mark.parametrize("implementation", EAGER)
def test_each_variant_equals_the_oracle_over_20_steps(implementation, variant):
    """In float64; the kernels have this test, with more shapes, in test_optim_fused.py."""
    options = LAMB_VARIANTS[variant]
    found, _ = run(Lamb, make_tensors(), 20, implementation=implementation, **options)
    expected, _ = truth(Lamb, make_tensors(), 20, **options)
    tolerance = CLIPPED if "max_grad_norm" in options else TOLERANCES[implementation]
    assert distance(found, expected) < tolerance


def test_each_variant_differs_from_every_other():
    """What the test above tells apart: after 3 steps any two are 100 times the widest tolerance from each other."""
    results = {name: truth(Lamb, make_tensors(), 3, **options)[0] for name, options in LAMB_VARIANTS.items()}
    for first, second in itertools.combinations(results, 2):
        assert distance(results[first], results[second]) > 1e-4, (first, second)


@pytest.mark.parametrize("math", [reference, foreach])
@pytest.mark.parametrize("nesterov", ["none", "both"])
def test_directions_share_no_memory_with_what_they_come_from(math, nesterov):
    """`apply` uses them up, on some devices: moments or gradients must not be among them."""
    held = [make_tensors(seed=seed, shapes=[(3,)]) for seed in range(4)]
    held[3][0].abs_()
    options = {"beta1": 0.9, "beta2": 0.999, "eps": 0.0, "weight_decay": 0.0, "bias_correction": True}
    lamb = math.lamb_directions(*held, [1], nesterov=nesterov, **options)
    lars = math.lars_directions(*held[:3], beta=0.0, weight_decay=0.0)
    kept = [t.clone() for tensors in held for t in tensors]
    for direction in (*lamb, *lars):
        direction.zero_()
    assert all(torch.equal(t, before) for (t,), before in zip(held, kept, strict=True))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_golden_first_step_with_nesterov(implementation):
    """With m = (1 - b1) g and v = (1 - b2) g^2 the corrections collapse:

    m^ = g (1 + 2 b1) / (1 + b1), v^ = b2 g^2 for "first" and g^2 (1 + 2 b2) / (1 + b2) for "both".
    """
    b1, b2 = 0.75, 0.5
    expected = {
        "none": 1.0,
        "first": (1 + 2 * b1) / (1 + b1) / b2**0.5,
        "both": (1 + 2 * b1) / (1 + b1) / ((1 + 2 * b2) / (1 + b2)) ** 0.5,
    }
    for nesterov, size in expected.items():
        w, _ = one_step([3.0, 4.0], [0.6, -0.8], implementation, lr=0.5, betas=(b1, b2), nesterov=nesterov, adapt=False)
        np.testing.assert_allclose(w, [3 - 0.5 * size, 4 + 0.5 * size], rtol=TOLERANCES[implementation])


@pytest.mark.parametrize("implementation", EAGER)
def test_n_lamb_equals_optax(optax, implementation):
    """optax's scale_by_adam(nesterov=True) looks ahead in the same way.

    It divides v by 1 - b2^t where the paper has b2 more; without eps and decay that factor cancels in the trust ratio.
    """
    transform = optax.chain(
        optax.scale_by_adam(0.9, 0.999, eps=0.0, nesterov=True), optax.scale_by_trust_ratio(), optax.scale(-LR)
    )
    expected = optax_run(transform, make_tensors(), 6)
    options = {"nesterov": "first", "eps": 0.0, "weight_decay": 0.0}
    found, _ = run(Lamb, make_tensors(), 6, implementation=implementation, **options)
    assert distance(found, expected) < 1e-9
    plain, _ = truth(Lamb, make_tensors(), 6, eps=0.0, weight_decay=0.0)
    assert distance(plain, expected) > 1e-3


@pytest.mark.parametrize("implementation", EAGER)
@pytest.mark.parametrize(
    ("ours", "theirs", "tolerance"),
    [
        ({"trust_ratio_bounds": (0.0, 1.0)}, {"trust_clip": True, "max_grad_norm": None}, 1e-6),
        # timm divides by norm / max_grad_norm, without torch's 1e-6: apart by that much of a norm of 2
        ({"max_grad_norm": 2.0}, {"max_grad_norm": 2.0}, 1e-5),
        ({"bias_correction": False}, {"bias_correction": False, "max_grad_norm": None}, 1e-6),
    ],
)
def test_variants_that_timm_has(timm_lamb, implementation, ours, theirs, tolerance):
    """trust_clip=True holds the ratio under 1; timm keeps its step in float32."""
    found, _ = run(Lamb, make_tensors(), 10, implementation=implementation, **ours)
    params = parameters(make_tensors())
    optimizer = timm_lamb(params, lr=LR, weight_decay=DECAY, always_adapt=True, **theirs)
    train(optimizer, params, range(10))
    assert distance(found, params) < tolerance
    assert distance(truth(Lamb, make_tensors(), 10)[0], params) > 1e-3


@pytest.mark.parametrize("implementation", EAGER)
def test_unadapted_lamb_is_adamw(implementation):
    """With ratio 1 the decay that joins the direction is AdamW's: w -= lr (r + lambda w)."""
    found, _ = run(Lamb, make_tensors(), 10, implementation=implementation, adapt=False)
    params = parameters(make_tensors())
    train(torch.optim.AdamW(params, lr=LR, eps=1e-6, weight_decay=DECAY), params, range(10))
    assert distance(found, params) < 1e-12


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("options", "norms", "ratio"),
    [
        ({}, (5.0, 2.05**0.5), 5 / 2.05**0.5),
        ({"norm": "l1"}, (7.0, 1.9), 7 / 1.9),
        ({"norm": "linf"}, (4.0, 1.3), 4 / 1.3),
        ({"param_norm_bounds": (0.0, 1.0)}, (5.0, 2.05**0.5), 1 / 2.05**0.5),
        ({"param_norm_bounds": (10.0, 20.0)}, (5.0, 2.05**0.5), 10 / 2.05**0.5),
        ({"param_norm_bounds": (1.0, 20.0)}, (5.0, 2.05**0.5), 5 / 2.05**0.5),
        ({"trust_ratio_bounds": (0.0, 2.0)}, (5.0, 2.05**0.5), 2.0),
        ({"trust_ratio_bounds": (4.0, 5.0)}, (5.0, 2.05**0.5), 4.0),
        ({"param_norm_bounds": (0.0, 4.0), "trust_ratio_bounds": (0.0, 3.0)}, (5.0, 2.05**0.5), 4 / 2.05**0.5),
    ],
)
def test_golden_trust_ratios(implementation, options, norms, ratio):
    """w = (3, 4), g = (0.6, -0.8), decay 0.1, lr 0.5, eps 0: u = (1.3, -0.6) as in test_optim_lamb.py."""
    w, record = one_step([3.0, 4.0], [0.6, -0.8], implementation, lr=0.5, weight_decay=0.1, **options)
    tolerance = TOLERANCES[implementation]
    found = [float(record.param_norm), float(record.update_norm), float(record.trust_ratio)]
    np.testing.assert_allclose(found, [*norms, ratio], rtol=tolerance)
    np.testing.assert_allclose(w, [3 - 0.5 * ratio * 1.3, 4 + 0.5 * ratio * 0.6], rtol=tolerance)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_bounds_where_a_norm_is_zero(implementation):
    """phi of a zero weight is its lower bound; where phi or ||u|| is 0 the ratio is 1, whatever its own bounds are."""
    tolerance = TOLERANCES[implementation]
    w, record = one_step([0.0, 0.0], [3.0, -1.0], implementation, lr=0.5, param_norm_bounds=(2.0, 4.0))
    np.testing.assert_allclose(float(record.trust_ratio), 2 / 2**0.5, rtol=tolerance)
    np.testing.assert_allclose(w, [-0.5 * 2**0.5, 0.5 * 2**0.5], rtol=tolerance)
    w, record = one_step([0.0, 0.0], [3.0, -1.0], implementation, lr=0.5, trust_ratio_bounds=(0.0, 0.5))
    assert float(record.trust_ratio) == 1.0
    np.testing.assert_allclose(w, [-0.5, 0.5], rtol=tolerance)
    w, record = one_step([1.0, 2.0], [0.0, 0.0], implementation, lr=0.5, eps=1e-6, trust_ratio_bounds=(3.0, 4.0))
    assert float(record.trust_ratio) == 1.0
    np.testing.assert_array_equal(w, [1.0, 2.0])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("limit", [1e-6, 1.0, 50.0])
def test_clipping_is_that_of_torch_over_all_groups(implementation, limit):
    """As torch.nn.utils.clip_grad_norm_ before an optimizer that does not clip, with its 1e-6.

    LAMB hardly notices the size of its gradients; not adapted, with eps 1 and lr 1/4 over the limit it feels every bit.
    Norms of 0.1 to 1000; with the smallest limit they are of its size, where torch's 1e-6 counts by half.
    """
    scale = 1e-5 if limit < 1 else 1.0
    options = {"lr": 0.25 / limit, "weight_decay": 0.0, "eps": 1.0, "adapt": False, "implementation": implementation}
    tensors = make_tensors(DTYPES[implementation])
    ours, theirs, alone = (parameters(tensors, device_of(implementation)) for _ in range(3))

    def groups(params):
        return [{"params": params[:2]}, {"params": params[2:]}]

    clipping = Lamb(groups(ours), max_grad_norm=limit, **options)
    plain, plain_alone = Lamb(groups(theirs), **options), Lamb(groups(alone), **options)
    for step in range(3):
        for params in (ours, theirs, alone):
            for p, g in zip(params, gradients(step, params), strict=True):
                p.grad = g * scale
        torch.nn.utils.clip_grad_norm_(theirs, limit)
        for group in groups(alone):
            torch.nn.utils.clip_grad_norm_(group["params"], limit)
        for optimizer in (clipping, plain, plain_alone):
            optimizer.step()
    assert distance(ours, theirs) < CLIPPED
    assert distance(alone, theirs) > 1e-4, "a norm for each group would not be told from a common one"


def test_the_clip_of_the_oracle_is_that_of_torch():
    """The oracle that the other tests trust, at a norm where 1e-6 counts and at one that is below the limit."""
    grads = dict(enumerate(gradients(1, make_tensors())))
    for scale, limit in ((1e-8, 1e-6), (1.0, 1e9)):
        twins = [torch.nn.Parameter(torch.zeros_like(g)) for g in grads.values()]
        for twin, g in zip(twins, grads.values(), strict=True):
            twin.grad = g * scale
        found = clipped({index: (g * scale).numpy() for index, g in grads.items()}, limit)
        torch.nn.utils.clip_grad_norm_(twins, limit)
        assert distance(found.values(), [twin.grad for twin in twins]) < 1e-12


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_group_has_its_own_switches(implementation):
    """Each group equals an oracle of its own with the group's numbers; none of them is left at the default."""
    tensors = make_tensors(DTYPES[implementation])[:4]
    own = [
        {"lr": 0.25, "betas": (0.5, 0.75)},
        {"eps": 0.5, "weight_decay": 0.5},
        {"bias_correction": False, "adapt": False},
        {"nesterov": "both", "weight_decay": 0.0},
    ]
    params = parameters(tensors, device_of(implementation))
    groups = [{"params": [p], **switches} for p, switches in zip(params, own, strict=True)]
    optimizer = Lamb(groups, lr=LR, weight_decay=DECAY, implementation=implementation)
    train(optimizer, params, range(3))
    results = []
    for index, switches in enumerate([*own, *[{}] * len(own)]):
        index %= len(own)
        switches = {"lr": LR, "weight_decay": DECAY, "adapt": True, **switches}
        lr, decay, adapt = (switches.pop(name) for name in ("lr", "weight_decay", "adapt"))
        oracle = oracle_of(Lamb, **switches)
        array = {0: tensors[index].double().numpy().copy()}
        for step in range(3):
            grads = {0: gradients(step, tensors)[index].double().numpy()}
            oracle.step(array, grads, lr=lr, weight_decay=lambda _, d=decay: d, is_adapted=lambda _, a=adapt: a)
        results.append(array[0])
    assert distance(params, results[:4]) < TOLERANCES[implementation]
    for with_own, with_defaults in zip(results[:4], results[4:], strict=True):
        assert distance([with_own], [with_defaults]) > 1e-3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l3"}, "norm='l3'"),
        ({"param_norm_bounds": (2.0, 1.0)}, "param_norm_bounds"),
        ({"trust_ratio_bounds": (-1.0, 1.0)}, "trust_ratio_bounds"),
        ({"max_grad_norm": 0.0}, "max_grad_norm"),
        ({"nesterov": "twice"}, "nesterov='twice'"),
        ({"nesterov": "first", "bias_correction": False}, "nesterov"),
    ],
)
def test_switches_that_are_out_of_range_are_refused(options, message):
    """In the constructor, and where a group may set them, in a group."""
    with pytest.raises(ValueError, match=message):
        Lamb([torch.nn.Parameter(torch.ones(1))], lr=0.1, **options)
    if "nesterov" in options:
        with pytest.raises(ValueError, match=message):
            Lamb([{"params": [torch.nn.Parameter(torch.ones(1))], **options}], lr=0.1)
