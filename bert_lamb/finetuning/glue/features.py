"""Second stop of the GLUE path: examples -> rows of tokens, `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`.

A pair that is too long loses tokens from the end of the longer text, one at a time, as in Google's run_classifier.py
(github.com/google-research/bert, _truncate_seq_pair).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bert_lamb.finetuning.glue.examples import Example
from bert_lamb.finetuning.glue.folders import WordPieces
from bert_lamb.progress import Progress

EXAMPLES_PER_BATCH = 1024  # whose texts are tokenized together


@dataclass(frozen=True)
class Row:
    """An example as BERT reads it."""

    input_ids: list[int]
    second_start: int  # where the second text begins; the length of input_ids for a single text


def make_rows(
    examples: Sequence[Example], tokenizer: WordPieces, *, max_seq_length: int, name: str, is_shown: bool
) -> list[Row]:
    """The rows of all examples, in order. max_seq_length: most tokens of a row."""
    rows: list[Row] = []
    with Progress(f"tokenize {name}", total=len(examples), unit="examples", is_shown=is_shown) as progress:
        for first in range(0, len(examples), EXAMPLES_PER_BATCH):
            chunk = examples[first : first + EXAMPLES_PER_BATCH]
            encoded = iter(tokenizer.encode([text for example in chunk for text in example.texts]))
            for example in chunk:
                parts = [next(encoded).ids for _ in example.texts]
                rows.append(make_row(parts, tokenizer, max_seq_length))
            progress.update(len(chunk))
    return rows


def make_row(parts: Sequence[Sequence[int]], tokenizer: WordPieces, max_seq_length: int) -> Row:
    """One row of one text or two, given by their ids; a second text without tokens counts as none, as for Google."""
    parts = [part for i, part in enumerate(parts) if part or i == 0]
    room = max_seq_length - 1 - len(parts)
    kept = kept_lengths([len(part) for part in parts], room)
    ids = [tokenizer.cls_id]
    starts = []
    for part, length in zip(parts, kept, strict=True):
        starts.append(len(ids))
        ids += [*part[:length], tokenizer.sep_id]
    return Row(ids, starts[1] if len(parts) == 2 else len(ids))


def kept_lengths(lengths: Sequence[int], room: int) -> list[int]:
    """How many tokens of each text stay, so that all have room; of two equally long ones the second loses the next."""
    if len(lengths) == 1:
        return [min(lengths[0], room)]
    first, second = lengths
    if first + second <= room:
        return [first, second]
    kept_of_first = max(room - second, min(first, room - room // 2))
    return [kept_of_first, room - kept_of_first]
