"""LAMB and LARS under FSDP2 and DDP, as plain drop-ins: a cross-check of exactness that shares nothing with DeepSpeed.

Truth: the numpy oracle (LAMB) and the reference implementation in one process. Parameters are cut at other places than
under ZeRO: by rows, never across parameters, unevenly on 3 ranks; on 4 they are sharded over two and replicated over
two. The optimizer clips here itself, by one norm over all groups and ranks, and skips one step on all ranks where only
some hold a gradient that is not finite.
Breaks that turn this file red: no all-reduce of the norms, an all-reduce over replicas too, a clip by the local norm,
a step skipped on one rank only (the ranks would wait for each other, or end apart).
"""

import functools

import numpy as np
import pytest
import torch

from bert_lamb.optim import Lamb, Lars
from tests.engine import small_training as small
from tests.engine.truths import in_one_process, lamb_by_oracle
from tests.launch import run_ranks

SETTINGS = {"lr": small.LR, "implementation": "reference"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """trained(world_size) -> {case: its file}; one launch for all cases of a world size."""

    @functools.cache
    def of_world_size(world_size):
        out = tmp_path_factory.mktemp(f"fsdp{world_size}")
        finished = run_ranks(world_size, "tests/engine/fsdp_worker.py", str(out))
        assert finished.returncode == 0, finished.stdout[-4000:]
        return {path.stem: torch.load(path) for path in out.glob("*.pt")}

    return of_world_size


@pytest.fixture(scope="module")
def truths():
    lamb, _ = lamb_by_oracle()
    settings = {**SETTINGS, "betas": small.BETAS, "eps": small.EPS}
    return {
        "ddp": lamb,
        "lamb": lamb,
        "lamb-reference": lamb,
        "lamb-linf": in_one_process(lambda groups: Lamb(groups, norm="linf", **settings)),
        "lars": in_one_process(lambda groups: Lars(groups, beta=small.BETAS[0], **SETTINGS)),
    }


@pytest.mark.parametrize("world_size", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_equals_one_process(trained, truths, world_size):
    """Tolerance as in test_zero_exactness.py; an optimizer that takes the local norms is 1e-2 off."""
    results = trained(world_size)
    assert results.keys() == truths.keys()
    for case, expected in truths.items():
        found = results[case]["params"]
        assert found.keys() == expected.keys()
        for name, x in expected.items():
            error = np.abs(found[name].numpy() - x) / np.maximum(1, np.abs(x))
            assert error.max() < 1e-6, (case, name, error.max())


def test_trust_ratios_are_of_whole_parameters(trained):
    """Sharded and whole parameters report the same ratios."""
    whole = trained(3)["ddp"]["ratios"]
    for case in ("lamb", "lamb-reference"):
        sharded = trained(3)[case]["ratios"]
        np.testing.assert_allclose([sharded[n] for n in whole], list(whole.values()), rtol=1e-4)
