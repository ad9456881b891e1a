"""Ranking of spans against logits worked out by hand and against trying every span; gold labels come back as answers.

Mutations that must turn it red: start at a token of another window's max context, an answer one token too long, the
first of two equal texts not kept, softmax over the start logits only.
"""

import copy
import math

import numpy as np
import pytest
import torch
from squad_material import as_transformers_takes_it, where_questions
from transformers import BertForQuestionAnswering

from bert_lamb.engine.launch import Process
from bert_lamb.errors import UserError
from bert_lamb.finetuning.squad.examples import Example
from bert_lamb.finetuning.squad.features import Feature, answer_positions, make_features
from bert_lamb.finetuning.squad.predict import Logits, predict_answers, predict_logits, rank_answers
from bert_lamb.finetuning.squad.scoring import score
from bert_lamb.model.span import SpanModel
from tests.tiny_bert import tiny_config

CPU = Process(0, 0, 1, torch.device("cpu"))
CONTEXT = "a b c d a"
LETTERS = [(i, i + 1) for i in range(0, 9, 2)]


def window(tokens: slice, is_max_context: list[bool]) -> Feature:
    """`[CLS] q [SEP]` and the tokens of CONTEXT; the ids do not matter here."""
    offsets = LETTERS[tokens]
    return Feature(0, [0] * (len(offsets) + 4), 3, np.array(offsets), np.array(is_max_context))


def logits(start: list[float], end: list[float]) -> Logits:
    """Logits of the window; the rest of the feature shouts, to see that it is not heard."""
    return Logits(*(np.array([99, 99, 99, *row, 99], dtype=np.float32) for row in (start, end)))


EXAMPLE = Example("q", "q", CONTEXT, ())


def ranked(features, given, **sizes):
    """The candidates of v1.1."""
    ranking = rank_answers(EXAMPLE, features, given, **sizes, may_be_unanswerable=False)
    assert ranking.null_score_diff is None
    return ranking.candidates


def test_by_hand():
    """Starts b 3, c 1; ends b 0, c 2: "b c" 5, "b" 3, "c" 3, all others lower; "b" comes before "c" by its start."""
    best = ranked(
        [window(slice(0, 5), [True] * 5)],
        [logits([-9, 3, 1, -9, -9], [-9, 0, 2, -9, -9])],
        n_best_size=3,
        max_answer_length=2,
    )
    assert [one.text for one in best] == ["b c", "b", "c"]
    assert [(one.start_logit, one.end_logit) for one in best] == [(3, 2), (3, 0), (1, 2)]
    total = math.exp(5) + 2 * math.exp(3)
    assert [one.probability for one in best] == pytest.approx([math.exp(5) / total, *[math.exp(3) / total] * 2])


def test_an_answer_is_not_longer_than_allowed_nor_reversed():
    start, end = [5, 0, 0, 0, 0], [0, 0, 0, 5, 0]
    features, given = [window(slice(0, 5), [True] * 5)], [logits(start, end)]
    arguments = (features, given)
    assert ranked(*arguments, n_best_size=1, max_answer_length=4)[0].text == "a b c d"
    assert ranked(*arguments, n_best_size=1, max_answer_length=3)[0].text == "a"
    reversed_logits = [logits([0, 0, 0, 5, 0], [5, 0, 0, 0, 0])]
    assert ranked(features, reversed_logits, n_best_size=1, max_answer_length=5)[0].text == "a"


def test_a_span_starts_where_its_token_has_most_context():
    first = window(slice(0, 3), [True, True, False])
    second = window(slice(2, 5), [True, True, True])
    best = ranked(
        [first, second],
        [logits([0, 1, 9], [0, 0, 9]), logits([0, 0, 0], [0, 2, 0])],
        n_best_size=1,
        max_answer_length=3,
    )
    assert best[0].text == "b c"  # 1 + 9; not "c" with 9 + 9, which belongs to the second window


def test_equal_texts_are_one_answer_and_ties_go_to_the_earlier():
    best = ranked(
        [window(slice(0, 5), [True] * 5)],
        [logits([0] * 5, [0] * 5)],
        n_best_size=20,
        max_answer_length=1,
    )
    assert [one.text for one in best] == ["a", "b", "c", "d"]
    best = ranked(
        [window(slice(0, 5), [True] * 5)],
        [logits([3, 0, 0, 0, 1], [3, 0, 0, 0, 1])],
        n_best_size=20,
        max_answer_length=1,
    )
    assert (best[0].text, best[0].start_logit) == ("a", 3)  # the better of the two


@pytest.mark.parametrize("seed", range(5))
def test_equals_trying_every_span(seed):
    random = np.random.default_rng(seed)
    start, end = (random.integers(-3, 4, 5).astype(float).tolist() for _ in range(2))
    best = ranked(
        [window(slice(0, 5), [True] * 5)],
        [logits(start, end)],
        n_best_size=20,
        max_answer_length=3,
    )
    spans = [(-(start[i] + end[j]), i, j) for i in range(5) for j in range(i, min(i + 3, 5))]
    texts = [CONTEXT[LETTERS[i][0] : LETTERS[j][1]] for _, i, j in sorted(spans)]
    assert [one.text for one in best] == list(dict.fromkeys(texts))


def test_gold_labels_as_logits_score_100(pieces):
    examples = where_questions()
    features = make_features(examples, pieces, max_seq_length=14, doc_stride=3, max_query_length=5)
    assert len(features) > len(examples)
    given = []
    for feature in features:
        first, last = answer_positions(feature, examples[feature.example_index].answers[0])
        start, end = np.zeros((2, len(feature.input_ids)), dtype=np.float32)
        start[first] = end[last] = 10
        given.append(Logits(start, end))
    best = predict_answers(examples, features, given, n_best_size=5, max_answer_length=5)
    assert set(best) == {example.id for example in examples}
    figures = score(
        "1.1",
        {example.id: [example.answers[0].text] for example in examples},
        {question_id: ranking.best_text(0.0) for question_id, ranking in best.items()},
    )
    assert figures == {"exact_match": 100, "f1": 100}


def with_null(start, end, null, n_best_size, threshold=0.0):
    """(texts, probabilities, null_score_diff, the answer) of a window whose [CLS] has these logits."""
    given = logits(start, end)
    given.start[0], given.end[0] = null
    feature = window(slice(0, 5), [True] * 5)
    other = logits(start, end)  # a second window, whose [CLS] is surer that there is no answer
    ranking = rank_answers(
        EXAMPLE,
        [feature, feature],
        [other, given],
        n_best_size=n_best_size,
        max_answer_length=2,
        may_be_unanswerable=True,
    )
    texts = [one.text for one in ranking.candidates]
    return texts, [one.probability for one in ranking.candidates], ranking.null_score_diff, ranking.best_text(threshold)


START, END = [-9, 3, 1, -9, -9], [-9, 0, 2, -9, -9]  # "b c" 5, "b" 3, "c" 3


def test_no_answer_by_hand():
    """Its place among the answers follows from its score, 3.5 + 0.5; its odds are those against the best span."""
    texts, probabilities, diff, answer = with_null(START, END, (3.5, 0.5), n_best_size=3)
    assert (texts, diff, answer) == (["b c", "", "b"], -1, "b c")
    total = math.exp(5) + math.exp(4) + math.exp(3)
    assert probabilities == pytest.approx([math.exp(score) / total for score in (5, 4, 3)])


@pytest.mark.parametrize(
    ("null", "n_best_size", "texts", "diff"),
    [
        ((6, 0), 3, ["", "b c", "b"], 1),
        ((5, 0), 3, ["b c", "", "b"], 0),  # of equals the span comes first
        ((-90, 0), 2, ["b c", "b", ""], -95),  # one more than the n best
        ((60, 0), 1, ["", "b c"], 55),  # and so is the best span
    ],
)
def test_no_answer_and_the_best_span_are_always_among_the_answers(null, n_best_size, texts, diff):
    found, _, found_diff, _ = with_null(START, END, null, n_best_size)
    assert (found, found_diff) == (texts, diff)


def test_the_threshold_decides_between_them():
    """Above it there is no answer, at it the best span."""
    answers = [with_null(START, END, (6, 0), 3, threshold)[3] for threshold in (0.0, 0.99, 1.0, 2.0)]
    assert answers == ["", "", "b c", "b c"]


def test_logits_equal_transformers_run_one_by_one(tokenizer, pieces):
    """Sorting and batching must not be seen; 1e-5 is the rounding of fp32 sums of another shape."""
    torch.manual_seed(0)
    model = BertForQuestionAnswering(tiny_config(tokenizer)).eval()
    features = make_features(where_questions(), pieces, max_seq_length=14, doc_stride=3, max_query_length=5)
    ours = predict_logits(
        SpanModel(copy.deepcopy(model)),
        features,
        micro_batch_size=3,
        precision="fp32",
        process=CPU,
    )
    with torch.no_grad():
        for feature, one in zip(features, ours, strict=True):
            theirs = model(**as_transformers_takes_it(feature))
            np.testing.assert_allclose(one.start, theirs.start_logits[0].numpy(), atol=1e-5)
            np.testing.assert_allclose(one.end, theirs.end_logits[0].numpy(), atol=1e-5)


def test_a_broken_model_is_refused(tokenizer, pieces):
    model = BertForQuestionAnswering(tiny_config(tokenizer))
    torch.nn.init.constant_(model.qa_outputs.bias, math.nan)
    features = make_features(where_questions(), pieces, max_seq_length=32, doc_stride=8, max_query_length=8)
    with pytest.raises(UserError, match="not finite"):
        predict_logits(
            SpanModel(model),
            features,
            micro_batch_size=4,
            precision="fp32",
            process=CPU,
        )
