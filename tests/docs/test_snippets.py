"""The Python blocks of docs/ and of optim's README run, all in one process of their own, and train what they say.

Truth: a loop of single tensors in float64, from the formula of the paper; the wrapped runs must equal it as well.
"""

import inspect
import os
import re
import subprocess
import sys

import pytest
import torch

from bert_lamb.optim import Lamb, Lars, parameter_groups
from tests.launch import CHECKOUT

PAGES = ["docs/optim.md", "bert_lamb/optim/README.md"]
TITLES = ["LAMB elsewhere", "Plain PyTorch", "DDP", "FSDP2", "transformers' Trainer", "Accelerate", "Lightning"]
TITLES += ["`Lamb`", "`Lars`", "`parameter_groups`"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("snippets")
    command = [sys.executable, "-m", "tests.docs.snippets_worker", str(folder / "out.pt")]
    pages = [str(CHECKOUT / page) for page in PAGES]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, *pages], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    blocks = torch.load(folder / "out.pt")
    assert len(blocks) == len(TITLES) + 1
    return dict(zip([*TITLES, "README"], blocks, strict=True))


def lamb_by_the_formula(blocks):
    """Eight steps of the page's model by Algorithm 2, in float64: one tensor at a time, no foreach, no groups."""
    namespace = {}
    exec(blocks["LAMB elsewhere"]["block"], namespace)
    model = namespace["build_model"]().double()
    weights = dict(model.named_parameters())
    moments = {name: (torch.zeros_like(weight), torch.zeros_like(weight)) for name, weight in weights.items()}
    for step, (inputs, labels) in enumerate(namespace["build_batches"](), start=1):
        loss = torch.nn.functional.cross_entropy(model(inputs.double()), labels)
        grads = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
        norm = torch.stack([grad.square().sum() for grad in grads.values()]).sum().sqrt()
        with torch.no_grad():
            for name, weight in weights.items():
                grad = grads[name] * min(1.0, 1.0 / (float(norm) + 1e-6))
                m, v = moments[name]
                m.copy_(0.9 * m + 0.1 * grad)
                v.copy_(0.999 * v + 0.001 * grad.square())
                direction = (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-6)
                ratio = 1.0
                if weight.dim() > 1:
                    direction = direction + 0.01 * weight
                    ratio = float(weight.norm() / direction.norm())
                weight -= 5e-3 * ratio * direction
    return model.state_dict()


@pytest.mark.parametrize("title", ["Plain PyTorch", "DDP", "FSDP2", "Accelerate", "Lightning"])
def test_a_block_trains_by_the_formula(trained, title):
    """1e-5: eight steps in fp32 against float64, of weights near 1."""
    expected, block = lamb_by_the_formula(trained), trained[title]
    assert (block["optimizer"], block["skipped"], block["steps"]) == ("Lamb", 0, 8)
    assert set(block["weights"]) == set(expected)
    for name, weight in block["weights"].items():
        torch.testing.assert_close(weight.double(), expected[name], rtol=0, atol=1e-5)


def test_the_trainer_takes_every_step_with_lamb(trained):
    block = trained["transformers' Trainer"]
    assert (block["optimizer"], block["skipped"], block["steps"]) == ("Lamb", 0, 4)
    assert all(weight.isfinite().all() for weight in block["weights"].values())


@pytest.mark.parametrize("called", [Lamb, Lars, parameter_groups], ids=lambda called: called.__name__)
def test_an_example_of_the_reference_takes_every_step(trained, called):
    block = trained[f"`{called.__name__}`"]
    expected = "Lars" if called is Lars else "Lamb"
    assert (block["optimizer"], block["skipped"], block["steps"]) == (expected, 0, 8)


def test_the_page_has_a_block_under_each_title():
    text = (CHECKOUT / PAGES[0]).read_text()
    assert re.findall(r"^#{1,3} (.+)\n(?:(?!^##).*\n)*?^```python$", text, flags=re.MULTILINE) == TITLES


@pytest.mark.parametrize("called", [Lamb, Lars, parameter_groups], ids=lambda called: called.__name__)
def test_the_reference_names_every_argument(called):
    """Truth: the signature; a default that the page shows is its own."""
    text = (CHECKOUT / PAGES[0]).read_text().partition(f"### `{called.__name__}`")[2].partition("\n### ")[0]
    rows = {}
    for names, default in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| (?:`(.*?)`)? ?\|", text, flags=re.MULTILINE):
        rows |= dict.fromkeys(re.findall(r"`(\w+)`", names), default)
    signature = inspect.signature(called).parameters
    assert sorted(rows) == sorted(signature)
    for name, default in rows.items():
        assert not default or default == repr(signature[name].default), name
