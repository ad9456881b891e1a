"""`initial_weights`: pretraining that starts from an existing BERT instead of random weights.

The folder's vocabulary must be that of the shards: the same id would be another word otherwise, in silence.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from bert_lamb.checkpoint.folder.contents import input_files
from bert_lamb.checkpoint.folder.pretrained import VOCABULARY_ROWS, Pretrained, read_pretrained
from bert_lamb.errors import UserError
from bert_lamb.model.bert import BertPretrainingModel
from bert_lamb.outputs.hashing import file_sha256
from bert_lamb.pretraining.admission import Phase
from bert_lamb.shards import Vocabulary

OPTION = "initial_weights"
SIZES = {  # of a recipe's model -> as transformers calls them
    "num_layers": "num_hidden_layers",
    "hidden_size": "hidden_size",
    "num_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "max_position_embeddings": "max_position_embeddings",
    "init_std": "initializer_range",
}
FIXED = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "type_vocab_size": 2}  # what pretraining here computes


@dataclass(frozen=True)
class InitialWeights:
    """A folder's weights, and the folder they are from."""

    folder: Path
    pretrained: Pretrained

    def sizes(self) -> dict[str, Any]:
        """The sizes of the folder's config.json, as a recipe's `model` has them."""
        return {ours: getattr(self.pretrained.config, theirs) for ours, theirs in SIZES.items()}

    def describe(self) -> str:
        """One line: where the weights are from, and which the folder does not have."""
        missing = ", ".join(self.pretrained.missing)
        return f"weights  {self.folder}" + (f"; drawn from the seed: {missing}" if missing else ", both heads included")

    def sha256(self) -> str:
        """Of the names and bytes of the files that decide what the model computes."""
        files = sorted(input_files(self.folder, option=OPTION).items())
        return hashlib.sha256("".join(f"{name} {file_sha256(path)}\n" for name, path in files).encode()).hexdigest()

    def load_into(self, model: BertPretrainingModel) -> None:
        """Copy every weight that the folder has; rows that pad the vocabulary, and missing heads, stay as drawn."""
        parameters = dict(model.bert.named_parameters())
        num_entries = self.pretrained.tokenizer.num_ids
        with torch.no_grad():
            for name, weight in self.pretrained.weights.items():
                if name.endswith(VOCABULARY_ROWS):
                    parameters[name][:num_entries] = weight[:num_entries]
                else:
                    parameters[name].copy_(weight)


def read_initial_weights(folder: Path) -> InitialWeights:
    """The weights of a model folder; raises UserError for a folder that pretraining here cannot start from."""
    pretrained = read_pretrained(folder, option=OPTION)
    for key, expected in FIXED.items():
        if (found := getattr(pretrained.config, key)) != expected:
            raise UserError(
                found=f"{key}={found!r} in the config.json of {folder}",
                expected=f"{expected!r}, as BERT has it and pretraining here computes",
                fix=f"set {OPTION} to a plain BERT",
            )
    return InitialWeights(folder, pretrained)


def check_phases(initial: InitialWeights, phases: Sequence[Phase]) -> None:
    """Refuse shards of another vocabulary, and phases that are longer than the model's positions."""
    check_vocabulary(initial.pretrained, phases[0].training.manifest.vocabulary, phases[0].training.vocabulary_path)
    positions = initial.pretrained.config.max_position_embeddings
    for phase in phases:
        if phase.settings.max_seq_length > positions:
            raise UserError(
                found=f"phases.{phase.stage.name}.max_seq_length={phase.settings.max_seq_length}",
                expected=f"at most the {positions} positions of {initial.folder}",
                fix="shorten or remove the phase",
            )


def check_vocabulary(pretrained: Pretrained, of_shards: Vocabulary, file: Path, *, option: str = OPTION) -> None:
    """UserError where the shards' vocabulary (its vocab.txt is `file`) has other entries, or another casing."""
    ours = pretrained.tokenizer.entries
    theirs = file.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    theirs = [entry.removesuffix("\r") for entry in theirs]
    if ours != theirs:
        differing = [number for number, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]]
        first = differing[0] if differing else min(len(ours), len(theirs))
        raise UserError(
            found=f"a vocabulary of {len(ours):,} entries (sha256 {_sha256(ours)}) with the weights and one of"
            f" {len(theirs):,} ({_sha256(theirs)}) with the shards, which differ from id {first} on",
            expected="one vocabulary: an id is a row of the embeddings",
            fix=f"prepare the shards with vocabulary.file=FOLDER/vocab.txt of the model's folder, or set {option}",
        )
    if pretrained.tokenizer.casing.is_lowercase != of_shards.is_lowercase:
        raise UserError(
            found=f"shards made with is_lowercase={str(of_shards.is_lowercase).lower()} and a model whose tokenizer has"
            f" do_lower_case={str(pretrained.tokenizer.casing.is_lowercase).lower()}",
            expected="the casing that the model was pretrained with",
            fix=f"prepare the shards with vocabulary.is_lowercase={str(not of_shards.is_lowercase).lower()}",
        )


def _sha256(entries: list[str]) -> str:
    return hashlib.sha256("".join(f"{entry}\n" for entry in entries).encode()).hexdigest()[:12] + "..."
