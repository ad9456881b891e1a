"""The process's device: a GPU for each rank, or one line that says why not; and a step that is skipped.

Breaks that turn this file red: a missing GPU accepted, a build without CUDA met by an assertion of torch's.
"""

import subprocess
import sys

import pytest
import torch

from bert_lamb.engine import launch
from bert_lamb.engine.launch import check_gpus, this_process
from bert_lamb.engine.place import Place
from bert_lamb.engine.torch_engine import TorchEngine
from bert_lamb.errors import UserError
from bert_lamb.optim import Lamb

NAMES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS")


@pytest.fixture
def environment(monkeypatch):
    for name in (*NAMES, "MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "0")  # so that monkeypatch puts everything back afterwards
        monkeypatch.delenv(name)
    return monkeypatch


def test_a_task_of_srun_gets_the_names_that_torch_reads(environment):
    given = {"SLURM_PROCID": "11", "SLURM_LOCALID": "3", "SLURM_STEP_NUM_TASKS": "16"}
    for name, value in {**given, "MASTER_ADDR": "node1", "MASTER_PORT": "20007"}.items():
        environment.setenv(name, value)
    process = this_process(device="cpu", num_threads=None)
    assert (process.rank, process.local_rank, process.world_size, process.is_main) == (11, 3, 16, False)
    assert [launch.os.environ[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")] == ["11", "3", "16"]


class Cuda:
    """A machine as torch sees it."""

    def __init__(self, monkeypatch, *, build="12.8", num_gpus=0, reason=""):
        monkeypatch.setattr(torch.version, "cuda", build)
        monkeypatch.setattr(torch.version, "hip", None, raising=False)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)
        monkeypatch.setattr(torch.cuda, "init", lambda: self.fail(reason))

    def fail(self, reason):
        raise RuntimeError(reason)


TOO_OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by ..."


@pytest.mark.parametrize(
    ("machine", "place", "visible", "found", "reporter"),
    [
        ({"build": None}, Place(), None, f"found torch {torch.__version__}, a build without CUDA", "machine"),
        (
            {"reason": TOO_OLD},
            Place(),
            None,
            "(The NVIDIA driver on your system is too old (found version 11040))",
            "machine",
        ),
        (
            {"reason": "Found no NVIDIA driver on your system. Please check"},
            Place(),
            None,
            "(Found no NVIDIA driver on",
            "machine",
        ),
        (
            {"reason": "No CUDA GPUs are available"},
            Place(),
            "5",
            "no usable GPU (No CUDA GPUs are available)",
            "machine",
        ),
        ({"num_gpus": 0}, Place(), "", "found CUDA_VISIBLE_DEVICES='', which hides every GPU", "machine"),
        ({"num_gpus": 0}, Place(), "-1", "found CUDA_VISIBLE_DEVICES='-1', which hides every GPU", "machine"),
        ({"num_gpus": 0}, Place(), "NoDevFiles", "which hides every GPU", "machine"),
        ({"num_gpus": 4}, Place(1, 1, 8, 8), None, "found 4 GPUs for 8 ranks on ", "machine"),
        ({"num_gpus": 4}, Place(5, 5, 8, None), None, "found 4 GPUs for local rank 5", "rank"),
        ({"num_gpus": 4}, Place(3, 3, 8, 4), None, None, None),
        ({"num_gpus": 1}, Place(), "2", None, None),
    ],
)
def test_a_gpu_for_each_rank_or_a_line(environment, machine, place, visible, found, reporter):
    """What all ranks of a machine can see, the first of them says; what one has, it says itself."""
    Cuda(environment, **machine)
    if visible is not None:
        environment.setenv("CUDA_VISIBLE_DEVICES", visible)
    if found is None:
        check_gpus(place)
        return
    with pytest.raises(UserError) as refused:
        check_gpus(place)
    assert found in str(refused.value)
    assert refused.value.reporter == reporter


@pytest.mark.skipif(torch.version.cuda is not None, reason="needs torch's CPU build")
def test_this_build_without_cuda_is_named(environment):
    with pytest.raises(
        UserError, match=r"found torch .*, a build without CUDA; .* https://pytorch.org/get-started/locally"
    ):
        this_process(device="cuda", num_threads=None)


SHAPES_TWICE = """
from bert_lamb.engine.launch import this_process
import torch
this_process(device="cpu", num_threads=1)
for _ in range(2):
    for length in range(1, 41):
        torch.nn.functional.gelu(torch.ones(length, 64, requires_grad=True))
"""


@pytest.mark.parametrize(("asked", "hits"), [(None, 0), ("64", 40)])
def test_onednn_keeps_few_shapes(environment, asked, hits):
    """As its own log says: of 40 shapes that come twice none is kept so long, but where the user asks for more."""
    environment.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    environment.setenv("ONEDNN_VERBOSE", "profile_create")
    if asked is not None:
        environment.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", asked)
    log = subprocess.run([sys.executable, "-c", SHAPES_TWICE], capture_output=True, text=True, check=True).stdout
    made = [line for line in log.splitlines() if "create:cache_" in line and "eltwise" in line]
    if len(made) != 80:
        pytest.skip("torch computes this operation without oneDNN here")
    assert sum("cache_hit" in line for line in made) == hits


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
