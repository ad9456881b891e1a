"""What the tests of the glue room share: files in the form of the GLUE zip, written down here once more, and a toy.

The columns are those of the published files, not those of tasks.py. The model and its words are golden/curves.py's.
"""

import json
import random
from pathlib import Path

from tests.golden.curves import PEOPLE, PLACES, make_model_folder

# task -> (folder, header, a row for (number, texts, label)); train and dev
TRAIN_FORMS = {
    "cola": ("CoLA", None, "gj04\t{label}\t*\t{a}"),
    "sst2": ("SST-2", "sentence\tlabel", "{a}\t{label}"),
    "mrpc": ("MRPC", "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", "{label}\t1\t2\t{a}\t{b}"),
    "stsb": (
        "STS-B",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        "{i}\tnews\tf\t2012\t1\tnone\tnone\t{a}\t{b}\t{label}",
    ),
    "qqp": ("QQP", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "{i}\t1\t2\t{a}\t{b}\t{label}"),
    "mnli": (
        "MNLI",
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse"
        "\tsentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
        "{i}\t1\t1n\tfiction\t(a)\t(b)\t(S a)\t(S b)\t{a}\t{b}\t{label}\t{label}",
    ),
    "qnli": ("QNLI", "index\tquestion\tsentence\tlabel", "{i}\t{a}\t{b}\t{label}"),
    "rte": ("RTE", "index\tsentence1\tsentence2\tlabel", "{i}\t{a}\t{b}\t{label}"),
    "wnli": ("WNLI", "index\tsentence1\tsentence2\tlabel", "{i}\t{a}\t{b}\t{label}"),
}
TEST_FORMS = {
    "cola": ("index\tsentence", "{i}\t{a}"),
    "sst2": ("index\tsentence", "{i}\t{a}"),
    "mrpc": ("index\t#1 ID\t#2 ID\t#1 String\t#2 String", "{i}\t1\t2\t{a}\t{b}"),
    "qqp": ("id\tquestion1\tquestion2", "{i}\t{a}\t{b}"),
    "rte": ("index\tsentence1\tsentence2", "{i}\t{a}\t{b}"),
}
LABELS = {"mnli": ["entailment", "neutral"], "qnli": ["not_entailment", "entailment"]}
LABELS |= {"rte": LABELS["qnli"], "stsb": ["0.500", "4.250"]}
SMALL = [
    "max_seq_length=16",
    "global_batch_size=8",
    "peak_lr=3e-3",
    "num_epochs=1",
    "runtime.device=cpu",
    "runtime.peak_tflops=1",  # not measured, which takes longer than these runs
    "runtime.micro_batch_size.fine_tuning=4",
    "seed=5",
]
PLAIN = ["runtime.engine=torch"]


def toy(number, seed):
    """(first text, second text, is alike) of so many: who lives where, and whether the place is of the first four."""
    draws = random.Random(seed)
    rows = []
    for _ in range(number):
        person, place = draws.choice(PEOPLE), draws.choice(PLACES)
        words = " and ".join(draws.sample(PEOPLE, draws.randint(1, 3)))
        rows.append((f"{person} and {words} live in {place}", f"where does {person} live", PLACES.index(place) < 4))
    return rows


def lines_of(task, rows):
    """The lines of a training or development set."""
    _, header, form = TRAIN_FORMS[task]
    names = LABELS.get(task, ["0", "1"])
    lines = [form.format(i=i, a=a, b=b, label=names[label]) for i, (a, b, label) in enumerate(rows)]
    return [*([header] if header else []), *lines]


def write_lines(file, lines):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(("\n".join(lines) + "\n").encode())


def write_task(root: Path, task: str, *, num_train=16, num_dev=8, num_test=0) -> Path:
    """The folder of a task in the GLUE zip."""
    folder = root / TRAIN_FORMS[task][0]
    write_lines(folder / "train.tsv", lines_of(task, toy(num_train, 1)))
    for i, part in enumerate(("_matched", "_mismatched") if task == "mnli" else ("",)):
        write_lines(folder / f"dev{part}.tsv", lines_of(task, toy(num_dev + i, 2 + i)))
    if num_test:
        header, form = TEST_FORMS[task]
        rows = [form.format(i=i, a=a, b=b) for i, (a, b, _) in enumerate(toy(num_test, 4))]
        write_lines(folder / "test.tsv", [header, *rows])
    return folder


def make_folder(root: Path, *tasks: str, **sizes) -> Path:
    """A model folder without a pooler, and the folders of these tasks."""
    make_model_folder(root / "model")
    for task in tasks:
        write_task(root / "glue", task, **sizes)
    return root


def words(root, task, run, *more):
    """The command line of a small run."""
    given = [f"model_dir={root / 'model'}", f"data_dir={root / 'glue'}", f"run_dir={root / run}"]
    return ["glue", f"task={task}", *given, *SMALL, *more]


def metrics_of(run_dir, kind):
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == kind]
