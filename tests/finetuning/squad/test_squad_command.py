"""`bert-lamb squad` from end to end on a tiny model, and what it refuses.

Mutations that must turn it red: scores.json written before the predictions, resume that does not look at the bytes of
its inputs, restart that deletes a folder of strangers, a missing encoder weight drawn at random.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from squad_material import squad_json, where_questions, where_questions_of_v2
from test_squad_examples import as_data_set
from transformers import AutoTokenizer, BertForQuestionAnswering

from bert_lamb.cli import main as cli
from bert_lamb.config.checks import IfExists
from bert_lamb.config.optimizer import AdamWConfig
from bert_lamb.config.runtime import EngineName, Precision, RuntimeConfig
from bert_lamb.config.squad import InitialWeights, SquadConfig
from bert_lamb.errors import UserError
from bert_lamb.finetuning.squad import command
from bert_lamb.finetuning.squad.command import squad


@pytest.fixture
def config(tmp_path, encoder_dir, questions_file) -> SquadConfig:
    """Trains on the very questions that it asks."""
    return SquadConfig(
        model_dir=str(encoder_dir),
        run_dir=str(tmp_path / "out"),
        train_file=str(questions_file),
        eval_file=str(questions_file),
        dataset_name="where questions",
        max_seq_length=24,
        doc_stride=8,
        max_query_length=8,
        global_batch_size=8,
        peak_lr=5e-3,
        num_epochs=60.0,
        optimizer=AdamWConfig(),
        runtime=RuntimeConfig(
            engine=EngineName.torch, device="cpu", precision=Precision.fp32, micro_batch_size={"fine_tuning": 4}
        ),
        seed=0,
    )


@pytest.fixture
def quick(config) -> SquadConfig:
    return replace(config, num_epochs=1.0)


def read(config: SquadConfig, name: str):
    return json.loads((Path(config.run_dir) / name).read_text(encoding="utf-8"))


def test_eight_questions_are_learnt_by_heart(config):
    result = squad(config)
    assert (result["exact_match"], result["f1"]) == (100, 100)
    assert read(config, "scores.json") == result
    assert read(config, "predictions.json") == {one.id: one.answers[0].text for one in where_questions()}
    for candidates in read(config, "nbest_predictions.json").values():
        assert sum(one["probability"] for one in candidates) == pytest.approx(1)
    lines = [json.loads(line) for line in (Path(config.run_dir) / "metrics.jsonl").read_text().splitlines()]
    log = [line for line in lines if line["kind"] == "step"]
    (told,) = (line for line in lines if line["kind"] == "scores")
    assert (told["exact_match"], told["f1"], told["num_questions"]) == (100, 100, 8)
    assert [line["step"] for line in log] == list(range(1, result["num_train_steps"] + 1))
    assert log[-1]["loss"] < 0.1 < log[0]["loss"]
    assert (result["num_questions"], result["num_unanswered"], result["dataset_name"]) == (8, 0, "where questions")
    card = (Path(config.run_dir) / "model" / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(card.split("---\n")[1])["pipeline_tag"] == "question-answering"
    assert "where questions, 8 questions: exact match 100.00, F1 100.00." in card
    assert f"| peak_lr | {config.peak_lr} |" in card
    page = (Path(config.run_dir) / "answers.html").read_text(encoding="utf-8")
    assert page.count("<article ") == 8


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [Precision.fp32, Precision.bf16])
def test_they_are_learnt_on_a_gpu(config, precision):
    result = squad(replace(config, runtime=replace(config.runtime, device="cuda", precision=precision)))
    assert (result["exact_match"], result["f1"]) == (100, 100)


def test_the_saved_model_predicts_the_same_in_transformers_and_without_training(config):
    """n-best logits against transformers run directly, on pairs encoded by its own tokenizer call; fp32 rounding."""
    squad(replace(config, num_epochs=2.0))
    folder = Path(config.run_dir) / "model"
    model, tokenizer = BertForQuestionAnswering.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    nbest = read(config, "nbest_predictions.json")
    for example in where_questions():
        pair = tokenizer(example.question, example.context, return_tensors="pt")
        with torch.no_grad():
            output = model(**pair)
        best = nbest[example.id][0]
        in_context = np.array(pair.sequence_ids(0)) == 1
        sums = output.start_logits[0][:, None] + output.end_logits[0][None, :]
        allowed = torch.tensor(np.triu(np.outer(in_context, in_context)))
        assert best["start_logit"] + best["end_logit"] == pytest.approx(sums[allowed].max().item(), abs=1e-5)

    again = replace(config, model_dir=str(folder), train_file=None, run_dir=f"{config.run_dir}-again")
    result = squad(again)
    assert read(again, "predictions.json") == read(config, "predictions.json")
    assert result["num_train_steps"] == 0
    assert not (Path(again.run_dir) / "model").exists()


def test_questions_without_answers(config, tmp_path, capsys):
    """SQuAD v2.0 learnt by heart; the official scorer says of the files what scores.json says."""
    file = tmp_path / "v2.json"
    file.write_text(json.dumps(squad_json(where_questions_of_v2())))
    v2 = replace(config, train_file=str(file), eval_file=str(file), dataset_name=None, num_epochs=80.0, peak_lr=5e-3)
    result = squad(v2)
    assert "8 questions have no answer" in capsys.readouterr().out
    assert (result["version"], result["dataset_name"]) == ("2.0", "SQuAD v2.0")
    assert (result["exact_match"], result["HasAns_exact"], result["NoAns_exact"]) == (100, 100, 100)
    expected = {one.id: one.answers[0].text if one.answers else "" for one in where_questions_of_v2()}
    assert read(v2, "predictions.json") == expected
    odds = read(v2, "null_odds.json")
    assert all((odds[question_id] > 0) == (text == "") for question_id, text in expected.items())
    nbest = read(v2, "nbest_predictions.json")
    for question_id, best in nbest.items():
        scores = {one["text"]: one["start_logit"] + one["end_logit"] for one in best}
        assert odds[question_id] == pytest.approx(scores.pop("") - max(scores.values()))
    files = {"data": file, "predictions": f"{v2.run_dir}/predictions.json", "na_prob": f"{v2.run_dir}/null_odds.json"}
    assert cli.main(["score", *(f"{name}={path}" for name, path in files.items())]) == 0
    official = json.loads(capsys.readouterr().out)
    assert {name: result[name] for name in official} == official
    assert official["best_f1"] == 100
    model = replace(v2, model_dir=f"{v2.run_dir}/model", train_file=None)
    for threshold, has, no in ((-1e9, 0, 100), (1e9, 100, 0)):
        again = replace(model, null_score_diff_threshold=threshold, run_dir=str(tmp_path / f"at{threshold}"))
        result = squad(again)
        assert (result["HasAns_exact"], result["NoAns_exact"]) == (has, no)


def test_a_data_set_in_the_place_of_a_file(quick, tmp_path):
    """The same scores, and known by its content when the run is resumed."""
    squad(quick)
    as_data_set(tmp_path / "set", where_questions())
    named = replace(quick, eval_file=f"hub:{tmp_path / 'set'}:validation", run_dir=f"{quick.run_dir}-hub")
    result = squad(named)
    assert read(named, "predictions.json") == read(quick, "predictions.json")
    assert len(result["inputs"]["eval_file"]["sha256"]) == 64
    assert squad(replace(named, if_exists=IfExists.resume)) == result
    shutil.rmtree(tmp_path / "set")
    as_data_set(tmp_path / "set", where_questions(), spoil=lambda rows: rows.pop())
    with pytest.raises(UserError, match="eval_file"):
        squad(replace(named, if_exists=IfExists.resume))


def test_ask(config, tmp_path, capsys):
    """What was learnt by heart is answered; the best answer is shown where it stands."""
    squad(config)
    one, context = where_questions()[2], tmp_path / "context.txt"
    context.write_text(one.context)
    words = ["ask", f"model_dir={config.run_dir}/model", f"context={context}", f"question={one.question}"]
    words += ["max_seq_length=24", "doc_stride=8", "max_query_length=8", "num_answers=2"]
    capsys.readouterr()
    assert cli.main(words) == 0
    first, second, empty, shown = capsys.readouterr().out.splitlines()
    assert first.split("%  ")[1] == one.answers[0].text
    assert float(first.split("%")[0]) > float(second.split("%")[0]) > 0
    assert (empty, f"[{one.answers[0].text}]" in shown) == ("", True)
    assert cli.main([*words, "may_be_unanswerable=true", "num_answers=1"]) == 0
    assert "(no answer)" in capsys.readouterr().out
    for word, message in (
        (f"model_dir={config.model_dir}", "without a question-answering head"),
        ("context=/nowhere", "found no file /nowhere"),
        ("question=' '", "found question without text"),
        ("max_seq_length=500", "at most the model's 64 positions"),
        ("num_answers=0", "found num_answers=0"),
    ):
        assert cli.main([*words, word]) in (1, 2)
        assert message in capsys.readouterr().err


def test_several_seeds(quick, tmp_path, capsys):
    """Each equals the run of its seed alone; mean and deviation by numpy; a resumed run keeps finished seeds."""
    several = replace(quick, seeds=3, published={"f1": 90.9}, published_by="somebody")
    result = squad(several)
    assert read(several, "seeds.json") == result
    alone = squad(replace(quick, seed=1, run_dir=str(tmp_path / "alone")))
    f1 = result["figures"]["f1"]
    assert f1["by_seed"]["1"] == alone["f1"]
    first = load_file(Path(several.run_dir) / "seed-1" / "model" / "model.safetensors")
    again = load_file(tmp_path / "alone" / "model" / "model.safetensors")
    assert all(torch.equal(first[name], again[name]) for name in first)
    values = list(f1["by_seed"].values())
    assert list(f1["by_seed"]) == ["0", "1", "2"]
    assert f1["mean"] == pytest.approx(np.mean(values))
    assert f1["standard_deviation"] == pytest.approx(np.std(values, ddof=1))
    assert (f1["best"], f1["by_seed"][str(f1["seed_of_best"])]) == (max(values), max(values))
    assert (f1["published"], result["figures"]["exact_match"]["published"]) == (90.9, None)
    assert "published 90.90" in capsys.readouterr().out
    before = (Path(several.run_dir) / "seed-2" / "scores.json").stat().st_mtime_ns
    (Path(several.run_dir) / "seeds.json").unlink()
    assert squad(replace(several, if_exists=IfExists.resume)) == result
    assert (Path(several.run_dir) / "seed-2" / "scores.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="seeds"):
        squad(replace(several, seeds=2, if_exists=IfExists.resume))
    with pytest.raises(UserError, match="run"):
        squad(replace(quick, if_exists=IfExists.resume))  # of one seed, in the folder of several


def test_a_seed_gives_one_result(quick):
    squad(quick)
    squad(replace(quick, run_dir=f"{quick.run_dir}-again"))
    squad(replace(quick, run_dir=f"{quick.run_dir}-other", seed=1))
    folders = [Path(f"{quick.run_dir}{suffix}") for suffix in ("", "-again", "-other")]
    first, again, other = (load_file(folder / "model" / "model.safetensors") for folder in folders)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["qa_outputs.weight"], other["qa_outputs.weight"])


def test_random_weights_do_not_come_from_the_folder(quick, encoder_dir, tmp_path):
    """Works without weights at all, and starts elsewhere than the encoder."""
    weightless = tmp_path / "weightless"
    shutil.copytree(encoder_dir, weightless, ignore=shutil.ignore_patterns("*.safetensors"))
    result = squad(replace(quick, model_dir=str(weightless), initial_weights=InitialWeights.random, peak_lr=1e-9))
    ours = load_file(Path(quick.run_dir) / "model" / "model.safetensors")
    theirs = load_file(encoder_dir / "model.safetensors")
    name = "encoder.layer.0.attention.self.query.weight"
    assert (ours[f"bert.{name}"] - theirs[name]).abs().max() > 1e-3
    assert result["config"]["initial_weights"] == "random"
    assert not any(name.endswith(".safetensors") for name in result["inputs"])


def test_pretrained_weights_come_from_the_folder_as_fp32(quick, encoder_dir, tmp_path):
    halved = tmp_path / "bf16"
    shutil.copytree(encoder_dir, halved)
    content = json.loads((halved / "config.json").read_text())
    (halved / "config.json").write_text(json.dumps({**content, "dtype": "bfloat16"}))
    weights = {name: value.bfloat16() for name, value in load_file(halved / "model.safetensors").items()}
    save_file(weights, halved / "model.safetensors", metadata={"format": "pt"})
    squad(replace(quick, model_dir=str(halved), peak_lr=1e-9))
    ours = load_file(Path(quick.run_dir) / "model" / "model.safetensors")
    for name, value in weights.items():
        if not name.startswith("pooler"):
            assert ours[f"bert.{name}"].dtype is torch.float32
            assert torch.allclose(ours[f"bert.{name}"], value.float(), atol=1e-7)


def test_an_existing_output_is_refused_kept_or_made_anew(quick, capsys):
    result = squad(quick)
    with pytest.raises(UserError, match="if_exists=resume"):
        squad(quick)
    capsys.readouterr()
    assert squad(replace(quick, if_exists=IfExists.resume)) == result
    assert "already complete" in capsys.readouterr().out
    with pytest.raises(UserError, match="with seed=0; expected seed=5"):
        squad(replace(quick, if_exists=IfExists.resume, seed=5))
    anew = squad(replace(quick, if_exists=IfExists.restart, seed=5))
    assert anew["config"]["seed"] == 5


def test_a_restart_that_is_refused_deletes_nothing(quick):
    squad(quick)
    again = replace(quick, if_exists=IfExists.restart)
    with pytest.raises(UserError, match="64 positions"):
        squad(replace(again, max_seq_length=65))
    with pytest.raises(UserError, match="inside run_dir"):
        squad(replace(again, model_dir=f"{quick.run_dir}/model"))
    assert read(quick, "scores.json")["num_questions"] == 8
    assert (Path(quick.run_dir) / "model" / "model.safetensors").is_file()


def blank_context(content):
    content["data"][0]["paragraphs"][0]["context"] = " \u200b\n"
    content["data"][0]["paragraphs"][0]["qas"][0]["answers"] = [{"text": "\u200b", "answer_start": 1}]


def mute_question(content):
    content["data"][0]["paragraphs"][0]["qas"][0]["question"] = "\u200e"


@pytest.mark.parametrize("spoil", [blank_context, mute_question])
@pytest.mark.parametrize("which", ["train_file", "eval_file"])
def test_both_files_are_judged_before_training_and_before_an_old_result_goes(
    quick, tmp_path, monkeypatch, spoil, which
):
    squad(quick)
    scores = (Path(quick.run_dir) / "scores.json").read_text()
    content = squad_json(where_questions())
    spoil(content)
    (tmp_path / "spoilt.json").write_text(json.dumps(content))
    monkeypatch.setattr("bert_lamb.finetuning.running.train", lambda *args, **kwargs: pytest.fail("it trains"))
    with pytest.raises(UserError, match="has no tokens"):
        squad(replace(quick, if_exists=IfExists.restart, **{which: str(tmp_path / "spoilt.json")}))
    assert (Path(quick.run_dir) / "scores.json").read_text() == scores


@pytest.mark.parametrize("content", ["", "[]", "{", "version https://git-lfs.github.com/spec/v1"])
@pytest.mark.parametrize("name", ["outcome.json", "scores.json"])
def test_resume_refuses_a_damaged_output_by_its_file(quick, name, content):
    squad(quick)
    (Path(quick.run_dir) / name).write_text(content)
    with pytest.raises(UserError, match=name):
        squad(replace(quick, if_exists=IfExists.resume))


def test_questions_inside_the_output_folder_are_not_deleted(quick):
    folder = Path(quick.run_dir)
    squad(quick)
    shutil.copy(quick.eval_file, folder / "model" / "questions.json")
    with pytest.raises(UserError, match="inside run_dir"):
        squad(replace(quick, eval_file=str(folder / "model" / "questions.json"), if_exists=IfExists.restart))
    assert (folder / "model" / "questions.json").exists()


def test_much_that_the_vocabulary_lacks_is_said(quick, tmp_path, capsys):
    examples = [replace(one, question="ж ж ж ж ж ж") for one in where_questions()]
    (tmp_path / "foreign.json").write_text(json.dumps(squad_json(examples)))
    squad(replace(quick, eval_file=str(tmp_path / "foreign.json")))
    out = capsys.readouterr().out
    assert "eval: 3" in out
    assert "of the tokens are [UNK]" in out
    assert "train: 8 questions" in out
    assert "train: 3" not in out


def test_resume_refuses_other_bytes_under_the_same_name(quick, questions_file):
    squad(quick)
    questions_file.write_text(json.dumps(squad_json(where_questions()[:4])), encoding="utf-8")
    with pytest.raises(UserError, match=r"with inputs\.eval_file\.sha256="):
        squad(replace(quick, if_exists=IfExists.resume))


def test_a_run_cut_short_leaves_no_scores_and_is_made_anew_by_resume(quick, monkeypatch):
    def cut(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, "predict_logits", cut)
        with pytest.raises(KeyboardInterrupt):
            squad(quick)
    assert not (Path(quick.run_dir) / "scores.json").exists()
    assert squad(replace(quick, if_exists=IfExists.resume))["num_questions"] == 8


@pytest.mark.parametrize("if_exists", [IfExists.restart, IfExists.resume])
@pytest.mark.parametrize("names", [["thesis.txt"], ["config.yaml", "thesis.txt"], ["checkpoints"]])
def test_a_folder_of_strangers_is_never_deleted(quick, if_exists, names):
    folder = Path(quick.run_dir)
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{}")
    with pytest.raises(UserError, match=r"in the way at .* not a run"):
        squad(replace(quick, if_exists=if_exists))
    assert sorted(entry.name for entry in folder.iterdir()) == sorted(names)


def without(name: str):
    def spoil(folder: Path) -> None:
        (folder / name).unlink()

    return spoil


def without_vocabulary(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink(missing_ok=True)


def of_another_kind(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "model_type": "gpt2"}))


def with_broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def with_few_embeddings(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"] = weights["embeddings.word_embeddings.weight"][:50].clone()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "vocab_size": 50}))


def without_a_layer(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layer.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (without("config.json"), r"no file .*config\.json"),
        (without("model.safetensors"), "no .*safetensors"),
        (without_vocabulary, "no vocabulary"),
        (of_another_kind, "model_type 'gpt2'"),
        (with_broken_config, "not json"),
        (with_few_embeddings, "token ids up to .* with vocab_size=50"),
        (without_a_layer, r"without 16 weights, such as bert\.encoder\.layer\.1"),
    ],
)
def test_a_spoilt_model_folder_is_refused_and_names_its_fault(quick, encoder_dir, tmp_path, spoil, message):
    spoilt = tmp_path / "spoilt"
    shutil.copytree(encoder_dir, spoilt)
    spoil(spoilt)
    with pytest.raises(UserError, match=message):
        squad(replace(quick, model_dir=str(spoilt)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_dir": "nowhere"}, "no folder nowhere"),
        ({"eval_file": "nowhere.json"}, r"no file nowhere\.json"),
        ({"train_file": "nowhere.json"}, r"no file nowhere\.json"),
        ({"train_file": None}, "without a question-answering head"),
        ({"train_file": None, "initial_weights": InitialWeights.random}, "initial_weights=random without train_file"),
        ({"max_seq_length": 65}, "max_seq_length=65; expected at most the model's 64 positions"),
        ({"peak_lr": 1e30}, "logits that are not finite"),
    ],
)
def test_what_cannot_be_done_is_refused(quick, changes, message):
    with pytest.raises(UserError, match=message):
        squad(replace(quick, num_epochs=2.0, **changes))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(quick):
    with pytest.raises(UserError, match="device=cuda"):
        squad(replace(quick, runtime=replace(quick.runtime, device="cuda")))


def test_bf16_runs(quick):
    runtime = replace(quick.runtime, precision=Precision.bf16)
    assert squad(replace(quick, runtime=runtime))["config"]["runtime"]["precision"] == "bf16"


def test_transformers_stays_silent(quick, capfd):
    squad(quick)
    out, err = capfd.readouterr()
    assert "newly initialized" not in out + err
    assert "Loading weights" not in out + err
    assert "new question-answering head" in out
