"""A stranger's model folder: read right, or refused with the file, what it has and what was expected.

Truth: the tensors that were written, and transformers' own loading where it is right.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForPreTraining, BertForQuestionAnswering

from bert_lamb.checkpoint.folder.contents import check_folder, input_files
from bert_lamb.errors import UserError
from bert_lamb.finetuning.squad.model import load_model
from tests.tiny_bert import tiny_config

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 440449768\n"
QUERY = "encoder.layer.1.attention.self.query.weight"


def load(folder: Path, **changes):
    return load_model(folder, **{"is_pretrained": True, "needs_head": False, "seed": 3, **changes})


@pytest.fixture
def folder(tmp_path, encoder_dir) -> Path:
    return Path(shutil.copytree(encoder_dir, tmp_path / "model"))


def edit_json(file: Path, *drop: str, **changes) -> None:
    content = {**(json.loads(file.read_text()) if file.exists() else {}), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if key not in drop}))


def configured(*drop, **changes):
    return lambda folder: edit_json(folder / "config.json", *drop, **changes)


def reweighed(change):
    """Write the weights anew after `change` (dict -> dict)."""

    def spoil(folder: Path) -> None:
        file = folder / "model.safetensors"
        weights = {name: value.clone() for name, value in change(load_file(file)).items()}
        save_file(weights, file, metadata={"format": "pt"})

    return spoil


def shard(folder: Path) -> None:
    """As a large model is saved: two files and an index."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    index = {}
    for i, part in enumerate((names[:20], names[20:]), start=1):
        file = f"model-{i:05d}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(part, file)
    edit_json(folder / "model.safetensors.index.json", weight_map=index)


def sharded(then):
    def spoil(folder: Path) -> None:
        shard(folder)
        then(folder)

    return spoil


def as_torch_file(folder: Path, *, is_zip: bool = True) -> None:
    """As transformers 4 saved models."""
    torch.save(
        load_file(folder / "model.safetensors"),
        folder / "pytorch_model.bin",
        _use_new_zipfile_serialization=is_zip,
    )
    (folder / "model.safetensors").unlink()


def shard_torch_file(folder: Path) -> None:
    shard(folder)
    index = index_of(folder)
    for name in set(index.values()):
        torch.save(
            load_file(folder / name), folder / name.replace("model-", "pytorch_model-").replace("safetensors", "bin")
        )
        (folder / name).unlink()
    (folder / "model.safetensors.index.json").unlink()
    names = {key: name.replace("model-", "pytorch_model-").replace("safetensors", "bin") for key, name in index.items()}
    edit_json(folder / "pytorch_model.bin.index.json", weight_map=names)


def torch_file(content):
    """pytorch_model.bin with this in it, in the place of the weights."""

    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        if isinstance(content, bytes):
            (folder / "pytorch_model.bin").write_bytes(content)
        else:
            torch.save(content, folder / "pytorch_model.bin")

    return spoil


def cut_torch_file(folder: Path) -> None:
    as_torch_file(folder)
    file = folder / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:-400])


def unnamed_torch_shard(folder: Path) -> None:
    shard_torch_file(folder)
    file = folder / "pytorch_model.bin.index.json"
    index = json.loads(file.read_text())["weight_map"]
    del index["pooler.dense.weight"]
    edit_json(file, weight_map=index)


def index_of(folder: Path) -> dict[str, str]:
    return json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]


def named_wrongly(folder: Path) -> None:
    index = index_of(folder)
    edit_json(
        folder / "model.safetensors.index.json",
        weight_map={**index, "embeddings.LayerNorm.bias": index["pooler.dense.weight"]},
    )


def not_named(folder: Path) -> None:
    index = index_of(folder)
    del index["pooler.dense.weight"]
    edit_json(folder / "model.safetensors.index.json", weight_map=index)


def writes(name: str, content: bytes):
    return lambda folder: (folder / name).write_bytes(content)


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def with_nan(weights):
    weights[QUERY][3, 4] = torch.nan
    return weights


def overflown(weights):
    weights[QUERY] = weights[QUERY].half()
    weights[QUERY][0, 0] = torch.inf
    return weights


SIZES = r"embeddings\.word_embeddings\.weight of 186 x 32 in .*model\.safetensors.*; expected 180 x 32, by config\.json"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            writes("model.safetensors", POINTER),
            r"model\.safetensors \(.* bytes\) that is a git-lfs pointer.*git lfs pull",
        ),
        (writes("model.safetensors", b""), r"model\.safetensors \(0 bytes\) that is empty"),
        (writes("model.safetensors", b"<html>404</html>" * 9), "that is markup such as a web page"),
        (writes("model.safetensors", b"PK\3\4" * 40), "that is a zip archive"),
        (writes("model.safetensors", b"\x20\0\0\0\0\0\0\0" + b"{" * 40), "that is damaged or cut short"),
        (cut, r"model\.safetensors .* that is damaged or cut short"),
        (sharded(lambda f: (f / "model-00002-of-00002.safetensors").unlink()), "no file .*model-00002-of-00002"),
        (sharded(writes("model-00001-of-00002.safetensors", POINTER)), "model-00001.* that is a git-lfs pointer"),
        (
            sharded(named_wrongly),
            r"model-00002.* without embeddings\.LayerNorm\.bias; expected it, as .*index\.json says",
        ),
        (sharded(not_named), r"pooler\.dense\.weight in .*, which .*index\.json does not name"),
        (sharded(writes("model.safetensors.index.json", b"{}")), "without a weight_map"),
        (sharded(writes("model.safetensors.index.json", b'{"weight_map": {"a": "../../x"}}')), "without a weight_map"),
        (sharded(writes("model.safetensors.index.json", POINTER)), r"index\.json that is a git-lfs pointer"),
        (
            lambda f: (f / "model.safetensors").rename(f / "tf_model.h5"),
            r"tf_model\.h5 without model\.safetensors .*fix: convert it .*from_tf=True",
        ),
        (
            lambda f: (f / "model.safetensors").rename(f / "bert_model.ckpt.index"),
            r"without model\.safetensors .*fix: convert it: bert-lamb import source=.*bert_model\.ckpt\.index",
        ),
        (torch_file(POINTER), r"pytorch_model\.bin \(.* bytes\) that is a git-lfs pointer.*git lfs pull"),
        (torch_file(b""), r"pytorch_model\.bin \(0 bytes\) that is empty"),
        (torch_file(b"<html>"), "markup such as a web page; expected a file of torch.save"),
        (torch_file({"model": {"a": torch.ones(2)}}), r"without tensors at its top \(model\).*fix: .*bert-lamb import"),
        (torch_file({"a": torch.ones(2), "b": Path("x")}), r"a Python object in it \(pathlib\.PosixPath\)"),
        (torch_file({QUERY: torch.ones(32, 32).to_sparse()}), "without 36 weights"),
        (cut_torch_file, r"pytorch_model\.bin .* that is damaged or cut short"),
        (unnamed_torch_shard, r"pooler\.dense\.weight in .*\.bin, which .*bin\.index\.json does not name"),
        (lambda f: (f / "model.safetensors").rename(f / "adapter_model.safetensors"), "but adapter_model"),
        (configured(vocab_size=180), SIZES),
        (configured(hidden_size=64), r"of 186 x 32 .*\(\d+ of 37 weights differ\); expected 186 x 64"),
        (configured(intermediate_size=48), r"intermediate\.dense\.weight of 64 x 32 .* expected 48 x 32"),
        (configured(max_position_embeddings=512), r"position_embeddings\.weight of 64 x 32 .* expected 512 x 32"),
        (
            configured(num_hidden_layers=1),
            r"16 weights of the encoder in .* that config\.json does not describe, such as",
        ),
        (configured(num_hidden_layers=3), r"without 16 weights, such as bert\.encoder\.layer\.2"),
        (configured(num_attention_heads=5), "hidden_size=32 with num_attention_heads=5"),
        (configured("num_attention_heads"), "no num_attention_heads in .*config.json"),
        (configured(num_hidden_layers="2"), "num_hidden_layers='2' in .*; expected a whole number"),
        (configured(num_hidden_layers=True), "num_hidden_layers=True"),
        (configured(hidden_size=0), "hidden_size=0"),
        (configured(type_vocab_size=1), "type_vocab_size=1 .* expected 2 token types"),
        (configured(position_embedding_type="relative_key"), "position_embedding_type='relative_key'"),
        (configured(is_decoder=True), "is_decoder=True .* expected a plain BERT encoder"),
        (configured(add_cross_attention=True), "add_cross_attention=True"),
        (configured(pruned_heads={"0": [1]}), "pruned_heads="),
        (configured(quantization_config={"bits": 8}), "quantization_config="),
        (configured(auto_map={"AutoModel": "modeling.Jina"}), "auto_map="),
        (configured(hidden_act="swoosh"), "hidden_act='swoosh'"),
        (configured(layer_norm_eps="1e-12"), "layer_norm_eps='1e-12'"),
        (configured(hidden_dropout_prob=1.0), r"hidden_dropout_prob=1\.0"),
        (configured(model_type="roberta"), "model_type 'roberta'"),
        (configured("model_type"), "model_type None .* configuration of Google"),
        (writes("config.json", b"[]"), r"config\.json with list; expected a json object"),
        (writes("config.json", b"{'a': 1}"), r"config\.json that is not json"),
        (writes("config.json", '{"ä": 1}'.encode("latin1")), r"config\.json that is not UTF-8"),
        (writes("config.json", "{}".encode("utf-16")), r"config\.json that is UTF-16"),
        (writes("config.json", b'{"vocab_size": 5, "vocab_size": 6}'), "the key 'vocab_size' more than once"),
        (writes("config.json", POINTER), r"config\.json that is a git-lfs pointer"),
        (writes("config.json", b"[" * 100_000), r"config\.json"),
        (reweighed(with_nan), rf"{QUERY} in .* with values that are not finite"),
        (reweighed(overflown), rf"{QUERY} in .* with values that are not finite"),
        (reweighed(lambda w: {**w, QUERY: w[QUERY].to(torch.int8)}), rf"{QUERY} as I8 in"),
        (reweighed(lambda w: {f"module.bert.{n}": v for n, v in w.items()}), r"it has module\.bert\.embeddings"),
        (reweighed(lambda w: {**w, f"bert.{QUERY}": w[QUERY]}), f"both .*{QUERY}"),
        (reweighed(lambda w: {**w, f"{QUERY}.lora_A": w[QUERY]}), "1 weights of the encoder .*lora_A"),
        (reweighed(lambda w: {**w, "bert.adapter.weight": w[QUERY]}), r"such as bert\.adapter\.weight"),
        (
            reweighed(lambda w: {**w, "qa_outputs.weight": torch.zeros(3, 32), "qa_outputs.bias": torch.zeros(3)}),
            "qa_outputs",
        ),
        (
            reweighed(lambda w: {**w, "qa_outputs.weight": torch.zeros(2, 32)}),
            r"without 1 weights, such as qa_outputs\.bias",
        ),
    ],
)
def test_what_is_wrong_with_a_folder_is_refused(folder, spoil, message):
    spoil(folder)
    with pytest.raises(UserError, match=message) as refusal:
        load(folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("names", "fix"),
    [
        ([], "hf download"),
        (["checkpoints/"], "bert-lamb export run_dir="),
        (["checkpoint.json"], "bert-lamb export run_dir=.* checkpoint=runs"),
        (["checkpoints/", "model/", "model/config.json"], "model_dir=.*/model"),
    ],
)
def test_a_folder_of_ours_that_is_no_export_says_what_to_do(tmp_path, names, fix):
    folder = tmp_path / "runs"
    for name in names:
        folder.mkdir(exist_ok=True)
        (folder / name).mkdir() if name.endswith("/") else (folder / name).write_text("{}")
    with pytest.raises(UserError, match=fix):
        check_folder(folder)


def of_old_tensorflow(weights):
    """The names of checkpoints from before 2019."""
    return {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in weights.items()
    }


def with_heads(weights):
    """What checkpoints of other tasks carry besides the encoder."""
    heads = {
        "cls.predictions.bias": torch.zeros(186),
        "classifier.weight": torch.ones(5, 32),
        "linear.weight": torch.ones(9),
    }
    buffers = {
        "embeddings.position_ids": torch.arange(64),
        "embeddings.token_type_ids": torch.zeros(64, dtype=torch.int64),
    }
    return {**weights, **heads, **buffers}


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        (lambda folder: None, 0),
        (shard, 0),
        (as_torch_file, 0),
        (lambda folder: as_torch_file(folder, is_zip=False), 0),
        (shard_torch_file, 0),
        (reweighed(of_old_tensorflow), 0),
        (reweighed(with_heads), 0),
        (reweighed(lambda w: {f"bert.{name}": value for name, value in w.items()}), 0),
        (reweighed(lambda w: {name: value.double() for name, value in w.items()}), 0),
        (reweighed(lambda w: {name: value.half() for name, value in w.items()}), 1e-3),
        (reweighed(lambda w: {name: value.bfloat16() for name, value in w.items()}), 1e-2),
        (configured(num_labels=5, return_dict=False, output_attentions=True, is_decoder=0, pruned_heads={}), 0),
        (configured(id2label={"0": "a", "1": "b", "2": "c"}, chunk_size_feed_forward=7, torchscript=True), 0),
        (configured(dtype="bfloat16", torch_dtype="float16", position_embedding_type="absolute"), 0),
        (lambda f: (f / "config.json").write_bytes(b"\xef\xbb\xbf" + (f / "config.json").read_bytes()), 0),
    ],
)
def test_the_weights_of_a_folder_are_those_of_the_model(folder, encoder_dir, change, tolerance):
    """Spellings that mean one model; two outputs, fp32, and what its forward gives is an output with logits."""
    written = load_file(encoder_dir / "model.safetensors")
    change(folder)
    loaded = load(folder)
    ours = dict(loaded.model.named_parameters())
    for name, value in written.items():
        if not name.startswith("pooler."):
            assert ours[f"bert.{name}"].dtype is torch.float32
            assert (ours[f"bert.{name}"] - value).abs().max() <= tolerance
    assert {name.removeprefix("bert.").split(".")[0] for name in loaded.left_over} >= {"pooler"}
    assert loaded.model.qa_outputs.weight.shape == (2, 32)
    assert loaded.model(torch.tensor([[2, 9, 3]])).start_logits.shape == (1, 3)
    assert not loaded.has_own_head


def test_settings_that_change_the_computation_arrive(folder, encoder_dir):
    """Against transformers' own model of the same folder: activation and the eps of LayerNorm."""
    edit_json(folder / "config.json", hidden_act="relu", layer_norm_eps=0.1)
    theirs = BertForQuestionAnswering.from_pretrained(folder)
    theirs.qa_outputs.load_state_dict(load(folder).model.qa_outputs.state_dict())
    ids = torch.tensor([[2, 9, 10, 3]])
    with torch.no_grad():
        wanted = theirs.eval()(ids).start_logits
        assert torch.allclose(load(folder).model.eval()(ids).start_logits, wanted, atol=1e-6)
        assert not torch.allclose(load(encoder_dir).model.eval()(ids).start_logits, wanted, atol=1e-3)


def test_a_head_is_drawn_from_the_seed_or_taken(folder, tokenizer):
    """The draw is transformers' own: normal(0, initializer_range) as the first numbers after the seed."""
    torch.manual_seed(3)
    drawn = torch.empty(2, 32).normal_(0, 0.02)
    assert torch.equal(load(folder).model.qa_outputs.weight, drawn)
    assert not torch.equal(load(folder, seed=4).model.qa_outputs.weight, drawn)
    with pytest.raises(UserError, match="without a question-answering head"):
        load(folder, needs_head=True)
    torch.manual_seed(0)
    theirs = BertForQuestionAnswering(tiny_config(tokenizer))
    theirs.save_pretrained(folder)
    loaded = load(folder, needs_head=True)
    assert loaded.has_own_head
    assert torch.equal(loaded.model.qa_outputs.weight, theirs.qa_outputs.weight)


def test_an_export_with_pretraining_heads_loads(folder, tokenizer):
    model = BertForPreTraining(tiny_config(tokenizer))
    model.save_pretrained(folder)
    loaded = load(folder)
    assert torch.equal(
        loaded.model.bert.encoder.layer[1].output.dense.weight, model.bert.encoder.layer[1].output.dense.weight
    )
    assert {name.split(".")[0] for name in loaded.left_over} == {"bert", "cls"}  # bert.pooler


def test_every_file_that_decides_is_recorded(folder):
    shard(folder)
    assert set(input_files(folder, is_pretrained=True)) == {
        *("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"),
        *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
    } & {path.name for path in folder.iterdir()}
