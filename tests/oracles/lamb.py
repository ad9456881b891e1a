"""LAMB and LARS written a second time, from You et al. 2020, in numpy: no code in common with bert_lamb.optim.

LAMB is Algorithm 2, N-LAMB and NN-LAMB are Algorithms 3 and 4 with constant betas, LARS is Algorithm 1.
"""

import numpy as np

ORDERS = {"l2": 2, "l1": 1, "linf": np.inf}


def trust_ratio(x, direction, *, norm="l2", param_norm_bounds=None, trust_ratio_bounds=None):
    """(norm of x, norm of the direction, ratio), in float64."""
    x_norm, d_norm = (
        float(np.linalg.norm(a.astype(np.float64).ravel(), ORDERS[norm])) if a.size else 0.0 for a in (x, direction)
    )
    phi = x_norm if param_norm_bounds is None else min(max(x_norm, param_norm_bounds[0]), param_norm_bounds[1])
    if not (phi > 0 and d_norm > 0):
        return x_norm, d_norm, 1.0
    ratio = phi / d_norm
    if trust_ratio_bounds is not None:
        ratio = min(max(ratio, trust_ratio_bounds[0]), trust_ratio_bounds[1])
    return x_norm, d_norm, ratio


def clipped(grads, max_norm):
    """Gradients times max_norm / (norm + 1e-6) where their common norm is larger."""
    total = np.sqrt(sum(np.sum(np.square(g, dtype=np.float64)) for g in grads.values()))
    factor = max_norm / (total + 1e-6)
    return {name: g * factor if factor < 1 else g for name, g in grads.items()}


class LambOracle:
    """One state for all tensors; arrays are of any float dtype and updated in place. `norms`: of the last step."""

    def __init__(self, *, betas, eps, bias_correction=True, nesterov="none", **ratio_options):
        self.beta1, self.beta2 = betas
        self.eps, self.bias_correction, self.nesterov = eps, bias_correction, nesterov
        self.ratio_options = ratio_options
        self.t = 0
        self.moments = {}
        self.norms = {}

    def step(self, params, grads, *, lr, weight_decay, is_adapted):
        """params, grads: dicts of arrays; weight_decay and is_adapted: functions of the name."""
        self.t += 1
        for name, x in params.items():
            g = grads[name]
            m, v = self.moments.get(name, (np.zeros_like(x), np.zeros_like(x)))
            m = self.beta1 * m + (1 - self.beta1) * g
            v = self.beta2 * v + (1 - self.beta2) * g * g
            self.moments[name] = m, v
            m_hat, v_hat = self.corrected(m, v, g)
            direction = m_hat / (np.sqrt(v_hat) + self.eps) + weight_decay(name) * x
            ratio = 1.0
            if is_adapted(name):
                self.norms[name] = trust_ratio(x, direction, **self.ratio_options)
                ratio = self.norms[name][2]
            x -= (lr * ratio * direction).astype(x.dtype)

    def corrected(self, m, v, g):
        if not self.bias_correction:
            return m, v
        now1, now2 = 1 - self.beta1**self.t, 1 - self.beta2**self.t
        next1, next2 = 1 - self.beta1 ** (self.t + 1), 1 - self.beta2 ** (self.t + 1)
        ahead1 = self.beta1 / next1 * m + (1 - self.beta1) / now1 * g
        ahead2 = self.beta2 / next2 * v + (1 - self.beta2) / now2 * g**2
        return {
            "none": (m / now1, v / now2),
            "first": (ahead1, self.beta2 / now2 * v),
            "both": (ahead1, ahead2),
        }[self.nesterov]


class LarsOracle:
    """As LambOracle: momentum of the decayed gradient, then the trust ratio."""

    def __init__(self, *, beta, **ratio_options):
        self.beta, self.ratio_options = beta, ratio_options
        self.momenta = {}
        self.norms = {}

    def step(self, params, grads, *, lr, weight_decay, is_adapted):
        for name, x in params.items():
            decayed = grads[name] + weight_decay(name) * x
            m = self.beta * self.momenta.get(name, np.zeros_like(x)) + (1 - self.beta) * decayed
            self.momenta[name] = m
            ratio = 1.0
            if is_adapted(name):
                self.norms[name] = trust_ratio(x, m, **self.ratio_options)
                ratio = self.norms[name][2]
            x -= (lr * ratio * m).astype(x.dtype)
