"""The metrics of GLUE, in percent, by scikit-learn and scipy; and its average over tasks.

Where a definition divides by zero: F1 without a true positive is 0, and so is Matthews' correlation when predictions or
labels are all alike (as in scikit-learn, which the leaderboard's own code calls). Pearson's and Spearman's are
undefined (None) when one side is constant.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from bert_lamb.errors import UserError

Numbers = Sequence[float]
Scores = dict[str, float | None]  # metric -> percent; None: undefined


def check_libraries() -> None:
    """UserError where scikit-learn or scipy is not installed."""
    try:
        import scipy.stats  # noqa: F401
        import sklearn.metrics  # noqa: F401
    except ImportError as error:
        raise UserError(
            found=f"no {error.name}, which GLUE is scored with",
            expected="scikit-learn and scipy",
            fix="install the extra: pip install -c constraints.txt 'bert-lamb[glue]'",
        ) from error


def accuracy(predictions: Numbers, labels: Numbers) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predictions))


def f1(predictions: Numbers, labels: Numbers) -> float:
    """Of class 1, the paraphrases and duplicates."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, zero_division=0.0))


def matthews(predictions: Numbers, labels: Numbers) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions))


def pearson(predictions: Numbers, labels: Numbers) -> float:
    from scipy.stats import pearsonr

    return float(pearsonr(predictions, labels).statistic) if _vary(predictions, labels) else math.nan


def spearman(predictions: Numbers, labels: Numbers) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(predictions, labels).statistic) if _vary(predictions, labels) else math.nan


def _vary(*sides: Numbers) -> bool:
    """Whether each side has two values that differ, without which scipy warns and gives nan."""
    return all(len(set(side)) > 1 for side in sides)


METRICS: dict[str, Callable[[Numbers, Numbers], float]] = {
    metric.__name__: metric for metric in (accuracy, f1, matthews, pearson, spearman)
}


def score(metrics: Sequence[str], predictions: Numbers, labels: Numbers) -> Scores:
    """Each metric in percent; correlations times 100."""
    values = {name: 100 * METRICS[name](predictions, labels) for name in metrics}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}


def task_score(scores: Mapping[str, Scores]) -> float | None:
    """The one number of a task, as the leaderboard makes it: the mean of a set's metrics, then of its sets (MNLI).

    scores: of each development set. None where a metric is undefined.
    """
    return mean([mean(list(of_set.values())) for of_set in scores.values()])


def glue_average(of_tasks: Mapping[str, float | None], *, counts_wnli: bool) -> float | None:
    """The mean of the tasks' numbers. counts_wnli: the leaderboard does, Devlin et al. 2019 leave WNLI out."""
    return mean([value for name, value in of_tasks.items() if counts_wnli or name != "wnli"])


def mean(values: Sequence[float | None]) -> float | None:
    """None where one is, or where there are none."""
    known = [value for value in values if value is not None]
    return fmean(known) if values and len(known) == len(values) else None
