"""Everything that a task trains on and is scored on: the model, and the rows and labels of each split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bert_lamb.engine.launch import Process
from bert_lamb.finetuning.glue.examples import Example
from bert_lamb.finetuning.glue.features import Row, make_rows
from bert_lamb.finetuning.glue.folders import Loaded, WordPieces, check_lengths, describe_model, load_classifier
from bert_lamb.finetuning.glue.sources import Inputs, Sources

MAX_UNKNOWN_SHARE = 0.05  # of the tokens; more [UNK] is said


@dataclass(frozen=True)
class Material:
    """The model, and the rows and labels of every split."""

    loaded: Loaded
    examples: dict[str, list[Example]]
    rows: dict[str, list[Row]]

    def labels(self, split: str) -> list[Any]:
        return [example.label for example in self.examples.get(split, [])]


def read_material(inputs: Inputs, process: Process, *, max_seq_length: int, seed: int) -> Material:
    """The model and every row; raises UserError. seed: draws the weights that the folder does not have."""
    sources = inputs.sources
    loaded = load_classifier(
        sources.model_dir,
        num_answers=sources.task.num_answers,
        is_pretrained=sources.is_pretrained,
        draws_head=sources.is_trained,
        seed=seed,
    )
    check_lengths(max_seq_length, loaded.model)
    if process.is_main:
        print(f"{sources.model_dir}: {describe_model(loaded, is_pretrained=sources.is_pretrained)}", flush=True)
        if (warning := loaded.tokenizer.warn_of_casing()) is not None:
            print(f"{sources.model_dir}: {warning}", flush=True)
    rows = {
        split: make_rows(
            examples, loaded.tokenizer, max_seq_length=max_seq_length, name=split, is_shown=process.is_main
        )
        for split, examples in inputs.examples.items()
    }
    if process.is_main:
        for split, of_split in rows.items():
            print(describe_rows(split, of_split, loaded.tokenizer, max_seq_length), flush=True)
    return Material(loaded, inputs.examples, rows)


def check_model(sources: Sources, *, max_seq_length: int, seed: int) -> None:
    """UserError for a model folder that cannot be used, or not with so many tokens."""
    loaded = load_classifier(
        sources.model_dir,
        num_answers=sources.task.num_answers,
        is_pretrained=sources.is_pretrained,
        draws_head=sources.is_trained,
        seed=seed,
    )
    check_lengths(max_seq_length, loaded.model)


def describe_rows(split: str, rows: Sequence[Row], tokenizer: WordPieces, max_seq_length: int) -> str:
    """One line on a split; says so when much of it is cut or is not in the vocabulary."""
    num_tokens = sum(len(row.input_ids) for row in rows)
    unknown_share = sum(row.input_ids.count(tokenizer.unk_id) for row in rows) / num_tokens
    num_full = sum(len(row.input_ids) == max_seq_length for row in rows)
    line = f"{split}: {len(rows):,} examples, {num_tokens / len(rows):.1f} tokens on average"
    if num_full:
        line += f", {num_full:,} fill max_seq_length={max_seq_length} or are cut"
    if unknown_share > MAX_UNKNOWN_SHARE:
        line += f"; {unknown_share:.0%} of the tokens are {tokenizer.special['unk']}: is this the right vocabulary?"
    return line
