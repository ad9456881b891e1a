"""LAMB written a second time, from Algorithm 2 of You et al. 2020, in numpy: no code in common with bert_lamb.optim."""

import numpy as np


class LambOracle:
    """One state for all tensors; arrays are of any float dtype and updated in place."""

    def __init__(self, *, betas, eps, bias_correction=True):
        self.beta1, self.beta2 = betas
        self.eps, self.bias_correction = eps, bias_correction
        self.t = 0
        self.moments = {}

    def step(self, params, grads, *, lr, weight_decay, is_adapted):
        """params, grads: dicts of arrays; weight_decay and is_adapted: functions of the name."""
        self.t += 1
        for name, x in params.items():
            g = grads[name]
            m, v = self.moments.get(name, (np.zeros_like(x), np.zeros_like(x)))
            m = self.beta1 * m + (1 - self.beta1) * g
            v = self.beta2 * v + (1 - self.beta2) * g * g
            self.moments[name] = m, v
            c1 = 1 - self.beta1**self.t if self.bias_correction else 1.0
            c2 = 1 - self.beta2**self.t if self.bias_correction else 1.0
            direction = (m / c1) / (np.sqrt(v / c2) + self.eps) + weight_decay(name) * x
            ratio = 1.0
            if is_adapted(name):
                x_norm = np.sqrt(np.sum(np.square(x, dtype=np.float64)))
                d_norm = np.sqrt(np.sum(np.square(direction, dtype=np.float64)))
                ratio = x_norm / d_norm if x_norm > 0 and d_norm > 0 else 1.0
            x -= (lr * ratio * direction).astype(x.dtype)
