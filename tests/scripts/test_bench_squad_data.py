"""The benchmark of SQuAD's files runs in one call, and tells by hand-made answers what gold positions give back.

Breaks that turn this file red: the last token of an answer is lost, an answer that is too long is told as another one.
"""

import json
import sys

from transformers import BertTokenizer

from tests.launch import CHECKOUT

sys.path.insert(0, str(CHECKOUT / "scripts" / "bench"))
import squad_data

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "is", "it", "?", "a", "golden", "ship", "18", "men"]
CONTEXT = "a golden ship 18 men " + "it " * 40


def question(question_id, *answers):
    found = [{"text": text, "answer_start": CONTEXT.index(text)} for text in answers]
    return {"id": question_id, "question": "what is it?", "answers": found}


def test_what_gold_positions_give_back(tmp_path, capsys):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    BertTokenizer(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path / "tokenizer")
    qas = [
        question("whole", "golden ship"),
        question("part", "gold"),
        question("digit", "8"),
        question("long", ("it " * 31).strip()),
        question("none"),
    ]
    content = {"version": "v2.0", "data": [{"paragraphs": [{"context": CONTEXT, "qas": qas}]}]}
    (tmp_path / "five.json").write_text(json.dumps(content))
    words = ["--tokenizer", str(tmp_path / "tokenizer"), "--questions", str(tmp_path / "five.json"), "--rounds", "2"]
    squad_data.main([*words, "--out", str(tmp_path / "out.json")])
    result = json.loads((tmp_path / "out.json").read_text())
    assert {"command", "commit", "versions", "hardware", "settings"} <= result.keys()
    (row,) = result["rows"]
    assert row["outcomes"] == {"same text": 2, "wider": 2, "too long": 1, "other": 0}
    assert row["figures"]["exact"] == 40
    assert row["figures"]["NoAns_exact"] == 100
    assert row["num_questions"] == 5
    assert {name: len(samples) for name, samples in row["samples"].items()} == {
        "features": 2,
        "score": 2,
        "score_with_page": 2,
    }
    assert row["page_bytes"] > 5 * len(CONTEXT)
    printed = capsys.readouterr().out.splitlines()[-1].split()
    assert printed[0] == "five.json"
    assert printed[3:7] == ["40.00", "40.00", "20.00", "0.00"]
