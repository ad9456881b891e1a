"""What pretraining takes from a stranger's folder: encoder, vocabulary, and the heads that are there.

Truth: the parameters of the transformers' model that was saved.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertForMaskedLM, BertForPreTraining, BertForSequenceClassification, BertModel

from bert_lamb.checkpoint.folder.pretrained import Pretrained, read_pretrained
from bert_lamb.checkpoint.folder.weights import read_weights
from bert_lamb.errors import UserError
from tests.tiny_bert import CHARACTERS, tiny_config

POOLER = {"bert.pooler.dense.weight", "bert.pooler.dense.bias"}
SENTENCE = {"cls.seq_relationship.weight", "cls.seq_relationship.bias"}
WORDS = {
    f"cls.predictions.{name}"
    for name in (
        *("bias", "transform.dense.weight", "transform.dense.bias"),
        *("transform.LayerNorm.weight", "transform.LayerNorm.bias"),
    )
}


@pytest.fixture
def folder(tmp_path, encoder_dir) -> Path:
    return Path(shutil.copytree(encoder_dir, tmp_path / "model"))


def saved(model, folder: Path) -> Pretrained:
    model.save_pretrained(folder)
    return read_pretrained(folder)


@pytest.mark.parametrize(
    ("kind", "missing", "left_over"),
    [
        (BertForPreTraining, set(), []),
        (BertForMaskedLM, POOLER | SENTENCE, []),
        (BertModel, WORDS | SENTENCE, []),
        (lambda config: BertModel(config, add_pooling_layer=False), POOLER | WORDS | SENTENCE, []),  # MiniLM
        (BertForSequenceClassification, WORDS | SENTENCE, ["classifier.bias", "classifier.weight"]),
    ],
)
def test_what_is_there_is_taken_and_the_rest_is_named(folder, tokenizer, kind, missing, left_over):
    torch.manual_seed(1)
    model = kind(tiny_config(tokenizer))
    found = saved(model, folder)
    assert (set(found.missing), found.left_over) == (missing, left_over)
    names = dict(BertForPreTraining(tiny_config(tokenizer)).named_parameters())
    assert found.weights.keys() | missing == names.keys()
    theirs = dict(model.named_parameters())
    for name, weight in found.weights.items():
        assert weight.dtype is torch.float32
        assert torch.equal(weight, theirs.get(name, theirs.get(name.removeprefix("bert."))))
    assert found.config.hidden_size == 32
    assert found.tokenizer.entries[5 : 5 + len(CHARACTERS)] == CHARACTERS
    assert found.tokenizer.casing.is_lowercase
    assert found.config.pad_token_id == 0


def respelled(folder: Path, change) -> None:
    file = folder / "model.safetensors"
    save_file({name: value.clone() for name, value in change(load_file(file)).items()}, file, metadata={"format": "pt"})


def test_a_tied_weight_may_be_there_twice_but_not_differ(folder, tokenizer):
    model = BertForPreTraining(tiny_config(tokenizer))
    torch.nn.init.normal_(model.cls.predictions.bias)
    words = model.bert.embeddings.word_embeddings.weight.detach()
    copies = {"cls.predictions.decoder.weight": words, "cls.predictions.decoder.bias": model.cls.predictions.bias}
    model.save_pretrained(folder)
    respelled(folder, lambda weights: {**weights, **copies})
    assert read_pretrained(folder).left_over == []
    bias = "cls.predictions.bias"
    respelled(folder, lambda weights: {name: value for name, value in weights.items() if name != bias})
    assert torch.equal(read_pretrained(folder).weights[bias], model.cls.predictions.bias)
    respelled(folder, lambda weights: {**weights, "cls.predictions.decoder.weight": words + 1})
    with pytest.raises(UserError, match=r"decoder\.weight in .* that differs from bert\.embeddings\.word_embeddings"):
        read_pretrained(folder)


def test_half_a_head_is_refused(folder, tokenizer):
    BertForPreTraining(tiny_config(tokenizer)).save_pretrained(folder)
    respelled(folder, lambda w: {name: value for name, value in w.items() if name != "cls.predictions.bias"})
    with pytest.raises(UserError, match=r"without 1 weights, such as cls\.predictions\.bias"):
        read_pretrained(folder)


def test_messages_name_the_key_that_the_caller_has(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="fix: set initial_model to an export"):
        read_pretrained(folder, option="initial_model")
    (folder / "config.json").write_text(json.dumps({"model_type": "roberta"}))
    with pytest.raises(UserError, match="fix: set initial_model to an export"):
        read_pretrained(folder, option="initial_model")


def test_more_ids_than_embeddings_are_refused(folder, tokenizer):
    config = tiny_config(tokenizer)
    config.vocab_size -= 1
    BertModel(config).save_pretrained(folder)
    with pytest.raises(UserError, match=r"token ids up to 185 in .* with vocab_size=185"):
        read_pretrained(folder)


def test_a_classifier_is_taken_whole_or_named_as_missing(folder, tokenizer):
    """As GLUE will read a folder: any number of labels, by the caller's own model."""
    config = tiny_config(tokenizer)
    config.num_labels = 3
    model = BertForSequenceClassification(config)
    found = read_weights(folder, model.state_dict(), optional=["classifier."])
    assert found.missing == ["classifier.bias", "classifier.weight"]
    model.save_pretrained(folder)
    found = read_weights(folder, model.state_dict(), optional=["classifier."])
    assert found.missing == []
    assert torch.equal(found.taken["classifier.weight"], model.classifier.weight)
