"""The pretraining command as a whole: how the batch is cut and how often it is killed do not change what is learnt.

Truths: the run itself, cut differently; the uninterrupted run, bit for bit.
Breaks that turn this file red: dividing a micro-batch's loss by its own counts, seeding dropout from a global state,
a sampler that forgets its place, a checkpoint without moments, a hand-over that keeps the step counter.
"""

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.cli.compose import compose
from bert_lamb.engine.build import RuntimeSettings
from bert_lamb.errors import UserError
from bert_lamb.model.encoder import Execution
from bert_lamb.outputs.plain import to_plain
from bert_lamb.outputs.run_dir import RunDir
from bert_lamb.pretraining.admission import admit_phases
from bert_lamb.pretraining.build import build_model
from bert_lamb.pretraining.command import pretrain, recipe_of
from bert_lamb.train.recorder import Recorder
from bert_lamb.train.stop import SIGNALS
from tests.launch import CHECKOUT, run_ranks
from tests.synthetic import make_shards

WITHOUT_DEEPSPEED = Path(__file__).with_name("without_deepspeed.py")
SMALL = [
    "recipe=demo",
    "model.num_layers=1",
    "model.hidden_size=32",
    "model.num_heads=2",
    "model.intermediate_size=48",
    "phases.phase1.max_seq_length=16",
    "phases.phase1.max_predictions_per_seq=3",
    "phases.phase1.global_batch_size=64",
    "phases.phase1.total_steps=4",
    "phases.phase1.peak_lr=8e-3",
    "phases.phase2.max_seq_length=32",
    "phases.phase2.max_predictions_per_seq=5",
    "phases.phase2.global_batch_size=16",
    "phases.phase2.total_steps=3",
    "phases.phase2.peak_lr=4e-3",
    "runtime.micro_batch_size.phase1=64",
    "runtime.micro_batch_size.phase2=8",
    "evaluation.micro_batch_size=16",
    "checkpoint.interval_steps=0",
    "logging.trust_ratio_interval_steps=0",
    "model.dropout=0.1",
]

MEASURED = ("seconds", "_per_second", "_tflops", "mfu", "_share", "_bytes")  # fields that differ from run to run


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("shards") / "s")


# Every line of a run: its plan, and one line of progress for each phase.
OF_OURS = re.compile(r"(run|machine|recipe|phase\d) {2,}\S| {9}\d|phase\d: \d+/\d+ steps, ")


def assert_only_ours(printed):
    """Nothing of a library's, such as a warning that nobody who reads it can heed."""
    assert [line for line in printed.splitlines() if not OF_OURS.match(line)] == []


def arguments(shards, run_dir, *overrides):
    return [*SMALL, f"shards={shards}", f"run_dir={run_dir}", *overrides]


def run_here(shards, run_dir, *overrides):
    """One process, plain torch, in this interpreter."""
    pretrain(compose("pretrain", arguments(shards, run_dir, "runtime.engine=torch", *overrides)))
    return Checkpoint(RunDir(run_dir).checkpoint("latest"))


def phases_of(config):
    plain = to_plain(config)
    return admit_phases(recipe_of(plain), RuntimeSettings(**plain["runtime"]), world_size=1)


def records(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def assert_same_bits(found, expected):
    for kind in ("weight", "exp_avg", "exp_avg_sq"):
        for name, shape in expected.shapes.items():
            numel = shape.numel()
            assert torch.equal(found.read(kind, name, 0, numel), expected.read(kind, name, 0, numel)), (kind, name)
    assert found.position == expected.position


@pytest.mark.parametrize("optimizer", ["lamb", "adamw"])
def test_the_cut_of_the_batch_does_not_matter(shards, tmp_path, optimizer):
    """64 x 1 and 8 x 8 in one process, 2 ranks x 4 x 8 under ZeRO 1 (LAMB) and FSDP2 (AdamW, where deepspeed cannot
    be imported): the same weights to 1e-5 in fp32."""
    fixed = ["model.dropout=0.0", f"optimizer={optimizer}"]
    whole = run_here(shards, tmp_path / "64x1", *fixed)
    pieces = run_here(
        shards, tmp_path / "8x8", *fixed, "runtime.micro_batch_size.phase1=8", "runtime.micro_batch_size.phase2=2"
    )
    command = arguments(
        shards,
        tmp_path / "2x4x8",
        *fixed,
        "runtime.micro_batch_size.phase1=8",
        "runtime.micro_batch_size.phase2=2",
        "evaluation.micro_batch_size=8",
    )
    if optimizer == "lamb":
        finished = run_ranks(2, "-m", "bert_lamb", "-v", "pretrain", *command)
        silenced = ("You are using ZeRO with an untested optimizer", "FutureWarning: `torch.distributed.")
        assert all(words in finished.stdout for words in silenced), "-v shows what libraries say"
    else:
        finished = run_ranks(2, str(WITHOUT_DEEPSPEED), "pretrain", *command, "runtime.engine=fsdp")
        assert_only_ours(finished.stdout)
    assert finished.returncode == 0, finished.stdout[-3000:]
    others = {"8x8": pieces, "2x4x8": Checkpoint(RunDir(tmp_path / "2x4x8").checkpoint("latest"))}
    compared = ("loss", "mlm_loss", "mlm_accuracy", "grad_norm", "num_tokens", "unigram_cross_entropy")
    for run, other in others.items():
        for (name, expected), (_, found) in zip(whole.weights(), other.weights(), strict=True):
            if not name.endswith("key.bias"):  # its gradient is zero but for rounding, which Adam blows up
                torch.testing.assert_close(found, expected, rtol=0, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")
        for first, second in zip(records(tmp_path / "64x1"), records(tmp_path / run), strict=True):
            for key in compared:
                if key in first:
                    assert first[key] == pytest.approx(second[key], rel=1e-4, abs=1e-5), (run, first, key)


def test_without_a_sentence_task_its_head_stays_as_it_began(tmp_path):
    """The loss is the masked LM's alone; pooler and classifier keep every bit, in one process and on 2 ranks alike."""
    shards = make_shards(tmp_path / "s", sentence_task="none")
    whole = run_here(shards, tmp_path / "whole", "model.dropout=0.0")
    options = ["model.dropout=0.0", "runtime.micro_batch_size.phase1=8", "evaluation.micro_batch_size=8"]
    options += ["checkpoint.interval_minutes=1e-9", "checkpoint.keep_last=9"]
    finished = run_ranks(2, "-m", "bert_lamb", "pretrain", *arguments(shards, tmp_path / "ranks", *options))
    assert finished.returncode == 0, finished.stdout[-3000:]
    assert_only_ours(finished.stdout)
    on_ranks = dict(Checkpoint(RunDir(tmp_path / "ranks").checkpoint("latest")).weights())
    saved = [
        path.name for path in RunDir(tmp_path / "ranks").checkpoints()
    ]  # by the clock at every step, and at the ends
    assert saved == ["phase1-0000003", "phase1-0000004", "phase2-0000002", "phase2-0000003"]
    config = compose("pretrain", arguments(shards, tmp_path / "whole"))
    recipe = recipe_of(to_plain(config))
    with_task = build_model(recipe, phases_of(config)[0], Execution())
    began = {name: weight.detach() for name, weight in with_task.named_parameters()}
    head = [name for name in began if "pooler" in name or "seq_relationship" in name]
    assert len(head) == 4
    for name, weight in whole.weights():
        assert torch.equal(weight, began[name]) == (name in head), name
        assert torch.equal(on_ranks[name], began[name]) == (name in head), name
        if not name.endswith("key.bias"):
            torch.testing.assert_close(on_ranks[name], weight, rtol=0, atol=1e-5)
    for record in records(tmp_path / "whole"):
        assert not any(key.startswith("nsp") for key in record)
        if record["kind"] == "step":
            assert record["loss"] == record["mlm_loss"]


def test_interrupted_equals_uninterrupted(shards, tmp_path, monkeypatch):
    """Killed before the first checkpoint, between the phases and in the second, with dropout: same bits, same lines."""
    expected = run_here(shards, tmp_path / "whole", "checkpoint.interval_steps=2")

    class Killed(BaseException):
        pass

    def die(*_):
        raise Killed

    original = Recorder.step
    for phase_name, at_step in (("phase1", 2), ("phase1", 99), ("phase2", 3)):

        def step_or_die(self, phase, step, *, _where=(phase_name, at_step), **rest):
            if (phase.name, step) == _where:
                raise Killed
            original(self, phase, step, **rest)

        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "step", step_or_die)
            if at_step == 99:  # after the phase's last checkpoint
                patch.setattr(Recorder, "end_stage", die)
            with pytest.raises(Killed):
                run_here(shards, tmp_path / "killed", "checkpoint.interval_steps=2", "if_exists=resume")
    found = run_here(shards, tmp_path / "killed", "checkpoint.interval_steps=2", "if_exists=resume")
    assert_same_bits(found, expected)
    assert lasting(records(tmp_path / "killed")) == lasting(records(tmp_path / "whole"))


def test_damaged_checkpoints_are_passed_over_and_made_again(shards, tmp_path, capsys):
    """Back from the end of phase 2 into phase 1: the same bits and the same record as if nothing had happened."""
    options = ["checkpoint.interval_steps=2", "checkpoint.keep_last=9", "logging.trust_ratio_interval_steps=1"]
    run_here(shards, tmp_path / "whole", *options)
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    run = RunDir(tmp_path / "run")
    before = [path.name for path in run.checkpoints()]
    for name in before[1:]:
        file = run.path / "checkpoints" / name / "rank-00000-of-00001.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    (run.path / "checkpoints" / "phase2-0000001.partial").mkdir()
    capsys.readouterr()
    found = run_here(shards, run.path, *options, "if_exists=resume")
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("resume")]
    assert len(lines) == 4
    assert lines[-1] == "resume   the run continues after phase1 step 2"
    assert before == ["phase1-0000002", "phase1-0000004", "phase2-0000002", "phase2-0000003"]
    assert sorted(path.name for path in (run.path / "checkpoints").iterdir()) == before
    assert_same_bits(found, Checkpoint(RunDir(tmp_path / "whole").checkpoint("latest")))
    assert lasting(records(run.path)) == lasting(records(tmp_path / "whole"))


def lasting(lines):
    """What does not differ from run to run."""
    kept = [line for line in lines if line["kind"] != "resume"]
    return [{k: v for k, v in line.items() if not k.endswith(MEASURED)} for line in kept]


def kill_all_ranks(launcher):
    """SIGKILL to torchrun and to its ranks, which have process groups of their own."""
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    for pid in (launcher.pid, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    launcher.wait()


@pytest.mark.slow  # tests/scripts/test_chaos.py breaks two ranks at exact moments in less time
@pytest.mark.parametrize("machine", ["zero_stage=2", "engine=fsdp"])
def test_killed_ranks_resume_bit_for_bit(shards, tmp_path, machine):
    """Two ranks with dropout: SIGKILL at some moment, resume, equal to an uninterrupted run."""
    options = [
        f"runtime.{machine}",
        "runtime.micro_batch_size.phase1=16",
        "checkpoint.interval_steps=1",
        "phases.phase1.total_steps=12",
    ]
    whole = run_ranks(2, "-m", "bert_lamb", "pretrain", *arguments(shards, tmp_path / "whole", *options))
    assert whole.returncode == 0, whole.stdout[-3000:]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "bert_lamb",
        "pretrain",
        *arguments(shards, tmp_path / "killed", *options),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    running = subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    metrics = tmp_path / "killed" / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text().count('"kind": "step"') >= 4):
        assert time.monotonic() < deadline
        assert running.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    kill_all_ranks(running)
    assert RunDir(tmp_path / "killed").checkpoints()
    resumed = run_ranks(
        2, "-m", "bert_lamb", "pretrain", *arguments(shards, tmp_path / "killed", *options, "if_exists=resume")
    )
    assert resumed.returncode == 0, resumed.stdout[-3000:]
    assert '"kind": "resume"' in metrics.read_text()
    found, expected = (Checkpoint(RunDir(tmp_path / run).checkpoint("latest")) for run in ("killed", "whole"))
    assert_same_bits(found, expected)


def test_a_signal_ends_the_run_with_a_checkpoint(shards, tmp_path, monkeypatch):
    """The first signal finishes the step, saves, and exits with 143; resuming gives the uninterrupted result."""
    expected = run_here(shards, tmp_path / "whole")
    original = Recorder.step

    def step_and_signal(self, phase, step, **rest):
        original(self, phase, step, **rest)
        if (phase.name, step) == ("phase1", 2):
            workers = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            assert workers, "the loader's worker should be there"
            for pid in map(int, workers):  # a launcher signals the whole process group
                for number in SIGNALS:
                    os.kill(pid, number)
            os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr(Recorder, "step", step_and_signal)
    with pytest.raises(SystemExit) as stopped:
        run_here(shards, tmp_path / "stopped", "runtime.loader_workers=1")
    assert stopped.value.code == 143
    assert Checkpoint(RunDir(tmp_path / "stopped").checkpoint("latest")).position.step == 3
    monkeypatch.setattr(Recorder, "step", original)
    assert_same_bits(run_here(shards, tmp_path / "stopped", "if_exists=resume"), expected)


def test_time_decides_when_to_save(shards, tmp_path, monkeypatch):
    """Steps of four minutes: ten minutes are over in the fourth, and after it in the fourth again; then the end."""
    now = [0.0]

    def monotonic():
        now[0] += 1e-3
        return now[0]

    monkeypatch.setattr(time, "monotonic", monotonic)
    original = Recorder.step

    def slow_step(self, *rest, **more):
        original(self, *rest, **more)
        now[0] += 240.0

    monkeypatch.setattr(Recorder, "step", slow_step)
    monkeypatch.setattr(RunDir, "remove_old_checkpoints", lambda *rest, **more: None)
    run_here(shards, tmp_path / "run", "phases.phase1.total_steps=9", "checkpoint.keep_last=9")
    saved = [path.name for path in RunDir(tmp_path / "run").checkpoints() if path.name.startswith("phase1")]
    assert saved == ["phase1-0000004", "phase1-0000008", "phase1-0000009"]
    never = ["checkpoint.interval_minutes=0", "phases.phase1.total_steps=9"]
    run_here(shards, tmp_path / "never", *never, "checkpoint.keep_last=9")
    assert [path.name for path in RunDir(tmp_path / "never").checkpoints()] == ["phase1-0000009", "phase2-0000003"]
    # Time is up in the fifth step; the second call has the rest of the phase and a step of the next.
    limited = [*never, "checkpoint.keep_last=9", "runtime.stop_after_minutes=14", "if_exists=resume"]
    for places in (["phase1-0000005"], ["phase1-0000005", "phase1-0000009", "phase2-0000001"]):
        with pytest.raises(SystemExit) as stopped:
            run_here(shards, tmp_path / "limited", *limited)
        assert stopped.value.code == 143
        assert [path.name for path in RunDir(tmp_path / "limited").checkpoints()] == places
    found = run_here(shards, tmp_path / "limited", *limited)
    assert_same_bits(found, Checkpoint(RunDir(tmp_path / "never").checkpoint("latest")))


def test_a_reader_that_has_gone_away_costs_no_checkpoint(shards, tmp_path, monkeypatch):
    """As when `| tee` died or the launcher was stopped: announcement, progress and warnings find a closed pipe."""
    from bert_lamb.cli import main as cli

    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        monkeypatch.setattr(sys, "stderr", broken)
        words = arguments(shards, tmp_path / "run", "runtime.engine=torch")
        status = cli.main(["pretrain", *words])
    assert status == 0
    assert Checkpoint(RunDir(tmp_path / "run").checkpoint("latest")).position.phase == "phase2"


def test_a_run_dir_that_cannot_be_written_is_refused_in_a_line(shards, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match=r"found run_dir=.*file/run that cannot be written \(Not a directory\)"):
        run_here(shards, tmp_path / "file" / "run")
    with pytest.raises(UserError, match=r"run_dir=/proc/run that cannot be written"):
        run_here(shards, Path("/proc/run"))


def test_phase_hand_over(shards, tmp_path):
    """Moments and weights are kept, bias correction and schedule start again."""
    run_here(shards, tmp_path / "run", "checkpoint.interval_steps=1", "checkpoint.keep_last=9")
    run = RunDir(tmp_path / "run")
    positions = [Checkpoint(path).position for path in run.checkpoints()]
    assert [(p.phase, p.step, p.optimizer_step) for p in positions] == [
        *(("phase1", step, step) for step in (1, 2, 3, 4)),
        *(("phase2", step, step) for step in (1, 2, 3)),
    ]
    end, begin = Checkpoint(run.checkpoint("phase1-0000004")), Checkpoint(run.checkpoint("phase2-0000001"))
    # The last step of phase 1 and the first of phase 2 share the moment but for one update: 0.9 m + 0.1 g.
    name = "bert.bert.encoder.layer.0.output.dense.weight"
    before, after = (c.read("exp_avg", name, 0, 32 * 48) for c in (end, begin))
    assert torch.cosine_similarity(before, after, dim=0) > 0.5
    rates = [r["lr"] for r in records(tmp_path / "run") if r["kind"] == "step" and r["phase"] == "phase2"]
    assert rates == pytest.approx([4e-3 * 2 / 2.7, 4e-3 * 1 / 2.7, 0.0])


ONE_CURVE = [
    "decay_over=run",
    "phases.phase1.decay=cosine",
    "phases.phase1.end_share=0.1",
    "phases.phase2.peak_lr=null",
    "phases.phase2.warmup_proportion=null",
    "checkpoint.interval_steps=1",
    "checkpoint.keep_last=9",
]


def test_one_curve_over_the_phases_and_no_second_warm_up(shards, tmp_path):
    """Bias correction counts on and the cosine of seven steps is one; resumed in phase 2 it is the same, bit for bit.

    A first step of phase 2 without the re-warm-up, at a count of 1 in the place of 5, would divide moments that are
    warm by 1 - 0.9.
    """
    expected = run_here(shards, tmp_path / "whole", *ONE_CURVE)
    whole, cut = RunDir(tmp_path / "whole"), RunDir(tmp_path / "cut")
    positions = [Checkpoint(path).position for path in whole.checkpoints()]
    assert [p.optimizer_step for p in positions] == [1, 2, 3, 4, 5, 6, 7]
    rates = [r["lr"] for r in records(whole.path) if r["kind"] == "step"]
    assert rates == pytest.approx(
        [8e-3 * (0.1 + 0.45 * (1 + math.cos(math.pi * (k - 0.7) / 6.3))) for k in range(1, 8)]
    )
    shutil.copytree(whole.path, cut.path)
    for name in ("phase2-0000002", "phase2-0000003"):
        shutil.rmtree(cut.checkpoint(name))
    assert_same_bits(run_here(shards, cut.path, *ONE_CURVE, "if_exists=resume"), expected)
    assert [r["lr"] for r in records(cut.path) if r["kind"] == "step"] == rates


def test_a_target_ends_the_run(shards, tmp_path):
    """At the first evaluation that reaches it, for good: resumed, the run is finished."""
    words = ["evaluation.interval_steps=1", "phases.phase1.total_steps=6"]
    run_here(shards, tmp_path / "whole", *words)
    losses = [r["mlm_loss"] for r in records(tmp_path / "whole") if r["kind"] == "heldout" and r["phase"] == "phase1"]
    first = next(index for index, loss in enumerate(losses[1:], 1) if loss <= min(losses[: index + 1]))
    target = f"+stop_at.mlm_loss={losses[first]}"
    last = run_here(shards, tmp_path / "run", *words, target)
    assert (last.position.phase, last.position.step, last.position.is_target_reached) == ("phase1", first + 1, True)
    found = records(tmp_path / "run")
    assert [r["mlm_loss"] for r in found if r["kind"] == "heldout"] == losses[: first + 1]
    assert found[-1]["kind"] == "target_reached"
    run_here(shards, tmp_path / "run", *words, target, "if_exists=resume")
    assert records(tmp_path / "run") == found


def test_a_run_of_an_earlier_version_is_resumed(shards, tmp_path):
    """Its outcome.json knows nothing of curves, scaling and targets; a run that uses none says nothing of them."""
    run_here(shards, tmp_path / "run")
    outcome = json.loads((tmp_path / "run" / "outcome.json").read_text())
    assert outcome.keys() == {"model", "optimizer", "max_grad_norm", "masking", "seed", "phases"}
    phase = {"max_seq_length", "max_predictions_per_seq", "global_batch_size", "total_steps", "shards"}
    assert outcome["phases"]["phase1"].keys() == phase | {"peak_lr", "warmup_proportion", "decay_power", "decay_origin"}
    assert "exempt_embeddings" not in outcome["optimizer"]
    with pytest.raises(UserError, match=r"phases\.phase2\.end_share"):
        run_here(shards, tmp_path / "run", "if_exists=resume", "phases.phase2.end_share=0.1")


def test_metrics_say_what_happened(shards, tmp_path):
    run_here(shards, tmp_path / "run", "logging.trust_ratio_interval_steps=2", "tracker=wandb")
    found = records(tmp_path / "run")
    steps = [r for r in found if r["kind"] == "step"]
    assert [(r["phase"], r["step"]) for r in steps] == [("phase1", s) for s in (1, 2, 3, 4)] + [
        ("phase2", s) for s in (1, 2, 3)
    ]
    assert all(r["is_applied"] and r["grad_norm"] > 0 and r["num_sequences"] in (64, 16) for r in steps)
    assert all(r["trust_ratio_min"] <= r["trust_ratio_median"] <= r["trust_ratio_max"] for r in steps)
    assert [r["step"] for r in found if r["kind"] == "trust_ratios"] == [2, 4, 2]
    heldout = [r for r in found if r["kind"] == "heldout"]
    assert [r["num_instances"] for r in heldout] == [40, 40]
    # 92 equally frequent words: the unigram guess costs ln 92 nats and a little for 26 examples a word, and so does
    # the untrained model, nearly.
    assert heldout[0]["unigram_cross_entropy"] == pytest.approx(4.52, abs=0.1)
    assert heldout[0]["mlm_loss"] == pytest.approx(4.6, abs=0.2)
    assert (tmp_path / "run" / "vocab.txt").read_text().startswith("[PAD]\n")
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*"))


def test_whole_words_are_a_switch_of_masking(shards, tmp_path):
    """Another choice of tokens, equally many of them; the vocabulary of the shards says what continues a word."""
    runs = {}
    for flag in ("false", "true"):
        run_here(shards, tmp_path / flag, f"masking.whole_word={flag}", "phases.phase1.total_steps=2")
        runs[flag] = next(r for r in records(tmp_path / flag) if r["kind"] == "step")
    config = compose("pretrain", arguments(shards, tmp_path / "true", "masking.whole_word=true"))
    is_continuation = phases_of(config)[0].rule.is_continuation
    assert is_continuation is not None
    assert is_continuation.sum() == 23  # every fourth of 92 words
    assert runs["true"]["num_tokens"] == runs["false"]["num_tokens"]
    assert runs["true"]["mlm_loss"] != runs["false"]["mlm_loss"]


def test_the_run_directory_is_never_mixed(shards, tmp_path):
    run_dir = tmp_path / "run"
    run_here(shards, run_dir)
    with pytest.raises(UserError, match="if_exists=resume"):
        run_here(shards, run_dir)
    with pytest.raises(UserError, match=r"optimizer\.eps"):
        run_here(shards, run_dir, "if_exists=resume", "optimizer.eps=1e-5")
    before = (run_dir / "metrics.jsonl").read_text()
    run_here(shards, run_dir, "if_exists=resume")  # finished: nothing to do, nothing touched
    assert (run_dir / "metrics.jsonl").read_text() == before
    other = make_shards(tmp_path / "other", num_train=150)
    with pytest.raises(UserError, match=r"phases\.phase1\.shards"):
        run_here(other, run_dir, "if_exists=resume")
    run_here(other, run_dir, "if_exists=restart")
    assert len(RunDir(run_dir).checkpoints()) == 2
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "config.yaml").write_text("of another project")
    (stranger / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"thesis\.tex in the way at .* not a run"):
        run_here(shards, stranger, "if_exists=restart")
    assert (stranger / "thesis.tex").exists()


def test_what_does_not_fit_is_refused_before_anything_is_written(shards, tmp_path):
    cases = {
        "runtime.engine=deepspeed runtime.deepspeed_overrides={bf16:{bf16_optimizer_states:true}}": "moments are fp32",
        "phases.phase1.max_seq_length=24": "max_seq_length 24",
        f"phases.phase2.shards={tmp_path / 'nothing'}": "no manifest.json",
    }
    for overrides, message in cases.items():
        with pytest.raises(UserError, match=message):
            run_here(shards, tmp_path / "run", *overrides.split())
    single = make_shards(tmp_path / "single", sentence_task="none")
    with pytest.raises(
        UserError, match=r"sentence_task none in phases\.phase2\.shards, next_sentence in those of phase1"
    ):
        run_here(shards, tmp_path / "run", f"phases.phase2.shards={single}")
    damaged = tmp_path / "damaged"
    shutil.copytree(shards, damaged)
    victim = next((damaged / "seq16").glob("train-*"))
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    with pytest.raises(UserError, match="sha256"):
        run_here(damaged, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_phase_that_moves_nothing_is_refused(shards, tmp_path):
    """One step, and a decay to 0 that is there in the last step; with a last step above 0 it moves."""
    one_step = ["phases.phase2.total_steps=1", "runtime.micro_batch_size.phase2=16"]
    with pytest.raises(UserError, match=r"found phases\.phase2\.total_steps=1, whose learning rate is 0 at every step"):
        run_here(shards, tmp_path / "run", *one_step)
    assert not (tmp_path / "run").exists()
    assert run_here(shards, tmp_path / "run", *one_step, "phases.phase2.end_share=0.1").position.step == 1


def test_the_masking_rate_is_a_phases(shards, tmp_path):
    """Half of the tokens, where the run has 15 %; held-out instances keep the run's, so that phases compare."""
    words = ["phases.phase1.mask_prob=0.5", "phases.phase1.max_predictions_per_seq=8"]
    few, many = (phases_of(compose("pretrain", arguments(shards, tmp_path / "r", *more)))[0] for more in ([], words))
    assert (few.rate.of(1), many.rate.of(1), many.rate.of(4)) == (0.15, 0.5, 0.5)
    assert few.rule.mask_prob == many.rule.mask_prob == 0.15


def test_a_checkpoint_cut_short_is_not_one(shards, tmp_path):
    """What a kill leaves while checkpoint.json is written: resume takes the last complete one."""
    run_here(shards, tmp_path / "run")
    run = RunDir(tmp_path / "run")
    complete = [path.name for path in run.checkpoints()]
    partial = run.checkpoint_dir("phase2", 9).with_name("phase2-0000009.partial")
    partial.mkdir()
    (partial / "checkpoint.json").write_text('{"total_st')
    assert [path.name for path in run.checkpoints()] == complete
    run_here(shards, tmp_path / "run", "if_exists=resume")


def test_two_processes_never_share_a_run(shards, tmp_path):
    run = RunDir(tmp_path / "run")
    with run.held(), pytest.raises(UserError, match="another process at work"):
        run_here(shards, tmp_path / "run")
    run_here(shards, tmp_path / "run")


def test_checkpoints_by_the_clock_do_not_push_out_those_by_steps(tmp_path):
    """keep_last counts what interval_steps asks for; of those against the loss of a machine the newest stays."""
    run = RunDir(tmp_path)
    for step, is_by_clock in enumerate([False, True, False, True, True, False, True], start=1):
        folder = run.checkpoint_dir("phase1", step)
        folder.mkdir(parents=True)
        (folder / "checkpoint.json").write_text(json.dumps({"total_step": step, "is_by_clock": is_by_clock}))
    run.remove_old_checkpoints("phase1", keep_last=2)
    assert [int(path.name.rsplit("-", 1)[1]) for path in run.checkpoints()] == [3, 6, 7]


@pytest.mark.slow
def test_ranks_sweep(shards, tmp_path):
    """The second job of a sweep trains in the process group of the first: its ranks could not meet again."""
    sweep = ["-m", "seed=1,2", f"run_dir={tmp_path}/r${{seed}}", f"hydra.sweep.dir={tmp_path}"]
    words = arguments(shards, "unused", "runtime.engine=deepspeed", *sweep)
    words = [word for word in words if word != "run_dir=unused"]
    ended = run_ranks(2, "-m", "bert_lamb", "pretrain", *words)
    assert ended.returncode == 0, ended.stdout[-3000:]
    for seed in (1, 2):
        assert len(RunDir(tmp_path / f"r{seed}").checkpoints()) == 2
    assert "destroy_process_group" not in ended.stdout
