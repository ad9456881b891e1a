"""SQuAD's files without a model: seconds for features and for scoring, and what gold positions give back.

    python scripts/bench/squad_data.py --tokenizer FOLDER --questions dev-v1.1.json dev-v2.0.json
    python scripts/bench/squad_data.py --tokenizer FOLDER --questions FILE --out scripts/bench/results/NAME.json

Gold positions: the tokens of each question's first answer get logits of 10, all others -10, and go through the ranking
of answers as a model's logits do. What comes back is compared with the answer and scored by the official rules, by
`bert-lamb score` in a process of its own, without and with the page of answers. README.md explains the columns.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from kit.results import write_result
from kit.rounds import in_turns
from kit.surroundings import surroundings
from kit.table import Column, number, table

from bert_lamb.checkpoint.folder.tokenizer import read_tokenizer
from bert_lamb.checkpoint.folder.word_pieces import WordPieces
from bert_lamb.finetuning.squad.examples import Questions, read_examples
from bert_lamb.finetuning.squad.features import NO_ANSWER, Feature, answer_positions, make_features
from bert_lamb.finetuning.squad.predict import Logits, predict_answers
from bert_lamb.finetuning.squad.scoring import normalize

LENGTHS = {"max_seq_length": 384, "doc_stride": 128, "max_query_length": 64}
MAX_ANSWER_LENGTH = 30  # tokens
HIGH, LOW = 10.0, -10.0
SAME, WIDER, LONG, OTHER = "same text", "wider", "too long", "other"


def gold_predictions(questions: Questions, features: list[Feature]) -> dict[str, str]:
    """Question id -> the text that the positions of its first answer give."""
    logits = []
    for feature in features:
        answers = questions[feature.example_index].answers
        start, end = answer_positions(feature, answers[0]) if answers else NO_ANSWER
        pair = np.full((2, len(feature.input_ids)), LOW, np.float32)
        if (start, end) != NO_ANSWER or not answers:
            pair[0, start] = pair[1, end] = HIGH
        logits.append(Logits(*pair))
    rankings = predict_answers(questions, features, logits, n_best_size=20, max_answer_length=MAX_ANSWER_LENGTH)
    return {question_id: ranking.best_text(0.0) for question_id, ranking in rankings.items()}


def outcome(given: str, found: str, tokenizer: WordPieces) -> str:
    """One of SAME, WIDER (a token is more than the answer: "gold" of "golden"), LONG, OTHER; white space is no text."""
    if normalize(given) == normalize(found):
        return SAME
    if len(tokenizer.encode([given])[0].ids) > MAX_ANSWER_LENGTH:
        return LONG
    return WIDER if given in found else OTHER


def seconds_of(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure(file: Path, tokenizer: WordPieces, settings: argparse.Namespace) -> dict[str, Any]:
    questions = read_examples(file)
    make = partial(make_features, questions, tokenizer, **LENGTHS, is_shown=False)
    features = make()
    predictions = gold_predictions(questions, features)
    pairs = [(one.answers[0].text if one.answers else "", predictions[one.id]) for one in questions]
    outcomes = Counter(outcome(given, found, tokenizer) for given, found in pairs)
    with tempfile.TemporaryDirectory() as folder:
        said, page = Path(folder) / "predictions.json", Path(folder) / "answers.html"
        said.write_text(json.dumps(predictions))
        score = [sys.executable, "-m", "bert_lamb", "score", f"data={file}", f"predictions={said}"]
        run = partial(subprocess.run, check=True, capture_output=True)
        figures = json.loads(run(score).stdout)
        samples = in_turns(
            [
                partial(seconds_of, make),
                partial(seconds_of, partial(run, score)),
                partial(seconds_of, partial(run, [*score, f"page={page}"])),
            ],
            num_rounds=settings.rounds,
        )
        page_bytes = page.stat().st_size
    return {
        "file": file.name,
        "num_questions": len(questions),
        "num_features": len(features),
        "outcomes": {name: outcomes[name] for name in (SAME, WIDER, LONG, OTHER)},
        "figures": figures,
        "page_bytes": page_bytes,
        "samples": dict(zip(("features", "score", "score_with_page"), samples, strict=True)),
    }


def share(name: str) -> Column:
    return Column(f"{name} %", lambda r: number(100 * r["outcomes"][name] / r["num_questions"], ".2f"))


COLUMNS = (
    Column("file", lambda r: r["file"], is_text=True),
    Column("questions", lambda r: number(r["num_questions"], ",d")),
    Column("features s", lambda r: number(median(r["samples"]["features"]), ".2f")),
    *(share(name) for name in (SAME, WIDER, LONG, OTHER)),
    Column("exact", lambda r: number(r["figures"].get("exact", r["figures"].get("exact_match")), ".2f")),
    Column("F1", lambda r: number(r["figures"]["f1"], ".2f")),
    Column("score s", lambda r: number(median(r["samples"]["score"]), ".2f")),
    Column("with page s", lambda r: number(median(r["samples"]["score_with_page"]), ".2f")),
    Column("page MB", lambda r: number(r["page_bytes"] / 1e6, ".1f")),
)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokenizer", type=Path, required=True, help="a model folder with BERT's WordPiece tokenizer")
    parser.add_argument("--questions", type=Path, required=True, nargs="+", help="SQuAD json files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="a JSON file for every sample and the surroundings")
    settings = parser.parse_args(arguments)
    tokenizer = read_tokenizer(settings.tokenizer)
    rows = [measure(file, tokenizer, settings) for file in settings.questions]
    if settings.out is not None:
        facts = surroundings(settings, packages=["tokenizers", "transformers"])
        write_result(settings.out, {**facts, "rows": rows})
    print(table(COLUMNS, rows))


if __name__ == "__main__":
    main()
