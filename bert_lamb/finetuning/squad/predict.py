"""Fourth stop of the SQuAD path: features -> start and end logits -> the n best answers, cut out of the context.

Letters: T tokens of a feature, W tokens of its window.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bert_lamb.engine.launch import Process
from bert_lamb.finetuning.predicting import predict_rows
from bert_lamb.finetuning.squad.examples import Example, Questions
from bert_lamb.finetuning.squad.features import Feature
from bert_lamb.model.span import SpanModel
from bert_lamb.train.stop import StopFlag


@dataclass(frozen=True)
class Logits:
    """The model's opinion about one feature."""

    start: NDArray[np.float32]  # T
    end: NDArray[np.float32]  # T


@dataclass(frozen=True)
class Candidate:
    """One answer proposed for an example; the empty text says that there is none."""

    text: str
    start_logit: float
    end_logit: float
    probability: float  # among the n best of the example

    @property
    def score(self) -> float:
        return self.start_logit + self.end_logit


@dataclass(frozen=True)
class Ranking:
    """The n best answers of an example, best first. null_score_diff: see `rank_answers`; None in v1.1."""

    candidates: list[Candidate]
    null_score_diff: float | None

    def best_text(self, threshold: float) -> str:
        """The answer: the empty text where null_score_diff is above the threshold, else the best that is not empty."""
        if self.null_score_diff is not None and self.null_score_diff > threshold:
            return ""
        return next(candidate.text for candidate in self.candidates if candidate.text)


def predict_logits(
    model: SpanModel,
    features: Sequence[Feature],
    *,
    micro_batch_size: int,
    precision: str,
    process: Process,
    stop: StopFlag | None = None,
) -> list[Logits]:
    """Logits of every feature, in the order of `features`, on every rank; see `predict_rows`."""
    outputs = predict_rows(
        model,
        features,
        micro_batch_size=micro_batch_size,
        precision=precision,
        process=process,
        stop=stop,
        name="predict",
        is_by_token=True,
    )
    return [Logits(start=of_one[:, 0], end=of_one[:, 1]) for of_one in outputs]


def predict_answers(
    examples: Questions,
    features: Sequence[Feature],
    logits: Sequence[Logits],
    *,
    n_best_size: int,
    max_answer_length: int,
) -> dict[str, Ranking]:
    """The best answers for every example id, no text twice. See `rank_answers`."""
    members: list[list[int]] = [[] for _ in examples]
    for i, feature in enumerate(features):
        members[feature.example_index].append(i)
    return {
        example.id: rank_answers(
            example,
            [features[i] for i in indices],
            [logits[i] for i in indices],
            n_best_size=n_best_size,
            max_answer_length=max_answer_length,
            may_be_unanswerable=examples.version == "2.0",
        )
        for example, indices in zip(examples, members, strict=True)
    }


def rank_answers(
    example: Example,
    features: Sequence[Feature],
    logits: Sequence[Logits],
    *,
    n_best_size: int,
    max_answer_length: int,
    may_be_unanswerable: bool,
) -> Ranking:
    """The best spans of one example over all its windows.

    A span begins at a token in its window of maximum context, is at most `max_answer_length` tokens long and scores
    start logit + end logit. Equal scores: the earlier window, the earlier start, the earlier end wins.
    Probability is the softmax of the scores of the answers returned.
    Where the example may be unanswerable (v2.0) the empty text is one of the answers, if need be beyond `n_best_size`,
    with the logits of [CLS] in the window where their sum is lowest, and null_score_diff is its score minus that of the
    best span (Google's run_squad.py, write_predictions).
    """
    spans: list[tuple[float, int, int, int]] = []  # (-score, window, first token, last token), tokens of the window
    for window_index, (feature, window_logits) in enumerate(zip(features, logits, strict=True)):
        spans += [
            (-score, window_index, first, last)
            for score, first, last in _best_spans(feature, window_logits, n_best_size, max_answer_length)
        ]
    chosen: dict[str, tuple[float, float]] = {}  # text -> start logit, end logit
    for _, window_index, first, last in sorted(spans):
        feature, window_logits = features[window_index], logits[window_index]
        text = example.context[feature.offsets[first][0] : feature.offsets[last][1]]
        start_logit = float(window_logits.start[feature.window_start + first])
        end_logit = float(window_logits.end[feature.window_start + last])
        chosen.setdefault(text, (start_logit, end_logit))
        if len(chosen) == n_best_size:
            break
    if not may_be_unanswerable:
        return Ranking(_with_probabilities(chosen), None)
    null = min(((float(one.start[0]), float(one.end[0])) for one in logits), key=sum)
    null_score_diff = sum(null) - max(map(sum, chosen.values()))
    is_beaten = sum(sum(pair) >= sum(null) for pair in chosen.values())  # by so many spans
    in_order = list(chosen.items())
    kept = [*in_order[:is_beaten], ("", null), *in_order[is_beaten : max(1, n_best_size - 1)]]
    return Ranking(_with_probabilities(dict(kept)), null_score_diff)


def _with_probabilities(chosen: dict[str, tuple[float, float]]) -> list[Candidate]:
    best_score = max(map(sum, chosen.values()))
    weights = [math.exp(sum(pair) - best_score) for pair in chosen.values()]
    return [
        Candidate(text, start_logit, end_logit, weight / sum(weights))
        for (text, (start_logit, end_logit)), weight in zip(chosen.items(), weights, strict=True)
    ]


def _best_spans(
    feature: Feature, logits: Logits, n_best_size: int, max_answer_length: int
) -> list[tuple[float, int, int]]:
    """(score, first, last) of the `n_best_size` best spans of one window, exactly: every allowed span is looked at."""
    num_tokens = len(feature.offsets)
    window = slice(feature.window_start, feature.window_start + num_tokens)
    start = np.where(feature.is_max_context, logits.start[window].astype(np.float64), -np.inf)  # W
    end = logits.end[window].astype(np.float64)  # W
    padded_end = np.concatenate([end, np.full(max_answer_length - 1, -np.inf)])
    # scores[first, last - first]: the row-major order of this table is the order that decides between equal scores.
    scores = start[:, None] + np.lib.stride_tricks.sliding_window_view(padded_end, max_answer_length)
    flat = scores.ravel()
    num_wanted = min(n_best_size, int(np.isfinite(flat).sum()))
    if num_wanted == 0:
        return []
    threshold = np.partition(flat, -num_wanted)[-num_wanted]
    contenders = np.flatnonzero(flat >= threshold)
    best = contenders[np.argsort(-flat[contenders], kind="stable")][:num_wanted]
    spans = [(float(flat[i]), *divmod(int(i), max_answer_length)) for i in best]
    return [(score, first, first + extra_tokens) for score, first, extra_tokens in spans]
