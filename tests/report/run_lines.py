"""Lines of a metrics.jsonl as `pretrain` writes them, and a run's folder made of them."""

import json
from pathlib import Path

from bert_lamb.report.metrics import read_metrics
from bert_lamb.report.summary import summarise


def start(phase: str, **changes) -> dict:
    sizes = {"max_seq_length": 128, "global_batch_size": 64, "total_steps": 4}
    return {"kind": "phase_start", "phase": phase, "step": 0, **sizes, **changes}


def step(phase: str, number: int, **changes) -> dict:
    return {
        "kind": "step",
        "phase": phase,
        "step": number,
        "lr": 1e-3 * number,
        "loss": 10.0 - number,
        "mlm_loss": 9.5 - number,
        "nsp_loss": 0.5,
        "mlm_accuracy": 0.1 * number,
        "grad_norm": 2.0,
        "trust_ratio_min": 0.1,
        "trust_ratio_median": 1.0,
        "trust_ratio_max": 10.0,
        "is_applied": True,
        "num_sequences": 64,
        "seconds": 2.0,
        "sequences_per_second": 32.0,
        **changes,
    }


def heldout(phase: str, number: int, **changes) -> dict:
    losses = {"mlm_loss": 2.0, "mlm_accuracy": 0.4, "nsp_loss": 0.3, "nsp_accuracy": 0.9, "num_instances": 100}
    return {"kind": "heldout", "phase": phase, "step": number, **losses, "unigram_cross_entropy": 5.0, **changes}


def trust_ratios(phase: str, number: int, **changes) -> dict:
    names = ("bert.bert.embeddings.word_embeddings.weight", "bert.bert.pooler.dense.weight")
    fields = {field: dict.fromkeys(names, 2.0) for field in ("trust_ratio", "param_norm", "update_norm")}
    return {"kind": "trust_ratios", "phase": phase, "step": number, **fields, **changes}


def make_run(folder: Path, lines: list[dict | str], tail: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + tail, encoding="utf-8")
    (folder / "config.yaml").write_text("seed: 42 # <not a tag>\n", encoding="utf-8")
    (folder / "versions.json").write_text(json.dumps({"torch": "2.13.0", "command": "bert-lamb pretrain"}))
    return folder


def make_scores(folder: Path, *, f1: float, exact_match: float, weights: str, dataset_name: str = "questions") -> Path:
    folder.mkdir()
    result = {
        "dataset_name": dataset_name,
        "exact_match": exact_match,
        "f1": f1,
        "num_questions": 49,
        "num_unanswered": 0,
        "config": {"initial_weights": weights},
    }
    (folder / "scores.json").write_text(json.dumps(result))
    return folder


def numbers_of(run_dir: Path) -> dict:
    """report.json without drawing a page."""
    return summarise(read_metrics(run_dir / "metrics.jsonl"), [])
