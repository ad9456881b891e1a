"""Pretraining that starts from somebody's BERT, and `bert-lamb evaluate`.

Truths: transformers' own BertForPreTraining, row by row; a run's own held-out lines; the folder's tensors.
Breaks that turn this file red: weights that are not loaded, sizes of the recipe in place of the folder's, a vocabulary
that is not compared, a first evaluation that is left out or comes twice, padded rows that count.
"""

import json
import shutil

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import BertConfig, BertForPreTraining, BertModel

from bert_lamb.cli import main as cli
from bert_lamb.cli.compose import compose
from bert_lamb.data.batches import HeldoutBatches
from bert_lamb.errors import UserError
from bert_lamb.model.encoder import Execution
from bert_lamb.outputs.plain import to_plain
from bert_lamb.outputs.run_dir import RunDir
from bert_lamb.pretraining.admission import masking_rule
from bert_lamb.pretraining.command import pretrain
from bert_lamb.pretraining.initial_weights import read_initial_weights
from bert_lamb.pretraining.recipe import MaskingSettings
from bert_lamb.shards import open_instances
from tests.launch import run_ranks
from tests.synthetic import make_shards

VOCAB = 97  # of the shards; padded to 104 in training
SMALL = [
    "recipe=continue",
    "runtime=single",
    "phases.phase1.max_seq_length=16",
    "phases.phase1.max_predictions_per_seq=3",
    "phases.phase1.global_batch_size=16",
    "phases.phase1.total_steps=3",
    "phases.phase1.peak_lr=1e-3",
    "phases.phase2.max_seq_length=32",
    "phases.phase2.max_predictions_per_seq=5",
    "phases.phase2.global_batch_size=8",
    "phases.phase2.total_steps=2",
    "model.dropout=0.0",
    "runtime.micro_batch_size.phase1=8",
    "evaluation.micro_batch_size=16",
    "logging.trust_ratio_interval_steps=0",
]


def config(**changes):
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
    more = {"max_position_embeddings": 33, "initializer_range": 0.05, "vocab_size": VOCAB}
    return BertConfig(**{**sizes, **more, **changes})


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return make_shards(tmp_path_factory.mktemp("shards") / "s")


def make_folder(folder, shards, model):
    model.save_pretrained(folder)
    shutil.copyfile(shards / "vocab.txt", folder / "vocab.txt")
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": True}))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory, shards):
    torch.manual_seed(3)
    return make_folder(tmp_path_factory.mktemp("model") / "bert", shards, BertForPreTraining(config()))


def run(folder, shards, run_dir, *overrides):
    words = [*SMALL, f"initial_weights={folder}", f"shards={shards}", f"run_dir={run_dir}", *overrides]
    pretrain(compose("pretrain", words))
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def continued(folder, shards, tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("runs") / "run"
    return run_dir, run(folder, shards, run_dir)


def heldout(records):
    return [(one["phase"], one["step"]) for one in records if one["kind"] == "heldout"]


def figures(capsys, *words):
    assert cli.main(["evaluate", "device=cpu", *words]) == 0
    return json.loads(capsys.readouterr().out)


def by_transformers(folder, shards, max_seq_length, max_predictions):
    """(masked-LM loss, accuracy, NSP loss, accuracy) over the held-out rows, each a batch of its own."""
    model = BertForPreTraining.from_pretrained(folder).eval()
    instances = open_instances(shards, max_seq_length=max_seq_length, split="heldout")
    rule = masking_rule(instances, MaskingSettings(0.15, 0.8, 0.1, 0, False), max_predictions)
    rows = HeldoutBatches(instances, rule=rule, seed=42, max_instances=10**6)
    losses, hits, nsp_losses, nsp_hits = [], [], [], []
    for row, _ in rows.of_rank(rank=0, world_size=1, micro_batch_size=1):
        with torch.no_grad():
            output = model(input_ids=row.input_ids[None], token_type_ids=row.token_type_ids[None])
        logits = output.prediction_logits[0, row.masked_positions]
        losses.append(cross_entropy(logits, row.masked_labels, reduction="none"))
        hits.append(logits.argmax(-1) == row.masked_labels)
        nsp_losses.append(cross_entropy(output.seq_relationship_logits, row.sentence_labels))
        nsp_hits.append(output.seq_relationship_logits.argmax(-1) == row.sentence_labels)
    means = (torch.cat(losses), torch.cat(hits).float(), torch.stack(nsp_losses), torch.cat(nsp_hits).float())
    return [float(values.mean()) for values in means]


NAMES = ("mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy")


def test_evaluate_equals_transformers(folder, shards, capsys):
    found = figures(capsys, f"model_dir={folder}", f"shards={shards}", "micro_batch_size=7")
    assert list(found["by_length"]) == ["16", "32"]
    for length, max_predictions in ((16, 2), (32, 5)):  # 15 % of the length
        of_length = found["by_length"][str(length)]
        expected = by_transformers(folder, shards, length, max_predictions)
        assert [of_length[name] for name in NAMES] == pytest.approx(expected, rel=1e-5)
        assert of_length["num_instances"] == 40


def test_a_run_begins_with_the_weights_of_the_folder(folder, shards, continued, capsys):
    """The first line says what `evaluate` says of the folder, and that is before any step."""
    run_dir, records = continued
    assert heldout(records) == [("phase1", 0), ("phase1", 3), ("phase2", 2)]
    first = next(one for one in records if one["kind"] == "heldout")
    words = ["max_seq_length=16", "max_predictions_per_seq=3"]
    of_folder = figures(capsys, f"model_dir={folder}", f"shards={shards}", *words)["by_length"]["16"]
    # The rows that pad the vocabulary in training have logits too, seven of 104 at first.
    assert first["mlm_loss"] == pytest.approx(of_folder["mlm_loss"], abs=0.08)
    assert first["mlm_loss"] > of_folder["mlm_loss"]
    for name in ("nsp_loss", "nsp_accuracy", "num_instances"):
        assert first[name] == pytest.approx(of_folder[name], rel=1e-5)
    sizes = compose("pretrain", [*SMALL, "initial_weights=x", "shards=s", "run_dir=r"]).model
    assert to_plain(sizes)["hidden_size"] == 768  # the recipe's, which nobody took
    written = (run_dir / "config.yaml").read_text()
    for line in ("hidden_size: 24", "num_layers: 2", "num_heads: 3", "intermediate_size: 40"):
        assert line in written
    assert "max_position_embeddings: 33" in written
    assert "init_std: 0.05" in written


def test_without_padding_the_first_line_is_the_folders_to_rounding(folder, shards, tmp_path, capsys):
    records = run(folder, shards, tmp_path / "run", "model.vocab_size_multiple=1", "~phases.phase2")
    first, last = (one for one in records if one["kind"] == "heldout")
    words = [f"shards={shards}", "max_seq_length=16", "max_predictions_per_seq=3"]
    of_folder = figures(capsys, f"model_dir={folder}", *words)["by_length"]["16"]
    of_run = figures(capsys, f"model_dir={tmp_path / 'run'}", *words)["by_length"]["16"]
    checkpoint = RunDir(tmp_path / "run").checkpoint("latest")
    assert figures(capsys, f"model_dir={checkpoint}", *words)["by_length"]["16"] == of_run
    for line, found in ((first, of_folder), (last, of_run)):
        for name in (*NAMES, "unigram_cross_entropy"):
            assert line[name] == pytest.approx(found[name], rel=1e-5), name
    assert last["mlm_loss"] != pytest.approx(first["mlm_loss"], rel=1e-4)
    # An export of it begins where it ended.
    assert cli.main(["export", f"run_dir={tmp_path / 'run'}", f"output_dir={tmp_path / 'export'}"]) == 0
    again = run(tmp_path / "export", shards, tmp_path / "again", "model.vocab_size_multiple=1", "~phases.phase2")
    began = next(one for one in again if one["kind"] == "heldout")
    for name in NAMES:
        assert began[name] == pytest.approx(last[name], rel=1e-5)


def test_the_report_says_what_was_gained(continued, capsys):
    run_dir, records = continued
    first = next(one for one in records if one["kind"] == "heldout")
    assert cli.main(["report", f"run_dir={run_dir}"]) == 0
    content = json.loads((run_dir / "report.json").read_text())
    assert [row["mlm_loss_before"] for row in content["heldout"]] == [first["mlm_loss"], None]
    assert f"and {first['mlm_loss']:.3f} before the first step of phase1" in " ".join(content["sentences"])


def test_resuming_knows_the_folder_by_its_bytes(folder, shards, continued, tmp_path):
    run_dir, records = continued
    assert heldout(run(folder, shards, run_dir, "if_exists=resume")) == heldout(records)
    other = make_folder(tmp_path / "other", shards, BertForPreTraining(config()))
    with pytest.raises(UserError, match="initial_weights"):
        run(other, shards, run_dir, "if_exists=resume")


def test_missing_heads_are_drawn_and_named(folder, shards, tmp_path, capsys):
    encoder = make_folder(tmp_path / "encoder", shards, BertModel(config(), add_pooling_layer=False))
    initial = read_initial_weights(encoder)
    assert {name.rsplit(".", 1)[0] for name in initial.pretrained.missing} == {
        "bert.pooler.dense",
        "cls.predictions",  # its bias
        "cls.predictions.transform.dense",
        "cls.predictions.transform.LayerNorm",
        "cls.seq_relationship",
    }
    run(encoder, shards, tmp_path / "run", "~phases.phase2", "phases.phase1.total_steps=2")
    said = capsys.readouterr()
    assert "drawn from the seed: bert.pooler.dense.bias, bert.pooler.dense.weight, cls.predictions.bias" in said.err
    assert cli.main(["evaluate", f"model_dir={encoder}", f"shards={shards}"]) == 2
    assert "without cls.predictions.bias; expected a model with its masked-LM head" in capsys.readouterr().err


def test_every_weight_of_the_folder_is_taken_and_the_padding_stays_drawn(folder, shards):
    """Against the tensors of transformers' own reading."""
    from bert_lamb.model.bert import BertPretrainingModel, bert_config

    initial = read_initial_weights(folder)
    sizes = {"vocab_size": VOCAB, "vocab_size_multiple": 8, "dropout": 0.0, "pad_token_id": 0}
    model = BertPretrainingModel(bert_config(**initial.sizes(), **sizes), seed=1, execution=Execution())
    drawn = {name: weight.detach().clone() for name, weight in model.bert.named_parameters()}
    initial.load_into(model)
    theirs = dict(BertForPreTraining.from_pretrained(folder).named_parameters())
    for name, weight in model.bert.named_parameters():
        rows = len(theirs[name])
        assert torch.equal(weight[:rows], theirs[name]), name
        assert torch.equal(weight[rows:], drawn[name][rows:]), name
        assert len(weight) - rows == (7 if name.endswith(("word_embeddings.weight", "cls.predictions.bias")) else 0)


def swapped(file):
    entries = file.read_text().splitlines()
    entries[40], entries[41] = entries[41], entries[40]
    file.write_text("\n".join(entries) + "\n")


@pytest.mark.parametrize(
    ("spoil", "words", "message"),
    [
        (lambda f: swapped(f / "vocab.txt"), [], r"97 entries \(sha256 \w{12}...\) with the weights and one of 97 \("),
        (lambda f: swapped(f / "vocab.txt"), [], "differ from id 40 on; expected one vocabulary"),
        (
            lambda f: (f / "tokenizer_config.json").write_text('{"do_lower_case": false}'),
            [],
            "do_lower_case=false|no capital letter",
        ),
        (lambda f: None, ["phases.phase2.max_seq_length=64"], "max_seq_length=64; expected at most the 33 positions"),
        (lambda f: edit(f, hidden_act="relu"), [], "hidden_act='relu' in the config.json of .* expected 'gelu'"),
        (lambda f: edit(f, layer_norm_eps=1e-5), [], "layer_norm_eps=1e-05"),
        (lambda f: (f / "model.safetensors").unlink(), [], "no model.safetensors|without"),
        (lambda f: shutil.rmtree(f), [], "no folder .*; expected a model's folder on this machine; fix: set initial_w"),
    ],
)
def test_what_it_cannot_start_from_is_refused_before_anything_is_written(folder, tmp_path, spoil, words, message):
    copy = shutil.copytree(folder, tmp_path / "copy")
    spoil(copy)
    longer = make_shards(tmp_path / "s", max_seq_lengths=(16, 32, 64), num_train=20, num_heldout=5)
    with pytest.raises(UserError, match=message):
        run(copy, longer, tmp_path / "run", *words)
    assert not (tmp_path / "run").exists()


def edit(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["split=test"], "found split=test; expected train or heldout"),
        (["max_seq_length=99"], "99"),
        (["micro_batch_size=0"], "found micro_batch_size=0"),
        (["model_dir=/nowhere"], "found no folder /nowhere"),
        (["shards=/nowhere"], "/nowhere"),
    ],
)
def test_evaluate_refuses_in_a_line(folder, shards, capsys, words, message):
    assert cli.main(["evaluate", f"model_dir={folder}", f"shards={shards}", *words]) in (1, 2)
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


@pytest.mark.slow  # a launch of two ranks in ZeRO 3; ranks and stages have their own tests
def test_ranks_start_from_the_same_weights(folder, shards, continued, tmp_path):
    """Two ranks in ZeRO stage 3: the held-out lines and losses of one process."""
    words = [*SMALL, f"initial_weights={folder}", f"shards={shards}", f"run_dir={tmp_path / 'run'}"]
    words += ["runtime.engine=deepspeed", "runtime.zero_stage=3", "runtime.device=cpu"]
    finished = run_ranks(2, "-m", "bert_lamb", "pretrain", *words)
    assert finished.returncode == 0, finished.stdout[-3000:]
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    expected = [one for one in continued[1] if one["kind"] in ("heldout", "step")]
    found = [one for one in records if one["kind"] in ("heldout", "step")]
    assert [(one["kind"], one["step"]) for one in found] == [(one["kind"], one["step"]) for one in expected]
    for ours, theirs in zip(found, expected, strict=True):
        for name in ("loss", *NAMES[:3]):
            if name in theirs:
                assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-6), (ours, name)
