"""`bert-lamb import`: the model that transformers loads from the folder computes what the original computed.

Truth: for TensorFlow, the forward pass in numpy by Google's names (tests/oracles/google_bert.py); for files of PyTorch,
the model whose weights were written, under the names that the other trainer gives them.
"""

import argparse
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForPreTraining, pipeline

from bert_lamb.checkpoint.folder.pretrained import read_pretrained
from bert_lamb.checkpoint.importing.command import import_checkpoint
from bert_lamb.errors import UserError
from tests.checkpoint.importing.google.make_checkpoint import CONFIG, ENTRIES, values
from tests.oracles import google_bert

GOOGLE = Path(__file__).parent / "google"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 1000\n"
DATA_FILE = "bert_model.ckpt.data-00000-of-00001"
IDS = torch.tensor([[3, 9, 5, 30, 4, 12, 4], [3, 40, 39, 2, 4, 5, 4]])
TYPES = torch.tensor([[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 1, 1]])


def imported(source: Path, output_dir: Path, **changes) -> Path:
    given = {"config_file": None, "vocabulary_file": None, "is_lowercase": None, "if_exists": "refuse", **changes}
    import_checkpoint(source=source, output_dir=output_dir, **given)
    return output_dir


def logits(model: BertForPreTraining) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        out = model.eval()(input_ids=IDS, token_type_ids=TYPES)
    return out.prediction_logits, out.seq_relationship_logits


@pytest.fixture
def google(tmp_path) -> Path:
    """Google's folder, as it is unpacked."""
    folder = tmp_path / "cased_L-1"
    folder.mkdir()
    for file in GOOGLE.glob("bert_model.ckpt.*"):
        shutil.copy(file, folder)
    for name in ("bert_config.json", "vocab.txt"):
        shutil.copy(GOOGLE / name, folder)
    return folder


@pytest.fixture(scope="module")
def model() -> BertForPreTraining:
    torch.manual_seed(7)
    model = BertForPreTraining(BertConfig(**{**CONFIG, "num_hidden_layers": 2}, pad_token_id=0))
    for parameter in model.parameters():  # biases and LayerNorm too, which are drawn as 0 and 1
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("name", ["", "bert_model.ckpt", "bert_model.ckpt.index", DATA_FILE])
def test_googles_checkpoint_computes_what_its_variables_say(google, tmp_path, capsys, name):
    """float64 against fp32, one layer with logits up to 10: a few units in the last place."""
    folder = imported(google / name, tmp_path / "out")
    words, pairs = google_bert.logits(values(), CONFIG, IDS.numpy(), TYPES.numpy())
    ours = logits(BertForPreTraining.from_pretrained(folder))
    assert np.abs(ours[0].numpy() - words).max() < 2e-5
    assert np.abs(ours[1].numpy() - pairs).max() < 2e-5
    assert "1 layers, hidden size 12; with pooler, masked LM, sentence task\n" in capsys.readouterr().out
    pieces = AutoTokenizer.from_pretrained(folder)("Ab ca")["input_ids"]
    assert pieces == [3, *(ENTRIES.index(one) for one in ("a", "##b", "c", "##a")), 4]


def test_the_card_names_the_original_with_its_hashes(google, tmp_path):
    text = (imported(google, tmp_path / "out") / "README.md").read_text(encoding="utf-8")
    assert "# cased_L-1, converted by bert_lamb" in text
    for name in ("bert_model.ckpt.data-00000-of-00001", "bert_config.json", "vocab.txt"):
        assert f"| {name} | {hashlib.sha256((google / name).read_bytes()).hexdigest()} |" in text


def renamed(state: dict[str, torch.Tensor], *changes: tuple[str, str]) -> dict[str, torch.Tensor]:
    names = {}
    for name in state:
        new = name
        for old, replacement in changes:
            new = new.replace(old, replacement)
        names[name] = new
    return {names[name]: value for name, value in state.items()}


def nvidia(state):
    """dense_act where an activation follows, and a vocabulary padded to a multiple of 8 (41 -> 48)."""
    state = {name: value for name, value in state.items() if name != "cls.predictions.decoder.bias"}
    state = renamed(
        state,
        ("intermediate.dense.", "intermediate.dense_act."),
        ("pooler.dense.", "pooler.dense_act."),
        ("transform.dense.", "transform.dense_act."),
    )
    for name in ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias", "cls.predictions.decoder.weight"):
        state[name] = torch.cat([state[name], torch.full((7, *state[name].shape[1:]), 9.0)])
    return state


def of_kernel(state):
    """DeepSpeedTransformerLayer's names; query, key and value are one matrix."""
    state = nvidia(state)
    for i in range(2):
        layer = f"bert.encoder.layer.{i}"
        for new, old in (("attn_qkvw", "weight"), ("attn_qkvb", "bias")):
            parts = [state.pop(f"{layer}.attention.self.{part}.{old}") for part in ("query", "key", "value")]
            state[f"{layer}.{new}"] = torch.cat(parts)
        for new, old in (
            ("attn_o", "attention.output.dense"),
            ("attn_n", "attention.output.LayerNorm"),
            ("inter_", "intermediate.dense_act"),
            ("output_", "output.dense"),
            ("norm_", "output.LayerNorm"),
        ):
            state[f"{layer}.{new}w"] = state.pop(f"{layer}.{old}.weight")
            state[f"{layer}.{new}b"] = state.pop(f"{layer}.{old}.bias")
    return state


def wrapped(state):
    return {f"module.{name}": value for name, value in state.items()}


def as_nvidia_saves(state):
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 6e-3, "params": [0]}]}
    return {
        "model": state,
        "optimizer": optimizer,
        "master params": [torch.ones(2)],
        "files": [0, "a.hdf5"],
        "epoch": 2,
    }


def as_deepspeed_saves(state):
    arguments = argparse.Namespace(seed=42, betas=(0.9, 0.999))
    return {
        "module": state,
        "optimizer": None,
        "args": arguments,
        "global_steps": 5,
        "ds_version": "0.3",
        "dp_world_size": 4,
    }


@pytest.mark.parametrize(
    ("file_name", "content"),
    [
        ("pytorch_model.bin", lambda state: state),
        ("ckpt_8601.pt", lambda state: as_nvidia_saves(nvidia(state))),
        ("ckpt_8601.pt", lambda state: as_nvidia_saves(wrapped(nvidia(state)))),
        ("mp_rank_00_model_states.pt", lambda state: as_deepspeed_saves(nvidia(state))),
        ("mp_rank_00_model_states.pt", lambda state: as_deepspeed_saves(wrapped(of_kernel(state)))),
        ("lightning.ckpt", lambda state: {"state_dict": state, "epoch": 1}),
        ("weights.pt", lambda state: nvidia(state)),
    ],
)
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_file_of_torch_gives_the_logits_of_the_model(model, tmp_path, file_name, content, is_zip):
    """Bit for bit: the same weights in the same code."""
    source = tmp_path / "source"
    source.mkdir()
    torch.save(content(model.state_dict()), source / file_name, _use_new_zipfile_serialization=is_zip)
    (source / "bert_config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 2}))
    shutil.copy(GOOGLE / "vocab.txt", source)
    folder = imported(source / file_name, tmp_path / "out")
    theirs = BertForPreTraining.from_pretrained(folder)
    assert theirs.config.vocab_size == len(ENTRIES)
    for ours, wanted in zip(logits(theirs), logits(model), strict=True):
        assert torch.equal(ours, wanted)


def test_a_deepspeed_checkpoint_is_found_by_its_folder(model, tmp_path):
    for folder in (tmp_path / "run" / "step5",):
        folder.mkdir(parents=True)
        torch.save(as_deepspeed_saves(model.state_dict()), folder / "mp_rank_00_model_states.pt")
        (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 2}))
        shutil.copy(GOOGLE / "vocab.txt", folder)
    (tmp_path / "run" / "latest").write_text("step5")
    for source in (tmp_path / "run", tmp_path / "run" / "step5"):
        found = read_pretrained(imported(source, tmp_path / "out", if_exists="restart"))
        assert found.missing == []


def test_a_deepspeed_checkpoint_of_stage_3_says_how_to_join_it(tmp_path):
    (tmp_path / "zero_pp_rank_0_mp_rank_00_model_states.pt").touch()
    with pytest.raises(UserError, match=r"zero_pp_rank_0_.*stage 3 of ZeRO .*zero_to_fp32\.py"):
        imported(tmp_path, tmp_path / "out")


def test_heads_that_are_not_there_are_not_made_up(model, google, tmp_path, capsys):
    """An encoder without pooler and an MLM head: what is there arrives, and the class of transformers fits."""
    state = {name: value for name, value in model.state_dict().items() if "pooler" not in name and "seq" not in name}
    state["qa_outputs.weight"] = torch.zeros(2, 12)
    torch.save(state, tmp_path / "w.pt")
    config = tmp_path / "sizes.json"
    config.write_text(json.dumps({**CONFIG, "num_hidden_layers": 2}))
    folder = imported(tmp_path / "w.pt", tmp_path / "out", config_file=config, vocabulary_file=google / "vocab.txt")
    said = capsys.readouterr().out
    assert "with masked LM; without pooler, sentence task; not taken: qa_outputs" in said
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["BertForMaskedLM"]
    found = read_pretrained(folder)
    assert {name.split(".")[1] for name in found.missing} == {"pooler", "seq_relationship"}
    with torch.no_grad():
        ours = AutoModelForMaskedLM.from_pretrained(folder).eval()(input_ids=IDS, token_type_ids=TYPES).logits
    assert torch.equal(ours, logits(model)[0])


def test_the_folder_works_in_a_pipeline(google, tmp_path):
    folder = str(imported(google, tmp_path / "out"))
    fill = pipeline("fill-mask", model=folder, tokenizer=folder)
    words, _ = google_bert.logits(values(), CONFIG, np.array([[3, 6, 5, 4]]), np.zeros((1, 4), int))
    assert fill("a [MASK]", top_k=1)[0]["token"] == words[0, 2].argmax()
    assert AutoModel.from_pretrained(folder).config.hidden_size == 12


def saved(content):
    return lambda folder: torch.save(content, folder / "w.pt")


def cut(folder: Path) -> None:
    torch.save({"a": torch.ones(1000)}, folder / "w.pt")
    file = folder / "w.pt"
    file.write_bytes(file.read_bytes()[:-300])


class Code:
    """Ends the process that unpickles it."""

    def __reduce__(self):
        return exec, ("raise SystemExit('code of a checkpoint was run')",)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, r"w\.pt \(.* bytes\) that is damaged or cut short"),
        (lambda f: (f / "w.pt").write_bytes(b""), r"w\.pt \(0 bytes\) that is empty"),
        (
            lambda f: (f / "w.pt").write_bytes(b"version https://git-lfs.github.com/spec/v1\n"),
            "git-lfs pointer.*lfs pull",
        ),
        (lambda f: (f / "w.pt").write_bytes(b"<html>"), "markup such as a web page"),
        (lambda f: (f / "w.pt").write_bytes(b"PK\3\4 and more"), "damaged or cut short"),
        (lambda f: (f / "w.pt").write_bytes(b"\x80\2]q\0."), "damaged or cut short"),
        (lambda f: (f / "w.pt").write_bytes(b"hello"), "damaged or cut short"),
        (saved({"model": {}, "epoch": 1}), "with model, epoch and no weights"),
        (saved([torch.ones(1)]), "with list and no weights"),
        (
            saved({"model": {"a": torch.ones(1)}, "x": Code()}),
            r"with a Python object in it \(.*\).*not read.*trust",
        ),
        (saved({"module": {"bert.encoder.layer.0.PreAttentionLayerNorm.weight": torch.ones(1)}}), r"pre-LN"),
        (saved({"module": {"bert.encoder.FinalLayerNorm.weight": torch.ones(1)}}), r"pre-LN"),
        (saved({"module": {"bert.pooler.dense_act.bias": torch.ones(0)}}), r"stage 3 of ZeRO .*zero_to_fp32"),
        (saved({"a": torch.ones(1)}), r"w\.pt without \d+ weights, such as bert\.embeddings.*it has a"),
        (lambda f: (f / "bert_config.json").unlink(), r"no config\.json and no bert_config\.json .*fix: set config"),
        (lambda f: (f / "vocab.txt").unlink(), r"no vocab\.txt and no tokenizer\.json .*fix: set vocab"),
        (lambda f: (f / "bert_config.json").write_text("{}"), r"no vocab_size in .*bert_config\.json"),
        (lambda f: (f / "w.pt").unlink(), r"no file, folder or TensorFlow checkpoint .*fix: set source"),
    ],
)
def test_what_is_wrong_with_a_source_is_refused(model, tmp_path, spoil, message):
    source = tmp_path / "source"
    source.mkdir()
    (source / "bert_config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 2}))
    shutil.copy(GOOGLE / "vocab.txt", source)
    torch.save(model.state_dict(), source / "w.pt")
    spoil(source)
    with pytest.raises(UserError, match=message) as refusal:
        imported(source / "w.pt", tmp_path / "out")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("key", "argument"), [("config", "config_file"), ("vocab", "vocabulary_file")])
def test_a_file_that_is_not_there_is_named_by_its_key(google, tmp_path, key, argument):
    with pytest.raises(UserError, match=f"no file {key}=.*nowhere; .* fix: set {key}"):
        imported(google, tmp_path / "out", **{argument: tmp_path / "nowhere"})


def test_rows_that_are_no_padding_are_refused(model, google, tmp_path):
    """48 rows for 41 entries pad to a multiple of 8; 47 do not."""
    state = nvidia(model.state_dict())
    for name, value in state.items():
        if value.shape[0] == 48:
            state[name] = value[:47]
    torch.save(state, google / "w.pt")
    (google / "bert_config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 2}))
    with pytest.raises(UserError, match=r"of 47 x 12 in .*; expected 41 x 12, by config\.json"):
        imported(google / "w.pt", tmp_path / "out")


def test_casing_is_what_is_said_and_never_contradicts_the_vocabulary(google, tmp_path):
    vocabulary = google / "vocab.txt"
    vocabulary.write_text(vocabulary.read_text().replace("\ng\nh\ni\n", "\nG\nH\nI\n"))
    with pytest.raises(UserError, match=r"do_lower_case=true .*'G'.* fix: set is_lowercase=false"):
        imported(google, tmp_path / "out")
    folder = imported(google, tmp_path / "out", is_lowercase=False)
    assert AutoTokenizer.from_pretrained(folder)("G")["input_ids"] == [3, ENTRIES.index("g"), 4]
    with pytest.raises(UserError, match=r"is_lowercase=true with .*, which says otherwise"):
        imported(folder, tmp_path / "again", is_lowercase=True)


def test_another_import_is_kept_or_replaced_as_asked(google, tmp_path, capsys):
    out = imported(google, tmp_path / "out")
    imported(google, out, if_exists="resume")
    assert "holds" in capsys.readouterr().out
    (google / "vocab.txt").write_text((google / "vocab.txt").read_text().replace("[unused1]", "[unused2]"))
    with pytest.raises(UserError, match="an imported model at"):
        imported(google, out, if_exists="resume")
    imported(google, out, if_exists="restart")
    assert "[unused2]" in (out / "vocab.txt").read_text()
    (google / "bert_model.ckpt.index").write_bytes(b"")
    with pytest.raises(UserError, match="empty"):
        imported(google, out, if_exists="restart")
    assert (out / "model.safetensors").is_file()


def test_an_imported_folder_imports_to_itself(google, tmp_path):
    first = imported(google, tmp_path / "first")
    second = imported(first, tmp_path / "second")
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
