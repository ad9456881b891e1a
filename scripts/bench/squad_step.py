"""Features a second of fine-tuning steps on SQuAD: ours beside transformers' Trainer, as its run_qa.py calls it.

    python scripts/bench/squad_step.py --model FOLDER --questions train-v1.1.json --out scripts/bench/results/NAME.json

All take the same features (length 384, stride 128), batch 12 in one micro-batch, fused AdamW, dropout as the folder has
it, one step each a round. The Trainer gets them padded to 384, which is run_qa.py's default, or to the longest of the
batch; its batches are made before its clock starts, ours inside. README.md explains the columns.
"""

import argparse
import copy
import os
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from kit import CHECKOUT
from kit.results import write_result
from kit.rounds import in_turns
from kit.surroundings import surroundings
from kit.table import Column, number, table
from kit.trainer import TrainerStep
from torch import Tensor
from transformers import BertForQuestionAnswering

from bert_lamb.engine.torch_engine import TorchEngine
from bert_lamb.finetuning.squad.examples import read_examples
from bert_lamb.finetuning.squad.features import NO_ANSWER, Feature, answer_positions, make_features
from bert_lamb.finetuning.squad.model import load_model
from bert_lamb.finetuning.tokens import lay_out
from bert_lamb.model.encoder import Execution
from bert_lamb.model.span import SpanModel, span_loss_sum
from bert_lamb.optim.build import OptimizerSettings, build_optimizer

SEED, LR = 1, 3e-5
ADAMW = OptimizerSettings("adamw", weight_decay=0.0, betas=(0.9, 0.999), eps=1e-8)
COLUMNS = (
    Column("candidate", lambda r: r["candidate"], is_text=True),
    Column("features/s", lambda r: number(r["features_per_second"], ",.1f")),
    Column("s/step", lambda r: number(r["median_seconds"], ".3f")),
    Column("min", lambda r: number(min(r["seconds"]), ".3f")),
    Column("max", lambda r: number(max(r["seconds"]), ".3f")),
    Column("x run_qa", lambda r: number(r["ratio"], ".2f")),
)
REFERENCE = "Trainer, padded to 384"  # by default; to --max-seq-length


class Ours:
    """A step of the plain engine on features laid end to end."""

    def __init__(self, model: BertForQuestionAnswering, features: "Features") -> None:
        span_model = SpanModel(copy.deepcopy(model), Execution()).train()
        optimizer = build_optimizer(span_model, ADAMW, idle=(), awaits_binding=False)
        device = torch.device("cpu")
        self.engine = TorchEngine(span_model, optimizer, device=device, precision="fp32", max_grad_norm=1.0)
        self.features = features

    def step(self, step: int) -> float:
        """Seconds of step `step`."""
        began = time.perf_counter()
        chosen = self.features.of_step(step)
        batch = lay_out([self.features.rows[i] for i in chosen], self.features.max_length)
        targets = torch.tensor([self.features.positions[i] for i in chosen])
        torch.manual_seed(step)
        logits = self.engine.model(*batch)
        loss = span_loss_sum(logits, batch.position_ids, batch.cu_seqlens, batch.max_length, targets) / len(chosen)
        self.engine.backward(loss)
        self.engine.step(LR)
        return time.perf_counter() - began


class Peer:
    """A step of transformers' Trainer on padded features. length: None pads to the longest of the batch."""

    def __init__(self, model: BertForQuestionAnswering, features: "Features", *, length: int | None) -> None:
        self.features, self.length = features, length
        self.trainer = TrainerStep(copy.deepcopy(model).train(), accumulation=1, lr=LR)

    def step(self, step: int) -> float:
        """Seconds of step `step`."""
        return self.trainer.step([self.features.padded(step, self.length)])["seconds"]


class Features:
    """The windows of a file of questions, and which of them a step takes."""

    def __init__(self, file: Path, tokenizer: Any, batch_size: int, sizes: dict[str, int]) -> None:
        examples = read_examples(file)
        self.rows: list[Feature] = make_features(examples, tokenizer, **sizes)
        answers = [examples[row.example_index].answers for row in self.rows]
        self.positions = [
            answer_positions(row, of_one[0]) if of_one else NO_ANSWER
            for row, of_one in zip(self.rows, answers, strict=True)
        ]
        self.batch_size, self.max_length, self.pad_id = batch_size, sizes["max_seq_length"], tokenizer.pad_id

    def of_step(self, step: int) -> list[int]:
        return [int(i) for i in np.random.default_rng((SEED, step)).choice(len(self.rows), self.batch_size, False)]

    def padded(self, step: int, length: int | None) -> dict[str, Tensor]:
        """What BertForQuestionAnswering takes."""
        rows = [self.rows[i] for i in self.of_step(step)]
        length = length or max(len(row.input_ids) for row in rows)
        ids = torch.full((len(rows), length), self.pad_id)
        types, mask = torch.zeros_like(ids), torch.zeros_like(ids)
        for place, row in enumerate(rows):
            end = len(row.input_ids)
            ids[place, :end] = torch.tensor(row.input_ids)
            types[place, row.second_start : end] = 1
            mask[place, :end] = 1
        starts, ends = torch.tensor([self.positions[i] for i in self.of_step(step)]).unbind(1)
        batch = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
        return {**batch, "start_positions": starts, "end_positions": ends}


def main(arguments: Sequence[str] | None = None) -> None:
    settings = parse(arguments)
    torch.set_num_threads(settings.threads)
    warnings.filterwarnings("ignore", module="transformers")
    loaded = load_model(settings.model, is_pretrained=True, needs_head=False, seed=SEED)
    sizes = {name: getattr(settings, name) for name in ("max_seq_length", "doc_stride", "max_query_length")}
    features = Features(settings.questions, loaded.tokenizer, settings.batch_size, sizes)
    made: dict[str, Callable[..., Any]] = {
        REFERENCE: partial(Peer, length=settings.max_seq_length),
        "Trainer, padded to the longest": partial(Peer, length=None),
        "ours": Ours,
    }
    candidates = {name: make(loaded.model, features) for name, make in made.items()}
    for candidate in candidates.values():
        candidate.step(0)  # warms up
    steps = {name: iter(range(1, 1 + settings.rounds)) for name in candidates}
    samples = in_turns(
        [lambda name=name: candidates[name].step(next(steps[name])) for name in candidates],  # type: ignore[misc]
        num_rounds=settings.rounds,
    )
    seconds = dict(zip(candidates, samples, strict=True))
    rows = [
        {
            "candidate": name,
            "seconds": of_one,
            "median_seconds": median(of_one),
            "features_per_second": settings.batch_size / median(of_one),
            "ratio": median(a / b for a, b in zip(seconds[REFERENCE], of_one, strict=True)),
        }
        for name, of_one in seconds.items()
    ]
    num_tokens = sum(len(row.input_ids) for row in features.rows)
    about = surroundings(settings, packages=("transformers", "accelerate"))
    about["fill"] = num_tokens / (len(features.rows) * settings.max_seq_length)
    about["num_features"] = len(features.rows)
    write_result(settings.out, {**about, "rows": rows})
    print(f"{len(features.rows):,} features, {about['fill']:.2f} of length {settings.max_seq_length} filled")
    print(table(COLUMNS, rows))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a folder with a Hugging Face BERT")
    parser.add_argument("--questions", type=Path, required=True, help="SQuAD json")
    parser.add_argument("--batch-size", type=int, default=12)
    parser.add_argument("--max-seq-length", type=int, default=384)
    parser.add_argument("--doc-stride", type=int, default=128)
    parser.add_argument("--max-query-length", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    default = CHECKOUT / "scripts" / "bench" / "results" / "squad_step.json"
    parser.add_argument("--out", type=Path, default=default)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
