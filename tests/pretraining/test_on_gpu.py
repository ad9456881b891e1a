"""`bert-lamb pretrain` on one GPU: each engine and precision learns what a CPU learns, and goes on where it was killed.

Truth: one process in fp32 on the CPU, same rows, no dropout. The runs are programs, several at once on the GPU.
"""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.outputs.run_dir import RunDir
from tests.launch import CHECKOUT
from tests.pretraining.test_pretrain import SMALL
from tests.synthetic import make_shards

pytestmark = pytest.mark.gpu

SIZES = ["model.hidden_size=64", "model.intermediate_size=128", "runtime.num_threads=1", "runtime.loader_workers=0"]
CPU = ["runtime.engine=torch", "runtime.device=cpu"]
GPU = ["runtime=gpu", "runtime.compile=false", "runtime.micro_batch_size={phase1:16,phase2:4}"]  # 4 micro-steps
TORCH, FSDP = "runtime.engine=torch", "runtime.engine=fsdp"
FP16 = ["runtime.precision=fp16", "+runtime.deepspeed_overrides.fp16.initial_scale_power=8"]  # no step is skipped
RUNS = {
    "torch, fp32": [TORCH, "runtime.precision=fp32"],
    **{f"ZeRO {n}, fp32": [f"runtime.zero_stage={n}", "runtime.precision=fp32"] for n in range(4)},
    "fsdp, fp32": [FSDP, "runtime.precision=fp32"],
    "torch, bf16": [TORCH],
    **{f"ZeRO {n}, bf16": [f"runtime.zero_stage={n}"] for n in (1, 2, 3)},
    "fsdp, bf16": [FSDP],
    "ZeRO 1, fp16": FP16,
    "padded, bf16": ["runtime.attention=sdpa"],
    "checkpointing, bf16": ["runtime.activation_checkpointing=true"],
    "compiled layers, bf16": ["runtime.compile=auto"],
    "compiled model, bf16, torch": [TORCH, "runtime.compile=model"],
}
# Of losses near 4.5 nats over 7 steps: fp32 adds in another order; bf16 has 8 bits, fp16 11.
TOLERANCES = {"fp32": 1e-4, "bf16": 3e-2, "fp16": 1e-2}


def pretrain(shards, run_dir, *words):
    """The program, to its end; its output."""
    environment = {name: value for name, value in os.environ.items() if name != "DS_ACCELERATOR"}  # the tests' is cpu
    environment["PYTHONPATH"] = os.pathsep.join([str(CHECKOUT), *sys.path])
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "bert_lamb",
            "pretrain",
            *SMALL,
            *SIZES,
            f"shards={shards}",
            f"run_dir={run_dir}",
            *words,
        ],
        env=environment,
        cwd=run_dir.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )


def losses(run_dir):
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if line["kind"] == "step"]


def weights(run_dir):
    return dict(Checkpoint(RunDir(run_dir).checkpoint("latest")).weights())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Name -> (run directory, output) of all runs, and of the CPU's as "cpu"."""
    folder = tmp_path_factory.mktemp("runs")
    shards = make_shards(folder / "shards")

    def start(name):
        words = CPU if name == "cpu" else [*GPU, *RUNS[name]]
        run_dir = folder / name.replace(" ", "-").replace(",", "")
        return run_dir, pretrain(shards, run_dir, "model.dropout=0", *words)

    with ThreadPoolExecutor(12) as pool:
        names = ["cpu", *RUNS]
        return dict(zip(names, pool.map(start, names), strict=True))


@pytest.mark.parametrize("name", RUNS)
def test_a_run_learns_what_the_cpu_learns(runs, name):
    run_dir, ended = runs[name]
    assert ended.returncode == 0, ended.stdout[-3000:]
    tolerance = next(TOLERANCES[precision] for precision in TOLERANCES if precision in name)
    expected = losses(runs["cpu"][0])
    assert len(expected) == 7
    assert losses(run_dir) == pytest.approx(expected, abs=tolerance)
    if "fp32" in name:
        of_cpu, found = weights(runs["cpu"][0]), weights(run_dir)
        assert found.keys() == of_cpu.keys()
        assert max(float((found[one] - of_cpu[one]).abs().max()) for one in found) < 1e-3


@pytest.mark.parametrize("words", [[TORCH, "runtime.precision=fp32"], [], [FSDP], FP16], ids=str)
def test_a_killed_run_ends_with_the_same_bits(tmp_path, words):
    """With dropout. The flash kernel's backward adds in any order, but rows this short are one block of it."""
    shards, whole, again = make_shards(tmp_path / "shards"), tmp_path / "whole", tmp_path / "again"
    often = ["checkpoint.interval_steps=3", "checkpoint.keep_last=9", *GPU, *words]
    ended = pretrain(shards, whole, *often)
    assert ended.returncode == 0, ended.stdout[-3000:]
    shutil.copytree(whole, again, symlinks=True)
    newer = sorted((again / "checkpoints").iterdir())[1:]
    assert newer
    for checkpoint in newer:
        shutil.rmtree(checkpoint)
    ended = pretrain(shards, again, *often, "if_exists=resume")
    assert ended.returncode == 0, ended.stdout[-3000:]
    of_whole, found = weights(whole), weights(again)
    assert all(torch.equal(found[name], of_whole[name]) for name in of_whole)
    assert losses(again) == losses(whole)
