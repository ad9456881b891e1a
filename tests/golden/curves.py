"""Small fixed runs through the command line, and what is kept of them: losses per step and figures of the weights.

usage: python -m tests.golden.curves     runs all of them and rewrites tests/golden/curves.json

test_golden.py compares the code with the committed file. A change of a curve is a decision that CHANGELOG.md names.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from bert_lamb.checkpoint.reading import Checkpoint
from bert_lamb.cli import main as cli
from tests.launch import CHECKOUT, run_ranks
from tests.synthetic import make_shards

FILE = Path(__file__).with_name("curves.json")
PRETRAINING = [
    "recipe=demo",
    "model.num_layers=2",
    "model.hidden_size=32",
    "model.num_heads=2",
    "model.intermediate_size=48",
    "phases.phase1.max_seq_length=16",
    "phases.phase1.max_predictions_per_seq=3",
    "phases.phase1.global_batch_size=32",
    "phases.phase1.total_steps=8",
    "phases.phase1.peak_lr=8e-3",
    "phases.phase2.max_seq_length=32",
    "phases.phase2.max_predictions_per_seq=5",
    "phases.phase2.global_batch_size=16",
    "phases.phase2.total_steps=5",
    "phases.phase2.peak_lr=4e-3",
    "runtime.micro_batch_size.phase1=8",
    "runtime.micro_batch_size.phase2=4",
    "evaluation.micro_batch_size=16",
]
FINE_TUNING = {
    "max_seq_length": 40,
    "doc_stride": 16,
    "max_query_length": 8,
    "global_batch_size": 8,
    "runtime.micro_batch_size.fine_tuning": 4,
    "peak_lr": 5e-4,
    "num_epochs": 16,
    "warmup_proportion": 0.25,
    "runtime.device": "cpu",
    "seed": 5,
}
PEOPLE = ["anna", "bruno", "clara", "david", "emma", "felix", "greta", "hugo"]
PLACES = ["paris", "london", "madrid", "vienna", "oslo", "rome", "bern", "prague"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "where", "does", "live", "lives", "in", "and", "."]
# Shifts of all logits alike, which a softmax over positions does not see; and the biases of keys.
WITHOUT_GRADIENT = ("bert.encoder.layer.1.output.LayerNorm.bias", "qa_outputs.bias")
Curve = dict[str, dict[str, list[float]]]  # "losses": phase -> a loss per step; "weights": name -> norm, projection


def pretraining_plain(folder: Path) -> Curve:
    """Two phases with LAMB on the plain engine, with dropout."""
    words = [*PRETRAINING, "model.dropout=0.1", "runtime.engine=torch"]
    run = ["pretrain", *words, f"shards={make_shards(folder / 'shards')}", f"run_dir={folder / 'run'}"]
    _call(run)
    return _of_pretraining(folder / "run")


def pretraining_zero1_on_two_ranks(folder: Path) -> Curve:
    """The same phases under ZeRO stage 1, without dropout, whose draws follow the cut of the batch."""
    words = [*PRETRAINING, "model.dropout=0.0", "runtime.engine=deepspeed", "runtime.zero_stage=1"]
    run = ["pretrain", *words, f"shards={make_shards(folder / 'shards')}", f"run_dir={folder / 'run'}"]
    finished = run_ranks(2, "-m", "bert_lamb", *run)
    assert finished.returncode == 0, finished.stdout[-3000:]
    return _of_pretraining(folder / "run")


def fine_tuning(folder: Path) -> Curve:
    """Question answering with AdamW; each batch is all of the questions, so that no order of theirs matters."""
    make_model_folder(folder / "model")
    make_questions(folder / "questions.json")
    files = [f"{name}={folder / 'questions.json'}" for name in ("train_file", "eval_file")]
    words = [f"{name}={value}" for name, value in FINE_TUNING.items()]
    _call(["squad", f"model_dir={folder / 'model'}", *files, *words, f"run_dir={folder / 'out'}"])
    return {
        "losses": _losses(folder / "out"),
        "weights": _figures(load_file(folder / "out" / "model" / "model.safetensors")),
    }


RUNS: dict[str, Callable[[Path], Curve]] = {
    run.__name__: run for run in (pretraining_plain, pretraining_zero1_on_two_ranks, fine_tuning)
}


def make_model_folder(folder: Path) -> None:
    """A Hugging Face BERT whose weights come from numpy, so that no library's initialization decides them."""
    folder.mkdir()
    vocabulary = [*VOCABULARY, *PEOPLE, *PLACES]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    sizes = {
        "model_type": "bert",
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 40,
        "type_vocab_size": 2,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    (folder / "config.json").write_text(json.dumps(sizes))
    shapes = {f"embeddings.{name}_embeddings.weight": (rows, 32) for name, rows in (("word", 28), ("position", 40))}
    shapes["embeddings.token_type_embeddings.weight"] = (2, 32)
    norms = ["embeddings.LayerNorm"]
    for layer in ("encoder.layer.0", "encoder.layer.1"):
        linear = {f"attention.self.{name}": (32, 32) for name in ("query", "key", "value")}
        linear |= {"attention.output.dense": (32, 32), "intermediate.dense": (48, 32), "output.dense": (32, 48)}
        for name, shape in linear.items():
            shapes |= {f"{layer}.{name}.weight": shape, f"{layer}.{name}.bias": shape[:1]}
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    random = np.random.default_rng(7)
    weights = {
        f"bert.{name}": torch.from_numpy((0.1 * random.standard_normal(shape)).astype(np.float32))
        for name, shape in shapes.items()
    }
    for name in norms:
        weights |= {f"bert.{name}.weight": torch.ones(32), f"bert.{name}.bias": torch.zeros(32)}
    weights["qa_outputs.weight"] = torch.from_numpy((0.1 * random.standard_normal((2, 32))).astype(np.float32))
    weights["qa_outputs.bias"] = torch.zeros(2)
    save_file(weights, folder / "model.safetensors")


def make_questions(file: Path) -> None:
    """Eight questions about contexts of two to four clauses, so that micro-batches are padded."""
    paragraphs = []
    for i, person in enumerate(PEOPLE):
        names = [PEOPLE[(i + 3 * k) % 8] for k in range(2 + i % 3)]
        context = " and ".join(
            f"{name} lives in {PLACES[PEOPLE.index(name)]}" for name in names[i % 2 :] + names[: i % 2]
        )
        answer = {"text": PLACES[i], "answer_start": context.index(PLACES[i])}
        question = {"id": f"q{i}", "question": f"where does {person} live", "answers": [answer]}
        paragraphs.append({"context": context, "qas": [question]})
    file.write_text(json.dumps({"version": "1.1", "data": [{"title": "golden", "paragraphs": paragraphs}]}))


def _call(words: list[str]) -> None:
    assert cli.main(words) == 0, words


def _of_pretraining(run_dir: Path) -> Curve:
    last = sorted((run_dir / "checkpoints").iterdir())[-1]
    return {"losses": _losses(run_dir), "weights": _figures(dict(Checkpoint(last).weights()))}


def _losses(run_dir: Path) -> dict[str, list[float]]:
    losses: dict[str, list[float]] = {}
    for line in (run_dir / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        if record["kind"] == "step":
            losses.setdefault(record["phase"], []).append(record["loss"])
    return losses


def _figures(weights: dict[str, torch.Tensor]) -> dict[str, list[float]]:
    """Norm and projection on a fixed wave, in float64: a hash would ask for the same rounding on every processor.

    Without WITHOUT_GRADIENT, whose gradient is zero but for rounding, which Adam blows up to whole steps.
    """
    figures = {}
    for name, weight in sorted(weights.items()):
        if name not in WITHOUT_GRADIENT and not name.endswith("key.bias"):
            flat = weight.double().flatten()
            wave = torch.cos(0.7 * torch.arange(len(flat), dtype=torch.float64))
            figures[name] = [float(flat.norm()), float(flat @ wave)]
    return figures


def main() -> None:
    curves = {}
    for name, run in RUNS.items():
        with tempfile.TemporaryDirectory() as folder:
            curves[name] = run(Path(folder))
    FILE.write_text(json.dumps(curves, indent=1) + "\n")


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    describe = ["git", "-C", str(CHECKOUT), "describe", "--always", "--dirty"]
    print(subprocess.run(describe, capture_output=True, text=True, check=True).stdout, end="", file=sys.stderr)
    main()
