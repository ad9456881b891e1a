"""apex's FusedLAMB as an optional peer: what is handed to it, and what is refused.

There is no apex here: a stand-in records the arguments. Their names and meaning are those of NVIDIA's FusedLAMB
(apex/optimizers/fused_lamb.py); the numbers it would compute are for a machine that has it (scripts/bench/lamb_step
compares them with ours).
"""

import sys
import types

import pytest
import torch

from bert_lamb.errors import UserError
from bert_lamb.optim import parameter_groups
from bert_lamb.optim.apex_lamb import build_apex_lamb

SETTINGS = {"betas": (0.9, 0.999), "eps": 1e-6, "bias_correction": True, "adapt_undecayed": False}


def groups(dtype=torch.float32):
    named = [("dense.weight", (2, 2)), ("dense.bias", (2,))]
    parameters = [(name, torch.nn.Parameter(torch.ones(shape, dtype=dtype))) for name, shape in named]
    return parameter_groups(parameters, weight_decay=0.02)


class FusedLAMB(torch.optim.SGD):
    """Records its arguments."""

    def __init__(self, params, **options):
        self.options = options
        super().__init__(params, lr=options["lr"])


@pytest.fixture
def apex(monkeypatch):
    """A module apex without optimizers, as PyPI's package; the test adds what NVIDIA's has."""
    module = types.ModuleType("apex")
    module.__file__ = "/site-packages/apex/__init__.py"
    module.__path__ = []
    monkeypatch.setitem(sys.modules, "apex", module)
    return module


def test_arguments(apex, monkeypatch):
    monkeypatch.setitem(sys.modules, "apex.optimizers", types.SimpleNamespace(FusedLAMB=FusedLAMB))
    optimizer = build_apex_lamb(groups(), **SETTINGS)
    assert optimizer.options["betas"] == (0.9, 0.999)
    assert (optimizer.options["eps"], optimizer.options["bias_correction"]) == (1e-6, True)
    assert optimizer.options["use_nvlamb"] is False
    assert optimizer.options["max_grad_norm"] >= 1e20  # the engine clips
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.02, 0.0]
    assert build_apex_lamb(groups(), **{**SETTINGS, "adapt_undecayed": True}).options["use_nvlamb"] is True


def test_the_other_apex_is_named(apex):
    with pytest.raises(UserError, match=r"/site-packages/apex/__init__\.py without apex\.optimizers\.FusedLAMB.*PyPI"):
        build_apex_lamb(groups(), **SETTINGS)


def test_no_apex(monkeypatch):
    monkeypatch.setitem(sys.modules, "apex", None)
    with pytest.raises(UserError, match="found no package apex"):
        build_apex_lamb(groups(), **SETTINGS)


def test_low_precision_is_refused():
    with pytest.raises(UserError, match=r"found parameters of torch\.bfloat16"):
        build_apex_lamb(groups(torch.bfloat16), **SETTINGS)
