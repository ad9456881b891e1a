"""The metrics against values worked out by hand and against the libraries called directly, and what is degenerate.

Truths: the definitions on tables small enough for a pencil; scikit-learn and scipy with the arguments the other way
round, so that exchanged predictions and labels show where it matters.
"""

import math
import sys

import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, matthews_corrcoef

from bert_lamb.errors import UserError
from bert_lamb.finetuning.glue import metrics
from bert_lamb.finetuning.glue.metrics import glue_average, score, task_score
from bert_lamb.finetuning.glue.tasks import TASKS

LABELS = [1, 1, 1, 0, 0, 0, 0, 1]
GUESSES = [1, 1, 0, 0, 0, 1, 0, 0]  # 2 true, 1 false positive, 2 false negatives, 3 true negatives
ALL = ("accuracy", "f1", "matthews")


def test_a_table_worked_out_by_hand():
    found = score(ALL, GUESSES, LABELS)
    assert found["accuracy"] == pytest.approx(100 * 5 / 8)
    assert found["f1"] == pytest.approx(100 * 2 * 2 / (2 * 2 + 1 + 2))
    assert found["matthews"] == pytest.approx(100 * (2 * 3 - 1 * 2) / math.sqrt(3 * 4 * 4 * 5))
    assert found["f1"] == pytest.approx(100 * f1_score(LABELS, GUESSES))
    assert found["matthews"] == pytest.approx(100 * matthews_corrcoef(LABELS, GUESSES))


def test_correlations_worked_out_by_hand():
    """Deviations (-2, -1, 0, 3) and (-1, -1, 0, 2): 9 over the root of 14 x 6; ranks with a tie of two."""
    guesses, labels = [0.0, 1.0, 2.0, 5.0], [1.0, 1.0, 2.0, 4.0]
    found = score(("pearson", "spearman"), guesses, labels)
    assert found["pearson"] == pytest.approx(100 * 9 / math.sqrt(14 * 6))
    # Ranks 1, 2, 3, 4 and 1.5, 1.5, 3, 4: covariance 4.5 of 5 and 4.5.
    assert found["spearman"] == pytest.approx(100 * 4.5 / math.sqrt(5 * 4.5))
    assert found["pearson"] == pytest.approx(100 * pearsonr(labels, guesses).statistic)
    assert found["spearman"] == pytest.approx(100 * spearmanr(labels, guesses).statistic)


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize(
    ("guesses", "labels", "expected"),
    [
        ([0, 0, 0, 0], [0, 1, 0, 1], (50, 0, 0)),  # constant predictions
        ([0, 1, 0, 1], [1, 1, 1, 1], (50, 100 * 2 / 3, 0)),  # one class only
        ([0, 0], [0, 0], (100, 0, 0)),  # nothing positive anywhere
        ([1, 1], [1, 1], (100, 100, 0)),  # everything is
    ],
)
def test_what_divides_by_zero_is_zero(guesses, labels, expected):
    assert tuple(score(ALL, guesses, labels).values()) == pytest.approx(expected)


@pytest.mark.parametrize(("guesses", "labels"), [([2.0, 2.0], [1.0, 3.0]), ([1.0, 3.0], [4.0, 4.0]), ([1.0], [1.0])])
def test_a_correlation_with_a_constant_is_undefined(guesses, labels, recwarn):
    """As scipy's nan; no number is made up, and the average is undefined with it."""
    scores = score(("pearson", "spearman"), guesses, labels)
    assert scores == {"pearson": None, "spearman": None}
    assert task_score({"dev": scores}) is None
    assert glue_average({"stsb": None, "rte": 60.0}, counts_wnli=False) is None


def test_the_average_is_the_leaderboards():
    """Two metrics are averaged first, and so are MNLI's two sets; WNLI by the switch."""
    assert task_score({"dev": {"accuracy": 80.0, "f1": 90.0}}) == 85
    mnli = task_score({"dev_matched": {"accuracy": 84.0}, "dev_mismatched": {"accuracy": 82.0}})
    of_tasks = {"mrpc": 85.0, "mnli": mnli, "wnli": 10.0}
    assert glue_average(of_tasks, counts_wnli=False) == 84
    assert glue_average(of_tasks, counts_wnli=True) == 59.333333333333336
    assert glue_average({}, counts_wnli=True) is None


def test_each_task_has_the_published_metrics():
    published = {
        "cola": ["matthews"],
        "sst2": ["accuracy"],
        "mrpc": ["accuracy", "f1"],
        "stsb": ["pearson", "spearman"],
        "qqp": ["accuracy", "f1"],
        **{name: ["accuracy"] for name in ("mnli", "qnli", "rte", "wnli")},
    }
    assert {name: list(task.metrics) for name, task in TASKS.items()} == published


@pytest.mark.parametrize("library", ["sklearn.metrics", "scipy.stats"])
def test_a_missing_library_is_refused_in_a_line(monkeypatch, library):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=r"bert-lamb\[glue\]"):
        metrics.check_libraries()
