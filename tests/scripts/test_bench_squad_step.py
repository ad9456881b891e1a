"""The benchmark of fine-tuning steps runs in one call; the Trainer gets the features that ours gets.

Breaks that turn this file red: other features for the peer, a token type or a mask that is lost in padding.
"""

import json
import subprocess
import sys

import torch

from tests.golden.curves import make_model_folder, make_questions
from tests.launch import CHECKOUT

SIZES = {"max_seq_length": 40, "doc_stride": 16, "max_query_length": 12}


def test_one_call_and_the_same_features(tmp_path):
    make_model_folder(tmp_path / "model")
    make_questions(tmp_path / "questions.json")
    command = [sys.executable, "scripts/bench/squad_step.py", "--model", str(tmp_path / "model")]
    command += ["--questions", str(tmp_path / "questions.json"), "--out", str(tmp_path / "out.json")]
    for name, value in {**SIZES, "batch_size": 4, "rounds": 2, "threads": 1}.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "out.json").read_text())
    assert [row["candidate"] for row in result["rows"]] == [
        "Trainer, padded to 384",
        "Trainer, padded to the longest",
        "ours",
    ]
    assert {"command", "commit", "versions", "hardware", "fill"} <= result.keys()
    for row in result["rows"]:
        assert len(row["seconds"]) == 2
        assert row["candidate"] in done.stdout


def test_padding_loses_nothing(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(CHECKOUT / "scripts" / "bench"))
    import squad_step

    from bert_lamb.finetuning.squad.model import load_model
    from bert_lamb.finetuning.tokens import lay_out

    make_model_folder(tmp_path / "model")
    make_questions(tmp_path / "questions.json")
    tokenizer = load_model(tmp_path / "model", is_pretrained=True, needs_head=False, seed=0).tokenizer
    features = squad_step.Features(tmp_path / "questions.json", tokenizer, 4, SIZES)
    chosen = features.of_step(3)
    assert chosen != features.of_step(4)
    ours = lay_out([features.rows[i] for i in chosen], 40)
    for length in (40, None):
        padded = features.padded(3, length)
        is_token = padded["attention_mask"].bool()
        assert torch.equal(padded["input_ids"][is_token], ours.input_ids)
        assert torch.equal(padded["token_type_ids"][is_token], ours.token_type_ids)
        assert not padded["token_type_ids"][~is_token].any()
        assert padded["start_positions"].tolist() == [features.positions[i][0] for i in chosen]
        assert padded["end_positions"].tolist() == [features.positions[i][1] for i in chosen]
