"""What a finished fine-tuning leaves in its run directory, beside what every run has (outputs/run_dir.py).

answers.html            every question with its context, true and predicted answers marked, wrong ones first
model/                  the fine-tuned model, its tokenizer and its card, for transformers
nbest_predictions.json  question id -> the best answers with logits and probabilities
null_odds.json          question id -> score of no answer minus that of the best one (SQuAD v2.0)
predictions.json        question id -> the best answer, as the official scorer reads it
scores.json             the result; written last, so it stands for a complete run
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bert_lamb.checkpoint.folder.files import read_json
from bert_lamb.errors import UserError
from bert_lamb.finetuning.model_folder import MODEL_NAME
from bert_lamb.finetuning.squad.examples import Questions
from bert_lamb.finetuning.squad.predict import Ranking
from bert_lamb.finetuning.squad.scoring import score
from bert_lamb.outputs.atomic import write_atomically
from bert_lamb.outputs.run_dir import RunKind

NBEST_NAME, PREDICTIONS_NAME = "nbest_predictions.json", "predictions.json"
NULL_ODDS_NAME, SCORES_NAME, PAGE_NAME = "null_odds.json", "scores.json", "answers.html"
KIND = RunKind(
    "a run of squad",
    mark="inputs",
    results=frozenset({MODEL_NAME, NBEST_NAME, PREDICTIONS_NAME, NULL_ODDS_NAME, SCORES_NAME, PAGE_NAME}),
)


def write_predictions(run_dir: Path, rankings: Mapping[str, Ranking], *, threshold: float) -> dict[str, str]:
    """The files of predictions; returns question id -> the answer. threshold: see `Ranking.best_text`."""
    write_json(run_dir / NBEST_NAME, {id_: [asdict(one) for one in best.candidates] for id_, best in rankings.items()})
    if null_odds := null_odds_of(rankings):
        write_json(run_dir / NULL_ODDS_NAME, null_odds)
    predictions = {question_id: ranking.best_text(threshold) for question_id, ranking in rankings.items()}
    write_json(run_dir / PREDICTIONS_NAME, predictions)
    return predictions


def null_odds_of(rankings: Mapping[str, Ranking]) -> dict[str, float]:
    """Question id -> null_score_diff; empty in v1.1."""
    diffs = {question_id: ranking.null_score_diff for question_id, ranking in rankings.items()}
    return {question_id: diff for question_id, diff in diffs.items() if diff is not None}


def figures_of(questions: Questions, predictions: Mapping[str, str], null_odds: Mapping[str, float]) -> dict[str, Any]:
    """What scores.json says of the predictions: exact_match and f1 in percent, counts, and in v2.0 the official names.

    The figures are of the predictions as they are; the best ones, of thresholds on null_odds that these very questions
    have chosen, are what `bert-lamb score na_prob=null_odds.json` finds.
    """
    answers = {one.id: [answer.text for answer in one.answers] for one in questions}
    is_v2 = questions.version == "2.0"
    na_probs = null_odds if is_v2 else None
    official = score(questions.version, answers, predictions, na_probs=na_probs, na_prob_thresh=math.inf)
    return {
        "version": questions.version,
        "exact_match": official["exact" if is_v2 else "exact_match"],
        "f1": official["f1"],
        "num_questions": len(answers),
        "num_unanswered": sum(question_id not in predictions for question_id in answers),
        "num_unknown": sum(question_id not in answers for question_id in predictions),
    } | (official if is_v2 else {})


def read_scores(run_dir: Path) -> dict[str, Any] | None:
    """scores.json of a finished run; None where there is none. Raises UserError for one that is damaged."""
    file, fix = run_dir / SCORES_NAME, "set run_dir, or if_exists=restart"
    if not file.is_file():
        return None
    content = read_json(file, expected="what `bert-lamb squad` wrote there", fix=fix)
    if not isinstance(content, dict) or not {"dataset_name", "num_questions", "exact_match", "f1"} <= content.keys():
        raise UserError(found=f"{file} without scores", expected="what `bert-lamb squad` wrote there", fix=fix)
    return content


def summary(scores: Mapping[str, Any]) -> str:
    """One line for people, with the questions' name, since EM and F1 mean nothing without it."""
    return (
        f"{scores['dataset_name']}, {scores['num_questions']:,} questions: "
        f"exact match {scores['exact_match']:.2f}, F1 {scores['f1']:.2f}"
    )


def write_json(file: Path, content: Any) -> None:
    write_atomically(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
