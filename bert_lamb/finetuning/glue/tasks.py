"""The nine tasks: what their files hold, which labels they know, and by what they are scored.

Source: Wang et al. 2019 (arXiv 1804.07461), table 1, and the files of the benchmark's zip.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class GlueTask:
    """One task. name: as `task=` and Hugging Face call it; folder: as the zip and the leaderboard do.

    labels: by the numbers that Hugging Face gives them; empty for a number from 0 to 5. columns: of the texts in a tsv;
    fields: the same in json lines and at Hugging Face. metrics: names of metrics.py, averaged where there are two.
    """

    name: str
    folder: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    columns: tuple[str, ...]
    fields: tuple[str, ...]
    label_column: str = "label"
    index_column: str = "index"
    parts: tuple[str, ...] = ("",)  # suffixes of its development and test sets
    leaderboard_suffixes: tuple[str, ...] = ("",)
    has_defects: bool = False  # lines cut in two and empty texts in the published files

    @property
    def is_regression(self) -> bool:
        return not self.labels

    @property
    def num_answers(self) -> int:
        """What the model answers with: logits of the classes, or a number."""
        return len(self.labels) or 1

    @property
    def dev_splits(self) -> list[str]:
        return [f"dev{part}" for part in self.parts]

    @property
    def test_splits(self) -> list[str]:
        return [f"test{part}" for part in self.parts]

    @property
    def splits(self) -> list[str]:
        return ["train", *self.dev_splits, *self.test_splits]

    def submission_name(self, split: str) -> str:
        """The leaderboard's file for the answers to a test set."""
        return f"{self.folder}{self.leaderboard_suffixes[self.test_splits.index(split)]}.tsv"

    def has_header(self, split: str) -> bool:
        """Whether a tsv begins with the names of its columns; CoLA's training and development sets do not."""
        return self.name != "cola" or split in self.test_splits


COLA_COLUMNS = ("source", "label", "mark", "sentence")  # of the files without a header
BINARY = ("0", "1")
ENTAILMENT = ("entailment", "not_entailment")
ONE, TWO = ("sentence",), ("sentence1", "sentence2")

TASKS: dict[str, GlueTask] = {
    task.name: task
    for task in (
        GlueTask("cola", "CoLA", BINARY, ("matthews",), ONE, ONE),
        GlueTask("sst2", "SST-2", BINARY, ("accuracy",), ONE, ONE),
        GlueTask("mrpc", "MRPC", BINARY, ("accuracy", "f1"), ("#1 String", "#2 String"), TWO, label_column="Quality"),
        GlueTask("stsb", "STS-B", (), ("pearson", "spearman"), TWO, TWO, label_column="score"),
        GlueTask(
            "qqp",
            "QQP",
            BINARY,
            ("accuracy", "f1"),
            ("question1", "question2"),
            ("question1", "question2"),
            label_column="is_duplicate",
            index_column="id",
            has_defects=True,
        ),
        GlueTask(
            "mnli",
            "MNLI",
            ("entailment", "neutral", "contradiction"),
            ("accuracy",),
            TWO,
            ("premise", "hypothesis"),
            label_column="gold_label",
            parts=("_matched", "_mismatched"),
            leaderboard_suffixes=("-m", "-mm"),
        ),
        GlueTask("qnli", "QNLI", ENTAILMENT, ("accuracy",), ("question", "sentence"), ("question", "sentence")),
        GlueTask("rte", "RTE", ENTAILMENT, ("accuracy",), TWO, TWO),
        GlueTask("wnli", "WNLI", BINARY, ("accuracy",), TWO, TWO),
    )
}
