"""The host waits for the device a few times a step, never in a micro-step; the next batch is ready before it does.

Truth: a count of the calls that would wait, on the CPU (host_reads.py); the same under DeepSpeed is in
tests/finetuning/squad/test_squad_on_ranks.py. On a GPU torch itself raises where the host would wait.
"""

import pytest
import torch

from bert_lamb.cli.compose import compose
from bert_lamb.engine.build import RuntimeSettings, build_engine
from bert_lamb.engine.launch import Process
from bert_lamb.engine.torch_engine import TorchEngine
from bert_lamb.model.encoder import choose_execution
from bert_lamb.outputs.plain import to_plain
from bert_lamb.pretraining.admission import admit_phases
from bert_lamb.pretraining.build import build_model
from bert_lamb.pretraining.command import pretrain, recipe_of
from bert_lamb.pretraining.task import PretrainingTask
from tests.pretraining.test_pretrain import arguments
from tests.synthetic import make_shards
from tests.train.host_reads import HostReads, per_step_of

PIECES = ["runtime.engine=torch", "runtime.micro_batch_size.phase1=16", "evaluation.max_instances=0"]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("shards") / "s")


def test_what_the_host_waits_for(shards, tmp_path):
    """The gradient's norm, which decides whether a step is applied; the sums of the batch; the trust ratios."""
    reads = HostReads()
    with reads.watching():
        pretrain(compose("pretrain", arguments(shards, tmp_path / "run", *PIECES)))
    assert per_step_of(reads.by_part()) == {
        "optimizer": {"bert_lamb/engine/torch_engine.py": 1},
        "agreement": {"bert_lamb/train/loop.py": 1},
        "logging": {"bert_lamb/train/recorder.py": 1},
    }
    assert reads.num_entered["forward_backward"] > 2 * reads.num_entered["optimizer"]


def test_the_counter_sees_what_waits():
    reads, values = HostReads(), torch.arange(4.0)
    asked = [
        lambda: float(values[1]),
        lambda: bool(values[1] > 0),
        lambda: values.tolist(),
        lambda: values.cpu(),
        lambda: values.numpy(),
        lambda: values[values > 1],
        lambda: values.nonzero(),
        lambda: torch.equal(values, values),
        lambda: torch.tensor([1.0], device="cpu"),
        lambda: values.sum() + torch.full((1,), 2.0),  # does not wait
    ]
    found = []
    with reads.watching():
        for ask in asked:
            before = reads.counts.total()
            ask()
            found.append(reads.counts.total() - before)
    assert found == [1] * 9 + [0]


def test_the_next_batch_is_ready_before_the_host_waits(shards, tmp_path, monkeypatch):
    order = []
    counts, to_step, batches = PretrainingTask.counts, TorchEngine.step, PretrainingTask.micro_batches

    def counting(task, step):
        order.append(f"counts {step}")
        return counts(task, step)

    def stepping(engine, lr):
        order.append("step")
        return to_step(engine, lr)

    def batching(task, first, last):
        for batch in batches(task, first, last):
            order.append("batch")
            yield batch

    monkeypatch.setattr(PretrainingTask, "counts", counting)
    monkeypatch.setattr(TorchEngine, "step", stepping)
    monkeypatch.setattr(PretrainingTask, "micro_batches", batching)
    pretrain(compose("pretrain", arguments(shards, tmp_path / "run", *PIECES, "phases.phase1.total_steps=2")))
    first = ["batch", "counts 1", *["batch"] * 4, "counts 2", "step"]  # the last batch belongs to the second step
    assert order[:13] == [*first, *["batch"] * 3, "counts 2", "step"]


@pytest.mark.gpu
def test_no_micro_step_waits_on_a_gpu(shards, tmp_path):
    """In bf16, with the flash kernel; torch raises at every call that would synchronize."""
    words = [*PIECES, "runtime.device=cuda", "runtime.precision=bf16"]
    config = compose("pretrain", arguments(shards, tmp_path / "run", *words))
    plain = to_plain(config)
    recipe, runtime = recipe_of(plain), RuntimeSettings(**plain["runtime"])
    phase = admit_phases(recipe, runtime, world_size=1)[0]
    process = Process(0, 0, 1, torch.device("cuda", 0))
    engine = build_engine(
        build_model(recipe, phase, choose_execution(process.device, **runtime.of_model("cuda"))),
        recipe.optimizer,
        runtime,
        process,
        micro_batch_size=16,
        gradient_accumulation_steps=4,
        max_grad_norm=1.0,
        loss_scale=None,
    )
    task = PretrainingTask(recipe, phase, rank=0, world_size=1, device=process.device, loader_workers=0)
    batches, counts = task.micro_batches(1, phase.stage.schedule.total_steps), task.counts(1)
    engine.backward(task.loss(engine.model, next(batches), counts)[0])  # kernels are loaded, memory is reserved
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            loss, _ = task.loss(engine.model, next(batches), counts)
            engine.backward(loss)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert engine.step(1e-3).is_applied
