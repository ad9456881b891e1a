"""`bert-lamb export`: a run's weights arrive under transformers' names, and a damaged run is refused.

Truth: the parameters of the model that was saved.
"""

import hashlib
import json
import os
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, BertForPreTraining, pipeline

from bert_lamb.checkpoint.export import export
from bert_lamb.checkpoint.meta import sealed
from bert_lamb.checkpoint.position import Position
from bert_lamb.checkpoint.writing import save_checkpoint
from bert_lamb.engine.protocol import Fragment
from bert_lamb.errors import UserError
from bert_lamb.model.bert import BertPretrainingModel, bert_config
from bert_lamb.shards.manifest import Vocabulary
from tests.synthetic import make_shards

ENTRIES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef"]
SIZES = {
    "num_layers": 1,
    "hidden_size": 8,
    "num_heads": 2,
    "intermediate_size": 16,
    "dropout": 0.0,
    "max_position_embeddings": 16,
    "init_std": 0.02,
    "vocab_size_multiple": 8,
}
SAVE = BertForPreTraining.save_pretrained


class OneRank:
    """As much of an Engine as saving needs."""

    rank, world_size = 0, 1

    def __init__(self, parameters):
        self.parameters = parameters
        self.shapes, self.buffers = {name: value.shape for name, value in parameters.items()}, {}

    def barrier(self):
        pass

    def owned_fragments(self):
        for name, value in self.parameters.items():
            yield Fragment(name, 0, {"weight": value.detach().flatten()})


@pytest.fixture(scope="module")
def parameters():
    model = BertPretrainingModel(bert_config(vocab_size=len(ENTRIES), pad_token_id=0, **SIZES), seed=5)
    return dict(model.named_parameters())


@pytest.fixture(scope="module")
def finished(tmp_path_factory, parameters) -> Path:
    """A run with two checkpoints, as pretraining leaves it."""
    run = tmp_path_factory.mktemp("export") / "run"
    run.mkdir()
    vocabulary = "".join(f"{entry}\n" for entry in ENTRIES)
    (run / "vocab.txt").write_text(vocabulary)
    (run / "config.yaml").write_text(yaml.safe_dump({"model": SIZES, "seed": 5}))
    (run / "outcome.json").write_text(json.dumps({"seed": 5}))
    sha256 = hashlib.sha256(vocabulary.encode()).hexdigest()
    about = asdict(
        Vocabulary("vocab.txt", sha256, len(ENTRIES), True, pad_id=0, unk_id=1, cls_id=2, sep_id=3, mask_id=4)
    )
    for step in (3, 7):
        save(run, step, {name: value * (step / 7) for name, value in parameters.items()}, about)
    return run


def save(run, step, parameters, vocabulary):
    save_checkpoint(
        OneRank(parameters),
        run / "checkpoints" / f"phase1-{step:07d}",
        position=Position("phase1", step, step),
        about={"total_step": step, "vocabulary": vocabulary},
    )


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def of(run: Path, **changes):
    export(
        **{"run_dir": run, "checkpoint": "latest", "output_dir": run.parent / "out", "if_exists": "refuse", **changes}
    )
    return run.parent / "out"


def test_the_weights_arrive_and_the_padding_of_the_vocabulary_goes(run, parameters):
    model = BertForPreTraining.from_pretrained(of(run))
    found = dict(model.named_parameters())
    for name, value in parameters.items():
        wanted = value[: len(ENTRIES)] if value.shape[0] == 16 and "word_embeddings" in name else value
        if "predictions" not in name:
            assert torch.equal(found[name.removeprefix("bert.")], wanted), name
    assert model.config.vocab_size == len(AutoTokenizer.from_pretrained(run.parent / "out")) == len(ENTRIES)


def test_the_export_works_in_a_pipeline_and_as_a_masked_lm(run, parameters):
    """Truth: the best entry by transformers' own forward pass on the parameters of the run."""
    folder = str(of(run))
    ids = torch.tensor([[2, 5, 4, 3]])  # [CLS] a [MASK] [SEP]
    model = BertForPreTraining(bert_config(vocab_size=len(ENTRIES), pad_token_id=0, **SIZES)).eval()
    model.load_state_dict({name.removeprefix("bert."): value for name, value in parameters.items()}, strict=False)
    model.tie_weights()
    with torch.no_grad():
        wanted = model(ids).prediction_logits[0, 2, : len(ENTRIES)]
        found = AutoModelForMaskedLM.from_pretrained(folder).eval()(ids).logits[0, 2]
    assert torch.allclose(found, wanted, atol=1e-6)
    best = pipeline("fill-mask", model=folder, tokenizer=folder)("a [MASK]", top_k=1)
    assert best[0]["token"] == int(wanted.argmax())
    assert AutoModel.from_pretrained(folder).config.hidden_size == 8


def off_by_a_percent(model, folder):
    SAVE(model, folder)
    weights = load_file(folder / "model.safetensors")
    weights["bert.encoder.layer.0.output.dense.weight"][0] *= 1.01
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def without_a_weight(model, folder):
    SAVE(model, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["cls.seq_relationship.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("save", [off_by_a_percent, without_a_weight])
def test_an_export_that_computes_something_else_is_never_complete(run, monkeypatch, save):
    monkeypatch.setattr(BertForPreTraining, "save_pretrained", save)
    with pytest.raises(UserError, match="logits of the export that differ from the trained model's by"):
        of(run)
    assert not (run.parent / "out").exists()
    monkeypatch.undo()
    assert (of(run, if_exists="resume") / "bert_lamb_export.json").is_file()


@pytest.mark.parametrize(("is_lowercase", "casing"), [(True, "lower-cased"), (False, "cased")])
def test_the_model_card_says_what_was_exported(run, is_lowercase, casing):
    """The configuration as it was written, with what means something to Jinja and HTML."""
    config = {"model": SIZES, "note": "<b>&{{ 1 }}'"}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    vocabulary = json.loads((last(run) / "checkpoint.json").read_text())["vocabulary"]
    edit(last(run) / "checkpoint.json", total_step=12345, vocabulary={**vocabulary, "is_lowercase": is_lowercase})
    text = (of(run) / "README.md").read_text(encoding="utf-8")
    assert yaml.safe_load(text.split("---\n")[1]) == {"library_name": "transformers", "pipeline_tag": "fill-mask"}
    assert re.findall(r"^\| (.*) \| (.*) \|$", text, re.MULTILINE) == [
        ("layers, hidden size, heads", "1, 8, 2"),
        ("vocabulary", f"11 WordPieces, {casing}"),
        ("checkpoint", "after step 7 of phase1 (12,345 steps in all)"),
    ]
    (block,) = re.findall(r"```yaml\n(.*?)\n```\n\Z", text, re.DOTALL)
    assert yaml.safe_load(block) == config


def test_the_model_card_tells_of_training_and_scores(run):
    """Up to the exported checkpoint and not beyond: phases, held-out figures, text; what is missing is left out."""
    phase = {
        "max_seq_length": 128,
        "global_batch_size": 4096,
        "total_steps": 9,
        "peak_lr": 0.01,
        "warmup_proportion": 0.2,
    }
    phases = {"phase1": phase, "phase2": {**phase, "max_seq_length": 512}}
    shards = run.parent / "shards-of-a-river"
    make_shards(shards, num_train=20, num_heldout=4)
    config = {"model": SIZES, "phases": phases, "optimizer": {"name": "lamb"}, "shards": str(shards)}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    heldout = {"kind": "heldout", "phase": "phase1", "mlm_accuracy": 0.5, "num_instances": 1234}
    lines = [
        {**heldout, "step": 5, "mlm_loss": 4.0, "unigram_cross_entropy": 7.25},
        {**heldout, "step": 7, "mlm_loss": 3.125, "unigram_cross_entropy": 7.25},
        {**heldout, "step": 7, "mlm_loss": "3"},
        {**heldout, "step": None, "mlm_loss": 9.0},
        {**heldout, "step": 8, "mlm_loss": 2.0, "unigram_cross_entropy": 7.25},
        {**heldout, "step": 1, "mlm_loss": 1.0, "phase": "phase2"},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "hel')
    text = (of(run) / "README.md").read_text(encoding="utf-8")
    assert "| phase1 | 128 | 4,096 | 7 of 9 | 0.01 | 0.2 |" in text
    assert "| phase2 |" not in text
    assert "Optimizer: lamb." in text
    assert "On 1,234 held-out instances of phase1, after step 7:" in text
    assert "| masked-LM loss, nats | accuracy of masked tokens | loss of guessing by frequency |\n" in text
    assert "| 3.125 | 0.500 | 7.250 |" in text
    assert "| source of shards-of-a-river | documents | licence |" in text
    assert "| synthetic | 24 | none |" in text
    assert "no capitals" in text
    shutil.rmtree(shards)
    phase["peak_lr"] = "0.01"  # by hand
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    text = (of(run, if_exists="restart") / "README.md").read_text(encoding="utf-8")
    assert "## Text" not in text
    assert "## Training" not in text
    assert "| 3.125 |" in text


@pytest.mark.slow
def test_onnx_computes_what_the_export_computes(run, parameters):
    """Truth: transformers' forward pass on the exported folder, on sentences of other lengths than were converted."""
    session = pytest.importorskip("onnxruntime").InferenceSession(of(run, with_onnx=True) / "model.onnx")
    model = BertForPreTraining.from_pretrained(run.parent / "out").eval()
    ids = torch.tensor([[2, 5, 4, 7, 3], [2, 6, 3, 0, 0]])
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long(), "token_type_ids": torch.zeros_like(ids)}
    with torch.no_grad():
        wanted = model(**batch)
    found = session.run(None, {name: value.numpy() for name, value in batch.items()})
    assert torch.allclose(torch.tensor(found[0])[batch["attention_mask"] > 0], wanted[0][ids > 0], atol=1e-6)
    assert torch.allclose(torch.tensor(found[1]), wanted[1], atol=1e-6)
    with pytest.raises(UserError, match="onnx"):
        of(run, if_exists="resume")  # another export than the one that is there


@pytest.mark.slow
def test_onnx_that_computes_something_else_is_refused(run, monkeypatch):
    runtime = pytest.importorskip("onnxruntime")
    original = runtime.InferenceSession

    class Session:
        def __init__(self, file):
            self.session = original(file)

        def run(self, names, batch):
            return self.session.run(names, {**batch, "input_ids": 10 - batch["input_ids"]})  # other tokens

    monkeypatch.setattr(runtime, "InferenceSession", Session)
    with pytest.raises(UserError, match=r"of model.onnx that differ"):
        of(run, with_onnx=True)
    assert not (run.parent / "out").exists()


def test_onnx_without_its_libraries_is_a_line(run, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="onnx=true without onnx, onnxscript, onnxruntime; expected the extra onnx"):
        of(run, with_onnx=True)
    assert not (run.parent / "out").exists()


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_have_the_rights_of_new_files(run, umask):
    before = os.umask(umask)
    try:
        folder = of(run)
    finally:
        os.umask(before)
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o666 & ~umask}


def last(run: Path) -> Path:
    return run / "checkpoints" / "phase1-0000007"


def edit(file: Path, **changes) -> None:
    file.write_text(json.dumps(sealed({**json.loads(file.read_text()), **changes})))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def with_weights(change):
    def spoil(run: Path) -> None:
        meta = json.loads((last(run) / "checkpoint.json").read_text())
        model = BertPretrainingModel(bert_config(vocab_size=len(ENTRIES), pad_token_id=0, **SIZES), seed=5)
        save(run, 7, change(dict(model.named_parameters())), meta["vocabulary"])

    return spoil


def with_nan(parameters):
    name = "bert.bert.encoder.layer.0.output.dense.weight"
    return {**parameters, name: parameters[name].detach().clone().fill_(torch.nan)}


def configured(**changes):
    return lambda run: (run / "config.yaml").write_text(yaml.safe_dump({"model": {**SIZES, **changes}}))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "no folder .*run; expected the folder of a run"),
        (lambda r: (r / "outcome.json").unlink(), r"no outcome\.json in .*run"),
        (lambda r: (r / "outcome.json").write_text("{"), r"outcome\.json that cannot be read"),
        (lambda r: (r / "outcome.json").write_text("[]"), r"outcome\.json with list"),
        (lambda r: (r / "config.yaml").unlink(), r"config\.yaml that cannot be read"),
        (lambda r: (r / "config.yaml").write_text("a: [1"), r"config\.yaml that cannot be read"),
        (lambda r: (r / "config.yaml").write_bytes(b"\xff\xfe"), r"config\.yaml that cannot be read"),
        (lambda r: (r / "config.yaml").write_text("seed: 5"), r"model=None in .*config\.yaml"),
        (configured(colour="red"), r"model=.* in .*config\.yaml"),
        (configured(num_heads="two"), r"model=.*two.* in .*config\.yaml"),
        (configured(num_heads=3), r"model=.* in .*config\.yaml"),
        (
            configured(hidden_size=16),
            r"of size .* in .*phase1-0000007; expected .*, by the model of the run's config\.yaml",
        ),
        (configured(num_layers=2), r"encoder\.layer\.1.* of size none"),
        (configured(num_layers=0), r"model=.* in .*config\.yaml"),
        (configured(dropout=None), r"model=.* in .*config\.yaml"),
        (lambda r: (r / "vocab.txt").unlink(), r"no .*vocab\.txt"),
        (lambda r: (r / "vocab.txt").write_text("[PAD]\n"), r"another .*vocab\.txt than the run started with"),
        (lambda r: shutil.rmtree(r / "checkpoints"), r"no checkpoint 'latest' in .* expected one of \(none yet\)"),
        (lambda r: (last(r) / "checkpoint.json").write_text("{"), r"no readable checkpoint\.json in .*0000007"),
        (lambda r: (last(r) / "checkpoint.json").write_text("[]"), r"no readable checkpoint\.json in .*0000007"),
        (lambda r: edit(last(r) / "checkpoint.json", total_step="7"), r"no readable checkpoint\.json in .*0000007"),
        (lambda r: edit(last(r) / "checkpoint.json", vocabulary=None), "without a sound vocabulary"),
        (lambda r: edit(last(r) / "checkpoint.json", vocabulary={"size": 11}), "without a sound vocabulary"),
        (lambda r: (last(r) / "rank-00000-of-00001.safetensors").write_bytes(b""), "0 bytes at .*rank-00000"),
        (lambda r: flip(last(r) / "rank-00000-of-00001.safetensors"), "other bytes in .*rank-00000"),
        (with_weights(with_nan), r"encoder\.layer\.0\.output\.dense\.weight with values that are not finite"),
        (
            with_weights(lambda p: {n: v for n, v in p.items() if "pooler" not in n}),
            r"pooler\.dense\.bias of size none",
        ),
    ],
)
def test_a_damaged_run_is_refused_before_the_old_export_goes(run, spoil, message):
    out = of(run, checkpoint="phase1-0000003")
    before = sorted(path.name for path in out.iterdir())
    spoil(run)
    with pytest.raises(UserError, match=message) as refusal:
        of(run, if_exists="restart")
    assert "\n" not in str(refusal.value)
    assert sorted(path.name for path in out.iterdir()) == before


def test_a_damaged_neighbor_does_not_stand_in_the_way(run):
    (last(run) / "checkpoint.json").write_text("{")
    assert (of(run, checkpoint="phase1-0000003") / "model.safetensors").is_file()


def test_a_checkpoint_given_as_the_run_says_what_to_set(run):
    with pytest.raises(UserError, match=rf"fix: set run_dir={run} checkpoint=phase1-0000007"):
        of(last(run))


def test_restart_replaces_an_export_and_nothing_else(run):
    out = of(run, checkpoint="phase1-0000003")
    assert (
        json.loads((of(run, if_exists="restart") / "bert_lamb_export.json").read_text())["checkpoint"] == last(run).name
    )
    (out / "bert_lamb_export.json").unlink()
    for if_exists in ("restart", "resume", "refuse"):
        with pytest.raises(UserError, match=r"something else in the way .* not an export"):
            of(run, if_exists=if_exists)
    (out / "bert_lamb_export.json").write_text("{")
    with pytest.raises(UserError, match=r"something else in the way .* not an export"):
        of(run, if_exists="resume")


@pytest.mark.parametrize(("mark", "command"), [("inputs", "squad"), ("files", "glue")])
def test_the_run_of_a_fine_tuning_says_where_its_model_is(run, mark, command):
    (run / "outcome.json").write_text(json.dumps({mark: {}}))
    with pytest.raises(UserError, match=rf"a run of `bert-lamb {command}` in .*fix: use {run}/model"):
        of(run)
