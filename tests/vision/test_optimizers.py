"""The optimizers that LAMB is compared with are torch's. Truth: torch's own, whose state is made by its first step."""

import copy

import pytest
import torch
from torch.nn import functional

from bert_lamb.engine.optimizer_state import moments_of
from bert_lamb.engine.torch_engine import TorchEngine
from bert_lamb.optim.build import OptimizerSettings, build_optimizer
from bert_lamb.vision.networks import LeNet

SETTINGS = {
    "momentum": (OptimizerSettings("momentum", 0.01, beta=0.9), {"momentum_buffer"}),
    "adagrad": (OptimizerSettings("adagrad", 0.01, eps=1e-10), {"sum"}),
    "adam": (OptimizerSettings("adam", 0.01, betas=(0.9, 0.99), eps=1e-8), {"exp_avg", "exp_avg_sq"}),
}
TRUTHS = {
    "momentum": lambda groups, lr: torch.optim.SGD(groups, lr=lr, momentum=0.9),
    "adagrad": lambda groups, lr: torch.optim.Adagrad(groups, lr=lr),
    "adam": lambda groups, lr: torch.optim.Adam(groups, lr=lr, betas=(0.9, 0.99)),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_each_is_torchs_own(name):
    """In float64, to 1e-12 after five steps: with moments that an engine has made before the first, and without."""
    settings, moments = SETTINGS[name]
    torch.manual_seed(0)
    lr, truth = 0.05, LeNet(num_channels=1, image_size=12, num_classes=3).double()
    model = copy.deepcopy(truth)
    decayed = [parameter for parameter in truth.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in truth.parameters() if parameter.ndim == 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = TRUTHS[name](groups, lr)
    engine = TorchEngine(
        model,
        build_optimizer(model, settings, awaits_binding=False),
        device=torch.device("cpu"),
        precision="fp32",
        max_grad_norm=0.0,
    )
    assert {kind for one in engine.owned_fragments() for kind in one.tensors} == {"weight", *moments}
    start = copy.deepcopy(truth.state_dict())
    for step in range(5):
        images = torch.randn(6, 1, 12, 12, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        labels = torch.arange(6) % 3
        optimizer.zero_grad()
        functional.cross_entropy(truth(images), labels).backward()
        optimizer.step()
        engine.backward(functional.cross_entropy(engine.model(images), labels))
        assert engine.step(lr).is_applied
    for expected, found in zip(truth.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        for kind, tensor in moments_of(engine.optimizer, found).items():
            torch.testing.assert_close(tensor, optimizer.state[expected][kind], rtol=1e-12, atol=1e-12)
    assert any((value - start[key]).abs().max() > 1e-3 for key, value in model.state_dict().items())
