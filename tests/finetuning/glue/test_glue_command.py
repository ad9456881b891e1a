"""`bert-lamb glue` from end to end on a tiny model: what it learns, leaves, resumes and refuses.

Mutations that must turn it red are in mutations.txt.
"""

import json
import shutil

import pytest
import torch
from glue_material import (
    PLAIN,
    TRAIN_FORMS,
    lines_of,
    make_folder,
    metrics_of,
    toy,
    words,
    write_lines,
    write_task,
)
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BertForSequenceClassification, pipeline

from bert_lamb.cli import main as cli
from bert_lamb.cli.compose import compose
from bert_lamb.config.glue import GlueTaskName
from bert_lamb.finetuning.glue.tasks import TASKS
from bert_lamb.train.recorder import Recorder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every task in the form of the zip, MRPC with a test set, and a tiny model."""
    root = make_folder(tmp_path_factory.mktemp("glue"), *TRAIN_FORMS, num_train=16, num_dev=8)
    write_task(root / "glue", "sst2", num_train=64, num_dev=32)
    write_task(root / "glue", "mrpc", num_train=16, num_dev=8, num_test=3)
    return root


def call(folder, task, run, *more):
    assert cli.main(words(folder, task, run, *PLAIN, *more)) == 0
    return json.loads((folder / run / "glue.json").read_text())


def refused(capsys, folder, task, run, *more):
    """The one line of a refusal."""
    capsys.readouterr()
    assert cli.main(words(folder, task, run, *PLAIN, *more)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture(scope="module")
def learnt(folder):
    """SST-2's toy, which asks for a word: learnt in a few epochs."""
    return call(folder, "sst2", "learnt", "num_epochs=10", "peak_lr=5e-3", "global_batch_size=16")


def test_a_learnable_task_is_learnt(folder, learnt):
    assert learnt["scores"]["dev"]["accuracy"] >= 95
    assert learnt["score"] == learnt["scores"]["dev"]["accuracy"]
    assert learnt["num_examples"] == {"train": 64, "dev": 32}
    losses = [line["loss"] for line in metrics_of(folder / "learnt", "step")]
    assert len(losses) == learnt["num_train_steps"] == 40
    assert losses[-1] < 0.2 < losses[0]
    (told,) = metrics_of(folder / "learnt", "glue_scores")
    assert (told["accuracy"], told["num_examples"], told["step"]) == (learnt["score"], 32, 40)


def test_the_saved_model_predicts_the_same_in_transformers(folder, learnt):
    model = BertForSequenceClassification.from_pretrained(folder / "learnt" / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "learnt" / "model")
    lines = (folder / "glue" / "SST-2" / "dev.tsv").read_text().splitlines()[1:]
    predicted = (folder / "learnt" / "predictions" / "dev.tsv").read_text().splitlines()
    assert predicted[0] == "index\tprediction"
    for i, line in enumerate(lines):
        with torch.no_grad():
            logits = model(**tokenizer(line.split("\t")[0], return_tensors="pt", truncation=True, max_length=16)).logits
        assert predicted[1 + i] == f"{i}\t{logits.argmax(-1).item()}"
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer)
    assert classify(lines[0].split("\t")[0])[0]["label"] == predicted[1].split("\t")[1]
    card = (folder / "learnt" / "model" / "README.md").read_text(encoding="utf-8")
    assert f"{learnt['summary']}." in card
    assert "from random weights" not in card


def test_a_fine_tuned_model_is_scored_without_training(folder, learnt):
    model_dir = folder / "learnt" / "model"
    again = call(folder, "sst2", "again", f"model_dir={model_dir}", "num_epochs=0")
    assert again["scores"] == learnt["scores"]
    assert again["num_train_steps"] == 0
    assert not (folder / "again" / "model").exists()


def test_the_report_quotes_the_scores(folder, learnt, capsys, monkeypatch):
    monkeypatch.setattr("bert_lamb.report.page.draw_plots", lambda panels, run: [])
    assert cli.main(["report", f"run_dir={folder / 'learnt'}"]) == 0
    assert f"SST-2 dev (32): accuracy {learnt['score']:.2f}" in capsys.readouterr().out
    content = json.loads((folder / "learnt" / "report.json").read_text())
    assert any("SST-2" in sentence for sentence in content["sentences"])


def test_a_test_set_becomes_a_file_for_the_leaderboard(folder, capsys):
    call(folder, "mrpc", "mrpc", "max_seq_length=16")
    assert "new classifier, new pooler; not used: qa_outputs" in capsys.readouterr().out
    lines = (folder / "mrpc" / "predictions" / "MRPC.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["index", "0", "1", "2"]
    assert {line.split("\t")[1] for line in lines[1:]} <= {"0", "1"}


def test_all_tasks_one_after_the_other_with_their_table(folder, capsys, monkeypatch):
    """Killed in the fourth and resumed: what was finished stays, and the table has all nine."""

    class Killed(BaseException):
        pass

    original = Recorder.step

    def step_or_die(self, stage, step, **rest):
        if self.run_dir.path.name == "stsb":
            raise Killed
        original(self, stage, step, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "step", step_or_die)
        with pytest.raises(Killed):
            cli.main(words(folder, "all", "all", *PLAIN))
    first = (folder / "all" / "mrpc" / "glue.json").read_text()
    capsys.readouterr()
    result = call(folder, "all", "all", "if_exists=resume")
    out = capsys.readouterr().out
    assert out.count("is already complete") == 3
    assert (folder / "all" / "mrpc" / "glue.json").read_text() == first
    table = out[out.index("task ") :].splitlines()
    names = [line.split()[0] for line in table[1:]]
    assert names == ["CoLA", "SST-2", "MRPC", "STS-B", "QQP", "MNLI", "QNLI", "RTE", "WNLI", "average"]
    scores = {name: of["score"] for name, of in result["tasks"].items()}
    assert result["average"] == pytest.approx(sum(scores[name] for name in scores if name != "wnli") / 8)
    assert f"{result['average']:.2f}  8 tasks, without WNLI" in table[-1]
    mnli = result["tasks"]["mnli"]
    accuracies = [mnli["scores"][f"dev_{part}"]["accuracy"] for part in ("matched", "mismatched")]
    assert mnli["score"] == pytest.approx(sum(accuracies) / 2)
    assert (folder / "all" / "rte" / "outcome.json").read_text() == outcome_of_one(folder, "rte")


def outcome_of_one(folder, task):
    """What a run of a task alone writes: a run of all leaves folders that can be resumed by themselves."""
    call(folder, task, f"alone-{task}")
    return (folder / f"alone-{task}" / "outcome.json").read_text()


def test_a_restart_that_is_refused_deletes_nothing(folder, tmp_path, capsys):
    """A mistake in the last task's files is found before the first task's old run goes."""
    two = ["~tasks.cola", "~tasks.sst2", "~tasks.stsb", "~tasks.qqp", "~tasks.mnli", "~tasks.qnli", "~tasks.wnli"]
    shutil.copytree(folder / "glue", tmp_path / "glue")
    shutil.copytree(folder / "model", tmp_path / "model")
    result = call(tmp_path, "all", "two", *two)
    assert list(result["tasks"]) == ["mrpc", "rte"]
    write_lines(tmp_path / "glue" / "RTE" / "dev.tsv", ["index\tsentence1\tsentence2\tlabel", "0\ta\tb\tmaybe"])
    line = refused(capsys, tmp_path, "all", "two", *two, "if_exists=restart")
    assert "the label 'maybe' in" in line
    assert "dev.tsv, line 2" in line
    assert (tmp_path / "two" / "mrpc" / "glue.json").exists()
    line = refused(capsys, tmp_path, "rte", "two/rte", "if_exists=restart", "max_seq_length=41")
    assert "the label 'maybe' in" in line


def test_an_existing_run_is_refused_kept_or_done_again(folder, tmp_path, capsys):
    for part in ("glue/RTE", "model"):
        shutil.copytree(folder / part, tmp_path / part)
    first = call(tmp_path, "rte", "rte")
    assert "if_exists=resume" in refused(capsys, tmp_path, "rte", "rte")
    assert call(tmp_path, "rte", "rte", "if_exists=resume") == first
    assert "is already complete: RTE dev (8)" in capsys.readouterr().out
    assert "with peak_lr=0.003; expected peak_lr=0.001" in refused(
        capsys, tmp_path, "rte", "rte", "if_exists=resume", "peak_lr=1e-3"
    )
    write_lines(tmp_path / "glue" / "RTE" / "train.tsv", lines_of("rte", toy(16, seed=9)))
    assert "files.train.sha256" in refused(capsys, tmp_path, "rte", "rte", "if_exists=resume")
    assert call(tmp_path, "rte", "rte", "if_exists=restart")["inputs"] != first["inputs"]


def test_killed_and_resumed_is_the_same_bit_for_bit(folder, tmp_path, monkeypatch):
    """With dropout, in mid-epoch and after training: weights and predictions of the uninterrupted run."""
    shutil.copytree(folder / "glue" / "STS-B", tmp_path / "glue" / "STS-B")
    shutil.copytree(folder / "model", tmp_path / "model")
    file = tmp_path / "model" / "config.json"
    dropouts = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.1}
    file.write_text(json.dumps({**json.loads(file.read_text()), **dropouts}))
    more = ["num_epochs=2", "checkpoint.interval_steps=2"]

    class Killed(BaseException):
        pass

    def die(*rest, **named):
        raise Killed

    original = Recorder.step

    def step_or_die(self, stage, step, **rest):
        if step == 3:
            raise Killed
        original(self, stage, step, **rest)

    call(tmp_path, "stsb", "whole", *more)
    for place, deadly in (
        ("bert_lamb.train.recorder.Recorder.step", step_or_die),
        ("bert_lamb.finetuning.glue.one_task.predict_rows", die),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, deadly)
            with pytest.raises(Killed):
                cli.main(words(tmp_path, "stsb", "killed", *PLAIN, *more, "if_exists=resume"))
    call(tmp_path, "stsb", "killed", *more, "if_exists=resume")
    weights = [load_file(tmp_path / run / "model" / "model.safetensors") for run in ("whole", "killed")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    texts = [(tmp_path / run / "predictions" / "dev.tsv").read_text() for run in ("whole", "killed")]
    assert texts[0] == texts[1]
    assert [line["step"] for line in metrics_of(tmp_path / "killed", "step")] == [1, 2, 3, 4]


def test_the_micro_batch_that_fits_is_found_and_changes_nothing(folder):
    """1e-5: rounding of fp32 gradients in two AdamW steps of 3e-3."""
    for run, more in (("fixed", []), ("auto", ["runtime.micro_batch_size=auto"])):
        call(folder, "stsb", run, "optimizer.eps=1e-4", *more)
    (found,) = json.loads((folder / "auto" / "micro_batch.json").read_text())
    assert found["fit"]["full_rows"] >= 1
    fixed, auto = (load_file(folder / run / "model" / "model.safetensors") for run in ("fixed", "auto"))
    for name, weight in fixed.items():
        if not name.endswith("key.bias"):
            torch.testing.assert_close(auto[name], weight, rtol=0, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def test_json_lines_and_the_hub_give_what_the_tsv_gives(folder, tmp_path, monkeypatch):
    """The same examples in three forms: the same predictions."""
    shutil.copytree(folder / "model", tmp_path / "model")
    asked = []
    for split, seed, number in (("train", 1, 16), ("dev", 2, 8)):
        rows = [{"question": a, "sentence": b, "label": 1 - int(is_alike)} for a, b, is_alike in toy(number, seed)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_lines(tmp_path / "glue" / f"{split}.jsonl", text.splitlines())

    def load_dataset(name, config, *, split, streaming):
        asked.append((name, config, split, streaming))
        if split == "test":
            return iter([{"question": "where", "sentence": "in rome", "label": -1, "idx": 7}])
        file = tmp_path / "glue" / f"{split.replace('validation', 'dev')}.jsonl"
        return map(json.loads, file.read_text().splitlines())

    call(folder, "qnli", "tsv")
    call(tmp_path, "qnli", "jsonl")
    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    words_of_hub = [word for word in words(tmp_path, "qnli", "hub", *PLAIN) if not word.startswith("data_dir")]
    assert cli.main([*words_of_hub, "dataset=nyu-mll/glue/qnli"]) == 0
    assert [one[:2] for one in asked] == [("nyu-mll/glue", "qnli")] * len(asked)
    assert [one[2] for one in asked] == ["train", "validation", "test"]
    assert all(streaming for *_, streaming in asked)
    texts = {
        (root / run / "predictions" / "dev.tsv").read_text()
        for root, run in ((folder, "tsv"), (tmp_path, "jsonl"), (tmp_path, "hub"))
    }
    assert len(texts) == 1
    assert (tmp_path / "hub" / "predictions" / "QNLI.tsv").read_text().splitlines()[1].startswith("7\t")


def test_without_a_network_the_hub_is_a_line(folder, capsys):
    given = [word for word in words(folder, "mrpc", "hub", *PLAIN) if not word.startswith("data_dir")]
    assert cli.main([*given, "dataset=no-such/data-set"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "dataset=no-such/data-set whose split train cannot be read" in line
    assert not (folder / "hub").exists()


@pytest.mark.parametrize(
    ("task", "more", "message"),
    [
        ("mrpc", ["data_dir=nowhere"], "no folder nowhere"),
        ("mrpc", ["data_dir={root}/glue/RTE"], "among the columns of"),
        ("mrpc", ["data_dir={root}/model"], "no train.tsv or train.jsonl in {root}/model"),
        ("mrpc", ["files.dev={root}/glue/MRPC/dev.csv"], "files.dev="),
        ("mrpc", ["model_dir=nowhere"], "no folder nowhere"),
        ("mrpc", ["model_dir={root}/model", "num_epochs=0"], "without a classifier, and num_epochs=0"),
        ("mrpc", ["max_seq_length=41"], "max_seq_length=41; expected at most the model's 40 positions"),
        ("mrpc", ["peak_lr=-1"], "found peak_lr=-1.0; expected a number above 0"),
        ("mrpc", ["tasks.mrpc.peak_lr=0", "peak_lr=null"], "found tasks.mrpc.peak_lr=0.0"),
        ("mrpc", ["max_seq_length=7"], "found max_seq_length=7; expected 8 or more"),
        ("mrpc", ["num_epochs=-1"], "found num_epochs=-1.0"),
        ("mrpc", ["warmup_proportion=2"], "found warmup_proportion=2.0"),
        ("mrpc", ["dataset=nyu-mll/glue"], "either data_dir (or files) or dataset"),
        ("mrpc", ["~tasks.mrpc"], "found tasks.mrpc=nothing"),
        ("all", ["files.dev=x"], "none with task=all"),
        ("mnli", ["files.dev=x.tsv"], "files.dev; expected a split of MNLI: train, dev_matched, dev_mismatched"),
        ("mrpc", ["num_epochs=0", "initial_weights=random"], "above 0 with initial_weights=random"),
        ("snli", [], "snli"),
    ],
)
def test_what_cannot_be_done_is_one_line(folder, capsys, task, more, message):
    more = [word.format(root=folder) for word in more]
    assert message.format(root=folder) in refused(capsys, folder, task, "never", *more)
    assert not (folder / "never").exists()


def test_a_folder_that_fine_tuning_on_questions_wrote_is_not_ours(folder, tmp_path, capsys):
    run = tmp_path / "squad"
    run.mkdir()
    (run / "outcome.json").write_text(json.dumps({"inputs": {}, "task": "mrpc"}))
    line = refused(capsys, folder, "mrpc", str(run), "if_exists=restart")
    assert "a run of another command in the way at" in line


def test_the_folders_pooler_is_read_and_its_classifier_is_not(folder, learnt, tmp_path, capsys):
    """A rate so small that nothing moves: the pooler is the folder's, the classifier a new draw of the seed."""
    shutil.copytree(folder / "learnt" / "model", tmp_path / "model")
    stored = load_file(tmp_path / "model" / "model.safetensors")
    small = ["data_dir=" + str(folder / "glue"), "peak_lr=1e-9"]
    for run, seed in (("a", 1), ("b", 1), ("c", 2)):
        call(tmp_path, "rte", run, *small, f"seed={seed}")
    a, b, c = (load_file(tmp_path / run / "model" / "model.safetensors") for run in "abc")
    assert "pretrained weights, new classifier; not used: classifier" in capsys.readouterr().out
    torch.testing.assert_close(a["bert.pooler.dense.weight"], stored["bert.pooler.dense.weight"], rtol=0, atol=1e-6)
    assert torch.equal(a["classifier.weight"], b["classifier.weight"])
    for other in (c, stored):
        assert (a["classifier.weight"] - other["classifier.weight"]).abs().max() > 1e-3
    halved = {name: value for name, value in stored.items() if name != "bert.pooler.dense.bias"}
    save_file(halved, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    assert "without 1 weights, such as bert.pooler.dense.bias" in refused(capsys, tmp_path, "rte", "d", *small)


def test_names_of_tasks_and_recipes_agree():
    """The schema's, the table's, and those of conf/glue_task; each recipe is that of the paper's section 4.1."""
    config = compose("glue", ["task=all", "model_dir=m", "data_dir=d", "run_dir=r"])
    assert list(config.tasks) == list(TASKS) == [one.value for one in GlueTaskName if one is not GlueTaskName.all]
    for recipe in config.tasks.values():
        assert (recipe.global_batch_size, recipe.num_epochs) == (32, 3)
        assert recipe.peak_lr in (5e-5, 4e-5, 3e-5, 2e-5)
