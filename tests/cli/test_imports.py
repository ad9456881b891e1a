"""What a command imports, by the names of the modules in a process of its own: start-up without a stopwatch.

Breaks that turn this file red (each was tried): Arrow's to_numpy where shards are read, which imports pandas; Hydra
imported with the command line; torch imported with the configuration.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.launch import CHECKOUT
from tests.synthetic import make_shards

# Runs a call and prints, last, the modules that it left behind.
CALL = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules))))
from bert_lamb.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
# Not here: tokenizers and accelerate, which transformers imports with a BERT where they are installed, and Triton,
# which torch imports with its optimizers.
NOT_FOR_PRETRAINING = {
    "datasets",
    "deepspeed",
    "matplotlib",
    "pandas",
    "sklearn",
    "tensorboard",
    "wandb",
    "bert_lamb.finetuning",
    "bert_lamb.optim.fused_kernels",
    "bert_lamb.report",
    "data_prep",
    "transformers.trainer",
}
TINY = [
    "recipe=demo",
    "model.num_layers=1",
    "model.hidden_size=8",
    "model.num_heads=1",
    "model.intermediate_size=8",
    *(f"phases.phase1.{word}" for word in ("max_seq_length=16", "max_predictions_per_seq=3", "total_steps=2")),
    *(f"phases.phase2.{word}" for word in ("max_seq_length=32", "max_predictions_per_seq=5", "total_steps=2")),
    "runtime.engine=torch",
    "runtime.device=cpu",
]


def modules_of(*words):
    """(exit status, the modules in the process of this call)."""
    command = [sys.executable, "-c", CALL, *words]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}  # as for users
    finished = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False)
    return finished.returncode, set(json.loads(finished.stdout.splitlines()[-1]))


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_what_the_command_line_says_of_itself_needs_no_library(word):
    status, modules = modules_of(word)
    assert status == 0
    assert modules & {"hydra", "omegaconf", "yaml", "numpy", "torch", "socket", "bert_lamb.config"} == set()


def test_a_mistaken_configuration_does_not_wait_for_torch():
    status, modules = modules_of("pretrain", "recipe=lamb_32k", "shards=/nowhere", "run_dir=r", "nonsense=1")
    assert status == 2
    assert "hydra" in modules
    assert modules & {"torch", "numpy", "transformers", "pyarrow"} == set()


def test_pretraining_imports_what_it_uses(tmp_path):
    """A whole run of two steps, since what is imported late counts too."""
    shards = make_shards(tmp_path / "shards")
    status, modules = modules_of("pretrain", *TINY, f"shards={shards}", f"run_dir={tmp_path / 'run'}")
    assert status == 0
    assert "bert_lamb.train.loop" in modules
    assert modules & NOT_FOR_PRETRAINING == set()
