"""Who this process is, from the environments that launchers set.

Breaks that turn this file red: SLURM's names swapped, torchrun's overruled by SLURM's, a missing GPU accepted.
"""

import pytest
import torch

from bert_lamb.engine.launch import this_process
from bert_lamb.engine.torch_engine import TorchEngine
from bert_lamb.errors import UserError
from bert_lamb.optim import Lamb

NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "MASTER_ADDR")


@pytest.fixture
def environment(monkeypatch):
    for name in NAMES:
        monkeypatch.setenv(name, "0")  # so that monkeypatch puts everything back afterwards
        monkeypatch.delenv(name)
    return monkeypatch


def place(process):
    return process.rank, process.local_rank, process.world_size


def test_alone(environment):
    assert place(this_process(device="cpu", num_threads=None)) == (0, 0, 1)


def test_torchrun(environment):
    environment.setenv("RANK", "5")
    environment.setenv("LOCAL_RANK", "1")
    environment.setenv("WORLD_SIZE", "8")
    environment.setenv("SLURM_PROCID", "2")  # torchrun inside an allocation
    environment.setenv("MASTER_ADDR", "node1")
    assert place(this_process(device="cpu", num_threads=None)) == (5, 1, 8)


def test_srun(environment):
    environment.setenv("SLURM_PROCID", "11")
    environment.setenv("SLURM_LOCALID", "3")
    environment.setenv("SLURM_NTASKS", "16")
    assert place(this_process(device="cpu", num_threads=None)) == (0, 0, 1), "an allocation without our script"
    environment.setenv("MASTER_ADDR", "node1")
    assert place(this_process(device="cpu", num_threads=None)) == (11, 3, 16)


def test_a_missing_gpu_is_refused(environment, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    environment.setenv("LOCAL_RANK", "2")
    with pytest.raises(UserError, match="2 GPUs for local rank 2"):
        this_process(device="cuda", num_threads=None)


def test_a_step_with_a_gradient_that_is_not_finite_is_skipped():
    """Weights, moments and the step count stay as they are, and the step says so."""
    model = torch.nn.Linear(2, 1)
    engine = TorchEngine(
        model, Lamb(model.parameters(), lr=0.0), device=torch.device("cpu"), precision="fp32", max_grad_norm=1.0
    )
    engine.backward(model(torch.ones(1, 2)).sum())
    assert engine.step(0.1).is_applied
    before = [p.detach().clone() for p in model.parameters()]
    engine.backward(model(torch.full((1, 2), float("inf"))).sum())
    assert not engine.step(0.1).is_applied
    assert engine.optimizer_step == 1
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    engine.backward(model(torch.ones(1, 2)).sum())
    assert engine.step(0.1).is_applied
