"""What the tests of this folder share: tensors, gradients, every switch, and a run beside its truth in numpy.

A distance is per tensor the largest difference over the largest value: what an element smaller than that loses to
rounding is no fault of its own. Gradients change their size from step to step, or LAMB would not notice a clipping.
"""

import importlib.util

import numpy as np
import pytest
import torch

from bert_lamb.optim import Lamb, Lars
from tests.oracles.lamb import LambOracle, LarsOracle, clipped

HAS_TRITON = importlib.util.find_spec("triton") is not None
FUSED = pytest.param("fused", marks=pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed"))
IMPLEMENTATIONS = ["reference", "foreach", FUSED]

# float64 rounds at 1e-16, float32, in which the kernels compute, at 6e-8, and a step is a few dozen operations.
DTYPES = {"reference": torch.float64, "foreach": torch.float64, "fused": torch.float32}
TOLERANCES = {"reference": 1e-12, "foreach": 1e-12, "fused": 1e-6}

LR, DECAY = 0.0625, 0.125  # exact in float32
SHAPES = [(7, 5), (11,), (1,), (3, 4, 2), ()]

# What is switched on in each variant, over Lamb's defaults with LR and DECAY. All change the result: see
# test_optim_variants.py.
LAMB_VARIANTS = {
    "plain": {},
    "no_decay": {"weight_decay": 0.0},
    "no_bias_correction": {"bias_correction": False},
    "not_adapted": {"adapt": False},
    "N-LAMB": {"nesterov": "first"},
    "NN-LAMB": {"nesterov": "both"},
    "NN-LAMB_not_adapted": {"nesterov": "both", "adapt": False},
    "other_betas": {"betas": (0.8, 0.95)},
    "no_betas": {"betas": (0, 0)},
    "large_eps": {"eps": 0.5},
    "l1": {"norm": "l1"},
    "linf": {"norm": "linf"},
    "phi": {"param_norm_bounds": (1.5, 4.0)},
    "ratio_bounds": {"trust_ratio_bounds": (0.9, 1.1)},
    "clipped": {"max_grad_norm": 2.0},
    "N-LAMB_clipped": {"nesterov": "first", "max_grad_norm": 2.0},
}
LARS_VARIANTS = {
    "plain": {},
    "no_decay": {"weight_decay": 0.0},
    "not_adapted": {"adapt": False},
    "other_beta": {"beta": 0.5},
    "no_beta": {"beta": 0},
    "l1": {"norm": "l1"},
    "linf": {"norm": "linf"},
    "phi": {"param_norm_bounds": (1.5, 4.0)},
    "ratio_bounds": {"trust_ratio_bounds": (0.9, 1.1)},
    "clipped": {"max_grad_norm": 2.0},
}


def device_of(implementation):
    """Where it runs in these tests: without a GPU the kernels run in Triton's interpreter, on the CPU."""
    return "cuda" if implementation == "fused" and torch.cuda.is_available() else "cpu"


def make_tensors(dtype=torch.float64, seed=0, shapes=SHAPES):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random, dtype=torch.float64).to(dtype) for shape in shapes]


def gradients(step, like):
    """Of 1, 100 and 0.01 in size, in turn."""
    random = torch.Generator().manual_seed(100 + step)
    scale = (1.0, 100.0, 0.01)[step % 3]
    return [(scale * torch.randn(t.shape, generator=random, dtype=torch.float64)).to(t) for t in like]


def parameters(tensors, device="cpu"):
    return [torch.nn.Parameter(t.detach().to(device, copy=True)) for t in tensors]


def train(optimizer, params, steps):
    """Steps of the numbers in `steps` with `gradients`; returns the optimizer."""
    for step in steps:
        for p, g in zip(params, gradients(step, params), strict=True):
            p.grad = g
        optimizer.step()
    return optimizer


def run(optimizer_class, tensors, num_steps, *, implementation, **options):
    """(parameters, optimizer) after some steps."""
    params = parameters(tensors, device_of(implementation))
    options = {"lr": LR, "weight_decay": DECAY, **options}
    optimizer = optimizer_class(params, implementation=implementation, **options)
    return params, train(optimizer, params, range(num_steps))


def oracle_of(optimizer_class, *, betas=(0.9, 0.999), eps=1e-6, beta=0.9, **options):
    if optimizer_class is Lamb:
        return LambOracle(betas=betas, eps=eps, **options)
    assert optimizer_class is Lars
    return LarsOracle(beta=beta, **options)


def truth(optimizer_class, tensors, num_steps, *, lr=LR, weight_decay=DECAY, adapt=True, max_grad_norm=None, **options):
    """(arrays in float64, oracle) after the steps of `run`."""
    oracle = oracle_of(optimizer_class, **options)
    arrays = {index: t.double().numpy().copy() for index, t in enumerate(tensors)}
    for step in range(num_steps):
        grads = {index: g.double().numpy() for index, g in enumerate(gradients(step, tensors))}
        if max_grad_norm is not None:
            grads = clipped(grads, max_grad_norm)
        oracle.step(arrays, grads, lr=lr, weight_decay=lambda name: weight_decay, is_adapted=lambda name: adapt)
    return list(arrays.values()), oracle


def optax_run(transform, tensors, num_steps):
    """Arrays after the steps of `run` by an optax transformation; its learning rate is in it, with a minus."""
    import jax
    import optax

    @jax.jit
    def step(params, state, grads):
        updates, state = transform.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = [jax.numpy.asarray(t.numpy()) for t in tensors]
    state = transform.init(params)
    for index in range(num_steps):
        params, state = step(params, state, [jax.numpy.asarray(g.numpy()) for g in gradients(index, tensors)])
    return [np.asarray(p) for p in params]


def as_array(tensor):
    return tensor.detach().cpu().double().numpy() if isinstance(tensor, torch.Tensor) else np.asarray(tensor)


def distance(found, expected):
    """The largest over all tensors; infinite where one of them is not a number."""
    pairs = [(as_array(a), as_array(b)) for a, b in zip(found, expected, strict=True)]
    assert all(a.shape == b.shape for a, b in pairs)
    far = [float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-300)) for a, b in pairs if b.size]
    return max((np.inf if np.isnan(x) else x for x in far), default=0.0)
